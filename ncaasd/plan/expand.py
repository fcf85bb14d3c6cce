"""From what is declared to the jobs that are wanted. Pure: rules, files as the journal knows them -> JobSpecs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ncaasd.declare.manifest import OneOff, PackageTool, Rule
from ncaasd.declare.template import expand as fill_in
from ncaasd.model import Dataset, FileRow, FileState, JobSpec, Origin, Place
from ncaasd.neurocaas.naming import Layout, safe_key
from ncaasd.neurocaas.submission import SubmitBody
from ncaasd.plan.files import found_by_itself
from ncaasd.plan.matching import UnitTemplate, compile_glob

_THERE = (FileState.WHOLE, FileState.STORED, FileState.HELD, FileState.REFUSED, FileState.READ)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A rule made ready for matching. Paths are below `inputs/`, or below the rule's source."""

    rule: Rule
    datasets: tuple[Callable[[str], bool], ...]
    exclude: tuple[Callable[[str], bool], ...]
    unit: UnitTemplate | None
    complete_when: tuple[Callable[[str], bool], ...]
    abort_when: tuple[Callable[[str], bool], ...]

    @property
    def packs(self) -> bool:
        """Whether a unit is made into one file, which is then the dataset."""
        return self.rule.package != "none"

    @property
    def gated(self) -> bool:
        """Whether nothing of a unit goes up before the unit is whole."""
        return bool(self.complete_when or self.abort_when)

    def unit_of(self, path: str) -> tuple[str, Mapping[str, str]] | None:
        """The unit's folder and the parts of its name; None when the path lies in no unit of this rule."""
        return self.unit.match(path) if self.unit else None

    def wants(self, path: str) -> bool:
        """Whether a path is one of the rule's datasets (globs are below the unit when there is one)."""
        if self.unit:
            found = self.unit.match(path)
            if found is None:
                return False
            path = path[len(found[0]) + 1 :]
        return any(m(path) for m in self.datasets) and not any(m(path) for m in self.exclude)


def matcher(rule: Rule) -> Matcher:
    def globs(patterns: Iterable[str]) -> tuple[Callable[[str], bool], ...]:
        return tuple(compile_glob(p) for p in patterns)

    return Matcher(
        rule,
        globs(rule.datasets),
        globs(rule.exclude),
        UnitTemplate(rule.unit) if rule.unit else None,
        globs(rule.complete_when),
        globs(rule.abort_when),
    )


@dataclass(slots=True)
class Unit:
    """A folder that belongs together, as far as it is known to one rule. Paths are below `inputs/` or the source.

    All of it is asked about for each of its files, so answers are kept until `put` makes them wrong.
    """

    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: dict[str, FileRow] = field(default_factory=dict)  # by path below the unit
    _missing: str | None = field(default=None, repr=False, compare=False)
    _aborted: str | None = field(default=None, repr=False, compare=False)
    _members: list[tuple[str, FileRow]] | None = field(default=None, repr=False, compare=False)

    def put(self, name: str, row: FileRow) -> bool:
        """A file is new, or not what it was. True when it counts otherwise now."""
        old = self.files.get(name)
        self.files[name] = row
        self._members = None
        if old is not None and _counts(old) == _counts(row) and old.stat == row.stat and old.key == row.key:
            return False
        self._missing = self._aborted = None
        return True

    def missing(self, m: Matcher) -> str:
        """What the unit still waits for, for people; "" when it is whole."""
        if self._missing is None:
            self._missing = self._lacking(m) or self._unsettled()
        return self._missing

    def _lacking(self, m: Matcher) -> str:
        lacking = [
            p
            for p, matches in zip(m.rule.complete_when, m.complete_when, strict=True)
            if not any(matches(name) for name, row in self.files.items() if row.state in _THERE)
        ]
        return f"waits for {', '.join(lacking)} in {self.path}" if lacking else ""

    def _unsettled(self) -> str:
        first = min((name for name, row in self.files.items() if row.state is FileState.SETTLING), default="")
        return f"waits until {first} in {self.path} is whole" if first else ""

    def aborted(self, m: Matcher) -> str:
        """The file that says so, or ""."""
        if self._aborted is None:
            there = (n for n, r in self.files.items() if r.state is not FileState.GONE) if m.abort_when else ()
            self._aborted = next((n for n in there if any(a(n) for a in m.abort_when)), "")
        return self._aborted

    def members(self, m: Matcher) -> list[tuple[str, FileRow]]:
        """The rule's datasets in the unit, by their path below it, in order."""
        if self._members is None:
            self._members = [
                (n, r)
                for n, r in sorted(self.files.items())
                if r.state in _THERE and any(g(n) for g in m.datasets) and not any(g(n) for g in m.exclude)
            ]
        return self._members


