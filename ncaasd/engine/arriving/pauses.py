"""Whether a unit without a gate has not changed for long enough (`whole_after`). In the engine thread.

An instrument may pause between the files of a session for longer than `watch.settle`. The time since a unit's last change,
when a file of it became whole or was gone, is measured by the monotonic clock. For the time before this process began, the
journal and the files' own times are used, once: a clock that jumps later makes nothing look old (F83).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ncaasd.declare.measures import say_duration
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.model import FileRow, FileState
from ncaasd.plan import grouping
from ncaasd.plan.grouping import Matcher, Unit

_Key = tuple[str, str, str]  # analysis, rule, the unit's folder


@dataclass(frozen=True, slots=True)
class _Timer:
    context: Context
    matcher: Matcher
    until: float  # monotonic


class Pauses(Part):
    def __init__(
        self,
        runtime: Runtime,
        sessions: Sessions,
        *,
        scanned: Callable[[Context, str], bool],
        over: Callable[[Context, Matcher, str], None],
    ) -> None:
        """`scanned`: whether this process has scanned a tree. `over`: called when a unit may be packed and submitted."""
        self._runtime = runtime
        self._sessions = sessions
        self._scanned = scanned
        self._over = over
        self._timers: dict[_Key, _Timer] = {}
        self._still: set[_Key] = set()  # left alone for long enough, and nothing has changed since
        self._unscanned: dict[_Key, tuple[Context, Matcher]] = {}  # asked for before their tree was scanned

    def changed(self, context: Context, row: FileRow, *, old: bool = False) -> None:
        """A file became whole, or is gone. `old`: it was there when the daemon started, untouched for long."""
        for m in (m for ms in context.rules.values() for m in ms):
            seconds = m.whole_after(context.settle)
            hit = m.unit_of(grouping.below(row)) if seconds and grouping.is_of(m, row) else None
            if hit is None:
                continue
            key = (context.name, m.rule.name, hit[0])
            self._still.discard(key)
            if not old:
                # A file that is whole has been quiet for `settle` already.
                left = max(0.0, seconds - context.settle)
                self._timers[key] = _Timer(context, m, self._runtime.clock.monotonic() + left)

    def why(self, context: Context, m: Matcher, unit: Unit) -> str:
        """Why a unit may still grow, for people; "" when it has been left alone for long enough."""
        seconds = m.whole_after(context.settle)
        if not seconds:
            return ""
        key = (context.name, m.rule.name, unit.path)
        if not self._scanned(context, m.rule.source or ""):
            self._unscanned[key] = (context, m)
            return "waits until its folder has been looked at"
        if key in self._still:
            return ""
        if key not in self._timers:
            left = seconds - self._left_alone(context, unit)
            if left <= 0:
                self._still.add(key)
                return ""
            self._timers[key] = _Timer(context, m, self._runtime.clock.monotonic() + min(left, seconds))
        return f"waits until nothing in it has changed for {say_duration(seconds)} (`whole_after`)"

    def _left_alone(self, context: Context, unit: Unit) -> float:
        """Seconds since a unit's last change, as shown by the journal, or by the times of a file on a disk of this
        machine."""
        last = 0.0
        for row in unit.files.values():
            if row.state is not FileState.GONE:
                touched = max(row.stat.mtime_ns, row.stat.ctime_ns) / 1e9
                on_a_share = context.polled or row.link.startswith("/")  # its times are another machine's
                last = max(last, row.since if on_a_share else min(row.since, touched))
        return self._runtime.clock.now() - last

    def due(self) -> float | None:
        """Seconds until the next unit has been left alone for long enough."""
        if not self._timers:
            return None
        return min(timer.until for timer in self._timers.values()) - self._runtime.clock.monotonic()

    def busy(self) -> bool:
        return False

    def pending(self, waits: Waits) -> bool:
        return waits.unended and bool(self._timers)

    def turn(self) -> None:
        now = self._runtime.clock.monotonic()
        due = [(key, t.context, t.matcher) for key, t in self._timers.items() if t.until <= now]
        ready = [(k, c, m) for k, (c, m) in self._unscanned.items() if self._scanned(c, m.rule.source or "")]
        if not due and not ready:
            return
        with self._runtime.transaction():
            for key, context, m in due:
                del self._timers[key]
                self._still.add(key)
                self._over(context, m, key[2])
            for key, context, m in ready:
                del self._unscanned[key]
                self._over(context, m, key[2])
