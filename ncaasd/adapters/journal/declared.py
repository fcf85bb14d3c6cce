"""What is declared: manifests as they were read, the packages that rules want, and what is to be done after the results."""

from __future__ import annotations

from ncaasd.adapters.journal.base import Base, path_in, path_out


class Declared(Base):
    # -- manifests ---------------------------------------------------------------------------------------------------

    def set_manifest(self, analysis: str, path: str, good: bytes | None, problems: str, now: float) -> None:
        """A right text replaces the old one; a wrong one is noted and leaves the old in force."""
        self._run(
            "INSERT INTO manifest VALUES (?,?,?,?,?) ON CONFLICT (analysis, path) DO UPDATE SET"
            " good=coalesce(excluded.good, good), problems=excluded.problems, read_at=excluded.read_at",
            analysis,
            path_out(path),
            good,
            problems,
            now,
        )

    def drop_manifest(self, analysis: str, path: str) -> None:
        self._run("DELETE FROM manifest WHERE analysis=? AND path=?", analysis, path_out(path))

    def manifests(self, analysis: str) -> list[tuple[str, bytes | None, str, float]]:
        """(path, the last right text, problems of the newest, when read)"""
        rows = self._run("SELECT path, good, problems, read_at FROM manifest WHERE analysis=? ORDER BY path", analysis)
        return [(path_in(r[0]), r[1], r[2], r[3]) for r in rows]

    # -- packages ----------------------------------------------------------------------------------------------------

    def package(self, analysis: str, rule: str, unit: str) -> tuple[int, str, float, int, str] | None:
        """(file id, fingerprint of what it was made of, when to try again, failures in a row, its tool's output)"""
        row = self._run(
            "SELECT file_id, inputs, retry_at, failures, output FROM package WHERE analysis=? AND rule=? AND unit=?",
            analysis, rule, path_out(unit),
        ).fetchone()  # fmt: skip
        return None if row is None else (row[0], row[1], row[2], row[3], row[4])

    def set_package(
        self,
        file_id: int,
        analysis: str,
        rule: str,
        unit: str,
        inputs: str,
        *,
        built: float = 0,
        retry_at: float = 0,
        failures: int = 0,
        output: str = "",
    ) -> None:
        self._run(
            "INSERT OR REPLACE INTO package (file_id, analysis, rule, unit, inputs, built, retry_at, failures, output)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            file_id, analysis, rule, path_out(unit), inputs, built, retry_at, failures, output,
        )  # fmt: skip

    def packages(self, analysis: str) -> list[tuple[str, str, int]]:
        """(rule, unit, file id) of every package that was wanted."""
        rows = self._run("SELECT rule, unit, file_id FROM package WHERE analysis=? ORDER BY file_id", analysis)
        return [(r[0], path_in(r[1]), r[2]) for r in rows]

    # -- after the results -------------------------------------------------------------------------------------------

    def want_aftercare(self, job: int, step: str) -> None:
        """What is to be done after a job's results are here; what was done already stays done."""
        self._run("INSERT OR IGNORE INTO aftercare (job, step, state) VALUES (?,?,'wanted')", job, step)

    def due_aftercare(self, now: float, limit: int) -> list[int]:
        """The jobs of which something is due."""
        rows = self._run(
            "SELECT DISTINCT job FROM aftercare WHERE state='wanted' AND retry_at<=? ORDER BY job LIMIT ?", now, limit
        )
        return [r[0] for r in rows]

    def set_aftercare(
        self, job: int, step: str, state: str, reason: str, *, retry_at: float = 0, failures: int = 0
    ) -> None:
        self._run(
            "UPDATE aftercare SET state=?, reason=?, retry_at=?, failures=? WHERE job=? AND step=?",
            state, reason, retry_at, failures, job, step,
        )  # fmt: skip

    def aftercare(self, job: int) -> dict[str, tuple[str, str, int]]:
        """step -> (wanted | done | left, why, failures in a row)"""
        rows = self._run("SELECT step, state, reason, failures FROM aftercare WHERE job=?", job)
        return {r[0]: (r[1], r[2], r[3]) for r in rows}