def _counts(row: FileRow) -> int:
    """As what a file counts in its unit: gone, being written, or there."""
    return 0 if row.state is FileState.GONE else 1 if row.state is FileState.SETTLING else 2


@dataclass(frozen=True, slots=True)
class Package:
    """The one file that a unit is made into: its name below `inputs/`, its key, and what is known of it."""

    name: str
    key: str
    row: FileRow | None = None


PackageOf = Callable[[str], Package]  # the package of a name below inputs/, of the rule at hand


def package_name(rule: Rule, unit: Unit) -> str:
    """Below `inputs/`: beside the unit's folder, as a zip; or as the rule says."""
    if isinstance(rule.package, PackageTool):
        return fill_in(rule.package.name, unit.fields)
    return f"{unit.path}.zip"


def package_tree(rule: str) -> str:
    """The tree (`Place.tree`) that a rule's packages are said to lie in. No source has a colon in its name."""
    return f"package:{rule}"


def package_place(analysis: str, rule: Rule, unit: Unit) -> Place:
    """Where a unit's package is said to lie."""
    return Place(analysis, package_tree(rule.name), package_name(rule, unit))


def is_of(m: Matcher, row: FileRow) -> bool:
    """Whether a file lies where the rule looks: in its source, or in `inputs/`."""
    source = m.rule.source or ""
    return row.place.tree == source and (bool(source) or row.place.path.startswith("inputs/"))


def doubles(m: Matcher, row: FileRow) -> bool:
    """Whether a link leads to a file of which the same rule makes a job: a job of the link would be the same data paid for
    twice. In a package, or in a job of a whole unit, it is a part like any other (a DeepLabCut project has its videos so)."""
    if m.packs or m.rule.job_per == "unit" or not found_by_itself(row):
        return False
    return m.wants(row.link if row.place.tree else row.link.partition("/")[2])


def fingerprint(members: Sequence[tuple[str, FileRow]]) -> str:
    """Of what a package is made of: names, sizes, times."""
    seen = hashlib.sha256()
    for name, row in members:
        stat = row.stat
        seen.update(f"{name!a} {stat.size} {stat.mtime_ns} {stat.ctime_ns}\n".encode())
    return seen.hexdigest()


def below(row: FileRow) -> str:
    """A file's path as rules see it: below `inputs/`, or below its source."""
    return row.place.path if row.place.tree else row.place.path.partition("/")[2]


