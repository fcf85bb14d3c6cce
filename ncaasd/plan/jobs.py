"""What an unsubmitted job does next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ncaasd.model import FileRow, FileState, JobRow, JobState
from ncaasd.plan.grouping import Beside, below
from ncaasd.plan.guards import MENDED, Stop

NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class DatasetFact:
    """One dataset of the job: the local file that it is, or what a listing of S3 said."""

    name: str
    key: str
    file: FileRow | None  # None: it was never here, or is gone
    remote: bool | None = None  # whether S3 has it; None: not asked, or not known
    bypass: bool = False
    taken_by: str = ""  # the other local file, in words, of which is what lies at its key (F96)
    packed: bool = False  # it is made here of a unit; what an earlier package has left in S3 is not it


HOW_TO_MEND = "or leave it out with the rule's `exclude`; then it goes on by itself"


@dataclass(frozen=True, slots=True)
class Next:
    """The state to show, why, and whether the submit is next. `hold` is the kind of hold, empty for none."""

    state: JobState
    reason: str
    submit: bool = False
    hold: str = ""
    ask_remote: tuple[str, ...] = ()  # keys to look for in S3


def next_step(
    job: JobRow,
    datasets: Sequence[DatasetFact],
    config_problem: str,
    blocked: str,
    stop: Stop | None,
    invalid: Sequence[str] = (),
    beside: Beside = NOTHING,
) -> Next:
    """The first thing that keeps `job` from its submit; none: submit.

    `config_problem`: why its config can't be used yet; `blocked`: why nothing is submitted for its analysis; `invalid`:
    why NeuroCAAS could not run it as it is declared; `beside`: what else of its unit is not there.
    """
    if job.hold and job.hold not in job.released and job.hold not in MENDED:
        # A person must decide: only `release`, `rerun` or `forget` goes on from here.
        return Next(JobState.HELD, job.reason, hold=job.hold)
    skipped = [f for f in datasets if f.file is not None and f.file.state is FileState.SKIPPED]
    lacking = beside.lacking or "; ".join(f"{f.name} can't be taken: {f.file.reason}" for f in skipped[:2] if f.file)
    if lacking:
        return Next(JobState.HELD, f"{lacking}; {HOW_TO_MEND}", hold="part")
    if invalid:
        # Nothing is paid for to be told so. Its declaration must be mended, and then it goes on by itself.
        return Next(JobState.HELD, "; ".join(invalid))
    if beside.unit:
        # What else is lacking follows from it: its package is not made, or more files are to come.
        return Next(JobState.WAITING, f"waits for {beside.unit}")
    waits = [w for fact in datasets if (w := _waits_for(fact))]
    named = {f.file.place for f in datasets if f.file is not None}
    waits += [_waits_for(DatasetFact(below(row), row.key, row)) for row in beside.files if row.place not in named]
    if config_problem:
        waits.append(config_problem)
    ask = tuple(
        f.key for f in datasets if f.file is None and f.remote is None and not (f.bypass or f.taken_by or f.packed)
    )
    if waits:
        more = f", and {len(waits) - 2} more" if len(waits) > 2 else ""
        return Next(JobState.WAITING, "waits for " + "; ".join(waits[:2]) + more, ask_remote=ask)
    if blocked:
        return Next(JobState.READY, blocked)
    if stop is not None and stop.held:
        return Next(JobState.HELD, stop.reason, hold=stop.kind if stop.asks else "")
    if stop is not None:
        return Next(JobState.READY, stop.reason)
    return Next(JobState.READY, "everything it needs is in S3", submit=True)


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
