"""A key that has no effect yet is refused at its line, instead of being ignored."""

from __future__ import annotations

import pytest
from declare_tables import CONFIG, problems

from ncaasd.declare import unbuilt
from ncaasd.declare.config import load_config
from ncaasd.declare.manifest import parse_manifest

RULE = "rules:\n  - name: r\n    datasets: '**/*.tif'\n    config: c.yaml\n    unit: '{animal}'\n"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("notify: {urls: [ntfy://x]}", "notify.urls"),
        ("notify: {heartbeat: 'https://hc.example/x'}", "notify.heartbeat"),
        ("results: {fetch: all}", "results.fetch"),
        ("after_results: {local_inputs: {move: '/a/{path}'}}", "after_results.local_inputs"),
        ("after_results: {remote_inputs: delete}", "after_results.remote_inputs"),
        ("tools: {t: [x]}\nafter_results: {run: t}", "after_results.run"),
    ],
)
def test_the_config_refuses_what_has_no_effect(more: str, key: str) -> None:
    if key.rpartition(".")[2] not in unbuilt.KEYS:
        pytest.skip("it has an effect by now")
    found = problems(lambda: load_config((CONFIG + more).encode(), "c.yaml"))
    line = len((CONFIG + more).splitlines())
    assert [(p[0], p[2], p[3]) for p in found] == [(line, key, f"not built yet: {key}; leave it out")]


@pytest.mark.parametrize("more", ["package: zip", "overdue: 6h"])
def test_the_manifest_refuses_what_has_no_effect(more: str) -> None:
    key = more.partition(":")[0]
    if key not in unbuilt.KEYS:
        pytest.skip("it has an effect by now")
    text = f"{RULE}    {more}\n".encode()
    found = problems(lambda: parse_manifest(text, "m.yaml", standing=True, sources=[], tools=[]))
    assert [(p[0], p[2], p[3]) for p in found] == [(6, f"rules[0].{key}", f"not built yet: {key}; leave it out")]


def test_what_is_left_at_its_default_is_no_problem() -> None:
    more = (
        "notify: {urls: [], heartbeat: null}\nafter_results: {local_inputs: keep}\nresults: {fetch: mine}\nweb: off\n"
    )
    assert problems(lambda: load_config((CONFIG + more).encode(), "c.yaml")) == []
