"""Which workers wait for a disk, and which disks don't answer: a mount that hangs neither answers nor fails (F89).

A worker notes when it calls the file system and when the call returns (`Disks.call`). Such calls are short, a stat or one
block of a file, so a call that takes long hangs; requests to S3 have timeouts of their own and don't count. The pool checks
this now and then, under its lock. If other calls on the disk have returned since a hanging call began, only its file is the
cause (a bad sector, a file on tape); else the whole disk counts as silent until a call returns.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from ncaasd.model import DownloadTask, UploadTask
from ncaasd.ports import Clock

HANGS_AFTER = 10.0  # seconds
SYNC_HANGS_AFTER = 120.0  # seconds; an fsync may wait for the writes of other programs, too

DiskOf = Callable[[UploadTask | DownloadTask], str]


class HasTask(Protocol):
    """What a worker works on: a transfer."""

    @property
    def task(self) -> UploadTask | DownloadTask: ...


T = TypeVar("T", bound=HasTask)


class Activity(Generic[T]):
    """A worker's work on a transfer. Its context is a call to the file system; the function that it yields is called after
    each step of a call that consists of many."""

    __slots__ = ("_clock", "disk", "hung_since", "returned", "since", "stepping", "syncing", "transfer")

    def __init__(self, transfer: T | None, clock: Clock, *, stepping: bool = False) -> None:
        self._clock = clock
        self.transfer = transfer
        self.stepping = stepping  # in a step that its flow counts as running
        self.since: float | None = None  # monotonic: when its present call began
        self.syncing = False
        self.returned = -math.inf  # monotonic: when its last call did
        self.hung_since: float | None = None  # `since` of the call that is overdue
        self.disk = ""  # the disk of the call that hangs

    def __enter__(self) -> Callable[[], None]:
        self.since = self._clock.monotonic()
        return self.got_on

    def __exit__(self, *_: object) -> None:
        self.since, self.returned = None, self._clock.monotonic()

    def got_on(self) -> None:
        self.returned = self.since = self._clock.monotonic()

    @property
    def hangs(self) -> bool:
        return self.hung_since is not None

    def overdue(self, now: float) -> bool:
        since = self.since
        return since is not None and now - since > (SYNC_HANGS_AFTER if self.syncing else HANGS_AFTER)


class Disks(Generic[T]):
    """All methods but `call`, `reading`, `mine` and `hangs` are called under the pool's lock. `disk_of` returns the disk that a
    task's local file is on, without touching it."""

    def __init__(self, clock: Clock, disk_of: DiskOf) -> None:
        self._clock = clock
        self.disk_of = disk_of
        self._activities: dict[int, Activity[T]] = {}  # by thread id: its present or last work
        self._nobody: Activity[T] = Activity(None, clock)  # for threads that are no workers: not watched
        self._answered: set[str] = set()  # disks that hung, and on which a call has returned since the last check
        self.silent: frozenset[str] = frozenset()

    def call(self, *, sync: bool = False) -> Activity[T]:
        """The context for a call to the file system, in any thread."""
        activity = self.mine()
        activity.syncing = sync
        return activity

    @contextmanager
    def reading(self, checkpoint: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """The context for reading many blocks. It yields a `checkpoint` to be called at each block."""
        with self.call() as got_on:

            def each_block() -> None:
                checkpoint()
                got_on()

            yield each_block

    def hangs(self, task: UploadTask | DownloadTask) -> bool:
        return bool(self.silent) and self.disk_of(task) in self.silent

    def begin(self, transfer: T, *, stepping: bool) -> None:
        """The calling thread begins to work on a transfer, and has ended its earlier work."""
        self.leave()
        self._activities[threading.get_ident()] = Activity(transfer, self._clock, stepping=stepping)

    def leave(self) -> None:
        """The calling thread ends."""
        activity = self._activities.pop(threading.get_ident(), None)
        if activity is not None and activity.hangs:
            self._answered.add(activity.disk)

    def mine(self) -> Activity[T]:
        return self._activities.get(threading.get_ident(), self._nobody)

    def hung(self) -> int:
        """How many workers hang."""
        return sum(activity.hangs for activity in self._activities.values())

    def is_hung(self, thread: threading.Thread) -> bool:
        activity = self._activities.get(thread.ident or 0)
        return activity is not None and activity.hangs

    def went_on(self) -> list[Activity[T]]:
        """Workers that hung, and whose call has returned."""
        return [p for p in self._activities.values() if p.hangs and p.since != p.hung_since]

    def overdue(self) -> list[Activity[T]]:
        """Workers whose call hangs, and which are not marked as hanging yet."""
        now = self._clock.monotonic()
        return [p for p in self._activities.values() if not p.hangs and p.overdue(now)]

    def note(self, went_on: list[Activity[T]], overdue: list[Activity[T]]) -> tuple[frozenset[str], frozenset[str]]:
        """Record what the two methods above found. Returns the disks that have become silent, and those that answer again."""
        self._answered.update(activity.disk for activity in went_on)
        for activity in went_on:
            activity.hung_since = None
        for activity in overdue:
            activity.hung_since, activity.disk = activity.since, self._disk(activity)
        back = self.silent & self._answered
        self._answered.clear()
        silent = self.silent - back
        new = frozenset(
            activity.disk for activity in overdue if activity.disk not in silent and not self._answers_others(activity)
        )
        self.silent = silent | new
        return new, back - new

    def _answers_others(self, hung: Activity[T]) -> bool:
        """Whether a call of another worker to its disk has returned since its own began."""
        return any(
            p.returned > (hung.since or 0.0) and self._disk(p) == hung.disk
            for p in self._activities.values()
            if p is not hung
        )

    def _disk(self, activity: Activity[T]) -> str:
        assert activity.transfer is not None  # it is a worker's
        return self.disk_of(activity.transfer.task)
