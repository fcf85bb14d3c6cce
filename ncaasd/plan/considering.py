"""The next step of an unsubmitted job: one assessment, by which the engine submits and `plan` foresees. Pure.

The caller gathers the facts: as they are now (the engine), or once everything that may be uploaded is in S3 (`plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ncaasd.model import Dataset, FileRow, FileState, Hold, JobRow, JobState
from ncaasd.neurocaas.addresses import is_address
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import validate_job
from ncaasd.plan.configs import ConfigFact
from ncaasd.plan.files import in_words, taken_by
from ncaasd.plan.grouping import Beside, Matcher, below, misplaced
from ncaasd.plan.guards import Limits, Stop, Tally, guard
from ncaasd.plan.holds import HOLDS, Again, is_mended, with_way_on
from ncaasd.plan.submitting import draft_of

NOTHING = Beside()
HOW_TO_MEND = "or leave it out with the rule's `exclude`; then it goes on by itself"


@dataclass(frozen=True, slots=True)
class DatasetFact:
    """One dataset of the job: its local file, or what a listing of S3 showed."""

    name: str
    key: str
    file: FileRow | None  # None: it was never here, or is gone
    remote: bool | None = None  # whether S3 has it; None: not asked, or not known
    bypass: bool = False
    taken_by: str = ""  # the other local file, in words, whose content is at its key (F96)
    packed: bool = False  # it is a package that is not made yet; an earlier package's object in S3 is not it

    @property
    def stored(self) -> bool:
        return self.file is not None and self.file.state is FileState.STORED


def dataset_fact(
    dataset: Dataset, row: FileRow | None, others: Callable[[], Sequence[FileRow]], remote: Callable[[], bool | None]
) -> DatasetFact:
    """What is known of a dataset. `row`: its local file, also when that is gone; `others`: all files with its key; `remote`:
    what S3 has answered about its key."""
    name, key = dataset.name, dataset.key
    if is_address(key):
        return DatasetFact(name, key, None, bypass=True)
    if row is not None and row.state is not FileState.GONE:
        return DatasetFact(name, key, row)
    if dataset.place is not None and dataset.place.is_package:
        return DatasetFact(name, key, None, packed=True)
    other = taken_by(dataset.place, row, others())
    if other is not None:
        return DatasetFact(name, key, None, taken_by=in_words(other))
    return DatasetFact(name, key, None, remote=remote())


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides the next step of one job.

    rule: the rule in force that declares it. turn: why it waits for others that have their config under the same name.
    beside: what else of its unit must be there. blocked: why nothing is submitted for its analysis. same: the other
    declaration of the very same job. tally and limits: for the spend guards; None when these were asked a moment ago.
    doubt: why its data, though complete, may not be worth a job; called only when nothing else keeps the job.
    """

    job: JobRow
    layout: Layout
    rule: Matcher | None
    datasets: Sequence[DatasetFact]
    config: ConfigFact
    now: float
    turn: str = ""
    beside: Beside = NOTHING
    blocked: str = ""
    same: str = ""
    tally: Tally | None = None
    limits: Limits | None = None
    doubt: Callable[[JobRow], Stop | None] = lambda _job: None


@dataclass(frozen=True, slots=True)
class Next:
    """The state to show, why, and whether the submit is next.

    hold: what a person must decide or mend. stop: the guard or doubt that keeps the job, held or queueing. again: when the job
    is looked at again if no event wakes it before. ask_remote, ask_config: keys to look for in S3 first.
    """

    state: JobState
    reason: str
    submit: bool = False
    hold: Hold | None = None
    stop: Hold | None = None
    again: Again = Again.CHANGE
    ask_remote: tuple[str, ...] = ()
    ask_config: str = ""


def consider(facts: Facts) -> Next:
    """The first thing that keeps a job from its submit; if there is none, the submit."""
    job = facts.job
    if facts.now < job.not_before:
        return Next(job.state, job.reason, hold=job.hold, again=Again.NEVER)  # a retry waits for its time
    if _is_written_anew(facts):
        job = replace(job, hold=None)
    if job.hold is not None and not is_mended(job.hold):
        # A person must decide: only `release`, `rerun` or `forget` goes on from here.
        return Next(JobState.HELD, job.reason, hold=job.hold, again=Again.NEVER)
    kept = _lacking(facts) or _impossible(facts) or _waiting(facts)
    if kept is not None:
        return kept
    if facts.blocked:
        return Next(JobState.READY, facts.blocked, again=Again.SOON)
    stop = facts.doubt(job)
    if stop is None and facts.tally is not None and facts.limits is not None:
        stop = guard(job, facts.tally, facts.limits)
    if stop is None:
        return Next(JobState.READY, "everything it needs is in S3", submit=True)
    return _stopped(job, stop)


