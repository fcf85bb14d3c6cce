"""The decision table: from what is seen of a job to its state. First match wins.

Each row has a name, its columns as text for people, the same conditions as a predicate, and its sentence. The columns are
printed by `python -m ncaasd.neurocaas.job_state_doc`, and a test keeps the copy in docs/jobs.md equal.
Rules: NeuroCAAS protocol, docs/neurocaas.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ncaasd.neurocaas import job_reasons as say
from ncaasd.neurocaas.evidence import Facts
from ncaasd.neurocaas.job_reasons import Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `{…}` in `time` is a field of Patience. `final`: nothing more will come from the platform."""

    name: str
    certificate: str
    statuses: str
    marker: str  # "yes": the platform's own. A worker's `end file.` is a "no"
    time: str
    state: str
    when: Callable[[Facts], bool]
    then: Callable[[Facts], Verdict]
    final: bool = False


def _nothing(facts: Facts) -> bool:
    return facts.seen.certificate is None and facts.no_statuses and not facts.any_marker


def _aws(facts: Facts) -> bool:
    return facts.aws_error is not None and facts.no_statuses and not facts.any_marker


def _step_1(facts: Facts) -> bool:
    return facts.no_statuses and 1 not in facts.certificate.steps_done


def _undispatched(facts: Facts) -> bool:
    return facts.step4_error and not facts.finished


# Each row: first its words, then its code.
# fmt: off
ROWS: tuple[Row, ...] = (
    Row("submitted", "none", "none", "no", "age < {no_certificate}", "submitted",
        lambda f: _nothing(f) and f.seen.age < f.patience.no_certificate, say.submitted),
    Row("no answer", "none", "none", "no", "later", "lost",
        _nothing, say.no_answer),
    Row("platform retries", "STEP 4 AWS ERROR", "none", "no", "quiet < {platform_retry}", "starting",
        lambda f: _aws(f) and not f.quiet_for(f.patience.platform_retry), say.platform_retries),
    Row("platform gave up", "STEP 4 AWS ERROR", "none", "no", "later", "refused (capacity) or failed",
        _aws, say.rejected),
    Row("rejected", "any other STEP ERROR, or an INPUT ERROR of (init)", "none", "any", "any",
        "refused (budget, capacity) or failed",
        lambda f: f.other_error and f.no_statuses, say.rejected, final=True),
    Row("ended unstarted", "any", "none", "yes, of any body", "any", "failed",
        lambda f: f.no_statuses and f.any_marker, say.ended_unstarted, final=True),
    Row("initializing", "no STEP 1 DONE", "none", "no", "quiet < {silent_start}", "starting",
        lambda f: _step_1(f) and not f.quiet_for(f.patience.silent_start), say.setting_up),
    Row("silent death", "no STEP 1 DONE", "none", "no", "later", "failed",
        _step_1, say.silent_death),
    Row("setting up", "otherwise", "none", "no", "quiet < {no_dispatch}", "starting",
        lambda f: f.no_statuses and not f.quiet_for(f.patience.no_dispatch), say.setting_up),
    Row("never dispatched", "otherwise", "none", "no", "later", "lost",
        lambda f: f.no_statuses, say.never_dispatched),
    Row("dispatch failed and ended", "STEP 4 ERROR", "no verdict", "yes", "any", "failed",
        lambda f: _undispatched(f) and f.marked, say.dispatch_failed, final=True),
    Row("dispatch failed", "STEP 4 ERROR", "no verdict", "no", "quiet ≥ {platform_retry}", "failed",
        lambda f: _undispatched(f) and f.quiet_for(f.patience.platform_retry), say.dispatch_failed),
    Row("dispatch failing", "STEP 4 ERROR", "no verdict", "no", "before", "starting",
        _undispatched, say.dispatch_failing),
    Row("verdicts and end marker", "any", "verdicts on all", "yes", "any", "done if all succeeded, else failed",
        lambda f: f.all_terminal and f.marked, say.all_verdicts, final=True),
    Row("verdicts and quiet", "any", "verdicts on all", "no", "quiet ≥ {quiet}", "done if all succeeded, else failed",
        lambda f: f.all_terminal and f.quiet_for(f.patience.quiet), say.all_verdicts),
    Row("settling", "any", "verdicts on all", "no", "before", "running",
        lambda f: f.all_terminal, say.settling),
    Row("blind and ended", "any", "never written (bypass)", "yes", "any", "done if results are there, else failed",
        lambda f: f.blind and f.marked, say.blind_verdict, final=True),
    Row("blind with results", "any", "never written (bypass), one dataset", "no", "results, and quiet ≥ {quiet}",
        "done",
        lambda f: f.blind and len(f.names) == 1 and f.seen.results > 0 and f.quiet_for(f.patience.quiet),
        say.blind_verdict),
    Row("blind", "any", "never written (bypass)", "no", "before", "running",
        lambda f: f.blind, say.blind_running),
    Row("no verdict", "any", "verdicts on some or none", "yes", "any", "failed",
        lambda f: f.marked, say.no_verdict, final=True),
    Row("gone quiet", "any", "verdicts on some or none", "no", "quiet ≥ {quiet}", "lost",
        lambda f: f.quiet_for(f.patience.quiet), say.gone_quiet),
    Row("some finished", "any", "verdicts on some", "no", "before", "running",
        lambda f: bool(f.finished), say.running),
    Row("running", "any", "any IN PROGRESS, or half-written", "no", "before", "running",
        lambda f: f.any_in_progress, say.running),
    Row("machines starting", "any", "all INITIALIZING", "no", "before", "starting",
        lambda _facts: True, say.machines_starting),
)
# fmt: on
