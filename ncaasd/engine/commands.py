"""The operator's commands: rerun, hold, release, forget. Journaled, in the event log, and idempotent.

They run in the engine thread when the daemon runs; otherwise directly on the journal, under the lock.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ncaasd.adapters.journal import Journal
from ncaasd.declare import analysis_config
from ncaasd.errors import DeclarationError, UserError
from ncaasd.model import NEVER, FileRow, FileState, Hold, JobRow, JobState, Origin, Phase
from ncaasd.neurocaas.addresses import is_address
from ncaasd.plan.holds import OWN_CONFIG, can_be_released, with_way_on
from ncaasd.subjects import of_file, of_job


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs a command is for: by id or name, rule, parts of the unit's name, and time. All that are given must match."""

    ids: tuple[str, ...] = ()
    analysis: str = ""
    rule: str = ""
    where: tuple[tuple[str, str], ...] = ()  # parts of the unit's name: animal=M7
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Effect:
    """What was done to one job, or why nothing was."""

    job: JobRow
    done: bool
    text: str


def select(journal: Journal, selection: Selection) -> list[JobRow]:
    """The selected jobs: the newest attempt of each, or the attempt that an id or number names. Raises UserError for a
    name that no job has."""
    chosen: list[JobRow] = []
    for name in selection.ids:
        called = journal.jobs_called(name, selection.analysis)
        if not called:
            raise UserError(f"there is no job {name}", hint="`ncaasd jobs` lists them")
        by_id = [j for j in called if j.job_id == name or str(j.row) == name.removeprefix("#")]
        chosen += by_id or called
    if not selection.ids:
        chosen = journal.jobs(selection.analysis, newest=True)
    if selection.rule:
        chosen = [j for j in chosen if j.spec.name == selection.rule]
    if selection.since:
        chosen = [j for j in chosen if j.created >= selection.since]
    for part, value in selection.where:
        chosen = [j for j in chosen if json.loads(j.spec.fields).get(part) == value]
    return list({j.row: j for j in chosen}.values())


def hold(journal: Journal, job: JobRow, now: float) -> Effect:
    if job.phase is not Phase.OPEN:
        return Effect(job, False, f"it is {job.state} already: only a job that was not submitted can be held")
    if job.hold is Hold.PERSON:
        return Effect(job, False, "it is held already")
    reason = with_way_on("held by hand", Hold.PERSON, job)
    journal.update_job(job.row, hold=Hold.PERSON, state=JobState.HELD, reason=reason, next_at=NEVER)
    return _did(journal, job, now, "held", "held by hand")


def release(journal: Journal, job: JobRow, now: float) -> Effect:
    """Let a held job go on, past the guard that held it."""
    if job.phase is not Phase.ENDED and job.hold is None and job.state is JobState.HELD:
        return Effect(job, False, f"it goes on by itself: {job.reason}")
    if job.phase is Phase.ENDED or job.hold is None:
        return Effect(job, False, "it is not held")
    if not can_be_released(job.hold):
        return Effect(job, False, f"it can't be released: {job.reason}")
    released = job.released if job.hold is Hold.PERSON else job.released | {job.hold}
    journal.update_job(job.row, hold=None, released=released, next_at=0.0, state=JobState.WAITING, reason="released")
    return _did(journal, job, now, "released", f"released from: {job.reason}")


def release_file(journal: Journal, row: FileRow, now: float) -> None:
    """Release a held file: it may overwrite an object at its key that this rig did not put (F95); or, if it could not be
    read, reading it is tried again."""
    if row.failures:
        journal.set_file(row.id, FileState.WHOLE, "", now)
        journal.event(now, row.place.analysis, of_file(row.place), "released", "released by hand: tried again")
        return
    journal.own_file(row.id, now)
    text = "released by hand: it goes up, and may overwrite what is at its key in S3"
    journal.event(now, row.place.analysis, of_file(row.place), "released", text)


