"""What `plan` plans from, and its files as they will be: which are uploaded, at what key, what keeps the others. Pure."""

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
    JobRow,
    JobSpec,
    MachinesUsed,
    Phase,
    Place,
)
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan import expand, gates, grouping
from ncaasd.plan.afterwards import AfterSteps
from ncaasd.plan.expand import Package
from ncaasd.plan.files import collision, holder, map_file
from ncaasd.plan.gates import Permit, When
from ncaasd.plan.grouping import Matcher, Unit
from ncaasd.plan.journals import FirstScan


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
    noted: Collection[str] = ()  # ids of jobs that it knows only from files here


@dataclass(frozen=True, slots=True)
class PlannedUpload:
    """One object to be put. `kept_back`: why not now, or "". A package may not be made yet."""

    what: str
    key: str
    size: int
    kept_back: str = ""
    held: bool = False


class Files:
    """Every file that is there, or that will be made of a unit."""

    def __init__(self, facts: Situation) -> None:
        self._facts = facts
        # A file that is still being written is planned as if it were whole already.
        self.rows = [replace(r, state=FileState.WHOLE) if r.state is FileState.SETTLING else r for r in facts.rows]
        self.at_key: dict[str, list[FileRow]] = {}
        for row in self.rows:
            self.at_key.setdefault(row.key, []).append(row)
        self.at = {r.place: r for r in self.rows}
        self.matchers = [m for ms in facts.rules.values() for m in ms]
        self.units = {id(m): {u.path: u for u in grouping.units(m, self.of(m))} for m in self.matchers if m.unit}
        # For each rule the folders in which something was submitted, and the files that were submitted.
        self._sent: dict[str, set[str]] = {}
        self._named: set[tuple[str, Place]] = set()
        for job in facts.jobs:
            if job.phase is not Phase.OPEN:
                names = job.spec.unit.split("/")
                self._sent.setdefault(job.spec.name, set()).update(
                    "/".join(names[:n]) for n in range(1, len(names) + 1)
                )
                self._named.update((job.spec.name, r.place) for d in job.spec.datasets if (r := self.file(d)))
        self.hollow: dict[Place, FileRow] = {}  # packages that can't be made yet: as the journal would have them
        self.to_be_packed = {place: u.size for m in self.matchers for place, u in self.packages(m)}

    def of(self, m: Matcher) -> list[FileRow]:
        return [r for r in self.rows if grouping.is_of(m, r)]

    def file(self, dataset: Dataset) -> FileRow | None:
        """The local file that a dataset is, when it is here."""
        if dataset.place is not None:
            row = self.at.get(dataset.place)
        else:
            row = next((r for r in self.at_key.get(dataset.key, ()) if dataset.is_of(r)), None)
        return None if row is None or row.state is FileState.GONE else row

    def there(self, dataset: Dataset) -> FileRow | None:
        """What is known of the place of a job's dataset."""
        if dataset.place is not None:
            return self.at.get(dataset.place)
        return next((r for r in self.at_key.get(dataset.key, ()) if r.state is not FileState.GONE), None)

    def size(self, dataset: Dataset) -> int:
        row = self.file(dataset)
        return row.stat.size if row else self.to_be_packed.get(dataset.place, 0) if dataset.place else 0

    # -- what becomes of them

    def permit(self, row: FileRow) -> Permit:
        def unit_of(m: Matcher) -> Unit | None:
            hit = m.unit_of(grouping.below(row))
            return self.units.get(id(m), {}).get(hit[0]) if hit else None

        def is_late(m: Matcher, unit: Unit) -> bool:
            sent = unit.path in self._sent.get(m.rule.name, ())
            named = (m.rule.name, row.place) in self._named
            package = self.package_of(m)(expand.package_name(m.rule, unit)).row if sent and m.packs else None
            return gates.late(m, row, sent=sent, named=named, packed=package)

        return gates.permit(row, self.matchers, unit_of, is_late)

    def later(self, row: FileRow) -> FileRow:
        """A file as it will be once everything that may be uploaded is in S3."""
        if row.state is not FileState.WHOLE:
            return row
        permit = self.permit(row)
        if permit.when is When.NOW or row.place.is_package:
            return replace(row, state=FileState.STORED)
        return replace(row, reason=permit.reason, retry_at=NEVER if permit.when is When.NEVER else 0.0)

    def package_of(self, m: Matcher) -> expand.PackageOf:
        facts = self._facts

        def package(name: str) -> Package:
            upload = facts.settings.upload
            base = m.rule.key == "base"
            mapped = map_file(f"inputs/{name}", facts.layout, prefix=upload.prefix, names=upload.names, base=base)
            place = Place(facts.analysis, expand.package_tree(m.rule.name), name)
            row = self.at.get(place)
            return Package(name, row.key if row else mapped.key, place, row)

        return package

    def packages(self, m: Matcher) -> Iterable[tuple[Place, PlannedUpload]]:
        for unit in self.units.get(id(m), {}).values() if m.packs else ():
            members = unit.members(m)
            package = self.package_of(m)(expand.package_name(m.rule, unit))
            if not members or unit.aborted(m) or unit.missing(m) or unit.skipped(m):
                continue
            if not (package.row and package.row.stored) and (empty := grouping.hollow(m, members)):
                why = grouping.say_hollow(unit, empty)
                self.hollow[package.place] = replace(members[0][1], state=FileState.SETTLING, reason=why)
            elif package.row is None:
                size = sum(r.stat.size for _n, r in members)
                other = holder(package.place, self.at_key.get(package.key, ()))
                why = f"refused: {collision(other.place, package.key)}" if other else ""
                what = f"{package.name} (made of {unit.path})"
                yield package.place, PlannedUpload(what, package.key, size, why, held=bool(why))

    def uploads(self) -> Iterable[PlannedUpload]:
        for row in self.rows:
            if row.state in (FileState.HELD, FileState.REFUSED) and row.key:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, f"{row.state}: {row.reason}", held=True)
            if row.state is not FileState.WHOLE or not row.key:
                continue
            permit = self.permit(row)
            if row.place in self.hollow:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, self.hollow[row.place].reason)
            elif permit.when is When.NOW:
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size)
            elif permit.when is not When.NEVER or permit.reason == gates.EMPTY:
                held = permit.when is When.HELD
                yield PlannedUpload(_shown(row.place), row.key, row.stat.size, permit.reason, held=held)
        for m in self.matchers:
            yield from (u for _place, u in self.packages(m))


def _shown(place: Place) -> str:
    return place.path if not place.tree else f"{place.tree}:{place.path}"