def _is_written_anew(facts: Facts) -> bool:
    """Whether a job that was held because its data was nothing but zeros goes on: the data was written anew and is stored. (With
    `rerun_on`, data that is written anew has a new job.)"""
    job = facts.job
    if job.hold is not Hold.ZEROS or job.spec.version or not all(f.stored for f in facts.datasets):
        return False
    return facts.doubt(job) is None


def _lacking(facts: Facts) -> Next | None:
    """The hold for parts that can't be taken, so that a person must mend them."""
    skipped = [f for f in facts.datasets if f.file is not None and f.file.state is FileState.SKIPPED]
    why = facts.beside.lacking or "; ".join(f"{f.name} can't be taken: {f.file.reason}" for f in skipped[:2] if f.file)
    return Next(JobState.HELD, f"{why}; {HOW_TO_MEND}", hold=Hold.PART, stop=Hold.PART) if why else None


def _impossible(facts: Facts) -> Next | None:
    """The hold for a job that NeuroCAAS could not run as it is declared, found here before anything is paid for. Once its
    declaration is mended, the job goes on by itself."""
    job, layout = facts.job, facts.layout
    problems = [] if facts.blocked else [*validate_job(draft_of(job, layout, facts.config.key), layout)]
    # A refused file is not uploaded at all: the job waits for it, and the reason says why (`_waits_for`).
    refused = {f.key for f in facts.datasets if f.file is not None and f.file.state is FileState.REFUSED}
    placed = [d for d in job.spec.datasets if d.key not in refused]
    if facts.rule is not None and (why := misplaced(facts.rule, placed, layout.inputs)):
        problems.append(why)
    if problems:
        return Next(JobState.HELD, "; ".join(problems), again=Again.SOON)
    if facts.same:
        return Next(
            JobState.HELD, with_way_on(facts.same, Hold.SAME, job), hold=Hold.SAME, stop=Hold.SAME, again=Again.NEVER
        )
    return None


def _waiting(facts: Facts) -> Next | None:
    if facts.beside.unit:
        # What else is lacking follows from it: its package is not made, or more files are to come.
        return Next(JobState.WAITING, f"waits for {facts.beside.unit}", again=_when_to_look(facts))
    waits = [w for fact in facts.datasets if (w := _waits_for(fact))]
    named = {f.file.place for f in facts.datasets if f.file is not None}
    waits += [_waits_for(DatasetFact(below(row), row.key, row)) for row in facts.beside.files if row.place not in named]
    problem = facts.config.problem or facts.turn
    if problem:
        waits.append(problem)
    if not waits:
        return None
    more = f", and {len(waits) - 2} more" if len(waits) > 2 else ""
    unknown = (f for f in facts.datasets if f.file is None and f.remote is None)
    return Next(
        JobState.WAITING,
        "waits for " + "; ".join(waits[:2]) + more,
        again=_when_to_look(facts),
        ask_remote=tuple(f.key for f in unknown if not (f.bypass or f.taken_by or f.packed)),
        ask_config=facts.config.ask,
    )


def _when_to_look(facts: Facts) -> Again:
    """When a waiting job is looked at again, if no event wakes it before."""
    if facts.turn and not facts.config.problem:
        return Again.SOON
    if facts.config.ask or any(f.file is None for f in facts.datasets):
        return Again.IN_S3
    return Again.CHANGE


def _stopped(job: JobRow, stop: Stop) -> Next:
    if not stop.held:
        return Next(JobState.READY, stop.reason, stop=stop.kind, again=Again.SOON)
    if not stop.asks:
        return Next(JobState.HELD, stop.reason, stop=stop.kind, again=Again.SOON)
    reason = with_way_on(stop.reason, stop.kind, job)
    return Next(JobState.HELD, reason, hold=stop.kind, stop=stop.kind, again=HOLDS[stop.kind].again)


def _waits_for(fact: DatasetFact) -> str:
    """What is lacking of one dataset, for people; "" when its present content is in S3."""
    if fact.bypass:
        return ""  # looked for in S3 just before the submit
    file = fact.file
    if file is None and fact.taken_by:
        return (
            f"{fact.name} (not here, and what is in S3 under its name, {fact.key}, is of {fact.taken_by}: rename one)"
        )
    if file is None:
        if fact.remote:
            return ""
        if fact.packed:
            return f"{fact.name} (its package is not made yet)"
        return f"{fact.name} (not in inputs/, nor in S3)" if fact.remote is False else f"{fact.name} (not in inputs/)"
    if file.stat.size == 0 and file.state in (FileState.WHOLE, FileState.STORED):
        return f"{fact.name} (is empty: until something is written into it, there is nothing to analyse)"
    if file.state is FileState.STORED:
        return ""
    if file.state is FileState.SETTLING:
        return f"{fact.name} (still being written: {file.reason or 'not quiet long enough'})"
    if file.state is FileState.WHOLE:
        return f"{fact.name} (to be uploaded{': ' + file.reason if file.reason else ''})"
    return f"{fact.name} ({file.state}: {file.reason})"
