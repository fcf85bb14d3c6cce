"""Which recordings are stored, analysed, fetched and archived, so that a rig may delete them. Deletes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ncaasd.adapters.files.archive import LocalArchive
from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.journal import Journal
from ncaasd.declare.config import Config
from ncaasd.declare.manifest import parse_manifest
from ncaasd.engine.arriving.sessions import packed
from ncaasd.engine.core.documents import text
from ncaasd.errors import NcaasdError, UserError
from ncaasd.model import FileRow, FileState, JobRow, Phase, Place, Stat
from ncaasd.plan.after_results import archive_path, is_link, linked, needed, not_here, well_done
from ncaasd.plan.files import Role, role_of
from ncaasd.plan.grouping import Matcher, below, matcher
from ncaasd.plan.settling import unchanged


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one recording. It is safe only when all four are true and `why`, the first reason against it, is empty.
    `key`: its own or its package's in S3; `crc64`: the stored content's."""

    path: str
    size: int
    stored: bool
    analysed: bool
    fetched: bool
    archived: bool
    why: str
    key: str = ""
    crc64: str = ""
    jobs: tuple[str, ...] = ()
    copy: str = ""

    @property
    def safe(self) -> bool:
        return self.stored and self.analysed and self.fetched and self.archived and not self.why

    def document(self) -> dict[str, Any]:
        return {
            "path": text(self.path),
            "bytes": self.size,
            "safe": self.safe,
            "why": text(self.why) or None,
            "stored": self.stored,
            "analysed": self.analysed,
            "fetched": self.fetched,
            "archived": self.archived,
            "key": text(self.key) or None,
            "crc64nvme": self.crc64 or None,
            "jobs": list(self.jobs),
            "copy": text(self.copy) or None,
        }


# (analysis, rule, unit) -> the unit's package, and the ids of the files that it was made of: looked up once for all files
Packages = dict[tuple[str, str, str], tuple[FileRow | None, frozenset[int]]]


def judge(config: Config, journal: Journal, path: str, copy_at: str = "") -> list[Verdict]:
    """The verdict on every file at or below `path`, which lies in an analysis's `inputs/` or in a source. `copy_at`: where the
    archive's copies are, with {path} in it; if empty, where the config's `after_results` puts them.

    Raises UserError when `path` lies elsewhere, or is not there.
    """
    absolute = os.path.abspath(path)
    if not os.path.lexists(absolute):
        raise UserError(f"{path} is not there")
    places = list(_places(config, absolute))
    if not places:
        raise UserError(
            f"{path} is in no inputs/ folder and in no source",
            hint=f"inputs are below {config.root}/<analysis>/inputs/; sources are in the config",
        )
    rules = {analysis: _rules(config, journal, analysis) for analysis, _tree, _root in places}
    found = []
    packages: Packages = {}
    for file in _files(absolute):
        seen = os.stat(file, follow_symlinks=False)
        stat = Stat.of(seen)
        verdicts = [
            _judge(
                config,
                journal,
                rules[analysis],
                Place(analysis, tree, os.path.relpath(file, root)),
                file,
                stat,
                copy_at,
                packages,
            )
            for analysis, tree, root in places
        ]
        found.append(
            next((v for v in verdicts if v.safe), max(verdicts, key=lambda v: (v.stored, v.analysed, v.fetched)))
        )
    return found


def _places(config: Config, path: str) -> Iterator[tuple[str, str, str]]:
    """(analysis, tree, the tree's root) of each tree that `path` lies in."""
    # A link itself is judged, not its target.
    folder, name = (path, "") if os.path.isdir(path) and not os.path.islink(path) else os.path.split(path)
    real = os.path.join(os.path.realpath(folder), name).rstrip("/")
    for analysis in config.analyses:
        root = os.path.join(config.root, analysis)
        if _inside(real, os.path.join(os.path.realpath(root), "inputs")):
            yield analysis, "", root
        for source, folder in config.sources.items():
            if _inside(real, os.path.realpath(folder)):
                yield analysis, source, folder


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path) or os.path.islink(path):
        yield path
        return
    for parent, folders, names in os.walk(path):
        folders.sort()
        yield from (os.path.join(parent, name) for name in sorted(names))


