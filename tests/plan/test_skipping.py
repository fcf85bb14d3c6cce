"""Which of the things that a scan skipped are kept."""

from __future__ import annotations

import pytest
from builders import cases

from ncaasd.plan.skipping import to_record


def test_only_what_a_rule_could_want_is_recorded() -> None:
    found = {"inputs/a": "x", "configs/b": "x", "submissions/c": "x", "inputs": "x", "inputs/m7/": "x"}
    assert to_record("", found) == {"inputs/a": "x", "inputs/m7/": "x"}
    assert to_record("share", {"a": "x", "configs/b": "y"}) == {"a": "x", "configs/b": "y"}


def test_of_too_many_the_fullest_folders_stand_for_all_in_them() -> None:
    found = {f"inputs/M7/s1/{n}": "a link" for n in range(50)} | {"inputs/M7/s2/x": "a pipe", "inputs/M8/": "no rights"}
    made = to_record("", found, 3)
    assert list(made) == ["inputs/M7/s1/", "inputs/M7/s2/x", "inputs/M8/"], "each unit still knows of its own"
    assert "50 things" in made["inputs/M7/s1/"] and "inputs/M7/s1/0: a link" in made["inputs/M7/s1/"]
    assert made["inputs/M8/"] == "no rights"


@pytest.mark.parametrize("most", [1, 2, 7, 100])
@pytest.mark.parametrize("tree", ["", "share"])
def test_never_more_than_the_most_and_everything_is_below_one_of_them(tree: str, most: int) -> None:
    top = "" if tree else "inputs/"
    paths = [f"{top}{a}/{b}/{c}" for a in range(6) for b in range(6) for c in range(6)] + [
        f"{top}flat{n}" for n in range(90)
    ]
    made = to_record(tree, dict.fromkeys(paths, "why"), most)
    assert len(made) <= most
    assert all(any(p == m or m == "/" or (m.endswith("/") and p.startswith(m)) for m in made) for p in paths)
