"""Units that are not whole: what each waits for, which are aborted, and an alarm for those that are overdue."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.telling.reporting import Reporter
from ncaasd.plan import grouping
from ncaasd.plan.gates import UnitState, state_of
from ncaasd.plan.grouping import Matcher, Unit
from ncaasd.subjects import of_unit

EVERY = 5.0  # seconds between looks
SAY = {UnitState.ABORTED: logging.WARNING, UnitState.OVERDUE: logging.ERROR}
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Seen:
    state: UnitState
    reason: str


class Units(Part):
    def __init__(self, runtime: Runtime, reporter: Reporter, sessions: Sessions) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._reporter = reporter
        self._seen: dict[_Key, _Seen] = {}
        self._next = 0.0

    def due(self) -> float | None:
        return self._next - self._runtime.clock.monotonic()

    def busy(self) -> bool:
        return False

    def turn(self) -> None:
        monotonic = self._runtime.clock.monotonic()
        if monotonic < self._next:
            return
        self._next = monotonic + EVERY
        with self._runtime.transaction():
            for context in self._runtime.contexts.values():
                self._look(context)

    def _look(self, context: Context) -> None:
        gated = [(p, m) for p, ms in context.rules.items() for m in ms if m.gated or (m.unit and m.rule.overdue)]
        if not gated:
            return
        rows = list(self._runtime.journal.files_waiting(context.name))
        found: dict[_Key, tuple[str, Matcher, Unit]] = {}
        for path, m in gated:
            for row in rows:
                hit = m.unit_of(grouping.below(row)) if (m.rule.source or "") == row.place.tree else None
                key = (context.name, m.rule.name, hit[0] if hit else "")
                if hit and key not in found and (unit := self._sessions.at(context.name, m, hit[0])):
                    found[key] = (path, m, unit)
        for key, (path, m, unit) in found.items():
            state, reason = state_of(m, unit, self._runtime.clock.now())
            self._note(context, key, path, _Seen(state, reason))
        for key in [k for k in self._seen if k[0] == context.name and k not in found]:
            del self._seen[key]  # none of its files waits any more: its jobs report from now on

    def _note(self, context: Context, key: _Key, path: str, seen: _Seen) -> None:
        if self._seen.get(key) == seen:
            return
        before = self._seen.get(key)
        self._seen[key] = seen
        _analysis, rule, unit = key
        self._reporter.write_unit(context, path, rule, unit, str(seen.state), seen.reason)
        subject = of_unit(rule, unit)
        if seen.state not in SAY or (before and before.state is seen.state):
            return
        last = self._runtime.journal.events(context.name, subject, 1)
        if not last or last[0].kind != str(seen.state):  # else it was reported before a restart
            self._runtime.event(context.name, subject, str(seen.state), seen.reason, level=SAY[seen.state])
