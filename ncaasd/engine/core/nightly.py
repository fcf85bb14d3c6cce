"""Nightly work: the journal is checked and copied, and events that are too old are deleted.

The schedule decides when (engine/core/schedule.py). Both run on a worker, with connections of their own; only the deleting
itself is done in the engine thread, so few events at a time that no turn takes long.
"""

from __future__ import annotations

import logging
from datetime import datetime

from ncaasd.adapters.journal import backups, pruning
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.runtime import Runtime
from ncaasd.errors import NcaasdError

WORKER = "nightly"
DAY = 86400.0
FOUND = 20_000  # old events looked for at a time
DELETED = 100  # of them deleted in a turn
# Meta key: when old events were last deleted, and which time was assumed then. The assumed time advances by at most a week
# from one night to the next, so a clock that is ahead by years deletes at most a week of the event log.
PRUNED = "pruned at"
LONGEST_STEP = 7 * DAY
TROUBLE = "backup trouble"  # meta key: the kind of error and its message; empty when the last backup succeeded


class Nightly:
    def __init__(self, runtime: Runtime, *, keep: float | None, keep_free: int) -> None:
        """`keep`: seconds that events are kept; None is for ever. `keep_free`: bytes that a backup leaves free on its disk."""
        self._runtime = runtime
        self._keep = keep
        self._keep_free = keep_free
        self._pruning = False
        self.trouble = (runtime.journal.get_meta(TROUBLE) or "").partition("\n")[2]
        if runtime.journal.get_meta(PRUNED) is None:
            with runtime.transaction():
                self._note_pruned(runtime.clock.now())

    def night(self) -> None:
        """At night: do both."""
        self._back_up(if_due=False)
        self._prune()

    def look(self) -> None:
        """By day: do what was missed at night, because this machine was off or there was no room."""
        self._back_up(if_due=True)
        if not 0 <= self._runtime.clock.now() - self._pruned()[0] <= DAY:
            self._prune()

    # -- the backup --------------------------------------------------------------------------------------------------

    def _back_up(self, *, if_due: bool) -> None:
        runtime = self._runtime
        if runtime.mailbox.busy(WORKER):
            return  # the last backup is still running: a slow disk
        path, now = runtime.journal.path, runtime.clock.now()
        day = datetime.fromtimestamp(now).astimezone().date()

        def work() -> backups.Backup | None:
            if if_due and not backups.is_due(path, now):
                return None
            return backups.make_backup(path, day, keep_free=self._keep_free, crash=runtime.crash)

        runtime.mailbox.do(WORKER, work, self._backed_up)

    def _backed_up(self, result: Result[backups.Backup | None]) -> None:
        runtime, before = self._runtime, self._runtime.journal.get_meta(TROUBLE) or ""
        if result.error is not None:
            if not isinstance(result.error, NcaasdError):
                raise result.error
            kind = type(result.error).__name__
            self.trouble = str(result.error)
            runtime.journal.set_meta(TROUBLE, f"{kind}\n{self.trouble}")
            if kind != before.partition("\n")[0]:  # reported once per kind of error, however often it is tried
                runtime.event("", "", "backup failed", self.trouble, level=logging.ERROR)
            return
        made = result.get()
        if made is None:
            return
        if before:
            runtime.journal.set_meta(TROUBLE, "")
        self.trouble = ""
        text = f"the journal is well; {made.path} is a checked copy of it ({made.size / 1e6:,.1f} MB)"
        runtime.event("", "", "backup", text)

    # -- the event log -----------------------------------------------------------------------------------------------

    def _pruned(self) -> tuple[float, float]:
        at, _, taken_for = (self._runtime.journal.get_meta(PRUNED) or "0 0").partition(" ")
        return float(at), float(taken_for)

    def _note_pruned(self, taken_for: float) -> None:
        self._runtime.journal.set_meta(PRUNED, f"{self._runtime.clock.now()!r} {taken_for!r}")

    def _prune(self) -> None:
        now = min(self._runtime.clock.now(), self._pruned()[1] + LONGEST_STEP)
        self._note_pruned(now)
        if self._keep is not None and not self._pruning:
            self._pruning = True
            self._find(now - self._keep, 0)

    def _find(self, before: float, deleted: int) -> None:
        """Look for events older than `before`. `deleted`: how many were deleted so far."""
        path = self._runtime.journal.path

        def found(result: Result[list[int]]) -> None:
            if result.error is not None and not isinstance(result.error, NcaasdError):
                raise result.error
            rows = result.get() if result.error is None else []
            if rows:
                self._delete(rows, before, deleted)
                return
            self._pruning = False
            if result.error is not None:
                text = f"old events can't be deleted now: {result.error}"
                self._runtime.event("", "", "pruning failed", text, level=logging.WARNING)
            elif deleted:
                day = datetime.fromtimestamp(before).astimezone().date()
                self._runtime.event("", "", "pruned", f"{deleted:,} events of before {day} are deleted (log.keep)")

        self._runtime.mailbox.do(WORKER, lambda: pruning.old_events(path, before, FOUND), found)

    def _delete(self, rows: list[int], before: float, deleted: int) -> None:
        """Delete some of the found events. The rest is deleted in the next turns; once that is committed, more are looked
        for."""
        self._runtime.journal.drop_events(rows[:DELETED], before)
        done, left = deleted + len(rows[:DELETED]), rows[DELETED:]
        self._runtime.mailbox.tell(lambda: self._delete(left, before, done) if left else self._find(before, done))
