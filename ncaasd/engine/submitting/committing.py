"""The commits of one submit (`submit_once.SubmitLog`), each in a transaction of the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Unpack

from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.submitting.assessing import Assessor
from ncaasd.engine.submitting.submit_once import Mark, SameJob
from ncaasd.errors import NcaasdError
from ncaasd.model import Dataset, FileState, JobDetails, JobRow, JobState, Origin, Phase
from ncaasd.neurocaas.naming import folder_name
from ncaasd.plan.considering import consider
from ncaasd.plan.submitting import same_job
from ncaasd.subjects import of_job


class Decider(Protocol):
    """The part of the engine that decides on submits."""

    @property
    def assessor(self) -> Assessor: ...

    def about_to_intend(self, context: Context, row: int, job_id: str) -> None:
        """In the intent's transaction: no other row may have its id."""

    def show(self, job: JobRow, state: JobState, reason: str, **fields: Unpack[JobDetails]) -> None:
        """Commit a state and its reason, for the manifest's status file too."""


class JournaledSubmit:
    """Implements `submit_once.SubmitLog`: every call returns after the commit."""

    def __init__(self, runtime: Runtime, jobs: Decider, context: Context, job: JobRow) -> None:
        self._runtime = runtime
        self._jobs = jobs
        self._context = context
        self._job = job

    def intend(
        self,
        job_id: str,
        attempt: int,
        key: str,
        body: bytes,
        config_key: str,
        config_etag: str,
        datasets: Sequence[Dataset],
    ) -> JobRow:
        def commit() -> JobRow:
            journal = self._runtime.journal
            job = journal.job(self._job.row)
            if job is None or job.phase is not Phase.OPEN:
                raise NcaasdError("it was cancelled just before its submit")
            if job.spec != self._job.spec:
                raise NcaasdError("its declaration has just been edited")
            same = journal.job_by_id(self._context.name, job_id)
            if same is not None and same.row != job.row and same.spec.origin is not Origin.ELSEWHERE:
                raise SameJob(same_job(job, same) or f"job {job_id} is of another file that had the same key")
            for dataset in datasets:
                row = journal.file_of(dataset)
                if row is not None and row.state is not FileState.GONE and row.etag != dataset.etag:
                    raise NcaasdError(f"{dataset.name} has just changed")
            # Since the job was considered, a file may have changed, its old name may have been found gone, or a person may
            # have held the job.
            step = consider(self._jobs.assessor.facts_just_before(self._context, job, config_key, config_etag))
            if not step.submit:
                raise NcaasdError(step.reason)
            self._jobs.about_to_intend(self._context, job.row, job_id)
            journal.update_job(
                job.row,
                phase=Phase.INTENT,
                job_id=job_id,
                attempt=attempt,
                submit_key=key,
                body=body,
                config_key=config_key,
                config_etag=config_etag,
                intended=self._runtime.clock.now(),
                results=folder_name(self._context.name, job_id),
            )
            journal.datasets_submitted(job.row, datasets)
            self._jobs.assessor.intended(job.row)
            self._runtime.event(self._context.name, of_job(job), "intended", f"its submit is {key}")
            found = journal.job(job.row)
            assert found is not None
            return found

        return self._runtime.mailbox.ask(commit)

    def configured(self, config_etag: str) -> None:
        def commit() -> None:
            job = self._runtime.journal.job(self._job.row)
            if job is None or job.phase is not Phase.INTENT:
                raise NcaasdError("it was cancelled or held just before its submit")
            waits = self._jobs.assessor.turn_of(self._context, job, job.config_key, config_etag)
            if waits:
                raise NcaasdError(f"waits for {waits}")
            self._runtime.journal.update_job(job.row, config_etag=config_etag)

        self._runtime.mailbox.ask(commit)

    def count(self) -> Mark:
        runtime, analysis, layout = self._runtime, self._context.name, self._context.layout

        def commit() -> Mark:
            count = runtime.journal.count_submit(analysis)
            older = (
                (layout.journal_mark(runtime.rig, count.generation, count.submits - 1),) if count.submits > 1 else ()
            )
            return Mark(layout.journal_mark(runtime.rig, count.generation, count.submits), older)

        return runtime.mailbox.ask(commit)

    def attempt(self) -> None:
        def commit() -> None:
            job = self._runtime.journal.job(self._job.row)
            if job is not None and not job.attempted:
                self._runtime.journal.update_job(job.row, phase=Phase.ATTEMPTED, attempted=self._runtime.clock.now())

        self._runtime.mailbox.ask(commit)

    def submitted(self, *, at: float, adopted: bool, reason: str) -> None:
        def commit() -> None:
            journal = self._runtime.journal
            job = journal.job(self._job.row)
            assert job is not None
            now = self._runtime.clock.now()
            text = f"adopted as job {job.job_id}: {reason}" if adopted else f"submitted as job {job.job_id}"
            self._jobs.show(
                job,
                JobState.SUBMITTED,
                f"submitted as {job.job_id}; nothing heard yet",
                phase=Phase.SUBMITTED,
                submitted=at if adopted else now,
                seen=at,
                hold=None,
                next_at=now + self._context.settings.jobs.poll.min,
            )
            self._runtime.event(self._context.name, of_job(job), "adopted" if adopted else "submitted", text)

        self._runtime.mailbox.ask(commit)
