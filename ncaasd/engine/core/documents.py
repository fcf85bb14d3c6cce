"""One job as a JSON object: the same in job.json, in status files and in `--json`. Documented in docs/rig-integration.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import ncaasd
from ncaasd.model import JobRow, JobState


def when(seconds: float) -> str | None:
    """A point in time as ISO 8601 in UTC; None for "not yet"."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if 0 < seconds < 1e12 else None


def text(value: str) -> str:
    """A name that may hold any bytes, as text that JSON takes."""
    return value.encode("utf-8", "backslashreplace").decode()


def job_document(job: JobRow, root: str) -> dict[str, Any]:
    """`root` is the config's: `results` is a local path below it, None before the job is submitted."""
    spec = job.spec
    document: dict[str, Any] = {
        "id": job.job_id or None,
        "name": spec.name,
        "unit": text(spec.unit),
        "analysis": spec.analysis,
        "attempt": job.attempt,
        "state": str(job.state),
        "reason": text(job.reason),
        "datasets": [text(d.name) for d in spec.datasets],
        "dataset_keys": [text(d.key) for d in spec.datasets],
        "config": spec.config,
        "declared_in": text(spec.declared_in),
        "finished_datasets": job.finished,
        "machines": job.machines or None,
        "created": when(job.created),
        "submitted": when(job.submitted),
        "ended": when(job.ended) if job.state.ended else None,
        "results": f"{root}/{spec.analysis}/results/{job.results}" if job.results and job.submitted else None,
        "cost": None,
    }
    if job.cost is not None:
        document["cost"] = {"projected": job.cost.projected, "budget_left": job.cost.remaining}
    return document


def final_document(job: JobRow, root: str) -> bytes:
    """job.json: written last, so that its `state` is the signal that everything else is here."""
    assert job.verdict is not None
    document = job_document(job, root) | {
        "state": str(job.verdict),
        "ended": when(job.ended),
        "submit_file": job.submit_key,
        "submit": json.loads(job.body) if job.body else None,
        "config_in_s3": job.config_key,
        "ncaasd": ncaasd.__version__,
    }
    return _render(document)


def unit_document(path: str, unit: str, state: str, reason: str, at: float) -> bytes:
    """The status file of a unit that has no job yet: what it waits for, or that it is aborted or overdue."""
    about = {"name": text(unit), "state": state, "reason": text(reason)}
    empty: dict[str, Any] = {"counts": {}, "jobs": []}
    return _render({"manifest": text(path), "ok": True, "errors": [], "updated": when(at), "unit": about} | empty)


def status_document(
    path: str, problems: str, jobs: Sequence[JobRow], root: str, at: float, warnings: Sequence[str] = ()
) -> bytes:
    """x.status.json: every job of a manifest, or what is wrong with it; `warnings`: what is likely to go wrong."""
    counts = {str(s): n for s in JobState if (n := sum(j.state is s for j in jobs))}
    return _render(
        {
            "manifest": text(path),
            "ok": not problems,
            "errors": [text(p) for p in problems.splitlines()],
            "warnings": [text(w) for w in warnings],
            "updated": when(at),
            "counts": counts,
            "jobs": [job_document(j, root) for j in jobs],
        }
    )


def _render(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
