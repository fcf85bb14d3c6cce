"""The `results/` folder of one analysis, the only place that fetched objects are written to.

Every folder on the way is opened relative to the one above it, and no symbolic link is followed, so nothing is
written outside, whatever a key contains and even if a folder is swapped for a link meanwhile. A file that is being
fetched is in `.ncaasd-partial/`, on the same file system, so that a rename puts it into place as a whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import stat as modes
import threading
from collections.abc import Collection, Iterator

from ncaasd.adapters.files.durable import sync_files
from ncaasd.adapters.files.localnames import local_segments
from ncaasd.adapters.files.marked import NEW, PARTIAL, MarkedFolder, translated
from ncaasd.adapters.files.placing import choose, make_way, reach
from ncaasd.errors import DiskFull, LocalError, SyncFailed, UnsafePath

# A file that is renamed and not yet synced keeps its descriptor. Above so many, a deferred commit is made durable at
# once: a process may usually open 1,024.
MAX_DEFERRED = 256


class LocalResults:
    """`ports.ResultsTree`. Safe to use from several threads. Keeps no descriptor of the folder, so that a share can be
    unmounted, and one that is mounted again is found."""

    def __init__(self, root: str, *, min_free: int = 0, expected_id: str | None = None, adopt: bool = False) -> None:
        """root: the folder; it may be on a file system of its own. min_free: bytes to leave free there. expected_id:
        the `id` it had when it was first used. adopt: this is the first use, so make the folder and its marker."""
        self._folder = MarkedFolder(root, expected_id=expected_id, adopt=adopt)
        self._min_free = min_free
        self._placing = threading.Lock()  # choosing a name and taking it
        self._lock = threading.Lock()  # the three below
        self._open: dict[int, tuple[str, int]] = {}  # partial files: descriptor -> name, final size
        self._deferred: dict[int, str] = {}  # renamed, not yet synced: descriptor -> path
        self._dirty: set[str] = set()  # folders with new names that are not yet synced
        self._numbers = itertools.count()

    @property
    def root(self) -> str:
        return self._folder.path

    @property
    def id(self) -> str | None:
        """The marker's id, known once the folder was opened; it is to be kept and passed as `expected_id` from then on."""
        return self._folder.id

    def check(self) -> None:
        with self._opened(again=True) as root:
            disk = os.fstatvfs(root)
            if disk.f_flag & os.ST_RDONLY:
                raise LocalError(f"{self.root} is read-only", hint="remount it for writing")
            self._refuse_if_full(root, 0, disk)

    def free_bytes(self) -> int:
        """What may still be written: without `min_free`, and without what the open partial files still need."""
        with self._opened() as root:
            return self._free(root)

    def local_name(self, name: str) -> str:
        return "/".join(local_segments(name, self._folder.rules()))

    def partial(self, folder: str, name: str, *, size: int, token: str) -> Partial:
        path = self._path(folder, name)
        temporary = _file_name(token)
        with self._opened() as root, contextlib.ExitStack() as opened:
            fd = _open_own(reach(root, [PARTIAL], opened), temporary)
            try:
                had = os.fstat(fd)
                if had.st_size > size:
                    os.ftruncate(fd, 0)  # another object's
                self._refuse_if_full(root, max(0, size - had.st_blocks * 512))
            except BaseException:
                os.close(fd)
                raise
        with self._lock:
            self._open[fd] = temporary, size
        return Partial(self, fd, temporary, path)

    def write(self, folder: str, name: str, body: bytes) -> str:
        path = self._path(folder, name)
        temporary = f"write-{os.getpid()}-{next(self._numbers)}"
        with self._opened() as root, contextlib.ExitStack() as opened:
            partials = reach(root, [PARTIAL], opened)
            with contextlib.suppress(FileNotFoundError):  # left by a killed process with the same id
                os.unlink(temporary, dir_fd=partials)
            fd = os.open(temporary, NEW, 0o666, dir_fd=partials)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(body)
                return self._place(fd, temporary, path, durable=True)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=partials)
                raise
            finally:
                os.close(fd)

    def matches(self, path: str, size: int) -> bool:
        *folders, name = path.split("/")
        with self._opened() as root, contextlib.ExitStack() as opened:
            try:
                if not _is_there(root, path):
                    return False  # the usual case, decided by one system call
                seen = os.stat(name, dir_fd=reach(root, folders, opened), follow_symlinks=False)
            except (FileNotFoundError, UnsafePath):
                return False
            return modes.S_ISREG(seen.st_mode) and seen.st_size == size

    def open(self, path: str) -> int | None:
        *folders, name = path.split("/")
        with self._opened() as root, contextlib.ExitStack() as opened:
            try:
                folder = reach(root, folders, opened)
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except (FileNotFoundError, UnsafePath):
                return None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                    return None
                raise
            if not modes.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return None
            return fd

    def sync(self) -> None:
        with self._lock:
            files, self._deferred = self._deferred, {}
            folders, self._dirty = self._dirty, set()
        if not files and not folders:
            return
        with self._opened() as root, contextlib.ExitStack() as opened:
            for fd in files:
                opened.callback(os.close, fd)
            failed, names_too = sync_files(list(files), root, together=self._folder.is_local)
            for fd in failed:
                # The page cache still has the right bytes, the disk has not: without removal it would be taken as whole.
                *above, name = files[fd].split("/")
                with contextlib.suppress(OSError, UnsafePath), contextlib.ExitStack() as passed:
                    os.unlink(name, dir_fd=reach(root, above, passed))
            for path in () if names_too else sorted(folders):
                with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as passed:
                    _sync(reach(root, path.split("/") if path else [], passed), f"{self.root}/{path}")
        if failed:
            raise _sync_failed(
                f"{self.root}/{files[failed[0]]}" + (f" and {len(failed) - 1} more" if failed[1:] else "")
            )

    def prune(self, keep: Collection[str]) -> int:
        """Remove the partial files that neither belong to a token of `keep` nor are open here; returns how many."""
        kept = {_file_name(token) for token in keep}
        with self._lock:
            kept |= {name for name, _ in self._open.values()}
        removed = 0
        with self._opened() as root, contextlib.ExitStack() as opened:
            partials = reach(root, [PARTIAL], opened)
            for name in os.listdir(partials):
                if name not in kept:
                    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                        os.unlink(name, dir_fd=partials)
                        removed += 1
        return removed

    # For Partial

    def _commit(self, partial: Partial, *, durable: bool) -> str:
        with self._lock:
            durable = durable or len(self._deferred) >= MAX_DEFERRED
        try:
            placed = self._place(partial.fd, partial.temporary, partial.path, durable=durable)
        except LocalError:
            # After a failed fsync the pages are lost, so the download must not be resumed from the temporary file.
            partial.discard()
            raise
        with self._lock:
            del self._open[partial.fd]
            if not durable:
                self._deferred[partial.fd] = placed
        if durable:
            os.close(partial.fd)
        return placed

    def _release(self, partial: Partial, *, remove: bool) -> None:
        with self._lock:
            if self._open.pop(partial.fd, None) is None:
                return  # committed, discarded or closed before
        os.close(partial.fd)
        if remove:
            with contextlib.suppress(OSError, LocalError), self._opened() as root, contextlib.ExitStack() as opened:
                os.unlink(partial.temporary, dir_fd=reach(root, [PARTIAL], opened))

    def _place(self, fd: int, temporary: str, path: tuple[str, ...], *, durable: bool) -> str:
        """Rename a temporary file to its final name. Durable: its bytes are synced before, the folders after."""
        folds = self._folder.rules().folds
        with self._opened() as root, contextlib.ExitStack() as opened:
            if durable:
                _sync(fd, f"{self.root}/{'/'.join(path)}", data=True)
            partials = reach(root, [PARTIAL], opened)
            with self._placing:
                folder, names, changed = make_way(root, path[:-1], folds=folds, opened=opened)
                name = choose(folder, path[-1], folds=folds)
                if not os.path.samestat(os.fstat(fd), os.stat(temporary, dir_fd=partials, follow_symlinks=False)):
                    raise UnsafePath(f"{self.root}/{PARTIAL}/{temporary} was replaced by another file")
                os.rename(temporary, name, src_dir_fd=partials, dst_dir_fd=folder)
            if durable:
                for each in (*changed, folder):
                    _sync(each, f"{self.root}/{'/'.join(names)}")
            else:
                with self._lock:
                    # A folder that was made is a new name in its parent.
                    self._dirty |= {"/".join(names[:depth]) for depth in range(len(names) + 1)}
            return "/".join((*names, name))

    # Helpers

    @contextlib.contextmanager
    def _opened(self, *, again: bool = False) -> Iterator[int]:
        root = self._folder.open(again=again)
        try:
            yield root
        except OSError as error:
            raise translated(error, self.root) from error
        finally:
            os.close(root)

    def _path(self, folder: str, name: str) -> tuple[str, ...]:
        if folder.startswith((".", "%")) or "/" in folder or not folder:
            raise UnsafePath(f"{folder!r} is not the name of a job's folder")
        rules = self._folder.rules()
        return *local_segments(folder, rules), *local_segments(name, rules)

    def _free(self, root: int) -> int:
        disk = os.fstatvfs(root)
        with self._lock:
            awaited = sum(max(0, size - os.fstat(fd).st_blocks * 512) for fd, (_, size) in self._open.items())
        return disk.f_bavail * disk.f_frsize - self._min_free - awaited

    def _refuse_if_full(self, root: int, size: int, disk: os.statvfs_result | None = None) -> None:
        disk = disk or os.fstatvfs(root)
        with self._lock:
            most = sum(size for _, size in self._open.values())  # that the open partial files can still need
        if disk.f_bavail * disk.f_frsize - self._min_free - most >= size:
            return  # enough, without a look at how much of each is written
        free = self._free(root)
        if free < size:
            short = f"{size - free} bytes short" + (
                f", with {self._min_free} to be kept free" if self._min_free else ""
            )
            raise DiskFull(f"there is not enough space for results below {self.root}: {short}", hint="make room there")


