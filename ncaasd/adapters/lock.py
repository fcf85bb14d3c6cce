"""One daemon for one state folder and one root: flock, which the kernel releases when its holder dies (F77)."""

from __future__ import annotations

import errno
import fcntl
import os

from ncaasd.errors import StateError


class Locked:
    """Holds the locks until it is closed, or the process ends."""

    def __init__(self, state: str, root: str) -> None:
        """Raises StateError with the holder's pid when another daemon has the state folder or the root."""
        self._fds: list[int] = []
        try:
            self._lock_state(state)
            self._lock_root(root)
        except BaseException:
            self.close()
            raise

    def _lock_state(self, state: str) -> None:
        fd = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._fds.append(fd)
        if not _flock(fd):
            pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StateError(
                f"another ncaasd (pid {pid}) is running with the state folder {state}",
                hint="talk to it with `ncaasd status`, or stop it first",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _lock_root(self, root: str) -> None:
        """Lock the folder itself, so that two daemons with two states can't share it. Writes nothing."""
        try:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return  # not there (unmounted): nothing to lock, and nothing is written to it before it is back
        self._fds.append(fd)
        if not _flock(fd):
            raise StateError(
                f"another ncaasd (pid {_holder(fd)}) with another state folder is working on {root}",
                hint="one folder has one daemon: stop the other, or give this one its own `root:`",
            )

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def running(state: str) -> int | None:
    """The pid of the daemon that has this state folder, 0 if the pid is not known; None when no daemon has it."""
    try:
        fd = os.open(os.path.join(state, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _flock(fd, fcntl.LOCK_SH):
            return None
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)


def _flock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            return True  # a file system without locks; S3's conditional write still keeps submits single
        raise
    return True


def _holder(fd: int) -> str:
    """The pid that /proc/locks has for this file; "unknown" without one."""
    found = os.fstat(fd)
    mark = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                fields = line.split()
                if mark in fields and "FLOCK" in fields:
                    return fields[4]
    except OSError:
        pass
    return "unknown"
