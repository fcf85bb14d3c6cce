"""The pool: workers that run the steps of all transfers, and handle the outcome of each step."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ncaasd.adapters.transfers.bandwidth import Bandwidth
from ncaasd.adapters.transfers.disks import Activity, DiskOf, Disks
from ncaasd.adapters.transfers.downloads import RangedDownload, WholeDownload, durable
from ncaasd.adapters.transfers.flows import Flows
from ncaasd.adapters.transfers.transfer import Abandoned, Environment, ResultsFor, Step, StoreFor, Transfer, may_pass
from ncaasd.adapters.transfers.uploads import MultipartUpload, WholeUpload
from ncaasd.errors import Absent, Corrupted, DiskSilent, Exists, LocalError, NoSuchUpload, StoreError
from ncaasd.model import DownloadTask, Outcome, Progress, UploadTask, Verdict
from ncaasd.ports import Clock, CrashPoint, OpenLink, OutcomeSink, TransferLog, no_crash

Task = UploadTask | DownloadTask

RANGE_SIZE = 16 << 20  # bytes
BATCH_AGE = 0.15  # seconds that a fetched small file waits for the sync it shares
BATCH_MOST = 200  # files; the results tree keeps a descriptor of each until the sync
MOST = 4  # times `parallel`: threads at most, those that hang included
PAUSE_LOOK = 0.25  # seconds between two reads of a limit that is 0
# Errors that are about the object, not about the store.
_ANSWERS = (Exists, Absent, NoSuchUpload, Corrupted)


@dataclass(slots=True)
class _Batch:
    """Small files of one results tree that are in place but not durable yet."""

    since: float
    transfers: list[Transfer] = field(default_factory=list)


class TransferPool:
    """`ports.Transfers`: every task that is started ends in exactly one outcome, given to `sink`.

    `parallel` workers share files, parts and ranges. With 0 there are no threads: `start` runs everything that can run
    in the caller's thread, sleeping on `clock` between retries; what a pause of the budget keeps back is run by the
    next `start` or `drain`. `limit()` returns the bytes per second that are allowed now (None: any; 0: a pause).
    `jitter()` returns numbers from 0 to 1, for the backoff. Objects of up to `range_size` bytes come in one request.

    If a transfer of the task's file_id (or object_id) is under way already, the task is started when that has ended.

    `disk_of` returns the disk (a mount) that a task's local file is on, without touching it. A worker whose call to the file
    system hangs doesn't count as one of `parallel`, and no more calls are made to a disk that doesn't answer (F89), as
    long as `look` is called every second or so.

    `open_link` opens what a link leads to; it is needed for tasks of links.
    """

    def __init__(
        self,
        store_for: StoreFor,
        results_for: ResultsFor,
        log: TransferLog,
        sink: OutcomeSink,
        clock: Clock,
        *,
        parallel: int,
        limit: Callable[[], int | None],
        crash: CrashPoint = no_crash,
        jitter: Callable[[], float] = random.random,
        range_size: int = RANGE_SIZE,
        disk_of: DiskOf = lambda _task: "the disk",
        open_link: OpenLink | None = None,
    ) -> None:
        self._bandwidth = Bandwidth(limit, clock)
        self._disks: Disks[Transfer] = Disks(clock, disk_of)
        self._env = Environment(
            store_for, results_for, log, clock, crash, self._bandwidth, range_size, self._disks, open_link
        )
        self._sink = sink
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._parallel = parallel
        self._inline = parallel == 0
        self._flows = Flows(max(1, parallel))
        self._transfers: dict[tuple[str, int], Transfer] = {}
        self._next_of: dict[tuple[str, int], deque[Task]] = {}  # started while one with the same key was under way
        self._batches: dict[str, _Batch] = {}
        self._threads: set[threading.Thread] = set()
        self._stopping = False
        self._draining = False
        self.broken: BaseException | None = None  # the unexpected exception that ended a worker

    # -- the port

    def start(self, task: Task) -> None:
        refusal: Outcome | None = None
        with self._changed:
            if self._stopping:
                refusal = Outcome(task, Verdict.STOPPED)
            elif self._disks.hangs(task):
                refusal = _silent(task, self._disks.disk_of(task))
            else:
                self._admit(task)
                self._changed.notify()
                self._hire()
        if refusal is not None:
            self._sink(refusal)
        elif self._inline:
            self.drain()

    def active(self) -> int:
        with self._changed:
            return len(self._transfers) + sum(map(len, self._next_of.values()))

    def progress(self) -> list[Progress]:
        """The progress of the transfers that were begun, without those that still wait."""
        with self._changed:
            begun = [transfer for transfer in self._transfers.values() if transfer.started]
        return [
            Progress(t.task.analysis, t.task.key, isinstance(t.task, UploadTask), t.meter.done, t.size, t.meter.rate())
            for t in begun
        ]

    def hanging(self) -> frozenset[str]:
        """The disks that don't answer. Only `look` changes them."""
        return self._disks.silent

    def hangs(self, task: Task) -> bool:
        """Whether the task's local file is on a disk that doesn't answer."""
        return self._disks.hangs(task)

    def look(self) -> None:
        """Handle workers that hang, and raise the exception that has unexpectedly ended a worker. Call it every second or so,
        from a thread that waits for no disk."""
        if self.broken is not None:
            raise self.broken
        with self._changed:
            went_on, overdue = self._disks.went_on(), self._disks.overdue()
            for activity in went_on:
                self._goes_on(activity)
            for activity in overdue:
                if activity.stepping and activity.transfer is not None:
                    self._flows.set_aside(activity.transfer)
            silent, back = self._disks.note(went_on, overdue)
            refused = [t for t in self._transfers.values() if self._refuse(t, silent)] if silent else []
            for transfer in self._transfers.values() if back else ():
                if transfer.stuck in back:
                    transfer.stuck = ""
            if went_on or overdue or back:
                self._hire()
                self._changed.notify_all()
        for transfer in refused:
            self._finish(transfer)

    def stop(self, *, timeout: float) -> None:
        """Abandon every transfer under way at its next block. Workers that don't end within `timeout` seconds are left behind;
        those that are known to hang are not waited for."""
        with self._changed:
            self._stopping = True
            waiting = [task for tasks in self._next_of.values() for task in tasks]
            self._next_of.clear()
            ended = [transfer for transfer in self._transfers.values() if self._halt(transfer)]
            self._changed.notify_all()
            threads = [thread for thread in self._threads if not self._disks.is_hung(thread)]

        def let_go() -> None:
            for transfer in ended:
                self._finish(transfer)
            self._sync_due(force=True)

        for task in waiting:
            self._sink(Outcome(task, Verdict.STOPPED))
        if self._inline:
            let_go()
        else:
            threads.append(self._aside(let_go))  # closing a file may hang, too
        deadline = self._clock.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        with self._changed:
            left = [transfer for transfer in self._transfers.values() if not transfer.told]
            for transfer in left:
                transfer.told = True
                del self._transfers[_key(transfer.task)]
        for transfer in left:  # its thread is stuck in a request; what it may still do is ignored
            self._sink(Outcome(transfer.task, Verdict.STOPPED))

    # -- inline

    def drain(self) -> None:
        """Only with `parallel=0`: run what can run, in this thread, until nothing can."""
        if self._draining:
            return  # a sink started another task: the loop below finds it
        self._draining = True
        try:
            while self._drain_one():
                pass
        finally:
            self._draining = False

    def _drain_one(self) -> bool:
        if self._bandwidth.paused:
            return self._sync_due(force=True)
        now = self._clock.monotonic()
        with self._changed:
            taken = self._flows.take(now)
            wakes = None if taken else self._flows.wakes(now)
        if taken:
            self._run(*taken)
            return True
        if self._sync_due(force=True):
            return True
        if wakes is None:
            return False
        self._clock.sleep(max(0.0, wakes - now) + 1e-6)
        return True

    # -- workers

    def _hire(self) -> None:
        most = min(self._parallel + self._disks.hung(), self._parallel * MOST)
        while not self._inline and self._transfers and len(self._threads) < most:
            thread = threading.Thread(target=self._work, name=f"transfer-{len(self._threads)}", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except BaseException as error:  # a simulated kill: no transfer of this process goes on
            with self._changed:
                self.broken = self.broken or error
                self._stopping = True
                for transfer in self._transfers.values():
                    transfer.halted = True
                self._changed.notify_all()
            if isinstance(error, Exception):
                raise
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._disks.leave()
                self._changed.notify_all()

    def _work_once(self) -> bool:
        """Run one step or one sync, or wait; False when this worker is to end."""
        with self._changed:
            if self.broken is not None or len(self._threads) - self._disks.hung() > self._parallel:
                self._threads.discard(threading.current_thread())  # now, so that not too many workers end
                return False
            now = self._clock.monotonic()
            due = self._due_batch(now, force=self._stopping)
            paused = self._bandwidth.paused
            taken = None if due or paused else self._flows.take(now)
            if not due and not taken:
                if self._stopping:
                    return False
                self._changed.wait(self._nap(now, paused))
                return True
            if due:
                self._disks.begin(due[1].transfers[0], stepping=False)
            elif taken:
                self._disks.begin(taken[0], stepping=True)
        if due:
            self._sync(*due)
        elif taken:
            self._run(*taken)
        return True

    def _nap(self, now: float, paused: bool) -> float | None:
        """Seconds until something may be due; None: until notified."""
        times = [batch.since + BATCH_AGE for batch in self._batches.values()]
        if (wakes := self._flows.wakes(now)) is not None:
            times.append(wakes)
        if paused and self._transfers:
            times.append(now + PAUSE_LOOK)
        return max(0.001, min(times) - now) if times else None

    # -- a step and its outcome

    def _run(self, transfer: Transfer, step: Step) -> None:
        began = self._clock.monotonic()
        outcome: Outcome | None = None
        failure: Exception | None = None
        try:
            transfer.checkpoint()
            outcome = step.run()
        except Exception as error:
            failure = error
        now = self._clock.monotonic()
        with self._changed:
            activity = self._disks.mine()
            self._goes_on(activity)
            activity.stepping = False
            flow = self._flows.ended(transfer)
            if isinstance(failure, StoreError) and not isinstance(failure, _ANSWERS):
                flow.failed(began, now, self._jitter())
            elif step.remote and (failure is None or isinstance(failure, _ANSWERS)):
                flow.well()
            if outcome is not None:
                transfer.end(outcome)
            elif failure is not None:
                self._after(transfer, step, failure, now)
            ended = self._has_ended(transfer)
            self._changed.notify_all()
        if ended:
            self._finish(transfer)

    def _after(self, transfer: Transfer, step: Step, failure: Exception, now: float) -> None:
        if isinstance(failure, Abandoned) or transfer.halted:
            transfer.put_back(step)  # an error while the pool stops is no verdict on the task
        elif may_pass(failure) and step.put_off(now, self._jitter()):
            transfer.put_back(step)
        else:
            transfer.end(transfer.verdict_of(failure))

    def _has_ended(self, transfer: Transfer) -> bool:
        """Whether the transfer's outcome is known and none of its steps runs. True only once."""
        if transfer.inflight or transfer.finished:
            return False
        if transfer.halted and transfer.outcome is None:
            transfer.outcome = Outcome(transfer.task, Verdict.STOPPED)
        if transfer.outcome is None:
            return False
        transfer.finished = True
        self._flows.remove(transfer)
        return True

    def _halt(self, transfer: Transfer) -> bool:
        transfer.halted = True
        return self._has_ended(transfer)

    def _finish(self, transfer: Transfer) -> None:
        """The transfer's steps have all ended: close its files and deliver its outcome, or add it to the batch to be synced."""
        with contextlib.suppress(OSError, LocalError):  # the outcome is right; leftovers are removed elsewhere
            transfer.close()
        outcome = transfer.outcome
        assert outcome is not None
        if transfer.deferred and outcome.verdict is Verdict.FETCHED:
            with self._changed:
                now = self._clock.monotonic()
                self._batches.setdefault(transfer.task.analysis, _Batch(now)).transfers.append(transfer)
                self._changed.notify()
        else:
            self._deliver(transfer, outcome)

    def _deliver(self, transfer: Transfer, outcome: Outcome) -> None:
        key = _key(transfer.task)
        with self._changed:
            if transfer.told or self.broken is not None:
                return  # `stop` has delivered its outcome already; or a simulated kill
            transfer.told = True
        self._sink(outcome)
        with self._changed:
            del self._transfers[key]
            following = self._next_of.get(key)
            if following:
                self._admit(following.popleft())
            if not following:
                self._next_of.pop(key, None)
            self._changed.notify_all()

    def _admit(self, task: Task) -> None:
        key = _key(task)
        if key in self._transfers:
            self._next_of.setdefault(key, deque()).append(task)
            return
        self._transfers[key] = transfer = _transfer_for(task, self._env)
        self._flows.add(transfer)

    # -- disks that hang

    def _goes_on(self, activity: Activity[Transfer]) -> None:
        if activity.hangs and activity.stepping and activity.transfer is not None:
            self._flows.goes_on(activity.transfer)

    def _refuse(self, transfer: Transfer, silent: frozenset[str]) -> bool:
        """If the transfer is on a silent disk: end it if it holds no file and none of its steps runs, and return True if it has
        ended so; else it is stuck until the disk answers."""
        disk = self._disks.disk_of(transfer.task)
        if disk not in silent or transfer.finished:
            return False
        if transfer.inflight or (transfer.started and not transfer.small):
            transfer.stuck = disk
            return False
        transfer.end(_silent(transfer.task, disk))
        return self._has_ended(transfer)

    def _aside(self, work: Callable[[], None]) -> threading.Thread:
        """Do work that may hang, in a thread of its own."""
        thread = threading.Thread(target=work, name="transfer-end", daemon=True)
        thread.start()
        return thread

    # -- durable in batches

    def _due_batch(self, now: float, *, force: bool) -> tuple[str, _Batch] | None:
        for analysis, batch in self._batches.items():
            if force or now - batch.since >= BATCH_AGE or len(batch.transfers) >= BATCH_MOST:
                del self._batches[analysis]
                return analysis, batch
        return None

    def _sync_due(self, *, force: bool) -> bool:
        with self._changed:
            due = self._due_batch(self._clock.monotonic(), force=force)
        if due:
            self._sync(*due)
        return due is not None

    def _sync(self, analysis: str, batch: _Batch) -> None:
        failure: Exception | None = None
        try:
            with self._disks.call(sync=True):
                durable(self._env.results_for(analysis).sync, f"the last {len(batch.transfers)} files of {analysis}")
        except Exception as error:
            failure = error
        for transfer in batch.transfers:
            fetched = transfer.outcome
            assert fetched is not None
            self._deliver(transfer, fetched if failure is None else transfer.verdict_of(failure))


def _key(task: Task) -> tuple[str, int]:
    return ("up", task.file_id) if isinstance(task, UploadTask) else ("down", task.object_id)


def _silent(task: Task, disk: str) -> Outcome:
    error = DiskSilent(f"{disk} does not answer: its mount hangs", hint="it goes on by itself when that answers again")
    return Outcome(task, Verdict.FAILED, error=error, detail=str(error))


def _transfer_for(task: Task, env: Environment) -> Transfer:
    if isinstance(task, UploadTask):
        whole = task.expect.size <= task.part_size
        return WholeUpload(task, env) if whole else MultipartUpload(task, env)
    return WholeDownload(task, env) if task.size <= env.range_size else RangedDownload(task, env)
