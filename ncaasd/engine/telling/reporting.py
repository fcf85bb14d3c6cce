"""Write the status files beside manifests, by which a rig's own software follows its jobs."""

from __future__ import annotations

import logging

from ncaasd.engine.arriving.declaring import Declarer
from ncaasd.engine.core.documents import status_document, unit_document
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import NcaasdError
from ncaasd.model import JobRow, Origin
from ncaasd.plan import gates

EVERY = 0.5  # seconds between writes: a burst of changes is one write
RETRY = 60.0  # seconds until a status file that could not be written is tried again
JOBS_SHOWN = 10_000


class Reporter(Part):
    def __init__(self, runtime: Runtime, declarer: Declarer, *, root: str) -> None:
        self._runtime = runtime
        self._declarer = declarer
        self._root = root
        self._next = 0.0
        self._shown: dict[tuple[str, str], bytes] = {}  # what was written, so that nothing is written twice
        self._unwritten: dict[tuple[str, str], bytes] = {}  # a write failed, or has to wait
        self._retry = 0.0
        for context in runtime.contexts.values():
            declarer.changed.update((context.name, m.path) for m in runtime.journal.manifests(context.name))

    def due(self) -> float | None:
        """Seconds until a status file is to be written. A pass doesn't wait for that: it writes them all at its end."""
        times = [self._next] if self._declarer.changed else []
        times += [self._retry] if self._unwritten else []
        return min(times) - self._runtime.clock.monotonic() if times else None

    def busy(self) -> bool:
        return False

    def turn(self, *, now: bool = False) -> None:
        monotonic = self._runtime.clock.monotonic()
        if self._unwritten and (monotonic >= self._retry or now):
            self._write_again()
        if not self._declarer.changed or (monotonic < self._next and not now):
            return
        changed, self._declarer.changed = self._declarer.changed, set()
        for analysis, path in changed:
            context = self._runtime.contexts.get(analysis)
            if context is not None and path:  # a job that was started elsewhere is declared nowhere
                self._write(context, path)
        # A manifest of 10,000 jobs takes seconds to render: no more than a twentieth of the engine's time goes into it.
        self._next = monotonic + max(EVERY, 20 * (self._runtime.clock.monotonic() - monotonic))

    def _write(self, context: Context, path: str) -> None:
        journal = self._runtime.journal
        problems = next((m.problems for m in journal.manifests(context.name) if m.path == path), "")
        jobs = journal.jobs_declared_in(context.name, path)[-JOBS_SHOWN:]
        at = self._runtime.clock.now()
        warned = gates.warnings(context.rules.get(path, ()))
        files = {status_name(path): status_document(path, problems, jobs, self._root, at, warned)}
        for unit, attempts in _by_rule_and_unit(jobs).items():
            files[unit] = status_document(path, "", attempts, self._root, at)
        self._put(context, files)

    def write_unit(self, context: Context, path: str, rule: str, unit: str, state: str, reason: str) -> None:
        """The status file of a unit that is not whole."""
        document = unit_document(path, unit, state, reason, self._runtime.clock.now())
        self._put(context, {_unit_name(rule, unit): document})

    def _put(self, context: Context, files: dict[str, bytes]) -> None:
        fresh = {name: body for name, body in files.items() if self._is_news(context.name, name, body)}
        if not fresh:
            return
        if not context.looked:  # existing files may know more than this journal: see engine/core/opening.py
            self._unwritten |= {(context.name, name): body for name, body in fresh.items()}
            self._retry = self._runtime.clock.monotonic() + EVERY
            return
        writer = context.status

        def work() -> None:
            for name, body in fresh.items():
                writer.write(name, body)

        self._runtime.mailbox.do(f"status:{context.name}", work, lambda r: self._written(context, fresh, r))

    def _is_news(self, analysis: str, name: str, body: bytes) -> bool:
        """Whether anything but the time of writing has changed."""
        if self._shown.get((analysis, name)) == _essence(body):
            return False
        self._shown[analysis, name] = _essence(body)
        self._unwritten.pop((analysis, name), None)
        return True

    def _written(self, context: Context, files: dict[str, bytes], result: Result[None]) -> None:
        if result.error is None:
            return
        if not isinstance(result.error, NcaasdError):
            raise result.error
        # A read-only or missing folder is reported by other parts too (F19).
        logging.getLogger("ncaasd").warning("%s: %s; tried again", context.name, result.error)
        for name, body in files.items():
            if self._shown.get((context.name, name)) == _essence(body):  # nothing newer is on its way
                self._unwritten[context.name, name] = body
        self._retry = self._runtime.clock.monotonic() + RETRY

    def _write_again(self) -> None:
        again, self._unwritten = self._unwritten, {}
        for context in self._runtime.contexts.values():
            files = {name: body for (analysis, name), body in again.items() if analysis == context.name}
            for name in files:
                self._shown.pop((context.name, name), None)
            self._put(context, files)


def _essence(body: bytes) -> bytes:
    return b"\n".join(line for line in body.splitlines() if not line.startswith(b'  "updated"'))


def status_name(path: str) -> str:
    """`submissions/mouse7.yaml` -> `submissions/mouse7.status.json`."""
    return path.rpartition(".")[0] + ".status.json"


def _by_rule_and_unit(jobs: list[JobRow]) -> dict[str, list[JobRow]]:
    """The jobs of each unit of a rule, by its status file's name, `submissions/status/<rule>/<unit>.json`."""
    found: dict[str, list[JobRow]] = {}
    for job in jobs:
        if job.spec.origin is Origin.RULE:
            found.setdefault(_unit_name(job.spec.name, job.spec.unit), []).append(job)
    return found


def _unit_name(rule: str, unit: str) -> str:
    shown = unit.encode("utf-8", "backslashreplace").decode().replace("..", "_")
    return f"submissions/status/{rule}/{shown}.json"
