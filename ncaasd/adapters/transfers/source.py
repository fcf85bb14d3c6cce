"""The local file of an upload: opened once, and checked for changes while it is read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ncaasd.adapters.transfers.checksums import Digest, digest_as
from ncaasd.adapters.transfers.disks import Disks
from ncaasd.errors import FileChanged, FileVanished
from ncaasd.model import LinkTarget, Stat
from ncaasd.plan.files import unreadable
from ncaasd.ports import OpenLink

# O_NONBLOCK: opening a FIFO that took the file's place must not wait for a writer. O_NOFOLLOW: a symlink that took its
# place must not lead to another file than the observed one.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_NOT_IT = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EISDIR})
BLOCK = 1 << 20  # bytes read in one call: a share that isn't dead returns them within seconds
# Errors that may pass in a moment: this machine's resources are used up (F20), or another program has a lease on the file.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})


class Source:
    """A regular file whose stat must stay as it was when the file became whole.

    All methods raise FileChanged or FileVanished when it is not, and FileUnreadable when the file cannot be read; an OSError
    whose errno is in PASSING is worth another try.
    """

    def __init__(
        self,
        path: str,
        expect: Stat,
        disks: Disks[Any],
        link: LinkTarget | None = None,
        open_link: OpenLink | None = None,
    ) -> None:
        """link: the target of `path` when that is a link that is followed; `open_link` then opens the target."""
        self._path = path
        self._expect = expect
        self._disks = disks
        self._link = link
        self._open_link = open_link
        try:
            with disks.call():
                self.fd = self._open()
        except OSError as error:
            raise self._translated(error) from error
        try:
            with disks.call():
                mode = os.fstat(self.fd).st_mode
            if not stat.S_ISREG(mode):
                raise FileChanged(f"{path} is not a regular file any more")
            self.check()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        if self._link is None:
            return os.open(self._path, _FLAGS)
        assert self._open_link is not None, "whoever makes tasks of links gives it"
        return self._open_link(self._link)

    def _observed(self, seen: os.stat_result) -> Stat:
        if self._link is None:
            return Stat.of(seen)
        return Stat.of_link(os.stat(self._path, follow_symlinks=False), seen)

    def check(self) -> None:
        """Check that the open file has the observed size, times and inode."""
        try:
            with self._disks.call():
                now = self._observed(os.fstat(self.fd))
        except OSError as error:  # a link that led to it is gone
            raise self._translated(error) from error
        if now != self._expect:
            self.check_path()
            raise FileChanged(f"{self._path} changed while it was uploaded ({_difference(self._expect, now)})")

    def check_path(self) -> None:
        """Check that the path still leads to the observed file."""
        try:
            with self._disks.call():
                now = self._look()
        except OSError as error:
            raise self._translated(error) from error
        if now != self._expect:
            raise FileChanged(f"{self._path} changed while it was uploaded ({_difference(self._expect, now)})")

    def _look(self) -> Stat:
        if self._link is None:
            return Stat.of(os.stat(self._path, follow_symlinks=False))
        fd = self._open()
        try:
            return self._observed(os.fstat(fd))
        finally:
            os.close(fd)

    def read(self, start: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `start` on."""
        at = 0
        try:
            with self._disks.call() as got_on:
                while at < len(into):
                    got = os.preadv(self.fd, [into[at : at + BLOCK]], start + at)
                    if not got:
                        raise FileChanged(f"{self._path} became shorter while it was uploaded")
                    at += got
                    got_on()
        except OSError as error:
            raise self._translated(error) from error

    def digest(self, etag: str, part_size: int, checkpoint: Callable[[], None]) -> Digest | None:
        """One pass over the file, to compare it to an object with `etag`; see `checksums.digest_as`."""
        try:
            with self._disks.reading(checkpoint) as each_block:
                return digest_as(self.fd, self._expect.size, etag, part_size, each_block)
        except EOFError as error:
            raise FileChanged(f"{self._path} became shorter while it was read") from error
        except OSError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        if self.fd >= 0:
            with self._disks.call():  # closing flushes a file on a share
                os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _translated(self, error: OSError) -> Exception:
        if error.errno in _GONE:
            return FileVanished(f"{self._path} is not there any more")
        if error.errno in _NOT_IT:
            return FileChanged(f"{self._path} is not the file any more that was found ({error.strerror})")
        if error.errno in PASSING:
            return error
        return unreadable(self._path, error, os.geteuid())


def _difference(old: Stat, new: Stat) -> str:
    if old.inode != new.inode:
        return "another file took its place"
    if old.size != new.size:
        return f"{old.size} bytes became {new.size}"
    return "it was written to, or touched"
