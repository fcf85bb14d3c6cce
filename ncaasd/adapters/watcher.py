"""Events as hints: something happened at this path, so look there soon. Only the rescan is relied on (`FileTree.scan`).

watchdog does the watching, over inotify. Five problems of it (7.1) are worked around here:
- Its default event mask includes opens, so in a large tree its own walks overflow the queue, for ever (`_EVENTS`).
- On an overflow it removes and sets all watches again without reading events meanwhile. The kernel reports each removed
  watch, so above 16,384 folders that overflows the queue again, for ever. Here the inotify instance is closed, which reports
  nothing, and a new one is made.
- For a folder that it finds twice, while a tree is being made, it formats all its state (`_Plain`).
- A folder below the root that cannot be watched because the limit is reached is passed over silently.
- Setting up watches walks the tree in the caller's thread. Here each root has a thread, so a mount that hangs stops only its
  own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyFullEmitter
from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchCallback, WatchDescriptor

log = logging.getLogger(__name__)
# It logs errors when its threads are stopped, and warns of folders that it finds twice while they are being made. What
# matters is logged here.
logging.getLogger("watchdog").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", message="Callback with id .* already exists", category=RuntimeWarning)

# The events that are requested. A file that is made before its new folder is watched is reported as created (watchdog lists
# new folders after it has set their watches), so a new folder needs no rescan (F23).
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]

GATHER = 0.05  # seconds in which hints are gathered before they are passed on
MAX_HINTS = 1000  # gathered hints above which the root as a whole is the hint
LOOK_AGAIN = 5.0  # seconds between checks that the root is still the folder that is watched
TRY_AGAIN = 600.0  # seconds until native watching is tried again after a limit
REST = 1.0  # seconds between giving up an inotify instance and making the next


@dataclass(frozen=True, slots=True)
class Hint:
    """Look at `path` of the watched root `root`; None: anything may have changed, rescan it."""

    root: str
    path: str | None
    published: bool = False  # it was renamed into place: from a name that is ignored, or from outside the root


class Mode(NamedTuple):
    """How a root is watched, and why, in words for `status`."""

    mode: str  # "native", "polling" (rescans alone), or "starting"
    why: str


class Watcher:
    """Watches any number of roots. The callback is called in its threads, so it must be quick and thread-safe."""

    def __init__(
        self,
        hint: Callable[[Hint], None],
        *,
        events_from: Callable[[str], tuple[bool, str]],
        ignored: Callable[[str], bool] = lambda path: False,
    ) -> None:
        """events_from: whether a path's file system reports all changes, and its name. ignored: whether a path below a root is
        of no interest (a temporary name), for roots whose `watch` call has no `ignored`."""
        self._hint = hint
        self._events_from = events_from
        self._ignored = ignored
        self._roots: dict[str, _Root] = {}

    def watch(
        self,
        name: str,
        path: str,
        *,
        mode: str = "auto",
        within: Sequence[str] = (),
        ignored: Callable[[str], bool] | None = None,
    ) -> None:
        """Watch the folder `path` under the name `name`; returns at once. A root of that name is replaced.

        mode: auto, native or polling. within: the folders below `path` to watch, and the files right in `path`; none
        means everything. ignored: as above, for this root. When the watches are set, the whole root is hinted, so that no change
        before that is missed.
        """
        old = self._roots.pop(name, None)
        if old is not None:
            old.stop()
        root = _Root(name, path, mode, tuple(within), self._hint, self._events_from, ignored or self._ignored)
        self._roots[name] = root
        root.start()

    def modes(self) -> dict[str, Mode]:
        return {name: root.mode for name, root in self._roots.items()}

    def alive(self) -> bool:
        """Whether every root's thread runs. A thread that hangs with its mount counts as running; its mode shows that."""
        return all(root.is_alive() for root in self._roots.values())

    def stop(self, *, timeout: float = 5.0) -> None:
        for root in self._roots.values():
            root.stop()
        deadline = time.monotonic() + timeout
        for root in self._roots.values():
            root.join(max(0.0, deadline - time.monotonic()))


