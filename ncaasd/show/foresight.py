"""Gathers what `plan` plans from: the journal, read only, and a new scan of the trees, manifests and configs. Changes nothing."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import Journal
from ncaasd.declare.config import Config
from ncaasd.declare.manifest import parse_manifest
from ncaasd.engine.core.documents import job_document, text
from ncaasd.engine.core.opening import doubted, noted_jobs
from ncaasd.errors import DeclarationError, NcaasdError, Problem
from ncaasd.model import ABORTED, Artefact, FileRow, FileState, JobSpec, MachinesUsed, Place, ScanDelta, Stat
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan import gates, grouping, skipping
from ncaasd.plan.afterwards import AfterSteps, PlannedFetch, PlannedRemoval
from ncaasd.plan.declarations import Declared, read_declaration
from ncaasd.plan.files import Mapped, Role, map_file, role_of, seen_as, waits_for_name, with_names_given
from ncaasd.plan.grouping import Matcher, Unit
from ncaasd.plan.planned_jobs import PlannedJob
from ncaasd.plan.preview import Preview, preview
from ncaasd.plan.settling import unchanged
from ncaasd.plan.situation import Situation

LIMIT = 4 * 2**20  # bytes of a manifest or config that are read, as the daemon does
NEW = "once it is whole"
FRESH = 2**62  # the id of what the journal does not know


@dataclass(frozen=True, slots=True)
class Foresight:
    """`previews`: one for each analysis. `troubles`: what could not be read, or is wrong. `warnings`: what is likely to go
    wrong."""

    previews: tuple[Preview, ...]
    troubles: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def document(self, root: str) -> dict[str, Any]:
        every = [(p.analysis, u) for p in self.previews for u in p.uploads]
        jobs = [j for p in self.previews for j in p.jobs]
        fresh = [j for p in self.previews for j in p.fresh]
        return {
            "uploads": [
                {
                    "analysis": analysis,
                    "file": text(u.what),
                    "key": u.key,
                    "bytes": u.size,
                    "kept_back": text(u.kept_back) or None,
                }
                for analysis, u in every
            ],
            "jobs": [job_plan(j, root) for j in jobs],
            "followed": [job_document(j, root) for p in self.previews for j in p.followed],
            "fetches": [_fetch_plan(f, root) for p in self.previews for f in p.fetches],
            "deletions": [_removal_plan(p.analysis, r) for p in self.previews for r in p.removals],
            "totals": {
                "jobs": len(fresh),
                "machines": sum(j.machines for j in fresh),
                "submits_now": sum(j.plan == "submit" for j in fresh),
                "held": sum(j.plan == "hold" for j in fresh),
                "uploads": sum(not u.kept_back for _a, u in every),
                "bytes": sum(p.bytes for p in self.previews),
                "fetches": sum(len(p.fetches) for p in self.previews),
                "deletions": sum(not r.kept for p in self.previews for r in p.removals),
            },
            "troubles": [text(t) for t in self.troubles],
            "warnings": [text(w) for w in self.warnings],
        }


def job_plan(job: PlannedJob, root: str) -> dict[str, Any]:
    """One planned job as JSON. `submit_file` is the exact body; None where a part of it isn't known yet."""
    return {
        "name": job.spec.name,
        "unit": text(job.spec.unit),
        "analysis": job.spec.analysis,
        "datasets": [text(d.name) for d in job.spec.datasets],
        "config": job.spec.config,
        "plan": job.plan,
        "why": text(job.why),
        "guard": job.guard or None,
        "bytes": job.size,
        "machines": job.machines,
        "id": job.job_id or None,
        "submit_key": job.submit_key or None,
        "submit_file": job.body.decode() or None,
        "job": job_document(job.known, root) if job.known else None,
    }


def _fetch_plan(fetch: PlannedFetch, root: str) -> dict[str, Any]:
    """One planned fetch as JSON. `files` and `bytes` are null while they are not known here."""
    return {
        "analysis": fetch.spec.analysis,
        "name": fetch.spec.name,
        "unit": text(fetch.spec.unit),
        "id": fetch.job_id,
        "to": text(os.path.join(root, fetch.spec.analysis, "results", fetch.folder)),
        "when": fetch.when,
        "files": fetch.files,
        "bytes": fetch.size,
    }