class Partial:
    """`ports.PartialFile`."""

    def __init__(self, tree: LocalResults, fd: int, temporary: str, path: tuple[str, ...]) -> None:
        self._tree = tree
        self.fd = fd
        self.temporary = temporary
        self.path = path

    def commit(self) -> str:
        return self._tree._commit(self, durable=True)

    def commit_deferred(self) -> str:
        return self._tree._commit(self, durable=False)

    def discard(self) -> None:
        self._tree._release(self, remove=True)

    def close(self) -> None:
        self._tree._release(self, remove=False)


def _is_there(root: int, path: str) -> bool:
    """False when nothing is at the path, even if its folders may be links; else `reach` decides, which follows none."""
    try:
        os.stat(path, dir_fd=root, follow_symlinks=False)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR)
    return True


def _file_name(token: str) -> str:
    """The temporary file's name: the token if that is a valid name, else a hash of it."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", token):
        return token
    return f"token-{hashlib.sha256(token.encode(errors='surrogateescape')).hexdigest()}"


def _sync(fd: int, what: str, *, data: bool = False) -> None:
    """fsync, or (a file's `data`) fdatasync. Raises SyncFailed, which must end the process: a second one would lie."""
    try:
        os.fdatasync(fd) if data else os.fsync(fd)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # found out only now, as on NFS
            raise
        raise _sync_failed(what) from error


def _sync_failed(what: str) -> SyncFailed:
    return SyncFailed(f"the disk did not take {what}", hint="check the results' disk; it is fetched again")


def _open_own(folder: int, name: str) -> int:
    """A descriptor of a regular file of this name that has no other hard link. Made when missing; anything else is replaced."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket: replaced below
            raise
    else:
        seen = os.fstat(fd)
        if modes.S_ISREG(seen.st_mode) and seen.st_nlink == 1:
            return fd
        os.close(fd)
    os.unlink(name, dir_fd=folder)
    return os.open(name, NEW, 0o666, dir_fd=folder)
