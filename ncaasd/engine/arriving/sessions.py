"""A cache of units, kept equal to the journal. In the engine thread.

A unit may have 10,000 files, and each of them needs to know all of it: whether it is whole, which other files it has. So a
unit is read once, and then updated with the rows that change; frequent answers are kept until a row changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ncaasd.adapters.journal import Journal
from ncaasd.engine.core.part import Part
from ncaasd.model import FileRow, Phase
from ncaasd.plan import expand, gates, grouping
from ncaasd.plan.grouping import Matcher, Unit

ROWS_KEPT = 30_000  # files of all cached units together; a single larger unit is cached alone
_Key = tuple[str, int, str]  # analysis, the matcher's identity, the unit's folder


@dataclass
class _Entry:
    analysis: str
    matcher: Matcher
    unit: Unit
    declared: set[str] = field(default_factory=set)  # names whose jobs were wanted already
    sent: bool | None = None  # whether a job of it was submitted, as queried in this turn


class Sessions(Part):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[_Key, _Entry] = {}  # the one used last is last
        journal.take_changed_files()  # from now on the journal keeps them

    def turn(self) -> None:
        """Forget which units were submitted: that is queried once a turn."""
        if not self._entries:
            self._journal.take_changed_files()  # no cached unit needs them, so they must not accumulate
        for entry in self._entries.values():
            entry.sent = None

    def due(self) -> float | None:
        return None

    def busy(self) -> bool:
        return False

    # -- what is asked -----------------------------------------------------------------------------------------------

    def of(self, analysis: str, m: Matcher, row: FileRow) -> Unit | None:
        """The unit of a rule that a file belongs to, with all its known files."""
        hit = m.unit_of(grouping.below(row)) if grouping.is_of(m, row) else None
        return self.at(analysis, m, hit[0]) if hit else None

    def at(self, analysis: str, m: Matcher, path: str) -> Unit | None:
        entry = self._entry(analysis, m, path)
        return entry.unit if entry else None

    def declared(self, analysis: str, m: Matcher, path: str) -> set[str]:
        """The names in a unit whose jobs were wanted since their files last changed. The caller adds to this set."""
        entry = self._entry(analysis, m, path)
        return entry.declared if entry else set()

    def late(self, analysis: str, m: Matcher, unit: Unit, row: FileRow) -> bool:
        """Whether a dataset came to a unit that was submitted without it (F92)."""
        if not gates.may_be_late(m, row) or not self._sent(analysis, m, unit):
            return False
        return is_late(self._journal, analysis, m, unit, row)

    def _sent(self, analysis: str, m: Matcher, unit: Unit) -> bool:
        entry = self._entry(analysis, m, unit.path)
        if entry is None:
            return self._journal.unit_sent(analysis, m.rule.name, unit.path)
        if entry.sent is None:
            entry.sent = self._journal.unit_sent(analysis, m.rule.name, unit.path)
        return entry.sent

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _entry(self, analysis: str, m: Matcher, path: str) -> _Entry | None:
        self._follow()
        key = (analysis, id(m), path)
        entry = self._entries.pop(key, None)
        if entry is None:
            unit = read_unit(self._journal, analysis, m, path)
            if unit is None:
                return None
            entry = _Entry(analysis, m, unit)
            rows = len(unit.files) + sum(len(e.unit.files) for e in self._entries.values())
            while rows > ROWS_KEPT and self._entries:
                rows -= len(self._entries.pop(next(iter(self._entries))).unit.files)
        self._entries[key] = entry
        return entry

    def _follow(self) -> None:
        """Update the cached units with the rows that have changed."""
        changed = self._journal.take_changed_files()
        if not changed or not self._entries:
            return
        matchers = {(e.analysis, id(e.matcher)): e.matcher for e in self._entries.values()}
        for file_id in changed:
            row = self._journal.file(file_id)
            if row is None:
                continue
            for (analysis, identity), m in matchers.items():
                if analysis != row.place.analysis or not grouping.is_of(m, row):
                    continue
                path = grouping.below(row)
                hit = m.unit_of(path)
                entry = self._entries.get((analysis, identity, hit[0])) if hit else None
                if hit and entry:
                    name = path[len(hit[0]) + 1 :]
                    if entry.unit.put(name, row):
                        entry.declared.discard(name)


def read_unit(journal: Journal, analysis: str, m: Matcher, path: str) -> Unit | None:
    """A unit as the journal has it."""
    under = f"{path}/" if m.rule.source else f"inputs/{path}/"
    rows = journal.files(analysis, tree=m.rule.source or "", under=under)
    return next((u for u in grouping.units(m, rows) if u.path == path), None)


def is_late(journal: Journal, analysis: str, m: Matcher, unit: Unit, row: FileRow) -> bool:
    """`gates.late` for a unit that was submitted, with what the journal knows."""
    package = journal.file_at(expand.package_place(analysis, m.rule, unit)) if m.packs else None
    named = not m.packs and any(
        j.spec.name == m.rule.name and j.phase is not Phase.OPEN for j in journal.jobs_of_file(row)
    )
    return gates.late(m, row, sent=True, named=named, packed=package)


def to_pack(journal: Journal, analysis: str, m: Matcher, unit: Unit) -> list[tuple[str, FileRow]]:
    """What a unit's package is to be made of."""
    members = unit.members(m)
    if not members or not journal.unit_sent(analysis, m.rule.name, unit.path):
        return members
    package = journal.file_at(expand.package_place(analysis, m.rule, unit))
    return [(n, r) for n, r in members if not gates.late(m, r, sent=True, named=False, packed=package)]


def packed(journal: Journal, analysis: str, m: Matcher, unit_path: str) -> list[FileRow]:
    """The files that a unit's package was made of; none when they have changed since."""
    unit = read_unit(journal, analysis, m, unit_path)
    known = journal.package(analysis, m.rule.name, unit_path)
    members = to_pack(journal, analysis, m, unit) if unit else []
    return [r for _n, r in members] if known and known.inputs == expand.fingerprint(members) else []
