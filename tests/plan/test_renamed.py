"""Which jobs are held because an earlier one had the same data under a name that is gone (F103)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from builders import T, cases, ended, in_unit, job, package_of, row, sent, session, unit

from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobState, Origin, Phase, Place, Stat
from ncaasd.plan.renames import Piece, itself, packed, renamed, same_recording, same_work, taken_over

GONE, WHOLE, STORED = FileState.GONE, FileState.WHOLE, FileState.STORED
NOW_HERE = row("inputs/new.tif", crc="c")
OLD = row("inputs/old.tif", GONE, crc="c", etag="e", stored=NOW_HERE.stat)
MINE = job("new.tif")
EARLIER = sent("old.tif", datasets=(Dataset("old.tif", OLD.key, "e"),))


def reason(
    mine: JobRow,
    pieces: Iterable[Piece | None],
    gone: Iterable[FileRow],
    jobs: Iterable[JobRow],
    given: Iterable[JobRow] = (),
) -> str:
    """Why it is held; "" when it goes. `gone`: what a look at the journal finds of that size."""
    there = list(gone)

    def jobs_using(key: str) -> list[JobRow]:
        return [j for j in jobs if any(d.key == key for d in j.spec.datasets)]

    def was(place: Place) -> FileRow | None:
        return next((r for r in there if r.place == place), None)

    stop = renamed(mine, pieces, lambda _row: there, jobs_using, was, lambda _row: given)
    if stop is None:
        return ""
    assert (stop.kind, stop.asks, stop.held) == ("renamed", True, True)
    return stop.reason


TWICE = ": the same data would be paid for twice"
IS = "new.tif is old.tif renamed, which job 123 "


@pytest.mark.parametrize(
    ("now", "gone", "earlier", "why"),
    cases(
        ("its job runs", NOW_HERE, OLD, EARLIER, f"{IS}was submitted for{TWICE}"),
        ("its job is done", NOW_HERE, OLD, ended(unit="old.tif", datasets=EARLIER.spec.datasets), f"{IS}has analysed{TWICE}"),
        ("its job failed", NOW_HERE, OLD, ended(JobState.FAILED, "old.tif", datasets=EARLIER.spec.datasets),
         f"{IS}was submitted for (failed){TWICE}"),
        ("not stored yet: it is told by size, time and inode", replace(NOW_HERE, state=WHOLE), OLD, EARLIER,
         f"new.tif seems to be old.tif renamed, which job 123 was submitted for{TWICE}"),
        ("the old name is still there: a copy", NOW_HERE, None, EARLIER, ""),
        ("not stored yet, of another inode", row("inputs/new.tif", WHOLE, stat=Stat(1000, T, T, 8)), OLD, EARLIER, ""),
        ("its job was given another version, and something else of its ETag", NOW_HERE, OLD,
         sent("old.tif", datasets=(Dataset("old.tif", OLD.key, "older"), Dataset("b.tif", "k", "e"))), ""),
        ("another content", row("inputs/new.tif", crc="d"), OLD, EARLIER, ""),
        ("its job was given another version", NOW_HERE, replace(OLD, etag="newer"), EARLIER, ""),
        ("its job's version isn't known", NOW_HERE, OLD, sent("old.tif", datasets=(Dataset("old.tif", OLD.key),)),
         f"{IS}was submitted for{TWICE}"),
        ("another rule's job had it", NOW_HERE, OLD, sent("old.tif", name="other", datasets=EARLIER.spec.datasets), ""),
        ("its job was not sent", NOW_HERE, OLD, job("old.tif", job_id="123", datasets=EARLIER.spec.datasets), ""),
        ("its job has no id", NOW_HERE, OLD, replace(EARLIER, job_id=""), ""),
        ("its job was refused, and cost nothing", NOW_HERE, OLD, ended(JobState.REFUSED, "old.tif",
         datasets=EARLIER.spec.datasets), ""),
        ("its job was forgotten", NOW_HERE, OLD, replace(EARLIER, forgotten=True), ""),
        ("its job is this one", NOW_HERE, OLD, replace(EARLIER, row=MINE.row), ""),
    ),
)  # fmt: skip
def test_one_file_that_was_renamed(now: FileRow, gone: FileRow | None, earlier: JobRow, why: str) -> None:
    assert reason(MINE, [itself(now)], [gone] if gone else [], [earlier]) == why


@pytest.mark.parametrize(
    ("mine", "is_held"),
    cases(
        ("a first attempt", MINE, True),
        ("released", replace(MINE, released=frozenset({"renamed"})), False),
        ("released from something else", replace(MINE, released=frozenset({"copy"})), True),
        ("asked for again", replace(MINE, attempt=1), False),
    ),
)
def test_whose_data_is_compared(mine: JobRow, is_held: bool) -> None:
    assert bool(reason(mine, [itself(NOW_HERE)], [OLD], [EARLIER])) is is_held


B, OLD_B = row("inputs/new_b.tif", crc="b"), row("inputs/old_b.tif", GONE, crc="b", etag="e", stored=NOW_HERE.stat)
BOTH = sent("both", datasets=(Dataset("old.tif", OLD.key, "e"), Dataset("old_b.tif", OLD_B.key, "e")))
ONLY_B = sent("old_b.tif", datasets=(Dataset("old_b.tif", OLD_B.key, "e"),), job_id="124")


@pytest.mark.parametrize(
    ("pieces", "jobs", "is_held"),
    cases(
        ("one job had both", [itself(NOW_HERE), itself(B)], [BOTH], True),
        ("each was another job's", [itself(NOW_HERE), itself(B)], [EARLIER, ONLY_B], False),
        ("one of them is new", [itself(NOW_HERE), itself(row("inputs/x.tif", crc="x"))], [BOTH], False),
        ("one of them is nowhere here", [itself(NOW_HERE), None], [BOTH], False),
        (
            "one of them is made of nothing",
            [itself(NOW_HERE), Piece((), frozenset(), lambda _a, _b: "")],
            [BOTH],
            False,
        ),
        ("it has no dataset", [], [BOTH], False),
    ),
)
def test_all_datasets_must_have_been_one_jobs(pieces: list[Piece | None], jobs: list[JobRow], is_held: bool) -> None:
    assert bool(reason(MINE, pieces, [OLD, OLD_B], jobs)) is is_held


def test_of_several_the_newest_job_is_named_and_one_dataset_not_stored_makes_it_uncertain() -> None:
    older = replace(EARLIER, row=5, job_id="1")
    assert "which job 9 " in reason(MINE, [itself(NOW_HERE)], [OLD], [replace(older, row=8, job_id="9"), older])
    unsure = [itself(NOW_HERE), itself(replace(B, state=WHOLE))]
    assert " seems to be " in reason(MINE, unsure, [OLD, OLD_B], [BOTH])
    assert " seems to be " in reason(MINE, unsure[::-1], [OLD, OLD_B], [BOTH])


@pytest.mark.parametrize(
    ("given", "is_held"),
    cases(
        ("a job of this rule was given it under a name that something else has now", [EARLIER], True),
        ("a job of another rule was", [sent("current.tif", name="other")], False),
        ("nobody was", [], False),
    ),
)
def test_a_name_that_was_taken_over(given: list[JobRow], is_held: bool) -> None:
    assert bool(reason(MINE, [itself(NOW_HERE)], [], [], given)) is is_held


# -- packages

ZIP = session(package="zip")
HERE = [in_unit("a.tif", WHOLE), in_unit("sub/b.tif", WHOLE, stat=Stat(20, T + 5, T, 8))]


def gone_at(place: str, like: FileRow, **more: Any) -> FileRow:
    return row(f"inputs/{place}", GONE, stat=like.stat, **more)


WERE = [gone_at("M7/0/a.tif", HERE[0]), gone_at("M7/0/sub/b.tif", HERE[1])]
OLD_ZIP = sent("M7/0", datasets=(Dataset("M7/0.zip", "lab/inputs/M7/0.zip", "z"),))


def piece(m: Any = ZIP, files: list[FileRow] | None = None) -> Piece:
    return packed(m, unit(*(HERE if files is None else files)), package_of)


@pytest.mark.parametrize(
    ("were", "is_held"),
    cases(
        ("all of it is gone from its old folder", WERE, True),
        ("in whichever order", WERE[::-1], True),
        ("a part is still there: a copy", [WERE[0], row("inputs/M7/0/sub/b.tif", stat=HERE[1].stat)], False),
        ("a part was never there", WERE[:1], False),
        ("a part was of another time", [WERE[0], gone_at("M7/0/sub/b.tif", HERE[0])], False),
        ("a part had another name", [WERE[0], gone_at("M7/0/sub/c.tif", HERE[1])], False),
        ("the first part had another name", [gone_at("M7/0/c.tif", HERE[0]), WERE[1]], False),
        ("it was in no unit", [gone_at("a.tif", HERE[0]), gone_at("sub/b.tif", HERE[1])], False),
        ("it was in another tree", [row("M7/0/a.tif", GONE, tree="rig1", stat=HERE[0].stat),
                                    row("M7/0/sub/b.tif", GONE, tree="rig1", stat=HERE[1].stat)], False),
        ("nothing is gone", [], False),
        ("one of another length of name", [gone_at("Mouse7/00/a.tif", HERE[0]), gone_at("Mouse7/00/sub/b.tif", HERE[1])], True),
        ("of another inode, as after a mount", [
            gone_at("M7/0/a.tif", row(stat=Stat(1000, T, T + 9, 99))),
            gone_at("M7/0/sub/b.tif", row(stat=Stat(20, T + 5, T + 9, 98)))], True),
    ),
)  # fmt: skip
def test_a_package_is_told_by_names_sizes_and_times_of_all_in_it(were: list[FileRow], is_held: bool) -> None:
    jobs = [OLD_ZIP, sent("Mouse7/00", datasets=(Dataset("Mouse7/00.zip", "lab/inputs/Mouse7/00.zip", "z"),))]
    why = reason(job("M7/1"), [piece()], were, jobs)
    assert bool(why) is is_held
    assert not why or why.startswith(("M7/1 is M7/0 renamed", "M7/1 is Mouse7/00 renamed"))


def test_the_key_of_the_old_package_is_the_same_for_each_of_its_parts() -> None:
    made = piece()
    assert [made.old_key(now, was) for now, was in zip(HERE, WERE, strict=True)] == ["lab/inputs/M7/0.zip"] * 2


def test_a_package_of_its_own_key_is_no_rename() -> None:
    m = session(package={"tool": "t", "name": "{animal}.zip"})
    same = sent("M7/0", datasets=(Dataset("M7.zip", "lab/inputs/M7.zip", "z"),))
    assert not reason(job("M7/1"), [piece(m)], WERE, [same])
    assert piece(m).keys == {"lab/inputs/M7.zip"}


def test_a_package_of_nothing_is_compared_with_nothing() -> None:
    empty = piece(files=[in_unit("x.log")])
    assert (list(empty.files), empty.unit) == ([], 0)
    assert not reason(job("M7/1"), [empty], WERE, [OLD_ZIP])


def test_what_was_given_to_a_job_by_itself_says_nothing_of_a_package() -> None:
    assert not reason(job("M7/1"), [piece()], [], [], given=[OLD_ZIP])


# -- what is left of the comparison of two files

OTHER_TIME = Stat(1000, T + 1, T, 7)


@pytest.mark.parametrize(
    ("now", "before", "named", "same"),
    cases(
        ("at one place", NOW_HERE, replace(OLD, place=NOW_HERE.place), False, False),
        ("of another size", NOW_HERE, replace(OLD, stat=Stat(999, T, T, 7)), False, False),
        ("stored once, of another size by now", NOW_HERE, replace(OLD, stored=Stat(999, T, T, 7)), False, False),
        ("nothing is in either", row("inputs/new.tif", size=0, crc="c"),
         replace(OLD, stat=Stat(0, T, T, 7), stored=Stat(0, T, T, 7)), False, False),
        ("a byte is in each", row("inputs/new.tif", size=1, crc="c"),
         replace(OLD, stat=Stat(1, T, T, 7), stored=Stat(1, T, T, 7)), False, True),
        ("by its name, of another size", row("inputs/new.tif", WHOLE, size=999), OLD, True, False),
        ("changed since it was stored, with the checksum of before: by the inode", row("inputs/new.tif", WHOLE, crc="d"), OLD,
         False, True),
        ("changed since, another inode", row("inputs/new.tif", WHOLE, crc="c"),
         replace(OLD, stat=Stat(1000, T, T, 8)), False, False),
        ("only the new checksum isn't known: by the inode", row("inputs/new.tif"), OLD, False, True),
        ("only the old checksum isn't known: by the inode", NOW_HERE, replace(OLD, crc=""), False, True),
        ("only the old checksum isn't known, another inode", NOW_HERE,
         replace(OLD, crc="", stat=Stat(1000, T, T, 8)), False, False),
        ("only the new checksum isn't known, another inode", row("inputs/new.tif"),
         replace(OLD, stat=Stat(1000, T, T, 8)), False, False),
        ("nothing is known to be stored of it, another inode", NOW_HERE,
         replace(OLD, stored=None, stat=Stat(1000, T, T, 8)), False, False),
        ("of another time, by the inode", row("inputs/new.tif", WHOLE), replace(OLD, stat=OTHER_TIME), False, False),
        ("by its name, another inode", row("inputs/new.tif", WHOLE), replace(OLD, stat=Stat(1000, T, T, 8)), True, True),
        ("by its name, of another time", row("inputs/new.tif", WHOLE), replace(OLD, stat=OTHER_TIME), True, False),
        ("by its name, but the checksums are known", NOW_HERE, replace(OLD, crc="d"), True, False),
    ),
)  # fmt: skip
def test_what_is_one_recording(now: FileRow, before: FileRow, named: bool, same: bool) -> None:
    assert same_recording(now, before, named=named) is same


@pytest.mark.parametrize(
    ("file", "there", "taken"),
    cases(
        ("the name's file has changed, and this one isn't stored", row("inputs/new.tif", WHOLE),
         row("inputs/current.tif", WHOLE, stored=Stat(1000, T - 1, T, 7)), True),
        ("the name's file has grown, and this one isn't stored", row("inputs/new.tif", WHOLE),
         row("inputs/current.tif", WHOLE, stored=Stat(999, T, T, 7)), True),
        ("the name's file is what was stored, and this one isn't stored", row("inputs/new.tif", WHOLE),
         row("inputs/current.tif"), False),
        ("the name's file is what was stored, of another ETag, and this one isn't stored", row("inputs/new.tif", WHOLE),
         row("inputs/current.tif", etag="f"), False),
        ("gone, of one size and another time", NOW_HERE, replace(OLD, stat=OTHER_TIME), False),
    ),
)  # fmt: skip
def test_a_name_that_something_else_has(file: FileRow, there: FileRow, taken: bool) -> None:
    assert taken_over(file, there) is taken


@pytest.mark.parametrize(
    ("mine", "earlier", "same"),
    cases(
        ("two manifests, one config", Origin.MANIFEST, Origin.MANIFEST, True),
        ("a manifest and a submit file, one config", Origin.MANIFEST, Origin.SUBMIT, True),
        ("a manifest, and a rule of this config", Origin.MANIFEST, Origin.RULE, False),
        ("a rule, and a manifest of this config", Origin.RULE, Origin.MANIFEST, False),
        ("a manifest, and what somebody else started", Origin.MANIFEST, Origin.ELSEWHERE, False),
    ),
)
def test_whose_work_is_the_same(mine: Origin, earlier: Origin, same: bool) -> None:
    assert same_work(job("new.tif", origin=mine), sent("old.tif", origin=earlier)) is same


def test_a_job_that_was_only_intended_may_have_been_sent() -> None:
    for phase in (Phase.INTENT, Phase.ATTEMPTED):
        assert reason(MINE, [itself(NOW_HERE)], [OLD], [replace(EARLIER, phase=phase)])
