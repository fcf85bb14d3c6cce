"""Take every job that is due one step further: consider, submit, look. In the engine thread; requests to S3 are sent on
workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Unpack

from ncaasd.engine.arriving.declaring import Declarer
from ncaasd.engine.arriving.pauses import Pauses
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.opening import doubted
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.following.elsewhere import Elsewhere
from ncaasd.engine.following.fetching import Fetcher
from ncaasd.engine.following.judging import Judging
from ncaasd.engine.submitting.assessing import Assessor, rule_of
from ncaasd.engine.submitting.committing import JournaledSubmit
from ncaasd.engine.submitting.recordings import Recordings
from ncaasd.engine.submitting.submit_once import Ending, Order, Report, submit_once
from ncaasd.engine.submitting.supplies import REMOTE_KNOWN_FOR, Supplies
from ncaasd.model import NEVER, FileRow, FileState, JobDetails, JobRow, JobState, Origin, Phase, Place
from ncaasd.plan.configs import ConfigFact
from ncaasd.plan.considering import consider
from ncaasd.plan.grouping import misplaced
from ncaasd.plan.holds import HOLDS, Again, released_before, with_way_on
from ncaasd.plan.journals import may_have_been_sent
from ncaasd.plan.retry import backoff
from ncaasd.plan.submitting import identity, ids_of_others
from ncaasd.subjects import of_file, of_job

DUE_AT_A_TIME = 200
SOON = 30.0
CONSIDER_AGAIN = 300.0  # seconds; a waiting job is woken by what it waits for, and this catches what was missed
ENDING = 300.0  # seconds that `once` waits for an end that may still be taken back
AGAIN = {Again.SOON: SOON, Again.NOW_AND_THEN: CONSIDER_AGAIN, Again.CHANGE: CONSIDER_AGAIN}  # seconds


class Jobs(Part):
    def __init__(
        self,
        runtime: Runtime,
        declarer: Declarer,
        fetcher: Fetcher,
        sessions: Sessions,
        pauses: Pauses,
        recordings: Recordings,
        *,
        put_in_place: Callable[[Context, FileRow], None],
    ) -> None:
        """`put_in_place`: gives a file the key that its rule wants (`key: base`)."""
        self._put_in_place = put_in_place
        self._runtime = runtime
        self._declarer = declarer
        self._busy: set[int] = set()  # rows being submitted or looked at
        self._supplies = Supplies(runtime, declarer)
        self.assessor = Assessor(runtime, self._supplies, sessions, pauses, recordings)
        self.elsewhere = Elsewhere(runtime)
        self.judging = Judging(runtime, fetcher, self.elsewhere, self._busy, self.show)
        self._fetcher = fetcher

    def busy(self) -> bool:
        return bool(self._busy) or self.elsewhere.busy()

    def pending(self, waits: Waits) -> bool:
        runtime = self._runtime
        now, reachable = runtime.clock.now(), {c.name: c for c in runtime.reachable()}
        jobs = (job for job in runtime.journal.jobs(unfinished=True) if job.spec.analysis in reachable)
        return any(_is_waited_for(reachable[job.spec.analysis], job, waits, now) for job in jobs)

    def due(self) -> float | None:
        """Seconds until a job is due, or the group's results are to be listed."""
        at = self._runtime.journal.next_due(list(self._busy))
        times = [self.elsewhere.due(), None if at is None else at - self._runtime.clock.now()]
        return min((seconds for seconds in times if seconds is not None), default=None)

    def finished(self, context: Context, job: JobRow) -> None:
        """A job has ended, and everything it left is here."""
        self.judging.finished(context, job)

    def about_to_intend(self, context: Context, row: int, job_id: str) -> None:
        """In the intent's transaction: make sure that no other row has its id, by merging one that was followed as started
        elsewhere."""
        found = self.elsewhere.is_ours_after_all(context, row, job_id)
        if found is not None:
            self._fetcher.taken_over(row, found)

    def turn(self) -> None:
        self.elsewhere.turn()
        runtime = self._runtime
        now = runtime.clock.now()
        due = [j for j in runtime.journal.due_jobs(now, DUE_AT_A_TIME + len(self._busy)) if j.row not in self._busy]
        if not due:
            return
        starts: list[Callable[[], None]] = []
        self.assessor.turn()
        try:
            with runtime.transaction():
                for job in due:
                    context = runtime.contexts.get(job.spec.analysis)
                    if context is None or not context.opened:
                        runtime.journal.update_job(job.row, next_at=now + 5)
                    elif not runtime.awake(context):
                        runtime.journal.update_job(job.row, next_at=context.paused_until)
                    else:
                        starts += self._step(context, job, now)
        except BaseException:
            self.assessor.keep_only(self._busy)
            raise
        for start in starts:
            start()

    def _step(self, context: Context, job: JobRow, now: float) -> Sequence[Callable[[], None]]:
        match job.phase:
            case Phase.OPEN:
                return self._consider(context, job, now)
            case Phase.INTENT | Phase.ATTEMPTED:
                # Some holds are checked again: a foreign submit file may turn out to be this job's after all, when its folder
                # appears; and whoever replaced a dataset may have submitted this very job (another daemon on the same
                # folder), or restored the dataset.
                if job.hold is not None and HOLDS[job.hold].again is Again.NEVER:
                    self._runtime.journal.update_job(job.row, next_at=NEVER)
                    return []
                if context.submits_blocked:
                    self._runtime.journal.update_job(job.row, next_at=now + SOON, reason=context.submits_blocked)
                    return []
                config = self._supplies.config(context, job)
                return [
                    self._submission(context, job, config if not config.problem else ConfigFact(key=job.config_key))
                ]
            case Phase.SUBMITTED:
                return [self.judging.looking(context, job)]
            case Phase.ENDED:
                return []

    # -- before the submit -------------------------------------------------------------------------------------------

    def _consider(self, context: Context, job: JobRow, now: float) -> Sequence[Callable[[], None]]:
        if now >= job.not_before:
            job = self._made_ready(context, job)
        facts = self.assessor.facts(context, job, now)
        step = consider(facts)
        if step.submit:
            self.show(job, JobState.READY, step.reason, next_at=now + CONSIDER_AGAIN, hold=None)
            return [self._submission(context, job, facts.config)]
        if step.hold is not None and step.hold is not job.hold:
            self._runtime.event(context.name, of_job(job), "held", step.reason, level=logging.WARNING)
        match step.again:
            case Again.NEVER:
                next_at = job.not_before if now < job.not_before else NEVER
            case Again.IN_S3:
                next_at = now + max(REMOTE_KNOWN_FOR, context.settings.jobs.poll.min)
            case again:
                next_at = now + AGAIN[again]
        released = released_before(job, step.hold)
        self.show(job, step.state, step.reason, next_at=next_at, hold=step.hold, released=released)
        asks = step.ask_remote or step.ask_config
        return [self._asking(context, job, step.ask_remote, step.ask_config)] if asks else []

    def _made_ready(self, context: Context, job: JobRow) -> JobRow:
        """The job with the local files of its datasets, and the keys that those files have now."""
        job = self._declarer.find_files(job)
        m = rule_of(context, job)
        rows = [self._runtime.journal.file_of(d) for d in job.spec.datasets]
        if m is not None and misplaced(m, job.spec.datasets, context.layout.inputs):
            for row in rows:
                if row is not None:
                    self._put_in_place(context, row)
            rows = [self._runtime.journal.file_of(d) for d in job.spec.datasets]
        # A job that an earlier version declared before its file came doesn't have that file's key.
        datasets = tuple(
            replace(d, key=row.key) if row is not None and row.state is not FileState.GONE and row.key else d
            for d, row in zip(job.spec.datasets, rows, strict=True)
        )
        if datasets == job.spec.datasets:
            return job
        spec = replace(job.spec, datasets=datasets)
        self._runtime.journal.respec_job(job.row, spec)
        return replace(job, spec=spec)

    def _asking(self, context: Context, job: JobRow, keys: Sequence[str], config: str) -> Callable[[], None]:
        def then(all_there: bool) -> None:
            self._busy.discard(job.row)
            if all_there:
                self._runtime.journal.update_job(job.row, next_at=0.0)

        ask = self._supplies.asking(context, keys, config, then)

        def start() -> None:
            self._busy.add(job.row)
            ask()

        return start

    def show(self, job: JobRow, state: JobState, reason: str, **details: Unpack[JobDetails]) -> None:
        """Commit a state and its reason; when they are new, the manifest's status file is written again."""
        if (state, reason) != (job.state, job.reason) and job.spec.origin is not Origin.ELSEWHERE:
            self._declarer.changed.add((job.spec.analysis, job.spec.declared_in))
        self._runtime.journal.update_job(job.row, state=state, reason=reason, **details)

    # -- the submit --------------------------------------------------------------------------------------------------

    def _submission(self, context: Context, job: JobRow, config: ConfigFact) -> Callable[[], None]:
        runtime = self._runtime
        etags, files, others = self._recorded(context, job)
        manifest = runtime.journal.file_at(Place(context.name, "", job.spec.declared_in))
        first_scan = doubted(runtime.journal, context.name)
        if job.phase is Phase.OPEN and job.attempt == 0 and manifest and first_scan:
            job_id = identity(job, context.layout, 0)
            rebuilt = job.rebuilt or may_have_been_sent(job_id, [*files, manifest], first_scan, context.noted)
            runtime.journal.update_job(job.row, rebuilt=rebuilt)
            job = replace(job, rebuilt=rebuilt)
        if job.phase is not Phase.OPEN:
            etags = {d.key: d.etag for d in job.spec.datasets if d.etag}
            config = config if config.key == job.config_key else ConfigFact(key=job.config_key)
        if job.phase is Phase.OPEN:
            self.assessor.goes(context, job, config)
        doubt = runtime.journal.get_meta(f"doubt:{context.name}") or ""
        configs: set[str] = set()
        if config.shared:
            configs = {c.etag for c in runtime.journal.configs_at(context.name, config.key)}
            configs |= {r.etag for r in runtime.journal.files_with_key(context.name, config.key) if r.ours and r.stored}
        order = Order(
            job,
            context.layout,
            config.key,
            config.content,
            etags,
            frozenset(others),
            doubt,
            shared=bool(job.config_etag) if job.phase is not Phase.OPEN else config.shared,
            configs=frozenset(configs),
        )
        log = JournaledSubmit(runtime, self, context, job)

        def start() -> None:
            self._busy.add(job.row)
            store = context.store

            def work() -> Report:
                return submit_once(order, store, log, runtime.clock, crash=runtime.crash, foreign=context.store_for)

            runtime.mailbox.do(f"submit:{context.name}", work, lambda r: self._submission_done(context, job.row, r))

        return start

    def _recorded(self, context: Context, job: JobRow) -> tuple[dict[str, str], list[FileRow], set[str]]:
        """Returns (the recorded ETag of each dataset's key, the recordings that the datasets are or are made of, ids of
        other files' jobs that had these keys)."""
        journal = self._runtime.journal
        etags: dict[str, str] = {}
        files: list[FileRow] = []
        others: set[str] = set()
        for dataset in job.spec.datasets:
            row = journal.file_of(dataset)
            if row is not None and row.state is not FileState.GONE:
                etags[dataset.key] = row.etag
                files += self._declarer.recorded(context, row)
            if dataset.place is None or len(journal.files_with_key(context.name, dataset.key)) < 2:
                continue
            if row is not None and row.stored is not None:
                etags[dataset.key] = row.etag  # also when the file is gone: another file may have its key by then
            others |= ids_of_others(dataset, journal.jobs_using(context.name, dataset.key))
        return etags, files, others

    def _submission_done(self, context: Context, row: int, result: Result[Report]) -> None:
        runtime = self._runtime
        self._busy.discard(row)
        self.assessor.intended(row)
        report = result.get()
        job = runtime.journal.job(row)
        if job is None:
            return
        now = runtime.clock.now()
        match report.ending:
            case Ending.SUBMITTED | Ending.ADOPTED:
                runtime.unpause(context)
                runtime.journal.update_job(row, next_at=now + context.settings.jobs.poll.min, failures=0)
            case Ending.HELD:
                assert report.kind is not None
                reason = with_way_on(report.reason, report.kind, job)
                if job.reason != reason:
                    runtime.event(context.name, of_job(job), "held", reason, level=logging.WARNING)
                again = HOLDS[report.kind].again
                next_at = NEVER if again is Again.NEVER else now + AGAIN[again]
                released = released_before(job, report.kind)
                self.show(job, JobState.HELD, reason, hold=report.kind, released=released, next_at=next_at)
            case Ending.WAITS:
                self._reupload(context, report.missing)
                self.show(job, JobState.WAITING, report.reason, next_at=now + SOON)
            case Ending.UNSURE | Ending.FAILED:
                paused = runtime.handle(context, report.error)
                wait = backoff(job.failures + 1, first=2, most=300, spread=runtime.spread())
                next_at = context.paused_until if paused else now + wait
                if job.reason != report.reason:
                    runtime.event(context.name, of_job(job), "submit failed", report.reason, level=logging.WARNING)
                self.show(job, job.state, report.reason, next_at=next_at, failures=job.failures + 1)

    def _reupload(self, context: Context, key: str) -> None:
        """Upload again what the journal has as stored and S3 doesn't have (F52)."""
        for row in self._runtime.journal.files_with_key(context.name, key) if key else []:
            if row.state is FileState.STORED:
                self._runtime.journal.unstore_file(row.id, self._runtime.clock.now())
                text = "it is not in S3 any more: uploaded again"
                self._runtime.event(context.name, of_file(row.place), "lost in S3", text, level=logging.WARNING)


def _is_waited_for(context: Context, job: JobRow, waits: Waits, now: float) -> bool:
    """Whether a pass (`once`) must go on because of an unfinished job."""
    if job.next_at <= now:
        return True
    surely = job.verdict is JobState.DONE or now - job.ended < ENDING
    if job.phase is Phase.SUBMITTED and job.verdict is not None and surely and not context.results_trouble:
        return True  # what it left is fetched in this pass
    return waits.unended and (job.phase is not Phase.OPEN or job.state is JobState.READY)
