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


LINKS = {f"inputs/M7/{n}": "a link" for n in "cba"}


@pytest.mark.parametrize(
    ("found", "most", "made"),
    cases(
        ("as many as may be", LINKS, 3, dict.fromkeys(sorted(LINKS), "a link")),
        ("one too many: their folder stands for all", LINKS, 2,
         {"inputs/M7/": "3 things in it are skipped, too many to be told one by one; the first is inputs/M7/a: a link"}),
        ("the fullest folder first", LINKS | {"inputs/M8/x": "a pipe"}, 3,
         {"inputs/M7/": "3 things in it are skipped, too many to be told one by one; the first is inputs/M7/a: a link",
          "inputs/M8/x": "a pipe"}),
        ("of equally full ones the first by name", {f"inputs/{m}/{n}": "a link" for m in ("B", "A") for n in "xy"}, 3,
         {"inputs/A/": "2 things in it are skipped, too many to be told one by one; the first is inputs/A/x: a link",
          "inputs/B/x": "a link", "inputs/B/y": "a link"}),
        ("a folder that is skipped itself is counted in what stands for it",
         {"inputs/M7/": "no rights", "inputs/M7/a": "a link", "inputs/M7/b": "a link"}, 1,
         {"inputs/M7/": "3 things in it are skipped, too many to be told one by one; the first is inputs/M7/a: a link"}),
        ("folders stand for folders, and keep the first example", LINKS | {f"inputs/M8/{n}": "a pipe" for n in "xyz"}, 1,
         {"inputs/": "6 things in it are skipped, too many to be told one by one; the first is inputs/M7/a: a link"}),
        ("thousands are told with a comma", {f"inputs/M7/{n:04}": "a link" for n in range(1200)}, 1,
         {"inputs/M7/":
          "1,200 things in it are skipped, too many to be told one by one; the first is inputs/M7/0000: a link"}),
        ("nothing is skipped", {}, 1, {}),
    ),
)  # fmt: skip
def test_what_stands_for_what(found: dict[str, str], most: int, made: dict[str, str]) -> None:
    assert to_record("", found, most) == made
    assert list(to_record("", found, most)) == sorted(made)


def test_a_trees_own_folder_is_the_last_that_stands_for_all() -> None:
    found = {f"a{n}": "a link" for n in range(3)}
    assert to_record("share", found, 1) == {
        "/": "3 things in it are skipped, too many to be told one by one; the first is a0: a link"
    }
    assert list(to_record("share", found | {"/": "no rights"}, 0)) == ["/"], "and nothing stands for it"
