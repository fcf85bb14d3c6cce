"""What a job's config comes to, under which name, and when it has to wait for its turn at a shared one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from builders import LAYOUT, cases

from ncaasd.neurocaas.naming import config_name, safe_key
from ncaasd.plan.configs import Rendered, etag_of, render, turn

YAML = b"# of M7\nfr: 30\n"
NONE = "{}"


def rendered(text: bytes = YAML, name: str = "c.yaml", overlay: str = NONE, **more: Any) -> Rendered:
    return render(text, name, overlay, LAYOUT, **more)


@pytest.mark.parametrize(
    ("name", "overlay", "as_name", "key", "own"),
    cases(
        ("named by its content", "c.yaml", NONE, "content", f"lab/configs/{config_name('c.yaml', YAML)}", True),
        ("named by its content, in a folder", "x/c.yaml", NONE, "content", f"lab/configs/{config_name('x/c.yaml', YAML)}", True),
        ("under its own name", "c.yaml", NONE, "keep", "lab/configs/c.yaml", True),
        ("under its own name, mapped", "c d.yaml", NONE, "keep", f"lab/configs/{safe_key('c d.yaml')}", True),
        ("under the name that its analysis opens", "M7.yaml", NONE, "config.yaml", "lab/configs/config.yaml", True),
        ("a name of another kind", "M7.yaml", NONE, "config.json", "lab/configs/config.json", False),
        ("with an overlay, under its own name", "c.yaml", '{"fr": 60}', "keep", "lab/configs/c.yaml", False),
    ),
)  # fmt: skip
def test_where_a_config_goes(name: str, overlay: str, as_name: str, key: str, own: bool) -> None:
    made = rendered(name=name, overlay=overlay, as_name=as_name)
    assert (made.key, made.problem) == (key, "")
    assert (made.content == YAML) is own, "without an overlay the bytes are the file's own"
    assert made.shared is (as_name != "content"), "under a name of its content nothing else can lie"
    assert made.etag == hashlib.md5(made.content, usedforsecurity=False).hexdigest() == etag_of(made.content)


def test_an_overlay_is_laid_over_and_gives_another_name() -> None:
    made, plain = rendered(overlay='{"fr": 60}'), rendered()
    assert b"fr: 60" in made.content and made.key != plain.key
    assert made.key == f"lab/configs/{config_name('c.yaml', made.content)}"


def test_a_config_of_another_kind_is_written_in_it() -> None:
    made = rendered(overlay='{"q": 1}', as_name="config.json")
    assert json.loads(made.content) == {"fr": 30, "q": 1}


@pytest.mark.parametrize(
    ("text", "name"),
    cases(
        ("nothing in it", b"", "c.yaml"),
        ("no mapping", b"- 1\n", "c.yaml"),
        ("no YAML", b"a: [\n", "c.yaml"),
        ("an ending that NeuroCAAS does not read", YAML, "c.yml"),
    ),
)
def test_what_is_no_config_is_said_and_put_nowhere(text: bytes, name: str) -> None:
    made = rendered(text, name)
    assert made.problem.startswith("a config that can be used: ") and f"configs/{name}" in made.problem
    assert (made.key, made.content, made.shared) == ("", b"", False)


@pytest.mark.parametrize(
    ("others", "waits_for"),
    cases(
        ("nobody has had one there", [], ""),
        ("another is reading the same", [("job 1", "mine", True)], ""),
        ("another is reading another", [("job 1", "theirs", True)], "job 1"),
        ("another had another", [("job 1", "theirs", False)], ""),
        ("of many the first that reads another", [("job 1", "mine", True), ("job 2", "x", False), ("job 3", "y", True)],
         "job 3"),
    ),
)  # fmt: skip
def test_whose_turn_it_is(others: list[tuple[str, str, bool]], waits_for: str) -> None:
    why = turn("lab/configs/config.yaml", "mine", others)
    said = f"its turn: {waits_for} may be reading another config as lab/configs/config.yaml"
    assert why == (said if waits_for else "")
