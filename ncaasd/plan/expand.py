"""From what is declared to the jobs that are wanted. Pure: rules, files as the journal knows them -> JobSpecs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ncaasd.declare.manifest import OneOff, PackageTool, Rule
from ncaasd.declare.template import expand as fill_in
from ncaasd.model import PACKAGES, Dataset, FileRow, FileState, JobSpec, Origin, Place
from ncaasd.neurocaas.addresses import is_address
from ncaasd.neurocaas.naming import Layout, safe_key
from ncaasd.neurocaas.submission import SubmitBody
from ncaasd.plan.files import key_of
from ncaasd.plan.grouping import THERE, Matcher, Unit, below, doubles, is_nothing, units


@dataclass(frozen=True, slots=True)
class Package:
    """The file of one dataset (a local file, or the package of a unit): its name below `inputs/`, key, place and journal row."""

    name: str
    key: str
    place: Place
    row: FileRow | None = None


PackageOf = Callable[[str], Package]  # name below inputs/ -> package, for one rule


def package_name(rule: Rule, unit: Unit) -> str:
    """The package's path below `inputs/`: a zip beside the unit's folder, or as the rule says."""
    if isinstance(rule.package, PackageTool):
        return fill_in(rule.package.name, unit.fields)
    return f"{unit.path}.zip"


def package_tree(rule: str) -> str:
    """The tree (`Place.tree`) of a rule's packages."""
    return f"{PACKAGES}{rule}"


def package_place(analysis: str, rule: Rule, unit: Unit) -> Place:
    """The place of a unit's package."""
    return Place(analysis, package_tree(rule.name), package_name(rule, unit))


def fingerprint(members: Sequence[tuple[str, FileRow]]) -> str:
    """A hash of a package's files: their names, sizes and times."""
    seen = hashlib.sha256()
    for name, row in members:
        stat = row.stat
        seen.update(f"{name!a} {stat.size} {stat.mtime_ns} {stat.ctime_ns}\n".encode())
    return seen.hexdigest()


@dataclass(frozen=True, slots=True)
class _Made:
    """Makes the JobSpecs of one rule."""

    rule: Rule
    analysis: str
    declared_in: str
    config_checksum: Callable[[str], str]
    package_of: PackageOf

    def spec(self, unit: str, datasets: Sequence[Package], fields: Mapping[str, str]) -> JobSpec | None:
        """The job of these datasets; None while its version isn't known."""
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
            datasets=tuple(Dataset(d.name, d.key, place=d.place) for d in datasets),
            config=config,
            overlay=json.dumps(_expanded(rule.set, fields), sort_keys=True),
            instance_type=rule.instance_type,
            fields=json.dumps(dict(fields), sort_keys=True),
            config_name=rule.config_name,
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
    """The jobs that a rule wants for these files: only for files that are whole (or skipped, so that a job says so) and not
    empty, and in units only for whole units.

    `rows` has every file of each unit that is in it. `config_checksum(path)` is "" while the config isn't whole.
    """
    made = _Made(m.rule, analysis, declared_in, config_checksum, package_of)
    if m.unit:
        return [s for u in units(m, rows) for s in _jobs_of_unit(m, u, made)]
    there = (*THERE, FileState.SKIPPED)  # a file that can't be taken gets a job that says so
    wanted = [r for r in rows if r.state in there and not is_nothing(r) and m.wants(below(r)) and not doubles(m, r)]
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
    """The jobs that a rule wants for one unit, without those of the datasets named in `but` (where each has its own job)."""
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
        # The job waits for a file that is empty, by name; but an empty file that only marks the unit is none of its data.
        groups = [(unit.path, [_itself(r) for name, r in members if r.stat.size or not m.marks(name)])]
    else:
        alone = [r for name, r in members if not is_nothing(r) and name not in but and not doubles(m, r)]
        groups = [(d.name, [d]) for d in map(_itself, alone)]
    for name, datasets in groups:
        if not datasets:
            continue
        spec = made.spec(name, datasets, unit.fields)
        if spec is not None:
            yield spec


def _itself(row: FileRow) -> Package:
    return Package(below(row), row.key, row.place, row)


def _expanded(value: Any, fields: Mapping[str, str]) -> Any:
    """`value` with the unit's parts filled into every text, at any depth."""
    if isinstance(value, str):
        return fill_in(value, fields)
    if isinstance(value, Mapping):
        return {k: _expanded(v, fields) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(v, fields) for v in value]
    return value


