"""Whether a job's data was only renamed: another job of the same kind had it, under names that are gone. Pure.

A rename keeps a recording's size, modification time and content. The inode is not compared where the checksum is known: shares
and FUSE invent other ones after a mount, and a move to another disk gives a new one. A copy is no rename: the old name is still
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ncaasd.model import FileRow, FileState, Hold, JobRow, JobState, Origin, Phase, Place
from ncaasd.plan.expand import PackageOf, package_name
from ncaasd.plan.grouping import Matcher, Unit, below, is_of
from ncaasd.plan.guards import Stop

# The resolutions of file times, in ns: NTFS and SMB have 100 ns, other file systems 1 µs, 1 ms or 1 s, FAT 2 s. A move to a
# coarser one truncates the time.
_GRAINS = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
COARSEST = _GRAINS[-1]


@dataclass(frozen=True, slots=True)
class Piece:
    """One dataset of a job, to be compared: its local file, or the files that its package is made of."""

    files: Sequence[FileRow]
    keys: frozenset[str]  # its own
    # (a file, a file that is gone) -> the key that the dataset would have had with the gone file in it; "" for none
    old_key: Callable[[FileRow, FileRow], str]
    unit: int = 0  # of a package: where in its files' paths the name within the unit begins


def itself(row: FileRow) -> Piece:
    """A dataset that is one file."""
    return Piece((row,), frozenset({row.key}), lambda _now, before: before.key)


def packed(m: Matcher, unit: Unit, package_of: PackageOf) -> Piece:
    """A dataset that is a unit's package. Its files have no checksums of their own, but all have names, sizes and times."""
    keys: dict[str, str] = {}

    def old_key(now: FileRow, before: FileRow) -> str:
        hit = m.unit_of(below(before)) if is_of(m, before) else None
        if hit is None or below(before)[len(hit[0]) :] != below(now)[len(unit.path) :]:
            return ""
        if hit[0] not in keys:
            keys[hit[0]] = package_of(package_name(m.rule, Unit(hit[0], hit[1]))).key
        return keys[hit[0]]

    own = frozenset({package_of(package_name(m.rule, unit)).key})
    members = unit.members(m)
    begins = len(members[0][1].place.path) - len(members[0][0]) if members else 0
    return Piece([row for _name, row in members], own, old_key, begins)


def same_time(one: int, other: int) -> bool:
    """Whether two modification times (ns) are equal, allowing for a file system that may have truncated one of them."""
    return any(
        one // grain == other // grain and (one % grain == 0 or other % grain == 0 or grain == 1) for grain in _GRAINS
    )


def same_recording(now: FileRow, before: FileRow, *, named: bool = False) -> bool:
    """Whether the file `now`, which is here, has the content that `before`, which is gone, had when it was last seen.

    By size, time and checksum. Where one of the checksums isn't known (it was not uploaded by itself, or not yet), by size,
    time and inode; or, with `named` (both have the same name in their units), by size and time.
    """
    if now.stat.size == 0 or now.stat.size != before.stat.size or now.place == before.place:
        return False
    if now.state is FileState.STORED and now.crc and before.crc and before.stored is not None:
        # The gone file may have been changed after it was stored: its checksum is of the stored content.
        kept = before.stored.size == before.stat.size and before.stored.mtime_ns == before.stat.mtime_ns
        return kept and now.crc == before.crc and same_time(now.stat.mtime_ns, before.stat.mtime_ns)
    if named:
        return same_time(now.stat.mtime_ns, before.stat.mtime_ns)
    return now.stat.mtime_ns == before.stat.mtime_ns and now.stat.inode == before.stat.inode


def same_work(job: JobRow, earlier: JobRow) -> bool:
    """Whether `earlier` was submitted, or may have been, for the same work as `job`, on whatever data.

    The same work means one rule; or, for jobs that were asked for one by one, one config. A refused job cost nothing, and a
    forgotten one doesn't count any more.
    """
    if earlier.phase is Phase.OPEN or not earlier.job_id or earlier.forgotten or earlier.row == job.row:
        return False
    if JobState.REFUSED in (earlier.verdict, earlier.state):
        return False
    one, other = job.spec, earlier.spec
    if one.origin is Origin.RULE or other.origin is Origin.RULE:
        return one.origin is other.origin and one.name == other.name
    return other.origin is not Origin.ELSEWHERE and (one.config, one.overlay) == (other.config, other.overlay)


