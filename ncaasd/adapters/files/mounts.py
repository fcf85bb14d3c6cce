"""Which file system a path is on, from the kernel's mount table, and what that means for watching it."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass

MOUNT_TABLE = "/proc/self/mountinfo"

# File systems that other machines write to. The kernel tells inotify of what this machine does to them only
# (inotify(7), "Limitations and caveats"), and SQLite's locks and shared memory are not to be trusted on them.
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"),
        *("afs", "kafs", "coda", "davfs", "ncpfs", "ceph", "lustre", "gpfs", "beegfs", "fhgfs", "wekafs", "panfs"),
        *("acfs", "gfs", "gfs2", "ocfs2", "orangefs", "pvfs2"),
    }
)
_NETWORK_FUSE = frozenset(
    {
        *("sshfs", "s3fs", "rclone", "davfs2", "mount.davfs", "gvfsd-fuse", "vmhgfs-fuse", "gcsfuse", "juicefs"),
        *("glusterfs", "ceph", "cephfs", "beegfs", "weed"),
    }
)


@dataclass(frozen=True, slots=True)
class MountInfo:
    """`fstype` as the kernel names it (`ext4`, `nfs4`, `fuse.sshfs`); `device` is what is mounted."""

    fstype: str
    mountpoint: str
    device: str


def filesystem_of(path: str, *, table: str = MOUNT_TABLE) -> MountInfo:
    """The mount that `path` (absolute, or relative to the working folder) is on; it need not exist yet.

    Without a mount table (not Linux) the fstype is "". Resolving symbolic links touches the file system, so on a
    mount that hangs this hangs too: call it in the root's own thread.
    """
    lines = _table(table)
    return _deepest(os.path.realpath(path), lines) if lines else MountInfo("", "/", "")


def _deepest(path: str, lines: list[str]) -> MountInfo:
    """The mount with the longest mount point above `path`; of several on one place, the last is on top (proc(5))."""
    best = MountInfo("", "", "")
    for line in lines:
        left, separator, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if not separator or len(fields) < 5 or len(source) < 2:
            continue
        point = _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.mountpoint):
            best = MountInfo(source[0], point, _unescape(source[1].rstrip("\n")))
    return best


def _unescape(field: str) -> str:
    """Spaces, tabs, newlines and backslashes are written as octal in the mount table."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def is_network(fstype: str) -> bool:
    """Whether other machines can write to it, so that neither locks nor clocks are this machine's alone."""
    if fstype.startswith("fuse."):
        return fstype.removeprefix("fuse.") in _NETWORK_FUSE
    return fstype in _NETWORK


def sends_events(fstype: str) -> bool:
    """Whether inotify tells of every change. Not so on network file systems and FUSE, where changes may come from
    elsewhere, nor on an automount point (what will be mounted is not known); `fuseblk` is a local disk (NTFS)."""
    return not (is_network(fstype) or fstype in ("", "fuse", "autofs") or fstype.startswith("fuse."))


def events_from(path: str) -> tuple[bool, str]:
    """Whether changes below `path` can be watched by events, and its file system's name, for `Watcher`."""
    fstype = filesystem_of(path).fstype
    return sends_events(fstype), fstype


class MountPoints:
    """Which mount a path is on, by its name alone: nothing on the way is touched, so it doesn't hang with the mount, and
    symbolic links aren't followed. The mount table is read at most once a second."""

    def __init__(self, *, table: str = MOUNT_TABLE) -> None:
        self._table = table
        self._read_at = -math.inf
        self._lines: list[str] = []

    def of(self, path: str) -> str:
        """The mount point above `path` (absolute); "/" without a mount table."""
        if time.monotonic() - self._read_at > 1.0:
            self._lines, self._read_at = _table(self._table), time.monotonic()
        return _deepest(os.path.normpath(path), self._lines).mountpoint or "/"


def _table(table: str) -> list[str]:
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:
        return []
