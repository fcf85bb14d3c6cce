"""The courses that a job can take, on request: what the sandbox's platform does differently in each scenario.

A scenario is chosen for all jobs (`ncaasd sandbox --scenario NAME`), or by a job's own config: `__sandbox__: NAME`, or
`__sandbox__: {scenario: NAME, seconds: 20}` with any of PARAMETERS. Sources: NeuroCAAS protocol, docs/neurocaas.md,
"What happens after the put", and the certificates that NeuroCAAS's own code wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ncaasd.model import JobState

MARKER = "__sandbox__"  # the key in a config that asks for a scenario
PARAMETERS = ("seconds", "delay", "times")


class Fault(Enum):
    """What goes wrong in the job manager, before any dataset is worked on."""

    NONE = auto()
    NO_CERTIFICATE = auto()
    SILENT = auto()  # the certificate stops in step 1, without an error
    MISSING_FIELD = auto()  # INPUT ERROR in step 1, and nothing after it
    NOT_FOUND = auto()  # step 2
    OVER_BUDGET = auto()  # step 2
    NO_ENVIRONMENT = auto()  # step 3
    NO_BANDWIDTH = auto()  # step 4: RESOURCE ERROR, too many machines of the type
    NO_CAPACITY = auto()  # step 4: AWS has no machine
    VCPU_LIMIT = auto()  # step 4: the account's limit
    NO_ANSWER = auto()  # step 4: an AWS error after which the platform does not try again
    NO_BOOT = auto()  # step 4: the machines did not come up in time


class Fate(Enum):
    """How a started machine ends."""

    VERDICT = auto()  # the worker reports how the analysis ended
    FAILURE = auto()  # the worker reports that the analysis failed, whatever its result
    DIES = auto()  # shut down in the middle, with no verdict
    STOPPED = auto()  # stopped (not shut down) by the idle killer: the platform never notices
    NEVER_STARTS = auto()  # the machine is there, the worker never runs


class LogFormat(Enum):
    """How the workers write their status files."""

    STD = auto()  # newer: one `std`
    LEGACY = auto()  # older: `stdout` and `stderr` as {"0": "line", …}
    LEGACY_TEXT = auto()  # older: the same as one string


@dataclass(frozen=True, slots=True)
class Scenario:
    """One course of a job. `state` is the state that a client should report in the end, by the table of docs/neurocaas.md."""

    name: str
    sentence: str
    state: JobState = JobState.DONE
    fault: Fault = Fault.NONE
    times: int = 3  # attempts that fail with an AWS error in step 4; the platform makes three
    fate: Fate = Fate.VERDICT
    all_datasets: bool = False  # `fate` holds for all datasets, not only for the last
    log_format: LogFormat = LogFormat.STD
    success: str = "SUCCESS"  # the words of the verdicts
    failure: str = "FAILED"
    end_marker: bool = True
    early_end: bool = False  # a worker puts an end marker of its own when the first dataset is done
    late_result: bool = False  # each dataset's last file comes after the end marker
    racing: bool = False  # workers write the certificate as it was when they started
    half_written: bool = False  # every status file is cut off in the middle for a moment
    equal_names: bool = False  # every dataset also writes a summary.txt
    odd_names: bool = False  # results whose names a file system may not like
    ensemble: int = (
        0  # this many machines work on the job's one dataset, and write one status file; each leaves results<N>.zip
    )
    seconds: float = 0.0  # the analysis takes this much longer
    delay: float = 0.0  # seconds between two lines of the certificate, and before a late result


_TABLE = (
    Scenario("normal", "Everything goes as it should."),
    Scenario("no-certificate", "Nothing is ever written: the submit file was put, and that was it.", JobState.LOST,
             fault=Fault.NO_CERTIFICATE),
    Scenario("silent-death", "The certificate stops in the middle of step 1 without an error.", JobState.FAILED,
             fault=Fault.SILENT),
    Scenario("rejected-step-1", "Step 1 ends with an INPUT ERROR about a missing field, and no word after it.",
             JobState.FAILED, fault=Fault.MISSING_FIELD),
    Scenario("rejected-step-2", "Step 2 finds the data not to be in S3.", JobState.FAILED, fault=Fault.NOT_FOUND),
    Scenario("rejected-step-3", "Step 3 cannot set up the environment.", JobState.FAILED, fault=Fault.NO_ENVIRONMENT),
    Scenario("rejected-step-4", "Step 4 gives up on machines that don't come up in time; the end marker is put all the "
             "same.", JobState.FAILED, fault=Fault.NO_BOOT),
    Scenario("over-budget", "Step 2 refuses the job because its projected cost is over the budget.", JobState.REFUSED,
             fault=Fault.OVER_BUDGET),
    Scenario("no-capacity", "Step 4 gets InsufficientInstanceCapacity from AWS, and so do the platform's two retries.",
             JobState.REFUSED, fault=Fault.NO_CAPACITY),
    Scenario("vcpu-limit", "Step 4 gets VcpuLimitExceeded from AWS, and so do the platform's two retries.",
             JobState.REFUSED, fault=Fault.VCPU_LIMIT),
    Scenario("no-bandwidth", "Step 4 ends with a RESOURCE ERROR: more machines of the type than the platform allows.",
             JobState.REFUSED, fault=Fault.NO_BANDWIDTH),
    Scenario("aws-error", "Step 4 gets an AWS error when the machines are there; the platform gives up at once.",
             JobState.FAILED, fault=Fault.NO_ANSWER),
    Scenario("retry-succeeds", "Step 4 gets an AWS error; the platform's own retry starts the certificate again and "
             "succeeds.", fault=Fault.NO_CAPACITY, times=1),
    Scenario("one-fails", "The last dataset's analysis fails, the others succeed.", JobState.FAILED, fate=Fate.FAILURE),
    Scenario("all-fail", "Every dataset's analysis fails.", JobState.FAILED, fate=Fate.FAILURE, all_datasets=True),
    Scenario("machine-dies", "The last dataset's machine goes down without a verdict; the end marker is put.",
             JobState.FAILED, fate=Fate.DIES),
    Scenario("machine-stopped", "The last dataset's machine is stopped by the idle killer: no verdict and no end marker, "
             "ever.", JobState.LOST, fate=Fate.STOPPED),
    Scenario("never-starts", "The machines are there, but no worker ever runs on them.", JobState.LOST,
             fate=Fate.NEVER_STARTS, all_datasets=True),
    Scenario("no-end-marker", "All datasets succeed, and the end marker never comes.", end_marker=False),
    Scenario("early-end", "A worker puts an `end file.` marker of its own when the first dataset is through (the PMD "
             "stack).", log_format=LogFormat.LEGACY, early_end=True),
    Scenario("legacy-logs", "Status files of the older workers: `stdout` and `stderr` line by line.",
             log_format=LogFormat.LEGACY),
    Scenario("legacy-text", "Status files of the older workers: `stdout` and `stderr` as one string each.",
             log_format=LogFormat.LEGACY_TEXT),
    Scenario("lower-case", "The verdict is written `success`.", log_format=LogFormat.LEGACY, success="success"),
    Scenario("lower-case-failed", "The verdict is written `failed`.", JobState.FAILED, log_format=LogFormat.LEGACY,
             fate=Fate.FAILURE, failure="failed"),
    Scenario("out-of-memory", "The last dataset's analysis is killed: `sigkill/oom`.", JobState.FAILED,
             log_format=LogFormat.LEGACY, fate=Fate.FAILURE, failure="sigkill/oom"),
    Scenario("dead", "The last dataset's analysis is found `dead`.", JobState.FAILED, log_format=LogFormat.LEGACY,
             fate=Fate.FAILURE, failure="dead"),
    Scenario("late-results", "Each dataset's last result file comes after the end marker.", late_result=True),
    Scenario("racing-workers", "The workers revert each other's lines in the certificate; the status files are right.",
             racing=True),
    Scenario("half-written", "Every status file is found cut off in the middle for a moment.", half_written=True),
    Scenario("slow-certificate", "The certificate grows slowly, line by line.", delay=0.5),
    Scenario("slow-analysis", "The analysis takes half a minute longer.", seconds=30.0),
    Scenario("equal-names", "Every dataset writes a `summary.txt`; the last one to finish wins.", equal_names=True),
    Scenario("ensemble", "Three machines work on the one dataset (of several the job is rejected), and overwrite each "
             "other's status file; each leaves a result with its number.", ensemble=3),
    Scenario("ensemble-one-fails", "The same, and one of them fails; the status file says SUCCESS in the end, of another.",
             JobState.FAILED, ensemble=3, fate=Fate.FAILURE),
    Scenario("odd-names", "Results with names that a file system may refuse or confuse.", odd_names=True),
)  # fmt: skip

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _TABLE}


def choose(config: object, default: Scenario) -> Scenario:
    """The scenario that a job's config asks for, else `default`.

    Raises ValueError, for the certificate, when it asks for an unknown scenario or parameter.
    """
    wanted = config.get(MARKER) if isinstance(config, Mapping) else None
    if wanted is None:
        return default
    given: dict[str, Any] = {"scenario": wanted} if isinstance(wanted, str) else wanted
    if not isinstance(given, dict):
        raise ValueError(f"{MARKER} must be a scenario's name, or a mapping with one; it is {wanted!r}")
    name = given.get("scenario", default.name)
    if name not in SCENARIOS:
        raise ValueError(f"{MARKER}: there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    changes = {key: value for key, value in given.items() if key != "scenario"}
    wrong = sorted(set(map(str, changes)) - set(PARAMETERS))
    if wrong:
        raise ValueError(f"{MARKER}: there is no parameter {wrong[0]!r}; there are: {', '.join(PARAMETERS)}")
    if any(isinstance(value, bool) or not isinstance(value, int | float) or value < 0 for value in changes.values()):
        raise ValueError(f"{MARKER}: parameters are numbers, not below 0; they are {changes!r}")
    return dataclasses.replace(SCENARIOS[name], **changes)
