"""Bring back what jobs left in S3: logs as they grow, results when a job has ended, job.json last.

Decisions are made in the engine thread; the disk is written on workers and by the pool.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from ncaasd.engine.arriving.uploading import reachable
from ncaasd.engine.core.documents import final_document
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.following.looking import Snapshot
from ncaasd.errors import DiskFull, DiskSilent, LocalError, NcaasdError, RootMissing
from ncaasd.model import NEVER, Artefact, DownloadTask, JobRow, JobState, Outcome, Phase, Verdict
from ncaasd.plan.retry import backoff
from ncaasd.subjects import of_job, of_result

QUEUED = 256
RESULTS_RETRY = 30.0
HANGS_AFTER = 60.0  # seconds without an answer after which a results folder is reported to hang
LOGS_WAIT = 5.0  # seconds to wait for live logs to be written; those not written then are fetched at the end
T = TypeVar("T")


class Fetcher(Part):
    def __init__(self, runtime: Runtime, *, root: str, finished: Callable[[Context, JobRow], None]) -> None:
        self._runtime = runtime
        self._root = root
        self._finished = finished
        self._fetching: set[int] = set(runtime.journal.jobs_to_fetch())  # rows with something wanted
        self._under_way: dict[int, DownloadTask] = {}  # artefact id -> task
        self._checking: dict[int, str] = {}  # row -> analysis
        self._finishing: dict[int, str] = {}
        self._asked: dict[str, float] = {}  # analysis -> monotonic time since which its results folder has not answered
        self._too_large: dict[int, tuple[str, float]] = {}  # row -> analysis, monotonic time to look again

    def due(self) -> float | None:
        return None  # each turn looks for wanted downloads, which is soon enough for postponed ones

    def busy(self) -> bool:
        waiting = {*self._checking.values(), *self._finishing.values()}
        return bool(self._taken()) or any(not self._owes(name, HANGS_AFTER) for name in waiting)

    def _taken(self) -> int:
        return reachable(self._runtime.transfers, self._under_way.values())

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _on_lane(self, context: Context, work: Callable[[], T], then: Callable[[Result[T]], None]) -> None:
        """Run `work` on the results folder's own worker, so that a folder that hangs blocks nothing else (F89)."""
        worker, runtime = f"results:{context.name}", self._runtime
        self._asked.setdefault(context.name, runtime.clock.monotonic())

        def answered(result: Result[T]) -> None:
            if runtime.mailbox.busy(worker):
                self._asked[context.name] = runtime.clock.monotonic()
            else:
                self._asked.pop(context.name, None)
            then(result)

        runtime.mailbox.do(worker, work, answered)

    def _owes(self, analysis: str, seconds: float) -> bool:
        asked = self._asked.get(analysis)
        return asked is not None and self._runtime.clock.monotonic() - asked > seconds

    def _say_when_hanging(self) -> None:
        for name in [name for name in list(self._asked) if self._owes(name, HANGS_AFTER)]:
            context = self._runtime.contexts[name]
            error = DiskSilent(f"{context.results.root} does not answer: its mount hangs")
            if context.results_trouble != str(error):
                with self._runtime.transaction():
                    self._note_trouble(context, error)

    # -- logs, live --------------------------------------------------------------------------------------------------

    def mirror(self, context: Context, job: JobRow, snapshot: Snapshot) -> tuple[dict[str, str], Exception | None]:
        """Called on a worker: have the logs that were just read written to disk. Returns (name -> local path, the error if
        any)."""
        if not snapshot.fresh or self._owes(context.name, LOGS_WAIT):
            return {}, None
        done = threading.Event()
        answer: list[tuple[dict[str, str], Exception | None]] = []

        def work() -> None:
            try:
                answer.append(self._write_logs(context, job, snapshot))
            finally:
                done.set()

        self._on_lane(context, work, lambda result: result.get())
        done.wait(LOGS_WAIT)
        return answer[0] if answer else ({}, None)

    def _write_logs(self, context: Context, job: JobRow, snapshot: Snapshot) -> tuple[dict[str, str], Exception | None]:
        paths = {}
        try:
            context.results.check()
            for name in snapshot.fresh:
                paths[name] = context.results.write(job.results, name, snapshot.texts[name].data)
        except LocalError as error:
            return paths, error
        return paths, None

    def mirrored(
        self, context: Context, job: JobRow, snapshot: Snapshot, paths: dict[str, str], trouble: Exception | None
    ) -> None:
        """In the engine thread: record the written logs as fetched, so that they aren't fetched again at the end."""
        if paths or trouble:
            self._note_trouble(context, trouble)
        journal = self._runtime.journal
        objects = {o.name: o for o in snapshot.objects}
        for name, path in paths.items():
            seen = objects[name]
            text = snapshot.texts[name]
            journal.want_artefact(job.row, name, seen.place.bucket, seen.place.key, len(text.data), text.etag)
            found = journal.artefact_named(job.row, name)
            assert found is not None
            journal.artefact_done(found.id, path)

    def _note_trouble(self, context: Context, error: Exception | None) -> None:
        if error is None:
            if context.results_trouble:
                context.results_trouble, context.results_retry = "", 0.0
                self._runtime.event(context.name, "", "results back", "the results folder can be written again")
            return
        context.results_retry = self._runtime.clock.now() + RESULTS_RETRY
        if context.results_trouble != str(error):
            context.results_trouble = str(error)
            self._runtime.event(context.name, "", "results", str(error), level=logging.ERROR)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, context: Context, row: int, snapshot: Snapshot, *, final: bool) -> None:
        """After the end: want every object in the job's folder, and finish when two looks in a row show nothing new.
        `final`: the end can't be taken back any more."""
        runtime = self._runtime
        wanted = self._note(context, row, snapshot)
        job = runtime.journal.job(row)
        assert job is not None
        now = runtime.clock.now()
        poll = context.settings.jobs.poll
        if wanted:
            state = JobState.FETCHING if job.verdict is JobState.DONE else job.state
            runtime.journal.update_job(row, state=state, quiet_looks=0, next_at=now + poll.max)
        elif job.quiet_looks < 1:
            # Results may be re-listed once after the end marker (NeuroCAAS protocol): look once more.
            runtime.journal.update_job(row, quiet_looks=job.quiet_looks + 1, next_at=now + poll.min)
        elif not final:
            runtime.journal.update_job(row, next_at=now + poll.max)
        else:
            self._finish(context, job)

    def want_again(self, context: Context, row: int, snapshot: Snapshot) -> None:
        """For `ncaasd fetch` of a job that has ended: want everything again that is in S3 now."""
        self._runtime.journal.refetch(row)
        job = self._runtime.journal.job(row)
        if not self._note(context, row, snapshot) and job is not None:
            self._finish(context, job)

    def _note(self, context: Context, row: int, snapshot: Snapshot) -> bool:
        """Want every object that was seen and isn't here yet; True when something is wanted."""
        logs = context.settings.results.logs != "never"
        for seen in snapshot.objects:
            if logs or not seen.name.startswith("logs/"):
                place, info = seen.place, seen.info
                self._runtime.journal.want_artefact(row, seen.name, place.bucket, place.key, info.size, info.etag)
        if not self._runtime.journal.wants_any(row):
            return False
        self._fetching.add(row)
        return True

    def taken_over(self, row: int, found: int) -> None:
        """Job `found` has turned out to be job `row`: its downloads go on."""
        if found in self._fetching:
            self._fetching.discard(found)
            self._fetching.add(row)

    # -- downloads ---------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        now, monotonic = self._runtime.clock.now(), self._runtime.clock.monotonic()
        self._say_when_hanging()
        for row in sorted(self._fetching - self._checking.keys()):
            if self._taken() > QUEUED * 3 // 4:
                return
            if row in self._too_large and monotonic < self._too_large[row][1]:
                continue
            job = self._runtime.journal.job(row)
            context = self._runtime.contexts.get(job.spec.analysis) if job else None
            if job is None or context is None:
                self._fetching.discard(row)
            elif self._runtime.awake(context) and now >= context.results_retry:
                self._start(context, job, now)

    def _start(self, context: Context, job: JobRow, now: float) -> None:
        journal = self._runtime.journal
        room = QUEUED - self._taken()
        due = journal.due_artefacts(job.row, now, room, list(self._under_way))
        if not due:
            if not journal.wants_any(job.row):
                self._fetching.discard(job.row)
            return
        self._checking[job.row] = context.name
        results = context.results

        def check() -> int:
            results.check()
            return results.free_bytes()

        self._on_lane(context, check, lambda r: self._checked(context, job, due, r))

    def _checked(self, context: Context, job: JobRow, due: list[Artefact], result: Result[int]) -> None:
        self._checking.pop(job.row, None)
        if result.error is not None:
            if not isinstance(result.error, NcaasdError):
                raise result.error
            self._note_trouble(context, result.error)
            return
        if self._is_too_large(context, job, result.get()):
            return
        if not any(analysis == context.name for analysis, _at in self._too_large.values()):
            self._note_trouble(context, None)
        for artefact in due[: max(0, QUEUED - self._taken())]:
            task = DownloadTask(
                object_id=artefact.id,
                analysis=context.name,
                bucket=artefact.bucket,
                key=artefact.key,
                size=artefact.size,
                etag=artefact.etag,
                folder=job.results,
                name=artefact.name,
                done=artefact.ranges,
                order=job.submitted,
            )
            self._under_way[artefact.id] = task
            self._runtime.transfers.start(task)

    def _is_too_large(self, context: Context, job: JobRow, free: int) -> bool:
        """Whether a job's remaining results don't fit on the disk (F76): then none of them is started, and other jobs go
        on."""
        left = self._runtime.journal.bytes_wanted(job.row)
        if left <= free:
            self._too_large.pop(job.row, None)
            return False
        if job.row not in self._too_large:
            text = (
                f"the results of job {job.job_id} need {left / 1e9:.2f} GB and {max(free, 0) / 1e9:.2f} GB are free: free"
                " some space, they are then fetched by themselves"
            )
            context.results_trouble = text
            self._runtime.event(context.name, of_job(job), "too large", text, level=logging.ERROR)
        self._too_large[job.row] = (context.name, self._runtime.clock.monotonic() + RESULTS_RETRY)
        return True

    def done(self, outcome: Outcome) -> None:
        """Record the outcome of a download. In a transaction."""
        task = outcome.task
        assert isinstance(task, DownloadTask)
        self._under_way.pop(task.object_id, None)
        runtime = self._runtime
        context = runtime.contexts.get(task.analysis)
        artefact = runtime.journal.artefact(task.object_id)
        if context is None or artefact is None:
            return
        subject = of_result(task.folder, task.name)
        now = runtime.clock.now()
        match outcome.verdict:
            case Verdict.FETCHED:
                if artefact.etag == task.etag:
                    runtime.journal.artefact_done(artefact.id, outcome.path)
                runtime.unpause(context)
            case Verdict.REPLACED:
                # Another version is there now, or none: the next listing shows which.
                runtime.journal.drop_artefact(artefact.id)
            case Verdict.UNSAFE:
                runtime.journal.artefact_failed(artefact.id, str(outcome.error), retry_at=0, failures=0, final=True)
                runtime.event(context.name, subject, "not fetched", str(outcome.error), level=logging.ERROR)
            case Verdict.STOPPED:
                return
            case _:
                self._failed(context, artefact, outcome.error, subject, now)
        if not runtime.journal.wants_any(artefact.job):
            self._fetching.discard(artefact.job)
            self._all_here(context, artefact.job, now)

    def _failed(self, context: Context, artefact: Artefact, error: Exception | None, subject: str, now: float) -> None:
        runtime = self._runtime
        if runtime.handle(context, error):
            return
        if isinstance(error, DiskSilent):  # reported once per disk; downloads go on when it answers (F89)
            context.results_retry = now + RESULTS_RETRY if runtime.transfers.hanging() else 0.0
            return
        if isinstance(error, DiskFull | RootMissing):
            self._note_trouble(context, error)
        failures = artefact.failures + 1
        wait = backoff(failures, first=5, most=300, spread=runtime.spread())
        if artefact.reason != str(error):
            runtime.event(context.name, subject, "fetch failed", f"{error}; tried again", level=logging.WARNING)
        runtime.journal.artefact_failed(artefact.id, str(error), retry_at=now + wait, failures=failures)

    def _all_here(self, context: Context, row: int, now: float) -> None:
        job = self._runtime.journal.job(row)
        if job is None:
            return
        if job.phase is Phase.SUBMITTED:
            self._runtime.journal.update_job(row, next_at=now + context.settings.jobs.poll.min)
        elif job.phase is Phase.ENDED:
            self._finish(context, job)  # fetched again on request

    # -- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, context: Context, job: JobRow) -> None:
        """Write job.json, then end the job."""
        if job.row in self._finishing:
            return
        self._finishing[job.row] = context.name
        self._runtime.journal.update_job(job.row, next_at=self._runtime.clock.now() + RESULTS_RETRY)
        body = final_document(job, self._root)
        results = context.results

        def write() -> None:
            results.check()
            results.write(job.results, "job.json", body)

        self._on_lane(context, write, lambda r: self._finish_done(context, job.row, r))

    def _finish_done(self, context: Context, row: int, result: Result[None]) -> None:
        runtime = self._runtime
        self._finishing.pop(row, None)
        job = runtime.journal.job(row)
        if job is None:
            return
        if result.error is not None and not isinstance(result.error, NcaasdError):
            raise result.error
        self._note_trouble(context, result.error)
        if result.error is not None:
            runtime.journal.update_job(row, next_at=runtime.clock.now() + RESULTS_RETRY)
            return
        again = job.phase is Phase.ENDED
        assert job.verdict is not None
        runtime.journal.update_job(row, phase=Phase.ENDED, state=job.verdict, next_at=NEVER)
        came = runtime.journal.fetch_progress(row)
        text = f"{job.reason or job.verdict}; {came.files} of {came.of} files ({came.of_bytes} bytes) in results/{job.results}"
        level = logging.INFO if job.verdict is JobState.DONE else logging.ERROR
        runtime.event(context.name, of_job(job), "fetched again" if again else "ended", text, level=level)
        after = runtime.journal.job(row)
        assert after is not None
        if not again:
            self._finished(context, after)
