"""Why a job is held though its data is complete: the data is a copy by its name, nothing but zeros, or renamed from what was
analysed already. Pure.

File formats (a TIFF without its magic number) are not checked here: only a rule can say what its files must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from awscrt.checksums import combine_crc64nvme, crc64nvme

from ncaasd.model import FileRow, FileState, Hold, JobRow, Place
from ncaasd.plan.copies import copied
from ncaasd.plan.guards import Stop
from ncaasd.plan.renames import Piece, renamed


def doubt(
    job: JobRow,
    pieces: Sequence[Piece | None],
    *,
    at: Callable[[Place], FileRow | None],
    gone_like: Callable[[FileRow], Iterable[FileRow]],
    jobs_using: Callable[[str], Iterable[JobRow]],
    was: Callable[[Place], FileRow | None],
    given: Callable[[FileRow], Iterable[JobRow]],
) -> Stop | None:
    """The first doubt about a job's data; None when there is none, or a person has released the job or asked for it again.

    `pieces`: one for each dataset; None where no file here is it. `at`: the file that is at a place now; the others as
    `renames.renamed` wants them.
    """
    if job.attempt:
        return None
    files = [file for piece in pieces if piece is not None for file in piece.files]
    return copied(job, files, at) or blank(job, files) or renamed(job, pieces, gone_like, jobs_using, was, given)


def blank(job: JobRow, files: Iterable[FileRow]) -> Stop | None:
    """Hold `job` when one of its files has nothing but zeros in it: its space was allocated but never written. The stored
    object's checksum tells, so no file is read."""
    if Hold.ZEROS in job.released:
        return None
    for file in files:
        if file.state is FileState.STORED and file.crc and int(file.crc, 16) == crc_of_zeros(file.stat.size):
            path = file.place.path if file.place.tree else file.place.path.partition("/")[2]
            return Stop(
                Hold.ZEROS,
                f"{path} has nothing but zeros in it, {file.stat.size} bytes: it was never written",
                asks=True,
            )
    return None


@lru_cache(maxsize=4096)
def crc_of_zeros(size: int) -> int:
    """The CRC64NVME of `size` bytes of zero, in as many steps as `size` has bits."""
    crc, piece, length = 0, int(crc64nvme(b"\0")), 1
    while size:
        if size & 1:
            crc = int(combine_crc64nvme(crc, piece, length))
        piece, length, size = int(combine_crc64nvme(piece, piece, length)), 2 * length, size >> 1
    return crc
