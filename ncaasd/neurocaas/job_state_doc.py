"""The decision table and the states as Markdown, for docs/jobs.md: `python -m ncaasd.neurocaas.job_state_doc`.

A test keeps the copy in the docs equal to what this prints.
"""

from __future__ import annotations

from dataclasses import asdict

from ncaasd.model import JobState
from ncaasd.neurocaas.evidence import Patience
from ncaasd.neurocaas.job_table import ROWS
from ncaasd.neurocaas.text import duration

MEANINGS: dict[JobState, str] = {
    JobState.WAITING: "for its datasets or its config to be whole and in S3",
    JobState.READY: "everything is in S3, verified; its submit file is next",
    JobState.SUBMITTED: "its submit file is put; nothing was heard yet",
    JobState.STARTING: "NeuroCAAS checks it and starts its machines, mostly one per dataset",
    JobState.RUNNING: "its machines work",
    JobState.FETCHING: "it has ended, and its results are being downloaded",
    JobState.DONE: "every dataset succeeded, on each of its machines, and the results are here",
    JobState.FAILED: "NeuroCAAS rejected it, or a dataset failed; logs and partial results are fetched",
    JobState.REFUSED: "over budget or over capacity: nothing is queued there",
    JobState.HELD: "a person must decide; its reason names the command that releases it",
    JobState.LOST: "no sign of life; watched until its timeout, never submitted again by itself",
    JobState.TIMED_OUT: "no end within `jobs.timeout`; never submitted again by itself",
}


def states() -> str:
    """The states of a job as a Markdown table."""
    lines = ["| state | an end | meaning |", "|---|---|---|"]
    lines += [f"| {state} | {'yes' if state.ended else ''} | {MEANINGS[state]} |" for state in JobState]
    return "\n".join(lines)


def table(patience: Patience | None = None) -> str:
    """The decision table as a Markdown table, with the times of `patience`."""
    times = {name: duration(seconds) for name, seconds in asdict(patience or Patience()).items()}
    lines = [
        "| row | certificate | status files | end marker | time | state | last word |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        cells = (row.name, row.certificate, row.statuses, row.marker, row.time.format(**times), row.state)
        lines.append(f"| {' | '.join(cells)} | {'yes' if row.final else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"{states()}\n\n{table()}")
