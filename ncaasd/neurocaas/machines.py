"""Several machines on one dataset: how many there are, and which verdicts of them are known. Pure.

NeuroCAAS starts one machine for each entry of its list of datasets, and keeps one status file for each base name, one
monitor line for each key. An ensemble's list is its one dataset, `ensemble_size` times; a list may also name one key twice,
or two keys of one base name. Then the machines overwrite each other's status: only that of the last to write can be read.

Rules, from the platform's own code: cunningham-lab/neurocaas at 04828bd, ncap_iac/protocols/submit_start.py
(`Submission_ensemble.parse_config`: `self.filenames*self.ensemble_size`; `process_inputs`: one "Starting analysis" line a
machine) and ncap_iac/protocols/utilsparam/s3.py (`JobLogger_demo._datasets`: a mapping by dataset, hence one monitor line);
cunningham-lab/neurocaas_contrib at f63629d, src/neurocaas_contrib/scripting.py (`log_process`: a worker writes its verdict
into the status file, then into the line of its dataset's name) and dgp/run_dgp_ensemble_cli.sh (under `set -e` its last step
puts `results<N>.zip`, N the machine's number from 1).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, MonitorLine

KEPT = 500  # verdicts of one job that are remembered
_NUMBERED = re.compile(r"process_results/results([1-9]\d{0,4})\.zip")


@dataclass(frozen=True, slots=True)
class Heard:
    """One machine's verdict, as it was read once. `source`: "status" or "line"; `moment` tells two machines apart."""

    source: str
    dataset: str  # base name
    moment: str
    success: bool
    why: str  # of a failure


@dataclass(frozen=True, slots=True)
class Memory:
    """The verdicts of a job that were read so far; they hold while its certificate is the one that was begun at `requested`."""

    requested: str = ""
    heard: tuple[Heard, ...] = ()

    def dump(self) -> str:
        """As text for the journal; empty when there is nothing to remember."""
        if not self.heard:
            return ""
        rows = [[h.source, h.dataset, h.moment, h.success, h.why] for h in self.heard]
        return json.dumps([self.requested, rows])


NOTHING = Memory()


def remembered(text: str) -> Memory:
    """The Memory that `Memory.dump` wrote as text; NOTHING when it can't be read."""
    try:
        requested, rows = json.loads(text) if text else ("", [])
        return Memory(str(requested), tuple(Heard(str(s), str(d), str(m), bool(ok), str(w)) for s, d, m, ok, w in rows))
    except (ValueError, TypeError):
        return NOTHING


def machine_number(name: str) -> int:
    """Which machine of an ensemble left the object of this `name` below the job's folder; 0 when the name doesn't say."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else 0


def machines_of(asked: Mapping[str, int], certificate: Certificate) -> tuple[dict[str, int], int]:
    """How many machines work on each dataset, and on how many more machines the dataset is not known.

    `asked`: how often each base name is in the job's list; the certificate may tell of more machines.
    """
    names = list(asked)
    work = Counter(certificate.started)
    lines = Counter(line.basename for line in certificate.monitor if line.basename in names)
    if lines.total() <= len(names):
        # A worker that doesn't find its line overwrites the first one (names with blanks): two lines of one dataset then say
        # nothing, as long as there are no more lines than datasets.
        lines.clear()
    found = {name: max(1, asked[name], work[name], lines[name]) for name in names}
    if any(name not in found for name in work):
        return found, 0  # the certificate is of another job in the same folder, so its counts are too
    more = certificate.machines - sum(found.values())
    if more > 0 and len(names) == 1:
        return {names[0]: certificate.machines}, 0
    return found, max(0, more)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What is known of the machines of one dataset."""

    machines: int
    succeeded: int
    failed: int
    reasons: tuple[str, ...]  # of the failures, once each
    last: DatasetStatus | None  # its status file, when there is a verdict in it
    contradicted: bool = False  # of a single machine the certificate says FAILED, and the status file SUCCESS

    @property
    def all_known(self) -> bool:
        """Whether every machine has given its verdict, as far as can be told."""
        return self.last is not None and (self.machines == 1 or self.known >= self.machines)

    @property
    def known(self) -> int:
        return min(self.machines, self.succeeded + self.failed)


def read_now(name: str, status: DatasetStatus | None, lines: Iterable[MonitorLine]) -> list[Heard]:
    """The verdicts that can be read now of the machines of dataset `name`."""
    found = []
    if status is not None and status.terminal:
        moment = f"{status.started}/{status.finished}"
        found.append(Heard("status", name, moment, status.success, "" if status.success else status.why()))
    for line in lines:
        if line.failed or (line.success and line.finished):
            # An older worker rewrites a finished line with the present time: only `(finished)` is one machine's own moment.
            moment = line.time if line.finished else ""
            why = "" if line.success else f"its line in the certificate says {line.word}"
            found.append(Heard("line", name, moment, line.success, why))
    return found


def verdicts(
    name: str,
    machines: int,
    status: DatasetStatus | None,
    lines: Sequence[MonitorLine],
    heard: Iterable[Heard],
    numbers: Iterable[int],
) -> Verdicts:
    """What is known of the machines of dataset `name`, from every source; a failure that was seen once stays one.

    `heard`: what was read of it, now or before; `numbers`: the machines that left an ensemble's numbered result.
    A single machine is judged by its status file, since workers may revert each other's lines. But a line says FAILED only if
    its worker wrote so. No honest job has a status file that contradicts such a line, so a contradiction is no success.
    """
    last = status if status is not None and status.terminal else None
    bad = [line for line in lines if line.failed]
    if machines == 1:
        if last is None:
            return Verdicts(1, 0, 0, (), None)
        if last.success and bad:
            said = f"its line in the certificate says {bad[0].word}, though its status file says SUCCESS"
            return Verdicts(1, 0, 1, (said,), last, contradicted=True)
        return Verdicts(1, int(last.success), int(not last.success), () if last.success else (last.why(),), last)
    mine = [h for h in heard if h.dataset == name]
    by_source = Counter((h.source, h.success) for h in mine)
    failed = max(by_source["status", False], by_source["line", False], len(bad))
    succeeded = max(
        by_source["status", True],
        by_source["line", True],
        sum(line.success for line in lines),
        sum(1 <= number <= machines for number in set(numbers)),
    )
    failed = min(failed, machines)
    # The reasons in status files come before those of lines, which are the same machines'.
    reasons = [h.why for h in mine if not h.success and h.source == "status"] or [h.why for h in mine if not h.success]
    return Verdicts(machines, min(succeeded, machines - failed), failed, tuple(dict.fromkeys(reasons)), last)


def gather(before: Memory, certificate: Certificate, now: Iterable[Heard]) -> Memory:
    """The verdicts heard before and now; those of an earlier certificate's machines are dropped."""
    same = not certificate.requested or certificate.requested == before.requested
    old = before.heard if same else ()
    heard = tuple(dict.fromkeys([*old, *now]))[:KEPT]
    return Memory(certificate.requested or before.requested, heard)


def several(machines: Mapping[str, int]) -> list[str]:
    """The datasets that more than one machine works on."""
    return [name for name, count in machines.items() if count > 1]