def _version(rerun_on: Sequence[str], rows: Sequence[FileRow | None], config: str) -> str | None:
    """The version that tells a new job from an earlier one where `rerun_on` says so; None while it isn't known yet.

    "" without `rerun_on`: one job per unit, ever (docs/exactly-once.md).
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


class Known(Protocol):
    """What is known of local files: the journal's rows, or what a look at the disk has found."""

    def file_at(self, place: Place) -> FileRow | None:
        """The file at a place, also when it is gone."""

    def files_with_key(self, analysis: str, key: str) -> Sequence[FileRow]:
        """Every file that has a key in S3, or would have."""


def job_of_one_off(
    one: OneOff, *, analysis: str, declared_in: str, layout: Layout, prefix: str, known: Known
) -> JobSpec:
    """A one-off job of a manifest in `submissions/`: dropping the file is the request. Its datasets are files of `inputs/`."""

    def dataset(name: str) -> Dataset:
        if is_address(name):
            return Dataset(name, name)
        place = Place(analysis, "", f"inputs/{name}")
        row = known.file_at(place)  # what is stored keeps its key
        return Dataset(name, row.key if row and row.key else key_of(name, layout, prefix), place=place)

    return JobSpec(
        analysis=analysis,
        name=one.name,
        unit=", ".join(sorted(one.datasets)),  # in another order it is the same job
        version="",
        origin=Origin.MANIFEST,
        declared_in=declared_in,
        datasets=tuple(map(dataset, one.datasets)),
        config=one.config,
        overlay=json.dumps(one.set, sort_keys=True),
        instance_type=one.instance_type,
        resultpath=one.resultpath,
    )


def with_keys(body: SubmitBody, layout: Layout) -> SubmitBody:
    """`body` with keys in place of names: a hand-written submit file may name files as they are on the disk."""

    def key(name: str, area: str) -> str:
        return area + safe_key(name.removeprefix(area)) if name.startswith(area) else name

    names = tuple(key(n, layout.inputs) for n in body.datanames)
    return replace(body, datanames=names, configname=key(body.configname, layout.configs))


def job_of_submit(
    body: SubmitBody, *, analysis: str, declared_in: str, layout: Layout, prefix: str, known: Known
) -> JobSpec:
    """The job of a hand-written submit file: its timestamp is the job's name. Its datasets are files of `inputs/`, named by their
    keys, or as they are on the disk."""
    config = body.configname
    names = [n.removeprefix(layout.inputs) for n in body.datanames]
    datasets = zip(names, body.datanames, with_keys(body, layout).datanames, strict=True)
    return JobSpec(
        analysis=analysis,
        name=body.timestamp,
        unit=", ".join(sorted(names)),
        version="",
        origin=Origin.SUBMIT,
        declared_in=declared_in,
        datasets=tuple(_of_submit(name, full, key, analysis, layout, prefix, known) for name, full, key in datasets),
        config=config.removeprefix(layout.configs),
        instance_type=body.instance_type,
        resultpath=body.resultpath,
    )


def _of_submit(name: str, full: str, key: str, analysis: str, layout: Layout, prefix: str, known: Known) -> Dataset:
    ours = layout.input_key(prefix, "")
    if not full.startswith(ours):
        return Dataset(name, key)  # s3://, or put by a rig with another prefix
    place = Place(analysis, "", f"inputs/{full.removeprefix(ours)}")
    return meant(Dataset(name, key, place=place), known)


def meant(dataset: Dataset, known: Known) -> Dataset:
    """A submit file's dataset with its local file: the one of that name, else the one of `inputs/` that is mapped to it."""
    if dataset.place is None:
        return dataset
    row = known.file_at(dataset.place)
    if row is None or row.state is FileState.GONE:
        rows = known.files_with_key(dataset.place.analysis, dataset.key)
        there = [r for r in rows if not r.place.tree and r.state not in (FileState.GONE, FileState.REFUSED)]
        row = next((r for r in there if is_mapped(r.place.path, dataset.place.path)), row)
    return dataset if row is None or not row.key else replace(dataset, key=row.key, place=row.place)


def is_mapped(path: str, safe: str) -> bool:
    """Whether `path` is mapped to `safe` in S3, and differs from it."""
    return path != safe and safe_key(path) == safe