def _removal_plan(analysis: str, removal: PlannedRemoval) -> dict[str, Any]:
    return {
        "analysis": analysis,
        "where": "here" if removal.here else "s3",
        "what": text(removal.what),
        "bytes": removal.size,
        "job": removal.job_id,
        "moved_to": text(removal.copy) if removal.moves else None,
        "copy": text(removal.copy) or None,
        "condition": text(removal.condition) or None,
        "kept": text(removal.kept) or None,
    }


def foresee(config: Config, journal: Journal | None, analyses: Sequence[str], now: float) -> Foresight:
    """The foresight of everything that is there now."""
    made = [_look(config, journal, analysis, now) for analysis in analyses]
    warned = [w for m in made for w in gates.warnings(r for rules in m.facts.rules.values() for r in rules)]
    return Foresight(tuple(preview(m.facts) for m in made), tuple(t for m in made for t in m.troubles), tuple(warned))


def foresee_manifest(
    config: Config, journal: Journal | None, analysis: str, data: bytes, file: str, now: float
) -> Foresight:
    """The foresight of one manifest, which need not be dropped yet, together with what is there. Raises DeclarationError."""
    standing = os.path.basename(file) == "manifest.yaml" or _has_rules(data, file)
    name = os.path.basename(file)
    path = "manifest.yaml" if standing else f"submissions/{name}"
    look = _look(config, journal, analysis, now)
    facts = look.facts
    declared = _declared(data, path, config, facts.layout, look.found, file)
    rows = _as_rules_want(facts.rows, declared.rules, facts.layout, config, journal) if declared.rules else facts.rows
    others = {p: ms for p, ms in facts.rules.items() if p != path}
    kept = [s for s in facts.asked if s.declared_in != path]
    facts = replace(facts, rows=rows, rules={**others, path: declared.rules}, asked=[*kept, *declared.jobs], only=path)
    return Foresight((preview(facts),), look.troubles, tuple(gates.warnings(declared.rules)))


def _has_rules(data: bytes, file: str) -> bool:
    """Whether it is a manifest of standing rules, though it isn't named manifest.yaml."""
    from ncaasd.declare import yamlio

    if file.endswith(".json"):
        return False
    root = yamlio.parse(data, file).root
    return isinstance(root, yamlio.Mapping) and "rules" in root.entries


@dataclass(frozen=True, slots=True)
class _Look:
    facts: Situation
    troubles: tuple[str, ...]
    found: _Found


def _look(config: Config, journal: Journal | None, analysis: str, now: float) -> _Look:
    settings = config.analyses[analysis]
    layout = Layout(analysis, config.group)
    troubles: list[str] = []
    home = LocalTree(os.path.join(config.root, analysis), ignore=settings.watch.ignored, links=config.links)
    trees = {"": home}
    for name, path in config.sources.items():
        trees[name] = LocalTree(path, ignore=settings.watch.ignored, within=(), links=config.links)
    known = {f.place: f for f in journal.files(analysis)} if journal is not None else {}
    rows: list[FileRow] = [r for r in known.values() if r.place.tree not in trees]  # packages
    gone: list[FileRow] = []
    for name, tree in trees.items():
        mine = {p.path: r for p, r in known.items() if p.tree == name}
        try:
            delta = tree.scan({})
        except NcaasdError as error:
            troubles.append(str(error))
            rows += mine.values()
        else:
            there = _rows(analysis, name, delta, mine, layout, config)
            there += _skipped(analysis, name, delta, mine, layout, config)
            rows += there
            places = {r.place for r in there}
            gone += (replace(r, state=FileState.GONE, reason="") for r in mine.values() if r.place not in places)
    standing, read = _in_force(config, journal, analysis, home)
    before = {r.place: r.key for r in rows}
    rows = _as_rules_want(rows, standing, layout, config, journal)
    moved = {r.place for r in rows if before[r.place] != r.key and not read}
    waiting = {r.place for r in rows if waits_for_name(r)}
    rows = _as_left(rows, standing)
    rows = with_names_given(rows, fresh={r.place for r in rows if r.id == FRESH}, waiting=waiting, moved=moved)
    found = _Found({r.place: r for r in [*gone, *rows]})
    rules, asked, problems = _manifests(config, journal, analysis, home, rows, layout, found)
    troubles += (str(p) for p in problems)
    return _Look(
        Situation(
            analysis=analysis,
            settings=settings,
            layout=layout,
            rows=[*rows, *gone],
            rules=rules,
            asked=asked,
            configs=_configs(home, rows),
            jobs=journal.jobs(analysis)[::-1] if journal is not None else (),
            usage=journal.usage(analysis, now) if journal is not None else MachinesUsed(0, 0),
            now=now,
            wanted=_wanted(journal, analysis),
            after=_after(journal, analysis),
            first_scan=doubted(journal, analysis) if journal is not None else None,
            noted=noted_jobs(journal, analysis) if journal is not None else (),
        ),
        tuple(troubles),
        found,
    )


