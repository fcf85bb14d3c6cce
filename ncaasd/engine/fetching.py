"""Bring back what jobs left in S3: logs as they grow, results when a job has ended, job.json last.

Decisions are made in the engine thread; the disk is written on lanes and by the pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ncaasd.engine.desk import Result
from ncaasd.engine.documents import final_document
from ncaasd.engine.following import Sighting
from ncaasd.engine.house import Context, House
from ncaasd.errors import DiskFull, LocalError, NcaasdError, RootMissing
from ncaasd.model import Artefact, DownloadTask, JobRow, JobState, Origin, Outcome, Phase, Verdict
from ncaasd.plan.retry import backoff

QUEUED = 256
NEVER = 1e15
RESULTS_RETRY = 30.0


class Fetcher:
    def __init__(self, house: House, *, root: str, finished: Callable[[Context, JobRow], None]) -> None:
        self._house = house
        self._root = root
        self._finished = finished
        self._fetching: set[int] = set(house.journal.jobs_to_fetch())  # rows with something wanted
        self._under_way: dict[int, DownloadTask] = {}  # artefact id -> task
        self._checking: set[int] = set()
        self._finishing: set[int] = set()

    def busy(self) -> bool:
        return bool(self._under_way or self._checking or self._finishing)

    # -- logs, live --------------------------------------------------------------------------------------------------

    def mirror(self, context: Context, job: JobRow, sighting: Sighting) -> tuple[dict[str, str], Exception | None]:
        """On a lane: write the logs that were read now. Returns (name -> local path, what went wrong)."""
        paths = {}
        try:
            if sighting.fresh:
                context.results.check()
            for name in sighting.fresh:
                paths[name] = context.results.write(job.results, name, sighting.texts[name].data)
        except LocalError as error:
            return paths, error
        return paths, None

    def mirrored(
        self, context: Context, job: JobRow, sighting: Sighting, paths: dict[str, str], trouble: Exception | None
    ) -> None:
        """In the engine: those logs need not be fetched again at the end."""
        self._note_trouble(context, trouble)
        journal = self._house.journal
        objects = {o.name: o for o in sighting.objects}
        for name, path in paths.items():
            seen = objects[name]
            text = sighting.texts[name]
            journal.want_artefact(job.row, name, seen.place.bucket, seen.place.key, len(text.data), text.etag)
            found = next((a for a in journal.artefacts(job.row, wanted=True) if a.name == name), None)
            if found is not None:
                journal.artefact_done(found.id, path)

    def _note_trouble(self, context: Context, error: Exception | None) -> None:
        if error is None:
            if context.results_trouble:
                context.results_trouble = ""
                self._house.event(context.name, "", "results back", "the results folder can be written again")
            return
        context.results_retry = self._house.clock.now() + RESULTS_RETRY
        if context.results_trouble != str(error):
            context.results_trouble = str(error)
            self._house.event(context.name, "", "results", str(error), level=logging.ERROR)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, context: Context, row: int, sighting: Sighting, *, final: bool) -> None:
        """After the end: everything in the job's folder is wanted; when nothing new shows twice, it is over. `final`:
        the end is not taken back any more."""
        house = self._house
        logs = context.settings.results.logs != "never"
        for seen in sighting.objects:
            if logs or not seen.name.startswith("logs/"):
                place = seen.place
                house.journal.want_artefact(row, seen.name, place.bucket, place.key, seen.info.size, seen.info.etag)
        job = house.journal.job(row)
        assert job is not None
        now = house.clock.now()
        poll = context.settings.jobs.poll
        if house.journal.artefacts(row, wanted=True):
            self._fetching.add(row)
            state = JobState.FETCHING if job.verdict is JobState.DONE else job.state
            house.journal.update_job(row, state=state, quiet_looks=0, next_at=now + poll.max)
        elif job.quiet_looks < 1:
            # Results may be re-listed once after the end marker (NeuroCAAS protocol): look once more.
            house.journal.update_job(row, quiet_looks=job.quiet_looks + 1, next_at=now + poll.min)
        elif not final:
            house.journal.update_job(row, next_at=now + poll.max)
        else:
            self._finish(context, job)

    # -- downloads ---------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        now = self._house.clock.now()
        for row in sorted(self._fetching):
            if len(self._under_way) >= QUEUED:
                return
            job = self._house.journal.job(row)
            context = self._house.contexts.get(job.spec.analysis) if job else None
            if job is None or context is None:
                self._fetching.discard(row)
            elif row not in self._checking and self._house.awake(context) and now >= context.results_retry:
                self._start(context, job, now)

    def _start(self, context: Context, job: JobRow, now: float) -> None:
        wanted = self._house.journal.artefacts(job.row, wanted=True)
        if not wanted:
            self._fetching.discard(job.row)
            return
        due = [a for a in wanted if a.retry_at <= now and a.id not in self._under_way]
        if not due:
            return
        self._checking.add(job.row)
        left = sum(a.size - sum(e - s for s, e in a.ranges) for a in wanted)
        results = context.results

        def check() -> None:
            results.check()
            free = results.free_bytes()
            if left > free:
                raise DiskFull(
                    f"the results of job {job.job_id} need {left / 1e9:.2f} GB and {free / 1e9:.2f} GB are free",
                    hint="free some space; they are then fetched by themselves",
                )

        self._house.desk.do(f"results:{context.name}", check, lambda r: self._checked(context, job, due, r))

    def _checked(self, context: Context, job: JobRow, due: list[Artefact], result: Result[None]) -> None:
        self._checking.discard(job.row)
        if result.error is not None and not isinstance(result.error, NcaasdError):
            raise result.error
        self._note_trouble(context, result.error)
        if result.error is not None:
            return
        for artefact in due[: max(0, QUEUED - len(self._under_way))]:
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
            self._house.transfers.start(task)

    def done(self, outcome: Outcome) -> None:
        """What became of a download. In a transaction."""
        task = outcome.task
        assert isinstance(task, DownloadTask)
        self._under_way.pop(task.object_id, None)
        house = self._house
        context = house.contexts.get(task.analysis)
        artefact = house.journal.artefact(task.object_id)
        if context is None or artefact is None:
            return
        subject = f"result {task.folder}/{task.name}"
        now = house.clock.now()
        match outcome.verdict:
            case Verdict.FETCHED:
                if artefact.etag == task.etag:
                    house.journal.artefact_done(artefact.id, outcome.path)
                house.unpause(context)
            case Verdict.REPLACED:
                # Another version is there now, or none: the next listing tells which.
                house.journal.drop_artefact(artefact.id)
            case Verdict.UNSAFE:
                house.journal.artefact_failed(artefact.id, str(outcome.error), retry_at=0, failures=0, final=True)
                house.event(context.name, subject, "not fetched", str(outcome.error), level=logging.ERROR)
            case Verdict.STOPPED:
                return
            case _:
                self._failed(context, artefact, outcome.error, subject, now)
        if not house.journal.artefacts(artefact.job, wanted=True):
            self._fetching.discard(artefact.job)
            self._all_here(context, artefact.job, now)

    def _failed(self, context: Context, artefact: Artefact, error: Exception | None, subject: str, now: float) -> None:
        house = self._house
        if house.handle(context, error):
            return
        if isinstance(error, DiskFull | RootMissing):
            self._note_trouble(context, error)
        failures = artefact.failures + 1
        wait = backoff(failures, first=5, most=300, spread=house.spread())
        if artefact.reason != str(error):
            house.event(context.name, subject, "fetch failed", f"{error}; tried again", level=logging.WARNING)
        house.journal.artefact_failed(artefact.id, str(error), retry_at=now + wait, failures=failures)

    def _all_here(self, context: Context, row: int, now: float) -> None:
        job = self._house.journal.job(row)
        if job is None:
            return
        if job.phase is Phase.SUBMITTED:
            self._house.journal.update_job(row, next_at=now + context.settings.jobs.poll.min)
        elif job.phase is Phase.ENDED:
            self._finish(context, job)  # fetched again on request

    # -- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, context: Context, job: JobRow) -> None:
        """job.json, then the end."""
        if job.row in self._finishing:
            return
        self._finishing.add(job.row)
        self._house.journal.update_job(job.row, next_at=self._house.clock.now() + RESULTS_RETRY)
        body = final_document(job, self._root)
        results = context.results

        def write() -> None:
            results.check()
            results.write(job.results, "job.json", body)

        self._house.desk.do(f"results:{context.name}", write, lambda r: self._finish_done(context, job.row, r))

    def _finish_done(self, context: Context, row: int, result: Result[None]) -> None:
        house = self._house
        self._finishing.discard(row)
        job = house.journal.job(row)
        if job is None:
            return
        if result.error is not None and not isinstance(result.error, NcaasdError):
            raise result.error
        self._note_trouble(context, result.error)
        if result.error is not None:
            house.journal.update_job(row, next_at=house.clock.now() + RESULTS_RETRY)
            return
        again = job.phase is Phase.ENDED
        assert job.verdict is not None
        house.journal.update_job(row, phase=Phase.ENDED, state=job.verdict, next_at=NEVER)
        here, total, _bytes, size = house.journal.fetch_progress(row)
        text = f"{job.reason or job.verdict}; {here} of {total} files ({size} bytes) in results/{job.results}"
        level = logging.INFO if job.verdict is JobState.DONE else logging.ERROR
        name = f"job {job.spec.name} {job.spec.unit}" + (f" attempt {job.attempt}" if job.attempt else "")
        house.event(context.name, name, "fetched again" if again else "ended", text, level=level)
        after = house.journal.job(row)
        assert after is not None
        if not again or job.spec.origin is Origin.ELSEWHERE:
            self._finished(context, after)

    def fetch_again(self, row: int) -> None:
        """`ncaasd fetch`: everything of a job that has ended is wanted again."""
        self._house.journal.refetch(row)
        self._fetching.add(row)
