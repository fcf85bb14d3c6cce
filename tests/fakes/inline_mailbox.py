"""The engine's mailbox without threads, so that a state machine can choose where it crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ncaasd.engine.core.mailbox import Result, Stopping, Writing
from ncaasd.errors import JournalError

T = TypeVar("T")


class InlineMailbox:
    """A `Mailbox`: work is done at once, in the caller's thread, and its note waits for `read`."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._notes: list[Callable[[], None]] = []
        self._failed: JournalError | None = None

    def do(self, worker: str, work: Callable[[], T], then: Callable[[Result[T]], None]) -> None:
        try:
            result = Result(work())
        except Stopping:
            return
        except Exception as error:
            result = Result(error=error)
        self._notes.append(lambda: then(result))

    def ask(self, what: Callable[[], T]) -> T:
        """What could not be committed ends the engine's next turn, as there."""
        try:
            with self._writing.transaction():
                return what()
        except JournalError as error:
            self._failed = error
            raise Stopping(f"not committed: {error}") from error

    def tell(self, what: Callable[[], None]) -> None:
        self._notes.append(what)

    def busy(self, worker: str) -> bool:
        return False

    def read(self, wait: float) -> int:
        if self._failed is not None:
            raise self._failed
        notes, self._notes = self._notes, []
        with self._writing.transaction():
            for note in notes:
                note()
        return len(notes)

    def close(self) -> None:
        self._notes.clear()
