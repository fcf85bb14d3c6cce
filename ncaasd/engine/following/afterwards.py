"""Carry out `after_results`, step by step, for each job that is done. Decided in the engine thread; done on workers.

The steps are journaled when the job ends, and each can be begun again after a crash: an existing copy is compared, a
recording that was deleted already is skipped. Before each deletion the engine is asked once more whether it is allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ncaasd.declare.sections import Move
from ncaasd.engine.arriving.packaging import Packager
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import FileVanished, LocalError, NcaasdError, ToolFailed
from ncaasd.model import Artefact, Dataset, FileRow, FileState, JobRow
from ncaasd.plan.after_results import (
    LOCAL,
    REMOTE,
    RUN,
    archive_path,
    is_link,
    linked,
    needed,
    not_here,
    stays,
    steps,
    well_done,
)
from ncaasd.plan.files import in_words
from ncaasd.plan.retry import backoff
from ncaasd.subjects import of_file, of_job

AT_A_TIME = 20
TRIES_OF_A_TOOL = 5
SAID = 4000


class _Wait(LocalError):
    """Not yet: tried again later."""


@dataclass(frozen=True, slots=True)
class _Item:
    row: FileRow
    path: str  # absolute
    copy: str


class Afterwards(Part):
    def __init__(self, runtime: Runtime, packager: Packager, *, root: str, tools: Mapping[str, Sequence[str]]) -> None:
        self._runtime = runtime
        self._packager = packager
        self._root = root
        self._tools = tools
        self._busy: set[int] = set()

    def due(self) -> float | None:
        return None  # each turn looks for wanted steps, which is soon enough for postponed ones

    def busy(self) -> bool:
        return bool(self._busy)

    def pending(self, waits: Waits) -> bool:
        return any(True for _ in self._due())

    def finished(self, context: Context, job: JobRow) -> None:
        """A job has ended, and all its results are here. In a transaction."""
        if well_done(job):
            for step in steps(context.settings.after_results):
                self._runtime.journal.want_after_step(job.row, step)

    def turn(self) -> None:
        for context, job in list(self._due()):
            known = self._runtime.journal.after_steps(job.row)
            first = next(s for s in (RUN, LOCAL, REMOTE) if s in known and known[s].state == "wanted")
            self._begin(context, job, first)

    def _due(self) -> Iterator[tuple[Context, JobRow]]:
        runtime = self._runtime
        for row in runtime.journal.due_after_steps(runtime.clock.now(), AT_A_TIME + len(self._busy)):
            job = runtime.journal.job(row)
            context = runtime.contexts.get(job.spec.analysis) if job else None
            if job and context and row not in self._busy and context.opened and runtime.awake(context):
                yield context, job

    def _begin(self, context: Context, job: JobRow, step: str) -> None:
        settings = context.settings.after_results
        if step not in steps(settings) or not well_done(job):
            with self._runtime.transaction():
                self._runtime.journal.set_after_step(job.row, step, "left", "the config does not want it any more")
            return
        worker = f"afterwards:{context.name}"
        work: Callable[[], list[str]]
        if step == RUN:
            work = partial(self._run, context, job, self._command(context, job))
        elif step == LOCAL:
            work = partial(self._local, context, job, self._items(context, job))
        else:
            # Submits run on this worker too, one after the other: none can look for a dataset between our last check and our
            # delete.
            worker = f"submit:{context.name}"
            work = partial(self._remote, context, job)
        self._busy.add(job.row)
        self._runtime.mailbox.do(worker, work, lambda r: self._done(context, job, step, r))

    # -- the tool ----------------------------------------------------------------------------------------------------

    def _command(self, context: Context, job: JobRow) -> list[str]:
        name = context.settings.after_results.run
        assert name is not None
        folder = f"{self._root}/{context.name}/results/{job.results}"
        return [w.replace("{results}", folder).replace("{job}", job.job_id) for w in self._tools[name]]

    def _run(self, context: Context, job: JobRow, command: list[str]) -> list[str]:
        self._check_results(context, job)
        tools = self._runtime.tools
        assert tools is not None
        return [f"the tool said: {tools.run(command).strip()[-SAID:] or 'nothing'}"]

    # -- local inputs ------------------------------------------------------------------------------------------------

    def _items(self, context: Context, job: JobRow) -> list[_Item]:
        """The recordings of a job that are here: its datasets, or what its package was made of."""
        journal = self._runtime.journal
        rows: list[FileRow] = []
        for dataset in job.spec.datasets:
            row = journal.file_of(dataset)
            if row is not None:
                rows += self._packager.members_of(context, row) if row.place.is_package else [row]
        here = [r for r in rows if r.state is not FileState.GONE and not r.place.tree]
        root = context.trees[""].root
        settings = context.settings.after_results
        return [_Item(r, f"{root}/{r.place.path}", archive_path(settings, r.place.path)) for r in here]

    def _local(self, context: Context, job: JobRow, items: list[_Item]) -> list[str]:
        archive = self._runtime.archive
        assert archive is not None
        moves = isinstance(context.settings.after_results.local_inputs, Move)
        self._check_results(context, job)
        told, waits = [], []
        for item in items:
            why = self._runtime.mailbox.ask(partial(self._why_not, job, item))
            if why:
                told.append(f"{item.row.place.path} stays: {why}")
                continue
            try:
                if moves:
                    archive.copy(item.path, item.row.stat, item.copy)
                elif not archive.same(item.path, item.row.stat, item.copy):
                    raise _Wait(f"{item.copy} is not there, or not equal to {item.row.place.path}")
                self._delete(context, job, item)
            except FileVanished:
                continue
            except NcaasdError as error:
                waits.append(str(error))
        if waits:
            raise _Wait("; ".join(waits[:3]))
        return told

    def _delete(self, context: Context, job: JobRow, item: _Item) -> None:
        """Check once more, record, delete: in this order, so that the event log is never behind the disk."""
        archive = self._runtime.archive
        assert archive is not None

        def allow() -> str:
            why = self._why_not(job, item)
            if not why:
                text = (
                    f"deleted here: job {job.job_id} is done, its results are here, and {item.copy} has the same bytes"
                )
                self._runtime.event(context.name, of_file(item.row.place), "archived", text)
            return why

        why = self._runtime.mailbox.ask(allow)
        if why:
            raise _Wait(why)
        self._runtime.crash("afterwards.before_delete")
        archive.delete(item.path, item.row.stat)
        self._runtime.crash("afterwards.deleted")

    def _why_not(self, job: JobRow, item: _Item) -> str:
        """In the engine thread: why a recording stays; empty when it may be deleted. Raises _Wait when the reason may
        pass."""
        journal = self._runtime.journal
        row, fresh = journal.file(item.row.id), journal.job(job.row)
        if row is None or fresh is None or not well_done(fresh):
            return "its job is not done any more"
        packed = not any(d.is_of(item.row) for d in job.spec.datasets)
        if row.stat != item.row.stat:
            return "it has changed"
        why = stays(row, fresh) if not packed else is_link(row)
        if why:
            return why
        link = linked(journal.link_to(row.place))
        if link:
            raise _Wait(f"{row.place.path}: {link}")
        packages = [r for d in job.spec.datasets if packed and (r := journal.file_of(d)) is not None]
        waits = needed([j for r in (row, *packages) for j in journal.jobs_of_file(r)])
        if waits:
            raise _Wait(f"{row.place.path}: {waits}")
        return ""

    # -- remote inputs -----------------------------------------------------------------------------------------------

    def _remote(self, context: Context, job: JobRow) -> list[str]:
        self._check_results(context, job)
        store = context.store
        told = []
        for dataset in job.spec.datasets:
            key = dataset.key
            why = self._runtime.mailbox.ask(partial(self._why_not_remote, context, dataset))
            if why:
                told.append(f"{key} stays in S3: {why}")
                continue
            store.delete(key)
            told.append(f"deleted in S3: {key}")
        return told

    def _why_not_remote(self, context: Context, dataset: Dataset) -> str:
        journal, key = self._runtime.journal, dataset.key
        if not key.startswith(context.layout.inputs):
            return "it is not below this group's inputs/"
        stored = [r for r in journal.files_with_key(context.name, key) if r.stored is not None and r.ours]
        if not stored:
            return "this rig did not put it"
        if dataset.place is not None and not any(r.place == dataset.place for r in stored):
            return f"what is there now is of {in_words(stored[0].place)}"
        waits = needed(journal.jobs_using(context.name, key))
        if waits:
            raise _Wait(f"{key}: {waits}")
        return ""

    # -- both --------------------------------------------------------------------------------------------------------

    def _check_results(self, context: Context, job: JobRow) -> None:
        """On a worker: raise _Wait unless all that the job left is here now."""
        artefacts: list[Artefact] = self._runtime.mailbox.ask(lambda: self._runtime.journal.artefacts(job.row))
        context.results.check()
        why = not_here(artefacts)
        gone = [a.path for a in artefacts if not why and not context.results.matches(a.path, a.size)]
        if why or gone:
            raise _Wait(why or f"results/{gone[0]} is not here any more: `ncaasd fetch {job.job_id}` brings it back")

    def _done(self, context: Context, job: JobRow, step: str, result: Result[list[str]]) -> None:
        runtime = self._runtime
        self._busy.discard(job.row)
        before = runtime.journal.after_steps(job.row)[step]
        failures = before.failures + 1
        error = result.error
        if error is None:
            for line in result.get():
                runtime.event(context.name, of_job(job), "after results", line)
            runtime.journal.set_after_step(job.row, step, "done", "")
            return
        if not isinstance(error, NcaasdError):
            raise error
        runtime.handle(context, error)
        if step == RUN and failures >= TRIES_OF_A_TOOL:
            runtime.journal.set_after_step(job.row, step, "left", str(error))
            for later in (LOCAL, REMOTE):
                runtime.journal.set_after_step(job.row, later, "left", "the tool of after_results.run failed")
            text = f"{step}: given up after {failures} tries, and nothing is deleted: {error}"
            runtime.event(context.name, of_job(job), "after results", text, level=logging.ERROR)
            return
        wait = backoff(failures, first=60, most=6 * 3600, spread=runtime.spread())
        at = runtime.clock.now() + wait
        runtime.journal.set_after_step(job.row, step, "wanted", str(error), retry_at=at, failures=failures)
        known = runtime.journal.after_steps(job.row)
        for later in (RUN, LOCAL, REMOTE):  # later steps are not due before this one
            if later in known and known[later].state == "wanted" and later != step:
                runtime.journal.set_after_step(job.row, later, "wanted", "", retry_at=at)
        if before.reason != str(error):
            output = (
                f": {error.output.strip()[-SAID:]}" if isinstance(error, ToolFailed) and error.output.strip() else ""
            )
            text = f"{step} not done yet: {error}{output}"
            runtime.event(context.name, of_job(job), "after results", text, level=logging.WARNING)
