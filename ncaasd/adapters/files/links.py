"""Symbolic links to files: where they may lead, their stat, and opening what they lead to.

A user who drops files may have fewer rights than the daemon, so a link must not lead it out of the folders that the config
allows. First the link, and every link on the way, is read to find the target; but any of them may be changed right after.
So the file is then opened from the allowed folder's own descriptor, one name after the other, none of which may be a link.
Therefore no `..`, no folder that is swapped for a link meanwhile, no chain of links and nothing below /proc leads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from ncaasd.adapters.files.walk import NOT_THERE
from ncaasd.errors import FileChanged, FileVanished, LocalError
from ncaasd.model import LinkTarget, Stat
from ncaasd.plan.files import unreadable

# A folder on the way need not be listed, so it need not be readable.
_ON_THE_WAY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that took the file's place must not make us wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MOST_LINKS = 40  # in one path, as on Linux (path_resolution(7))
LONGEST_SAID = 500  # characters of a path in a reason
MOST_NAMES = 4096  # in one path: the longest possible path has half as many


class NotFollowed(Exception):
    """Why a link is not followed, for people. `unseen`: the file that it led to before may still be there."""

    def __init__(self, why: str, *, unseen: bool = False) -> None:
        super().__init__(why)
        self.unseen = unseen


@dataclass(frozen=True, slots=True)
class Followed:
    """What a link leads to. `where`: as `FileRow.link`; `stat`: of the link and the file together."""

    where: str
    stat: Stat
    identity: tuple[int, int]  # the file's device and inode


@dataclass(frozen=True, slots=True)
class _Allowed:
    root: str  # as the config has it
    real: str  # without links


class Links:
    """The links of one tree."""

    def __init__(self, root: str, within: str, links: Sequence[str], is_scanned: Callable[[str], bool]) -> None:
        """root: the tree's. within: the folder of it that links may lead to; "" for all of it. links: the config's `links`.
        is_scanned: whether a path of the tree would be found by a scan itself."""
        self._root = root
        self._within = within
        self._links = tuple(links)
        self._is_scanned = is_scanned

    def afresh(self) -> Links:
        """A copy that resolves the allowed folders' real paths again."""
        return Links(self._root, self._within, self._links, self._is_scanned)

    def target(self, where: str) -> LinkTarget | None:
        """The target that a `FileRow.link` names; None when the config doesn't allow it any more. Touches no disk."""
        if not where.startswith("/"):
            return LinkTarget(self._root, where)
        for root in (os.path.join(self._root, self._within).rstrip("/"), *self._links):
            if where.startswith(f"{root}/"):
                return LinkTarget(root, where[len(root) + 1 :])
        return None

    def follow(self, folder: int, name: str, path: str) -> Followed:
        """What the link `name` of an open folder leads to; `path` is the link's, below the tree. Raises NotFollowed, and OSError
        when the link itself can't be looked at."""
        link = os.stat(name, dir_fd=folder, follow_symlinks=False)
        written = os.readlink(name, dir_fd=folder)
        real, missing, others = self._resolved(os.path.dirname(f"{self._real_root}/{path}"), written)
        allowed = next((a for a in self._allowed if real.startswith(f"{a.real}/")), None)
        if missing is not None:
            of_another_disk = allowed is not None and allowed is not self._allowed[0]
            hint = "is its disk mounted?" if of_another_disk else "mend the link, or put the file itself here"
            why = f"a symbolic link to {_cut(written)}, but {_cut(real)} {missing}: {hint}"
            raise NotFollowed(why, unseen=of_another_disk)
        if allowed is None:
            raise NotFollowed(
                f"a symbolic link to {_cut(real)}, which is outside of {self._own_name}: it is not followed. Put the file itself"
                " here, or name the folder that it leads to in `links:` of the config"
            )
        target = LinkTarget(allowed.root, real[len(allowed.real) + 1 :])
        try:
            with _parent(target) as (parent, base):
                seen = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_THERE:  # it has just been there
                raise NotFollowed(f"a symbolic link to {real}, which is changing right now", unseen=True) from error
            why = f"a symbolic link to {real}, which cannot be looked at: {error.strerror}"
            raise NotFollowed(why, unseen=True) from error
        if modes.S_ISDIR(seen.st_mode):
            raise NotFollowed(
                f"a symbolic link to the folder {_cut(real)}: only links to files are followed. Put the folder itself here, or"
                " a link to each file"
            )
        if not modes.S_ISREG(seen.st_mode):
            raise NotFollowed(f"a symbolic link to {real}, which is not a file")
        # If it leads to a file of the same tree, or over another link in it, a scan finds that by itself: take the first.
        own = next((below for one in (*others, real) if (below := self._found_by_itself(one))), "")
        return Followed(own or str(target), Stat.of_link(link, seen), (seen.st_dev, seen.st_ino))

    def _found_by_itself(self, real: str) -> str:
        """The path below the tree if a scan finds it by itself; "" for anything else."""
        own = self._allowed[0].real
        below = real[len(self._real_root) + 1 :]
        return below if real.startswith(f"{own}/") and self._is_scanned(below) else ""

    @property
    def _own_name(self) -> str:
        return f"{self._within}/" if self._within else self._root

    @cached_property
    def _real_root(self) -> str:
        return os.path.realpath(self._root)

    @cached_property
    def _allowed(self) -> tuple[_Allowed, ...]:
        """The tree's own folder first."""
        own, real = (os.path.join(r, self._within).rstrip("/") for r in (self._root, self._real_root))
        return _Allowed(own, real), *(_Allowed(link, os.path.realpath(link)) for link in self._links)

    def _resolved(self, folder: str, written: str) -> tuple[str, str | None, list[str]]:
        """(the path without links; why nothing is there, None when something is; the links to the very same file on the way).

        `folder` is a path without links.
        """
        at = "" if written.startswith("/") else folder
        left = written.split("/")[::-1]
        others: list[str] = []
        links = names = 0
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = at.rpartition("/")[0]
                continue
            path = f"{at}/{name}"
            names += 1
            if names > MOST_NAMES:
                return path, "is behind too many folders", []
            try:
                is_link = modes.S_ISLNK(os.lstat(path).st_mode)
                text = os.readlink(path) if is_link else ""
            except OSError as error:
                rest = "/".join([path, *(n for n in reversed(left) if n not in ("", "."))])
                why = "is not there" if error.errno in NOT_THERE else f"can't be reached ({error.strerror})"
                return rest, why, []
            if not is_link:
                at = path
                continue
            links += 1
            if links > MOST_LINKS:
                return path, "leads round in a circle, or over too many other links", []
            if not left:
                others.append(path)
            if text.startswith("/"):
                at = ""
            left += text.split("/")[::-1]
        return at or "/", None, others


