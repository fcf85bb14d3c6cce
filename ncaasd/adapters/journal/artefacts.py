"""Artefacts: what jobs left in S3, and what of it is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncaasd.adapters.journal.base import Base, column, only
from ncaasd.model import Artefact, ArtefactState, FetchProgress

_ARTEFACT = "id, job, name, bucket, key, size, etag, state, path, reason, retry_at, failures"


class Artefacts(Base):
    def want_artefact(self, job: int, name: str, bucket: str, key: str, size: int, etag: str) -> bool:
        """Note an object of a job's folder; True when it is new or changed, and so is to be fetched."""
        row = self._named("SELECT size, etag FROM artefact WHERE job=? AND name=?", job, name).fetchone()
        if row is not None and row["size"] == size and row["etag"] == etag:
            return False
        self._run(
            "INSERT INTO artefact (job, name, bucket, key, size, etag, state) VALUES (?,?,?,?,?,?,'wanted')"
            " ON CONFLICT (job, name) DO UPDATE SET bucket=excluded.bucket, key=excluded.key, size=excluded.size,"
            " etag=excluded.etag, state='wanted', reason='', retry_at=0, failures=0",
            job, name, bucket, key, size, etag,
        )  # fmt: skip
        self._run(
            "DELETE FROM fetched_range WHERE artefact=(SELECT id FROM artefact WHERE job=? AND name=?)", job, name
        )
        return True

    def artefacts(self, job: int, *, wanted: bool = False) -> list[Artefact]:
        return self._artefacts("job=?" + (" AND state='wanted'" if wanted else ""), job)

    def due_artefacts(self, job: int, now: float, limit: int, under_way: Sequence[int] = ()) -> list[Artefact]:
        """The artefacts of a job that are wanted and due, except those `under_way`."""
        marks = ",".join(str(int(i)) for i in under_way)
        return self._artefacts(
            f"job=? AND state='wanted' AND retry_at<=? AND id NOT IN ({marks})", job, now, limit=limit
        )

    def artefact(self, artefact: int) -> Artefact | None:
        return next(iter(self._artefacts("id=?", artefact)), None)

    def artefact_named(self, job: int, name: str) -> Artefact | None:
        return next(iter(self._artefacts("job=? AND name=?", job, name)), None)

    def _artefacts(self, where: str, *values: Any, limit: int = -1) -> list[Artefact]:
        which = f"FROM artefact WHERE {where} ORDER BY id LIMIT {int(limit)}"
        ranges: dict[int, list[tuple[int, int]]] = {}
        sql = f"SELECT artefact, start, stop FROM fetched_range WHERE artefact IN (SELECT id {which}) ORDER BY start"
        for r in self._named(sql, *values):
            ranges.setdefault(r["artefact"], []).append((r["start"], r["stop"]))
        return [
            Artefact(
                id=r["id"],
                job=r["job"],
                name=r["name"],
                bucket=r["bucket"],
                key=r["key"],
                size=r["size"],
                etag=r["etag"],
                state=ArtefactState(r["state"]),
                path=r["path"],
                reason=r["reason"],
                ranges=tuple(ranges.get(r["id"], ())),
                retry_at=r["retry_at"],
                failures=r["failures"],
            )
            for r in self._named(f"SELECT {_ARTEFACT} {which}", *values)
        ]

    def wants_any(self, job: int) -> bool:
        """Whether something of a job is still to be fetched."""
        return self._run("SELECT 1 FROM artefact WHERE job=? AND state='wanted' LIMIT 1", job).fetchone() is not None

    def bytes_wanted(self, job: int) -> int:
        """How many bytes of a job are still to be fetched."""
        answer = self._run(
            "SELECT coalesce(sum(size), 0) - coalesce((SELECT sum(stop - start) FROM fetched_range WHERE artefact IN"
            " (SELECT id FROM artefact WHERE job=?1 AND state='wanted')), 0) FROM artefact WHERE job=?1 AND state='wanted'",
            job,
        )
        return int(only(answer))

    def artefact_done(self, artefact: int, path: str) -> None:
        self._run("UPDATE artefact SET state='fetched', path=?, reason='', failures=0 WHERE id=?", path, artefact)
        self._run("DELETE FROM fetched_range WHERE artefact=?", artefact)

    def artefact_failed(
        self, artefact: int, reason: str, *, retry_at: float, failures: int, final: bool = False
    ) -> None:
        self._run(
            "UPDATE artefact SET state=?, reason=?, retry_at=?, failures=? WHERE id=?",
            ArtefactState.REFUSED if final else ArtefactState.WANTED, reason, retry_at, failures, artefact,
        )  # fmt: skip

    def drop_ranges(self, artefact: int) -> None:
        self._run("DELETE FROM fetched_range WHERE artefact=?", artefact)

    def drop_artefact(self, artefact: int) -> None:
        self._run("DELETE FROM artefact WHERE id=?", artefact)

    def refetch(self, job: int) -> None:
        """Everything of a job is wanted again (`ncaasd fetch`)."""
        self._run("UPDATE artefact SET state='wanted', retry_at=0, failures=0 WHERE job=?", job)

    def range_fetched(self, artefact: int, start: int, end: int) -> None:
        self._run(
            "INSERT OR REPLACE INTO fetched_range SELECT ?,?,? WHERE EXISTS (SELECT 1 FROM artefact WHERE id=?)",
            artefact, start, end, artefact,
        )  # fmt: skip

    def jobs_to_fetch(self) -> list[int]:
        """The rows of the jobs that have wanted artefacts."""
        return column(self._run("SELECT DISTINCT job FROM artefact WHERE state='wanted'"))

    def fetch_progress(self, job: int) -> FetchProgress:
        row = self._named(
            "SELECT coalesce(sum(state<>'wanted'), 0) AS files, count(*) AS of,"
            " coalesce(sum(CASE WHEN state<>'wanted' THEN size ELSE 0 END), 0) AS bytes, coalesce(sum(size), 0) AS of_bytes"
            " FROM artefact WHERE job=?",
            job,
        ).fetchone()
        return FetchProgress(**row)
