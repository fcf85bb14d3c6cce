"""The certificate that NeuroCAAS's job manager writes for each job, line by line. Pure; nothing here raises.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("The certificate").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ncaasd.model import CostNote
from ncaasd.neurocaas.status import TERMINAL, DatasetStatus, parse_status, status_basename
from ncaasd.neurocaas.text import money, short

__all__ = [
    "CAPACITY_CODES",
    "Certificate",
    "DatasetStatus",
    "MonitorLine",
    "StepError",
    "Trouble",
    "cost_sentence",
    "parse_certificate",
    "parse_status",
    "readable_log",
    "status_basename",
]

CAPACITY_CODES = frozenset({"InsufficientInstanceCapacity", "VcpuLimitExceeded"})
LINE_LIMIT = 8192  # characters of one line that are looked at: a worker's output can be in it

_END = r"(?:\t \[\+[\d:. ,a-z]+\])?"  # the job manager's own stopwatch, at the end of most lines
_STOPWATCH = re.compile(r"\t \[\+[\d:. ,a-z]+\]\Z")
_STEP_DONE = re.compile(r"\[Job Manager\] STEP ([1-4])/4 \(([^)]*)\): DONE" + _END)
_STEP_ERROR = re.compile(r"\[Job Manager\] STEP ([1-4])/4 \(([^)]*)\): (AWS|INTERNAL) ERROR\. (.*)")
_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception): (.*)")
_TROUBLE = re.compile(r" {8}\[Internal \((\w+)\)\] (INPUT|RESOURCE) ERROR: (.*?)" + _END)
_COST = re.compile(
    r" {8}\[Internal \(get_costmonitoring\)\] Projected total costs: \$([\d.e+-]+)\. "
    r"(?:Remaining budget: \$([\d.e+-]+)|Over budget \(\$([\d.e+-]+)\), cancelling job\..*?)" + _END
)
_REQUEST = "        [Internal (init)] Analysis request with dataset(s): "
_REQUEST_LIMIT = 1024**2  # characters; it lists all datasets
_BYPASS = re.compile(
    r" {8}\[Internal \(init\)\] Full bypass info: \{'input': \{'bucket': (?:None|'([^']*)').*"
    r"'output': \{'bucket': (?:None|'([^']*)'), 'resultpath': (?:None|'([^']*)')\}\}" + _END
)
_MONITOR = re.compile(
    r"DATANAME: (.*?) \| STATUS: ([^|]*?) \| TIME: ([^|]*?)( \(finished\))?"
    r"(?: \| LAST COMMAND: (.*?))?(?: \| CPU_USAGE: ([^|]*))?"
)
_CREATED = re.compile(r" {8}\[Internal \(start_instance\)\] Created (\d{1,6}) immutable analysis environments\." + _END)
_WORK = re.compile(r" {8}\[Internal \(process_inputs\)\] Starting analysis \d+ with parameter set (.*?)" + _END)
_MACHINE = re.compile(r" {8}\[Utils\] New instance .* created!" + _END)
_REQUESTED = "REQUEST START TIME: "
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_AWS_CODE = re.compile(r"'Code': '(\w+)'(?:, 'Message': ['\"](.*?)['\"][,}])?")
_PREFIX = re.compile(r"^\s*(?:\[Internal \(\w+\)\]|\[JOB TERMINATE REASON\]|Unexpected Error:|Error:)\s*")


@dataclass(frozen=True, slots=True)
class StepError:
    """A step that failed. `reason` is for people; `code` is AWS's error code, or empty."""

    number: int
    name: str
    kind: Literal["AWS", "INTERNAL"]
    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An INPUT or RESOURCE ERROR line, and the job manager's function that wrote it."""

    where: str
    kind: Literal["INPUT", "RESOURCE"]
    message: str


