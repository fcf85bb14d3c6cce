"""What a job's data is, as tables: times that are cut off, names of copies, the checksum of zeros, whose work is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pytest
from awscrt.checksums import crc64nvme

from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobState, Origin, Phase, Stat
from ncaasd.plan.copies import Copy, named_as_copy
from ncaasd.plan.doubts import crc_of_zeros
from ncaasd.plan.renames import itself, renamed, same_recording, same_time, same_work, taken_over

T = builders.T


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (T, T, True),
        (T, T + 1, False),
        (T, T - T % 100, True),  # NTFS, SMB
        (T, T - T % 1_000, True),
        (T, T - T % 1_000_000, True),
        (T, T - T % 1_000_000_000, True),  # whole seconds
        (T, T - T % 2_000_000_000, True),  # FAT
        (T, T - T % 1_000_000_000 + 1_000_000_000, False),
        (T - T % 100, T - T % 100 + 100, False),
        (T - T % 1_000_000_000, T - T % 1_000_000_000 + 1_000_000_000, False),
        (-T, -T, True),  # before 1970
    ],
)
def test_a_time_may_be_cut_off_by_a_move_and_is_the_same_still(one: int, other: int, same: bool) -> None:
    assert same_time(one, other) is same_time(other, one) is same


def row(number: int, path: str, **changes: Any) -> FileRow:
    return replace(builders.row(f"inputs/{path}", id=number, crc="c"), **changes)


GONE = row(1, "old.tif", state=FileState.GONE)
OTHER_INODE = Stat(1000, T, T + 5, 8)


@pytest.mark.parametrize(
    ("now", "before", "same"),
    [
        (row(2, "new.tif"), GONE, True),
        (row(2, "new.tif", stat=OTHER_INODE), GONE, True),
        (row(2, "new.tif", crc="d"), GONE, False),
        (row(2, "new.tif", stat=Stat(1000, T + 1, T, 7)), GONE, False),
        (row(2, "new.tif", stat=Stat(0, T, T, 7)), replace(GONE, stat=Stat(0, T, T, 7)), False),
        (row(2, "new.tif"), replace(GONE, stored=Stat(1000, T - 5, T, 7)), False),  # changed after it was stored
        # not stored yet: its checksum is that of what was there before, if any
        (row(2, "new.tif", state=FileState.WHOLE, crc="", stored=None), GONE, True),
        (row(2, "new.tif", state=FileState.WHOLE, crc="", stored=None, stat=OTHER_INODE), GONE, False),
    ],
)
def test_a_recording_is_known_by_size_time_and_checksum(now: FileRow, before: FileRow, same: bool) -> None:
    assert same_recording(now, before) is same


# Of a file that is gone, and whose key another file has taken, only its size and time are known (F96).
TAKEN = replace(GONE, stored=None, etag="", crc="")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (None, False),
        (GONE, True),
        (TAKEN, True),
        (replace(TAKEN, stat=Stat(1000, T + 1, T, 7)), False),
        (replace(TAKEN, stat=Stat(999, T, T, 7)), False),
        (row(1, "old.tif"), False),  # a copy: the first is there still
        (row(1, "old.tif", etag="f"), True),  # another content is there by now
        (row(1, "old.tif", stored=None), False),
        (row(2, "new.tif", state=FileState.GONE), False),  # itself
    ],
)
def test_a_content_that_is_not_any_more_where_it_was(there: FileRow | None, taken: bool) -> None:
    assert taken_over(row(2, "new.tif"), there) is taken


def job(path: str, **changes: Any) -> JobRow:
    return builders.job(path, row=1 if path == "new.tif" else 2, **changes)


SENT = {"phase": Phase.SUBMITTED, "job_id": "123"}


@pytest.mark.parametrize(
    ("earlier", "same"),
    [
        (job("old.tif", **SENT), True),
        (job("old.tif", phase=Phase.INTENT, job_id="123"), True),
        (job("old.tif", phase=Phase.ENDED, job_id="123", state=JobState.FAILED), True),
        (job("old.tif"), False),
        (job("old.tif", **SENT, forgotten=True), False),
        (job("old.tif", phase=Phase.ENDED, job_id="123", state=JobState.REFUSED), False),
        (job("old.tif", **SENT, verdict=JobState.REFUSED), False),
        (job("old.tif", **SENT, name="other"), False),
        (job("old.tif", **SENT, origin=Origin.MANIFEST), False),
    ],
)
def test_the_same_work_is_what_one_rule_has_submitted(earlier: JobRow, same: bool) -> None:
    assert same_work(job("new.tif"), earlier) is same


@pytest.mark.parametrize(
    ("changes", "same"),
    [({}, True), ({"config": "d.yaml"}, False), ({"overlay": '{"x": 1}'}, False), ({"name": "x"}, True)],
)
def test_the_same_work_of_one_offs_is_that_of_one_config(changes: dict[str, str], same: bool) -> None:
    mine, other = (job(p, origin=Origin.MANIFEST, **more) for p, more in (("new.tif", {}), ("old.tif", SENT | changes)))
    assert same_work(mine, other) is same


def test_what_the_earlier_job_did_not_have_is_no_rename() -> None:
    def stop(*earlier: JobRow, gone: FileRow = GONE, mine: JobRow = job("new.tif")) -> bool:  # noqa: B008
        found = renamed(mine, [itself(row(2, "new.tif"))], lambda _row: [gone], lambda _key: earlier)
        return found is not None

    assert stop(job("old.tif", **SENT))
    assert not stop()
    assert not stop(job("old.tif", **SENT, datasets=(Dataset("old.tif", "g/inputs/old.tif", "another version"),)))
    assert not stop(job("old.tif", **SENT), mine=job("new.tif", released=frozenset({"renamed"})))
    assert not stop(job("old.tif", **SENT), mine=job("new.tif", attempt=1))
    assert not stop(job("old.tif", **SENT), gone=replace(GONE, key="g/inputs/new.tif"))  # another name for one key
    assert not renamed(job("new.tif"), [None], lambda _row: [GONE], lambda _key: [job("old.tif", **SENT)])


@pytest.mark.parametrize(
    ("path", "original"),
    [
        ("M7/a (1).tif", "M7/a.tif"),
        ("M7/a(12).tif", "M7/a.tif"),
        ("a - Copy.tif", "a.tif"),
        ("a - Copy (2).tif", "a.tif"),
        ("a - Kopie.tif", "a.tif"),
        ("Copy of a.tif", "a.tif"),
        ("Copy (2) of a.tif", "a.tif"),
        ("Kopie von a.tif", "a.tif"),
        ("a copy.tif", "a.tif"),
        ("a copy 2.tif", "a.tif"),
        ("a 2.tif", "a.tif"),
        ("M7 - Copy/a.tif", "M7/a.tif"),
        ("a (1)", "a"),
    ],
)
def test_where_the_original_of_a_copy_would_be(path: str, original: str) -> None:
    assert original in [copy.original for copy in named_as_copy(path)]


@pytest.mark.parametrize(
    "path",
    ["a.tif", "a_1.tif", "a_00001.tif", "a(2024).tif", "copy.tif", "copyright.tif", "M7/a copycat.tif", "conflict.tif",
     "a_conflict.tif", "conference (day one).tif", "a 1.tif", "photocopy.tif"],
)  # fmt: skip
def test_names_that_are_no_copies(path: str) -> None:
    assert named_as_copy(path) == []


def test_a_conflict_is_certain_by_its_name_alone() -> None:
    (found,) = named_as_copy("M7 (Rig1's conflicted copy 2024-01-02 (2))/a.tif")
    assert found == Copy("a conflict copy, as Dropbox or Nextcloud makes them")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4095, 4096, 100_003])
def test_the_checksum_of_zeros(size: int) -> None:
    assert crc_of_zeros(size) == crc64nvme(b"\0" * size)


def test_the_checksum_of_many_zeros_is_found_at_once() -> None:
    assert 0 < crc_of_zeros(5 * 2**40) < 2**64
