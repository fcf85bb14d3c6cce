"""Which file system a path is on, from the kernel's mount table, and what that means for watching it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from dataclasses import dataclass

MOUNT_TABLE = "/proc/self/mountinfo"

FOLLOWED = 1000  # folders in a path, links followed; more are a circle of links

# File systems that other machines write to. On them inotify reports only this machine's own changes
# (inotify(7), "Limitations and caveats"), and SQLite's locks and shared memory are not reliable.
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
    mounts = _mounts(table)
    return _deepest(os.path.realpath(path), mounts) if mounts else MountInfo("", "/", "")


def _mounts(table: str) -> list[MountInfo]:
    """The mount table, in its order; empty where there is none."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return []
    mounts = []
    for line in lines:
        left, separator, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if separator and len(fields) >= 5 and len(source) >= 2:
            mounts.append(MountInfo(source[0], _unescape(fields[4]), _unescape(source[1].rstrip("\n"))))
    return mounts


def _deepest(path: str, mounts: list[MountInfo]) -> MountInfo:
    """The mount with the longest mount point above `path`; of several on one place, the last is on top (proc(5))."""
    best = MountInfo("", "", "")
    for mount in mounts:
        point = mount.mountpoint
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.mountpoint):
            best = mount
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
    """Whether inotify reports every change. It doesn't on network file systems and FUSE, where changes may come from
    elsewhere, nor on an automount point (what will be mounted is not known); `fuseblk` is a local disk (NTFS)."""
    return not (is_network(fstype) or fstype in ("", "fuse", "autofs") or fstype.startswith("fuse."))


def events_from(path: str) -> tuple[bool, str]:
    """Whether changes below `path` can be watched by events, and its file system's name, for `Watcher`."""
    fstype = filesystem_of(path).fstype
    return sends_events(fstype), fstype


class MountPoints:
    """Which mount a folder is on, without asking that mount, which may hang. Symbolic links on local disks are followed, those
    on others are not. The mount table is read at most once a second."""

    def __init__(self, *, table: str = MOUNT_TABLE) -> None:
        self._table = table
        self._read_at = -math.inf
        self._mounts: list[MountInfo] = []
        self._known: dict[str, str] = {}

    def of(self, folder: str) -> str:
        """The mount point above `folder` (absolute); "/" without a mount table."""
        if time.monotonic() - self._read_at > 1.0:
            self._mounts, self._known = _mounts(self._table), {}
            self._read_at = time.monotonic()
        found = self._known.get(folder)
        if found is None:
            found = self._known[folder] = _deepest(self._followed(folder), self._mounts).mountpoint or "/"
        return found

    def _followed(self, path: str) -> str:
        done, left = "/", path.split("/")[::-1]
        for _ in range(FOLLOWED):
            if not left:
                break
            done = os.path.normpath(os.path.join(done, left.pop()))
            mount = _deepest(done, self._mounts)
            if not sends_events(mount.fstype):
                break
            if done != mount.mountpoint:
                with contextlib.suppress(OSError):  # it is no link, or not there
                    left += os.readlink(done).split("/")[::-1]
                    done = "/" if left[-1] == "" else os.path.dirname(done)
        return os.path.normpath(os.path.join(done, *left[::-1]))
