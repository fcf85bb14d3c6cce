"""The part of a preview after the jobs' ends: which results are fetched, and which inputs are then moved or deleted. Pure.

`after_results` has the rules, for this module and for the engine. That the archive's copy is equal, which only a look at it can
tell, is a condition here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ncaasd.declare.config import Analysis
from ncaasd.declare.sections import Delete
from ncaasd.model import (
    AfterStep,
    Artefact,
    ArtefactState,
    Dataset,
    FileRow,
    FileState,
    JobRow,
    JobSpec,
    Origin,
    Phase,
    Place,
)
from ncaasd.neurocaas.naming import Layout, folder_name
from ncaasd.plan.after_results import LOCAL, REMOTE, RUN, archive_path, is_link, linked, needed, stays, steps, well_done

AfterSteps = Mapping[str, AfterStep]  # by the steps' names, as the journal has it
AT_ITS_END = "when it has ended"


@dataclass(frozen=True, slots=True)
class Due:
    """A job that is submitted, or would be now: from the journal (`row`), or only planned."""

    spec: JobSpec
    job_id: str
    row: JobRow | None = None

    @property
    def ended(self) -> bool:
        return self.row is not None and self.row.phase is Phase.ENDED


@dataclass(frozen=True, slots=True)
class PlannedFetch:
    """Results to be fetched into `results/<folder>`. `files` and `size` (bytes) are None while only NeuroCAAS can know them."""

    spec: JobSpec
    job_id: str
    folder: str
    when: str  # "now", or AT_ITS_END
    files: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A dataset that `after_results` moves or deletes: a local file (`here`), or an object in S3 (`what` is its key).

    `copy`: its path in the archive, now or later. `condition`: what must be true first, "" when it is due. `kept`: why it
    stays nevertheless.
    """

    what: str
    here: bool
    size: int
    job_id: str
    moves: bool = False
    copy: str = ""
    condition: str = ""
    kept: str = ""


def fetches(jobs: Sequence[Due], wanted: Mapping[int, Sequence[Artefact]], layout: Layout) -> list[PlannedFetch]:
    """`wanted`: the journal's artefacts of a job, by its row. `jobs`: those that have not ended, and those in `wanted`."""
    found = []
    for job in jobs:
        folder = (job.row.results if job.row else "") or folder_name(layout.bucket, job.job_id)
        left = [a for a in wanted.get(job.row.row, ()) if a.state is ArtefactState.WANTED] if job.row else []
        if left:
            size = sum(a.size for a in left)
            found.append(PlannedFetch(job.spec, job.job_id, folder, "now", len(left), size))
        elif not job.ended:
            found.append(PlannedFetch(job.spec, job.job_id, folder, AT_ITS_END))
    return found


def removals(
    jobs: Sequence[Due],
    after: Mapping[int, AfterSteps],
    settings: Analysis,
    layout: Layout,
    *,
    at: Callable[[Dataset], FileRow | None],
    files_of: Callable[[Dataset], Sequence[FileRow]],
    using: Callable[[str], Iterable[JobRow]],
    having: Callable[[Place], Iterable[JobRow]],
    link_to: Callable[[FileRow], FileRow | None] = lambda _row: None,
) -> list[PlannedRemoval]:
    """What `after_results` would move or delete. `after`: the journal's steps for jobs that have ended; `at`: a dataset's
    local file; `files_of`: its recordings (of a package, those in it); `using`: the jobs with a dataset at a key; `having`:
    the jobs with a local file or package as a dataset; `link_to`: a link that leads to a recording."""
    found: dict[tuple[bool, str], PlannedRemoval] = {}
    for job in jobs:
        if job.spec.origin is Origin.ELSEWHERE:
            continue
        pending = _pending(job, after, settings)
        for dataset in job.spec.datasets:
            rows = files_of(dataset)
            if LOCAL in pending:
                for row in rows:
                    removal = _local(job, row, dataset, pending, settings, having, linked(link_to(row)))
                    if removal is not None and _says_more(removal, found.get((True, removal.what))):
                        found[True, removal.what] = removal
            if REMOTE in pending and dataset.key.startswith(layout.inputs):
                removal = _remote(job, dataset.key, at(dataset), rows, pending, settings, using)
                found.setdefault((False, removal.what), removal)
    return list(found.values())


