"""What would be done, without doing it: uploads, submit files, what each job waits for, what is held, what comes back and
what goes then. Pure.

The same functions decide here and in the engine: `gates`, `expand`, `considering`. What only S3 can tell (that a dataset of
another rig is there, that an id is taken) is not asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ncaasd.declare.config import Analysis
from ncaasd.model import (
    NEVER,
    Artefact,
    Dataset,
    FileRow,
    FileState,
    Hold,
    JobRow,
    JobSpec,
    JobState,
    MachinesUsed,
    Origin,
    Phase,
    Place,
)
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan import afterwards, expand, gates, grouping, renames
from ncaasd.plan.afterwards import AfterSteps, Due, PlannedFetch, PlannedRemoval
from ncaasd.plan.configs import ConfigFact, from_text, in_another_bucket, local_config, not_here, not_yet, turn
from ncaasd.plan.considering import NOTHING, DatasetFact, Facts, Next, consider, dataset_fact
from ncaasd.plan.doubts import doubt
from ncaasd.plan.expand import Package
from ncaasd.plan.files import collision, holder, map_file
from ncaasd.plan.gates import Permit, When
from ncaasd.plan.grouping import Beside, Matcher, Unit
from ncaasd.plan.guards import Known, Limits, Stop, machines_of, newest_known, per_dataset, tally
from ncaasd.plan.holds import OWN_CONFIG
from ncaasd.plan.journals import FirstScan, may_have_been_sent
from ncaasd.plan.submitting import body_of, identity, ids_of_others, same_job

ASKED_OF_S3 = "but held if S3 shows no trace of it: this rig has submitted jobs that its journal does not know"
NOT_YET = (FileState.SETTLING, FileState.WHOLE)


@dataclass(frozen=True, slots=True)
class Situation:
    """One analysis, as it is. `rows`: what is on the disk, known or new; `configs`: text by name below configs/."""

    analysis: str
    settings: Analysis
    layout: Layout
    rows: Sequence[FileRow]
    rules: Mapping[str, Sequence[Matcher]]  # by manifest
    asked: Sequence[JobSpec]  # of one-off manifests and submit files
    configs: Mapping[str, bytes]
    jobs: Sequence[JobRow]  # every attempt, of all jobs
    usage: MachinesUsed
    now: float
    only: str = ""  # the manifest that is asked about; its jobs alone are planned
    wanted: Mapping[int, Sequence[Artefact]] = field(default_factory=dict)  # results that are still to come, by job
    after: Mapping[int, AfterSteps] = field(default_factory=dict)  # what is still to be done after results, by job
    first_scan: FirstScan | None = None  # of a journal that doesn't know all that its rig has submitted
    noted: Collection[str] = ()  # ids of jobs that files here told it of


@dataclass(frozen=True, slots=True)
class PlannedUpload:
    """One object to be put. `kept_back`: why not now; a config or a package has no file here yet."""

    what: str
    key: str
    size: int
    kept_back: str = ""
    held: bool = False


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


@dataclass(frozen=True, slots=True)
class Preview:
    analysis: str
    uploads: tuple[PlannedUpload, ...] = ()
    jobs: tuple[PlannedJob, ...] = ()
    followed: tuple[JobRow, ...] = ()
    fetches: tuple[PlannedFetch, ...] = ()
    removals: tuple[PlannedRemoval, ...] = ()

    @property
    def fresh(self) -> list[PlannedJob]:
        """The jobs that are not submitted yet."""
        return [j for j in self.jobs if j.plan != "known"]

    @property
    def machines(self) -> int:
        return sum(j.machines for j in self.fresh)

    @property
    def bytes(self) -> int:
        return sum(u.size for u in self.uploads if not u.kept_back)


def preview(facts: Situation) -> Preview:
    """What the daemon would do of all that is declared, or of one manifest (`facts.only`)."""
    return _Planner(facts).preview()


class _Planner:
    def __init__(self, facts: Situation) -> None:
        self._facts = facts
        # A file that is still being written will be whole: what then is what is asked.
        self._rows = [replace(r, state=FileState.WHOLE) if r.state is FileState.SETTLING else r for r in facts.rows]
        self._at_key: dict[str, list[FileRow]] = {}
        for row in self._rows:
            self._at_key.setdefault(row.key, []).append(row)
        self._at = {r.place: r for r in self._rows}
        self._matchers = [m for ms in facts.rules.values() for m in ms]
        self._units = {id(m): {u.path: u for u in grouping.units(m, self._of(m))} for m in self._matchers if m.unit}
        self._attempts: dict[tuple[str, str, str], list[JobRow]] = {}
        for job in sorted(facts.jobs, key=lambda j: j.attempt):
            self._attempts.setdefault((job.spec.name, job.spec.unit, job.spec.version), []).append(job)
        # Of each rule the folders in which something was submitted, and the files that were.
        self._sent: dict[str, set[str]] = {}
        self._named: set[tuple[str, Place]] = set()
        for job in facts.jobs:
            if job.phase is not Phase.OPEN:
                names = job.spec.unit.split("/")
                self._sent.setdefault(job.spec.name, set()).update(
                    "/".join(names[:n]) for n in range(1, len(names) + 1)
                )
                self._named.update((job.spec.name, r.place) for d in job.spec.datasets if (r := self._file(d)))
        self._hollow: dict[Place, FileRow] = {}  # packages that can't be made yet: as the journal would have them
        self._to_be_packed = {place: u.size for m in self._matchers for place, u in self._packages(m)}
        self._was = {row.place: row for row in facts.rows if row.state is FileState.GONE}
        self._gone: dict[tuple[int, int], list[FileRow]] = {}  # by size, and roughly by time
        for row in self._was.values():
            self._gone.setdefault((row.stat.size, row.stat.mtime_ns // renames.COARSEST), []).append(row)
        self._users: dict[str, list[JobRow]] = {}
        self._given: dict[str, list[tuple[Dataset, JobRow]]] = {}  # etag -> as which dataset, to which job
        for job in facts.jobs:
            for dataset in job.spec.datasets:
                self._users.setdefault(dataset.key, []).append(job)
                if dataset.etag:
                    self._given.setdefault(dataset.etag, []).append((dataset, job))
        self._renewed = {r.stored[:2]: r for r in self._rows if r.stored and r.stored[:2] != r.stat[:2]}
        self._configs_at: dict[str, list[tuple[str, str, bool]]] = {}  # of names that jobs share: see configs.turn
        for job in facts.jobs:
            if job.config_etag:
                reading = job.phase is not Phase.ENDED and job.verdict is None
                self._configs_at.setdefault(job.config_key, []).append((f"job {job.job_id}", job.config_etag, reading))
        # id -> who declares it, of all that have one and of those that go.
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

    def _of(self, m: Matcher) -> list[FileRow]:
        return [r for r in self._rows if grouping.is_of(m, r)]

    def preview(self) -> Preview:
        facts = self._facts
        wanted = self._wanted()
        fresh = [self._row(spec) for spec in wanted]
        for job in fresh:
            if job.row < 0:
                self._made.setdefault(job.spec.name, []).append(job)
        jobs = [self._job(job) for job in fresh]
        needed = {d.key for j in jobs if j.plan != "known" for d in j.spec.datasets}
        uploads = [u for u in self._uploads() if not facts.only or u.key in needed]
        followed = [j for j in facts.jobs if j.phase not in (Phase.OPEN, Phase.ENDED) and not j.forgotten]
        due = self._due(jobs, followed)
        return Preview(
            facts.analysis,
            tuple(uploads),
            tuple(jobs),
            () if facts.only else tuple(followed),
            tuple(afterwards.fetches(due, facts.wanted, facts.layout)),
            tuple(self._removals(due)),
        )

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _due(self, jobs: Sequence[PlannedJob], followed: Sequence[JobRow]) -> list[Due]:
        """The jobs that something comes of: those that have ended and are not done with, those under way, those that go."""
        facts = self._facts
        late = [j for j in facts.jobs if j.phase is Phase.ENDED and (j.row in facts.wanted or j.row in facts.after)]
        under_way = [Due(j.spec, j.job_id, j) for j in [*late, *followed] if not j.forgotten]
        if facts.only:
            mine = {j.known.row for j in jobs if j.known is not None}
            under_way = [d for d in under_way if d.row is not None and d.row.row in mine]
        # A planned job has no end yet, whatever the journal has of its earlier attempts.
        return under_way + [Due(j.spec, j.job_id) for j in jobs if j.plan in ("submit", "queue") and j.job_id]

    def _removals(self, due: Sequence[Due]) -> list[PlannedRemoval]:
        using: dict[str, list[JobRow]] = {}
        having: dict[Place | None, list[JobRow]] = {}
        for job in [*self._facts.jobs, *(j for rows in self._made.values() for j in rows if j.row < 0)]:
            for dataset in job.spec.datasets:
                using.setdefault(dataset.key, []).append(job)
                row = self._file(dataset)
                having.setdefault(row.place if row else dataset.place, []).append(job)
        packed: dict[Place | None, list[FileRow]] = {
            expand.package_place(self._facts.analysis, m.rule, unit): [r for _n, r in unit.members(m)]
            for m in self._matchers
            if m.packs
            for unit in self._units.get(id(m), {}).values()
        }

        links = {(r.place.tree, r.link): r for r in self._rows if r.link and r.state is not FileState.GONE}

        def files_of(dataset: Dataset) -> Sequence[FileRow]:
            row = self._file(dataset)
            return packed.get(dataset.place, [row] if row else [])

        return afterwards.removals(
            due,
            self._facts.after,
            self._facts.settings,
            self._facts.layout,
            at=self._file,
            files_of=files_of,
            using=lambda key: using.get(key, ()),
            having=lambda place: having.get(place, ()),
            link_to=lambda row: links.get((row.place.tree, row.place.path)),
        )

    # -- uploads -----------------------------------------------------------------------------------------------------

    def _uploads(self) -> Iterable[PlannedUpload]:
        for row in self._rows:
            if row.state in (FileState.HELD, FileState.REFUSED) and row.key:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, f"{row.state}: {row.reason}", held=True)
            if row.state is not FileState.WHOLE or not row.key:
                continue
            permit = self._permit(row)
            if row.place in self._hollow:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, self._hollow[row.place].reason)
            elif permit.when is When.NOW:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size)
            elif permit.when is not When.NEVER or permit.reason == gates.EMPTY:
                held = permit.when is When.HELD
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, permit.reason, held=held)
        for m in self._matchers:
            yield from (u for _place, u in self._packages(m))

    def _packages(self, m: Matcher) -> Iterable[tuple[Place, PlannedUpload]]:
        for unit in self._units.get(id(m), {}).values() if m.packs else ():
            members = unit.members(m)
            package = self._package_of(m)(expand.package_name(m.rule, unit))
            if not members or unit.aborted(m) or unit.missing(m) or unit.skipped(m):
                continue
            if not (package.row and package.row.stored) and (empty := grouping.hollow(m, members)):
                why = grouping.say_hollow(unit, empty)
                self._hollow[package.place] = replace(members[0][1], state=FileState.SETTLING, reason=why)
            elif package.row is None:
                size = sum(r.stat.size for _n, r in members)
                other = holder(package.place, self._at_key.get(package.key, ()))
                why = f"refused: {collision(other.place, package.key)}" if other else ""
                what = f"{package.name} (made of {unit.path})"
                yield package.place, PlannedUpload(what, package.key, size, why, held=bool(why))

    def _permit(self, row: FileRow) -> Permit:
        def unit_of(m: Matcher) -> Unit | None:
            hit = m.unit_of(grouping.below(row))
            return self._units.get(id(m), {}).get(hit[0]) if hit else None

        def is_late(m: Matcher, unit: Unit) -> bool:
            sent = unit.path in self._sent.get(m.rule.name, ())
            named = (m.rule.name, row.place) in self._named
            package = self._package_of(m)(expand.package_name(m.rule, unit)).row if sent and m.packs else None
            return gates.late(m, row, sent=sent, named=named, packed=package)

        return gates.permit(row, self._matchers, unit_of, is_late)

    def _package_of(self, m: Matcher) -> expand.PackageOf:
        facts = self._facts

        def package(name: str) -> Package:
            upload = facts.settings.upload
            base = m.rule.key == "base"
            mapped = map_file(f"inputs/{name}", facts.layout, prefix=upload.prefix, names=upload.names, base=base)
            place = Place(facts.analysis, expand.package_tree(m.rule.name), name)
            row = self._at.get(place)
            return Package(name, row.key if row else mapped.key, place, row)

        return package

    # -- jobs --------------------------------------------------------------------------------------------------------

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
                self._of(m),
                analysis=self._facts.analysis,
                declared_in=path,
                config_checksum=lambda _name: "",
                package_of=self._package_of(m),
            )

        specs = made(m)
        if not m.rule.rerun_on:
            return specs
        # The checksums that name these jobs' versions aren't known before the data is stored: shown without.
        known = {(j.spec.name, j.spec.unit) for j in self._facts.jobs} | {(s.name, s.unit) for s in specs}
        plain = replace(m, rule=m.rule.model_copy(update={"rerun_on": ()}))
        return specs + [replace(s, version="?") for s in made(plain) if (s.name, s.unit) not in known]

    def _row(self, spec: JobSpec) -> JobRow:
        """The newest attempt of a job, following its declaration while it is open; or one that is not made yet (row -1)."""
        attempts = self._attempts.get((spec.name, spec.unit, spec.version))
        if attempts:
            newest = attempts[-1]
            return replace(newest, spec=spec) if newest.phase is Phase.OPEN else newest
        size = sum(self._size(d) for d in spec.datasets)
        return _unmade(spec, self._facts.now, size)

    def _file(self, dataset: Dataset) -> FileRow | None:
        """The local file that a dataset is, when it is here."""
        if dataset.place is not None:
            row = self._at.get(dataset.place)
        else:
            row = next((r for r in self._at_key.get(dataset.key, ()) if dataset.is_of(r)), None)
        return None if row is None or row.state is FileState.GONE else row

    def _size(self, dataset: Dataset) -> int:
        row = self._file(dataset)
        return row.stat.size if row else self._to_be_packed.get(dataset.place, 0) if dataset.place else 0

    def _job(self, job: JobRow) -> PlannedJob:
        each = per_dataset(self._machines_known.get(job.spec.name), self._machines_known_here)
        machines = machines_of(job, each)
        size = job.size or sum(self._size(d) for d in job.spec.datasets)
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
        """As the engine gathers them (`engine/submitting/assessing`), of what will be when all that may go up has gone."""
        spec, settings = job.spec, self._facts.settings.jobs
        declares = spec.origin is Origin.RULE
        rule = next((m for m in self._matchers if declares and m.rule.name == spec.name), None)
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
            limits=Limits(
                max_active=settings.max_active,
                max_per_day=settings.max_per_day,
                ask_above=settings.ask_above,
                stop_after_failures=settings.stop_after_failures,
                canary=rule.rule.canary if rule else 0,
            ),
            doubt=self._data_stop,
        )

    def _same(self, job: JobRow) -> str:
        same = self._declared.get(identity(job, self._facts.layout, 0))
        if job.attempt or same is None or (same.row >= 0 and same.row == job.row):
            return ""
        return "" if same.spec == job.spec else same_job(job, same)

    def _why(self, job: JobRow, facts: Facts) -> str:
        """What comes before its submit."""
        here = (f.file for f in facts.datasets if f.file is not None)
        first = sum(row.place in self._at and self._at[row.place].state is not FileState.STORED for row in here)
        why = (
            f"{first} file{'s' if first > 1 else ''} first to be uploaded" if first else "everything it needs is in S3"
        )
        if any(f.packed for f in facts.datasets):
            why = "its package first to be made and uploaded"
        return f"{why}; {ASKED_OF_S3}" if self._may_have_been_sent(job) else why

    def _beside(self, spec: JobSpec, rule: Matcher | None) -> Beside:
        """As the engine asks for it; what is whole and may go up will be in S3 then, and a pause will be over."""
        if rule is None or (rule.unit is None and not rule.beside):
            return NOTHING
        if rule.unit is None:
            unit: Unit | None = grouping.accompanying(rule, self._of(rule))
        else:
            unit = self._units.get(id(rule), {}).get(grouping.unit_of_job(rule, spec))
        if unit is None:
            return NOTHING

        def keeps_back(row: FileRow) -> bool:
            when = self._permit(row).when
            return when is not When.NEVER and (row.state is not FileState.WHOLE or when is not When.NOW)

        found = grouping.beside(rule, unit, "", keeps_back)
        return replace(found, files=tuple(map(self._later, found.files)))

    def _data_stop(self, job: JobRow) -> Stop | None:
        """Why a job is held for what its data is. What is not stored yet has no checksum: sizes, times and inodes tell."""
        return doubt(
            job,
            [self._piece(job, d) for d in job.spec.datasets],
            at=lambda place: None if (row := self._at.get(place)) is None or row.state is FileState.GONE else row,
            gone_like=self._gone_like,
            jobs_using=lambda key: self._users.get(key, ()),
            was=self._was.get,
            given=self._given_to,
        )

    def _gone_like(self, row: FileRow) -> list[FileRow]:
        size, about = row.stat.size, row.stat.mtime_ns // renames.COARSEST
        return [r for near in (about, about - 1, about + 1) for r in self._gone.get((size, near), ())]

    def _given_to(self, row: FileRow) -> Iterable[JobRow]:
        """The jobs that were given a file's content under a name that is gone, or that something else has now."""
        if row.state is FileState.STORED:
            found = self._given.get(row.etag, ())
            return [j for d, j in found if d.key != row.key and renames.taken_over(row, self._there(d))]
        old = self._renewed.get(row.stat[:2])
        if old is None or old.stored is None or old.stored.inode != row.stat.inode or old.place == row.place:
            return ()
        return [j for d, j in self._given.get(old.etag, ()) if d.key == old.key]

    def _there(self, dataset: Dataset) -> FileRow | None:
        """What is known of the place of a job's dataset."""
        if dataset.place is not None:
            return self._at.get(dataset.place)
        return next((r for r in self._at_key.get(dataset.key, ()) if r.state is not FileState.GONE), None)

    def _piece(self, job: JobRow, dataset: Dataset) -> renames.Piece | None:
        row = self._file(dataset)
        if row is not None and not row.place.is_package:
            return renames.itself(row)
        for m in self._matchers:
            unit = self._units.get(id(m), {}).get(job.spec.unit) if m.packs and m.rule.name == job.spec.name else None
            if unit is not None:
                return renames.packed(m, unit, self._package_of(m))
        return None

    def _may_have_been_sent(self, job: JobRow) -> bool:
        """As the engine asks before a submit."""
        spec, first_scan = job.spec, self._facts.first_scan
        if "rebuilt" in job.released or first_scan is None or (job.attempt and not job.rebuilt):
            return False
        files = [row for d in spec.datasets if (row := self._file(d)) is not None]
        m = next((m for m in self._matchers if m.rule.name == spec.name and m.packs), None)
        if m is not None and spec.unit in self._units[id(m)]:
            files = sorted(self._units[id(m)][spec.unit].files.values(), key=lambda r: r.id)[:1]
        manifest = self._at.get(Place(spec.analysis, "", spec.declared_in))
        if manifest is None or job.rebuilt:
            return manifest is not None
        job_id = identity(job, self._facts.layout, 0)
        return may_have_been_sent(job_id, [*files, manifest], first_scan, self._facts.noted)

    def _goes(self, job: JobRow, machines: int, config: ConfigFact) -> None:
        """What is submitted counts for those after it."""
        if config.shared:
            using = self._configs_at.setdefault(config.key, [])
            using.append((f"the job of {job.spec.name} {job.spec.unit}", config.etag, True))
        if not job.attempt:
            self._declared.setdefault(identity(job, self._facts.layout, 0), job)
        self._active, self._day = self._active + machines, self._day + machines
        rows = self._made.setdefault(job.spec.name, [])
        for number, row in enumerate(rows):
            if row is job or (row.row >= 0 and row.row == job.row):
                rows[number] = replace(row, phase=Phase.SUBMITTED, state=JobState.SUBMITTED)

    def _later(self, row: FileRow) -> FileRow:
        """A file as it will be when all that may go up has gone."""
        if row.state is not FileState.WHOLE:
            return row
        permit = self._permit(row)
        if permit.when is When.NOW or row.place.is_package:
            return replace(row, state=FileState.STORED)
        return replace(row, reason=permit.reason, retry_at=NEVER if permit.when is When.NEVER else 0.0)

    def _fact(self, dataset: Dataset) -> DatasetFact:
        place = dataset.place
        row = (self._hollow.get(place) or self._at.get(place)) if place else self._file(dataset)
        later = self._later(row) if row is not None else None
        others = self._at_key.get(dataset.key, ())
        fact = dataset_fact(dataset, later, lambda: [self._later(r) for r in others], lambda: None)
        return replace(fact, remote=True) if fact.packed and place in self._to_be_packed else fact

    def _config(self, spec: JobSpec) -> ConfigFact:
        elsewhere = in_another_bucket(spec)
        if elsewhere is not None:
            return elsewhere
        layout = self._facts.layout
        here = local_config(
            self._at.get(Place(spec.analysis, "", f"configs/{spec.config}")),
            lambda: self._at_key.get(layout.configs + spec.config, ()),
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
        """The next one that no other file's job had: as `submit_once` chooses it, but for what only S3 can tell."""
        others = {i for d in job.spec.datasets for i in ids_of_others(d, self._users.get(d.key, ()))}
        ids = (identity(job, self._facts.layout, job.attempt + more) for more in range(len(others) + 1))
        return next(job_id for job_id in ids if job_id not in others)


def _plan(step: Next) -> str:
    if step.submit:
        return "submit"
    return {JobState.WAITING: "wait", JobState.HELD: "hold"}.get(step.state, "queue")


def _shown(place: Place) -> str:
    return place.path if not place.tree else f"{place.tree}:{place.path}"


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
