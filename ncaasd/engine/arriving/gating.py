"""Decide whether a whole file may be uploaded (plan/gates), by what the journal knows of its unit. In the engine thread."""

from __future__ import annotations

from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.model import FileRow, FileState, Place
from ncaasd.plan import gates
from ncaasd.plan.gates import MANIFEST, Permit, When


class Gate:
    def __init__(self, runtime: Runtime, sessions: Sessions) -> None:
        self._runtime = runtime
        self._sessions = sessions

    def __call__(self, context: Context, row: FileRow) -> Permit:
        is_input = bool(row.place.tree) or row.place.path.startswith("inputs/")
        if is_input and self._unread(context):
            return Permit(When.LATER, f"waits until {MANIFEST} is read: its rules may keep it back")
        return gates.permit(
            row,
            [m for ms in context.rules.values() for m in ms],
            lambda m: self._sessions.of(context.name, m, row),
            lambda m, unit: self._sessions.late(context.name, m, unit, row),
        )

    def _unread(self, context: Context) -> bool:
        """Whether the first standing rules exist and are not read yet. While later ones are not read, the old stay in
        force."""
        if MANIFEST in context.rules:
            return False
        row = self._runtime.journal.file_at(Place(context.name, "", MANIFEST))
        return row is not None and row.state in (FileState.SETTLING, FileState.WHOLE)
