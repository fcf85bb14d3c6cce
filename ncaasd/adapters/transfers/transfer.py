"""What an upload and a download have in common: steps that workers run, and one outcome at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from ncaasd.adapters.transfers.bandwidth import Bandwidth, Paused
from ncaasd.adapters.transfers.buffers import Buffers
from ncaasd.adapters.transfers.disks import Disks
from ncaasd.adapters.transfers.meter import Meter
from ncaasd.adapters.transfers.source import PASSING
from ncaasd.errors import StoreError
from ncaasd.model import DownloadTask, Outcome, UploadTask, Verdict
from ncaasd.plan.retry import backoff
from ncaasd.ports import Clock, CrashPoint, ObjectStore, OpenLink, ResultsTree, TransferLog

PATIENCE = 120.0  # seconds for which a step is tried again; then the engine decides when to retry the task
BACKOFF_FIRST = 0.5  # seconds
BACKOFF_MOST = 30.0  # seconds

StoreFor = Callable[[str, str | None], ObjectStore]
ResultsFor = Callable[[str], ResultsTree]


class Abandoned(Exception):
    """Raised in a request to end it because the pool stops or is paused. It is no failure; completed parts are kept."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What every transfer works with."""

    store_for: StoreFor
    results_for: ResultsFor
    log: TransferLog
    clock: Clock
    crash: CrashPoint
    bandwidth: Bandwidth
    range_size: int  # bytes of one range of a large download; smaller objects come in one request
    disks: Disks[Transfer]
    open_link: OpenLink | None = None
    buffers: Buffers = field(default_factory=Buffers)


@dataclass(eq=False, slots=True)
class Step:
    """One piece of work for one worker. `run` returns the transfer's outcome, or None if the transfer goes on, or raises."""

    run: Callable[[], Outcome | None]
    size: int  # bytes it moves, by which the flows are served evenly
    remote: bool = True  # it sends requests to the store: if it succeeds, the store is well
    attempts: int = 0
    since: float = 0.0  # monotonic: when it failed first
    not_before: float = 0.0  # monotonic

    def put_off(self, now: float, jitter: float) -> bool:
        """Set when to try again after a failure that may pass. False when it has been tried for PATIENCE seconds."""
        if not self.attempts:
            self.since = now
        self.attempts += 1
        self.not_before = now + wait_after(self.attempts, jitter)
        return self.not_before - self.since < PATIENCE


def wait_after(failures: int, jitter: float) -> float:
    """Seconds that a step, or the flow of a failing store, waits after this many failures in a row (0 <= jitter < 1)."""
    return backoff(failures, first=BACKOFF_FIRST, most=BACKOFF_MOST, spread=jitter)


class Transfer(ABC):
    """One task under way. `take`, `put_back` and `end` are called under the pool's lock; steps and `close` without."""

    small: bool  # one request; never waits behind the parts of large ones
    memory: int  # bytes of buffer that a step holds
    deferred = False  # FETCHED only counts after the next sync of its results tree

    def __init__(self, task: UploadTask | DownloadTask, env: Environment) -> None:
        self.task = task
        self.env = env
        self.meter = Meter(env.clock)
        self.inflight = 0
        self.started = False
        self.halted = False
        self.stuck = ""  # its disk while that doesn't answer: no step is taken then
        self.finished = False  # no step of it runs any more, and none will
        self.told = False  # its outcome was delivered
        self.outcome: Outcome | None = None
        self._again: list[Step] = []  # failed or abandoned; to be tried again

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def fresh(self) -> Step | None:
        """The next step that was never tried, if there is one that can run now."""

    @abstractmethod
    def verdict_of(self, error: Exception) -> Outcome:
        """The task's outcome for an error after which no step is tried again."""

    @abstractmethod
    def close(self) -> None:
        """Close descriptors, and keep or discard temporary files by the outcome. Called when no step runs any more."""

    def take(self, now: float) -> Step | None:
        """A step to run now."""
        if self.halted or self.stuck or self.outcome is not None:
            return None
        for step in self._again:
            if step.not_before <= now:
                self._again.remove(step)
                return step
        return self.fresh()

    def put_back(self, step: Step) -> None:
        self._again.append(step)

    def end(self, outcome: Outcome) -> None:
        """Set the outcome; the first one counts. It is delivered when no step of the transfer runs any more."""
        if self.outcome is None:
            self.outcome = outcome

    def wakes(self) -> float | None:
        """Monotonic time at which the next step that was put off may be tried."""
        if self.halted or self.stuck or self.outcome is not None:
            return None
        return min((step.not_before for step in self._again), default=None)

    def checkpoint(self) -> None:
        """Raises Abandoned when the running step should end."""
        if self.halted or self.outcome is not None:
            raise Abandoned

    def pace(self, count: int) -> None:
        """Wait until the budget allows `count` bytes to be moved. Raises Abandoned."""
        try:
            self.env.bandwidth.take(count, self.checkpoint)
        except Paused as error:
            raise Abandoned from error

    def failed(self, error: Exception) -> Outcome:
        return Outcome(self.task, Verdict.FAILED, error=error, detail=str(error))


def may_pass(error: Exception) -> bool:
    """Whether the same step may succeed in a moment by itself."""
    if isinstance(error, StoreError):
        return error.transient
    return isinstance(error, OSError) and error.errno in PASSING
