"""What of a unit a job needs, and what keeps it back: one line for each case."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from ncaasd.declare.manifest import Rule
from ncaasd.model import FileRow, FileState, Place, Stat
from ncaasd.plan import grouping
from ncaasd.plan.grouping import Beside, Matcher, Unit, matcher

ANALYSIS = "caiman-web"


def rule(**more: Any) -> Matcher:
    told = {"name": "r", "datasets": ("*.tif",), "config": "c.yaml", "unit": "{animal}/{run}", **more}
    return matcher(Rule.model_validate(told))


def row(name: str, state: FileState = FileState.STORED, reason: str = "") -> FileRow:
    place = Place(ANALYSIS, "", f"inputs/M7/1/{name}")
    key = f"lab/inputs/M7/1/{name}"
    return FileRow(zlib.crc32(name.encode()), place, Stat(1, 1, 1, 1), state, reason, 0.0, key, None, "", 0.0, 0)


def unit(*rows: FileRow) -> Unit:
    return Unit("M7/1", {}, {r.place.path.removeprefix("inputs/M7/1/"): r for r in rows})


@pytest.mark.parametrize(
    ("more", "needed", "not_needed"),
    [
        ({}, ["a.tif", "stim.csv", "sub/x.bin"], []),
        ({"exclude": ("*.csv",)}, ["a.tif"], ["stim.csv"]),
        ({"with": ("stim.csv",)}, ["stim.csv"], ["a.tif", "notes.txt"]),
        ({"with": ()}, [], ["a.tif", "stim.csv"]),
        ({"package": "zip"}, ["stim.csv"], ["a.tif"]),  # the datasets go up in the package
        ({"source": "rig1"}, ["a.tif"], ["stim.csv"]),  # of a source nothing else goes up
        ({"source": "rig1", "with": ("stim.csv",)}, ["stim.csv"], ["a.tif", "notes.txt"]),
    ],
    ids=str,
)
def test_what_must_be_in_s3_beside_the_data(more: dict[str, Any], needed: list[str], not_needed: list[str]) -> None:
    m = rule(**more)
    assert [n for n in (*needed, *not_needed) if m.needs(n)] == needed


@pytest.mark.parametrize(
    ("more", "lacking", "of_no_matter"),
    [
        ({}, ["a.tif", "x.lnk", "sub/"], []),
        ({"exclude": ("*.lnk", "sub/**")}, ["a.tif"], ["x.lnk", "sub/"]),
        ({"exclude": ("sub",)}, ["a.tif"], ["sub/"]),
        ({"exclude": ("sub/*.tif",)}, ["sub/"], []),  # something else may be in it
        ({"with": ()}, ["a.tif", "sub/"], ["x.lnk"]),
        ({"source": "rig1"}, ["a.tif", "sub/"], ["x.lnk"]),  # a folder may hold datasets
        ({"package": "zip"}, ["a.tif", "x.lnk"], []),
    ],
    ids=str,
)
def test_without_which_parts_a_unit_is_not_whole(
    more: dict[str, Any], lacking: list[str], of_no_matter: list[str]
) -> None:
    m = rule(**more)
    assert [n for n in (*lacking, *of_no_matter) if m.lacks(n)] == lacking


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, 300.0),
        ({"complete_when": ("DONE",)}, 0.0),
        ({"whole_after": 7.0}, 7.0),
        ({"whole_after": 0.0}, 0.0),
        ({"whole_after": 7.0, "complete_when": ("DONE",)}, 7.0),
        ({"unit": None}, 0.0),
    ],
    ids=str,
)
def test_how_long_a_unit_must_be_left_alone(more: dict[str, Any], seconds: float) -> None:
    assert rule(**more).whole_after(30.0) == seconds


SKIP, HELD, WHOLE, WRITTEN = FileState.SKIPPED, FileState.HELD, FileState.WHOLE, FileState.SETTLING


@pytest.mark.parametrize(
    ("more", "rows", "pause", "found"),
    [
        ({}, [row("a.tif")], "", Beside()),
        ({}, [row("a.tif"), row("x.csv", WHOLE)], "", Beside(files=(row("x.csv", WHOLE),))),
        ({}, [row("a.tif"), row("x.csv", HELD)], "", Beside(files=(row("x.csv", HELD),))),
        ({}, [row("a.tif"), row("x.csv", FileState.GONE)], "", Beside()),
        (
            {},
            [row("a.tif"), row("b.tif", WRITTEN)],
            "",
            Beside(unit="M7/1 to be whole: it waits until b.tif in M7/1 is whole"),
        ),
        ({}, [row("a.tif")], "waits 5m", Beside(unit="M7/1 to be whole: it waits 5m")),
        (
            {"complete_when": ("DONE",)},
            [row("a.tif"), row("DONE", SKIP, "a link")],
            "",
            Beside(lacking="M7/1/DONE can't be taken: a link"),
        ),
        (
            {},
            [row("a.tif", SKIP, "a pipe"), row("b.tif", SKIP, "a link")],
            "waits 5m",
            Beside(lacking="M7/1/a.tif can't be taken: a pipe; and 1 more of it can't be taken"),
        ),
        ({"with": ()}, [row("a.tif"), row("x.csv", SKIP, "a link"), row("y", HELD)], "", Beside()),
    ],
    ids=[
        "all is there",
        "to be uploaded",
        "held",
        "gone",
        "being written",
        "a pause",
        "a gate that is a link",
        "two links",
        "nothing else is needed",
    ],
)
def test_what_keeps_a_job_back(more: dict[str, Any], rows: list[FileRow], pause: str, found: Beside) -> None:
    assert grouping.beside(rule(**more), unit(*rows), pause, lambda _row: True) == found


def test_a_file_that_never_goes_up_keeps_nothing_back() -> None:
    whole = unit(row("a.tif"), row("packed.bin", WHOLE))
    assert grouping.beside(rule(), whole, "", lambda r: r.place.path.endswith("a.tif")) == Beside()


def test_what_is_asked_again_follows_the_rows() -> None:
    m, seen = rule(), unit(row("a.tif"), row("x.csv", WHOLE))
    assert len(list(seen.to_store(m))) == 1 and seen.skipped(m) == ""
    seen.put("x.csv", row("x.csv"))
    assert list(seen.to_store(m)) == []
    seen.put("y.csv", row("y.csv", SKIP, "a link"))
    assert "y.csv" in seen.skipped(m)
    seen.put("y.csv", row("y.csv", WHOLE))
    assert (seen.skipped(m), len(list(seen.to_store(m)))) == ("", 1)
