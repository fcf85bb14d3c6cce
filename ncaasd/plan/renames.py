"""Whether a job's data is what another job of the same kind had, under names that are gone: renamed, not recorded again.
Pure.

A rename leaves a recording's size, its time of modification and its content as they were. The inode is not asked for where
the checksum is known: shares and FUSE invent other ones after a mount, and a move to another disk gives a new one. A copy
is no rename: the old name is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ncaasd.model import FileRow, FileState, JobRow, JobState, Origin, Phase
from ncaasd.plan.expand import Matcher, PackageOf, Unit, below, is_of, package_name
from ncaasd.plan.guards import Stop

RENAMED = "renamed"  # the kind of hold
# How exactly file systems keep a file's time, in ns: NTFS and SMB to 100 ns, others to 1 µs, 1 ms or 1 s, FAT to 2 s. A move
# to a coarser one cuts the time off.
_GRAINS = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
COARSEST = _GRAINS[-1]


@dataclass(frozen=True, slots=True)
class Piece:
    """One dataset of a job, for this question: the files here that it is, or that its package is made of."""

    files: Sequence[FileRow]
    keys: frozenset[str]  # its own
    # (a file, one that is gone) -> the key that the dataset would have had with the other one in it; "" for none
    old_key: Callable[[FileRow, FileRow], str]
    named: bool = False  # the two have one name within their units, which says as much as an inode


def itself(row: FileRow) -> Piece:
    """A dataset that is one file."""
    return Piece((row,), frozenset({row.key}), lambda _now, before: before.key)


def packed(m: Matcher, unit: Unit, package_of: PackageOf) -> Piece:
    """A dataset that is made of a unit. Its files have no checksum of their own, but names, sizes and times, all of them."""
    keys: dict[str, str] = {}

    def old_key(now: FileRow, before: FileRow) -> str:
        hit = m.unit_of(below(before)) if is_of(m, before) else None
        if hit is None or below(before)[len(hit[0]) :] != below(now)[len(unit.path) :]:
            return ""
        if hit[0] not in keys:
            keys[hit[0]] = package_of(package_name(m.rule, Unit(hit[0], hit[1]))).key
        return keys[hit[0]]

    own = frozenset({package_of(package_name(m.rule, unit)).key})
    return Piece([row for _name, row in unit.members(m)], own, old_key, named=True)


def same_time(one: int, other: int) -> bool:
    """Whether two times of modification (ns) are one, as far as a file system that may have cut one of them off can tell."""
    return any(
        one // grain == other // grain and (one % grain == 0 or other % grain == 0 or grain == 1) for grain in _GRAINS
    )


def same_recording(now: FileRow, before: FileRow, *, named: bool = False) -> bool:
    """Whether a file that is here has the content that a file that is gone had when it was last seen.

    By size, time and checksum. Where one of the checksums isn't known (it was not uploaded by itself, or not yet), by size,
    time and inode; or, with `named`, by the name that both have in their units.
    """
    if now.stat.size == 0 or now.stat.size != before.stat.size or now.id == before.id:
        return False
    if now.state is FileState.STORED and now.crc and before.crc and before.stored is not None:
        # What is gone may have been changed after it was stored: its checksum is of what was stored.
        kept = before.stored.size == before.stat.size and before.stored.mtime_ns == before.stat.mtime_ns
        return kept and now.crc == before.crc and same_time(now.stat.mtime_ns, before.stat.mtime_ns)
    if named:
        return same_time(now.stat.mtime_ns, before.stat.mtime_ns)
    return now.stat.mtime_ns == before.stat.mtime_ns and now.stat.inode == before.stat.inode


def same_work(job: JobRow, earlier: JobRow) -> bool:
    """Whether another job was submitted, or may have been, to do what `job` asks for, of whatever data.

    Of one rule; or, of jobs that were asked for one by one, with one config. One that was refused cost nothing, and one that
    was forgotten counts no more.
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
) -> Stop | None:
    """Hold `job` when all its datasets are what one earlier job had, under names that are gone (F103).

    `pieces`: one for each dataset; None where no file here is it. `gone_like(file)`: the files that are gone and have its
    size, and about its time. `jobs_using(key)`: every job that has a dataset of this key.
    """
    if job.attempt or RENAMED in job.released:
        return None  # a rerun was asked for, or is the same job once more
    found: dict[int, JobRow] | None = None
    certain = True
    for piece in pieces:
        if piece is None or not piece.files:
            return None
        for file in piece.files:
            here: dict[int, JobRow] = {}
            for before in gone_like(file):
                if not same_recording(file, before, named=piece.named):
                    continue
                key = piece.old_key(file, before)
                if key and key not in piece.keys:
                    here |= {j.row: j for j in jobs_using(key) if same_work(job, j) and _had(j, key, before)}
            found = here if found is None else {row: j for row, j in found.items() if row in here}
            if not found:
                return None
            certain = certain and (piece.named or file.state is FileState.STORED)
    if not found:
        return None
    earlier = found[max(found)]
    return Stop(RENAMED, _reason(job, earlier, certain=certain), asks=True)


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
