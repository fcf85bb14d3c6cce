"""Read manifests and submit files, and create the jobs they declare. In the engine thread; the reading is on a worker.

A manifest is read when it is whole, and comes into force as a whole or not at all: an invalid one is reported, and the old
one stays in force (F35, F78). An edit makes no new job of one that was submitted (F36); jobs that are not declared any more
and were not submitted are cancelled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ncaasd.engine.arriving.packaging import Packager
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import DeclarationError, FileChanged, FileVanished, NcaasdError, Problem, RootMissing
from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobSpec, Origin, Phase, Place, Stat
from ncaasd.neurocaas.addresses import is_address
from ncaasd.plan import expand, gates, grouping
from ncaasd.plan.declarations import Declared, read_declaration
from ncaasd.plan.files import Role, role_of
from ncaasd.plan.grouping import Matcher
from ncaasd.plan.holds import OWN_CONFIG
from ncaasd.plan.settling import unchanged
from ncaasd.subjects import of_file, of_job

MANIFEST_LIMIT = 4 * 2**20
CONFIG_LIMIT = 4 * 2**20
READ_AGAIN = 5.0  # seconds until what could not be read is tried again
UNREAD = (FileState.WHOLE, FileState.STORED, FileState.HELD)  # whole, and not a manifest that was read: that is READ


@dataclass(frozen=True, slots=True)
class _Touched:
    context: Context
    manifest: str
    matcher: Matcher
    unit: str


class Declarer(Part):
    """Keeps the rules in force and the jobs they want."""

    def __init__(
        self,
        runtime: Runtime,
        packager: Packager,
        sessions: Sessions,
        *,
        sources: Iterable[str],
        tools: Iterable[str],
        rules_changed: Callable[[Context], None],
    ) -> None:
        """`rules_changed`: called when other rules are in force, before their jobs are made."""
        self._runtime = runtime
        self._rules_changed = rules_changed
        self._packager = packager
        self._sessions = sessions
        self._touched: dict[tuple[str, str, int, str], _Touched] = {}  # units of which something has changed
        self._sources, self._tools = frozenset(sources), frozenset(tools)
        self._configs: dict[tuple[str, str], tuple[str, bytes]] = {}  # (analysis, path) -> (checksum, text)
        self._reading: set[tuple[str, str]] = set()
        self._unread: dict[tuple[str, str], float] = {}  # (analysis, path) -> monotonic time of the next try to read
        self._unreadable: dict[tuple[str, str], str] = {}  # configs -> why, as last reported
        self.changed: set[tuple[str, str]] = set()  # (analysis, manifest) whose status file is to be written
        for context in runtime.contexts.values():
            self._restore(context)

    def _restore(self, context: Context) -> None:
        """Put the last valid text of each manifest into force from the start."""
        for known in self._runtime.journal.manifests(context.name):
            path = known.path
            if known.good is not None:
                try:
                    context.rules[path] = self.parse(context, path, known.good).rules
                except DeclarationError as error:  # another version was less strict
                    logging.getLogger("ncaasd").error("%s: %s is not in force any more: %s", context.name, path, error)

    def busy(self) -> bool:
        """A manifest or config is being read."""
        return bool(self._reading)

    # -- reading -----------------------------------------------------------------------------------------------------

    def parse(self, context: Context, path: str, data: bytes) -> Declared:
        """Parse a declaration. Its only other input is what the journal has of the files that it names. Raises
        DeclarationError with every problem."""
        return read_declaration(
            data,
            path,
            analysis=context.name,
            layout=context.layout,
            prefix=context.prefix,
            sources=self._sources,
            tools=self._tools,
            known=self._runtime.journal,
        )

    def whole(self, context: Context, row: FileRow) -> None:
        """A file became whole: a manifest is read, a config kept, an input matched against the rules."""
        role = Role.INPUT if row.place.tree else role_of(row.place.path)
        if role in (Role.MANIFEST, Role.ONE_OFF, Role.SUBMIT):
            self._read(context, row, MANIFEST_LIMIT, self._declare)
        elif role is Role.CONFIG:
            self._configs.pop((context.name, row.place.path), None)  # its earlier content is not used any more
            self._read(context, row, CONFIG_LIMIT, self._keep_config)
        elif role is Role.INPUT:
            self._match(context, [row])

    def skipped(self, context: Context, row: FileRow) -> None:
        """An entry can't be uploaded: if a rule names it, its job is made all the same, and says so."""
        self._match(context, [row])
        self._runtime.journal.wake_jobs_using(context.name, row.key)

    def gone(self, context: Context, row: FileRow) -> None:
        role = Role.INPUT if row.place.tree else role_of(row.place.path)
        if role in (Role.MANIFEST, Role.ONE_OFF, Role.SUBMIT):
            context.rules.pop(row.place.path, None)
            self._runtime.journal.drop_manifest(context.name, row.place.path)
            self._apply(context, row.place.path, [])
            self._ask_the_gates_again(context, row.place.path)
        elif role is Role.CONFIG:
            self._configs.pop((context.name, row.place.path), None)
            self._unreadable.pop((context.name, row.place.path), None)
            self._runtime.journal.wake_open_jobs(context.name)
        elif role is Role.INPUT:
            # Deleted or renamed before its job was submitted: a rule's job is cancelled with its file (F25).
            for job in self._runtime.journal.jobs_of_file(row):
                if job.phase is Phase.OPEN and job.spec.origin == "rule":
                    self._cancel(context, job, f"{row.place.path} is gone")
            self._runtime.journal.wake_jobs_of_file(row)
            for path, matchers in context.rules.items():
                for m in [m for m in matchers if m.unit and grouping.is_of(m, row)]:
                    self._touch(context, path, m, [row])  # it may be the file that marked the unit as aborted

    def _read(self, context: Context, row: FileRow, limit: int, use: Callable[[Context, FileRow, bytes], None]) -> None:
        key = (context.name, row.place.path)
        if key in self._reading:
            return
        self._reading.add(key)
        tree = context.trees[row.place.tree]

        def then(result: Result[tuple[bytes, Stat]]) -> None:
            self._reading.discard(key)
            try:
                data, stat = result.get()
            except (FileChanged, FileVanished, RootMissing):
                # Either it settles again, or its folder was missing for a moment, maybe too short to be noticed.
                self._read_later(key)
                return
            except NcaasdError as error:
                self._refused_to_be_read(context, row, error)
                return
            if unchanged(row.stat, stat):
                self._unread.pop(key, None)
                self._unreadable.pop(key, None)
                use(context, row, data)
            else:
                self._read_later(key)

        self._runtime.mailbox.do(
            f"tree:{context.name}:{row.place.tree}", lambda: tree.read(row.place.path, limit=limit), then
        )

    def _read_later(self, key: tuple[str, str]) -> None:
        self._unread[key] = self._runtime.clock.monotonic() + READ_AGAIN

    def _refused_to_be_read(self, context: Context, row: FileRow, error: NcaasdError) -> None:
        if role_of(row.place.path) is not Role.CONFIG:
            self._reject(context, row, [Problem(row.place.path, 0, 0, "", str(error))])
            return
        # A config is uploaded whether or not it can be used here; the jobs that need it wait, and reading it is tried again.
        key = (context.name, row.place.path)
        if self._unreadable.get(key) != str(error):
            self._unreadable[key] = str(error)
            self._runtime.event(context.name, of_file(row.place), "not read", str(error), level=logging.ERROR)
        self._read_later(key)

    def due(self) -> float | None:
        """Seconds until a failed read is tried again."""
        return min(self._unread.values()) - self._runtime.clock.monotonic() if self._unread else None

    def turn(self) -> None:
        """Try failed reads again, for files that are still whole and unchanged: a changed one is found by a look, and
        settles."""
        now = self._runtime.clock.monotonic()
        for key in [key for key, at in self._unread.items() if at <= now]:
            del self._unread[key]
            context, row = self._runtime.contexts[key[0]], self._runtime.journal.file_at(Place(key[0], "", key[1]))
            if row is not None and row.state in UNREAD:
                self.whole(context, row)

    def reread_unread(self, context: Context) -> None:
        """At start, and when a missing folder is back: manifests that became whole and were not read; all configs."""
        for row in self._runtime.journal.files(context.name, tree="", states=[FileState.WHOLE]):
            if role_of(row.place.path) in (Role.MANIFEST, Role.ONE_OFF, Role.SUBMIT):
                self.whole(context, row)
        for row in self._runtime.journal.files(context.name, tree="", under="configs/"):
            if row.state in UNREAD:
                self.whole(context, row)

    # -- declaring ---------------------------------------------------------------------------------------------------

    def _declare(self, context: Context, row: FileRow, data: bytes) -> None:
        path = row.place.path
        try:
            declared = self.parse(context, path, data)
        except DeclarationError as error:
            self._reject(context, row, error.problems)
            return
        now = self._runtime.clock.now()
        self._runtime.journal.set_manifest(context.name, path, data, "", now)
        self._runtime.journal.set_file(row.id, FileState.READ, "", now)
        self._runtime.event(context.name, of_file(row.place), "read", "read, and in force")
        for text in gates.warnings(declared.rules):
            self._runtime.event(context.name, of_file(row.place), "warning", text, level=logging.WARNING)
        context.rules[path] = declared.rules
        specs = list(declared.jobs)
        if declared.rules:
            self._rules_changed(context)
            rows = list(self._runtime.journal.files(context.name))
            self._packager.look_at_all(context, declared.rules)
            for m in declared.rules:
                specs += self._specs(context, m, path, rows)
        self._apply(context, path, specs)
        self._ask_the_gates_again(context, path)
        if declared.rules:
            self._runtime.journal.wake_open_jobs(context.name)  # `exclude`, `with` or `whole_after` may have changed

    def _reject(self, context: Context, row: FileRow, problems: list[Problem]) -> None:
        """Reject the manifest as a whole; what was in force stays in force."""
        now = self._runtime.clock.now()
        text = "\n".join(str(p) for p in problems)
        self._runtime.journal.set_manifest(context.name, row.place.path, None, text, now)
        self._runtime.journal.set_file(row.id, FileState.READ, problems[0].message, now)
        self.changed.add((context.name, row.place.path))
        for problem in problems:
            self._runtime.event(context.name, of_file(row.place), "bad manifest", str(problem), level=logging.ERROR)
        self._ask_the_gates_again(context, row.place.path)

    def _ask_the_gates_again(self, context: Context, path: str) -> None:
        """A file that no rule named may be named now, and one that was kept back may be uploaded: ask the gates again."""
        if role_of(path) is Role.MANIFEST:
            self._runtime.journal.retry_files(context.name)

    def _apply(self, context: Context, path: str, specs: list[JobSpec]) -> None:
        """Make the open jobs of one manifest match what it declares."""
        wanted = {(s.name, s.unit, s.version): s for s in specs}
        for job in self._runtime.journal.jobs_declared_in(context.name, path):
            identity = (job.spec.name, job.spec.unit, job.spec.version)
            if job.phase is Phase.OPEN and job.attempt == 0 and identity not in wanted:
                self._cancel(context, job, f"{path} does not declare it any more")
        for spec in wanted.values():
            self._want(context, spec)
        self.changed.add((context.name, path))

    def _cancel(self, context: Context, job: JobRow, why: str) -> None:
        self._runtime.journal.drop_job(job.row)
        self._runtime.event(context.name, of_job(job), "cancelled", f"cancelled before it was submitted: {why}")
        self.changed.add((context.name, job.spec.declared_in))

    def _want(self, context: Context, spec: JobSpec) -> None:
        """A job is made once; an open one follows its declaration; a submitted one stays as it is (F36, F87)."""
        journal = self._runtime.journal
        if spec.version:
            self._cancel_other_versions(context, spec)
        attempts = journal.attempts(context.name, spec.name, spec.unit, spec.version)
        if attempts:
            newest = attempts[-1]
            if newest.phase is Phase.OPEN and newest.spec != spec and OWN_CONFIG not in newest.released:
                journal.respec_job(newest.row, spec)
                journal.update_job(newest.row, next_at=0.0)
            return
        now = self._runtime.clock.now()
        size = sum(r.stat.size for d in spec.datasets if (r := journal.file_of(d)) is not None)
        row = journal.add_job(spec, 0, now, size=size)
        job = journal.job(row)
        if job is not None:
            self._runtime.event(context.name, of_job(job), "declared", f"declared by {spec.declared_in}")
        self.changed.add((context.name, spec.declared_in))

    def _cancel_other_versions(self, context: Context, spec: JobSpec) -> None:
        """With `rerun_on`: cancel waiting jobs of other versions, which would run on the current data beside this one."""
        for job in self._runtime.journal.jobs_using(context.name, spec.datasets[0].key):
            same = (job.spec.name, job.spec.unit, job.spec.origin) == (spec.name, spec.unit, spec.origin)
            if same and job.phase is Phase.OPEN and job.attempt == 0 and job.spec.version != spec.version:
                self._cancel(context, job, "its data or config has changed since; another job has it as it is now")

    def redeclare(self, job: JobRow) -> None:
        """Update an open rerun to what its rule declares now: late files that were released, an edited `set`."""
        context = self._runtime.contexts.get(job.spec.analysis)
        if context is None or job.spec.origin is not Origin.RULE or job.phase is not Phase.OPEN:
            return
        rows = [r for d in job.spec.datasets if (r := self._runtime.journal.file_of(d)) is not None]
        for row in rows[:1]:
            self._match(context, self._packager.made_of(context, row) if row.place.is_package else [row])

    def redeclare_reruns(self) -> None:
        """At start: find the files of open jobs, and update the reruns that were asked for while no daemon ran."""
        for job in self._runtime.journal.jobs(unfinished=True):
            if job.phase is Phase.OPEN:
                self.find_files(job)
            if job.phase is Phase.OPEN and job.attempt > 0:
                self.redeclare(job)

    def find_files(self, job: JobRow) -> JobRow:
        """An open job with the local files of its datasets, where they weren't known: an old journal had only keys, and a
        file that a submit file names by its key may have come after it."""
        context = self._runtime.contexts.get(job.spec.analysis)
        unknown = any(d.place is None and not is_address(d.key) for d in job.spec.datasets)
        if context is None or job.phase is not Phase.OPEN or not (unknown or job.spec.origin is Origin.SUBMIT):
            return job
        datasets = tuple(self._with_file(context, job, d) for d in job.spec.datasets)
        if datasets == job.spec.datasets:
            return job
        spec = replace(job.spec, datasets=datasets)
        self._runtime.journal.respec_job(job.row, spec)
        return replace(job, spec=spec)

    def _with_file(self, context: Context, job: JobRow, dataset: Dataset) -> Dataset:
        if is_address(dataset.key):
            return dataset
        name = dataset.name
        match job.spec.origin:
            case Origin.SUBMIT:
                below = (context.layout.inputs + name).removeprefix(context.layout.input_key(context.prefix, ""))
                if dataset.place is None and below.startswith(context.layout.inputs):
                    return dataset  # below another rig's prefix
                found = dataset.place or Place(context.name, "", f"inputs/{below}")
                return expand.meant(replace(dataset, place=found), self._runtime.journal)
            case Origin.MANIFEST:
                return replace(dataset, place=dataset.place or Place(context.name, "", f"inputs/{name}"))
            case Origin.RULE if dataset.place is None:
                m = next((m for ms in context.rules.values() for m in ms if m.rule.name == job.spec.name), None)
                if m is None:
                    return dataset
                tree = expand.package_tree(m.rule.name) if m.packs else m.rule.source or ""
                return replace(dataset, place=Place(context.name, tree, name if tree else f"inputs/{name}"))
        return dataset

    # -- rules -------------------------------------------------------------------------------------------------------

    def _match(self, context: Context, rows: list[FileRow]) -> None:
        """Match whole files against the rules in force. A rule with units looks at the whole unit, once for all changes
        together."""
        for path, matchers in context.rules.items():
            for m in matchers:
                mine = [row for row in rows if grouping.is_of(m, row)]
                if m.unit:
                    self._touch(context, path, m, mine)
                    continue
                for spec in self._specs(context, m, path, mine):
                    self._want(context, spec)

    def _touch(self, context: Context, path: str, m: Matcher, rows: list[FileRow]) -> None:
        for row in rows:
            hit = m.unit_of(grouping.below(row))
            if hit is not None:
                self._touched[context.name, path, id(m), hit[0]] = _Touched(context, path, m, hit[0])

    def look_again(self, context: Context, m: Matcher, unit: str) -> None:
        """A unit has not changed for long enough: look at it before the next commit."""
        for path, matchers in context.rules.items():
            if m in matchers:
                self._touched[context.name, path, id(m), unit] = _Touched(context, path, m, unit)

    def look_at_touched(self) -> None:
        """Look at each unit that has changed, once for all changes together. Called last in each of the engine's
        transactions, so that the journal never has a whole file without the job that it makes."""
        while self._touched:
            touched, self._touched = self._touched, {}
            for one in touched.values():
                if one.matcher in one.context.rules.get(one.manifest, ()):
                    self._look_at_unit(one.context, one.manifest, one.matcher, one.unit)

    def _look_at_unit(self, context: Context, path: str, m: Matcher, unit_path: str) -> None:
        unit = self._sessions.at(context.name, m, unit_path)
        if unit is None or unit.aborted(m) or unit.missing(m):
            return
        tree = m.rule.source or ""
        self._runtime.journal.retry_unit(context.name, tree, f"{unit_path}/" if tree else f"inputs/{unit_path}/")
        if m.packs:
            self._packager.look(context, m, unit)
        each = m.rule.job_per == "dataset" and not m.packs and not m.rule.rerun_on
        known = self._sessions.declared(context.name, m, unit_path) if each else set()
        specs = expand.jobs_of_unit(
            m,
            unit,
            analysis=context.name,
            declared_in=path,
            config_checksum=self._checksum_of(context),
            package_of=self._packager.of(context, m.rule.name),
            but=known,
        )
        for spec in specs:
            self._want(context, spec)
        if each:
            known.update(name for name, _row in unit.members(m))

    def stored(self, context: Context, row: FileRow) -> None:
        """A file's content is in S3: rules with `rerun_on: [data]` can name its version now."""
        if not any("data" in m.rule.rerun_on for matchers in context.rules.values() for m in matchers):
            return
        rows = [row]
        if row.place.is_package:
            rows = self._packager.made_of(context, row)
        self._match(context, rows)

    def _specs(self, context: Context, m: Matcher, path: str, rows: list[FileRow]) -> list[JobSpec]:
        return expand.jobs_of_rule(
            m,
            [r for r in rows if grouping.is_of(m, r)],
            analysis=context.name,
            declared_in=path,
            config_checksum=self._checksum_of(context),
            package_of=self._packager.of(context, m.rule.name),
        )

    def _checksum_of(self, context: Context) -> Callable[[str], str]:
        return lambda name: self._configs.get((context.name, f"configs/{name}"), ("", b""))[0]

    def recorded(self, context: Context, row: FileRow) -> list[FileRow]:
        """The recordings behind an input. For a package only the oldest one: a unit that was packed before is known by its
        name."""
        if not row.place.is_package:
            return [row]
        return sorted(self._packager.members_of(context, row), key=lambda r: r.id)[:1]

    # -- configs -----------------------------------------------------------------------------------------------------

    def _keep_config(self, context: Context, row: FileRow, data: bytes) -> None:
        checksum = hashlib.sha256(data).hexdigest()
        self._configs[context.name, row.place.path] = (checksum, data)
        self._runtime.journal.wake_open_jobs(context.name)
        for path, matchers in context.rules.items():
            for m in matchers:
                if "config" in m.rule.rerun_on:
                    rows = list(self._runtime.journal.files(context.name))
                    for spec in self._specs(context, m, path, rows):
                        self._want(context, spec)

    def config_text(self, row: FileRow) -> bytes | None:
        """The bytes of a local config as they were when it was whole; None while it isn't, or could not be read yet."""
        found = self._configs.get((row.place.analysis, row.place.path))
        if found is None or row.state in (FileState.SETTLING, FileState.GONE, FileState.REFUSED, FileState.SKIPPED):
            return None
        return found[1]

    def unreadable(self, row: FileRow) -> str:
        """Why a local config that is whole can't be read; "" when it was read, or not tried yet."""
        return self._unreadable.get((row.place.analysis, row.place.path), "")
