"""Jobs: every attempt of each, its datasets, and when it is due next."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Unpack

from ncaasd.adapters.journal.base import Base, column, only, path_out
from ncaasd.adapters.journal.rows import (
    DATASET,
    JOB,
    ConfigAt,
    DatasetColumns,
    HeldJobs,
    JobColumns,
    JobCount,
    dataset_of,
    job_row,
    released_in,
    released_out,
)
from ncaasd.model import Dataset, FileRow, JobChange, JobRow, JobSpec, JobState, MachinesUsed
from ncaasd.plan.guards import Known, expected_machines, per_dataset

DAY = 86400.0

_JOB_FIELDS = frozenset(JobChange.__annotations__)
# Of jobs of one name: the sum of their machines where known, and the datasets of the jobs whose machines aren't known.
_MACHINES = "name, sum(machines) AS known, sum(CASE machines WHEN 0 THEN total ELSE 0 END) AS datasets"
_NEWEST_JOB = (
    "NOT EXISTS (SELECT 1 FROM job AS later WHERE later.analysis=job.analysis AND later.name=job.name"
    " AND later.unit=job.unit AND later.version=job.version AND later.attempt>job.attempt)"
)


class Jobs(Base):
    def add_job(self, spec: JobSpec, attempt: int, now: float, *, rebuilt: bool = False, size: int = 0) -> int:
        """A new attempt of a job; returns its row. The caller has made sure there is none."""
        inserted = self._run(
            "INSERT INTO job (analysis, name, unit, version, attempt, origin, declared_in, config, overlay, instance_type,"
            " resultpath, phase, state, created, next_at, rebuilt, total, size, fields, config_name)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,'open','waiting',?,0,?,?,?,?,?) RETURNING id",
            spec.analysis, spec.name, path_out(spec.unit), spec.version, attempt, spec.origin, path_out(spec.declared_in),
            spec.config, spec.overlay, spec.instance_type, spec.resultpath, now, int(rebuilt), len(spec.datasets), size,
            spec.fields, spec.config_name,
        ).fetchone()  # fmt: skip
        (row,) = inserted
        self._set_datasets(row, spec.datasets)
        return int(row)

    def _set_datasets(self, job: int, datasets: Iterable[Dataset]) -> None:
        self._run("DELETE FROM job_dataset WHERE job=?", job)
        self._many(
            "INSERT INTO job_dataset (job, position, name, key, etag, tree, path) VALUES (?,?,?,?,?,?,?)",
            (
                (
                    job,
                    i,
                    path_out(d.name),
                    d.key,
                    d.etag,
                    *((d.place.tree, path_out(d.place.path)) if d.place else (None, None)),
                )
                for i, d in enumerate(datasets)
            ),
        )

    def update_job(self, row: int, **change: Unpack[JobChange]) -> None:
        """Set columns by name."""
        if not change.keys() <= _JOB_FIELDS:
            raise ValueError(f"no such column of job: {sorted(change.keys() - _JOB_FIELDS)}")
        values = _columns(change)
        if values:
            names = ", ".join(f"{name}=?" for name in values)
            self._run(f"UPDATE job SET {names} WHERE id=?", *values.values(), row)

    def respec_job(self, row: int, spec: JobSpec) -> None:
        """Update an open job to its present declaration: config, overlay, datasets. Its identity stays."""
        self.update_job(
            row,
            config=spec.config,
            overlay=spec.overlay,
            instance_type=spec.instance_type,
            resultpath=spec.resultpath,
            declared_in=spec.declared_in,
            total=len(spec.datasets),
            fields=spec.fields,
            config_name=spec.config_name,
        )
        self._set_datasets(row, spec.datasets)

    def datasets_submitted(self, row: int, datasets: Iterable[Dataset]) -> None:
        """Note what was at each dataset's key when the job was intended."""
        self._set_datasets(row, datasets)

    def drop_job(self, row: int) -> None:
        """Only of a job in phase open: nothing of it exists outside this journal."""
        self._run("DELETE FROM job WHERE id=? AND phase='open'", row)

    def job(self, row: int) -> JobRow | None:
        found = self._jobs("WHERE id=?", row)
        return found[0] if found else None

    def job_by_id(self, analysis: str, job_id: str) -> JobRow | None:
        found = self._jobs("WHERE analysis=? AND job_id=? AND job_id<>''", analysis, job_id)
        return found[0] if found else None

    def job_ids(self, analysis: str) -> set[str]:
        """The ids of every job of an analysis that was ever known."""
        return set(column(self._run("SELECT job_id FROM job WHERE analysis=? AND job_id<>''", analysis)))

    def submitted_ids(self, analysis: str) -> frozenset[str]:
        """The ids of the jobs of an analysis that were submitted, from here or elsewhere."""
        sql = "SELECT job_id FROM job WHERE analysis=? AND job_id<>'' AND phase IN ('submitted', 'ended')"
        return frozenset(column(self._run(sql, analysis)))

    def doubt_unended_jobs(self, analysis: str) -> None:
        """Mark the jobs that have not ended as rebuilt, because this journal is an old copy: they may have been submitted since,
        or run again after a refusal that it has. Releases it has are older than that, so `rebuilt` is taken out of them."""
        rows = self._named("SELECT id, released FROM job WHERE phase<>'ended' AND +analysis=?", analysis).fetchall()
        for r in rows:
            self.update_job(r["id"], rebuilt=True, released=released_in(r["released"]) - {"rebuilt"})

    def take_over(self, row: int, found: int) -> None:
        """Merge job `found`, which was thought to be started elsewhere, into job `row`, which keeps its artefacts."""
        self._run("UPDATE artefact SET job=? WHERE job=?", row, found)
        self._run("DELETE FROM job WHERE id=? AND origin='elsewhere'", found)

    def attempts(self, analysis: str, name: str, unit: str, version: str) -> list[JobRow]:
        """Every attempt of one job, the newest last."""
        return self._jobs(
            "WHERE analysis=? AND name=? AND unit=? AND version=? ORDER BY attempt",
            analysis,
            name,
            path_out(unit),
            version,
        )

    def due_jobs(self, now: float, limit: int) -> list[JobRow]:
        return self._jobs(
            "WHERE phase<>'ended' AND next_at<=? ORDER BY phase='open', next_at, created LIMIT ?", now, limit
        )

    def next_due(self, under_way: Sequence[int] = ()) -> float | None:
        """When the next unfinished job, except those `under_way`, is due."""
        marks = ",".join(str(int(row)) for row in under_way)
        at = only(self._run(f"SELECT min(next_at) FROM job WHERE phase<>'ended' AND id NOT IN ({marks})"))
        return None if at is None else float(at)

    def jobs(
        self,
        analysis: str = "",
        *,
        unfinished: bool = False,
        newest: bool = False,
        since: float = 0.0,
        states: Collection[str] = (),
        limit: int = -1,
    ) -> list[JobRow]:
        """All jobs, the newest first. `newest`: only the last attempt of each job. `since`: only those that have not ended, or
        were declared or have ended since then."""
        where = "WHERE (?1='' OR analysis=?1)" + (" AND phase<>'ended'" if unfinished else "")
        where += f" AND {_NEWEST_JOB}" if newest else ""
        where += " AND (?3=0 OR phase<>'ended' OR ended>=?3 OR created>=?3)"
        where += f" AND state IN ({','.join(f'?{4 + i}' for i in range(len(states)))})" if states else ""
        return self._jobs(where + " ORDER BY created DESC, id DESC LIMIT ?2", analysis, limit, since, *states)

    def jobs_called(self, name: str, analysis: str = "") -> list[JobRow]:
        """Every attempt with this id or row number (`12`, `#12`), and the last attempt of each job of this name or unit."""
        number = name.removeprefix("#")
        return self._jobs(
            f"WHERE (?1='' OR analysis=?1) AND (job_id=?2 OR id=?3 OR ((name=?2 OR unit=?4) AND {_NEWEST_JOB}))"
            " ORDER BY created DESC, id DESC",
            analysis, name, int(number) if number.isdecimal() and str(int(number)) == number else None, path_out(name),
        )  # fmt: skip

    def count_jobs(self, analysis: str = "", *, newest: bool = True, forgotten: bool = True) -> list[JobCount]:
        """The jobs by analysis and state: their last attempts or all, with or without those that were forgotten."""
        rows = self._named(
            f"SELECT analysis, state, count(*) AS jobs FROM job WHERE (?1='' OR analysis=?1) AND (?2 OR NOT forgotten)"
            f" AND (?3 OR {_NEWEST_JOB}) GROUP BY analysis, state",
            analysis, forgotten, not newest,
        )  # fmt: skip
        return [JobCount(r["analysis"], JobState(r["state"]), r["jobs"]) for r in rows]

    def held_jobs(self, analysis: str) -> list[HeldJobs]:
        """The held jobs, by name and kind of hold, the newest first."""
        found = self._named(
            f"SELECT max(id) AS newest, count(*) AS jobs, {_MACHINES}, sum(size) AS bytes"
            " FROM job WHERE phase<>'ended' AND +analysis=? AND NOT forgotten"
            f" AND hold<>'' AND {_NEWEST_JOB}"
            " GROUP BY name, hold ORDER BY max(id) DESC",
            analysis,
        ).fetchall()
        rows = {
            job.row: job
            for start in range(0, len(found), 500)
            for job in self._jobs_at([r["newest"] for r in found[start : start + 500]])
        }
        return [HeldJobs(rows[r["newest"]], r["jobs"], self._machines(analysis, [r]), r["bytes"]) for r in found]

    def jobs_with_news(self, analysis: str, limit: int) -> list[JobRow]:
        """Of the newest `limit` submitted jobs, those whose data may have changed since they were submitted."""
        newest = (
            "SELECT id FROM job WHERE +analysis=?1 AND submitted>0 AND hold='' AND NOT forgotten"
            f" AND {_NEWEST_JOB} ORDER BY id DESC LIMIT ?2"
        )
        # CROSS JOIN: SQLite keeps this order, so it looks up each dataset's key in the index.
        changed = (
            "SELECT 1 FROM job_dataset AS d CROSS JOIN file AS f INDEXED BY file_key ON f.analysis=?1 AND f.key=d.key"
            " AND f.key<>'' AND (d.path IS NULL OR (f.path=d.path AND f.tree=d.tree))"
            " WHERE d.job=job.id AND d.etag<>'' AND f.stored_size IS NOT NULL"
            " AND f.state NOT IN ('gone', 'refused', 'skipped') AND (f.etag<>d.etag OR f.state IN ('settling', 'whole'))"
        )
        return self._jobs(f"WHERE id IN ({newest}) AND EXISTS ({changed}) ORDER BY id DESC", analysis, limit)

    def jobs_of_rule(self, analysis: str, name: str) -> list[JobRow]:
        return self._jobs("WHERE analysis=? AND name=? AND forgotten=0", analysis, name)

    def unit_sent(self, analysis: str, name: str, unit: str) -> bool:
        """Whether a rule's job for a unit, or for a dataset in it, was submitted, or may have been."""
        low = path_out(unit) + b"/"
        found = self._run(
            "SELECT 1 FROM job WHERE analysis=? AND name=? AND (unit=? OR (unit>=? AND unit<?)) AND phase<>'open' LIMIT 1",
            analysis, name, path_out(unit), low, low[:-1] + b"0",
        )  # fmt: skip
        return found.fetchone() is not None

    def jobs_declared_in(self, analysis: str, declared_in: str) -> list[JobRow]:
        return self._jobs("WHERE analysis=? AND declared_in=? ORDER BY id", analysis, path_out(declared_in))

    def jobs_of_file(self, row: FileRow) -> list[JobRow]:
        """The jobs that have this local file as a dataset, without those of another file at its key."""
        place = row.place
        found = self._jobs(
            "WHERE +analysis=? AND id IN (SELECT job FROM job_dataset WHERE path=? AND tree=?"
            " UNION SELECT job FROM job_dataset WHERE key=? AND key<>'' AND path IS NULL)",
            place.analysis,
            path_out(place.path),
            place.tree,
            row.key,
        )
        return [j for j in found if any(d.is_of(row) for d in j.spec.datasets)]

    def configs_at(self, analysis: str, key: str) -> list[ConfigAt]:
        """The jobs that had their config at this key."""
        rows = self._named(
            "SELECT job_id, config_etag, phase<>'ended' AND verdict IS NULL AS reading FROM job"
            " WHERE config_etag<>'' AND analysis=? AND config_key=?",
            analysis,
            key,
        )
        return [ConfigAt(r["job_id"], r["config_etag"], bool(r["reading"])) for r in rows]

    def wake_jobs_of_file(self, row: FileRow) -> None:
        """Make due the jobs that are not submitted, of this file and of others at its key."""
        self.wake_jobs_using(row.place.analysis, row.key)
        self._run(
            "UPDATE job SET next_at=0 WHERE phase='open' AND +analysis=?"
            " AND id IN (SELECT job FROM job_dataset WHERE path=? AND tree=?)",
            row.place.analysis,
            path_out(row.place.path),
            row.place.tree,
        )

    def jobs_using(self, analysis: str, key: str) -> list[JobRow]:
        """The jobs that have the object at a key as a dataset, whichever local file it was uploaded from."""
        # The + keeps SQLite from reading every job of the analysis.
        return self._jobs("WHERE +analysis=? AND id IN (SELECT job FROM job_dataset WHERE key=?)", analysis, key)

    def jobs_given(self, analysis: str, etag: str) -> list[JobRow]:
        """The newest hundred jobs that were submitted with a dataset of this content."""
        given = "SELECT job FROM job_dataset INDEXED BY job_dataset_etag WHERE etag=? AND etag<>'' ORDER BY job DESC LIMIT 100"
        return self._jobs(f"WHERE id IN ({given}) AND +analysis=?", etag, analysis)

    def wake_jobs_using(self, analysis: str, key: str) -> None:
        self._run(
            "UPDATE job SET next_at=0 WHERE phase='open' AND +analysis=? AND id IN (SELECT job FROM job_dataset WHERE key=?)",
            analysis,
            key,
        )

    def wake_open_jobs(self, analysis: str, name: str = "") -> None:
        """Make due the jobs that are not submitted yet, those whose submit was interrupted included."""
        self._run(
            "UPDATE job SET next_at=0 WHERE phase<>'ended' AND phase IN ('open', 'intent', 'attempted') AND +analysis=?1"
            " AND (?2='' OR name=?2)",
            analysis,
            name,
        )

    def wake_unit(self, analysis: str, name: str, unit: str) -> None:
        """Make due a rule's jobs for a unit, or for a dataset in it, that are not submitted; for every unit when it is ""."""
        low = path_out(unit) + b"/" if unit else b""
        self._run(
            "UPDATE job SET next_at=0 WHERE analysis=? AND name=? AND (?3=x'' OR unit=?3 OR (unit>=?4 AND unit<?5))"
            " AND phase='open'",
            analysis, name, path_out(unit), low, low[:-1] + b"0",
        )  # fmt: skip

    def wake_unended_jobs(self, analysis: str) -> None:
        """Make due all jobs that have not ended. At start nothing is under way, but a crash may have interrupted a submit."""
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND +analysis=?", analysis)

    def wake_ready_jobs(self, analysis: str, limit: int) -> None:
        """Make due the oldest `limit` jobs that queue, because machines have become free."""
        self._run(
            "UPDATE job SET next_at=0 WHERE id IN (SELECT id FROM job WHERE phase<>'ended' AND phase='open' AND +analysis=?"
            " AND hold='' AND state IN ('ready', 'held') ORDER BY created, id LIMIT ?)",
            analysis,
            limit,
        )

    def _jobs(self, where: str, *values: Any) -> list[JobRow]:
        rows = [JobColumns._make(row) for row in self._run(f"SELECT {JOB} FROM job {where}", *values)]
        ids = [r.id for r in rows]
        analyses = {r.id: r.analysis for r in rows}
        datasets: dict[int, list[Dataset]] = {i: [] for i in ids}
        for start in range(0, len(ids), 500):
            chunk = ids[start : start + 500]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT {DATASET} FROM job_dataset WHERE job IN ({marks}) ORDER BY job, position"
            for d in map(DatasetColumns._make, self._run(sql, *chunk)):
                datasets[d.job].append(dataset_of(d, analyses[d.job]))
        return [job_row(r, tuple(datasets[r.id])) for r in rows]

    def _jobs_at(self, rows: Sequence[int]) -> list[JobRow]:
        return self._jobs(f"WHERE id IN ({','.join('?' * len(rows))})", *rows)

    def usage(self, analysis: str, now: float) -> MachinesUsed:
        """The day is the 24 h before `now`.

        A job whose machines are not known yet counts as `plan.guards` expects of its name. A submit that may have been sent
        counts as sent; one that was held before it was sent doesn't count. Times more than a day ahead are of a wrong clock.
        """
        unsent = "phase='intent' AND hold<>''"
        counts = f"SELECT {_MACHINES} FROM job WHERE analysis=? AND origin<>'elsewhere'"
        active = self._named(
            f"{counts} AND verdict IS NULL AND phase IN ('intent', 'attempted', 'submitted') AND NOT ({unsent})"
            " GROUP BY name",
            analysis,
        ).fetchall()
        recent = self._named(
            f"{counts} AND phase<>'open' AND max(submitted, attempted, intended) BETWEEN ? AND ? AND NOT ({unsent})"
            " GROUP BY name",
            analysis,
            now - DAY,
            now + DAY,
        ).fetchall()
        return MachinesUsed(self._machines(analysis, active), self._machines(analysis, recent))

    def _machines(self, analysis: str, counts: Iterable[sqlite3.Row]) -> int:
        """The machines of rows that have the columns of `_MACHINES`, known or expected."""
        total = 0
        for r in counts:
            total += r["known"]
            if r["datasets"]:
                total += expected_machines(r["datasets"], self.machines_per_dataset(analysis, r["name"]))
        return total

    def machines_per_dataset(self, analysis: str, name: str) -> float:
        """How many machines a job of this name is expected to have for each dataset (`plan.guards.per_dataset`)."""
        of_name = self._newest_known("analysis=? AND name=?", analysis, name)
        return per_dataset(of_name, self._newest_known("analysis=?", analysis))

    def _newest_known(self, whose: str, *values: str) -> Known:
        row = self._named(
            f"SELECT machines, total FROM job WHERE {whose} AND machines>0 AND origin<>'elsewhere' ORDER BY id DESC LIMIT 1",
            *values,
        ).fetchone()
        return None if row is None else (row["machines"], row["total"])


def _columns(change: JobChange) -> dict[str, Any]:
    """A change as values of the table's columns."""
    values: dict[str, Any] = {**change}
    if "cost" in change:
        cost = values.pop("cost")
        values |= {"cost_projected": cost.projected, "cost_remaining": cost.remaining, "cost_over": cost.over_by}
    if "hold" in change:
        values["hold"] = change["hold"] or ""
    if "released" in change:
        values["released"] = released_out(change["released"])
    if "declared_in" in change:
        values["declared_in"] = path_out(change["declared_in"])
    return {name: int(value) if isinstance(value, bool) else value for name, value in values.items()}
