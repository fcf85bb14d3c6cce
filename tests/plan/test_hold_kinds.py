"""The kinds of hold: one table, by which the journal's rows, `status`, `job` and the commands go."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_guards import job as any_job

from ncaasd.model import Hold, JobRow, Origin
from ncaasd.plan.holds import HOLDS, Ends, can_be_released, command, is_mended, released_before, table, with_way_on

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def job(origin: Origin = Origin.RULE) -> JobRow:
    return any_job(1, origin=origin)


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
    ("hold", "origin", "typed"),
    [
        (Hold.BACKLOG, Origin.RULE, "ncaasd release --rule dgp"),
        (Hold.BUDGET, Origin.MANIFEST, "ncaasd release dgp"),
        (Hold.PERSON, Origin.RULE, "ncaasd release m1.zip"),
        (Hold.COPY, Origin.MANIFEST, "ncaasd release dgp"),
        (Hold.REPLACED, Origin.RULE, "ncaasd rerun m1.zip"),
        (Hold.SAME, Origin.RULE, "ncaasd forget m1.zip"),
        (Hold.PART, Origin.RULE, ""),
        (Hold.DAY, Origin.RULE, ""),
    ],
)
def test_what_a_person_types(hold: Hold, origin: Origin, typed: str) -> None:
    assert command(job(origin), hold=hold) == typed


def test_what_a_person_types_where_the_job_has_a_number_and_for_all_that_are_alike() -> None:
    assert command(job(), hold=Hold.BACKLOG, who="12") == "ncaasd release 12"
    assert command(job(), hold=Hold.SAME, all_alike=True) == "ncaasd forget --rule dgp"


def test_being_held_again_uses_up_an_earlier_release() -> None:
    released = replace(job(), released=frozenset({"copy", "budget"}))
    assert released_before(released, Hold.BUDGET) == {"copy"}
    assert released_before(released, None) == {"copy", "budget"}
