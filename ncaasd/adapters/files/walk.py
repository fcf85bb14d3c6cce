"""Walks a folder and compares it to what is known, with as few system calls as possible.

Every folder is opened relative to its parent's descriptor, so a path may be longer than PATH_MAX, and a folder that
is swapped for a symbolic link while we walk is not followed.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ncaasd.declare.ignored import FOLDERS
from ncaasd.model import Stat
from ncaasd.plan.settling import unchanged

# Open folders at a time: side branches still to be walked. A folder is closed as soon as its last subfolder is
# entered, so this doesn't bound depth; it keeps a scan well within the usual 1,024 descriptors.
MAX_OPEN = 256
# Nothing deeper can be stored: an S3 key has at most 1,024 bytes. It also ends the walk of a file system with endless folders.
MAX_DEPTH = 512

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

_KINDS = {
    modes.S_IFLNK: "a symbolic link: links are not followed, put the file itself here",
    modes.S_IFIFO: "a named pipe, not a file",
    modes.S_IFSOCK: "a socket, not a file",
    modes.S_IFCHR: "a device, not a file",
    modes.S_IFBLK: "a device, not a file",
}


@dataclass(slots=True)
class Found:
    """What a scan has gathered so far."""

    known: Mapping[str, Stat]
    changed: dict[str, Stat] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)  # of the known paths, those that are there
    skipped: dict[str, str] = field(default_factory=dict)  # path -> why; folders end in "/"
    unseen: set[str] = field(default_factory=set)  # what could not be looked at: folders end in "/"
    files: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)  # how many ignored folders of the built-in list, by name
    links: dict[str, str] = field(default_factory=dict)  # of the changed: followed links, with their targets
    # Looks at the link (an open folder, a name in it, its path) below the folder that is walked; None: links are skipped.
    at_link: Callable[[int, str, str], None] | None = None

    def gone(self) -> frozenset[str]:
        """The known paths that are certainly not there: what could not be looked at doesn't count."""
        if len(self.met) == len(self.known):
            return frozenset()
        absent = self.known.keys() - self.met
        if not self.unseen:
            return frozenset(absent)
        folders = tuple(path for path in self.unseen if not path or path.endswith("/"))
        return frozenset(path for path in absent if not path.startswith(folders) and path not in self.unseen)

    def look_at(self, path: str, seen: os.stat_result) -> None:
        """Compare one file (the inner loop of `_list` does the same, written out)."""
        if not modes.S_ISREG(seen.st_mode):
            self.skipped[path] = kind_of(seen.st_mode)
            return
        self.files += 1
        self.compare(path, Stat.of(seen))

    def compare(self, path: str, now: Stat) -> bool:
        """Whether a file is new or changed."""
        before = self.known.get(path)
        if before is not None:
            self.met.add(path)
        if before is None or not unchanged(before, now):
            self.changed[path] = now
            return True
        return False

    def could_not_stat(self, path: str, error: OSError) -> None:
        if error.errno not in NOT_THERE:  # else it just isn't there
            self.could_not_look(path, f"cannot be looked at: {error.strerror}")

    def could_not_look(self, path: str, why: str) -> None:
        """`path` ends in "/" when it is a folder; the empty path is the whole tree."""
        self.unseen.add(path)
        self.skipped[path] = why


def kind_of(mode: int) -> str:
    """A description, for people, of something that is not a regular file."""
    return _KINDS.get(modes.S_IFMT(mode), "not a file")


def walk(
    fd: int, prefix: str, found: Found, ignored: Callable[[str], bool], whole: Callable[[str], bool] | None = None
) -> None:
    """Gather everything below the folder `fd` (which is closed here) into `found`.

    prefix: the folder's path in the tree: empty, or with "/" at its end. ignored: whether to pass over a path's name.
    whole: whether to pass over a path, where there are patterns for whole paths.
    """

    def passed_over(prefix: str) -> Callable[[str], bool]:
        return ignored if whole is None else lambda name: ignored(name) or whole(prefix + name)

    stack: list[tuple[int, str, int, list[str]]] = []  # descriptor, prefix, depth, subfolders still to walk
    try:
        stack.append((fd, prefix, 0, []))
        stack[0][3].extend(_list(fd, prefix, found, passed_over(prefix)))
        while stack:
            fd, prefix, depth, pending = stack[-1]
            if not pending:
                stack.pop()
                os.close(fd)
                continue
            name = pending.pop()
            child = enter(fd, name, f"{prefix}{name}/", found)
            if not pending:
                stack.pop()
                os.close(fd)
            if child < 0:
                continue
            stack.append((child, f"{prefix}{name}/", depth + 1, []))
            if depth >= MAX_DEPTH or len(stack) > MAX_OPEN:
                found.could_not_look(f"{prefix}{name}/", "folders are nested too deep here")
                continue
            within = f"{prefix}{name}/"
            stack[-1][3].extend(_list(child, within, found, passed_over(within)))
    finally:
        for open_folder in stack:
            os.close(open_folder[0])


def enter(parent: int, name: str, path: str, found: Found) -> int:
    """The descriptor of a subfolder; -1 when it cannot be opened, which is noted unless it has just vanished."""
    try:
        return os.open(name, FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno not in NOT_THERE:
            found.could_not_look(path, f"cannot be opened: {error.strerror}{_way_on(error)}")
        return -1


def _way_on(error: OSError) -> str:
    if error.errno != errno.EACCES:
        return ""
    return f"; let the daemon's user (uid {os.geteuid()}) list and enter this folder, such as with `chmod a+rx`"


def _list(fd: int, prefix: str, found: Found, ignored: Callable[[str], bool]) -> list[str]:
    """Compare the files of one folder; returns its subfolders' names. This is the inner loop of a rescan."""
    folders: list[str] = []
    before_at, met, changed = found.known.get, found.met.add, found.changed
    files = 0
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if ignored(name):
                    if name in FOLDERS and entry.is_dir(follow_symlinks=False):
                        found.passed_over[name] = found.passed_over.get(name, 0) + 1
                    continue
                if entry.is_file(follow_symlinks=False):
                    path = prefix + name
                    try:
                        seen = entry.stat(follow_symlinks=False)
                    except OSError as error:
                        found.could_not_stat(path, error)
                        continue
                    files += 1
                    before = before_at(path)
                    if before is None:
                        changed[path] = Stat.of(seen)
                        continue
                    met(path)
                    # `plan.settling.unchanged`, inlined: a call for each of 200,000 files would cost too much time.
                    if (
                        before.size != seen.st_size
                        or before.mtime_ns != seen.st_mtime_ns
                        or before.ctime_ns != seen.st_ctime_ns
                    ):
                        changed[path] = Stat.of(seen)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                else:
                    _note_other(fd, entry, prefix + name, found)
    except OSError as error:  # the listing failed: entries it did not reach don't count as gone
        found.could_not_look(prefix, f"cannot be listed: {error.strerror}")
    found.files += files
    return folders


def _note_other(fd: int, entry: os.DirEntry[str], path: str, found: Found) -> None:
    try:
        if found.at_link is not None and entry.is_symlink():
            found.at_link(fd, entry.name, path)
            return
        found.skipped[path] = kind_of(entry.stat(follow_symlinks=False).st_mode)
    except OSError as error:
        found.could_not_stat(path, error)
