"""Which doubt about a job's data is said first, and what counts as never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from awscrt.checksums import crc64nvme
from builders import cases, job, row, sent

from ncaasd.model import Dataset, FileRow, FileState, JobRow
from ncaasd.plan.doubts import blank, doubt
from ncaasd.plan.renames import Piece, itself

ZEROS = f"{crc64nvme(bytes(1000)):x}"
BLANK, WRITTEN = row(crc=ZEROS), row(crc="c")
SAID = "a.tif has nothing but zeros in it, 1000 bytes: it was never written"


@pytest.mark.parametrize(
    ("mine", "files", "reason"),
    cases(
        ("something is in it", job(), [WRITTEN], ""),
        ("nothing but zeros", job(), [BLANK], SAID),
        ("nothing but zeros, of a source", job(), [row("a.tif", tree="rig1", crc=ZEROS)], SAID),
        ("the second of two", job(), [WRITTEN, row("inputs/b.tif", crc=ZEROS)], SAID.replace("a.tif", "b.tif")),
        ("zeros of another size", job(), [row(size=999, crc=ZEROS)], ""),
        ("its checksum isn't known", job(), [row()], ""),
        ("it has changed since it was stored", job(), [row(state=FileState.WHOLE, crc=ZEROS)], ""),
        ("released", job(released=frozenset({"zeros"})), [BLANK], ""),
        ("released from something else", job(released=frozenset({"copy"})), [BLANK], SAID),
        ("no files", job(), [], ""),
    ),
)
def test_F102_what_was_never_written(mine: JobRow, files: list[FileRow], reason: str) -> None:
    stop = blank(mine, files)
    assert (stop.reason if stop else "") == reason
    assert stop is None or (stop.kind == "zeros" and stop.asks)


COPY = row("inputs/a.sync-conflict-20240102-120000.tif", crc=ZEROS)  # a copy, nothing but zeros, and renamed
OLD = row("inputs/old.tif", FileState.GONE, crc=ZEROS, etag="e", stored=COPY.stat)
EARLIER = sent("old.tif", datasets=(Dataset("old.tif", OLD.key, "e"),))


def first_doubt(mine: JobRow, pieces: Sequence[Piece | None]) -> str:
    stop = doubt(
        mine,
        pieces,
        at=lambda _place: None,
        gone_like=lambda _row: [OLD],
        jobs_using=lambda _key: [EARLIER],
        was=lambda _place: None,
        given=lambda _row: (),
    )
    return stop.kind if stop else ""


@pytest.mark.parametrize(
    ("released", "kind"),
    [((), "copy"), (("copy",), "zeros"), (("copy", "zeros"), "renamed"), (("copy", "zeros", "renamed"), "")],
    ids=str,
)
def test_a_release_is_of_one_doubt_and_the_next_is_said(released: tuple[str, ...], kind: str) -> None:
    mine = job("new.tif", released=frozenset(released))
    assert first_doubt(mine, [itself(COPY)]) == kind
    assert first_doubt(mine, [None, itself(COPY)]) == kind.replace("renamed", ""), "what is not here may be anything"
    assert first_doubt(replace(mine, attempt=1), [itself(COPY)]) == "", "a rerun was asked for"
