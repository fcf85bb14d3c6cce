"""What would become of each job: submitted, waiting, held, queueing, with its exact submit file. Pure.

The facts are gathered as the engine does it (`engine/submitting/assessing`), but as they will be once everything that may be
uploaded is in S3; `considering.consider` decides, here and in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ncaasd.model import (
    Dataset,
    FileRow,
    FileState,
    Hold,
    JobRow,
    JobSpec,
    JobState,
    Origin,
    Phase,
    Place,
)
from ncaasd.plan import expand, grouping, renames
from ncaasd.plan.configs import ConfigFact, from_text, in_another_bucket, local_config, not_here, not_yet, turn
from ncaasd.plan.considering import NOTHING, DatasetFact, Facts, Next, consider, dataset_fact
from ncaasd.plan.doubts import doubt
from ncaasd.plan.gates import When
from ncaasd.plan.grouping import Beside, Matcher, Unit
from ncaasd.plan.guards import Known, Limits, Stop, machines_of, newest_known, per_dataset, tally
from ncaasd.plan.holds import OWN_CONFIG
from ncaasd.plan.journals import may_have_been_sent
from ncaasd.plan.situation import Files, Situation
from ncaasd.plan.submitting import body_of, identity, ids_of_others, same_job

ASKED_OF_S3 = "but held if S3 shows no trace of it: this rig has submitted jobs that its journal does not know"


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job. plan: submit | queue | wait | hold | known. `body` is the exact submit file, where all in it is known."""

    spec: JobSpec
    plan: str
    why: str
    size: int
    machines: int
    guard: Hold | None = None  # what keeps it, held or queueing
    job_id: str = ""
    submit_key: str = ""
    config_key: str = ""
    body: bytes = b""
    known: JobRow | None = None


