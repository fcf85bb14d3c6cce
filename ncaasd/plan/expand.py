"""From what is declared to the jobs that are wanted. Pure: rules, files as the journal knows them -> JobSpecs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ncaasd.declare.manifest import OneOff, Rule
from ncaasd.declare.template import expand as fill_in
from ncaasd.model import Dataset, FileRow, FileState, JobSpec, Origin
from ncaasd.neurocaas.naming import Layout, safe_key
from ncaasd.neurocaas.submission import SubmitBody
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


@dataclass(frozen=True, slots=True)
class Unit:
    """A folder that belongs together, as far as it is known. Paths are below `inputs/` or the source."""

    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileRow] = field(default_factory=dict)  # by path below the unit

    def missing(self, m: Matcher) -> str:
        """What the unit still waits for, for people; "" when it is whole."""
        lacking = [
            p
            for p, matches in zip(m.rule.complete_when, m.complete_when, strict=True)
            if not any(matches(name) for name, row in self.files.items() if row.state in _THERE)
        ]
        if lacking:
            return f"waits for {', '.join(lacking)} in {self.path}"
        unsettled = sorted(name for name, row in self.files.items() if row.state is FileState.SETTLING)
        if unsettled:
            return f"waits until {unsettled[0]} in {self.path} is whole"
        return ""

    def aborted(self, m: Matcher) -> str:
        """The file that says so, or ""."""
        return next(
            (n for n, r in self.files.items() if r.state is not FileState.GONE and any(a(n) for a in m.abort_when)), ""
        )


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


def jobs_of_rule(
    m: Matcher, rows: Sequence[FileRow], *, analysis: str, declared_in: str, config_checksum: Callable[[str], str]
) -> list[JobSpec]:
    """The jobs a rule wants of these files. Only whole files make jobs; of gated units, only whole units.

    `rows` holds every file of each unit that is touched. `config_checksum(path)` is "" while the config isn't whole.
    """
    if m.unit:
        return [s for u in units(m, rows) for s in _jobs_of_unit(m, u, analysis, declared_in, config_checksum)]
    wanted = [r for r in rows if r.state in _THERE and m.wants(below(r))]
    made = [_spec(m.rule, below(r), [r], {}, analysis, declared_in, config_checksum) for r in wanted]
    return [s for s in made if s is not None]


def _jobs_of_unit(
    m: Matcher, unit: Unit, analysis: str, declared_in: str, config_checksum: Callable[[str], str]
) -> Iterable[JobSpec]:
    if unit.aborted(m) or unit.missing(m):
        return
    wanted = [
        r
        for n, r in sorted(unit.files.items())
        if r.state in _THERE and any(g(n) for g in m.datasets) and not any(g(n) for g in m.exclude)
    ]
    if m.rule.job_per == "unit":
        groups = [(unit.path, wanted)] if wanted else []
    else:
        groups = [(below(r), [r]) for r in wanted]
    for name, rows in groups:
        spec = _spec(m.rule, name, rows, unit.fields, analysis, declared_in, config_checksum)
        if spec is not None:
            yield spec


def _spec(
    rule: Rule,
    unit: str,
    rows: Sequence[FileRow],
    fields: Mapping[str, str],
    analysis: str,
    declared_in: str,
    config_checksum: Callable[[str], str],
) -> JobSpec | None:
    config = fill_in(rule.config, fields)
    version = _version(rule.rerun_on, rows, config_checksum(config) if "config" in rule.rerun_on else "-")
    if version is None:
        return None
    overlay = _expanded(rule.set, fields)
    return JobSpec(
        analysis=analysis,
        name=rule.name,
        unit=unit,
        version=version,
        origin=Origin.RULE,
        declared_in=declared_in,
        datasets=tuple(Dataset(below(r), r.key) for r in rows),
        config=config,
        overlay=json.dumps(overlay, sort_keys=True),
        instance_type=rule.instance_type,
    )


def _expanded(value: Any, fields: Mapping[str, str]) -> Any:
    """The unit's parts put into every text, at any depth."""
    if isinstance(value, str):
        return fill_in(value, fields)
    if isinstance(value, Mapping):
        return {k: _expanded(v, fields) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(v, fields) for v in value]
    return value


def _version(rerun_on: Sequence[str], rows: Sequence[FileRow], config: str) -> str | None:
    """What makes a job a new one where `rerun_on` says so; None while that isn't known yet.

    "" without `rerun_on`: once per unit, ever (DESIGN: submitting exactly once).
    """
    if not rerun_on:
        return ""
    parts = []
    if "data" in rerun_on:
        if any(r.state is not FileState.STORED for r in rows):
            return None
        parts += sorted(f"{r.key}={r.etag}" for r in rows)
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