@dataclass(frozen=True, slots=True)
class MonitorLine:
    """One line of the monitor section: one per dataset, even if several machines work on it (the last to write is seen).

    Workers overwrite each other's lines, so a line may be older than the status file; it never has what no worker wrote.
    """

    dataset: str
    status: str
    time: str
    finished: bool
    last_command: str
    cpu: str

    @property
    def basename(self) -> str:
        return self.dataset.rpartition("/")[2]

    @property
    def word(self) -> str:
        """Its status in upper case, as `DatasetStatus.status`."""
        return self.status.strip().upper()

    @property
    def success(self) -> bool:
        return self.word == "SUCCESS"

    @property
    def failed(self) -> bool:
        return self.word in TERMINAL and not self.success


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Everything may be absent: it is written line by line."""

    steps_done: frozenset[int] = frozenset()
    errors: tuple[StepError, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    cost: CostNote | None = None
    budget: float | None = None  # dollars; known when over budget
    monitor: tuple[MonitorLine, ...] = ()
    complete: bool = False
    datasets: tuple[str, ...] = ()  # as the job manager read them from the submit file
    config: str = ""
    input_bucket: str = ""  # storage bypass: where data and config are
    output: tuple[str, str] | None = None  # storage bypass: bucket and prefix of the results
    requested: str = ""  # when the job manager began the certificate: the platform's own retry begins another
    created: int = 0  # machines that came up, as it says
    launched: int = 0  # machines that AWS gave: paid for from here on
    started: tuple[str, ...] = ()  # for each machine that was given work, in order: its dataset's base name

    @property
    def machines(self) -> int:
        """How many machines the job has, or had, as the job manager counts them; 0 while it has started none.

        It starts one for each entry of its list of datasets. An ensemble's list repeats its one dataset `ensemble_size`
        times, though there is one monitor line (docs/neurocaas.md, "Several machines on one dataset").
        """
        return max(self.created, self.launched, len(self.started))

    @property
    def error(self) -> StepError | None:
        """The first error: later ones come from cleaning up after it."""
        return self.errors[0] if self.errors else None

    @property
    def over_budget(self) -> bool:
        return self.cost is not None and self.cost.remaining is None

    @property
    def out_of_capacity(self) -> bool:
        return any(trouble.kind == "RESOURCE" for trouble in self.troubles) or (
            self.error is not None and self.error.code in CAPACITY_CODES
        )

    @property
    def rejected_at_start(self) -> bool:
        """An INPUT ERROR of the initialization: no step error follows it."""
        return any(trouble.where == "init" and trouble.kind == "INPUT" for trouble in self.troubles)


@dataclass
class _Reading:
    """What has been read so far."""

    steps: set[int] = field(default_factory=set)
    errors: list[StepError] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    monitor: list[MonitorLine] = field(default_factory=list)
    cost: CostNote | None = None
    budget: float | None = None
    datasets: tuple[str, ...] = ()
    config: str = ""
    input_bucket: str = ""
    output: tuple[str, str] | None = None
    complete: bool = False
    requested: str = ""
    created: int = 0
    launched: int = 0
    started: list[str] = field(default_factory=list)


def parse_certificate(text: str) -> Certificate:
    """Read a certificate, whole or cut anywhere. Never raises; what is not understood is passed over."""
    reading = _Reading()
    whole = text.split("\n")  # only \n: outputs hold other line ends
    lines = [line[:LINE_LIMIT] for line in whole]
    for index, line in enumerate(lines):
        if line.startswith(_REQUEST):
            _read_request(whole[index][len(_REQUEST) : _REQUEST_LIMIT], reading)
        elif line.startswith("DATANAME: "):
            _read_monitor(line, reading)
        elif line.startswith("[Job Manager] STEP "):
            _read_step(lines, index, reading)
        elif line.startswith("        [Internal ("):
            _read_internal(line, reading)
        elif line.startswith("        [Utils] New instance "):
            reading.launched += bool(_MACHINE.fullmatch(line))
        elif line.startswith(_REQUESTED):
            reading.requested = _STOPWATCH.sub("", line[len(_REQUESTED) :])
        elif line.startswith("JOB MONITOR LOG COMPLETE"):
            reading.complete = True
    return Certificate(
        steps_done=frozenset(reading.steps),
        errors=tuple(reading.errors),
        troubles=tuple(reading.troubles),
        cost=reading.cost,
        budget=reading.budget,
        monitor=tuple(reading.monitor),
        complete=reading.complete,
        datasets=reading.datasets,
        config=reading.config,
        input_bucket=reading.input_bucket,
        output=reading.output,
        requested=reading.requested,
        created=reading.created,
        launched=reading.launched,
        started=tuple(reading.started),
    )


def _read_monitor(line: str, reading: _Reading) -> None:
    if match := _MONITOR.fullmatch(line):
        name, status, time, finished, command, cpu = match.groups(default="")
        reading.monitor.append(MonitorLine(name, status, time, bool(finished), command, cpu))


def _read_step(lines: list[str], index: int, reading: _Reading) -> None:
    if done := _STEP_DONE.fullmatch(lines[index]):
        reading.steps.add(int(done[1]))
    elif error := _STEP_ERROR.fullmatch(lines[index]):
        kind: Literal["AWS", "INTERNAL"] = "AWS" if error[3] == "AWS" else "INTERNAL"
        code, reason = _explain(error[4], _traceback(lines, index + 1))
        reading.errors.append(StepError(int(error[1]), error[2], kind, reason, code))


def _traceback(lines: list[str], start: int) -> list[str]:
    """The lines between an error and the job manager's "Shutting down job." (or the next step, when that is missing)."""
    end = start
    while end < len(lines) and not lines[end].startswith("[Job Manager] "):
        end += 1
    return lines[start:end]


