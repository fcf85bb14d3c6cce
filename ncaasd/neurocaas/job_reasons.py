"""The sentences of the decision table: what a job's state is, and why, in plain words. One function a row."""

from __future__ import annotations

import re

from ncaasd.model import JobState
from ncaasd.neurocaas.certificate import CAPACITY_CODES, cost_sentence
from ncaasd.neurocaas.evidence import Facts
from ncaasd.neurocaas.machines import Verdicts
from ncaasd.neurocaas.text import duration, plural, short

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


def submitted(_facts: Facts) -> Verdict:
    return JobState.SUBMITTED, "waiting for NeuroCAAS to start it"


def no_answer(facts: Facts) -> Verdict:
    return JobState.LOST, (
        f"NeuroCAAS has not answered for {duration(facts.seen.age)}: it could not read the submit file, or is down"
    )


def platform_retries(facts: Facts) -> Verdict:
    return JobState.STARTING, f"{_rejection(facts)}; NeuroCAAS tries again by itself"


def rejected(facts: Facts) -> Verdict:
    refused = facts.certificate.over_budget or facts.certificate.out_of_capacity
    return (JobState.REFUSED if refused else JobState.FAILED), _rejection(facts)


def ended_unstarted(facts: Facts) -> Verdict:
    known = facts.certificate.error is not None
    return JobState.FAILED, _rejection(facts) if known else "it ended before any dataset was started"


def setting_up(facts: Facts) -> Verdict:
    steps = len(facts.certificate.steps_done)
    if steps == 4:
        return JobState.STARTING, "its machines are starting"
    return JobState.STARTING, f"NeuroCAAS sets it up: {steps} of 4 steps done"


def machines_starting(_facts: Facts) -> Verdict:
    return JobState.STARTING, "its machines are starting"


def silent_death(_facts: Facts) -> Verdict:
    return JobState.FAILED, "it failed silently while starting: only NeuroCAAS's own log knows why"


def never_dispatched(facts: Facts) -> Verdict:
    return JobState.LOST, f"no dataset was started, and nothing was heard for {duration(facts.seen.quiet)}"


def dispatch_failed(facts: Facts) -> Verdict:
    return JobState.FAILED, _rejection(facts)


def dispatch_failing(facts: Facts) -> Verdict:
    return JobState.STARTING, f"{_rejection(facts)}; waiting for what NeuroCAAS makes of it"


def all_verdicts(facts: Facts) -> Verdict:
    if facts.failures:
        return JobState.FAILED, _failures(facts)
    total = len(facts.names)
    if facts.shared:
        on = "the dataset" if total == 1 else f"{total} datasets"
        return JobState.DONE, f"all {facts.machines} machines on {on} succeeded"
    return JobState.DONE, "the dataset succeeded" if total == 1 else f"all {total} datasets succeeded"


def settling(facts: Facts) -> Verdict:
    return JobState.RUNNING, f"{_progress(facts)}; results may still settle"


def blind_verdict(facts: Facts) -> Verdict:
    count = facts.seen.results
    silence = "NeuroCAAS writes no verdict on data in another bucket without resultpath"
    if not count:
        return JobState.FAILED, f"it ended without results; {silence}"
    return JobState.DONE, f"{plural(count, 'result file')} came; {silence}"


def blind_running(_facts: Facts) -> Verdict:
    return JobState.RUNNING, "NeuroCAAS reports no progress on data in another bucket without resultpath"


def no_verdict(facts: Facts) -> Verdict:
    told = [_failures(facts)] if facts.failures else []
    alone = [name for name in facts.missing if name not in facts.shared]
    if alone:
        told = [f"the machine of {_listed(alone)} went down without a verdict", *told]
    for name in [n for n in facts.missing if n in facts.shared][:_SHOWN]:
        known = facts.verdicts[name]
        if not known.failed:
            left = f"only {known.known}" if known.known else "none"
            told.append(
                f"{known.machines} machines worked on {short(name)}, and {left} of them left a verdict that can be read: they"
                " share one status file, which shows only the last to write. Look at its logs and results"
            )
    if facts.idle:
        told.append(f"{plural(facts.idle, 'more machine')} went down without a verdict")
    return JobState.FAILED, "; ".join(told)


def gone_quiet(facts: Facts) -> Verdict:
    without = f", no verdict on {_listed(facts.missing)}" if facts.missing else ""
    return JobState.LOST, f"nothing was heard for {duration(facts.seen.quiet)}; {_progress(facts)}{without}"


def running(facts: Facts) -> Verdict:
    return JobState.RUNNING, _progress(facts)


def _progress(facts: Facts) -> str:
    if facts.machines > len(facts.names):
        known = sum(verdicts.known for verdicts in facts.verdicts.values())
        bad = sum(verdicts.failed for verdicts in facts.verdicts.values())
        failed = f", {bad} failed" if bad else ""
        return f"{known} of {facts.machines} machines known to have finished{failed}"
    failed = f", {len(facts.failures)} failed" if facts.failures else ""
    return f"{len(facts.finished)} of {plural(len(facts.names), 'dataset')} finished{failed}"


def _failures(facts: Facts) -> str:
    """`2 of 3 datasets failed: b.tif: ValueError: …; c.tif: killed`."""
    failures = facts.failures
    shown = "; ".join(f"{short(name)}: {_failure(verdicts)}" for name, verdicts in failures[:_SHOWN])
    more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    if len(facts.names) == 1 and facts.shared:
        return shown
    return f"{len(failures)} of {plural(len(facts.names), 'dataset')} failed: {shown}{more}"


def _failure(known: Verdicts) -> str:
    """Why a dataset counts as failed: its one machine's reason, or how many of its machines failed and why."""
    reasons = "; ".join(known.reasons[:_SHOWN])
    if known.machines == 1:
        return reasons
    unknown = known.machines - known.known
    rest = f", {unknown} left no verdict that can be read" if unknown else ""
    hidden = "; its status file shows only the last to write" if known.last is not None and known.last.success else ""
    return f"{known.machines} machines worked on it, {known.failed} failed{rest}: {reasons}{hidden}"


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
            return f"no capacity: NeuroCAAS says: {short(trouble.message)}"
        if missing := _NOT_FOUND.match(trouble.message):
            return _not_in_s3(missing[1])
        if field := _NO_FIELD.match(trouble.message):
            return f"the submit file has no {field[1]}"
    error = certificate.error
    if error is None:
        return short("; ".join(trouble.message for trouble in certificate.troubles)) or "no reason was given"
    if error.code in CAPACITY_CODES:
        return f"no capacity: AWS has no machine of that type to give ({error.code})"
    if "not covered by budget" in error.reason and certificate.cost is None:
        # Every failed assertion of step 2 is worded so (submit_start.py, `process_upload_ensemble`).
        return (
            "NeuroCAAS says that the budget does not cover it, but projected no cost: its job manager could not take the"
            " job as it is. An ensemble takes exactly one dataset"
        )
    for sign, hint in _HINTS:
        if sign in error.reason:
            return hint
    return f"step {error.number} of 4 ({short(error.name)}) failed{' at AWS' * (error.kind == 'AWS')}: {error.reason}"


def _not_in_s3(said: str) -> str:
    """NeuroCAAS names all datasets when one of them is missing, and the config alone."""
    names = [re.sub(r"^.*?/(?=(?:inputs|configs)/)", "", name) for name in re.findall(r"'([^']*)'", said) or [said]]
    return f"{short(names[0])} is not in S3" if len(names) == 1 else f"one of {_listed(names)} is not in S3"