class _Root(threading.Thread):
    """One watched root: sets its watches, gathers its hints, and sets the watches again when they have become useless."""

    def __init__(
        self,
        name: str,
        path: str,
        mode: str,
        within: tuple[str, ...],
        hint: Callable[[Hint], None],
        events_from: Callable[[str], tuple[bool, str]],
        ignored: Callable[[str], bool],
    ) -> None:
        super().__init__(name=f"watch {name}", daemon=True)  # daemon: it may hang with its mount
        self.mode = Mode("starting", "the file system has not answered yet")
        self._root, self._path, self._wanted, self._within = name, os.path.abspath(path), mode, within
        self._hint, self._events_from, self._ignored = hint, events_from, ignored
        self._changed = threading.Condition()  # the three below
        self._gathered: dict[str, bool] = {}  # path -> published
        self._useless = ""  # why the watches must be set again
        self._stopping = False

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        while not self._stopping:
            try:
                self._watch()
            except Exception as error:  # rescans without hints are better than no thread at all
                log.exception("watching %s failed", self._path)
                self._poll(f"watching failed: {error}", again_after=TRY_AGAIN)
            self._wait(REST)

    def _watch(self) -> None:
        """Watch as configured and as the file system allows. Returns when that is to be determined again."""
        if self._wanted == "polling":
            self._poll("as configured")
            return
        # Each folder is checked: `inputs` may be a share that is mounted in a folder of a local disk.
        folders = [self._path, *(os.path.join(self._path, name) for name in self._within)]
        asked = [self._events_from(folder) for folder in folders]
        silent = [fstype or "its file system" for sends, fstype in asked if not sends]
        if self._wanted == "native" or not silent:
            self._watch_natively(asked[0][1])
        else:
            self._poll(f"{silent[0]} does not tell of changes that other machines make", again_after=TRY_AGAIN)

    def _wait(self, seconds: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _poll(self, why: str, *, again_after: float | None = None) -> None:
        """Only set the mode and wait: polling consists of the engine's rescans."""
        self.mode = Mode("polling", why)
        self._wait(again_after)

    def _watch_natively(self, fstype: str) -> None:
        """Returns when the root's watches must be set again."""
        with self._changed:
            self._gathered, self._useless = {}, ""  # those of the closed watches
        try:
            identity = self._identity()
            watches = _Watches(self._path, self._within, self._happened, self._give_up)
        except OSError as error:
            limit = error.errno in _LIMITS
            self._poll(_in_words(error, self._path), again_after=TRY_AGAIN if limit else LOOK_AGAIN)
            return
        try:
            self.mode = Mode("native", f"{fstype} tells of changes" if self._wanted == "auto" else "as configured")
            self._hint(Hint(self._root, None))
            self._pass_on(watches, identity)
        finally:
            watches.close()

    def _pass_on(self, watches: _Watches, identity: list[tuple[int, int] | None]) -> None:
        """Pass gathered hints on, until the watches are useless."""
        next_look = time.monotonic() + LOOK_AGAIN
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, LOOK_AGAIN)
            self._wait(GATHER)
            with self._changed:
                gathered, self._gathered = self._gathered, {}
                useless, self._useless = self._useless, ""
                if self._stopping:
                    return
            if useless:
                log.info("%s is watched anew: %s", self._path, useless)
                return  # the whole root is hinted when it is watched again
            if len(gathered) > MAX_HINTS:
                self._hint(Hint(self._root, None))
            else:
                for path, published in gathered.items():
                    self._hint(Hint(self._root, path, published))
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_AGAIN
                # An unmounted, renamed or remounted root sends no events, or another folder's.
                if not watches.alive() or not self._is_still(identity):
                    return

    def _is_due(self) -> bool:
        return bool(self._gathered or self._useless or self._stopping)

    def _identity(self) -> list[tuple[int, int] | None]:
        """Device and inode of the root, and of the folders in it that are watched. Raises OSError without a root."""
        seen = os.stat(self._path)
        identities: list[tuple[int, int] | None] = [(seen.st_dev, seen.st_ino)]
        for name in self._within:
            try:
                seen = os.stat(os.path.join(self._path, name), follow_symlinks=False)
                identities.append((seen.st_dev, seen.st_ino))
            except FileNotFoundError:
                identities.append(None)
        return identities

    def _is_still(self, identity: list[tuple[int, int] | None]) -> bool:
        try:
            return self._identity() == identity
        except OSError:
            return False

    # From watchdog's threads

    def _give_up(self, why: str) -> None:
        with self._changed:
            self._useless = why
            self._changed.notify()

    def _happened(self, event: FileSystemEvent) -> None:
        source, target = self._below(event.src_path), self._below(event.dest_path)
        if event.is_directory:
            # A folder that is new or renamed within the root comes with an event for each file in it. One that is
            # moved out leaves watches under its old name, and a new top folder has no watches yet.
            if (isinstance(event, DirMovedEvent) and not target) or source in self._within:
                self._give_up(f"its folder {source} was moved away, or is new")
            new = target or source
            beside = self._within and not new.startswith(tuple(f"{top}/" for top in self._within))
            if new and not beside and not self._is_ignored(new):  # one that can't be entered has no events of its own
                with self._changed:
                    self._gathered.setdefault(f"{new}/", False)
                    self._changed.notify()
            return
        with self._changed:
            if source and not self._is_ignored(source):
                if isinstance(event, FileClosedEvent):  # written to, also after it was renamed into place
                    self._gathered[source] = False
                else:
                    self._gathered.setdefault(source, False)
            if target and not self._is_ignored(target):
                self._gathered[target] = not source or self._is_ignored(source)
            if self._gathered:
                self._changed.notify()

    def _below(self, path: bytes | str) -> str:
        """The path relative to the root; "" for no path."""
        return os.fsdecode(path).removeprefix(self._path).lstrip("/")

    def _is_ignored(self, path: str) -> bool:
        return self._ignored(path)


