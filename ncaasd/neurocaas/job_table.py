"""The decision table: from what is seen of a job to its state. First match wins.

Each row carries its name, its columns as people read them, the same as a predicate, and the sentence for people. The
columns are printed in docs/jobs.md by `python -m ncaasd.neurocaas.job_state_doc`, and a test keeps the copy equal.
Rules: NeuroCAAS protocol, docs/neurocaas.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ncaasd.model import JobState
from ncaasd.neurocaas.certificate import CAPACITY_CODES, cost_sentence, short
from ncaasd.neurocaas.evidence import Facts

Verdict = tuple[JobState, str]
_SHOWN = 3  # names or failures that a sentence lists
_NOT_FOUND = re.compile(r"S3 Bucket does not contain (.*)")
_NO_FIELD = re.compile(r"Submit file does not contain field '?(\w+)'?")
_HINTS = (
    ("passed_config", "NeuroCAAS could not read the config: its name must end in .yaml or .json"),
    (
        "Unable to estimate cost",
        "NeuroCAAS could not tell what it would cost: instance_type or __duration__ is not one that it knows",
    ),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `{…}` in `time` is a field of Patience. `final`: the platform has said its last word."""

    name: str
    certificate: str
    statuses: str
    marker: str
    time: str
    state: str
    when: Callable[[Facts], bool]
    then: Callable[[Facts], Verdict]
    final: bool = False