def units(m: Matcher, rows: Iterable[FileRow]) -> list[Unit]:
    """The units of a rule among `rows`, in path order."""
    found: dict[str, tuple[Mapping[str, str], dict[str, FileRow]]] = {}
    for row in rows:
        path = below(row)
        hit = m.unit_of(path)
        if hit is not None:
            found.setdefault(hit[0], (hit[1], {}))[1][path[len(hit[0]) + 1 :]] = row
    return [Unit(path, fields, files) for path, (fields, files) in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class _Made:
    """Where the jobs of a rule come from."""

    rule: Rule
    analysis: str
    declared_in: str
    config_checksum: Callable[[str], str]
    package_of: PackageOf

    def spec(self, unit: str, datasets: Sequence[Package], fields: Mapping[str, str]) -> JobSpec | None:
        """The job of these datasets; None while what makes its version isn't known."""
        rule = self.rule
        config = fill_in(rule.config, fields)
        checksum = self.config_checksum(config) if "config" in rule.rerun_on else "-"
        version = _version(rule.rerun_on, [d.row for d in datasets], checksum)
        if version is None:
            return None
        return JobSpec(
            analysis=self.analysis,
            name=rule.name,
            unit=unit,
            version=version,
            origin=Origin.RULE,
            declared_in=self.declared_in,
            datasets=tuple(Dataset(d.name, d.key) for d in datasets),
            config=config,
            overlay=json.dumps(_expanded(rule.set, fields), sort_keys=True),
            instance_type=rule.instance_type,
            fields=json.dumps(dict(fields), sort_keys=True),
        )


def jobs_of_rule(
    m: Matcher,
    rows: Sequence[FileRow],
    *,
    analysis: str,
    declared_in: str,
    config_checksum: Callable[[str], str],
    package_of: PackageOf,
) -> list[JobSpec]:
    """The jobs a rule wants of these files. Only whole files make jobs; of gated units, only whole units.

    `rows` holds every file of each unit that is touched. `config_checksum(path)` is "" while the config isn't whole.
    """
    made = _Made(m.rule, analysis, declared_in, config_checksum, package_of)
    if m.unit:
        return [s for u in units(m, rows) for s in _jobs_of_unit(m, u, made)]
    wanted = [r for r in rows if r.state in _THERE and m.wants(below(r)) and not doubles(m, r)]
    specs = [made.spec(below(r), [_itself(r)], {}) for r in wanted]
    return [s for s in specs if s is not None]


def jobs_of_unit(
    m: Matcher,
    unit: Unit,
    *,
    analysis: str,
    declared_in: str,
    config_checksum: Callable[[str], str],
    package_of: PackageOf,
    but: Collection[str] = (),
) -> list[JobSpec]:
    """The jobs a rule wants of one unit, `but` those of the datasets with these names (where each has its own)."""
    made = _Made(m.rule, analysis, declared_in, config_checksum, package_of)
    return list(_jobs_of_unit(m, unit, made, but))


def _jobs_of_unit(m: Matcher, unit: Unit, made: _Made, but: Collection[str] = ()) -> Iterable[JobSpec]:
    if unit.aborted(m) or unit.missing(m):
        return
    members = unit.members(m)
    if not members:
        return
    if m.packs:
        groups = [(unit.path, [made.package_of(package_name(m.rule, unit))])]
    elif m.rule.job_per == "unit":
        groups = [(unit.path, [_itself(r) for _name, r in members])]
    else:
        alone = [r for name, r in members if name not in but and not doubles(m, r)]
        groups = [(d.name, [d]) for d in map(_itself, alone)]
    for name, datasets in groups:
        spec = made.spec(name, datasets, unit.fields)
        if spec is not None:
            yield spec


def _itself(row: FileRow) -> Package:
    return Package(below(row), row.key, row)


def _expanded(value: Any, fields: Mapping[str, str]) -> Any:
    """The unit's parts put into every text, at any depth."""
    if isinstance(value, str):
        return fill_in(value, fields)
    if isinstance(value, Mapping):
        return {k: _expanded(v, fields) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(v, fields) for v in value]
    return value


def _version(rerun_on: Sequence[str], rows: Sequence[FileRow | None], config: str) -> str | None:
    """What makes a job a new one where `rerun_on` says so; None while that isn't known yet.

    "" without `rerun_on`: once per unit, ever (DESIGN: submitting exactly once).
    """
    if not rerun_on:
        return ""
    parts = []
    if "data" in rerun_on:
        stored = [r for r in rows if r is not None and r.state is FileState.STORED]
        if len(stored) < len(rows):
            return None
        parts += sorted(f"{r.key}={r.etag}" for r in stored)
    if "config" in rerun_on:
        if not config:
            return None
        parts.append(f"config={config}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def job_of_one_off(one: OneOff, *, analysis: str, declared_in: str, layout: Layout, prefix: str) -> JobSpec:
    """A one-off job of a manifest in `submissions/`: dropping the file is the request."""
    return JobSpec(
        analysis=analysis,
        name=one.name,
        unit=", ".join(sorted(one.datasets)),  # in another order it is the same job
        version="",
        origin=Origin.MANIFEST,
        declared_in=declared_in,
        datasets=tuple(
            Dataset(d, d if d.startswith("s3://") else layout.input_key(prefix, safe_key(d))) for d in one.datasets
        ),
        config=one.config,
        overlay=json.dumps(one.set, sort_keys=True),
        instance_type=one.instance_type,
        resultpath=one.resultpath,
    )


def job_of_submit(body: SubmitBody, *, analysis: str, declared_in: str, layout: Layout) -> JobSpec:
    """A hand-written submit file: its own timestamp stands for the job's name."""
    config = body.configname
    return JobSpec(
        analysis=analysis,
        name=body.timestamp,
        unit=", ".join(sorted(n.removeprefix(layout.inputs) for n in body.datanames)),
        version="",
        origin=Origin.SUBMIT,
        declared_in=declared_in,
        datasets=tuple(Dataset(n.removeprefix(layout.inputs), n) for n in body.datanames),
        config=config.removeprefix(layout.configs),
        instance_type=body.instance_type,
        resultpath=body.resultpath,
    )