def _pending(job: Due, after: Mapping[int, AfterSteps], settings: Analysis) -> list[str]:
    """The steps that are still to be done for a job; all of them while it has not ended."""
    wanted = steps(settings.after_results)
    if job.row is None or not job.ended:
        return wanted
    known = after.get(job.row.row, {})
    return [s for s in wanted if s in known and known[s].state == "wanted"] if well_done(job.row) else []


def _local(
    job: Due,
    row: FileRow,
    dataset: Dataset,
    pending: Sequence[str],
    settings: Analysis,
    having: Callable[[Place], Iterable[JobRow]],
    link: str,
) -> PlannedRemoval | None:
    if row.state is FileState.GONE:
        return None
    policy = settings.after_results
    copy = archive_path(policy, row.place.path)
    what = f"{row.place.tree}:{row.place.path}" if row.place.tree else row.place.path
    kept = ""
    if row.place.tree:
        kept = f"it lies in {row.place.tree}, which is only read"
    elif row.link:
        kept = is_link(row)
    elif job.ended and job.row is not None and dataset.is_of(row):
        kept = stays(row, job.row)
    deletes = isinstance(policy.local_inputs, Delete)
    named = [*having(row.place), *(having(dataset.place) if dataset.place not in (None, row.place) else ())]
    waits = needed(_others(job, named))
    equal = f"when {copy} has the same bytes" if deletes else ""
    condition = "" if kept else _first(job, pending, settings, [LOCAL, waits, link, equal])
    return PlannedRemoval(what, True, row.stat.size, job.job_id, not deletes, copy, condition, kept)


def _remote(
    job: Due,
    key: str,
    row: FileRow | None,
    rows: Sequence[FileRow],
    pending: Sequence[str],
    settings: Analysis,
    using: Callable[[str], Iterable[JobRow]],
) -> PlannedRemoval:
    # A package that is not made yet has no row of its own.
    ours = bool(row or rows) if not job.ended else row is not None and row.stored is not None and row.ours
    kept = "" if ours else "this rig did not put it"
    waits = needed(_others(job, using(key)))
    condition = "" if kept else _first(job, pending, settings, [REMOTE, waits])
    size = row.stat.size if row else sum(r.stat.size for r in rows)
    return PlannedRemoval(key, False, size, job.job_id, condition=condition, kept=kept)


def _says_more(removal: PlannedRemoval, other: PlannedRemoval | None) -> bool:
    """Whether `removal` replaces `other`: of several jobs with one recording, the first that removes it is shown."""
    return other is None or bool(other.kept and not removal.kept)


def _others(job: Due, jobs: Iterable[JobRow]) -> list[JobRow]:
    """`jobs` without `job` itself; another attempt of it is another job."""
    if job.row is not None:
        return [j for j in jobs if j.row != job.row.row]
    me = (job.spec.name, job.spec.unit, job.spec.version)
    return [j for j in jobs if j.row >= 0 or (j.spec.name, j.spec.unit, j.spec.version) != me]


def _first(job: Due, pending: Sequence[str], settings: Analysis, after: Sequence[str]) -> str:
    """What must be true before a step (the first of `after`), for people."""
    step, *more = after
    conditions = []
    if not job.ended:
        conditions.append(f"when job {job.job_id or job.spec.name} is done and its results are here")
    if RUN in pending:
        conditions.append(f"after the tool {settings.after_results.run}")
    if step == REMOTE and LOCAL in pending:
        conditions.append("after the local inputs")
    return "; ".join([*conditions, *(m for m in more if m)])