def duration(seconds: float) -> str:
    """A span of time as people say it: 45 s, 31 min, 48 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _submitted(_facts: Facts) -> Verdict:
    return JobState.SUBMITTED, "waiting for NeuroCAAS to start it"


def _unheard(facts: Facts) -> Verdict:
    return JobState.LOST, (
        f"NeuroCAAS has not answered for {duration(facts.seen.age)}: it could not read the submit file, or is down"
    )


def _platform_retry(facts: Facts) -> Verdict:
    return JobState.STARTING, f"{_rejection(facts)}; NeuroCAAS tries again by itself"


def _rejected(facts: Facts) -> Verdict:
    refused = facts.certificate.over_budget or facts.certificate.out_of_capacity
    return (JobState.REFUSED if refused else JobState.FAILED), _rejection(facts)


def _ended_unstarted(facts: Facts) -> Verdict:
    known = facts.certificate.error is not None
    return JobState.FAILED, _rejection(facts) if known else "it ended before any dataset was started"


def _starting(facts: Facts) -> Verdict:
    steps = len(facts.certificate.steps_done)
    return JobState.STARTING, "machines are starting" if steps == 4 else f"{steps} of 4 steps of its set-up are done"


def _silent(_facts: Facts) -> Verdict:
    return JobState.FAILED, "it failed silently while starting: only NeuroCAAS's own log knows why"


def _undispatched(facts: Facts) -> Verdict:
    return JobState.LOST, f"no dataset was started, and nothing was heard for {duration(facts.seen.quiet)}"


def _dispatch_failed(facts: Facts) -> Verdict:
    return JobState.FAILED, _rejection(facts)


def _dispatch_failing(facts: Facts) -> Verdict:
    return JobState.STARTING, f"{_rejection(facts)}; waiting for what NeuroCAAS makes of it"


def _all_verdicts(facts: Facts) -> Verdict:
    if facts.failures:
        return JobState.FAILED, _failures(facts)
    total = len(facts.names)
    return JobState.DONE, "the dataset succeeded" if total == 1 else f"all {total} datasets succeeded"


def _settling(facts: Facts) -> Verdict:
    return JobState.RUNNING, f"{_progress(facts)}; results may still settle"


def _blind_verdict(facts: Facts) -> Verdict:
    count = facts.seen.results
    silence = "NeuroCAAS writes no verdict on data in another bucket without resultpath"
    if not count:
        return JobState.FAILED, f"it ended without results; {silence}"
    return JobState.DONE, f"{count} result {'file' if count == 1 else 'files'} came; {silence}"


def _blind_running(_facts: Facts) -> Verdict:
    return JobState.RUNNING, "NeuroCAAS reports no progress on data in another bucket without resultpath"


def _no_verdict(facts: Facts) -> Verdict:
    also = f"; {_failures(facts)}" if facts.failures else ""
    return JobState.FAILED, f"the machine of {_listed(facts.missing)} went down without a verdict{also}"


def _quiet(facts: Facts) -> Verdict:
    return JobState.LOST, (
        f"nothing was heard for {duration(facts.seen.quiet)}; {_progress(facts)}, no verdict on {_listed(facts.missing)}"
    )


def _running(facts: Facts) -> Verdict:
    return JobState.RUNNING, _progress(facts)


def _progress(facts: Facts) -> str:
    total = len(facts.names)
    failed = f", {len(facts.failures)} failed" if facts.failures else ""
    return f"{len(facts.finished)} of {total} {'dataset' if total == 1 else 'datasets'} finished{failed}"


def _failures(facts: Facts) -> str:
    """`2 of 3 datasets failed: b.tif: ValueError: …; c.tif: killed`."""
    total, failures = len(facts.names), facts.failures
    shown = "; ".join(f"{short(name)}: {status.why()}" for name, status in failures[:_SHOWN])
    more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    return f"{len(failures)} of {total} {'dataset' if total == 1 else 'datasets'} failed: {shown}{more}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(short(name) for name in names[:_SHOWN]) + more


def _rejection(facts: Facts) -> str:
    """Why the job manager did not start it, in plain words."""
    certificate = facts.certificate
    if certificate.over_budget:
        return cost_sentence(certificate)
    for trouble in certificate.troubles:
        if trouble.kind == "RESOURCE":
            return f"no capacity: {short(trouble.message)}"
        if missing := _NOT_FOUND.match(trouble.message):
            return _not_in_s3(missing[1])
        if field := _NO_FIELD.match(trouble.message):
            return f"the submit file has no {field[1]}"
    error = certificate.error
    if error is None:
        return short("; ".join(trouble.message for trouble in certificate.troubles)) or "no reason was given"
    if error.code in CAPACITY_CODES:
        return f"no capacity: AWS has no machine of that type to give ({error.code})"
    for sign, hint in _HINTS:
        if sign in error.reason:
            return hint
    who = "AWS refused it" if error.kind == "AWS" else "failed"
    return f"step {error.number} of 4 ({error.name}) {who}: {error.reason}"


def _not_in_s3(said: str) -> str:
    """NeuroCAAS names all datasets when one of them is missing, and the config alone."""
    names = [re.sub(r"^.*?/(?=(?:inputs|configs)/)", "", name) for name in re.findall(r"'([^']*)'", said) or [said]]
    return f"{short(names[0])} is not in S3" if len(names) == 1 else f"one of {_listed(names)} is not in S3"


# fmt: off  (a table, one row of words and one of code each)
ROWS: tuple[Row, ...] = (
    Row(
        "submitted",
        "none",
        "none",
        "no",
        "age < {no_certificate}",
        "submitted",
        lambda f: (
            f.seen.certificate is None and f.no_statuses and not f.any_marker and f.seen.age < f.patience.no_certificate
        ),
        _submitted,
    ),
    Row(
        "no answer",
        "none",
        "none",
        "no",
        "later",
        "lost",
        lambda f: f.seen.certificate is None and f.no_statuses and not f.any_marker,
        _unheard,
    ),
    Row(
        "platform retries",
        "STEP 4 AWS ERROR",
        "none",
        "no",
        "quiet < {platform_retry}",
        "starting",
        lambda f: (
            f.aws_error is not None
            and f.no_statuses
            and not f.any_marker
            and not f.quiet_for(f.patience.platform_retry)
        ),
        _platform_retry,
    ),
    Row(
        "platform gave up",
        "STEP 4 AWS ERROR",
        "none",
        "no",
        "later",
        "refused (capacity) or failed",
        lambda f: f.aws_error is not None and f.no_statuses and not f.any_marker,
        _rejected,
    ),
    Row(
        "rejected",
        "any other STEP ERROR, or INPUT ERROR of (init)",
        "none",
        "any",
        "any",
        "refused (budget, capacity) or failed",
        lambda f: f.other_error and f.no_statuses,
        _rejected,
        final=True,
    ),
    Row(
        "ended unstarted",
        "any",
        "none",
        "yes",
        "any",
        "failed",
        lambda f: f.no_statuses and f.any_marker,
        _ended_unstarted,
        final=True,
    ),
    Row(
        "initializing",
        "no STEP 1 DONE",
        "none",
        "no",
        "quiet < {silent_start}",
        "starting",
        lambda f: f.no_statuses and 1 not in f.certificate.steps_done and not f.quiet_for(f.patience.silent_start),
        _starting,
    ),
    Row(
        "silent death",
        "no STEP 1 DONE",
        "none",
        "no",
        "later",
        "failed",
        lambda f: f.no_statuses and 1 not in f.certificate.steps_done,
        _silent,
    ),
    Row(
        "setting up",
        "otherwise",
        "none",
        "no",
        "quiet < {no_dispatch}",
        "starting",
        lambda f: f.no_statuses and not f.quiet_for(f.patience.no_dispatch),
        _starting,
    ),
    Row("never dispatched", "otherwise", "none", "no", "later", "lost", lambda f: f.no_statuses, _undispatched),
    Row(
        "dispatch failed",
        "STEP 4 ERROR",
        "no verdict",
        "yes, or any after quiet ≥ {platform_retry}",
        "any",
        "failed",
        lambda f: f.step4_error and not f.finished and (f.marked or f.quiet_for(f.patience.platform_retry)),
        _dispatch_failed,
    ),
    Row(
        "dispatch failing",
        "STEP 4 ERROR",
        "no verdict",
        "no",
        "before",
        "starting",
        lambda f: f.step4_error and not f.finished,
        _dispatch_failing,
    ),
    Row(
        "verdicts and end marker",
        "any",
        "verdicts on all",
        "yes",
        "any",
        "done if all succeeded, else failed",
        lambda f: f.all_terminal and f.marked,
        _all_verdicts,
        final=True,
    ),
    Row(
        "verdicts and quiet",
        "any",
        "verdicts on all",
        "no",
        "quiet ≥ {quiet}",
        "done if all succeeded, else failed",
        lambda f: f.all_terminal and f.quiet_for(f.patience.quiet),
        _all_verdicts,
    ),
    Row("settling", "any", "verdicts on all", "no", "before", "running", lambda f: f.all_terminal, _settling),
    Row(
        "blind end",
        "any",
        "never written (bypass)",
        "yes",
        "any",
        "done if results are there, else failed",
        lambda f: f.blind and f.marked,
        _blind_verdict,
        final=True,
    ),
    Row(
        "blind results",
        "any",
        "never written (bypass), one dataset",
        "no",
        "results, and quiet ≥ {quiet}",
        "done",
        lambda f: f.blind and len(f.names) == 1 and f.seen.results > 0 and f.quiet_for(f.patience.quiet),
        _blind_verdict,
    ),
    Row("blind", "any", "never written (bypass)", "no", "before", "running", lambda f: f.blind, _blind_running),
    Row(
        "no verdict",
        "any",
        "verdicts on some or none",
        "yes",
        "any",
        "failed",
        lambda f: f.marked,
        _no_verdict,
        final=True,
    ),
    Row(
        "gone quiet",
        "any",
        "verdicts on some or none",
        "no",
        "quiet ≥ {quiet}",
        "lost",
        lambda f: f.quiet_for(f.patience.quiet),
        _quiet,
    ),
    Row("some finished", "any", "verdicts on some", "no", "before", "running", lambda f: bool(f.finished), _running),
    Row("running", "any", "any IN PROGRESS", "no", "before", "running", lambda f: f.any_in_progress, _running),
    Row(
        "machines starting",
        "any",
        "otherwise",
        "no",
        "before",
        "starting",
        lambda _f: True,
        lambda _f: (JobState.STARTING, "its machines are starting"),
    ),
)
# fmt: on