class _Watches:
    """The inotify watches of one root, in an instance of their own, so that an overflow concerns this root only."""

    def __init__(
        self,
        path: str,
        within: tuple[str, ...],
        happened: Callable[[FileSystemEvent], None],
        give_up: Callable[[str], None],
    ) -> None:
        """Returns when all are set. Raises OSError: ENOSPC or EMFILE when a limit is reached."""
        self._instance = _Instance(give_up)
        self._observer = BaseObserver(InotifyFullEmitter, timeout=LOOK_AGAIN, inotify_fd=self._instance)
        try:
            self._instance.start()
            self._observer.start()
            handler = _Handler(happened)
            self._observer.schedule(handler, path, recursive=not within, event_filter=_EVENTS)
            for name in within:
                folder = os.path.join(path, name)
                if os.path.isdir(folder) and not os.path.islink(folder):
                    self._observer.schedule(handler, folder, recursive=True, event_filter=_EVENTS)
            if self._instance.refused is not None:
                raise self._instance.refused
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        threads = [self._observer, self._instance, *self._observer.emitters]
        return all(thread.is_alive() for thread in threads)

    def close(self) -> None:
        for thread in (self._observer, self._instance):
            thread.stop()
            with contextlib.suppress(RuntimeError):  # it was not started
                thread.join(2.0)


class _Instance(InotifyFD):
    def __init__(self, give_up: Callable[[str], None]) -> None:
        super().__init__()
        self._give_up = give_up
        self.refused: OSError | None = None

    def handle_event(self, event: InotifyEvent) -> None:
        if event.is_queue_overflow:
            self._give_up("more happened at once than the kernel keeps (fs.inotify.max_queued_events)")
        else:
            super().handle_event(event)

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        try:
            return super().add_callback(path, mask, _Plain(callback), id_)
        except OSError as error:
            if error.errno in _LIMITS and self.refused is None:
                self.refused = error
                self._give_up("the limit of inotify watches is reached")
            raise


class _Plain:
    """Replaces watchdog's callback with one that has a short repr: watchdog formats its own, with every folder of the tree in
    it, for each folder that it finds twice."""

    def __init__(self, callback: WatchCallback) -> None:
        self.on_event = callback.on_event
        self.on_watch_deleted = callback.on_watch_deleted
        self.on_queue_overflow = callback.on_queue_overflow


class _Handler(FileSystemEventHandler):
    def __init__(self, happened: Callable[[FileSystemEvent], None]) -> None:
        self._happened = happened

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._happened(event)


_LIMITS = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_LIMIT_FILES = {
    errno.ENOSPC: ("watches", "max_user_watches", 1_048_576),
    errno.EMFILE: ("instances", "max_user_instances", 1024),
}


def _in_words(error: OSError, path: str) -> str:
    """Why the path can't be watched, and what to do about it."""
    if error.errno not in _LIMIT_FILES:
        return f"{path} cannot be watched: {error.strerror}"
    what, name, enough = _LIMIT_FILES[error.errno]
    setting = f"fs.inotify.{name}={enough}"
    return (
        f"this machine's limit of inotify {what} is reached (fs.inotify.{name}): raise it with `sudo sysctl {setting}`, "
        f"and for good with a line `{setting}` in /etc/sysctl.d/90-ncaasd.conf"
    )