def _cut(path: str) -> str:
    return path if len(path) <= LONGEST_SAID else f"{path[:LONGEST_SAID]}…"


@contextmanager
def _parent(target: LinkTarget) -> Iterator[tuple[int, str]]:
    """The folder of a link's target, reached without following a link below its root, and the base name. Raises OSError."""
    *folders, name = target.path.split("/")
    if name in ("", ".", "..") or ".." in folders:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    folder = os.open(target.root, (_ON_THE_WAY & ~os.O_NOFOLLOW))
    try:
        for part in folders:
            inner = os.open(part, _ON_THE_WAY, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def open_target(target: LinkTarget) -> int:
    """`ports.OpenLink`: a descriptor of what a link leads to, for reading. Raises OSError; nothing but a file is opened."""
    with _parent(target) as (folder, name):
        if not modes.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "it is not a file any more")
        return os.open(name, _FILE, dir_fd=folder)


def open_expected(path: str, target: LinkTarget | None, expect: Stat) -> int:
    """A descriptor of the file at `path`, or of the link's `target`. Raises FileVanished, FileUnreadable; FileChanged when its
    stat is not `expect`."""
    try:
        fd = os.open(path, _FILE) if target is None else open_target(target)
    except OSError as error:
        raise _translated(error, path) from error
    try:
        if observed(fd, path, target) != expect:
            raise FileChanged(f"{path} is not what it was when it was called whole")
    except OSError as error:
        os.close(fd)
        raise _translated(error, path) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def observed(fd: int, path: str, target: LinkTarget | None) -> Stat:
    """The present stat of an open file, together with that of the link that led to it. Raises OSError."""
    seen = os.fstat(fd)
    return Stat.of(seen) if target is None else Stat.of_link(os.stat(path, follow_symlinks=False), seen)


def _translated(error: OSError, path: str) -> LocalError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileVanished(f"{path} is not there any more")
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE):
        return FileChanged(f"{path} is not the file any more that was found ({error.strerror})")
    return unreadable(path, error, os.geteuid())
