"""Take every job that is due one step further: consider, submit, look. In the engine thread; S3 is asked on lanes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from ncaasd.engine.declaring import Declarer, job_subject
from ncaasd.engine.desk import Result
from ncaasd.engine.elsewhere import Elsewhere
from ncaasd.engine.fetching import Fetcher
from ncaasd.engine.house import Context, House
from ncaasd.engine.opening import doubted
from ncaasd.engine.part import Part, Waits
from ncaasd.engine.pauses import Pauses
from ncaasd.engine.recordings import Recordings
from ncaasd.engine.submitting import Ending, Mark, Order, Report, SameJob, draft_of, submit_once
from ncaasd.engine.supplies import REMOTE_KNOWN_FOR, ConfigFact, Supplies
from ncaasd.engine.unitbook import UnitBook
from ncaasd.engine.watching import Watch
from ncaasd.errors import NcaasdError
from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobState, Origin, Phase, Place
from ncaasd.neurocaas.naming import folder_name
from ncaasd.neurocaas.submission import validate_job
from ncaasd.plan import gates, grouping
from ncaasd.plan.configs import etag_of, turn
from ncaasd.plan.doubts import ZEROS
from ncaasd.plan.files import in_words, taken_by
from ncaasd.plan.grouping import Beside, Matcher, misplaced
from ncaasd.plan.guards import MENDED, Limits, Stop, Tally, guard, machines_of, tally, way_on
from ncaasd.plan.jobs import NOTHING, DatasetFact, next_step
from ncaasd.plan.journals import was_there
from ncaasd.plan.retry import backoff

DUE_AT_A_TIME = 200
NEVER = 1e15
CONSIDER_AGAIN = 300.0  # a waiting job is woken by what it waits for; this is for what was missed
AUTOMATIC_HOLD = 30.0
ENDING = 300.0  # an end that may still turn out to be none is not waited for longer by `once`
SEEN_AGAIN = ("foreign", "replaced")  # holds that what is in S3 may end


class Jobs(Part):
    def __init__(
        self,
        house: House,
        declarer: Declarer,
        fetcher: Fetcher,
        book: UnitBook,
        pauses: Pauses,
        recordings: Recordings,
        *,
        put_in_place: Callable[[Context, FileRow], None],
    ) -> None:
        """`put_in_place`: a file may be elsewhere in S3 than its job's rule wants it (`key: base`)."""
        self._put_in_place = put_in_place
        self._house = house
        self._book = book
        self._pauses = pauses
        self._recordings = recordings
        self._declarer = declarer
        self._busy: set[int] = set()  # rows being submitted or looked at
        # Being submitted, not intended yet -> analysis, rule, machines.
        self._going: dict[int, tuple[str, str, int]] = {}
        # Being submitted, not intended yet -> analysis, the config's name that jobs share, its ETag.
        self._sharing: dict[int, tuple[str, str, str]] = {}
        self._tallies: dict[tuple[str, str], Tally] = {}  # of this turn
        self._beside: dict[tuple[str, str], grouping.Unit] = {}  # of this turn
        self._kept_back: set[tuple[str, str, str]] = set()  # analysis, rule, unit: what is lacking of it keeps its jobs
        self.elsewhere = Elsewhere(house)
        self.watch = Watch(house, fetcher, self.elsewhere, self._busy, self.show)
        self._fetcher = fetcher
        self._supplies = Supplies(house, declarer)

    def busy(self) -> bool:
        return bool(self._busy) or self.elsewhere.busy()

    def pending(self, waits: Waits) -> bool:
        house = self._house
        now, reachable = house.clock.now(), {c.name: c for c in house.reachable()}
        jobs = (job for job in house.journal.jobs(unfinished=True) if job.spec.analysis in reachable)
        return any(_is_waited_for(reachable[job.spec.analysis], job, waits, now) for job in jobs)

    def due(self) -> float | None:
        """A job is to be taken further then, or the group's results are to be listed."""
        at = self._house.journal.next_due(list(self._busy))
        times = [self.elsewhere.due(), None if at is None else at - self._house.clock.now()]
        return min((seconds for seconds in times if seconds is not None), default=None)

    def finished(self, context: Context, job: JobRow) -> None:
        """All that a job left is here, and it is in its end."""
        self.watch.finished(context, job)

    def intended(self, row: int) -> None:
        """Its intent is committed, or it wasn't submitted: from now on the journal counts it."""
        self._going.pop(row, None)
        self._sharing.pop(row, None)

    def about_to_intend(self, context: Context, row: int, job_id: str) -> None:
        """In the intent's transaction: no other row may have its id."""
        found = self.elsewhere.is_ours_after_all(context, row, job_id)
        if found is not None:
            self._fetcher.taken_over(row, found)

    def turn(self) -> None:
        self.elsewhere.turn()
        house = self._house
        now = house.clock.now()
        due = [j for j in house.journal.due_jobs(now, DUE_AT_A_TIME + len(self._busy)) if j.row not in self._busy]
        if not due:
            return
        starts: list[Callable[[], None]] = []
        self._tallies.clear()
        self._beside.clear()
        try:
            with house.transaction():
                for job in due:
                    context = house.contexts.get(job.spec.analysis)
                    if context is None or not context.opened:
                        house.journal.update_job(job.row, next_at=now + 5)
                    elif not house.awake(context):
                        house.journal.update_job(job.row, next_at=context.paused_until)
                    else:
                        starts += self._step(context, job, now)
        except BaseException:
            self._going = {row: going for row, going in self._going.items() if row in self._busy}
            self._sharing = {row: shared for row, shared in self._sharing.items() if row in self._busy}
            raise
        for start in starts:
            start()

    def _step(self, context: Context, job: JobRow, now: float) -> Sequence[Callable[[], None]]:
        match job.phase:
            case Phase.OPEN:
                return self._consider(context, job, now)
            case Phase.INTENT | Phase.ATTEMPTED:
                # Looked at again: a foreign submit file may turn out to be this job's after all, when its folder appears; and
                # who replaced a dataset may have submitted the very job (another daemon on one folder), or put it back.
                if job.hold and job.hold not in SEEN_AGAIN and job.hold not in job.released:
                    self._house.journal.update_job(job.row, next_at=NEVER)
                    return []
                if context.submits_blocked:
                    self._house.journal.update_job(
                        job.row, next_at=now + AUTOMATIC_HOLD, reason=context.submits_blocked
                    )
                    return []
                config = self._supplies.config(context, job)
                return [
                    self._submission(context, job, config if not config.problem else ConfigFact(key=job.config_key))
                ]
            case Phase.SUBMITTED:
                return [self.watch.looking(context, job)]
            case Phase.ENDED:
                return []

    # -- before the submit -------------------------------------------------------------------------------------------

    def _consider(self, context: Context, job: JobRow, now: float) -> Sequence[Callable[[], None]]:
        if now < job.not_before:
            self._house.journal.update_job(job.row, next_at=job.not_before)
            return []
        job = self._declarer.find_files(job)
        m = self._rule(context, job)
        if m is not None and misplaced(m, job.spec.datasets, context.layout.inputs):
            for dataset in job.spec.datasets:
                row = self._house.journal.file_of(dataset)
                if row is not None:
                    self._put_in_place(context, row)
        facts = [self._supplies.dataset(context, d) for d in job.spec.datasets]
        job = self._with_keys(job, facts)
        if (
            job.hold == ZEROS
            and not job.spec.version  # else what was written anew has a job of its own
            and all(_is_stored(f) for f in facts)
            and self.data_stop(context, job) is None
        ):
            job = replace(job, hold="")  # it was written anew
        config = self._supplies.config(context, job)
        blocked, stop = context.submits_blocked, self._stop(context, job, now)
        invalid = [] if blocked else [*validate_job(draft_of(job, context.layout, config.key), context.layout)]
        if m is not None and (why := misplaced(m, job.spec.datasets, context.layout.inputs)):
            invalid.append(why)
        beside = self.beside(context, job)
        waits = "" if config.problem else self._turn(context, job, config)
        problem = config.problem or waits
        step = next_step(job, facts, problem, blocked, stop, invalid, beside)
        if (step.submit or (stop and step.reason == stop.reason)) and (doubt := self.data_stop(context, job)):
            step = next_step(job, facts, problem, blocked, doubt, invalid, beside)
        if step.submit:
            self.show(job, JobState.READY, step.reason, next_at=now + CONSIDER_AGAIN, hold="")
            return [self._submission(context, job, config)]
        wait = CONSIDER_AGAIN
        if waits or step.state is JobState.READY or (step.state is JobState.HELD and not step.hold):
            wait = AUTOMATIC_HOLD
        elif step.hold and step.hold not in MENDED:
            wait = NEVER - now
        elif config.ask or step.ask_remote or any(f.file is None for f in facts):
            wait = max(REMOTE_KNOWN_FOR, context.settings.jobs.poll.min)
        reason = step.reason
        if step.hold and step.hold != job.hold:
            if step.hold not in MENDED:
                reason = f"{reason}; {way_on(step.hold, job)}"
            self._house.event(context.name, job_subject(job), "held", reason, level=logging.WARNING)
        self.show(job, step.state, reason, next_at=now + wait, hold=step.hold)
        asks = step.state is JobState.WAITING and (step.ask_remote or config.ask)
        return [self._asking(context, job, step.ask_remote, config.ask)] if asks else []

    def beside(self, context: Context, job: JobRow) -> Beside:
        """What keeps a rule's job waiting that is neither its dataset nor its config: the rest of its unit, and what the rule's
        `with` names."""
        m = self._rule(context, job)
        if m is None or (m.unit is None and not m.beside):
            return NOTHING
        if m.unit is None:
            return grouping.beside(m, self._accompanying(context, m), "", lambda _row: True)
        unit = self._book.at(context.name, m, grouping.unit_of_job(m, job.spec))
        if unit is None:
            return NOTHING  # all of it is gone: what its job is made of is said to be
        found = grouping.beside(m, unit, self._pauses.why(context, m, unit), lambda row: self._goes(context, row))
        if found.lacking or found.unit:
            self._kept_back.add((context.name, m.rule.name, unit.path))
        return found

    def _goes(self, context: Context, row: FileRow) -> bool:
        """Whether a file ever goes up by itself."""
        rules = [m for ms in context.rules.values() for m in ms]
        way = gates.passage(row, rules, lambda m: self._book.of(context.name, m, row), lambda _m, _unit: False)
        return way.way is not gates.Way.NEVER

    def _accompanying(self, context: Context, m: Matcher) -> grouping.Unit:
        """What a rule without units names beside its datasets: looked for once a turn."""
        key = (context.name, m.rule.name)
        if key not in self._beside:
            rows = self._house.journal.files(context.name, tree=m.rule.source or "")
            self._beside[key] = grouping.accompanying(m, rows)
        return self._beside[key]

    def stored(self, context: Context, row: FileRow) -> None:
        """A file is in S3: when it was the last one of its unit, the unit's jobs are due."""
        for m in (m for ms in context.rules.values() for m in ms):
            if m.unit is None:
                if m.beside and grouping.is_of(m, row) and m.accompanies(grouping.below(row)):
                    self._house.journal.wake_unit(context.name, m.rule.name, "")
                continue
            unit = self._book.of(context.name, m, row)
            if unit is not None and not any(self._goes(context, r) for r in unit.to_store(m)):
                self._house.journal.wake_unit(context.name, m.rule.name, unit.path)

    def changed(self, context: Context, row: FileRow) -> None:
        """A file became whole, or is gone: the jobs that its unit kept back are due, once for all that changes together."""
        for m in (m for ms in context.rules.values() for m in ms):
            hit = m.unit_of(grouping.below(row)) if self._kept_back and grouping.is_of(m, row) else None
            key = (context.name, m.rule.name, hit[0] if hit else "")
            if key in self._kept_back:
                self._kept_back.discard(key)
                self._house.journal.wake_unit(*key)

    def _with_keys(self, job: JobRow, facts: Sequence[DatasetFact]) -> JobRow:
        """A job that was declared before its file came, by an earlier version: under the key that the file has."""
        datasets = tuple(
            replace(d, key=f.file.key) if f.file is not None and f.file.key else d
            for d, f in zip(job.spec.datasets, facts, strict=True)
        )
        if datasets == job.spec.datasets:
            return job
        spec = replace(job.spec, datasets=datasets)
        self._house.journal.respec_job(job.row, spec)
        return replace(job, spec=spec)

    def _turn(self, context: Context, job: JobRow, config: ConfigFact) -> str:
        """Why a job has to wait until others have read the config that they have under the same name; "" when it may go."""
        if not config.shared or config.content is None:
            return ""
        return self.turn_of(context, job, config.key, etag_of(config.content))

    def turn_of(self, context: Context, job: JobRow, key: str, etag: str) -> str:
        known = self._house.journal.configs_at(context.name, key)
        others = [(f"job {job_id}", theirs, reading) for job_id, theirs, reading in known if job_id != job.job_id]
        going = [
            ("a job that is being submitted", theirs, True)
            for row, (analysis, name, theirs) in self._sharing.items()
            if row != job.row and (analysis, name) == (context.name, key)
        ]
        return turn(key, etag, [*others, *going])

    def _stop(self, context: Context, job: JobRow, now: float) -> Stop | None:
        return guard(job, self._tally(context, job, now), self._limits(context, job))

    def data_stop(self, context: Context, job: JobRow) -> Stop | None:
        """Why a job is held for what its data is, which is all in S3."""
        return self._recordings.stop(context, job)

    def _tally(self, context: Context, job: JobRow, now: float) -> Tally:
        """What is going on, with the submits that were decided on a moment ago."""
        journal, key = self._house.journal, (context.name, job.spec.name)
        if key not in self._tallies:
            siblings = journal.jobs_of_rule(*key)
            each = journal.machines_per_dataset(*key)
            self._tallies[key] = tally(siblings, *journal.usage(context.name, now), now, each)
        seen = self._tallies[key]
        going = [g for g in self._going.values() if g[0] == context.name]
        coming = sum(machines for _analysis, _rule, machines in going)
        under_way = seen.under_way + sum(rule == job.spec.name for _analysis, rule, _machines in going)
        return replace(seen, active=seen.active + coming, day=seen.day + coming, under_way=under_way)

    def _limits(self, context: Context, job: JobRow) -> Limits:
        jobs = context.settings.jobs
        rule = self._rule(context, job)
        return Limits(
            max_active=jobs.max_active,
            max_per_day=jobs.max_per_day,
            ask_above=jobs.ask_above,
            stop_after_failures=jobs.stop_after_failures,
            canary=rule.rule.canary if rule else 0,
        )

    @staticmethod
    def _rule(context: Context, job: JobRow) -> Matcher | None:
        if job.spec.origin is not Origin.RULE:
            return None
        return next((m for ms in context.rules.values() for m in ms if m.rule.name == job.spec.name), None)

    def _asking(self, context: Context, job: JobRow, keys: Sequence[str], config: str) -> Callable[[], None]:
        def then(all_there: bool) -> None:
            self._busy.discard(job.row)
            if all_there:
                self._house.journal.update_job(job.row, next_at=0.0)

        ask = self._supplies.asking(context, keys, config, then)

        def start() -> None:
            self._busy.add(job.row)
            ask()

        return start

    def show(self, job: JobRow, state: JobState, reason: str, **fields: object) -> None:
        """Commit a state and its reason, for the manifest's status file too."""
        if (state, reason) != (job.state, job.reason) and job.spec.origin is not Origin.ELSEWHERE:
            self._declarer.changed.add((job.spec.analysis, job.spec.declared_in))
        self._house.journal.update_job(job.row, state=state, reason=reason, **fields)

    # -- the submit --------------------------------------------------------------------------------------------------

    def _submission(self, context: Context, job: JobRow, config: ConfigFact) -> Callable[[], None]:
        house = self._house
        etags: dict[str, str] = {}
        files: list[FileRow] = []
        others: set[str] = set()
        for dataset in job.spec.datasets:
            row = house.journal.file_of(dataset)
            if row is not None and row.state is not FileState.GONE:
                etags[dataset.key] = row.etag
                files += self._declarer.recorded(context, row)
            if dataset.place is None or len(house.journal.files_with_key(context.name, dataset.key)) < 2:
                continue
            if row is not None and row.stored is not None:
                etags[dataset.key] = row.etag  # also when it is gone: another one may be at its key by then
            using = house.journal.jobs_using(context.name, dataset.key)
            others |= {
                j.job_id
                for j in using
                if any(d.key == dataset.key and d.place not in (None, dataset.place) for d in j.spec.datasets)
            }
        manifest = house.journal.file_at(Place(context.name, "", job.spec.declared_in))
        first_scan = doubted(house.journal, context.name)
        if job.phase is Phase.OPEN and job.attempt == 0 and manifest and first_scan:
            rebuilt = job.rebuilt or was_there([*files, manifest], first_scan)
            house.journal.update_job(job.row, rebuilt=rebuilt)
            job = replace(job, rebuilt=rebuilt)
        if job.phase is not Phase.OPEN:
            etags = {d.key: d.etag for d in job.spec.datasets if d.etag}
            config = config if config.key == job.config_key else ConfigFact(key=job.config_key)
        if job.phase is Phase.OPEN:
            each = house.journal.machines_per_dataset(context.name, job.spec.name)
            self._going[job.row] = (context.name, job.spec.name, machines_of(job, each))
        doubt = house.journal.get_meta(f"doubt:{context.name}") or ""
        configs: set[str] = set()
        if config.shared:
            configs = {etag for _id, etag, _reading in house.journal.configs_at(context.name, config.key)}
            configs |= {r.etag for r in house.journal.files_with_key(context.name, config.key) if r.ours and r.stored}
        if config.shared and config.content is not None and job.phase is Phase.OPEN:
            self._sharing[job.row] = (context.name, config.key, etag_of(config.content))
        order = Order(
            job,
            context.layout,
            config.key,
            config.content,
            etags,
            frozenset(others - {""}),
            doubt,
            shared=bool(job.config_etag) if job.phase is not Phase.OPEN else config.shared,
            configs=frozenset(configs),
        )
        log = _JournaledSubmit(self, context, job)

        def start() -> None:
            self._busy.add(job.row)
            store = context.store

            def work() -> Report:
                return submit_once(order, store, log, house.clock, crash=house.crash, foreign=context.store_for)

            house.desk.do(f"submit:{context.name}", work, lambda r: self._submission_done(context, job.row, r))

        return start

    def _submission_done(self, context: Context, row: int, result: Result[Report]) -> None:
        house = self._house
        self._busy.discard(row)
        self.intended(row)
        report = result.get()
        job = house.journal.job(row)
        if job is None:
            return
        now = house.clock.now()
        match report.ending:
            case Ending.SUBMITTED | Ending.ADOPTED:
                house.unpause(context)
                house.journal.update_job(row, next_at=now + context.settings.jobs.poll.min, failures=0)
            case Ending.HELD:
                reason = f"{report.reason}; {way_on(report.kind, job)}"
                if job.reason != reason:
                    house.event(context.name, job_subject(job), "held", reason, level=logging.WARNING)
                again = now + CONSIDER_AGAIN if report.kind in SEEN_AGAIN else NEVER
                self.show(job, JobState.HELD, reason, hold=report.kind, next_at=again)
            case Ending.WAITS:
                self._reupload(context, report.missing)
                self.show(job, JobState.WAITING, report.reason, next_at=now + AUTOMATIC_HOLD)
            case Ending.UNSURE | Ending.FAILED:
                paused = house.handle(context, report.error)
                wait = backoff(job.failures + 1, first=2, most=300, spread=house.spread())
                next_at = context.paused_until if paused else now + wait
                if job.reason != report.reason:
                    house.event(context.name, job_subject(job), "submit failed", report.reason, level=logging.WARNING)
                self.show(job, job.state, report.reason, next_at=next_at, failures=job.failures + 1)

    def _reupload(self, context: Context, key: str) -> None:
        """What the journal thinks is stored, and S3 doesn't have: put it again (F52)."""
        for row in self._house.journal.files_with_key(context.name, key) if key else []:
            if row.state is FileState.STORED:
                self._house.journal.unstore_file(row.id, self._house.clock.now())
                text = "it is not in S3 any more: uploaded again"
                self._house.event(context.name, f"file {row.place.path}", "lost in S3", text, level=logging.WARNING)


