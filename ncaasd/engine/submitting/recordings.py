"""Doubts about a job's data: renamed from what was analysed already, a sync program's copy, nothing but zeros. In the
engine thread; `plan` decides, from the journal's facts."""

from __future__ import annotations

from ncaasd.engine.arriving.packaging import Packager
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.model import Dataset, FileRow, FileState, JobRow, Place
from ncaasd.plan import renames
from ncaasd.plan.doubts import doubt
from ncaasd.plan.guards import Stop
from ncaasd.plan.renames import Piece


class Recordings:
    def __init__(self, runtime: Runtime, packager: Packager, sessions: Sessions) -> None:
        self._runtime = runtime
        self._packager = packager
        self._sessions = sessions

    def stop(self, context: Context, job: JobRow) -> Stop | None:
        """Why `job`, whose data is all in S3, must be held because of its data; None when it need not."""
        if job.attempt:
            return None
        journal = self._runtime.journal

        def at(place: Place) -> FileRow | None:
            row = journal.file_at(place)
            return None if row is None or row.state is FileState.GONE else row

        return doubt(
            job,
            [self._piece(context, job, d) for d in job.spec.datasets],
            at=at,
            gone_like=lambda row: journal.gone_like(
                context.name, row.stat, row.crc if row.stored else "", renames.COARSEST
            ),
            jobs_using=lambda key: journal.jobs_using(context.name, key),
            was=journal.file_at,
            given=lambda row: self._given(context, row),
        )

    def _given(self, context: Context, row: FileRow) -> list[JobRow]:
        """The jobs that were submitted with a file's content under another name, whose file is gone or has other content
        now."""
        journal = self._runtime.journal
        if row.state is not FileState.STORED or not row.etag:
            return []

        def there(dataset: Dataset) -> FileRow | None:
            if dataset.place is not None:
                return journal.file_at(dataset.place)
            return next(iter(journal.files_with_key(context.name, dataset.key)), None)

        return [
            job
            for job in journal.jobs_given(context.name, row.etag)
            for d in job.spec.datasets
            if d.etag == row.etag and d.key != row.key and renames.taken_over(row, there(d))
        ]

    def _piece(self, context: Context, job: JobRow, dataset: Dataset) -> Piece | None:
        """None when the dataset is no local file, or when it isn't known what it was made of."""
        row = self._runtime.journal.file_of(dataset)
        if row is None or row.state is FileState.GONE:
            return None
        return self._packed(context, job, row) if row.place.is_package else renames.itself(row)

    def _packed(self, context: Context, job: JobRow, row: FileRow) -> Piece | None:
        rules = (m for ms in context.rules.values() for m in ms)
        m = next((m for m in rules if m.packs and row.place.package_of == m.rule.name), None)
        unit = self._sessions.at(context.name, m, job.spec.unit) if m else None
        return renames.packed(m, unit, self._packager.of(context, m.rule.name)) if m and unit else None
