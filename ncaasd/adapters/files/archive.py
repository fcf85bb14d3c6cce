"""The user's archive: copies that are compared byte by byte, and recordings that are deleted only after that."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as modes
from collections.abc import Iterator

from ncaasd.adapters.files.durable import sync_path
from ncaasd.adapters.files.marked import refused
from ncaasd.errors import DiskFull, FileChanged, FileVanished, LocalError
from ncaasd.model import Stat

BLOCK = 4 << 20
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalArchive:
    """`ports.Archive` on a disk or a mounted share."""

    def same(self, path: str, expect: Stat, copy: str) -> bool:
        with refused(path), _opened(path, expect) as source:
            try:
                other = os.open(copy, _FLAGS)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return False
                raise LocalError(f"the copy {copy} can't be read: {error.strerror}") from error
            try:
                _refuse_itself(source, other, path, copy)
                return modes.S_ISREG(os.fstat(other).st_mode) and _equal(source, other)
            finally:
                os.close(other)

    def copy(self, path: str, expect: Stat, copy: str) -> None:
        if os.path.lexists(copy):
            if not self.same(path, expect, copy):
                raise LocalError(f"{copy} is there already and differs from {path}", hint="nothing is overwritten")
            return
        folder, name = os.path.split(copy)
        part = os.path.join(folder, f".{name}"[:200] + ".ncaasd-part")
        with refused(copy):
            os.makedirs(folder, exist_ok=True)
            disk = os.statvfs(folder)
            if expect.size > disk.f_bavail * disk.f_frsize:
                raise DiskFull(f"{path} has no room in {folder}", hint="free some space there")
            try:
                with _opened(path, expect) as source:
                    _write(source, part, expect)
                # Compared as read back from the disk, not from the page cache.
                if not self.same(path, expect, part):
                    raise LocalError(f"the copy of {path} in {folder} differs from it", hint="check that disk")
                _publish(part, copy)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part)
            sync_path(folder)

    def delete(self, path: str, expect: Stat) -> None:
        with refused(path):
            try:
                seen = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                return
            if Stat.of(seen) != expect:
                raise FileChanged(f"{path} is not what it was: it stays")
            os.unlink(path)
            sync_path(os.path.dirname(path))


def _write(source: int, part: str, expect: Stat) -> None:
    with contextlib.suppress(FileNotFoundError):  # what an earlier try left
        os.unlink(part)
    target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        for block in _blocks(source):
            left = memoryview(block)
            while left:
                left = left[os.write(target, left) :]
        os.fsync(target)
        _forget_cached(target)
        os.utime(target, ns=(expect.mtime_ns, expect.mtime_ns))
    finally:
        os.close(target)


def _publish(part: str, copy: str) -> None:
    """Give the copy its final name without replacing a file: a link fails where a rename would replace."""
    try:
        os.link(part, copy, follow_symlinks=False)
    except FileExistsError as error:
        raise LocalError(f"{copy} has just come to be there", hint="nothing is overwritten") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(copy):
            raise LocalError(f"{copy} has just come to be there", hint="nothing is overwritten") from error
        os.rename(part, copy)


def _refuse_itself(source: int, other: int, path: str, copy: str) -> None:
    """A file is no copy of itself, neither as a hard link nor through another mount of the same share."""
    one, two = os.fstat(source), os.fstat(other)
    through_another_mount = (one.st_ino, one.st_ctime_ns) == (two.st_ino, two.st_ctime_ns) and one.st_ino != 0
    if os.path.samestat(one, two) or through_another_mount:
        raise LocalError(f"{copy} is {path} itself, and no copy of it", hint="set another folder in `after_results`")


def _equal(one: int, two: int) -> bool:
    if os.fstat(one).st_size != os.fstat(two).st_size:
        return False
    _forget_cached(two)
    return all(a == b for a, b in zip(_blocks(one), _blocks(two), strict=True))


def _blocks(fd: int) -> Iterator[bytes]:
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        block = os.pread(fd, min(BLOCK, size - at), at)
        if not block:
            raise FileChanged("a file became shorter while it was read")
        at += len(block)
        yield block


def _forget_cached(fd: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _opened(path: str, expect: Stat) -> Iterator[int]:
    """A descriptor of the recording. Raises FileVanished; FileChanged when its stat isn't `expect` before or after the block."""
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise FileVanished(f"{path} is not there any more") from error
    try:
        if Stat.of(os.fstat(fd)) != expect:
            raise FileChanged(f"{path} is not what it was")
        yield fd
        if Stat.of(os.fstat(fd)) != expect:
            raise FileChanged(f"{path} changed while it was read")
    finally:
        os.close(fd)
