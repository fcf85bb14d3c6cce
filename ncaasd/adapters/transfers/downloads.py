"""Downloads: one object to one place below `results/`, verified and durable, or nothing at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from ncaasd.adapters.transfers.checksums import crc64, crc_of, digest_as, is_multipart
from ncaasd.adapters.transfers.transfer import Abandoned, Environment, Step, Transfer
from ncaasd.errors import Absent, Corrupted, DiskFull, Exists, LocalError, SyncFailed, Unreachable, UnsafePath
from ncaasd.model import DownloadTask, Outcome, Verdict
from ncaasd.ports import ObjectStore, PartialFile, ResultsTree

DOWNLOAD_CRASH_POINTS = (
    "download.range",  # F09: a range is in the temporary file and fsynced, not recorded
    "download.written",  # everything is in the temporary file, which has no final name
    "download.renamed",  # F10: it has its final name, nothing is recorded
)
WORTH_KEEPING = 16  # an interrupted range is kept if at least 1/16 of it has come (1 MiB of 16)
PART_SIZE = 8 << 20  # bytes: the part size with which the platform's workers (AWS CLI) upload results
# Bytes of one write to the temporary file. For a megabyte at once the kernel takes large pieces of memory that were not used
# lately, and on a virtual machine touching those costs more than the writing (docs/performance.md).
WRITE = 256 << 10
T = TypeVar("T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def partial_token(bucket: str, key: str, etag: str, size: int) -> str:
    """The name of an object's temporary file: always the same for an object, and never that of another object or version."""
    return hashlib.sha256(f"{bucket}/{key}\0{etag}\0{size}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Download(Transfer):
    """What both ways of downloading share."""

    def __init__(self, task: DownloadTask, env: Environment) -> None:
        super().__init__(task, env)
        self.download = task
        self.memory = min(task.size, 1 << 20)
        self.partial: PartialFile | None = None

    @property
    def size(self) -> int:
        return self.download.size

    @property
    def store(self) -> ObjectStore:
        return self.env.store_for(self.download.analysis, self.download.bucket)

    @property
    def results(self) -> ResultsTree:
        return self.env.results_for(self.download.analysis)

    def verdict_of(self, error: Exception) -> Outcome:
        if isinstance(error, Exists | Absent):
            detail = f"{self.download.key} is not the one any more that was listed"
            return Outcome(self.download, Verdict.REPLACED, detail=detail)
        if isinstance(error, UnsafePath):
            return Outcome(self.download, Verdict.UNSAFE, error=error, detail=str(error))
        if isinstance(error, OSError):
            error = _translated(error, self.download.name)
        return self.failed(error)

    def open_partial(self) -> PartialFile:
        task = self.download
        token = partial_token(task.bucket, task.key, task.etag, task.size)
        with self.env.disks.call():
            return self.results.partial(task.folder, task.name, size=task.size, token=token)

    def look(self) -> None:
        """Raises RootMissing, DiskFull: see `ResultsTree.check`."""
        with self.env.disks.call():
            self.results.check()

    def write(self, fd: int, block: bytes, at: int) -> None:
        with self.env.disks.call():
            _write(fd, block, at)

    def durable(self, sync: Callable[[], T]) -> T:
        """Call a function that ends in an fsync of the file; see `durable`."""
        with self.env.disks.call(sync=True):
            return durable(sync, self.download.name)

    def in_place(self) -> Outcome | None:
        """F10: FETCHED when the same object is in its place already (the process died after the rename)."""
        task, results = self.download, self.results
        with self.env.disks.call():
            path = f"{task.folder}/{results.local_name(task.name)}"
            if not results.matches(path, task.size):
                return None
            fd = results.open(path)
        if fd is None:
            return None
        try:
            if not self.is_the_object(fd):
                return None
            self.durable(partial(os.fsync, fd))  # the sync after the rename may not have taken place
        except EOFError:
            return None
        finally:
            os.close(fd)
        return Outcome(task, Verdict.FETCHED, path=path, detail="it was there already")

    def is_the_object(self, fd: int, known: Mapping[int, tuple[int, int]] | None = None) -> bool | None:
        """Whether a file has the same bytes as the object; None when S3 has nothing to compare them to.

        By the CRC64NVME that S3 keeps for the whole object, or else by its ETag. `known` is what `crc_of` takes.
        """
        task = self.download
        wanted = self.store.checksum(task.key, etag=task.etag)
        with self.env.disks.reading(self.checkpoint) as each_block:
            if wanted is not None:
                return wanted == crc_of(fd, task.size, known or {}, each_block)
            digest = digest_as(fd, task.size, task.etag, PART_SIZE, each_block)
        if digest is not None and task.etag in digest.etags:
            return True
        return None if is_multipart(task.etag) else False  # it may have been cut with another part size

    def close(self) -> None:
        """Close the temporary file; discard it unless a later attempt can resume from it."""
        if self.partial is None:
            return
        kept, self.partial = self.partial, None
        outcome = self.outcome
        with self.env.disks.call():
            if outcome is None or outcome.verdict in (Verdict.FETCHED, Verdict.STOPPED) or _resumable(outcome):
                kept.close()
            else:
                kept.discard()


class WholeDownload(Download):
    """A small object: one GET. It counts as fetched after the next sync of the tree, with many others."""

    small = True
    deferred = True

    def __init__(self, task: DownloadTask, env: Environment) -> None:
        super().__init__(task, env)
        self._taken = False

    def fresh(self) -> Step | None:
        if self._taken:
            return None
        self._taken = True
        return Step(self._fetch, self.size)

    def _fetch(self) -> Outcome | None:
        self.look()
        if known := self.in_place():
            return known
        file = self.open_partial()
        try:
            md5 = hashlib.md5(usedforsecurity=False)
            at = 0
            with (
                self.meter.request(self.size, self.pace) as pace,
                _closing(self.store.get(self.download.key, etag=self.download.etag)) as blocks,
            ):
                for block in blocks:
                    pace(len(block))
                    md5.update(block)
                    self.write(file.fd, block, at)
                    at += len(block)
                self._verify(at, md5.hexdigest())
            self.env.crash("download.written")
            path = self.durable(file.commit_deferred)
        except Exception:
            with self.env.disks.call():
                file.discard()
            raise
        self.env.crash("download.renamed")
        return Outcome(self.download, Verdict.FETCHED, path=path)

    def _verify(self, size: int, md5: str) -> None:
        task = self.download
        if size != task.size:
            raise Corrupted(f"{task.key} came with {size} bytes, not {task.size}")
        if not is_multipart(task.etag) and md5 != task.etag:
            raise Corrupted(f"{task.key} came with other bytes than its ETag {task.etag} says (their MD5 is {md5})")


class RangedDownload(Download):
    """A large object: fetched in ranges, in any order, by several workers, and resumed after a restart of the process."""

    small = False

    def __init__(self, task: DownloadTask, env: Environment) -> None:
        super().__init__(task, env)
        self._todo: deque[list[int]] | None = None  # [start, end]; the start moves on when a range breaks off
        self._crcs: dict[int, tuple[int, int]] = {}  # start -> (end, CRC64NVME) of what this process wrote
        self._lock = threading.Lock()  # the two below
        self._written: list[tuple[int, int]] = []  # ranges [start, end) that are not durable yet
        self._syncing = False
        self._ending = False
        self._beginnings = 0

    def fresh(self) -> Step | None:
        if self._todo is None:
            return None if self.inflight or self._again else Step(self._prepare, 0, remote=False)
        if self._todo:
            span = self._todo.popleft()
            return Step(partial(self._range, span), span[1] - span[0])
        if not self._again and not self.inflight and not self._ending:
            self._ending = True
            return Step(self._finish, 0)
        return None

    def _prepare(self) -> Outcome | None:
        task = self.download
        self.look()
        if known := self.in_place():
            return known
        self.partial = self.partial or self.open_partial()
        with self.env.disks.call():
            have = os.fstat(self.partial.fd).st_size
        done = merged(task.done, task.size) if not self._beginnings else []
        if done and have < done[-1][1]:
            # The temporary file that the journal's ranges are of is gone: the present one has none of them.
            self._forget()
            done = []
        self.meter.start_at(sum(end - start for start, end in done))
        self._todo = deque([start, end] for start, end in missing(done, task.size, self.env.range_size))
        return None

    def _range(self, span: list[int]) -> Outcome | None:
        task, file = self.download, self.partial
        assert file is not None
        start, end = span
        at, crc = start, 0
        try:
            with (
                self.meter.request(end - start, self.pace) as pace,
                _closing(self.store.get(task.key, etag=task.etag, start=start, length=end - start)) as blocks,
            ):
                for block in blocks:
                    pace(len(block))
                    if at + len(block) > end:
                        raise Corrupted(f"{task.key} came with more bytes than were asked for")
                    self.write(file.fd, block, at)
                    crc = crc64(block, crc)
                    at += len(block)
                if at != end:
                    raise Corrupted(f"{task.key} came with {at - start} bytes of {end - start}")
        except (Unreachable, Abandoned):
            if at - start >= self.env.range_size // WORTH_KEEPING > 0:
                self._record(start, at, crc)
                span[0] = at
                self.meter.count(at - start)
            raise
        self._record(start, end, crc)
        return None

    def _record(self, start: int, end: int, crc: int) -> None:
        """Note a range as written. One worker at a time syncs what all have written while the others continue, because a sync
        of a file always waits for all of its writes."""
        self._crcs[start] = end, crc
        with self._lock:
            self._written.append((start, end))
            if self._syncing:
                return
            self._syncing = True
        try:
            while ranges := self._next_written():
                self._sync(ranges)
        except BaseException:
            self._syncing = False
            raise

    def _next_written(self) -> list[tuple[int, int]]:
        with self._lock:
            ranges, self._written = self._written, []
            self._syncing = bool(ranges)
            return ranges

    def _sync(self, ranges: list[tuple[int, int]]) -> None:
        assert self.partial is not None
        self.durable(partial(os.fdatasync, self.partial.fd))
        for start, end in ranges:
            self.env.crash("download.range")
            self.env.log.range_fetched(self.download.object_id, start, end)

    def _finish(self) -> Outcome | None:
        task, file = self.download, self.partial
        assert file is not None
        with self.env.disks.call():
            os.ftruncate(file.fd, task.size)
        if self.is_the_object(file.fd, self._crcs) is False:
            return self._begin_again()
        self.env.crash("download.written")
        path = self.durable(file.commit)
        self.env.crash("download.renamed")
        return Outcome(task, Verdict.FETCHED, path=path)

    def _begin_again(self) -> Outcome | None:
        """The file's bytes are not the object's: fetch everything once more; the second time it fails."""
        self._forget()
        self._beginnings += 1
        if self._beginnings > 1:
            error = Corrupted(
                f"{self.download.key} came twice with other bytes than its ETag {self.download.etag} says"
            )
            return self.failed(error)
        self._ending = False
        self._todo = deque([start, end] for start, end in missing([], self.size, self.env.range_size))
        self.meter.start_at(0)
        return None

    def _forget(self) -> None:
        assert self.partial is not None
        self.env.log.download_lost(self.download.object_id)
        self._crcs.clear()
        self._written.clear()
        with self.env.disks.call():
            os.ftruncate(self.partial.fd, 0)


def merged(ranges: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Ranges [start, end), cut to `size` and sorted; those that touch or overlap are merged."""
    result: list[tuple[int, int]] = []
    for start, end in sorted((max(0, start), min(end, size)) for start, end in ranges):
        if start >= end:
            continue
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def missing(done: list[tuple[int, int]], size: int, most: int) -> Iterator[tuple[int, int]]:
    """What is not in `done` (merged), in ranges of at most `most` bytes."""
    at = 0
    for start, end in [*done, (size, size)]:
        while at < start:
            yield at, min(at + most, start)
            at = min(at + most, start)
        at = end


@contextlib.contextmanager
def _closing(blocks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Close the answer at the end: one that is not read to its end would keep its connection."""
    try:
        yield blocks
    finally:
        close = getattr(blocks, "close", None)
        if close is not None:
            close()


def _write(fd: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(fd, view[:WRITE], at)
        view, at = view[written:], at + written


def durable(sync: Callable[[], T], name: str) -> T:
    """Call a function that ends in an fsync. Raises SyncFailed, which must end the process, when the disk failed."""
    try:
        return sync()
    except OSError as error:
        if error.errno in _FULL:
            raise
        # After a failed fsync the kernel may have dropped the pages: a second one could report success wrongly (F15).
        raise SyncFailed(
            f"{name} could not be made durable: {error.strerror}", hint="check the results' disk"
        ) from error


def _translated(error: OSError, name: str) -> Exception:
    if error.errno in _FULL:
        return DiskFull(f"no space for {name}: {error.strerror}", hint="free some space on the results' disk")
    return LocalError(f"{name} cannot be written: {error.strerror}", hint="check the results' disk and its permissions")


def _resumable(outcome: Outcome) -> bool:
    """Whether the temporary file is worth keeping after this failure."""
    return outcome.verdict is Verdict.FAILED and not isinstance(outcome.error, Corrupted | LocalError)