def _wanted(journal: Journal | None, analysis: str) -> dict[int, Sequence[Artefact]]:
    rows = journal.jobs_to_fetch() if journal is not None else []
    return {r: journal.artefacts(r, wanted=True) for r in rows if journal and _is_of(journal, r, analysis)}


def _after(journal: Journal | None, analysis: str) -> dict[int, AfterSteps]:
    rows = journal.due_after_steps(math.inf, 2**31) if journal is not None else []
    return {r: journal.after_steps(r) for r in rows if journal and _is_of(journal, r, analysis)}


def _is_of(journal: Journal, row: int, analysis: str) -> bool:
    job = journal.job(row)
    return job is not None and job.spec.analysis == analysis


def _rows(
    analysis: str,
    tree: str,
    delta: ScanDelta,
    before: dict[str, FileRow],
    layout: Layout,
    config: Config,
) -> list[FileRow]:
    """The rows of the files on the disk, with what the journal knows of each."""
    made: list[FileRow] = []
    for path, stat in delta.changed.items():
        known = before.get(path)
        if known is not None and known.state is not FileState.GONE and _same(known, stat, delta):
            made.append(known)
            continue
        place = Place(analysis, tree, path)
        mapped = _mapped(place, layout, config)
        key = known.key if known and known.key else mapped.key
        refused = mapped.refused
        state = FileState.REFUSED if refused else FileState.WHOLE
        if known is not None and known.stored is not None and unchanged(known.stored, stat):
            state, refused = FileState.STORED, ""  # it is back
        new = FileRow(
            known.id if known else FRESH,
            place,
            stat,
            state,
            refused or NEW,
            0.0,
            key,
            known.stored if known else None,
            known.etag if known else "",
            0.0,
            0,
            ours=bool(known and known.ours),
            link=delta.links.get(path, ""),
            crc=known.crc if known else "",
        )
        made.append(new)
    return made


def _in_force(config: Config, journal: Journal | None, analysis: str, home: LocalTree) -> tuple[list[Matcher], bool]:
    """(the standing rules that will be in force: those of the file if valid, else the last valid ones; whether the daemon has
    read them)"""
    manifests = journal.manifests(analysis) if journal else []
    read = next((m.good for m in manifests if m.path == gates.MANIFEST and m.good), None)
    texts = [read] if read else []
    with contextlib.suppress(NcaasdError):
        texts.insert(0, home.read(gates.MANIFEST, limit=LIMIT)[0])
    for standing in texts:
        with contextlib.suppress(DeclarationError):
            parsed = parse_manifest(standing, gates.MANIFEST, standing=True, sources=config.sources, tools=config.tools)
            return [grouping.matcher(rule) for rule in parsed.rules], standing == read
    return [], True


def _as_rules_want(
    rows: Sequence[FileRow], rules: Sequence[Matcher], layout: Layout, config: Config, journal: Journal | None
) -> list[FileRow]:
    """Give files that a rule wants directly in inputs/ their key there, as the engine does (`Names.put_in_place`)."""

    def wanted(row: FileRow) -> FileRow:
        if row.place.is_package or not row.key or not grouping.by_base(rules, row.place):
            return row
        names = config.analyses[row.place.analysis].upload.names
        key = map_file(seen_as(row.place), layout, prefix="", names=names, base=True).key
        if key == row.key:
            return row
        if row.stored is not None:
            jobs = journal.jobs_using(row.place.analysis, row.key) if journal is not None else ()
            if not grouping.still_to_read(rules, row, jobs):
                return row
        state = FileState.WHOLE if row.state is FileState.STORED else row.state
        return replace(row, key=key, state=state, stored=None, etag="", crc="", ours=False)

    return [wanted(row) for row in rows]


