"""The true state of a job, judged from what is seen of it. The rows are in `job_table`.

`DONE` here means that the platform is done, with success; fetching results is the engine's to show.
Rules: NeuroCAAS protocol, docs/neurocaas.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ncaasd.model import CostNote, JobState
from ncaasd.neurocaas.evidence import END_MARKER, Evidence, Facts, Patience
from ncaasd.neurocaas.job_table import ROWS, Row
from ncaasd.neurocaas.text import duration

__all__ = ["END_MARKER", "ROWS", "TIMED_OUT_ROW", "Evidence", "Judgement", "Patience", "Row", "judge"]

RefusedKind = Literal["capacity", "budget"]
TIMED_OUT_ROW = "whole job"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a job's state is, and why. `reason` is for people."""

    state: JobState
    reason: str
    row: str  # the name of the table's row that matched
    finished: int  # datasets with a verdict
    total: int
    final: bool = False  # nothing more will come from the platform; else it may still take an end back (F61)
    refused_kind: RefusedKind | None = None
    cost: CostNote | None = None
    machines: int = 0  # as the certificate tells; 0 while it tells nothing
    memory: str = ""  # for the next look: the verdicts of machines that share a status file (`machines.remembered`)

    @property
    def ended(self) -> bool:
        return self.state.ended


def judge(evidence: Evidence, patience: Patience | None = None) -> Judgement:
    """The state of a job: the first row of the table that matches; then, when that is no end, the whole-job cap.

    Never raises, whatever the evidence: the last row takes everything.
    """
    facts = Facts(evidence, patience or Patience())
    row = next(row for row in ROWS if row.when(facts))
    state, reason = row.then(facts)
    name, final = row.name, row.final
    cap = facts.patience.whole_job if evidence.timeout is None else evidence.timeout
    if not state.ended and evidence.age >= cap:
        state, reason = JobState.TIMED_OUT, f"no end after {duration(cap)}; last it was {state}: {reason}"
        name, final = TIMED_OUT_ROW, False
    refused_kind: RefusedKind | None = None
    if state is JobState.REFUSED:
        refused_kind = "budget" if facts.certificate.over_budget else "capacity"
    return Judgement(
        state=state,
        reason=reason,
        row=name,
        finished=len(facts.finished),
        total=len(facts.names),
        final=final,
        refused_kind=refused_kind,
        cost=facts.certificate.cost,
        machines=facts.machines if facts.certificate.machines or facts.shared else 0,
        memory=facts.memory.dump(),
    )
