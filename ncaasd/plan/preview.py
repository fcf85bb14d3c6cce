"""What would be done, without doing it: uploads, submit files, what each job waits for, what is held, what is fetched, and what
is then moved or deleted. Pure.

The same functions decide here and in the engine: `gates`, `expand`, `considering`. S3 is not asked, so what only S3 knows (that
another rig's dataset is there, that an id is taken) is not considered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ncaasd.model import (
    Dataset,
    FileRow,
    FileState,
    JobRow,
    Phase,
    Place,
)
from ncaasd.plan import afterwards, expand
from ncaasd.plan.afterwards import Due, PlannedFetch, PlannedRemoval
from ncaasd.plan.planned_jobs import JobPlanner, PlannedJob
from ncaasd.plan.situation import Files, PlannedUpload, Situation


@dataclass(frozen=True, slots=True)
class Preview:
    analysis: str
    uploads: tuple[PlannedUpload, ...] = ()
    jobs: tuple[PlannedJob, ...] = ()
    followed: tuple[JobRow, ...] = ()
    fetches: tuple[PlannedFetch, ...] = ()
    removals: tuple[PlannedRemoval, ...] = ()

    @property
    def fresh(self) -> list[PlannedJob]:
        """The jobs that are not submitted yet."""
        return [j for j in self.jobs if j.plan != "known"]

    @property
    def machines(self) -> int:
        return sum(j.machines for j in self.fresh)

    @property
    def bytes(self) -> int:
        return sum(u.size for u in self.uploads if not u.kept_back)


def preview(facts: Situation) -> Preview:
    """What the daemon would do for all that is declared, or for one manifest (`facts.only`)."""
    return _Planner(facts).preview()


class _Planner:
    def __init__(self, facts: Situation) -> None:
        self._facts = facts
        self._files = Files(facts)
        self._jobs = JobPlanner(facts, self._files)

    def preview(self) -> Preview:
        facts = self._facts
        jobs = self._jobs.plan()
        needed = {d.key for j in jobs if j.plan != "known" for d in j.spec.datasets}
        uploads = [u for u in self._files.uploads() if not facts.only or u.key in needed]
        followed = [j for j in facts.jobs if j.phase not in (Phase.OPEN, Phase.ENDED) and not j.forgotten]
        due = self._due(jobs, followed)
        return Preview(
            facts.analysis,
            tuple(uploads),
            tuple(jobs),
            () if facts.only else tuple(followed),
            tuple(afterwards.fetches(due, facts.wanted, facts.layout)),
            tuple(self._removals(due)),
        )

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _due(self, jobs: Sequence[PlannedJob], followed: Sequence[JobRow]) -> list[Due]:
        """The jobs with results or removals to come: ended ones with something left to do, those under way, and new ones."""
        facts = self._facts
        late = [j for j in facts.jobs if j.phase is Phase.ENDED and (j.row in facts.wanted or j.row in facts.after)]
        under_way = [Due(j.spec, j.job_id, j) for j in [*late, *followed] if not j.forgotten]
        if facts.only:
            mine = {j.known.row for j in jobs if j.known is not None}
            under_way = [d for d in under_way if d.row is not None and d.row.row in mine]
        # A planned job has no end yet, whatever the journal has of its earlier attempts.
        return under_way + [Due(j.spec, j.job_id) for j in jobs if j.plan in ("submit", "queue") and j.job_id]

    def _removals(self, due: Sequence[Due]) -> list[PlannedRemoval]:
        using: dict[str, list[JobRow]] = {}
        having: dict[Place | None, list[JobRow]] = {}
        for job in [*self._facts.jobs, *self._jobs.planned()]:
            for dataset in job.spec.datasets:
                using.setdefault(dataset.key, []).append(job)
                row = self._files.file(dataset)
                having.setdefault(row.place if row else dataset.place, []).append(job)
        packed: dict[Place | None, list[FileRow]] = {
            expand.package_place(self._facts.analysis, m.rule, unit): [r for _n, r in unit.members(m)]
            for m in self._files.matchers
            if m.packs
            for unit in self._files.units.get(id(m), {}).values()
        }

        links = {(r.place.tree, r.link): r for r in self._files.rows if r.link and r.state is not FileState.GONE}

        def files_of(dataset: Dataset) -> Sequence[FileRow]:
            row = self._files.file(dataset)
            return packed.get(dataset.place, [row] if row else [])

        return afterwards.removals(
            due,
            self._facts.after,
            self._facts.settings,
            self._facts.layout,
            at=self._files.file,
            files_of=files_of,
            using=lambda key: using.get(key, ()),
            having=lambda place: having.get(place, ()),
            link_to=lambda row: links.get((row.place.tree, row.place.path)),
        )
