"""Jobs that others started: on the website, or from another rig. They are found by listing the group's results, followed
and fetched like our own, and never submitted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.following.looking import Snapshot
from ncaasd.errors import NcaasdError
from ncaasd.model import Dataset, JobChange, JobRow, JobSpec, JobState, Origin, Phase
from ncaasd.neurocaas.addresses import address_of
from ncaasd.neurocaas.certificate import Certificate
from ncaasd.neurocaas.naming import ID, Layout, folder_name, job_id_from_folder
from ncaasd.ports import ObjectStore
from ncaasd.subjects import of_job

FOUND = "found in the group's results, started elsewhere"


class Elsewhere:
    """With `results.fetch: all`, looks for new job folders now and then: one listing, at most every `jobs.poll.max`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._listing: set[str] = set()
        self._next: dict[str, float] = {}  # analysis -> monotonic time of the next listing

    def busy(self) -> bool:
        """Whether an analysis is being listed, or can be listed and has not been yet."""
        return bool(self._listing) or any(c.name not in self._next for c in self._all_wanted())

    def _all_wanted(self) -> list[Context]:
        contexts = self._runtime.contexts.values()
        return [c for c in contexts if c.settings.results.fetch == "all" and c.opened and self._runtime.awake(c)]

    def due(self) -> float | None:
        """Seconds until the next listing; None when none is planned besides those under way."""
        times = [self._next.get(c.name, 0.0) for c in self._all_wanted() if c.name not in self._listing]
        return min(times) - self._runtime.clock.monotonic() if times else None

    def turn(self) -> None:
        now = self._runtime.clock.monotonic()
        for context in self._all_wanted():
            if context.name not in self._listing and now >= self._next.get(context.name, 0.0):
                self._list(context)

    def _list(self, context: Context) -> None:
        self._listing.add(context.name)
        most = context.settings.jobs.poll.max
        self._next[context.name] = self._runtime.clock.monotonic() + most * (0.9 + 0.1 * self._runtime.spread())
        store, layout = context.store, context.layout
        self._runtime.mailbox.do("ask", lambda: every_job(store, layout), lambda r: self._listed(context, r))

    def _listed(self, context: Context, result: Result[list[str]]) -> None:
        self._listing.discard(context.name)
        if result.error is not None:
            if not isinstance(result.error, NcaasdError):
                raise result.error
            self._runtime.handle(context, result.error)
            return
        self.follow(context, result.get())

    def follow(self, context: Context, ids: Iterable[str]) -> list[JobRow]:
        """Follow the jobs of `ids` that the journal doesn't know, whatever their state; returns their new rows. In a
        transaction."""
        runtime = self._runtime
        known = runtime.journal.job_ids(context.name)
        rows = []
        for job_id in ids:
            if job_id in known:
                continue
            spec = JobSpec(
                analysis=context.name,
                name=job_id,
                unit="",
                version="",
                origin=Origin.ELSEWHERE,
                declared_in="",
                datasets=(),
                config="",
            )
            now = runtime.clock.now()
            row = runtime.journal.add_job(spec, 0, now)
            runtime.journal.update_job(
                row,
                phase=Phase.SUBMITTED,
                state=JobState.SUBMITTED,
                reason=FOUND,
                job_id=job_id,
                submitted=now,
                results=folder_name(context.layout.bucket, job_id),
            )
            job = runtime.journal.job(row)
            assert job is not None
            rows.append(job)
            runtime.event(context.name, of_job(job), "found", FOUND)
        return rows

    def learn(self, context: Context, job: JobRow, snapshot: Snapshot) -> JobRow:
        """Record what a look shows of a job that we did not start: its start time, datasets and config."""
        fields: JobChange = {}
        if not job.seen and snapshot.born:
            fields |= {"seen": snapshot.born, "submitted": snapshot.born}
        certificate = snapshot.certificate
        if certificate is not None and not job.spec.datasets and _has_said(certificate):
            prefix = context.layout.inputs
            datasets = [Dataset(key.removeprefix(prefix), key) for key in certificate.datasets]
            self._runtime.journal.datasets_submitted(job.row, datasets)
            fields |= {"config": certificate.config, "config_key": certificate.config, "total": len(datasets)}
            if certificate.output:
                fields["resultpath"] = address_of(*certificate.output)
        if not fields:
            return job
        self._runtime.journal.update_job(job.row, **fields)
        return self._runtime.journal.job(job.row) or job

    def is_ours_after_all(self, context: Context, row: int, job_id: str) -> int | None:
        """If job `job_id` is followed as started elsewhere, it was this rig's, of a lost journal, and `row` declares it
        again: merge what was found of it into `row`. Returns the row it had, else None."""
        found = self._runtime.journal.job_by_id(context.name, job_id)
        if found is None or found.row == row or found.spec.origin is not Origin.ELSEWHERE:
            return None
        self._runtime.journal.take_over(row, found.row)
        text = f"job {job_id}, thought to be started elsewhere, is of this rig"
        self._runtime.event(context.name, of_job(found), "ours", text, level=logging.WARNING)
        return found.row


def _has_said(certificate: Certificate) -> bool:
    """Whether its list of datasets is final: its first step is over, or the job goes on in another place."""
    return bool(certificate.datasets) and (1 in certificate.steps_done or certificate.output is not None)


def every_job(store: ObjectStore, layout: Layout) -> list[str]:
    """The ids of all job folders of the group. One listing."""
    names = (folder.removeprefix(layout.results).rstrip("/") for folder in store.folders(layout.results))
    ids = ((name, job_id_from_folder(name)) for name in names)
    return [i for name, i in ids if i and ID.fullmatch(i) and name == folder_name(layout.bucket, i)]


def those_there(store: ObjectStore, layout: Layout, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that have a job folder. One listing each."""
    return [i for i in ids if ID.fullmatch(i) and store.list(layout.job_folder(i)).objects]
