"""Which files a process of this machine is still writing, read from /proc; none where there is no /proc.

Other users' processes can be seen by root only. A process that maps a file for writing may have closed it, and the
file's mtime then changes late (mmap(2)), so shared writable mappings count too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

PROC = "/proc"
# Seconds: a machine with very many processes must not keep a scan waiting. What was found until then counts.
LOOK_FOR = 1.0

Identity = tuple[int, int]  # device and inode


def held_for_writing(files: Mapping[Identity, str], *, proc: str = PROC, look_for: float = LOOK_FOR) -> set[Identity]:
    """Those of `files` (their identities, and their paths) that are open or mapped for writing."""
    if not files:
        return set()
    names = {os.path.basename(path) for path in files.values()}
    inodes = {identity[1]: identity for identity in files}
    held: set[Identity] = set()
    deadline = time.monotonic() + look_for
    try:
        processes = [entry for entry in os.listdir(proc) if entry.isdigit()]
    except OSError:
        return held
    for process in processes:
        if time.monotonic() > deadline or len(held) == len(files):
            break
        held |= _opened(f"{proc}/{process}", names, files) | _mapped(f"{proc}/{process}/maps", names, inodes)
    return held


def _opened(process: str, names: set[str], files: Mapping[Identity, str]) -> set[Identity]:
    found: set[Identity] = set()
    try:
        descriptors = os.listdir(f"{process}/fd")
    except OSError:  # another user's, or it has ended
        return found
    for descriptor in descriptors:
        link = f"{process}/fd/{descriptor}"
        try:
            # The name first: following the link would touch the other file's file system, which may hang.
            if os.path.basename(os.readlink(link)) not in names:
                continue
            seen = os.stat(link)
            if (seen.st_dev, seen.st_ino) in files and _for_writing(f"{process}/fdinfo/{descriptor}"):
                found.add((seen.st_dev, seen.st_ino))
        except OSError:
            continue
    return found


def _for_writing(fdinfo: str) -> bool:
    """`flags:` is octal, as open(2) has them (proc_pid_fdinfo(5))."""
    with open(fdinfo, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _mapped(maps: str, names: set[str], inodes: Mapping[int, Identity]) -> set[Identity]:
    found: set[Identity] = set()
    try:
        with open(maps, "rb") as file:
            text = file.read()
    except OSError:
        return found
    if b"w-s " not in text and b"wxs " not in text:  # no shared writable mapping at all: the usual case
        return found
    for line in text.splitlines():
        fields = line.split(None, 5)  # address, permissions, offset, device, inode, path (proc_pid_maps(5))
        if len(fields) < 6 or fields[1][1:2] != b"w" or fields[1][3:4] != b"s":
            continue
        inode, name = int(fields[4]), os.path.basename(os.fsdecode(fields[5])).replace("\\012", "\n")
        # Compared by name and not by device: btrfs shows another device here than stat does.
        if inode in inodes and name in names:
            found.add(inodes[inode])
    return found
