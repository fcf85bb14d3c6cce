"""What keeps a whole file from its upload: its unit's gates, its package, or that it came too late. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ncaasd.declare.manifest import Rule
from ncaasd.declare.measures import say_duration
from ncaasd.model import ABORTED, FileRow, FileState
from ncaasd.neurocaas.naming import safe_key
from ncaasd.plan.configs import KEEP
from ncaasd.plan.grouping import Matcher, Unit, below, doubles

MANIFEST = "manifest.yaml"
EMPTY = "empty: it is not uploaded, and gets no job, until something is written into it"


class When(StrEnum):
    """When a file may go up."""

    NOW = "now"
    LATER = "later"  # it waits for other files
    NEVER = "never"  # nothing wants it; asked again when a rule changes
    HELD = "held"  # a person must decide


@dataclass(frozen=True, slots=True)
class Permit:
    """When a file may go up, and why not now."""

    when: When = When.NOW
    reason: str = ""
    unit: bool = False  # it waits for its unit: asked again when anything in the unit changes


GRANTED = Permit()


def permit(
    row: FileRow,
    matchers: Sequence[Matcher],
    unit_of: Callable[[Matcher], Unit | None],
    is_late: Callable[[Matcher, Unit], bool],
) -> Permit:
    """Whether a file may go up. `matchers`: the rules in force; `unit_of`: a rule's unit that the file lies in, with all its
    files; `is_late`: see `late`."""
    tree = row.place.tree
    if row.place.is_package or not (tree or row.place.path.startswith("inputs/")):
        taken = next((m for m in matchers if gives_name(m, row)), None)
        if taken is not None:
            why = f"goes up with each job of rule {taken.rule.name}, which has it under this name (`config_name`)"
            return Permit(When.NEVER, why)
        return GRANTED
    path = below(row)
    mine = [m for m in matchers if (m.rule.source or "") == tree]
    wanting = [m for m in mine if m.wants(path)]
    if tree and not wanting and not any(m.accompanies(path) for m in mine):
        return Permit(When.NEVER, "no rule names it")
    if wanting and all(doubles(m, row) for m in wanting):
        return Permit(When.NEVER, "a symbolic link to a file of the same tree, which is found by itself: name that one")
    for m in mine:
        unit = unit_of(m)
        if unit is None:
            continue
        aborted = unit.aborted(m)
        if aborted:
            return Permit(When.LATER, f"{ABORTED}: {aborted} is in {unit.path}", unit=True)
        missing = unit.missing(m) if m.gated else ""
        if missing:
            return Permit(When.LATER, missing, unit=True)
        if m in wanting and row.stat.size and is_late(m, unit):
            return Permit(
                When.HELD,
                f"came after {unit.path} was submitted, so no job has it: `ncaasd release {row.place.path}` lets it go up,"
                f" and `ncaasd rerun {unit.path}` runs the unit again with it",
            )
    if row.stat.size == 0 and any(not m.marks(_in_unit(m, path)) for m in wanting):
        return Permit(When.NEVER, EMPTY)
    if wanting and all(m.packs for m in wanting):
        return Permit(When.NEVER, "goes up in its unit's package, not by itself")
    return GRANTED


def gives_name(m: Matcher, row: FileRow) -> bool:
    """Whether a rule's jobs have their config at the very key that this file of configs/ would have: then each job puts it there
    in turn, with the rule's `set` laid over it."""
    if row.place.is_package or row.place.tree or not row.place.path.startswith("configs/"):
        return False
    key, path = row.key.partition("/configs/")[2], row.place.path.partition("/")[2]
    if m.rule.config_name != KEEP:
        return m.rule.config_name == key
    kept = re.compile("[^/]+".join(map(re.escape, _PART.split(m.rule.config))))
    # Mapping may change a name in S3; and `upload.prefix` may make a config's key another config's name.
    return kept.fullmatch(key) is not None or (kept.fullmatch(path) is not None and key == safe_key(path))


_PART = re.compile(r"\{\w+\}")  # of a unit's name, in a rule's `config`


def warnings(matchers: Iterable[Matcher]) -> list[str]:
    """What is likely to go wrong with rules, though they can be read; for people."""
    return [ungated(m.rule) for m in matchers if m.rule.ungated]


def ungated(rule: Rule) -> str:
    """The warning for a rule that makes one job of a unit, when only a pause tells that the unit is whole (F99)."""
    return (
        f"rule {rule.name} runs each unit as one, and nothing but a pause says that a unit is whole: where an instrument pauses"
        " for longer than ten times watch.settle, half a session is run and paid for; name the file that ends a session in"
        " `complete_when`, or say with `whole_after` how long it must have been left alone"
    )


def _in_unit(m: Matcher, path: str) -> str:
    hit = m.unit_of(path)
    return path[len(hit[0]) + 1 :] if hit else path


def may_be_late(m: Matcher, row: FileRow) -> bool:
    """Whether a file can be too late for its unit: it can when the unit's files belong to one job, or when `complete_when` said
    that the unit was whole; but not once a person has released the file, or with `rerun_on: [data]`."""
    closed = m.packs or m.rule.job_per == "unit" or bool(m.complete_when)
    return closed and not row.ours and "data" not in m.rule.rerun_on


def late(m: Matcher, row: FileRow, *, sent: bool, named: bool, packed: FileRow | None) -> bool:
    """Whether a dataset came to a unit that was submitted without it (F92).

    `sent`: a job of the unit was submitted; `named`: one that has this dataset was; `packed`: the unit's package.
    """
    if not sent or not may_be_late(m, row):
        return False
    if not m.packs:
        return not named
    # Row ids grow as files are first seen, and the package's row is made when its unit is whole.
    return packed is not None and packed.state is not FileState.GONE and row.id > packed.id


class UnitState(StrEnum):
    """The states of a unit."""

    WAITING = "waiting"
    ABORTED = "aborted"
    OVERDUE = "overdue"  # it still waits, longer than the rule's `overdue`
    WHOLE = "whole"


def state_of(m: Matcher, unit: Unit, now: float) -> tuple[UnitState, str]:
    """A unit's state, and why, for people."""
    aborted = unit.aborted(m)
    if aborted:
        return UnitState.ABORTED, f"{aborted} is in {unit.path}: it is never uploaded, and never submitted"
    missing = unit.missing(m)
    if not missing:
        return UnitState.WHOLE, ""
    since = min((r.since for r in unit.files.values() if r.state is not FileState.GONE), default=now)
    if m.rule.overdue is not None and now - since > m.rule.overdue:
        return UnitState.OVERDUE, f"{unit.path} is not whole after {say_duration(m.rule.overdue)}: it {missing}"
    return UnitState.WAITING, missing
