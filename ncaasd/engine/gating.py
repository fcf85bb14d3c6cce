"""What keeps a whole file from its upload: its unit's gates, its package, or that it came too late. In the engine thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ncaasd.engine.house import Context, House
from ncaasd.model import FileRow, FileState, Phase, Place
from ncaasd.plan import expand
from ncaasd.plan.expand import Matcher, Unit

MANIFEST = "manifest.yaml"


class Way(StrEnum):
    GO = "go"
    LATER = "later"  # it waits for other files
    NEVER = "never"  # nothing wants it; a changed rule asks again
    HELD = "held"  # a person must decide


@dataclass(frozen=True, slots=True)
class Verdict:
    way: Way = Way.GO
    reason: str = ""


GO = Verdict()


class Gate:
    def __init__(self, house: House) -> None:
        self._house = house

    def __call__(self, context: Context, row: FileRow) -> Verdict:
        tree = row.place.tree
        if tree.startswith("package:") or not (tree or row.place.path.startswith("inputs/")):
            return GO
        if self._unread(context):
            return Verdict(Way.LATER, "waits until manifest.yaml is read: its rules may keep it back")
        path = expand.below(row)
        mine = [m for ms in context.rules.values() for m in ms if (m.rule.source or "") == tree]
        wanting = [m for m in mine if m.wants(path)]
        if tree and not wanting:
            return Verdict(Way.NEVER, "no rule names it")
        for m in mine:
            unit = unit_of(self._house, context, m, row)
            if unit is None:
                continue
            shut = self._shut(context, m, unit, row, wanted=m in wanting)
            if shut.way is not Way.GO:
                return shut
        if wanting and all(m.packs for m in wanting):
            return Verdict(Way.NEVER, "goes up in its unit's package, not by itself")
        return GO

    def _unread(self, context: Context) -> bool:
        """The first standing rules are there and not read yet. Later ones leave the old in force until they are."""
        if MANIFEST in context.rules:
            return False
        row = self._house.journal.file_at(Place(context.name, "", MANIFEST))
        return row is not None and row.state in (FileState.SETTLING, FileState.WHOLE)

    def _shut(self, context: Context, m: Matcher, unit: Unit, row: FileRow, *, wanted: bool) -> Verdict:
        aborted = unit.aborted(m)
        if aborted:
            return Verdict(Way.LATER, f"aborted: {aborted} is in {unit.path}")
        missing = unit.missing(m) if m.complete_when or m.abort_when else ""
        if missing:
            return Verdict(Way.LATER, missing)
        if wanted and late(self._house, context, m, unit, row):
            return Verdict(
                Way.HELD,
                f"came after {unit.path} was submitted, so no job has it: `ncaasd release {row.place.path}` lets it go up,"
                f" and `ncaasd rerun {unit.path}` runs the unit again with it",
            )
        return GO


def unit_of(house: House, context: Context, m: Matcher, row: FileRow) -> Unit | None:
    """The unit of a rule that a file lies in, with all that is known of it."""
    hit = m.unit_of(expand.below(row))
    return unit_at(house, context, m, hit[0]) if hit else None


def unit_at(house: House, context: Context, m: Matcher, path: str) -> Unit | None:
    tree = m.rule.source or ""
    under = f"{path}/" if tree else f"inputs/{path}/"
    rows = [r for r in house.journal.files(context.name, under=under) if r.place.tree == tree]
    return next(iter(expand.units(m, rows)), None)


def late(house: House, context: Context, m: Matcher, unit: Unit, row: FileRow) -> bool:
    """Whether a dataset came to a unit that was submitted without it (F92).

    Of a unit whose files belong to one job, or that was said to be whole. Once a person has released it, or with
    `rerun_on: [data]`, it is not.
    """
    closed = m.packs or m.rule.job_per == "unit" or m.complete_when
    if not closed or row.ours or "data" in m.rule.rerun_on:
        return False
    jobs = [j for j in house.journal.jobs_of_unit(context.name, m.rule.name, unit.path) if j.phase is not Phase.OPEN]
    if not jobs:
        return False
    if not m.packs:
        return all(row.key != d.key for j in jobs for d in j.spec.datasets)
    name = expand.package_name(m.rule, unit)
    packed = house.journal.file_at(Place(context.name, expand.package_tree(m.rule.name), name))
    # Rows are numbered as files are first seen, and the package's is made when its unit is whole.
    return packed is not None and packed.state is not FileState.GONE and row.id > packed.id
