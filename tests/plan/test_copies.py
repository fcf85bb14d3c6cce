"""Which jobs are held because one of their files is, by its name, a copy."""

from __future__ import annotations

import pytest
from builders import T, cases, in_unit, job, row

from ncaasd.model import FileRow, JobRow, Place, Stat
from ncaasd.plan.copies import Copy, copied, named_as_copy

CONFLICT = "a.sync-conflict-20240102-120000-ABCDEFG.tif"


def held(mine: JobRow, files: list[FileRow], there: list[FileRow]) -> str:
    """Why, without what is always said; "" when the job goes."""

    def at(place: Place) -> FileRow | None:
        return next((r for r in there if r.place == place), None)

    stop = copied(mine, files, at)
    if stop is None:
        return ""
    assert (stop.kind, stop.asks, stop.held) == ("copy", True, True)
    assert stop.reason.endswith(": its data may be paid for already")
    return stop.reason.removesuffix(": its data may be paid for already")


A, A1, A2 = row("inputs/M7/a.tif"), row("inputs/M7/a (1).tif"), row("inputs/M7/a 2.tif")
A1_IS = "M7/a (1).tif is, by its name, a copy of M7/a.tif, which is there too"
A2_IS = "M7/a 2.tif is, by its name, a copy of M7/a.tif, which is there too"


@pytest.mark.parametrize(
    ("files", "there", "why"),
    cases(
        ("an ordinary name", [A], [A, A1], ""),
        ("a conflict, the original not here", [row(f"inputs/M7/{CONFLICT}")], [],
         f"M7/{CONFLICT} is, by its name, a conflict copy, as Syncthing makes them"),
        ("a number in brackets, beside its original", [A1], [A, A1], A1_IS),
        ("a number in brackets, the original not here", [A1], [A1], ""),
        ("the original of another tree is not beside it", [A1], [row("M7/a.tif", tree="rig1")], ""),
        ("of a source, beside its original", [row("M7/a (1).tif", tree="rig1")], [row("M7/a.tif", tree="rig1")], A1_IS),
        ("the second of two files", [row("inputs/M7/b.tif"), A1], [A], A1_IS),
        # `x 2.tif` may be the second recording
        ("a number, with the same checksum", [row("inputs/M7/a 2.tif", crc="c")], [row("inputs/M7/a.tif", crc="c")], A2_IS),
        ("a number, with another checksum", [row("inputs/M7/a 2.tif", crc="c")], [row("inputs/M7/a.tif", crc="d")], ""),
        ("a number, of another size", [row("inputs/M7/a 2.tif", crc="c", size=9)], [row("inputs/M7/a.tif", crc="c")], ""),
        ("a number, of one size and time", [A2], [A], A2_IS),
        ("a number, of another time", [A2], [row("inputs/M7/a.tif", stat=Stat(1000, T + 1, T, 7))], ""),
        ("a number, one checksum not known, of one time", [row("inputs/M7/a 2.tif", crc="c")], [A], A2_IS),
        ("a number, the other checksum not known, of one time", [A2], [row("inputs/M7/a.tif", crc="c")], A2_IS),
        # sessions are numbered as copies of folders are
        ("a numbered folder, with the same bytes", [row("inputs/M7 (1)/a.tif")], [A],
         "M7 (1)/a.tif is, by its name, a copy of M7/a.tif, which is there too"),
        ("a numbered folder, with other bytes", [row("inputs/M7 (1)/a.tif", size=9)], [A], ""),
        ("a number in brackets, with other bytes: copies are changed", [row("inputs/M7/a (1).tif", size=9)], [A], A1_IS),
        ("a folder that is called a copy, with other bytes", [row("inputs/M7 - Copy/a.tif", size=9)], [A],
         "M7 - Copy/a.tif is, by its name, a copy of M7/a.tif, which is there too"),
        # what is not the recording's name
        ("a package is made here", [row(f"{CONFLICT}.zip", tree="package:dgp")], [], ""),
        ("no files", [], [], ""),
    ),
)  # fmt: skip
def test_F102_what_is_held_as_a_copy(files: list[FileRow], there: list[FileRow], why: str) -> None:
    assert held(job(), files, there) == why


@pytest.mark.parametrize(
    ("mine", "is_held"),
    cases(
        ("a first attempt", job(), True),
        ("released", job(released=frozenset({"copy"})), False),
        ("released from something else", job(released=frozenset({"renamed"})), True),
        ("asked for again", job(attempt=1), False),
    ),
)
def test_whose_copy_is_asked_about(mine: JobRow, is_held: bool) -> None:
    assert bool(held(mine, [A1], [A])) is is_held


@pytest.mark.parametrize(
    ("name", "program"),
    [
        (CONFLICT, "Syncthing"),
        ("a.sync-conflict-20240102-120000.tif", "Syncthing"),
        ("a (conflicted copy 2024-01-02).tif", "Dropbox or Nextcloud"),
        ("a (Rig1's conflicted copy 2024-01-02).tif", "Dropbox or Nextcloud"),
        ("a (Case Conflict).tif", "Dropbox"),
        ("a (Rig1's Unicode Encoding Conflict).tif", "Dropbox"),
        ("a (In Konflikt stehende Kopie 2024-01-02).tif", "Dropbox"),
        ("a_conflict-20240102-120000.tif", "ownCloud"),
        ("a (SFConflict me@lab.org 2024-01-02-12-00-00).tif", "Seafile"),
        ("a.Conflict.tif", "Resilio Sync or rclone"),
        ("a.tif.conflict1", "Resilio Sync or rclone"),
        ("a [conflicted].tif", "pCloud"),
        ("a (conflicted 2).tif", "pCloud"),
    ],
)
def test_whose_conflicts_are_known(name: str, program: str) -> None:
    assert named_as_copy(f"M7/{name}")[0] == Copy(f"a conflict copy, as {program} makes them")


@pytest.mark.parametrize(
    ("path", "equal"),
    [
        ("a (1).tif", False),
        ("a - Copy.tif", False),
        ("a_conf(1).tif", False),
        ("a 2.tif", True),  # people name their second recording so
        ("M7 (1)/a.tif", True),  # and their second session
        ("M7 - Copy/a.tif", False),
        ("M7 2/a.tif", True),
    ],
)
def test_which_originals_must_have_the_same_bytes(path: str, equal: bool) -> None:
    assert {copy.equal for copy in named_as_copy(path)} == {equal}


def test_the_certain_comes_before_the_doubtful() -> None:
    assert [bool(c.original) for c in named_as_copy("M7 (1)/a.conflict.tif")] == [False, True]


def test_the_parts_of_a_unit_are_asked_one_by_one() -> None:
    whole = [in_unit("a.tif"), in_unit("a (1).tif")]
    assert "M7/1/a (1).tif" in held(job("M7/1"), whole, whole)
