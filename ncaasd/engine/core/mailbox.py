"""The mailbox: all other threads post notes to the engine, which alone reads them and writes the journal.

`Mailbox.do` runs work on a worker (a thread of its own, so that work that hangs blocks nothing else) and brings the result
back into the engine thread. With `Mailbox.ask`, such work has the engine run a function and commit before it goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from ncaasd.errors import JournalError, NcaasdError

T = TypeVar("T")
GATHER = 0.02  # seconds


class Stopping(NcaasdError):
    """The engine stops, or could not commit: what it was asked to do is not done. Everything is resumable."""


class Result(Generic[T]):
    """The outcome of work: a value, or the error it raised. `get` returns the value or raises the error."""

    def __init__(self, value: T | None = None, error: Exception | None = None) -> None:
        self._value, self.error = value, error

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # None only when T allows it


class Writing(Protocol):
    """The transactions in which a mailbox runs its notes: the runtime's, or a journal's alone."""

    def transaction(self) -> AbstractContextManager[None]: ...


class Mailbox(Protocol):
    def do(self, worker: str, work: Callable[[], T], then: Callable[[Result[T]], None]) -> None:
        """Do `work` on `worker`; call `then` with its result in the engine thread, inside a transaction."""

    def ask(self, what: Callable[[], T]) -> T:
        """From a worker: have the engine do `what` inside a transaction; returns after the commit. Raises Stopping."""

    def tell(self, what: Callable[[], None]) -> None:
        """From any thread: have the engine do `what`, some time soon."""

    def busy(self, worker: str) -> bool: ...

    def read(self, wait: float) -> int:
        """In the engine thread: wait up to `wait` seconds for a note, then run the posted ones in one transaction; returns
        how many."""

    def close(self) -> None:
        """Refuse every later `ask`, and those that still wait."""


class _Asked(Generic[T]):
    def __init__(self, what: Callable[[], T]) -> None:
        self.what = what
        self.result: Result[T] | None = None
        self.ready = threading.Event()

    def finish(self, result: Result[T]) -> None:
        self.result = result
        self.ready.set()


class ThreadMailbox:
    """The mailbox of the daemon: workers are daemon threads, so that one that hangs on a dead mount can't keep the process
    alive."""

    def __init__(self, writing: Writing, *, workers: dict[str, int] | None = None) -> None:
        self._writing = writing
        self._notes: queue.SimpleQueue[Callable[[], None] | _Asked[Any]] = queue.SimpleQueue()
        self._workers: dict[str, queue.SimpleQueue[Callable[[], None] | None]] = {}
        self._threads = workers or {}  # worker -> number of threads; default: one
        self._pending: dict[str, int] = {}
        self._urgent = threading.Event()  # an `ask` waits
        self._lock = threading.Lock()
        self._closed = False

    def do(self, worker: str, work: Callable[[], T], then: Callable[[Result[T]], None]) -> None:
        def run() -> None:
            try:
                result = Result(work())
            except Stopping:
                return
            except Exception as error:
                result = Result(error=error)
            self._notes.put(lambda: then(result))
            with self._lock:
                self._pending[worker] -= 1

        with self._lock:
            self._pending[worker] = self._pending.get(worker, 0) + 1
            if worker not in self._workers:
                self._workers[worker] = queue.SimpleQueue()
                for number in range(self._threads.get(worker, 1)):
                    name = f"{worker}-{number}"
                    threading.Thread(target=_serve, args=(self._workers[worker],), name=name, daemon=True).start()
        self._workers[worker].put(run)

    def ask(self, what: Callable[[], T]) -> T:
        asked = _Asked(what)
        with self._lock:
            if self._closed:
                raise Stopping("ncaasd is stopping")
            self._notes.put(asked)
            self._urgent.set()
        asked.ready.wait()
        assert asked.result is not None
        return asked.result.get()

    def tell(self, what: Callable[[], None]) -> None:
        self._notes.put(what)

    def busy(self, worker: str) -> bool:
        with self._lock:
            return self._pending.get(worker, 0) > 0

    def read(self, wait: float) -> int:
        try:
            first = self._notes.get(timeout=wait) if wait > 0 else self._notes.get_nowait()
        except queue.Empty:
            return 0
        if not isinstance(first, _Asked):
            # No thread waits for this note: gather more for the same commit, until an `ask` comes.
            self._urgent.wait(GATHER)
        self._urgent.clear()
        notes = [first]
        while len(notes) < 1000:
            try:
                notes.append(self._notes.get_nowait())
            except queue.Empty:
                break
        answers: list[tuple[_Asked[Any], Result[Any]]] = []
        try:
            with self._writing.transaction():
                for note in notes:
                    if isinstance(note, _Asked):
                        answers.append((note, _attempt(note.what)))
                    else:
                        note()
        except BaseException as error:
            # Nothing of this batch is committed, so no `ask` in it may return as if it were.
            for note in notes:
                if isinstance(note, _Asked):
                    note.finish(Result(error=Stopping(f"not committed: {error}")))
            raise
        for asked, result in answers:
            asked.finish(result)
        return len(notes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for worker, works in self._workers.items():
                for _ in range(self._threads.get(worker, 1)):
                    works.put(None)  # its thread ends, unless it hangs
        while True:
            try:
                note = self._notes.get_nowait()
            except queue.Empty:
                return
            if isinstance(note, _Asked):
                note.finish(Result(error=Stopping("ncaasd is stopping")))


def _attempt(what: Callable[[], T]) -> Result[T]:
    """Run one `ask`. A refusal (NcaasdError) is its answer; a JournalError or any other error is the engine's own and ends
    the batch."""
    try:
        return Result(what())
    except NcaasdError as error:
        if isinstance(error, JournalError):
            raise
        return Result(error=error)


def _serve(worker: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := worker.get()) is not None:
        work()
