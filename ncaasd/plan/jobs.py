"""What an unsubmitted job does next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ncaasd.model import FileRow, FileState, JobRow, JobState
from ncaasd.plan.guards import Stop


@dataclass(frozen=True, slots=True)
class DatasetFact:
    """One dataset of the job: the local file that maps to its key, or what a listing of S3 said."""

    name: str
    key: str
    file: FileRow | None  # None: no file here maps to it, or the one that did is gone
    remote: bool | None = None  # whether S3 has it; None: not asked, or not known
    bypass: bool = False


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
) -> Next:
    """The first thing that keeps `job` from its submit; none: submit.

    `config_problem`: why its config can't be used yet; `blocked`: why nothing is submitted for its analysis; `invalid`:
    why NeuroCAAS could not run it as it is declared.
    """
    if job.hold and job.hold not in job.released:
        # A person must decide: only `release`, `rerun` or `forget` goes on from here.
        return Next(JobState.HELD, job.reason, hold=job.hold)
    if invalid:
        # Nothing is paid for to be told so. Its declaration must be mended, and then it goes on by itself.
        return Next(JobState.HELD, "; ".join(invalid))
    waits = [w for fact in datasets if (w := _waits_for(fact))]
    if config_problem:
        waits.append(config_problem)
    ask = tuple(f.key for f in datasets if f.file is None and f.remote is None and not f.bypass)
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
    if file is None:
        if fact.remote:
            return ""
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
