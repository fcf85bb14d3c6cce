"""One watched tree on the disk: what is in it, what has changed, and one small file at a time.

What counts as a file:
- A regular file, under each of its names. Two hard links are two names, so two files: we can't know which of them a
  person means.
- In a source or in `inputs/`, a symbolic link to a regular file that lies in the same tree or in one of the config's `links`
  (see `links`), with a stat of both. Links to folders are never followed, so there are no loops.
- FIFOs, devices, sockets and other links are reported as skipped, and never opened.
- What cannot be read is reported as skipped, and what is known of it stays known: it doesn't count as gone.
"""

from __future__ import annotations

import contextlib
import os
import stat as modes
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ncaasd.adapters.files.links import Links, NotFollowed
from ncaasd.adapters.files.names import IgnoredNames, Ignoring
from ncaasd.adapters.files.walk import FOLDER, NOT_THERE, Found, enter, kind_of, walk
from ncaasd.adapters.files.writers import held_for_writing
from ncaasd.errors import FileChanged, FileVanished, LocalError, RootMissing, UnsafePath
from ncaasd.model import LinkTarget, Look, ScanDelta, Stat

INPUTS = "inputs"  # of the top folders, the one in which links are followed
WITHIN = (INPUTS, "configs", "submissions")
MANIFEST = "manifest.yaml"
# Base names below `submissions` that the daemon itself writes: status files, and the folder of the rules' ones.
_OURS = IgnoredNames(["*.status.json", "status", ".*.ncaasd-tmp"])

# So many files of one folder may have been deleted by hand while the daemon was down. More than that, with nothing
# left in it, look like a disk that is not mounted.
FEW = 5


@dataclass(frozen=True, slots=True)
class _Top:
    """What a scan saw of one top folder, or of the root itself (named "")."""

    identity: tuple[int, int] | None  # device and inode; None when it is not there
    files: int
    met: int  # how many known files are there


