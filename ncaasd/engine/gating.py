"""Ask whether a whole file may go up (plan/gates), with what the journal knows of its unit. In the engine thread."""

from __future__ import annotations

from ncaasd.adapters.journal import Journal
from ncaasd.engine.house import Context, House
from ncaasd.model import FileRow, FileState, Place
from ncaasd.plan import expand, gates
from ncaasd.plan.expand import Matcher, Unit
from ncaasd.plan.gates import MANIFEST, Passage, Way


class Gate:
    def __init__(self, house: House) -> None:
        self._house = house

    def __call__(self, context: Context, row: FileRow) -> Passage:
        is_input = bool(row.place.tree) or row.place.path.startswith("inputs/")
        if is_input and self._unread(context):
            return Passage(Way.LATER, f"waits until {MANIFEST} is read: its rules may keep it back")
        return gates.passage(
            row,
            [m for ms in context.rules.values() for m in ms],
            lambda m: unit_of(self._house.journal, context.name, m, row),
            lambda m, unit: late(self._house.journal, context.name, m, unit, row),
        )

    def _unread(self, context: Context) -> bool:
        """The first standing rules are there and not read yet. Later ones leave the old in force until they are."""
        if MANIFEST in context.rules:
            return False
        row = self._house.journal.file_at(Place(context.name, "", MANIFEST))
        return row is not None and row.state in (FileState.SETTLING, FileState.WHOLE)


def unit_of(journal: Journal, analysis: str, m: Matcher, row: FileRow) -> Unit | None:
    """The unit of a rule that a file lies in, with all that is known of it."""
    hit = m.unit_of(expand.below(row))
    return unit_at(journal, analysis, m, hit[0]) if hit else None


def unit_at(journal: Journal, analysis: str, m: Matcher, path: str) -> Unit | None:
    tree = m.rule.source or ""
    under = f"{path}/" if tree else f"inputs/{path}/"
    rows = list(journal.files(analysis, tree=tree, under=under))
    return next(iter(expand.units(m, rows)), None)


def late(journal: Journal, analysis: str, m: Matcher, unit: Unit, row: FileRow) -> bool:
    """Whether a dataset came to a unit that was submitted without it (F92)."""
    jobs = journal.jobs_of_unit(analysis, m.rule.name, unit.path)
    place = Place(analysis, expand.package_tree(m.rule.name), expand.package_name(m.rule, unit))
    return gates.late(m, row, jobs, journal.file_at(place) if m.packs else None)


def to_pack(journal: Journal, analysis: str, m: Matcher, unit: Unit) -> list[tuple[str, FileRow]]:
    """What a unit's package is to be made of."""
    return [(n, r) for n, r in unit.members(m) if not late(journal, analysis, m, unit, r)]


def packed(journal: Journal, analysis: str, m: Matcher, unit_path: str) -> list[FileRow]:
    """The files that a unit's package was made of; none when they have changed since."""
    unit = unit_at(journal, analysis, m, unit_path)
    known = journal.package(analysis, m.rule.name, unit_path)
    members = to_pack(journal, analysis, m, unit) if unit else []
    return [r for _n, r in members] if known and known[1] == expand.fingerprint(members) else []
