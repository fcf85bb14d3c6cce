"""What is declared: manifests as they were read, the packages that rules want, and what is to be done after the results."""

from __future__ import annotations

from ncaasd.adapters.journal.base import Base, column, path_in, path_out
from ncaasd.adapters.journal.rows import ManifestRow, PackageRow, WantedPackage
from ncaasd.model import AfterStep


class Declared(Base):
    # -- manifests ---------------------------------------------------------------------------------------------------

    def set_manifest(self, analysis: str, path: str, good: bytes | None, problems: str, now: float) -> None:
        """A valid text (`good`) replaces the old one; when it is invalid (None), `problems` is noted and the old one stays."""
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

    def manifests(self, analysis: str) -> list[ManifestRow]:
        """In the order of their paths."""
        rows = self._named(
            "SELECT path, good, problems, read_at FROM manifest WHERE analysis=? ORDER BY path", analysis
        )
        return [ManifestRow(path_in(r["path"]), r["good"], r["problems"], r["read_at"]) for r in rows]

    # -- packages ----------------------------------------------------------------------------------------------------

    def package(self, analysis: str, rule: str, unit: str) -> PackageRow | None:
        row = self._named(
            "SELECT file_id, inputs, retry_at, failures, output FROM package WHERE analysis=? AND rule=? AND unit=?",
            analysis, rule, path_out(unit),
        ).fetchone()  # fmt: skip
        return None if row is None else PackageRow(**row)

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

    def packages(self, analysis: str) -> list[WantedPackage]:
        """Every package that was wanted."""
        rows = self._named("SELECT rule, unit, file_id FROM package WHERE analysis=? ORDER BY file_id", analysis)
        return [WantedPackage(r["rule"], path_in(r["unit"]), r["file_id"]) for r in rows]

    # -- after the results -------------------------------------------------------------------------------------------

    def want_after_step(self, job: int, step: str) -> None:
        """Note a step to be done after a job's results are here; one that is noted already stays as it is."""
        self._run("INSERT OR IGNORE INTO aftercare (job, step, state) VALUES (?,?,'wanted')", job, step)

    def due_after_steps(self, now: float, limit: int) -> list[int]:
        """The rows of the jobs that have steps due."""
        sql = "SELECT DISTINCT job FROM aftercare WHERE state='wanted' AND retry_at<=? ORDER BY job LIMIT ?"
        return column(self._run(sql, now, limit))

    def set_after_step(
        self, job: int, step: str, state: str, reason: str, *, retry_at: float = 0, failures: int = 0
    ) -> None:
        self._run(
            "UPDATE aftercare SET state=?, reason=?, retry_at=?, failures=? WHERE job=? AND step=?",
            state, reason, retry_at, failures, job, step,
        )  # fmt: skip

    def after_steps(self, job: int) -> dict[str, AfterStep]:
        """By the steps' names."""
        rows = self._named("SELECT step, state, reason, failures FROM aftercare WHERE job=?", job)
        return {r["step"]: AfterStep(r["state"], r["reason"], r["failures"]) for r in rows}