def rerun(journal: Journal, job: JobRow, now: float, *, config: str = "") -> Effect:
    """Add a new attempt, with a new id; with another config when `config` names one below configs/. A repeated request
    adds no second one."""
    if job.spec.origin is Origin.ELSEWHERE:
        return Effect(job, False, "it was started elsewhere: only who started it can run it again")
    attempts = journal.attempts(job.spec.analysis, job.spec.name, job.spec.unit, job.spec.version)
    newest = attempts[-1]
    if newest.phase is Phase.OPEN and newest.hold in (Hold.FOREIGN, Hold.REPLACED):
        return _once_more(journal, newest, now)
    if newest.phase is Phase.OPEN and newest.attempt > 0 and newest.hold is not None:
        return release(journal, newest, now)  # its next attempt waits already (for budget) until a person releases it
    if newest.phase is Phase.OPEN and newest.attempt > 0:
        return Effect(newest, False, "a rerun of it is waiting already")
    if newest.phase is Phase.OPEN:
        return Effect(newest, False, "it was not submitted yet: nothing to run again")
    if not newest.state.ended and newest.state not in (JobState.HELD, JobState.LOST):
        return Effect(newest, False, f"it is {newest.state}: a rerun would be paid for beside it; wait for its end")
    spec = replace(job.spec, datasets=tuple(replace(d, etag="") for d in job.spec.datasets))
    # A rerun is a person's explicit choice, so the guards against surprises don't hold it again.
    released: set[str] = {Hold.BACKLOG, Hold.CANARY, Hold.FAILURES, Hold.BUDGET, Hold.REBUILT}
    if config:
        spec = replace(spec, config=config)
        released.add(OWN_CONFIG)
    row = journal.add_job(spec, newest.attempt + 1, now, size=job.size)
    journal.update_job(row, released=frozenset(released), reason="rerun")
    if newest.phase is not Phase.ENDED:
        journal.update_job(newest.row, phase=Phase.ENDED, next_at=NEVER)
    made = journal.job(row)
    assert made is not None
    return _did(journal, made, now, "rerun", f"rerun of {job.job_id or job.spec.name}, as attempt {made.attempt}")


def _once_more(journal: Journal, job: JobRow, now: float) -> Effect:
    """Try the same attempt again: it has no job id yet, so no new one is needed. A dataset replaced in S3 is uploaded
    again; since the object there is not ours any more, its file is held first until a person allows the overwrite."""
    if job.hold is Hold.REPLACED:
        for dataset in job.spec.datasets:
            row = journal.file_of(dataset)
            if row is not None and row.state is FileState.STORED:
                journal.unstore_file(row.id, now)
    journal.update_job(job.row, hold=None, next_at=0.0, state=JobState.WAITING, reason="rerun")
    return _did(journal, job, now, "rerun", f"tried once more; it was held: {job.reason}")


def forget(journal: Journal, job: JobRow, now: float) -> Effect:
    """Stop following a job. It stays in the journal, so that its rule doesn't create it again."""
    if job.forgotten:
        return Effect(job, False, "it is forgotten already")
    if job.phase in (Phase.INTENT, Phase.ATTEMPTED):
        return Effect(job, False, "its submit is under way: wait until it is clear whether it was sent")
    state = job.state if job.state.ended else JobState.FAILED
    journal.update_job(
        job.row, forgotten=True, phase=Phase.ENDED, state=state, hold=None, reason="forgotten", next_at=NEVER
    )
    return _did(journal, job, now, "forgotten", "forgotten by hand: not followed any more, and not made again")


def _did(journal: Journal, job: JobRow, now: float, kind: str, text: str) -> Effect:
    journal.event(now, job.spec.analysis, of_job(job), kind, text)
    logging.getLogger("ncaasd").info("%s: %s: %s", job.spec.analysis, of_job(job), text)
    return Effect(journal.job(job.row) or job, True, text)


def held_files(journal: Journal, names: Sequence[str], analysis: str = "") -> list[FileRow]:
    """The held files with one of `names`: a path below the analysis's folder or below `inputs/`."""
    analyses = [analysis] if analysis else sorted({count.analysis for count in journal.count_files()})
    rows = [r for a in analyses for r in journal.files(a, states=[FileState.HELD])]
    return [r for r in rows if r.place.path in names or r.place.path.partition("/")[2] in names]


def release_files(journal: Journal, names: Sequence[str], now: float, analysis: str = "") -> list[FileRow]:
    """Release the held files with one of `names`: those with a foreign object at their key, those that came late, and
    those that could not be read."""
    with journal.transaction():
        rows = held_files(journal, names, analysis)
        for row in rows:
            release_file(journal, row, now)
    return rows


def check_config(job: JobRow, config: str) -> None:
    """Raise UserError when a rerun of `job` can't have the config `config`."""
    try:
        analysis_config.check_name(config)
    except DeclarationError as error:
        raise UserError(f"{config} {error.problems[0].message}") from error
    if is_address(config) or config.startswith("/") or ".." in config.split("/"):
        raise UserError(f"{config} must be the name of a file below configs/")
    if is_address(job.spec.config):
        raise UserError(f"{job.spec.name} has its config in another bucket", hint="drop a new manifest for it")


def apply(journal: Journal, action: str, selection: Selection, now: float, *, config: str = "") -> Sequence[Effect]:
    """Apply hold, release, rerun or forget to each selected job, in one transaction. `config`: the rerun's config."""
    actions: dict[str, Callable[[Journal, JobRow, float], Effect]]
    actions = {"hold": hold, "release": release, "rerun": partial(rerun, config=config), "forget": forget}
    with journal.transaction():
        chosen = select(journal, selection)
        if config:
            for job in chosen:
                check_config(job, config)
        return [actions[action](journal, job, now) for job in chosen]