def _judge(
    config: Config,
    journal: Journal,
    rules: list[Matcher],
    place: Place,
    file: str,
    stat: Stat,
    copy_at: str,
    packages: Packages,
) -> Verdict:
    settings = config.analyses[place.analysis].after_results
    row = journal.file_at(place)
    if row is None or row.state is FileState.GONE:
        return Verdict(file, stat.size, False, False, False, False, "ncaasd does not know it")
    copy = archive_path(settings, place.path) if not place.tree else ""
    if copy_at:
        copy = copy_at.replace("{path}", below(row))
    carrier = _carrier(journal, rules, place, row, packages)
    stored = unchanged(row.stat, stat) and carrier is not None and carrier.state is FileState.STORED
    jobs = journal.jobs_of_file(carrier) if carrier else []
    done = [j for j in jobs if well_done(j) and _had(j, carrier)]
    trouble = "" if not done else min((_not_fetched(config, journal, j) for j in done), key=len)
    never = is_link(row) or linked(journal.link_to(place)) or ("" if row.state is not FileState.SKIPPED else row.reason)
    archived, unarchived = (False, "") if never else _archived(file, stat, copy)
    why = (
        never
        or ("" if unchanged(row.stat, stat) else "it has changed since ncaasd looked")
        or ("" if stored else f"it is not stored: {_not_stored(row)}")
        or ("" if done else "no job with it is done")
        or trouble
        or needed([j for j in jobs if j.phase is not Phase.ENDED])
        or unarchived
    )
    return Verdict(
        file,
        stat.size,
        stored,
        bool(done),
        bool(done) and not trouble,
        archived,
        why,
        carrier.key if stored and carrier else row.key,
        journal.crc_of(carrier.id) if stored and carrier else "",
        tuple(j.job_id for j in done),
        copy if archived else "",
    )


def _not_stored(row: FileRow) -> str:
    if row.state is FileState.WHOLE:
        return row.reason or "it is to be uploaded"
    return f"{row.state}: {row.reason}" if row.reason else str(row.state)


def _carrier(
    journal: Journal, matchers: list[Matcher], place: Place, row: FileRow, packages: Packages
) -> FileRow | None:
    """The file by which a recording is stored in S3: itself, or its unit's package if that was made of this content."""
    if row.state is FileState.STORED:
        return row
    for m in matchers:
        hit = m.unit_of(below(row)) if m.packs and (m.rule.source or "") == place.tree else None
        if hit is None:
            continue
        key = (place.analysis, m.rule.name, hit[0])
        if key not in packages:
            known = journal.package(*key)
            made = journal.file(known.file_id) if known else None
            packages[key] = (made, frozenset(r.id for r in packed(journal, place.analysis, m, hit[0])))
        package, members = packages[key]
        if row.id in members:
            return package
    return None


def _rules(config: Config, journal: Journal, analysis: str) -> list[Matcher]:
    """The rules in force."""
    texts = [m.good for m in journal.manifests(analysis) if m.good and role_of(m.path) is Role.MANIFEST]
    parsed = [
        parse_manifest(data, "manifest.yaml", standing=True, sources=config.sources, tools=config.tools)
        for data in texts
    ]
    return [matcher(rule) for manifest in parsed for rule in manifest.rules]


def _had(job: JobRow, carrier: FileRow | None) -> bool:
    return carrier is not None and any(d.is_of(carrier) and d.etag == carrier.etag for d in job.spec.datasets)


def _not_fetched(config: Config, journal: Journal, job: JobRow) -> str:
    artefacts = journal.artefacts(job.row)
    why = not_here(artefacts)
    if why:
        return f"job {job.job_id}: {why}"
    expected = journal.get_meta(f"results id:{job.spec.analysis}")
    results = LocalResults(os.path.join(config.root, job.spec.analysis, "results"), expected_id=expected)
    try:
        gone = next((a.path for a in artefacts if not results.matches(a.path, a.size)), "")
    except NcaasdError as error:
        return str(error)
    return f"results/{gone} is not here any more: `ncaasd fetch {job.job_id}` brings it back" if gone else ""


def _archived(file: str, stat: Stat, copy: str) -> tuple[bool, str]:
    if not copy:
        return (
            False,
            "no archive is known (--copy-at, or after_results.local_inputs), and NeuroCAAS gives inputs back to nobody",
        )
    try:
        same = LocalArchive().same(file, stat, copy)
    except NcaasdError as error:
        return False, str(error)
    return same, "" if same else f"{copy} is not there, or not equal to it"