def renamed(
    job: JobRow,
    pieces: Iterable[Piece | None],
    gone_like: Callable[[FileRow], Iterable[FileRow]],
    jobs_using: Callable[[str], Iterable[JobRow]],
    was: Callable[[Place], FileRow | None] = lambda _place: None,
    given: Callable[[FileRow], Iterable[JobRow]] = lambda _row: (),
) -> Stop | None:
    """Hold `job` when one earlier job had the data of all its datasets, under names that are gone (F103), or that another file
    has now (a program that calls the newest recording `current.tif`).

    `pieces`: one for each dataset; None where no file here is it. `gone_like(file)`: the files that are gone and have its
    size, and about its time. `jobs_using(key)`: every job that has a dataset of this key. `was(place)`: the file last known
    at a place. `given(file)`: the jobs that were given this file's content at a place that has it no more (see `taken_over`).
    """
    if job.attempt or Hold.RENAMED in job.released:
        return None  # a rerun was asked for, or is the same job once more
    found: dict[int, JobRow] | None = None
    certain = True
    for piece in pieces:
        if piece is None or not piece.files:
            return None
        first = piece.files[0]
        here: dict[int, JobRow] = {}
        for before in gone_like(first):
            if not same_recording(first, before, named=piece.unit > 0) or not _all_gone(piece, before, was):
                continue
            key = piece.old_key(first, before)
            if key and key not in piece.keys:
                here |= {j.row: j for j in jobs_using(key) if same_work(job, j) and _had(j, key, before)}
        here |= {j.row: j for j in given(first) if same_work(job, j)} if not piece.unit else {}
        found = here if found is None else {row: j for row, j in found.items() if row in here}
        if not found:
            return None
        certain = certain and (piece.unit > 0 or first.state is FileState.STORED)
    if not found:
        return None
    earlier = found[max(found)]
    return Stop(Hold.RENAMED, _reason(job, earlier, certain=certain), asks=True)


def _all_gone(piece: Piece, before: FileRow, was: Callable[[Place], FileRow | None]) -> bool:
    """Whether the package's other files, too, are gone from the unit in which its first file was."""
    if len(piece.files) == 1:
        return True
    old = before.place.path[: len(before.place.path) - len(piece.files[0].place.path) + piece.unit]
    for file in piece.files[1:]:
        there = was(replace(before.place, path=old + file.place.path[piece.unit :]))
        if there is None or there.state is not FileState.GONE or not same_recording(file, there, named=True):
            return False
    return True


def taken_over(file: FileRow, there: FileRow | None) -> bool:
    """Whether `file`'s content is no longer where it was when a job was given it. (A copy's original still is.)

    `there`: the file last known at that place. If that is gone, another file may have taken its key since, so that only its
    size and time are known (F96).
    """
    if there is None or there.place == file.place:
        return False
    if there.state is FileState.GONE:
        return there.stat.size == file.stat.size and same_time(there.stat.mtime_ns, file.stat.mtime_ns)
    if there.stored is None:
        return False
    if file.state is FileState.STORED and there.etag != file.etag:
        return True  # another content is stored there since
    # It isn't stored yet, but the name's file has changed since.
    kept, now = there.stored, there.stat
    return (kept.size, kept.mtime_ns) != (now.size, now.mtime_ns)


def _had(job: JobRow, key: str, before: FileRow) -> bool:
    """Whether a job's dataset had the very content that was stored last under this key."""
    return any(d.key == key and (not d.etag or d.etag == before.etag or before.key != key) for d in job.spec.datasets)


def _reason(job: JobRow, earlier: JobRow, *, certain: bool) -> str:
    did = "has analysed" if earlier.state is JobState.DONE else "was submitted for"
    ended = f" ({earlier.state})" if earlier.phase is Phase.ENDED and earlier.state is not JobState.DONE else ""
    seems = "is" if certain else "seems to be"
    return (
        f"{job.spec.unit} {seems} {earlier.spec.unit} renamed, which job {earlier.job_id} {did}{ended}: the same data would be"
        " paid for twice"
    )
