"""A folder that is known by a marker in it, so that the empty mount point of an unmounted share is not taken for it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import unicodedata
import uuid
from collections.abc import Iterator

from ncaasd.adapters.files.localnames import NameRules
from ncaasd.adapters.files.mounts import filesystem_of, sends_events
from ncaasd.adapters.files.placing import FOLDER
from ncaasd.errors import DiskFull, LocalError, RootMissing

MARKER = ".ncaasd-results"
PARTIAL = ".ncaasd-partial"

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEXT = "ncaasd keeps the results of NeuroCAAS jobs in this folder. Without this file it writes nothing here.\nid: {}\n"


class MarkedFolder:
    """Opens the folder anew for every use, and proves each time that it is still the one that was marked."""

    def __init__(self, path: str, *, expected_id: str | None, adopt: bool) -> None:
        """expected_id: the id that its marker must have, if known. adopt: make the folder and its marker if they are
        missing."""
        self.path = os.path.abspath(path)
        self.id = expected_id
        self._adopt = adopt
        self._lock = threading.Lock()
        self._proved: tuple[int, int] | None = None  # device and inode of the folder whose marker was read
        self._rules: NameRules | None = None
        self.is_local = False  # whether its file system is this machine's own; known once it was opened

    def open(self, *, again: bool = False) -> int:
        """A descriptor of the folder. Raises RootMissing.

        The marker is read when the folder's device or inode is not the one of the last read, as after an unmount;
        with `again`, always.
        """
        if self._proved is not None:
            return self._open(again)  # nothing is created any more, so several threads may do this at once
        with self._lock:
            return self._open(again)

    def _open(self, again: bool) -> int:
        fd = self._open_folder()
        try:
            seen = os.fstat(fd)
            identity = seen.st_dev, seen.st_ino
            if again or identity != self._proved:
                self._prove(fd)
            if identity != self._proved:
                self._rules = _prepare(fd)
                self.is_local = sends_events(filesystem_of(self.path).fstype)
                self._proved = identity
        except OSError as error:
            os.close(fd)
            raise translated(error, self.path) from error
        except BaseException:
            os.close(fd)
            raise
        return fd

    def rules(self) -> NameRules:
        """What the folder's file system does with names, as tried out when it was last proved. Raises RootMissing."""
        if self._rules is None:
            os.close(self.open())
        assert self._rules is not None  # set by `open`
        return self._rules

    def _open_folder(self) -> int:
        for attempt in ("open", "made"):
            try:
                return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENOENT or not self._adopt or attempt == "made":
                    raise self._missing(f"cannot be opened: {error.strerror}") from error
            with contextlib.suppress(FileExistsError):
                try:
                    os.mkdir(self.path)
                except OSError as error:
                    raise self._missing(f"cannot be made: {error.strerror}") from error
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _prove(self, fd: int) -> None:
        found = _read_marker(fd)
        if found is None:
            if not self._adopt:
                raise self._missing(f"has no {MARKER} in it, so it is not the folder that was used before")
            found = self._write_marker(fd)
        if self.id is not None and found != self.id:
            raise self._missing(f"is not the folder that was used before: its {MARKER} has another id")
        self.id = found
        self._adopt = False  # once only: from now on a missing marker means a missing share

    def _write_marker(self, fd: int) -> str:
        """Write the marker, whole or not at all. Returns its id, or the id of the marker of a daemon that was quicker."""
        new = self.id or uuid.uuid4().hex
        temporary = f"{MARKER}.{uuid.uuid4().hex}"
        marker = os.open(temporary, NEW, 0o644, dir_fd=fd)
        try:
            os.write(marker, _TEXT.format(new).encode())
            os.fsync(marker)
            if _read_marker(fd) is None:
                os.rename(temporary, MARKER, src_dir_fd=fd, dst_dir_fd=fd)
            else:
                os.unlink(temporary, dir_fd=fd)
            os.fsync(fd)
        finally:
            os.close(marker)
        return _read_marker(fd) or new

    def _missing(self, why: str) -> RootMissing:
        hint = "mount it again; if it is meant to be a new folder, `ncaasd check` says how to take it into use"
        return RootMissing(f"the results' folder {self.path} {why}", hint=hint)


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Raises OSErrors as our own errors; `what` is the path or thing they are about."""
    try:
        yield
    except OSError as error:
        raise translated(error, what) from error


def translated(error: OSError, what: str) -> LocalError:
    """An OSError as one of our errors; `what` is the path or thing it is about."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"there is no space for {what}", hint="make room; it is tried again by itself")
    if error.errno == errno.EROFS:
        return LocalError(f"{what} cannot be written: its file system is read-only", hint="remount it for writing")
    if error.errno in (errno.ESTALE, errno.ENOTCONN, errno.ENODEV):
        return RootMissing(f"{what} cannot be reached: {error.strerror}", hint="mount it again")
    return LocalError(f"{what} cannot be written: {error.strerror}")


def _read_marker(fd: int) -> str | None:
    try:
        marker = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except FileNotFoundError:
        return None
    try:
        text = os.read(marker, 4096).decode(errors="replace")
    finally:
        os.close(marker)
    for line in text.splitlines():
        if line.startswith("id:"):
            return line.removeprefix("id:").strip()
    return ""


def _prepare(root: int) -> NameRules:
    """Make the folder for partial files, and try out in it what the file system does with names. Tried, because mounts
    have options that change it (`mapposix`, `nocase`, casefold)."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(PARTIAL, dir_fd=root)
    folder = os.open(PARTIAL, FOLDER, dir_fd=root)
    stem = f"try-{uuid.uuid4().hex}"
    try:
        windows = not _is_kept(folder, f'{stem}:*?"<>|\\ .')
        plain = f"{stem}-\N{LATIN SMALL LETTER E WITH ACUTE}"
        os.close(os.open(plain, NEW, 0o600, dir_fd=folder))
        folds = _exists(folder, plain.upper())
        normalizes = _exists(folder, unicodedata.normalize("NFD", plain))
        os.unlink(plain, dir_fd=folder)
    finally:
        os.close(folder)
    return NameRules(windows=windows, folds=folds, normalizes=normalizes)


def _is_kept(folder: int, name: str) -> bool:
    """Whether a file of this name can be made, and is listed under it (on a Windows share, `a:b` is a hidden stream
    of the file `a`)."""
    try:
        os.close(os.open(name, NEW, 0o600, dir_fd=folder))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return False
    try:
        return name in os.listdir(folder)
    finally:
        os.unlink(name, dir_fd=folder)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True