def _as_left(rows: Sequence[FileRow], rules: Sequence[Matcher]) -> list[FileRow]:
    """Mark the files that are never uploaded, so that they keep no name from others, as the engine does by their permit."""

    units = {id(m): {u.path: u for u in grouping.units(m, (r for r in rows if grouping.is_of(m, r)))} for m in rules}

    def left(row: FileRow) -> FileRow:
        def unit_of(m: Matcher) -> Unit | None:
            hit = m.unit_of(grouping.below(row))
            return units[id(m)].get(hit[0]) if hit else None

        if row.state is not FileState.WHOLE or row.stored is not None or row.place.is_package:
            return row
        permit = gates.permit(row, rules, unit_of, lambda _m, _unit: False)
        if permit.when is gates.When.NEVER:
            return replace(row, reason=permit.reason, retry_at=math.inf)
        return replace(row, reason=permit.reason) if permit.reason.startswith(ABORTED) else row

    return [left(row) for row in rows]


def _mapped(place: Place, layout: Layout, config: Config) -> Mapped:
    upload = config.analyses[place.analysis].upload
    if role_of(seen_as(place)) not in (Role.INPUT, Role.CONFIG):
        return Mapped("")
    return map_file(seen_as(place), layout, prefix=upload.prefix, names=upload.names)


def _same(known: FileRow, stat: Stat, delta: ScanDelta) -> bool:
    known_as_file = known.state is not FileState.SKIPPED and known.link == delta.links.get(known.place.path, "")
    return known_as_file and unchanged(known.stat, stat)


def _skipped(
    analysis: str, tree: str, delta: ScanDelta, before: dict[str, FileRow], layout: Layout, config: Config
) -> list[FileRow]:
    """The rows of what is skipped, as the daemon would record it, and the known rows below folders that can't be read."""
    unseen = tuple(path for path in delta.skipped if path.endswith("/"))
    made = [r for p, r in before.items() if p.startswith(unseen) and p not in delta.skipped]
    for path, why in skipping.to_record(tree, delta.skipped).items():
        known = before.get(path)
        number, since = (known.id, known.since) if known else (FRESH, 0.0)
        nothing = Stat(0, 0, 0, 0)
        place = Place(analysis, tree, path)
        key = known.key if known and known.key else _mapped(place, layout, config).key
        made.append(FileRow(number, place, nothing, FileState.SKIPPED, why, since, key, None, "", 0.0, 0))
    return made


@dataclass(frozen=True, slots=True)
class _Found:
    """`plan.expand.Known` over every file that is there or was."""

    rows: Mapping[Place, FileRow]

    def file_at(self, place: Place) -> FileRow | None:
        return self.rows.get(place)

    def files_with_key(self, analysis: str, key: str) -> Sequence[FileRow]:
        return [r for r in self.rows.values() if r.key == key and r.place.analysis == analysis]


def _configs(home: LocalTree, rows: Iterable[FileRow]) -> dict[str, bytes]:
    found = {}
    for row in rows:
        if not row.place.tree and row.place.path.startswith("configs/"):
            try:
                found[row.place.path.removeprefix("configs/")] = home.read(row.place.path, limit=LIMIT)[0]
            except NcaasdError:
                continue
    return found


def _manifests(
    config: Config,
    journal: Journal | None,
    analysis: str,
    home: LocalTree,
    rows: Sequence[FileRow],
    layout: Layout,
    found: _Found,
) -> tuple[dict[str, list[Matcher]], list[JobSpec], list[Problem]]:
    """(rules by manifest, one-off jobs, what is wrong). For an invalid manifest, the last valid text is in force."""
    good = {m.path: m.good for m in journal.manifests(analysis) if m.good} if journal is not None else {}
    rules: dict[str, list[Matcher]] = {}
    asked: list[JobSpec] = []
    problems: list[Problem] = []
    for row in rows:
        path = row.place.path
        if row.place.tree or role_of(path) not in (Role.MANIFEST, Role.ONE_OFF, Role.SUBMIT):
            continue
        try:
            declared = _declared(home.read(path, limit=LIMIT)[0], path, config, layout, found)
        except NcaasdError as error:
            problems += error.problems if isinstance(error, DeclarationError) else [Problem(path, 0, 0, "", str(error))]
            if path not in good:
                continue
            declared = _declared(good[path], path, config, layout, found)
        rules[path] = declared.rules
        asked += declared.jobs
    return rules, asked, problems


def _declared(data: bytes, path: str, config: Config, layout: Layout, found: _Found, file: str = "") -> Declared:
    """What a text declares, as the daemon reads it. Raises DeclarationError."""
    return read_declaration(
        data,
        path,
        analysis=layout.bucket,
        layout=layout,
        prefix=config.analyses[layout.bucket].upload.prefix,
        sources=config.sources,
        tools=config.tools,
        known=found,
        file=file,
    )