def _is_waited_for(context: Context, job: JobRow, waits: Waits, now: float) -> bool:
    """Whether a pass goes on for an unfinished job."""
    if job.next_at <= now:
        return True
    surely = job.verdict is JobState.DONE or now - job.ended < ENDING
    if job.phase is Phase.SUBMITTED and job.verdict is not None and surely and not context.results_trouble:
        return True  # what it left is fetched in this pass
    return waits.unended and (job.phase is not Phase.OPEN or job.state is JobState.READY)


def _is_stored(fact: DatasetFact) -> bool:
    return fact.file is not None and fact.file.state is FileState.STORED


class _JournaledSubmit:
    """engine.submitting.SubmitLog: every call returns after the commit."""

    def __init__(self, jobs: Jobs, context: Context, job: JobRow) -> None:
        self._house = jobs._house
        self._jobs = jobs
        self._context = context
        self._job = job

    def intend(
        self,
        job_id: str,
        attempt: int,
        key: str,
        body: bytes,
        config_key: str,
        config_etag: str,
        datasets: Sequence[Dataset],
    ) -> JobRow:
        def commit() -> JobRow:
            journal = self._house.journal
            job = journal.job(self._job.row)
            if job is None or job.phase is not Phase.OPEN or (job.hold and job.hold not in job.released):
                raise NcaasdError("it was cancelled or held just before its submit")
            if job.spec != self._job.spec:
                raise NcaasdError("its declaration has just been edited")
            same = journal.job_by_id(self._context.name, job_id)
            if same is not None and same.row != job.row and same.spec.origin is not Origin.ELSEWHERE:
                text = f"{same.spec.declared_in} declares the same job ({same.spec.name} of the same data): rename this one"
                raise SameJob(text)
            for dataset in datasets:
                row = journal.file_of(dataset)
                if row is not None and row.state is not FileState.GONE and row.etag != dataset.etag:
                    raise NcaasdError(f"{dataset.name} has just changed")
                if row is not None and row.state not in (FileState.STORED, FileState.GONE):
                    raise NcaasdError(f"{dataset.name} is changing")
                if row is not None and row.state is not FileState.GONE:
                    continue
                other = taken_by(dataset.place, row, journal.files_with_key(self._context.name, dataset.key))
                if other is not None:
                    text = f"{dataset.name} is not here, and {in_words(other)} has just taken its name in S3"
                    raise NcaasdError(text)
            waits = self._jobs.turn_of(self._context, job, config_key, config_etag) if config_etag else ""
            if waits:
                raise NcaasdError(f"waits for {waits}")
            beside = self._jobs.beside(self._context, job)
            if beside != NOTHING:
                raise NcaasdError(beside.lacking or beside.unit or f"{beside.files[0].place.path} is changing")
            if doubt := self._jobs.data_stop(self._context, job):  # its old name may have been found gone just now
                raise NcaasdError(doubt.reason)
            self._jobs.about_to_intend(self._context, job.row, job_id)
            journal.update_job(
                job.row,
                phase=Phase.INTENT,
                job_id=job_id,
                attempt=attempt,
                submit_key=key,
                body=body,
                config_key=config_key,
                config_etag=config_etag,
                intended=self._house.clock.now(),
                results=folder_name(self._context.name, job_id),
            )
            journal.datasets_submitted(job.row, datasets)
            self._jobs.intended(job.row)
            self._house.event(self._context.name, job_subject(job), "intended", f"its submit is {key}")
            found = journal.job(job.row)
            assert found is not None
            return found

        return self._house.desk.ask(commit)

    def configured(self, config_etag: str) -> None:
        def commit() -> None:
            job = self._house.journal.job(self._job.row)
            if job is None or job.phase is not Phase.INTENT:
                raise NcaasdError("it was cancelled or held just before its submit")
            waits = self._jobs.turn_of(self._context, job, job.config_key, config_etag)
            if waits:
                raise NcaasdError(f"waits for {waits}")
            self._house.journal.update_job(job.row, config_etag=config_etag)

        self._house.desk.ask(commit)

    def count(self) -> Mark:
        house, analysis, layout = self._house, self._context.name, self._context.layout

        def commit() -> Mark:
            generation, submits = house.journal.count_submit(analysis)
            older = (layout.journal_mark(house.rig, generation, submits - 1),) if submits > 1 else ()
            return Mark(layout.journal_mark(house.rig, generation, submits), older)

        return house.desk.ask(commit)

    def attempt(self) -> None:
        def commit() -> None:
            job = self._house.journal.job(self._job.row)
            if job is not None and not job.attempted:
                self._house.journal.update_job(job.row, phase=Phase.ATTEMPTED, attempted=self._house.clock.now())

        self._house.desk.ask(commit)

    def submitted(self, *, at: float, adopted: bool, reason: str) -> None:
        def commit() -> None:
            journal = self._house.journal
            job = journal.job(self._job.row)
            assert job is not None
            now = self._house.clock.now()
            text = f"adopted as job {job.job_id}: {reason}" if adopted else f"submitted as job {job.job_id}"
            self._jobs.show(
                job,
                JobState.SUBMITTED,
                f"submitted as {job.job_id}; nothing heard yet",
                phase=Phase.SUBMITTED,
                submitted=at if adopted else now,
                seen=at,
                hold="",
                next_at=now + self._context.settings.jobs.poll.min,
            )
            self._house.event(self._context.name, job_subject(job), "adopted" if adopted else "submitted", text)

        self._house.desk.ask(commit)
