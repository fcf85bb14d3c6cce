"""Before anything of an analysis is uploaded or submitted: prove the endpoint, learn what this rig did before.

1. The endpoint must honour If-None-Match on a key of ours, else nothing is submitted there (F51).
2. The rig's marker says whether this rig has had a journal before. What was seen is committed before the marker is put,
   so a crash between can't make an old rig look new (docs/exactly-once.md).
3. With a new journal, what is in S3 already is noted, so that it is recognised instead of sent again.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from awscrt.checksums import crc64nvme

from ncaasd.adapters.probe import honours_if_none_match
from ncaasd.engine.desk import Result
from ncaasd.engine.house import Context, House
from ncaasd.errors import Exists, NcaasdError, StoreError
from ncaasd.model import ObjectInfo
from ncaasd.neurocaas.naming import ID_LIMIT
from ncaasd.plan.retry import backoff

ID_DIGITS = 15


@dataclass(frozen=True, slots=True)
class _Opened:
    conditional: bool
    inventory: tuple[ObjectInfo, ...]


class Opener:
    def __init__(self, house: House) -> None:
        self._house = house
        self._opening: set[str] = set()
        self._failures: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def turn(self) -> None:
        now = self._house.clock.now()
        for context in self._house.contexts.values():
            waiting = now < self._next.get(context.name, 0) or not self._house.awake(context)
            if not context.opened and context.name not in self._opening and not waiting:
                self._open(context)

    def forget_appointments(self) -> None:
        self._next.clear()

    def settled(self) -> bool:
        """Every analysis is open, or has been tried and failed."""
        return all(c.opened or c.paused for c in self._house.contexts.values()) and not self._opening

    def next_due(self) -> float | None:
        """Wall time."""
        return min(
            (
                max(self._next.get(c.name, 0.0), c.paused_until)
                for c in self._house.contexts.values()
                if not c.opened and c.name not in self._opening
            ),
            default=None,
        )

    def _open(self, context: Context) -> None:
        if len(context.layout.bucket) + ID_DIGITS > ID_LIMIT:
            # F64: found here, before anything is uploaded; there after machines were launched.
            context.submits_blocked = (
                f"the bucket name {context.layout.bucket} is too long for NeuroCAAS to follow a job in it"
                f" ({ID_LIMIT - ID_DIGITS} characters are allowed)"
            )
        self._opening.add(context.name)
        store, layout, house = context.store, context.layout, self._house
        marker = layout.rig_marker(house.rig)
        known = house.journal.get_meta(_rig(context)) is not None

        def work() -> _Opened:
            conditional = honours_if_none_match(store, layout.probe_key())
            found: list[ObjectInfo] = []
            if not known:
                seen = store.find(marker) is not None
                found = [*store.list(layout.inputs).objects, *store.list(layout.configs).objects]

                def commit() -> None:
                    house.journal.set_meta(_rig(context), "seen" if seen else "new")
                    house.journal.add_inventory(context.name, ((o.key, o.size, o.etag) for o in found))
                    if seen:
                        text = (
                            f"the journal is new, but rig {house.rig} has been here before: what is in S3 is adopted, and jobs"
                            " of old files that left no trace are held"
                        )
                        house.event(context.name, "", "rebuilt", text, level=logging.WARNING)

                house.desk.ask(commit)
                house.crash("open.committed")
            body = f"rig {house.rig}\n".encode()
            with contextlib.suppress(Exists):
                store.put(marker, body, crc=crc64nvme(body), only_if_absent=True)
            return _Opened(conditional, tuple(found))

        house.desk.do(f"open:{context.name}", work, lambda r: self._done(context, r))

    def _done(self, context: Context, result: Result[_Opened]) -> None:
        house = self._house
        self._opening.discard(context.name)
        error = result.error
        if error is not None:
            if not isinstance(error, NcaasdError):
                raise error
            failures = self._failures[context.name] = self._failures.get(context.name, 0) + 1
            self._next[context.name] = house.clock.now() + backoff(failures, first=2, most=120, spread=house.spread())
            if not house.handle(context, error) and context.paused != str(error):
                context.paused = str(error)  # shown; `_next` says when it is tried again
                kind = "unreachable" if isinstance(error, StoreError) else "not opened"
                house.event(context.name, "", kind, str(error), level=logging.ERROR)
            return
        house.unpause(context)
        context.opened = True
        house.journal.wake_unended_jobs(context.name)
        if not result.get().conditional:
            context.submits_blocked = (
                "this S3 endpoint ignores If-None-Match, so a job could be started twice: nothing is submitted to it"
            )
            house.event(context.name, "", "submits blocked", context.submits_blocked, level=logging.ERROR)
        house.event(context.name, "", "opened", f"s3://{context.layout.bucket}/{context.layout.group}/ answers")


def _rig(context: Context) -> str:
    return f"rig:{context.name}"


def rig_was_here(house: House, context: Context) -> bool:
    """Whether this journal is newer than the rig's first one."""
    return house.journal.get_meta(_rig(context)) == "seen"


def found_by_first_scan(house: House, context: Context, file_ids: list[int]) -> bool:
    """Whether all these files were there when this journal first looked: later ones are new recordings for sure."""
    last = house.journal.get_meta(f"first scan:{context.name}")
    return last is not None and bool(file_ids) and all(i <= int(last) for i in file_ids)
