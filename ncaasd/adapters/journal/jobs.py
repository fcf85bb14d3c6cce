"""Jobs: every attempt of each, its datasets, and when it is to be looked at next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ncaasd.adapters.journal.base import Base, path_in, path_out
from ncaasd.model import CostNote, Dataset, FileRow, Hold, JobRow, JobSpec, JobState, Origin, Phase, Place
from ncaasd.plan.guards import expected_machines, per_dataset

DAY = 86400.0

_JOB = (
    "id, analysis, name, unit, version, attempt, origin, declared_in, config, overlay, instance_type, resultpath,"
    " job_id, phase, state, reason, hold, released, created, intended, attempted, submitted, ended, next_at, failures,"
    " submit_key, config_key, body, verdict, refused_kind, finished, total, cost_projected, cost_remaining, cost_over, seen,"
    " size, rebuilt, forgotten, results, quiet_looks, not_before, fields, machines, machine_verdicts, config_name,"
    " config_etag"
)
_NEWEST_JOB = (
    "NOT EXISTS (SELECT 1 FROM job AS later WHERE later.analysis=job.analysis AND later.name=job.name"
    " AND later.unit=job.unit AND later.version=job.version AND later.attempt>job.attempt)"
)

_JOB_FIELDS = frozenset(
    {
        "attempt",
        "job_id",
        "phase",
        "state",
        "reason",
        "hold",
        "released",
        "intended",
        "attempted",
        "submitted",
        "ended",
        "next_at",
        "not_before",
        "failures",
        "submit_key",
        "config_key",
        "body",
        "verdict",
        "refused_kind",
        "finished",
        "total",
        "seen",
        "size",
        "rebuilt",
        "forgotten",
        "results",
        "quiet_looks",
        "config",
        "overlay",
        "instance_type",
        "resultpath",
        "declared_in",
        "fields",
        "machines",
        "machine_verdicts",
        "config_name",
        "config_etag",
    }
)


class Jobs(Base):
    def add_job(self, spec: JobSpec, attempt: int, now: float, *, rebuilt: bool = False, size: int = 0) -> int:
        """A new attempt of a job; returns its row. The caller has made sure there is none."""
        row = self._run(
            "INSERT INTO job (analysis, name, unit, version, attempt, origin, declared_in, config, overlay, instance_type,"
            " resultpath, phase, state, created, next_at, rebuilt, total, size, fields, config_name)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,'open','waiting',?,0,?,?,?,?,?) RETURNING id",
            spec.analysis, spec.name, path_out(spec.unit), spec.version, attempt, spec.origin, path_out(spec.declared_in),
            spec.config, spec.overlay, spec.instance_type, spec.resultpath, now, int(rebuilt), len(spec.datasets), size,
            spec.fields, spec.config_name,
        ).fetchone()  # fmt: skip
        self._set_datasets(row[0], spec.datasets)
        return int(row[0])

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

    def update_job(self, row: int, **fields: Any) -> None:
        """Set columns by name; `cost` takes a CostNote."""
        cost = fields.pop("cost", None)
        if cost is not None:
            self._run(
                "UPDATE job SET cost_projected=?, cost_remaining=?, cost_over=? WHERE id=?",
                cost.projected, cost.remaining, cost.over_by, row,
            )  # fmt: skip
        if not fields:
            return
        unknown = fields.keys() - _JOB_FIELDS
        if unknown:
            raise ValueError(f"no such column of job: {sorted(unknown)}")
        if "released" in fields:
            fields["released"] = ",".join(sorted(fields["released"]))
        if "hold" in fields:
            fields["hold"] = fields["hold"] or ""
        names = ", ".join(f"{name}=?" for name in fields)
        values = [int(v) if isinstance(v, bool) else v for v in fields.values()]
        self._run(f"UPDATE job SET {names} WHERE id=?", *values, row)

    def respec_job(self, row: int, spec: JobSpec) -> None:
        """An open job follows its declaration: config, overlay, datasets. Its identity stays."""
        self.update_job(
            row,
            config=spec.config,
            overlay=spec.overlay,
            instance_type=spec.instance_type,
            resultpath=spec.resultpath,
            declared_in=path_out(spec.declared_in),
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
        return {r[0] for r in self._run("SELECT job_id FROM job WHERE analysis=? AND job_id<>''", analysis)}

    def submitted_ids(self, analysis: str) -> frozenset[str]:
        """The ids of the jobs of an analysis that were submitted, by whomever."""
        sql = "SELECT job_id FROM job WHERE analysis=? AND job_id<>'' AND phase IN ('submitted', 'ended')"
        return frozenset(r[0] for r in self._run(sql, analysis))

    def doubt_unended_jobs(self, analysis: str) -> None:
        """This journal is an old copy: what it knows as not submitted may have been since, and may have been run again after a
        refusal that it saw; whatever a person said of it was said before."""
        for row, released in self._run(
            "SELECT id, released FROM job WHERE phase<>'ended' AND +analysis=?", analysis
        ).fetchall():
            kept = frozenset(k for k in released.split(",") if k and k != "rebuilt")
            self.update_job(row, rebuilt=True, released=kept)

    def take_over(self, row: int, found: int) -> None:
        """Job `found`, which was thought to be started elsewhere, is job `row`: what was fetched of it is kept."""
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
        """When the next unfinished job, beside those `under_way`, is to be looked at."""
        marks = ",".join(str(int(row)) for row in under_way)
        row = self._run(f"SELECT min(next_at) FROM job WHERE phase<>'ended' AND id NOT IN ({marks})").fetchone()
        return None if row[0] is None else float(row[0])

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
        """All jobs, the newest first. `newest`: of each job only its last attempt. `since`: what is not over, and what was
        declared or has ended since then."""
        where = "WHERE (?1='' OR analysis=?1)" + (" AND phase<>'ended'" if unfinished else "")
        where += f" AND {_NEWEST_JOB}" if newest else ""
        where += " AND (?3=0 OR phase<>'ended' OR ended>=?3 OR created>=?3)"
        where += f" AND state IN ({','.join(f'?{4 + i}' for i in range(len(states)))})" if states else ""
        return self._jobs(where + " ORDER BY created DESC, id DESC LIMIT ?2", analysis, limit, since, *states)

    def jobs_called(self, name: str, analysis: str = "") -> list[JobRow]:
        """The jobs with this id or number (`12`, `#12`), every attempt; and the last attempts of those of this name or unit."""
        number = name.removeprefix("#")
        return self._jobs(
            f"WHERE (?1='' OR analysis=?1) AND (job_id=?2 OR id=?3 OR ((name=?2 OR unit=?4) AND {_NEWEST_JOB}))"
            " ORDER BY created DESC, id DESC",
            analysis, name, int(number) if number.isdecimal() and str(int(number)) == number else None, path_out(name),
        )  # fmt: skip

    def count_jobs(
        self, analysis: str = "", *, newest: bool = True, forgotten: bool = True
    ) -> list[tuple[str, str, int]]:
        """(analysis, state, jobs), counting last attempts, or all; with or without those that were forgotten."""
        rows = self._run(
            f"SELECT analysis, state, count(*) FROM job WHERE (?1='' OR analysis=?1) AND (?2 OR NOT forgotten)"
            f" AND (?3 OR {_NEWEST_JOB}) GROUP BY analysis, state",
            analysis, forgotten, not newest,
        )  # fmt: skip
        return [(r[0], r[1], r[2]) for r in rows]

    def held_jobs(self, analysis: str) -> list[tuple[JobRow, int, int, int]]:
        """What waits for a person, by name and kind of hold: (the newest job, jobs, machines, bytes), the newest first."""
        found = self._run(
            "SELECT max(id), count(*), sum(machines), sum(CASE machines WHEN 0 THEN total ELSE 0 END), sum(size), name"
            " FROM job WHERE phase<>'ended' AND +analysis=? AND NOT forgotten"
            f" AND hold<>'' AND {_NEWEST_JOB}"
            " GROUP BY name, hold ORDER BY max(id) DESC",
            analysis,
        ).fetchall()
        rows = {
            job.row: job
            for start in range(0, len(found), 500)
            for job in self._jobs_at([r[0] for r in found[start : start + 500]])
        }
        return [(rows[r[0]], r[1], self._machines(analysis, [(r[5], r[2], r[3])]), r[4]) for r in found]

    def jobs_with_news(self, analysis: str, limit: int) -> list[JobRow]:
        """Of the newest `limit` submitted jobs, those whose data may not be what they were given any more."""
        newest = (
            "SELECT id FROM job WHERE +analysis=?1 AND submitted>0 AND hold='' AND NOT forgotten"
            f" AND {_NEWEST_JOB} ORDER BY id DESC LIMIT ?2"
        )
        # CROSS JOIN: SQLite keeps this order, and so looks each dataset's key up.
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
        """Whether a job of a rule that is about a unit, or about a dataset in it, was submitted, or may have been."""
        low = path_out(unit) + b"/"
        found = self._run(
            "SELECT 1 FROM job WHERE analysis=? AND name=? AND (unit=? OR (unit>=? AND unit<?)) AND phase<>'open' LIMIT 1",
            analysis, name, path_out(unit), low, low[:-1] + b"0",
        )  # fmt: skip
        return found.fetchone() is not None

    def jobs_declared_in(self, analysis: str, declared_in: str) -> list[JobRow]:
        return self._jobs("WHERE analysis=? AND declared_in=? ORDER BY id", analysis, path_out(declared_in))

    def jobs_of_file(self, row: FileRow) -> list[JobRow]:
        """The jobs that have this local file as a dataset: not those of another one at its key."""
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

    def configs_at(self, analysis: str, key: str) -> list[tuple[str, str, bool]]:
        """(job id, the config's ETag, whether the job may be reading it) of the jobs that had their config at this key."""
        rows = self._run(
            "SELECT job_id, config_etag, phase<>'ended' AND verdict IS NULL FROM job"
            " WHERE config_etag<>'' AND analysis=? AND config_key=?",
            analysis,
            key,
        )
        return [(r[0], r[1], bool(r[2])) for r in rows]

    def wake_jobs_of_file(self, row: FileRow) -> None:
        """The jobs that are not submitted, of this file and of others at its key, are due."""
        self.wake_jobs_using(row.place.analysis, row.key)
        self._run(
            "UPDATE job SET next_at=0 WHERE phase='open' AND +analysis=?"
            " AND id IN (SELECT job FROM job_dataset WHERE path=? AND tree=?)",
            row.place.analysis,
            path_out(row.place.path),
            row.place.tree,
        )

    def jobs_using(self, analysis: str, key: str) -> list[JobRow]:
        """The jobs that have the object at a key as a dataset, whichever local file it was made of: what may be read there."""
        # The + keeps SQLite from going through every job of the analysis.
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
        """What is not submitted yet is due again, a submit that was cut short included."""
        self._run(
            "UPDATE job SET next_at=0 WHERE phase<>'ended' AND phase IN ('open', 'intent', 'attempted') AND +analysis=?1"
            " AND (?2='' OR name=?2)",
            analysis,
            name,
        )

    def wake_unit(self, analysis: str, name: str, unit: str) -> None:
        """The jobs of a rule that are about a unit, or about a dataset in it, and not submitted, are due again. "" is all of the
        rule's."""
        low = path_out(unit) + b"/" if unit else b""
        self._run(
            "UPDATE job SET next_at=0 WHERE analysis=? AND name=? AND (?3=x'' OR unit=?3 OR (unit>=?4 AND unit<?5))"
            " AND phase='open'",
            analysis, name, path_out(unit), low, low[:-1] + b"0",
        )  # fmt: skip

    def wake_unended_jobs(self, analysis: str) -> None:
        """At start nothing is under way, so everything is due: also the submit that a crash has left in the middle."""
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND +analysis=?", analysis)

    def wake_ready_jobs(self, analysis: str, limit: int) -> None:
        """A machine is free: the oldest jobs that queue are due again."""
        self._run(
            "UPDATE job SET next_at=0 WHERE id IN (SELECT id FROM job WHERE phase<>'ended' AND phase='open' AND +analysis=?"
            " AND hold='' AND state IN ('ready', 'held') ORDER BY created, id LIMIT ?)",
            analysis,
            limit,
        )

    def _jobs(self, where: str, *values: Any) -> list[JobRow]:
        rows = self._run(f"SELECT {_JOB} FROM job {where}", *values).fetchall()
        ids = [r[0] for r in rows]
        analyses = {r[0]: r[1] for r in rows}
        datasets: dict[int, list[Dataset]] = {i: [] for i in ids}
        for start in range(0, len(ids), 500):
            chunk = ids[start : start + 500]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT job, name, key, etag, tree, path FROM job_dataset WHERE job IN ({marks}) ORDER BY job, position"
            for job, name, key, etag, tree, path in self._run(sql, *chunk):
                place = None if path is None else Place(analyses[job], tree, path_in(path))
                datasets[job].append(Dataset(path_in(name), key, etag, place))
        return [_job(r, tuple(datasets[r[0]])) for r in rows]

    def _jobs_at(self, rows: Sequence[int]) -> list[JobRow]:
        return self._jobs(f"WHERE id IN ({','.join('?' * len(rows))})", *rows)

    def usage(self, analysis: str, now: float) -> tuple[int, int]:
        """(machines of jobs that run now, machines of jobs submitted in the 24 h before `now`), for the spend guards.

        A job whose certificate hasn't told yet counts as `plan.guards` expects of its rule.
        A submit that may have been sent counts as sent; one that is held before it was counts as none. What lies more than a
        day ahead was written by a wrong clock.
        """
        unsent = "phase='intent' AND hold<>''"
        counts = (
            "SELECT name, sum(machines), sum(CASE machines WHEN 0 THEN total ELSE 0 END) FROM job"
            " WHERE analysis=? AND origin<>'elsewhere'"
        )
        active = self._run(
            f"{counts} AND verdict IS NULL AND phase IN ('intent', 'attempted', 'submitted') AND NOT ({unsent})"
            " GROUP BY name",
            analysis,
        ).fetchall()
        recent = self._run(
            f"{counts} AND phase<>'open' AND max(submitted, attempted, intended) BETWEEN ? AND ? AND NOT ({unsent})"
            " GROUP BY name",
            analysis,
            now - DAY,
            now + DAY,
        ).fetchall()
        return self._machines(analysis, active), self._machines(analysis, recent)

    def _machines(self, analysis: str, counts: Iterable[tuple[str, int, int]]) -> int:
        """Of rows of: a rule's or job's name, machines that are known, datasets of which they aren't."""
        total = 0
        for name, known, datasets in counts:
            total += known + (expected_machines(datasets, self.machines_per_dataset(analysis, name)) if datasets else 0)
        return total

    def machines_per_dataset(self, analysis: str, name: str) -> float:
        """How many machines a job of this name is expected to have for each dataset (`plan.guards.per_dataset`)."""
        of_name = self._run(
            "SELECT machines, total FROM job WHERE analysis=? AND name=? AND machines>0 AND origin<>'elsewhere'"
            " ORDER BY id DESC LIMIT 1",
            analysis, name,
        ).fetchone()  # fmt: skip
        of_analysis = self._run(
            "SELECT machines, total FROM job WHERE analysis=? AND machines>0 AND origin<>'elsewhere'"
            " ORDER BY id DESC LIMIT 1",
            analysis,
        ).fetchone()  # fmt: skip
        return per_dataset(of_name, of_analysis)


def _job(r: Sequence[Any], datasets: tuple[Dataset, ...]) -> JobRow:
    spec = JobSpec(
        analysis=r[1],
        name=r[2],
        unit=path_in(r[3]),
        version=r[4],
        origin=Origin(r[6]),
        declared_in=path_in(r[7]),
        datasets=datasets,
        config=r[8],
        overlay=r[9],
        instance_type=r[10],
        resultpath=r[11],
        fields=r[42],
        config_name=r[45],
    )
    return JobRow(
        row=r[0],
        spec=spec,
        attempt=r[5],
        job_id=r[12],
        phase=Phase(r[13]),
        state=JobState(r[14]),
        reason=r[15],
        hold=Hold(r[16]) if r[16] else None,
        released=frozenset(k for k in r[17].split(",") if k),
        created=r[18],
        intended=r[19],
        attempted=r[20],
        submitted=r[21],
        ended=r[22],
        next_at=r[23],
        failures=r[24],
        submit_key=r[25],
        config_key=r[26],
        body=r[27],
        verdict=None if r[28] is None else JobState(r[28]),
        refused_kind=r[29],
        finished=r[30],
        total=r[31],
        cost=None if r[32] is None else CostNote(r[32], r[33], r[34]),
        seen=r[35],
        size=r[36],
        rebuilt=bool(r[37]),
        forgotten=bool(r[38]),
        results=r[39],
        quiet_looks=r[40],
        not_before=r[41],
        machines=r[43],
        machine_verdicts=r[44],
        config_etag=r[46],
    )