class JobPlanner:
    def __init__(self, facts: Situation, files: Files) -> None:
        self._facts, self._files = facts, files
        self._attempts: dict[tuple[str, str, str], list[JobRow]] = {}
        for job in sorted(facts.jobs, key=lambda j: j.attempt):
            self._attempts.setdefault((job.spec.name, job.spec.unit, job.spec.version), []).append(job)
        self._was = {row.place: row for row in facts.rows if row.state is FileState.GONE}
        self._gone: dict[tuple[int, int], list[FileRow]] = {}  # by size, and roughly by time
        for row in self._was.values():
            self._gone.setdefault((row.stat.size, row.stat.mtime_ns // renames.COARSEST), []).append(row)
        self._users: dict[str, list[JobRow]] = {}
        self._given: dict[str, list[tuple[Dataset, JobRow]]] = {}  # etag -> datasets of it, with their jobs
        for job in facts.jobs:
            for dataset in job.spec.datasets:
                self._users.setdefault(dataset.key, []).append(job)
                if dataset.etag:
                    self._given.setdefault(dataset.etag, []).append((dataset, job))
        self._renewed = {r.stored[:2]: r for r in self._files.rows if r.stored and r.stored[:2] != r.stat[:2]}
        self._configs_at: dict[str, list[tuple[str, str, bool]]] = {}  # of names that jobs share: see configs.turn
        for job in facts.jobs:
            if job.config_etag:
                reading = job.phase is not Phase.ENDED and job.verdict is None
                self._configs_at.setdefault(job.config_key, []).append((f"job {job.job_id}", job.config_etag, reading))
        # id -> its job: those that have an id already, and those that would be submitted.
        ours = (j for j in facts.jobs if j.job_id and j.spec.origin is not Origin.ELSEWHERE)
        self._declared = {j.job_id: j for j in ours}
        self._active, self._day = facts.usage.active, facts.usage.day
        self._made: dict[str, list[JobRow]] = {}  # rule -> its jobs, with those that are only planned
        by_name: dict[str, list[JobRow]] = {}
        for job in facts.jobs:
            by_name.setdefault(job.spec.name, []).append(job)
        self._machines_known: dict[str, Known] = {name: newest_known(jobs) for name, jobs in by_name.items()}
        self._machines_known_here: Known = newest_known(facts.jobs)
        for job in facts.jobs:
            if not job.forgotten:
                self._made.setdefault(job.spec.name, []).append(job)

    def plan(self) -> list[PlannedJob]:
        """All jobs that are wanted, in the order in which they would be considered."""
        fresh = [self._row(spec) for spec in self._wanted()]
        for job in fresh:
            if job.row < 0:
                self._made.setdefault(job.spec.name, []).append(job)
        return [self._job(job) for job in fresh]

    def planned(self) -> list[JobRow]:
        """The jobs that the journal doesn't have; to be called after `plan`."""
        return [job for jobs in self._made.values() for job in jobs if job.row < 0]

    def _wanted(self) -> list[JobSpec]:
        """Every job that is declared, and every open one besides (reruns and retries)."""
        facts = self._facts
        found = {(s.name, s.unit, s.version): s for s in facts.asked if facts.only in ("", s.declared_in)}
        for path, matchers in facts.rules.items():
            if facts.only in ("", path):
                for m in matchers:
                    found |= {(s.name, s.unit, s.version): s for s in self._jobs_of(m, path)}
        for job in facts.jobs if not facts.only else ():
            key = (job.spec.name, job.spec.unit, job.spec.version)
            if job.phase is Phase.OPEN and (key not in found or OWN_CONFIG in job.released):
                found[key] = job.spec
        return list(found.values())

    def _jobs_of(self, m: Matcher, path: str) -> list[JobSpec]:
        def made(matcher: Matcher) -> list[JobSpec]:
            return expand.jobs_of_rule(
                matcher,
                self._files.of(m),
                analysis=self._facts.analysis,
                declared_in=path,
                config_checksum=lambda _name: "",
                package_of=self._files.package_of(m),
            )

        specs = made(m)
        if not m.rule.rerun_on:
            return specs
        # The checksums in these jobs' versions aren't known before the data is stored, so they are shown without.
        known = {(j.spec.name, j.spec.unit) for j in self._facts.jobs} | {(s.name, s.unit) for s in specs}
        plain = replace(m, rule=m.rule.model_copy(update={"rerun_on": ()}))
        return specs + [replace(s, version="?") for s in made(plain) if (s.name, s.unit) not in known]

    def _row(self, spec: JobSpec) -> JobRow:
        """The newest attempt of a job, following its declaration while it is open; or one that is not made yet (row -1)."""
        attempts = self._attempts.get((spec.name, spec.unit, spec.version))
        if attempts:
            newest = attempts[-1]
            return replace(newest, spec=spec) if newest.phase is Phase.OPEN else newest
        size = sum(self._files.size(d) for d in spec.datasets)
        return _unmade(spec, self._facts.now, size)

    def _job(self, job: JobRow) -> PlannedJob:
        each = per_dataset(self._machines_known.get(job.spec.name), self._machines_known_here)
        machines = machines_of(job, each)
        size = job.size or sum(self._files.size(d) for d in job.spec.datasets)
        if job.phase is not Phase.OPEN:
            return PlannedJob(job.spec, "known", f"made already: {job.state}", size, machines, known=job)
        facts = self._facts_of(job, each)
        step = consider(facts)
        config = facts.config
        if step.submit:
            self._goes(job, machines, config)
        made = PlannedJob(
            job.spec,
            _plan(step),
            self._why(job, facts) if step.submit else step.reason,
            size,
            machines,
            known=job if job.row >= 0 else None,
            guard=step.stop or step.hold,
            config_key="" if config.problem else config.key,
        )
        return self._with_submit_file(made, job)

    def _facts_of(self, job: JobRow, each: float) -> Facts:
        """As the engine gathers them (`engine/submitting/assessing`), for when everything that may be uploaded is in S3."""
        spec = job.spec
        declares = spec.origin is Origin.RULE
        rule = next((m for m in self._files.matchers if declares and m.rule.name == spec.name), None)
        config = self._config(spec)
        return Facts(
            job=job,
            layout=self._facts.layout,
            rule=rule,
            datasets=[self._fact(d) for d in spec.datasets],
            config=config,
            now=self._facts.now,
            turn=turn(config.key, config.etag, self._configs_at.get(config.key, ())) if config.shared else "",
            beside=self._beside(spec, rule),
            same=self._same(job),
            tally=tally(self._made.get(spec.name, []), self._active, self._day, self._facts.now, each),
            limits=Limits.of(self._facts.settings.jobs, rule.rule.canary if rule else 0),
            doubt=self._data_stop,
        )

    def _same(self, job: JobRow) -> str:
        same = self._declared.get(identity(job, self._facts.layout, 0))
        if job.attempt or same is None or (same.row >= 0 and same.row == job.row):
            return ""
        return "" if same.spec == job.spec else same_job(job, same)

    def _why(self, job: JobRow, facts: Facts) -> str:
        """What must be done before a job's submit, for people."""
        here = (f.file for f in facts.datasets if f.file is not None)
        first = sum(
            row.place in self._files.at and self._files.at[row.place].state is not FileState.STORED for row in here
        )
        why = (
            f"{first} file{'s' if first > 1 else ''} first to be uploaded" if first else "everything it needs is in S3"
        )
        if any(f.packed for f in facts.datasets):
            why = "its package first to be made and uploaded"
        return f"{why}; {ASKED_OF_S3}" if self._may_have_been_sent(job) else why

    def _beside(self, spec: JobSpec, rule: Matcher | None) -> Beside:
        """As the engine finds it, but later: whole files that may be uploaded are in S3 then, and a pause is over."""
        if rule is None or (rule.unit is None and not rule.beside):
            return NOTHING
        if rule.unit is None:
            unit: Unit | None = grouping.accompanying(rule, self._files.of(rule))
        else:
            unit = self._files.units.get(id(rule), {}).get(grouping.unit_of_job(rule, spec))
        if unit is None:
            return NOTHING

        def keeps_back(row: FileRow) -> bool:
            when = self._files.permit(row).when
            return when is not When.NEVER and (row.state is not FileState.WHOLE or when is not When.NOW)

        found = grouping.beside(rule, unit, "", keeps_back)
        return replace(found, files=tuple(map(self._files.later, found.files)))

    def _data_stop(self, job: JobRow) -> Stop | None:
        """Why a job is held for its data. Files that are not stored yet have no checksum: sizes, times and inodes decide."""
        return doubt(
            job,
            [self._piece(job, d) for d in job.spec.datasets],
            at=lambda place: None if (row := self._files.at.get(place)) is None or row.state is FileState.GONE else row,
            gone_like=self._gone_like,
            jobs_using=lambda key: self._users.get(key, ()),
            was=self._was.get,
            given=self._given_to,
        )

    def _gone_like(self, row: FileRow) -> list[FileRow]:
        size, about = row.stat.size, row.stat.mtime_ns // renames.COARSEST
        return [r for near in (about, about - 1, about + 1) for r in self._gone.get((size, near), ())]

    def _given_to(self, row: FileRow) -> Iterable[JobRow]:
        """The jobs that were given a file's content under a name that is gone, or that another file has now."""
        if row.state is FileState.STORED:
            found = self._given.get(row.etag, ())
            return [j for d, j in found if d.key != row.key and renames.taken_over(row, self._files.there(d))]
        old = self._renewed.get(row.stat[:2])
        if old is None or old.stored is None or old.stored.inode != row.stat.inode or old.place == row.place:
            return ()
        return [j for d, j in self._given.get(old.etag, ()) if d.key == old.key]

    def _piece(self, job: JobRow, dataset: Dataset) -> renames.Piece | None:
        row = self._files.file(dataset)
        if row is not None and not row.place.is_package:
            return renames.itself(row)
        for m in self._files.matchers:
            unit = (
                self._files.units.get(id(m), {}).get(job.spec.unit)
                if m.packs and m.rule.name == job.spec.name
                else None
            )
            if unit is not None:
                return renames.packed(m, unit, self._files.package_of(m))
        return None

    def _may_have_been_sent(self, job: JobRow) -> bool:
        """Whether a job may have been sent already, as the engine checks it before a submit."""
        spec, first_scan = job.spec, self._facts.first_scan
        if Hold.REBUILT in job.released or first_scan is None or (job.attempt and not job.rebuilt):
            return False
        files = [row for d in spec.datasets if (row := self._files.file(d)) is not None]
        m = next((m for m in self._files.matchers if m.rule.name == spec.name and m.packs), None)
        if m is not None and spec.unit in self._files.units[id(m)]:
            files = sorted(self._files.units[id(m)][spec.unit].files.values(), key=lambda r: r.id)[:1]
        manifest = self._files.at.get(Place(spec.analysis, "", spec.declared_in))
        if manifest is None or job.rebuilt:
            return manifest is not None
        job_id = identity(job, self._facts.layout, 0)
        return may_have_been_sent(job_id, [*files, manifest], first_scan, self._facts.noted)

    def _goes(self, job: JobRow, machines: int, config: ConfigFact) -> None:
        """Count a job that would be submitted, for the jobs after it."""
        if config.shared:
            using = self._configs_at.setdefault(config.key, [])
            using.append((f"job {job.job_id or self._new_id(job)}", config.etag, True))
        if not job.attempt:
            self._declared.setdefault(identity(job, self._facts.layout, 0), job)
        self._active, self._day = self._active + machines, self._day + machines
        rows = self._made.setdefault(job.spec.name, [])
        for number, row in enumerate(rows):
            if row is job or (row.row >= 0 and row.row == job.row):
                rows[number] = replace(row, phase=Phase.SUBMITTED, state=JobState.SUBMITTED)

    def _fact(self, dataset: Dataset) -> DatasetFact:
        place = dataset.place
        row = (self._files.hollow.get(place) or self._files.at.get(place)) if place else self._files.file(dataset)
        later = self._files.later(row) if row is not None else None
        others = self._files.at_key.get(dataset.key, ())
        fact = dataset_fact(dataset, later, lambda: [self._files.later(r) for r in others], lambda: None)
        return replace(fact, remote=True) if fact.packed and place in self._files.to_be_packed else fact

    def _config(self, spec: JobSpec) -> ConfigFact:
        elsewhere = in_another_bucket(spec)
        if elsewhere is not None:
            return elsewhere
        layout = self._facts.layout
        here = local_config(
            self._files.at.get(Place(spec.analysis, "", f"configs/{spec.config}")),
            lambda: self._files.at_key.get(layout.configs + spec.config, ()),
        )
        if here is None:
            return not_here(spec.config, layout.configs)
        text = self._facts.configs.get(here.place.path.removeprefix("configs/"))
        if text is None or here.state in (FileState.REFUSED, FileState.SKIPPED):
            return not_yet(here, "")
        return from_text(spec, text, layout)

    def _with_submit_file(self, made: PlannedJob, job: JobRow) -> PlannedJob:
        if job.spec.version == "?" or not made.config_key:
            return made
        job_id = job.job_id or self._new_id(job)
        body = body_of(job.spec, made.config_key, job_id)
        return replace(made, job_id=job_id, submit_key=self._facts.layout.submit_key(job_id), body=body.render())

    def _new_id(self, job: JobRow) -> str:
        """The next id that no other file's job had, chosen as `submit_once` does it, but without asking S3."""
        others = {i for d in job.spec.datasets for i in ids_of_others(d, self._users.get(d.key, ()))}
        ids = (identity(job, self._facts.layout, job.attempt + more) for more in range(len(others) + 1))
        return next(job_id for job_id in ids if job_id not in others)


def _plan(step: Next) -> str:
    if step.submit:
        return "submit"
    return {JobState.WAITING: "wait", JobState.HELD: "hold"}.get(step.state, "queue")


def _unmade(spec: JobSpec, now: float, size: int) -> JobRow:
    """A job as it would be made now."""
    return JobRow(
        row=-1,
        spec=spec,
        attempt=0,
        job_id="",
        phase=Phase.OPEN,
        state=JobState.WAITING,
        reason="",
        hold=None,
        released=frozenset(),
        created=now,
        intended=0.0,
        attempted=0.0,
        submitted=0.0,
        ended=0.0,
        next_at=0.0,
        failures=0,
        submit_key="",
        config_key="",
        body=b"",
        verdict=None,
        refused_kind="",
        finished=0,
        total=len(spec.datasets),
        cost=None,
        seen=0.0,
        size=size,
        rebuilt=False,
        forgotten=False,
        results="",
        quiet_looks=0,
        not_before=0.0,
    )
