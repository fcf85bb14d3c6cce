"""A key that has no effect yet is refused at its line, instead of being ignored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from declare_tables import CONFIG, problems
from pydantic import BaseModel

from ncaasd.declare import example, unbuilt
from ncaasd.declare.config import Config, load_config


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ("notify: {urls: [ntfy://x]}", "notify.urls", "sends no messages"),
        ("notify: {heartbeat: 'https://hc.example/x'}", "notify.heartbeat", "calls no URL"),
        ("web: {listen: '0.0.0.0:80'}", "web.listen", "no status page"),
    ],
)
def test_the_config_refuses_what_has_no_effect(more: str, key: str, says: str) -> None:
    ((line, _column, found, message),) = problems(lambda: load_config((CONFIG + more).encode(), "c.yaml"))
    assert (line, found) == (len((CONFIG + more).splitlines()), key)
    assert message.startswith("not built yet: ") and says in message and "leave it out" in message


@pytest.mark.parametrize(
    "more",
    [
        "notify: {urls: [], heartbeat: null, events: [failed]}",
        "web: {listen: 127.0.0.1:8484}",
        "web: off",
        "results: {fetch: all}\nafter_results: {local_inputs: {move: '/a/{path}'}, remote_inputs: delete}",
    ],
)
def test_what_asks_for_nothing_or_is_built_is_no_problem(more: str) -> None:
    assert problems(lambda: load_config((CONFIG + more).encode(), "c.yaml")) == []


def described(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        section = example.section_of(field)
        if section is not None:
            yield from described(section, f"{above}{name}.")
        else:
            yield f"{above}{name}", example.meaning(field)


def test_the_documentation_says_so_of_these_keys_and_of_no_other() -> None:
    assert {key for key, meaning in described(Config) if unbuilt.MARK in meaning} == set(unbuilt.KEYS)
