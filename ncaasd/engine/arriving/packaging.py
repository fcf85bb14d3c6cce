"""Build a unit's package when the unit is whole, and hand it to the ordinary upload. In the engine thread; the building is on
a worker.

A package is a file like any other, in a tree of its own (`package:<rule>`), so that it is uploaded, verified and recognised
like any other; it is kept in the state folder until it is stored in S3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ncaasd.declare.manifest import PackageTool
from ncaasd.engine.arriving.pauses import Pauses
from ncaasd.engine.arriving.sessions import Sessions, packed, to_pack
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime, target_of_link
from ncaasd.errors import DiskFull, FileChanged, FileVanished, NcaasdError, ToolFailed
from ncaasd.model import FileRow, FileState, Place, Stat
from ncaasd.plan import expand, grouping
from ncaasd.plan.expand import Package, PackageOf
from ncaasd.plan.files import collision, holder, map_file, waits_for_name
from ncaasd.plan.grouping import Matcher, Unit
from ncaasd.plan.retry import backoff
from ncaasd.ports import Packed, PackFile
from ncaasd.subjects import of_attempt, of_file

BUILT = (FileState.WHOLE, FileState.STORED, FileState.HELD)
AGAIN = 30.0  # seconds; a file that changed while it was packed settles first
SAID = 4000  # characters of a tool's output in the job's story


@dataclass(frozen=True, slots=True)
class _Order:
    context: Context
    matcher: Matcher
    unit: str
    not_before: float = 0.0


class Packager(Part):
    def __init__(
        self, runtime: Runtime, sessions: Sessions, pauses: Pauses, *, tools: Mapping[str, Sequence[str]]
    ) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._pauses = pauses
        self._tools = tools
        self._orders: dict[int, _Order] = {}  # by the package's file id
        self._building: set[int] = set()

    def busy(self) -> bool:
        now = self._runtime.clock.now()
        return bool(self._building) or any(order.not_before <= now for order in self._orders.values())

    def due(self) -> float | None:
        """Seconds until a package is to be built."""
        times = [order.not_before for i, order in self._orders.items() if i not in self._building]
        return min(times) - self._runtime.clock.now() if times else None

    def of(self, context: Context, rule: str) -> PackageOf:
        """Returns a function that gives, for a package's name, its key in S3 and what is known of it."""

        def package(name: str) -> Package:
            place = Place(context.name, expand.package_tree(rule), name)
            row = self._runtime.journal.file_at(place)
            base = any(m.rule.key == "base" for m in _of_rule(context, rule))
            return Package(name, row.key if row and row.key else _mapped(context, name, base=base)[0], place, row)

        return package

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """At start, in a transaction: remove leftover packages, and have missing ones built."""
        keep = []
        for context in self._runtime.contexts.values():
            for package in self._runtime.journal.packages(context.name):
                row = self._runtime.journal.file(package.file_id)
                if row is not None and row.state in (FileState.WHOLE, FileState.HELD):
                    keep.append(target_of(row))
            self.look_at_all(context, [m for ms in context.rules.values() for m in ms])
        packer = self._runtime.packer
        if packer is not None:
            self._runtime.mailbox.do("packages", lambda: packer.prune(keep), _done)

    def look_at_all(self, context: Context, matchers: Iterable[Matcher]) -> None:
        packing = [m for m in matchers if m.packs]
        rows = list(self._runtime.journal.files(context.name)) if packing else []
        for m in packing:
            mine = [r for r in rows if grouping.is_of(m, r)]
            for unit in grouping.units(m, mine):
                self.look(context, m, unit)

    def look(self, context: Context, m: Matcher, unit: Unit) -> None:
        """Have the package of a whole unit built, unless it was built from these very files."""
        journal = self._runtime.journal
        if not self._may_be_packed(context, m, unit):
            return
        members = to_pack(journal, context.name, m, unit)
        if not members:
            return
        fingerprint = expand.fingerprint(members)
        name = expand.package_name(m.rule, unit)
        place = Place(context.name, expand.package_tree(m.rule.name), name)
        row = journal.file_at(place)
        known = journal.package(context.name, m.rule.name, unit.path)
        if known and row and known.file_id == row.id and known.inputs == fingerprint and row.state in BUILT:
            return
        now = self._runtime.clock.now()
        tried = known and row and (known.file_id, known.inputs) == (row.id, fingerprint) and known.failures
        if tried and known and row and row.state is FileState.REFUSED and not waits_for_name(row):
            self._orders[row.id] = _Order(context, m, unit.path, known.retry_at)  # its reason stays until then
            return
        key, refused = _mapped(context, name, base=m.rule.key == "base")
        key = row.key if row and row.key else key
        other = holder(place, journal.files_with_key(context.name, key))
        refused = refused or (collision(other.place, key) if other else "")
        empty = grouping.hollow(m, members)
        if empty and row is not None and row.state in BUILT:
            return  # what was packed before stays: a unit that lost some of its data is no newer version
        state = FileState.REFUSED if refused else FileState.SETTLING
        size = sum(r.stat.size for _n, r in members)
        why = refused or (grouping.say_hollow(unit, empty) if empty else f"being packed from {len(members)} files")
        file_id = journal.see_file(place, Stat(size, 0, 0, 0), key, state, why, now)
        if refused:
            if row is None or row.reason != refused:
                self._runtime.event(context.name, of_file(place), "refused", refused, level=logging.ERROR)
            return
        if empty:
            journal.wake_jobs_using(context.name, key)
            return  # a later write to the empty file makes the unit be looked at again
        failures = known.failures if known and known.inputs == fingerprint else 0
        retry_at = known.retry_at if failures and known else 0.0
        journal.set_package(file_id, context.name, m.rule.name, unit.path, "", retry_at=retry_at, failures=failures)
        self._orders[file_id] = _Order(context, m, unit.path, retry_at)

    def _may_be_packed(self, context: Context, m: Matcher, unit: Unit) -> bool:
        """Whether a unit is whole: not aborted, nothing of it missing or skipped, and unchanged for long enough."""
        kept_back = unit.aborted(m) or unit.missing(m) or unit.skipped(m)
        return not kept_back and not self._pauses.why(context, m, unit)

    def lost(self, row: FileRow) -> None:
        """A package that has to be uploaded (again) is not there any more: have it built anew."""
        context = self._runtime.contexts.get(row.place.analysis)
        if context is None:
            return
        for m, unit_path in self._packed_by(context, row):
            if m.packs:
                self._runtime.journal.set_package(row.id, context.name, m.rule.name, unit_path, "")
                self._orders[row.id] = _Order(context, m, unit_path)

    def again(self, context: Context, row: FileRow) -> None:
        """A package's key, which another file had, is free: have the package built."""
        self.look_at_all(context, _of_rule(context, row.place.package_of))

    def abandoned(self, context: Context, row: FileRow) -> bool:
        """Whether all files that a package was made of are gone: then it doesn't need its key any more."""
        for m, unit_path in self._packed_by(context, row):
            if m.packs:
                unit = self._sessions.at(context.name, m, unit_path)
                return unit is None or all(r.state is FileState.GONE for r in unit.files.values())
        return False

    def keys_of(self, context: Context, row: FileRow) -> list[str]:
        """The keys of the packages that are made of a file."""
        keys = []
        for m in [m for ms in context.rules.values() for m in ms if m.packs and grouping.is_of(m, row)]:
            hit = m.unit_of(grouping.below(row))
            place = expand.package_place(context.name, m.rule, Unit(*hit)) if hit else None
            package = self._runtime.journal.file_at(place) if place else None
            keys += [package.key] if package else []
        return keys

    def made_of(self, context: Context, row: FileRow) -> list[FileRow]:
        """One file of the unit that a package was made of: it names the unit."""
        for m, unit_path in self._packed_by(context, row):
            unit = self._sessions.at(context.name, m, unit_path)
            return list(unit.files.values())[:1] if unit else []
        return []

    def members_of(self, context: Context, row: FileRow) -> list[FileRow]:
        """The files that a package was made of; none when they have changed since."""
        if row.state is not FileState.STORED:
            return []
        for m, unit_path in self._packed_by(context, row):
            return packed(self._runtime.journal, context.name, m, unit_path)
        return []

    def _packed_by(self, context: Context, row: FileRow) -> Iterator[tuple[Matcher, str]]:
        """The package's rule, if it is in force (it may not pack any more), with the folder of the unit that the package
        was made of."""
        for package in self._runtime.journal.packages(context.name):
            if package.file_id == row.id:
                yield from ((m, package.unit) for m in _of_rule(context, package.rule))

    def stored(self, row: FileRow) -> None:
        """A package is in S3, verified: remove the local one."""
        packer, target = self._runtime.packer, target_of(row)
        if packer is not None:
            self._runtime.mailbox.do(f"package:{row.place.analysis}", lambda: packer.remove(target), _done)

    # -- building ----------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        now = self._runtime.clock.now()
        for file_id, order in list(self._orders.items()):
            if file_id not in self._building and order.not_before <= now:
                with self._runtime.transaction():
                    self._begin(file_id, order)

    def _begin(self, file_id: int, order: _Order) -> None:
        runtime, packer = self._runtime, self._runtime.packer
        row = runtime.journal.file(file_id)
        unit = self._sessions.at(order.context.name, order.matcher, order.unit)
        if packer is None or row is None or unit is None or not self._may_be_packed(order.context, order.matcher, unit):
            del self._orders[file_id]  # when it is whole again, the package is wanted again
            return
        members = to_pack(runtime.journal, order.context.name, order.matcher, unit)
        if grouping.hollow(order.matcher, members):
            del self._orders[file_id]
            self.look(order.context, order.matcher, unit)
            return
        files = [self._to_read(order.context, name, member) for name, member in members]
        package = order.matcher.rule.package
        command = self._tools[package.tool] if isinstance(package, PackageTool) else None
        target = target_of(row)
        self._building.add(file_id)
        runtime.mailbox.do(
            f"package:{order.context.name}",
            lambda: packer.build(target, files, command),
            lambda r: self._built(file_id, order, expand.fingerprint(members), r),
        )

    def _to_read(self, context: Context, name: str, row: FileRow) -> PackFile:
        link = target_of_link(self._runtime.journal, context, row) if row.link else None
        return PackFile(name, f"{context.trees[row.place.tree].root}/{row.place.path}", row.stat, link)

    def _built(self, file_id: int, order: _Order, fingerprint: str, result: Result[Packed]) -> None:
        runtime = self._runtime
        self._building.discard(file_id)
        row = runtime.journal.file(file_id)
        if row is None or self._orders.pop(file_id, None) is None:
            return
        if result.error is not None:
            self._failed(row, order, fingerprint, result.error)
            return
        packed = result.get()
        now = runtime.clock.now()
        runtime.journal.set_package(
            file_id,
            order.context.name,
            order.matcher.rule.name,
            order.unit,
            fingerprint,
            built=now,
            output=packed.output,
        )
        runtime.journal.see_file(row.place, packed.stat, row.key, FileState.WHOLE, "", now)
        runtime.event(
            order.context.name, of_file(row.place), "packed", f"made of {order.unit}, {packed.stat.size} bytes"
        )
        self._tell_job(order, "packed", packed.output)
        runtime.journal.wake_jobs_of_file(row)

    def _tell_job(self, order: _Order, kind: str, output: str) -> None:
        if output.strip():
            text = f"the tool said: {output.strip()[-SAID:]}"
            self._runtime.event(order.context.name, of_attempt(order.matcher.rule.name, order.unit), kind, text)

    def _failed(self, row: FileRow, order: _Order, fingerprint: str, error: Exception) -> None:
        runtime, name = self._runtime, order.context.name
        now = runtime.clock.now()
        if not isinstance(error, NcaasdError):
            raise error
        known = runtime.journal.package(name, order.matcher.rule.name, order.unit)
        failures = (known.failures if known else 0) + 1
        passing = isinstance(error, FileChanged | FileVanished | DiskFull)
        wait = AGAIN if passing else backoff(failures, first=60, most=6 * 3600, spread=runtime.spread())
        state = FileState.SETTLING if passing else FileState.REFUSED
        text = str(error) if passing else f"its package can't be made: {error}"
        output = error.output if isinstance(error, ToolFailed) else ""
        runtime.journal.set_package(
            row.id,
            name,
            order.matcher.rule.name,
            order.unit,
            fingerprint,
            retry_at=now + wait,
            failures=failures,
            output=output,
        )
        runtime.journal.set_file(row.id, state, text, now)
        if row.reason != text:
            runtime.event(name, of_file(row.place), "not packed", text, level=logging.ERROR)
            self._tell_job(order, "not packed", output)
        runtime.journal.wake_jobs_of_file(row)
        self._orders[row.id] = _Order(order.context, order.matcher, order.unit, now + wait)


def _of_rule(context: Context, name: str) -> list[Matcher]:
    return [m for ms in context.rules.values() for m in ms if m.rule.name == name]


def _done(result: Result[None]) -> None:
    if result.error is not None and not isinstance(result.error, NcaasdError | OSError):
        raise result.error


def _mapped(context: Context, name: str, *, base: bool) -> tuple[str, str]:
    """Returns (key, why it must not be uploaded or "")."""
    names = context.settings.upload.names
    mapped = map_file(f"inputs/{name}", context.layout, prefix=context.prefix, names=names, base=base)
    return mapped.key, mapped.refused


def target_of(row: FileRow) -> str:
    return f"{row.place.analysis}/{row.id}/{row.place.path.rpartition('/')[2]}"