class LocalTree:
    """`ports.FileTree` on a disk or a mounted share.

    Keeps no lock and no descriptor between calls, so that a tree that hangs with its mount can be abandoned with its thread.
    """

    def __init__(
        self, root: str, *, ignore: Sequence[str] = (), within: Sequence[str] = WITHIN, links: Sequence[str] = ()
    ) -> None:
        """ignore: patterns of names, and of whole paths (`names.Ignoring`). within: the top folders to scan, with
        `manifest.yaml` beside them; none means everything (a source). links: absolute folders that links may lead to."""
        self._root = os.path.abspath(root)
        self._within = tuple(within)
        self._ignored = Ignoring(ignore, areas=self._within)
        self._last: dict[str, tuple[int, int]] = {}  # each top's identity when files were last seen in it
        self._links = Links(self._root, INPUTS if self._within else "", links, self._is_scanned)
        self._scanning = Found({})

    @property
    def root(self) -> str:
        return self._root

    @property
    def progress(self) -> int:
        found = self._scanning
        return len(found.met) + len(found.changed) + len(found.skipped)

    def check(self) -> None:
        with self._root_opened() as root:
            identity = _identity(root)
            names = set(os.listdir(root))
        empty = not names & {*self._within, MANIFEST} if self._within else not names
        if empty and self._last.get("", identity) != identity:
            raise self._missing("it is suddenly empty")

    def scan(self, known: Mapping[str, Stat]) -> ScanDelta:
        began = time.monotonic()
        found = self._scanning = Found(known)
        tops: dict[str, _Top] = {}
        links = self._links.afresh()
        with self._root_opened() as root:
            for name in self._within:
                found.at_link = partial(_at_link, links, found) if name == INPUTS else None
                tops[name] = self._scan_top(root, name, found)
            if self._within:
                self._scan_manifest(root, found)
            else:
                found.at_link = partial(_at_link, links, found)
                walk(os.dup(root), "", found, self._ignored.name.matches, self._ignored.path)
            tops[""] = _Top(_identity(root), found.files, len(found.met))
        if "" in found.skipped:
            raise self._missing(found.skipped[""])
        gone = found.gone()
        # Known files that are ignored now count as gone, but they are no sign of a missing disk.
        lost = [path for path in gone if self._is_scanned(path)]
        for name in {self._top_of(path) for path in lost}:
            self._refuse_if_missing(name, lost, tops)
        self._last |= {name: top.identity for name, top in tops.items() if top.identity and top.files}
        self._scanning = Found({})  # so that the last scan's findings are not kept
        seconds = time.monotonic() - began
        return ScanDelta(found.changed, gone, found.skipped, found.files, seconds, found.links, found.passed_over)

    def stat(self, path: str) -> Stat | None:
        return self.look(path).stat

    def look(self, path: str) -> Look:
        if path.endswith("/"):
            return self._look_at_folder(path)
        if not self._is_scanned(path):  # a hint may name anything; only paths that a scan reports count
            return Look(None)
        try:
            with self._parent(path) as (folder, name):
                seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if modes.S_ISLNK(seen.st_mode) and self._follows(path):
                    found = self._links.afresh().follow(folder, name, path)
                    return Look(found.stat, found.where)
        except NotFollowed as error:
            return Look(None, skipped=str(error), unseen=error.unseen)
        except FileVanished:
            return Look(None)
        except RootMissing:
            raise
        except LocalError as error:
            return Look(None, skipped=str(error), unseen=True)
        if modes.S_ISREG(seen.st_mode):
            return Look(Stat.of(seen))
        return Look(None, skipped="" if modes.S_ISDIR(seen.st_mode) else kind_of(seen.st_mode))

    def _look_at_folder(self, path: str) -> Look:
        """Whether it can be entered and listed."""
        if not self._is_scanned(path[:-1]):
            return Look(None)
        try:
            with self._parent(path[:-1]) as (folder, name):
                found = Found({})
                fd = enter(folder, name, path, found)
                if fd >= 0:
                    os.close(fd)
        except FileVanished:
            return Look(None)
        except RootMissing:
            raise
        except LocalError as error:
            return Look(None, skipped=str(error), unseen=True)
        return Look(None, skipped=found.skipped.get(path, ""), unseen=bool(found.unseen))

    def target(self, link: str) -> LinkTarget | None:
        return self._links.target(link)

    def read(self, path: str, *, limit: int) -> tuple[bytes, Stat]:
        with self._parent(path) as (folder, name):
            # O_NONBLOCK: a FIFO that took the file's place must not make us wait for its writer.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                return _read_whole(fd, path, limit)
            finally:
                os.close(fd)

    def held_open(self, paths: Iterable[str]) -> set[str]:
        files: dict[tuple[int, int], str] = {}
        wanted: dict[tuple[int, int], list[str]] = {}  # two links may lead to one file
        for path in paths:
            with contextlib.suppress(LocalError, NotFollowed), self._parent(path) as (folder, name):
                seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
                identity, file = (seen.st_dev, seen.st_ino), path
                if modes.S_ISLNK(seen.st_mode) and self._follows(path):
                    found = self._links.afresh().follow(folder, name, path)
                    identity, file = found.identity, found.where
                files[identity] = file
                wanted.setdefault(identity, []).append(path)
        return {path for identity in held_for_writing(files) for path in wanted[identity]}

    def free_bytes(self) -> int:
        with self._root_opened() as root:
            disk = os.fstatvfs(root)
        return disk.f_bavail * disk.f_frsize

    # Scanning

    def _scan_top(self, root: int, name: str, found: Found) -> _Top:
        try:
            fd = os.open(name, FOLDER, dir_fd=root)
        except OSError as error:
            if error.errno not in NOT_THERE:
                found.could_not_look(f"{name}/", f"cannot be opened: {error.strerror}")
            else:
                with contextlib.suppress(OSError):  # something is there, but no folder: a link, most likely
                    found.skipped[name] = kind_of(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode)
            return _Top(None, 0, 0)
        identity, files, met = _identity(fd), found.files, len(found.met)
        walk(fd, f"{name}/", found, self._passed_over(name), self._ignored.path)
        return _Top(identity, found.files - files, len(found.met) - met)

    def _scan_manifest(self, root: int, found: Found) -> None:
        try:
            found.look_at(MANIFEST, os.stat(MANIFEST, dir_fd=root, follow_symlinks=False))
        except OSError as error:
            found.could_not_stat(MANIFEST, error)

    def _passed_over(self, top: str) -> Callable[[str], bool]:
        """Which base names are not looked at below a top folder."""
        if self._within and top == "submissions":
            return lambda base: _OURS(base) or self._ignored.name(base)
        return self._ignored.name.matches

    def _is_scanned(self, path: str) -> bool:
        top, _, below = path.partition("/")
        if self._within and not (top in self._within and below):
            return path == MANIFEST
        passed_over = self._passed_over(top)
        if any(passed_over(part) for part in (below if self._within else path).split("/")):
            return False
        return self._ignored.path is None or not self._ignored.lies_in(path)

    def _follows(self, path: str) -> bool:
        """Whether links are followed where `path` lies: a manifest or a config must be the file itself."""
        return not self._within or path.startswith(f"{INPUTS}/")

    def _top_of(self, path: str) -> str:
        top, slash, _ = path.partition("/")
        return top if slash and top in self._within else ""

    def _refuse_if_missing(self, name: str, gone: Collection[str], tops: Mapping[str, _Top]) -> None:
        """Raise RootMissing when files are gone from one top folder because it is not mounted, not because they were deleted.

        A person may delete every recording; an unmounted disk leaves an empty folder of another file system behind,
        or none. So, when nothing known is left in a top folder:
        1. it is not there: missing. People delete recordings, not `inputs`.
        2. it is the very folder (device and inode) in which files were last seen: a person emptied it.
        3. it was seen with files before, and is now an empty or another file system's folder: missing. (After a
           remount devices and inodes may differ, but then the known files are there, and we don't get here.)
        4. it was not seen before, because the daemon has just started: missing when it is empty, and so is the rest
           of the tree, or more than a FEW files were known there.
        """
        top, before = tops[name], self._last.get(name)
        if top.met:
            return
        if top.identity is None:
            raise self._missing(f"its folder {name}/ is not there", "mount it, or make the folder again")
        if top.identity == before:
            return
        if not name and self._within and any(tops[other].identity for other in self._within):
            return  # manifest.yaml alone, of a tree that has its folders
        if before is not None:
            if not top.files or before[0] != top.identity[0]:
                raise self._missing(f"{name or 'it'} is suddenly empty, or on another file system than before")
        elif not top.files:
            lost = sum(1 for path in gone if self._top_of(path) == name)
            if lost > FEW or not any(other.met for other in tops.values()):
                raise self._missing(f"{name or 'it'} is empty, but {lost} files were known there")

    # Opening

    def _missing(
        self, why: str, hint: str = "mount it again; if it was emptied on purpose, put a file into it"
    ) -> RootMissing:
        return RootMissing(f"{self._root}: {why}", hint=hint)

    @contextlib.contextmanager
    def _root_opened(self) -> Iterator[int]:
        """The root's descriptor. Any OSError, also of the block, is raised as RootMissing."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._missing(
                f"cannot be opened ({error.strerror})", "mount it, or mend its path or rights"
            ) from error
        try:
            yield fd
        except OSError as error:
            raise self._missing(f"cannot be read ({error.strerror})") from error
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of `path`, reached without following a link, and the base name. An OSError on the way
        or in the block is raised as FileVanished or LocalError."""
        *folders, name = path.split("/")
        if path.startswith("/") or name in ("", ".", "..") or ".." in folders or "\0" in path:
            raise UnsafePath(f"{path!r} is not the path of a file below {self._root}")
        with self._root_opened() as root, contextlib.ExitStack() as opened:
            try:
                folder = root
                for part in folders:
                    folder = os.open(part, FOLDER, dir_fd=folder)
                    opened.callback(os.close, folder)
                yield folder, name
            except OSError as error:
                if error.errno in NOT_THERE:
                    raise FileVanished(f"{self._root}/{path} is not there any more") from error
                raise LocalError(f"{self._root}/{path} cannot be read: {error.strerror}") from error


def _at_link(links: Links, found: Found, folder: int, name: str, path: str) -> None:
    """What a scan does at a link. Raises OSError when the link itself can't be looked at."""
    try:
        followed = links.follow(folder, name, path)
    except NotFollowed as error:
        if error.unseen:
            found.could_not_look(path, str(error))
        else:
            found.skipped[path] = str(error)
        return
    found.files += 1
    if found.compare(path, followed.stat):
        found.links[path] = followed.where


def _identity(fd: int) -> tuple[int, int]:
    seen = os.fstat(fd)
    return seen.st_dev, seen.st_ino


def _read_whole(fd: int, path: str, limit: int) -> tuple[bytes, Stat]:
    before = os.fstat(fd)
    if not modes.S_ISREG(before.st_mode):
        raise FileVanished(f"{path} is {kind_of(before.st_mode)}")
    if before.st_size > limit:
        raise LocalError(f"{path} has {before.st_size} bytes; at most {limit} are read", hint="is it the right file?")
    body = bytearray()
    while block := os.read(fd, limit + 1 - len(body)):
        body += block
    after = Stat.of(os.fstat(fd))
    if after != Stat.of(before) or len(body) != before.st_size:
        raise FileChanged(f"{path} was changed while it was read")
    return bytes(body), after
