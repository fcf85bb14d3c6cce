"""The status files that NeuroCAAS's workers write, one per dataset, every 10 s or so. Pure; nothing here raises.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Status files").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ncaasd.neurocaas.text import clean, short

_NAME = re.compile(r"(?:.*/)?DATASET_NAME:(.*)_STATUS\.txt", re.DOTALL)
_LAST_LINES = 20  # a failure's error is looked for in these last lines: the analysis went on after an older one

KILLED = {
    "SIGKILL/OOM": "killed, probably because it ran out of memory",
    "SIGKILL": "killed",
    "OOM": "it ran out of memory",
    "DEAD": "its machine died",
}
TERMINAL = frozenset({"SUCCESS", "FAILED", *KILLED})
_PLACEHOLDERS = frozenset({"not given yet", "NONE", "N/A"})


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """One dataset's status file. `status` is in upper case, as newer workers write it."""

    basename: str
    status: str
    reason: str
    input: str
    instance: str
    cpu: str
    memory: str
    started: str
    finished: str
    output: tuple[str, ...]  # standard output, or both where the worker mixes them; lines with their ends
    errors: tuple[str, ...]  # standard error, where it is kept apart

    @property
    def success(self) -> bool:
        return self.status == "SUCCESS"

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def in_progress(self) -> bool:
        """Whether a worker has written it, but no verdict: IN PROGRESS, or an unknown status."""
        return not self.terminal and self.status != "INITIALIZING"

    def text(self) -> str:
        """What the analysis printed, readable: not JSON, no control characters."""
        output = clean("".join(self.output))
        errors = clean("".join(self.errors))
        if not errors.strip():
            return output
        return f"{output.rstrip()}\n--- standard error ---\n{errors}" if output.strip() else errors

    def why(self) -> str:
        """Why it failed, in one line: the last error it printed, else the last thing it printed, else its reason."""
        if self.status in KILLED:
            return KILLED[self.status]
        lines = [line.strip() for line in clean("".join(self.output + self.errors)).split("\n") if line.strip()]
        for line in reversed(lines[-_LAST_LINES:]):
            if re.match(r"[\w.]*(?:Error|Exception)\b", line):
                return short(line)
        said = [line for line in lines if not line.startswith("----")]
        code = f" (exit code {self.reason})" if self.reason.isdigit() and self.reason != "0" else ""
        if said:
            return short(said[-1]) + code
        return f"exit code {self.reason}" if code else short(self.reason) or "no reason was given"


def status_basename(key: str) -> str | None:
    """The dataset's base name in a status file's key or name; None when it is not a status file."""
    match = _NAME.fullmatch(key)
    return match[1] if match else None


def parse_status(data: bytes, name: str) -> DatasetStatus | None:
    """Read a status file; `name` is its key or name. None when it is half-written or not one: ask again later."""
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("status"), str):
        return None
    source = _word(value.get("input"))
    basename = status_basename(name) or source.rpartition("/")[2]
    mixed = "std" in value  # newer workers
    return DatasetStatus(
        basename=basename,
        status=value["status"].strip().upper(),
        reason=_word(value.get("reason")),
        input=source,
        instance=_word(value.get("instance")),
        cpu=_word(value.get("cpu_usage")),
        memory=_word(value.get("memory_usage")),
        started=_word(value.get("job_start")),
        finished=_word(value.get("job_finish")),
        output=_lines(value["std"] if mixed else value.get("stdout")),
        errors=() if mixed else _lines(value.get("stderr")),
    )


def _word(value: object) -> str:
    """A field as text; workers write strings, numbers, null, and lists of one."""
    if isinstance(value, list):
        value = " ".join(_word(item) for item in value if isinstance(item, str | int | float))
    if isinstance(value, str):
        return "" if value in _PLACEHOLDERS else value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _lines(value: object) -> tuple[str, ...]:
    """Output as lines: a mapping from line numbers (older and newer workers), a list, or one string."""
    if isinstance(value, dict):
        numbered = sorted(value.items(), key=lambda item: (not item[0].isdecimal(), len(item[0]), item[0]))
        value = [line for _number, line in numbered]
    if isinstance(value, list):
        return tuple(line if line.endswith("\n") else line + "\n" for line in value if isinstance(line, str))
    return (value,) if isinstance(value, str) and value and value not in _PLACEHOLDERS else ()
