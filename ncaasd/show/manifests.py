"""Manifests that are not dropped yet: whose they are, what they would do. Used by `submit` and `plan`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ncaasd.adapters.journal import Journal
from ncaasd.declare import yamlio
from ncaasd.declare.config import Config
from ncaasd.declare.manifest import Manifest, parse_manifest
from ncaasd.engine.documents import job_document, text
from ncaasd.errors import UserError
from ncaasd.model import FileRow, FileState, JobRow, JobSpec
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan import expand
from ncaasd.show import words
from ncaasd.show.status import known_as


def analysis_of(config: Config, given: str, near: str) -> str:
    """The analysis that is meant: the one named, the one in whose folder `near` lies, the only one.

    Raises UserError when that doesn't tell.
    """
    if given:
        if given not in config.analyses:
            raise UserError(f"the config has no analysis {given!r}", hint=f"it has: {', '.join(config.analyses)}")
        return given
    relative = os.path.relpath(os.path.realpath(near), os.path.realpath(config.root))
    if (top := relative.split(os.sep)[0]) in config.analyses:
        return top
    if len(config.analyses) == 1:
        return next(iter(config.analyses))
    raise UserError("which analysis?", hint=f"--analysis NAME, one of: {', '.join(config.analyses)}")


def below(path: str, folder: str, what: str) -> str:
    """`path` as the manifest names it, relative to `folder` (inputs/ or configs/): from an absolute path, from one that is
    right seen from here, or as it is. An s3:// URL stays. Raises UserError for a file that lies elsewhere.
    """
    if path.startswith("s3://"):
        return path
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    inside = relative != ".." and not relative.startswith("../")
    if inside and (os.path.isabs(path) or os.path.lexists(path)):
        return relative
    if os.path.isabs(path) or (os.path.lexists(path) and not os.path.lexists(os.path.join(folder, path))):
        raise UserError(f"{path} is not in {folder}", hint=f"{what} are taken from there: put it there first")
    return path


def one_off(
    name: str,
    datasets: Sequence[str],
    config: str,
    *,
    instance_type: str = "",
    resultpath: str = "",
    overlay: Mapping[str, Any] | None = None,
) -> bytes:
    """The text of a manifest with one job. JSON's scalars are YAML's, so nothing needs to be escaped by hand."""

    def scalar(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [
        "# Written by `ncaasd submit`. Dropping this file here was the request.",
        "jobs:",
        f"  - name: {scalar(name)}",
    ]
    lines += ["    datasets:", *(f"      - {scalar(dataset)}" for dataset in datasets)]
    lines += [f"    config: {scalar(config)}"]
    lines += [f"    instance_type: {scalar(instance_type)}"] if instance_type else []
    lines += [f"    resultpath: {scalar(resultpath)}"] if resultpath else []
    lines += [f"    set: {scalar(dict(overlay))}"] if overlay else []
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


# -- what a manifest would do


@dataclass(frozen=True, slots=True)
class Planned:
    """One job that a manifest wants, and what would become of it. `known`: it was made already."""

    spec: JobSpec
    verdict: str  # "submit" | "wait" | "known" | "hold"
    why: str
    size: int
    known: JobRow | None = None

    def document(self, root: str) -> dict[str, Any]:
        return {
            "name": self.spec.name,
            "unit": text(self.spec.unit),
            "analysis": self.spec.analysis,
            "datasets": [text(d.name) for d in self.spec.datasets],
            "config": self.spec.config,
            "plan": self.verdict,
            "why": text(self.why),
            "bytes": self.size,
            "job": job_document(self.known, root) if self.known else None,
        }


def read_manifest(data: bytes, file: str, config: Config) -> Manifest:
    """Rules or one-off jobs, by what is in it. Raises DeclarationError with every problem."""
    root = yamlio.parse(data, file).root
    standing = os.path.basename(file) == "manifest.yaml" or (
        isinstance(root, yamlio.Mapping) and "rules" in root.entries
    )
    return parse_manifest(data, file, standing=standing, sources=config.sources, tools=config.tools)


def plan_manifest(
    manifest: Manifest,
    path: str,
    analysis: str,
    config: Config,
    files: Sequence[FileRow],
    journal: Journal | None,
    config_there: Callable[[str], bool],
) -> list[Planned]:
    """What each job of a manifest would come to, from the files as they are known. Changes nothing.

    `config_there`: whether configs/NAME is there.
    """
    settings = config.analyses[analysis]
    layout = Layout(analysis, config.group)
    specs = [
        expand.job_of_one_off(job, analysis=analysis, declared_in=path, layout=layout, prefix=settings.upload.prefix)
        for job in manifest.jobs
    ]
    for rule in manifest.rules:
        mine = [f for f in files if f.place.tree == (rule.source or "")]
        mine = mine if rule.source else [f for f in mine if f.place.path.startswith("inputs/")]
        # Checksums of configs name versions where `rerun_on` says so; what is planned is shown without.
        specs += expand.jobs_of_rule(
            expand.matcher(rule),
            mine,
            analysis=analysis,
            declared_in=path,
            config_checksum=lambda _name: "",
            package_of=lambda name: expand.Package(name, layout.input_key(settings.upload.prefix, name)),
        )
    by_key = {f.key: f for f in files if f.key and f.state is not FileState.GONE}
    planned = [_plan_one(spec, by_key, journal, config_there) for spec in specs]
    return _held_back(planned, {rule.name for rule in manifest.rules}, settings.jobs.ask_above)


def _plan_one(
    spec: JobSpec, by_key: Mapping[str, FileRow], journal: Journal | None, config_there: Callable[[str], bool]
) -> Planned:
    here = [by_key[d.key] for d in spec.datasets if d.key in by_key]
    size = sum(f.stat.size for f in here)
    attempts = journal.attempts(spec.analysis, spec.name, spec.unit, spec.version) if journal else []
    if attempts:
        last = attempts[-1]
        return Planned(spec, "known", f"made already: {known_as(last)}, {last.state}", size, last)
    waits = [d.name for d in spec.datasets if d.key not in by_key and not d.key.startswith("s3://")]
    if not spec.config.startswith("s3://") and not config_there(spec.config):
        waits.append(f"configs/{spec.config}")
    if waits:
        return Planned(spec, "wait", f"waits for {', '.join(waits)}", size)
    stuck = [f"{f.place.path} is {f.state}: {f.reason}" for f in here if f.state in (FileState.HELD, FileState.REFUSED)]
    if stuck:
        return Planned(spec, "wait", "; ".join(stuck), size)
    missing = sum(f.state is not FileState.STORED for f in here)
    first = f"{words.count(missing, 'file')} first to be uploaded" if missing else "everything it needs is in S3"
    return Planned(spec, "submit", first, size)


def _held_back(planned: list[Planned], rules: set[str], ask_above: int) -> list[Planned]:
    """A rule that would start more than `ask_above` datasets at once is held, as one backlog (F94)."""
    for name in rules:
        fresh = [p for p in planned if p.spec.name == name and p.verdict in ("submit", "wait")]
        machines = sum(len(p.spec.datasets) for p in fresh)
        if machines > ask_above:
            over = f"{words.count(machines, 'machine')}, over jobs.ask_above ({ask_above})"
            why = f"held until released: rule {name} would start {over}"
            planned = [Planned(p.spec, "hold", why, p.size) if p in fresh else p for p in planned]
    return planned