def _explain(inline: str, traceback: list[str]) -> tuple[str, str]:
    """AWS's code, and the reason for people: the last exception of the traceback, else the text of the line."""
    inline = _STOPWATCH.sub("", inline)
    if code := _AWS_CODE.search(inline):
        return code[1], f"{code[1]}: {code[2]}" if code[2] else code[1]
    for index in range(len(traceback) - 1, -1, -1):
        if match := _EXCEPTION.fullmatch(traceback[index]):
            reason = match[1]
            # botocore ends the first line of a validation error with a colon and says what was wrong in the next
            if reason.rstrip().endswith(":") and index + 1 < len(traceback):
                reason = f"{reason.rstrip()} {traceback[index + 1].strip()}"
            return "", short(_strip(reason))
    return "", short(_strip(inline)) or "no reason was given"


def _strip(reason: str) -> str:
    for _ in range(4):  # such prefixes are nested
        reason, count = _PREFIX.subn("", reason)
        if not count:
            break
    return reason.strip()


def _read_request(rest: str, reading: _Reading) -> None:
    """What the job manager took from the submit file: a list as Python prints it, or one name."""
    datasets, separator, config = _STOPWATCH.sub("", rest).rpartition(", config file ")
    if not separator:
        return
    names = [single or double for single, double in _QUOTED.findall(datasets)]
    reading.datasets = tuple(names) if datasets.startswith("[") else (datasets,)
    reading.config = config


def _read_internal(line: str, reading: _Reading) -> None:
    if match := _TROUBLE.fullmatch(line):
        kind: Literal["INPUT", "RESOURCE"] = "INPUT" if match[2] == "INPUT" else "RESOURCE"
        reading.troubles.append(Trouble(match[1], kind, match[3]))
    elif match := _WORK.fullmatch(line):
        reading.started.append(match[1].rpartition("/")[2])
    elif match := _CREATED.fullmatch(line):
        reading.created = int(match[1])
    elif match := _COST.fullmatch(line):
        _read_cost(match, reading)
    elif match := _BYPASS.fullmatch(line):
        reading.input_bucket = match[1] or ""
        reading.output = (match[2], match[3] or "") if match[2] else None


def _read_cost(match: re.Match[str], reading: _Reading) -> None:
    projected, remaining, budget = (_dollars(group) for group in match.groups())
    if projected is None:
        return
    if budget is not None:
        reading.cost = CostNote(projected, None, over_by=f"${projected - budget:,.2f}")
        reading.budget = budget
    elif remaining is not None:
        reading.cost = CostNote(projected, remaining)


def _dollars(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:  # "1.2.3" fits the pattern of a number, and is none
        return None
    return value if value is None or abs(value) < 1e15 else None


def readable_log(certificate: Certificate | None, statuses: Iterable[DatasetStatus]) -> str:
    """A job's logs as text: what the certificate says of its datasets, then what each printed."""
    parts = []
    known = {status.basename: status for status in statuses}
    if certificate is not None:
        parts.append("\n".join(_summary(certificate, known)))
    for name in sorted(known):
        status = known[name]
        title = f"=== {short(name)}: {short(status.status)}"
        parts.append(f"{title}{_machine(status)} ===\n{status.text().rstrip() or '(nothing printed yet)'}")
    return "\n\n".join(parts) + "\n" if parts else ""


def _summary(certificate: Certificate, known: dict[str, DatasetStatus]) -> list[str]:
    lines = [f"steps done: {', '.join(map(str, sorted(certificate.steps_done))) or 'none'} of 4"]
    if certificate.cost is not None:
        lines.append(cost_sentence(certificate))
    lines += [f"{trouble.kind.lower()} error: {short(trouble.message)}" for trouble in certificate.troubles]
    lines += [f"step {error.number} ({error.name}) failed: {error.reason}" for error in certificate.errors[:1]]
    if certificate.machines > len(certificate.monitor) > 0:
        lines.append(f"machines: {certificate.machines}; of those that work on one dataset, the last to write is seen")
    for line in certificate.monitor:
        status = known.get(line.basename)
        word = status.status if status else line.status  # workers overwrite each other's lines here
        lines.append(short(f"{line.dataset}: {word} at {line.time}" + (f", {line.cpu} CPU" if line.cpu else "")))
    return lines


def _machine(status: DatasetStatus) -> str:
    facts = [
        f"{word} {value}"
        for word, value in (("CPU", status.cpu), ("memory", status.memory), ("from", status.started))
        if value
    ]
    facts += [f"to {status.finished}"] if status.finished else []
    return f" ({short(', '.join(facts))})" if facts else ""


def cost_sentence(certificate: Certificate) -> str:
    """What the certificate says of money, in words; empty when it says nothing."""
    cost = certificate.cost
    if cost is None:
        return ""
    if cost.remaining is None:
        return f"over budget: {money(cost.projected)} of {money(certificate.budget or 0.0)} would be used"
    return f"projected cost {money(cost.projected)}, {money(cost.remaining)} of the budget left"
