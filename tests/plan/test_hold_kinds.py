"""The kinds of hold: one table, by which the journal's rows, `status`, `job` and the commands go."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders import cases, job, sent

from ncaasd.model import Hold, JobRow, Origin
from ncaasd.plan.holds import HOLDS, Ends, can_be_released, command, is_mended, released_before, table, with_way_on

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_each_kind_has_its_row() -> None:
    assert set(HOLDS) == set(Hold)


def test_the_page_has_what_the_code_prints() -> None:
    part = re.search(r"<!-- holds: .*? -->\n\n(.*?)\n\n<!-- end of holds -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert part is not None
    assert part[1] == table(), "docs/jobs.md has drifted: paste what `python -m ncaasd.plan.holds` prints"
    asked = [sys.executable, "-m", "ncaasd.plan.holds"]
    assert subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout == table() + "\n"


@pytest.mark.parametrize("hold", Hold)
def test_the_reason_names_the_command_that_works_and_no_other(hold: Hold) -> None:
    reason = with_way_on("why", hold, job())
    named = re.findall(r"`ncaasd (\w+)", reason)
    ends = HOLDS[hold].ends
    expected = [ends.value.strip("`").removeprefix("ncaasd ")] if ends.value.startswith("`") else []
    assert named == expected
    assert bool(command(job(), hold=hold)) == bool(expected)
    assert can_be_released(hold) == (expected == ["release"])
    assert is_mended(hold) == (ends is Ends.MENDING)


@pytest.mark.parametrize(
    ("kind", "held", "says"),
    cases(
        ("of a rule, for its rule's sake", "backlog", job(), "`ncaasd release --rule dgp` lets the rule's jobs go on"),
        ("of a rule, over budget", "budget", job(), "`ncaasd release --rule dgp` lets the rule's jobs go on"),
        ("of a rule, after failures", "failures", sent(), "`ncaasd release --rule dgp` lets the rule's jobs go on"),
        ("of a rule whose name has a space", "canary", job(name="my rule"), "`ncaasd release --rule 'my rule'` lets"),
        ("of a one-off", "budget", job(origin=Origin.MANIFEST, name="m 7"), "`ncaasd release 'm 7'` lets it go on"),
        ("one that has an id", "person", sent(), "`ncaasd release 123` lets it go on"),
        ("of a rule, not for its rule's sake", "unsure", job("M7/a b.tif"), "`ncaasd release 'M7/a b.tif'` lets it go on"),
        ("another's submit file", "foreign", sent(), "`ncaasd rerun 123` submits it under a new id"),
        ("another's data", "replaced", sent(), "`ncaasd rerun 123` submits it under a new id"),
        ("data that can't be seen", "unseen", sent(), "`ncaasd release 123` submits it all the same"),
        ("renamed", "renamed", job(), "`ncaasd release a.tif` runs it all the same (`forget` leaves it)"),
        ("a copy", "copy", job(), "`ncaasd release a.tif` runs it all the same (`forget` leaves it)"),
        ("zeros", "zeros", job(), "`ncaasd release a.tif` runs it all the same (`forget` leaves it)"),
        ("the same submit file", "same", job(), "it is made anew under another name; `ncaasd forget a.tif` leaves it"),
        ("anything else", "rebuilt", sent(), "`ncaasd release 123` lets it go on"),
    ),
)  # fmt: skip
def test_the_way_on_is_a_command(kind: Hold, held: JobRow, says: str) -> None:
    assert with_way_on("why", Hold(kind), held).startswith(f"why; {says}")


def test_what_a_person_types_where_the_job_has_a_number_and_for_all_that_are_alike() -> None:
    assert command(job(), hold=Hold.BACKLOG, who="12") == "ncaasd release 12"
    assert command(job(), hold=Hold.DAY) == command(job(), hold=Hold.PART) == ""
    assert command(job(), hold=Hold.SAME, all_alike=True) == "ncaasd forget --rule dgp"


def test_being_held_again_uses_up_an_earlier_release() -> None:
    released = replace(job(), released=frozenset({"copy", "budget"}))
    assert released_before(released, Hold.BUDGET) == {"copy"}
    assert released_before(released, None) == {"copy", "budget"}
