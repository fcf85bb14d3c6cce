"""The certificate of a job as NeuroCAAS writes it: a log that is rewritten whole, line by line.

Format: NeuroCAAS protocol, docs/neurocaas.md, "What happens after the put".
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

STEPS = {1: "Initialization", 2: "Validation", 3: "Environment Setup", 4: "Initialize Processing"}
_VERSION = "5a9dbc0000000000000000000000000000000000"
_RULE = "=" * 16


class Certificate:
    """One job's certificate. `put` stores its whole text, `pause` is called between two lines.

    The job manager appends lines; when the machines are dispatched it prepends the monitor section; then the workers
    each replace their own line in it.
    """

    def __init__(self, put: Callable[[str], None], pause: Callable[[], None]) -> None:
        self._put = put
        self._pause = pause
        self._text = ""
        self._lock = threading.Lock()
        self._start = time.monotonic()

    @property
    def text(self) -> str:
        with self._lock:
            return self._text

    def begin(self, job_id: str) -> None:
        """Start the log; when the platform retries, this drops what was written before."""
        self._start = time.monotonic()
        with self._lock:
            self._text = ""
        self.line(f"REQUEST START TIME: {_now().strftime('%Y-%m-%d %H:%M:%S.%f')[:-4]} (GMT)")
        self.line(f"ANALYSIS VERSION ID: {_VERSION}")
        self.line(f"JOB ID: {job_id}")
        with self._lock:
            self._text += "\n \n"

    def continue_at(self, put: Callable[[str], None]) -> None:
        """Continue the log in another place, with what is written so far; its time begins at zero again."""
        self._put = put
        self._start = time.monotonic()

    def line(self, text: str) -> None:
        """One line of the log, with the time since the start."""
        self._append(f"{text}\t [+{_elapsed(time.monotonic() - self._start)}]\n")

    def internal(self, where: str, text: str) -> None:
        self.line(f"        [Internal ({where})] {text}")

    def utils(self, text: str) -> None:
        self.line(f"        [Utils] {text}")

    def done(self, step: int) -> None:
        self.line(f"[Job Manager] STEP {step}/4 ({STEPS[step]}): DONE")

    def failed(self, step: int, kind: str, text: str) -> None:
        """`kind` is AWS or INTERNAL; `text` is one line, or a traceback that ends with a line break."""
        self._append(f"[Job Manager] STEP {step}/4 ({STEPS[step]}): {kind} ERROR. {text}\n")
        self.line("[Job Manager] Shutting down job.")

    def dispatch(self, datasets: Sequence[str]) -> None:
        """Prepend the monitor section: one line per dataset."""
        lines = [
            f"DATANAME: {name} | STATUS: INITIALIZING | TIME: {_moment()} | LAST COMMAND: NONE" for name in datasets
        ]
        section = "\n".join(["PER ENVIRONMENT MONITORING:", _RULE, *lines, _RULE, _EXPLANATION])
        with self._lock:
            self._text = section + self._text
            self._put(self._text)

    def replace(self, dataset: str, line: str, *, seen: str | None = None) -> None:
        """Replace a dataset's line with its worker's new one.

        With `seen`, the text that the worker read earlier, it is replaced in that, which reverts what others wrote since.
        """
        pattern = re.compile(rf"^DATANAME: {re.escape(dataset)} \|.*$", re.MULTILINE)
        with self._lock:
            self._text = pattern.sub(lambda _found: line, self._text if seen is None else seen, count=1)
            self._put(self._text)

    def _append(self, text: str) -> None:
        with self._lock:
            self._text += text
            self._put(self._text)
        self._pause()


_EXPLANATION = """\
Once jobs start, these logs will be updated regularly. Allow some time [~1 minute] after all jobs finish for results to \
appear.
For more information, see DATASET_NAME: files for stdout and stderr output.
\x20
++++++++++++++++++
\x20
JOB MANAGER SETUP LOG:
"""


def traceback_text(error: BaseException) -> str:
    """A traceback as the platform's Lambda prints it: with its causes, its file paths, and a line break at the end."""
    text = "".join(traceback.format_exception(error))
    return re.sub(r'File "[^"]*/([^/"]+)"', r'File "/var/task/\1"', text)


def monitor_line(dataset: str, status: str, *, finished: bool, command: str, cpu: str) -> str:
    """A newer worker's line in the monitor section."""
    end = " (finished)" if finished else ""
    moment = _now().strftime("%Y_%m_%d_%H_%M_%S")
    return f"DATANAME: {dataset} | STATUS: {status} | TIME: {moment}{end} | LAST COMMAND: {command} | CPU_USAGE: {cpu}"


def legacy_monitor_line(dataset: str, status: str, *, finished: bool, command: str, cpu: str) -> str:
    """An older worker's line in the monitor section; once it has finished, it has no command and CPU usage."""
    if finished:
        return f"DATANAME: {dataset} | STATUS: {status} | TIME: {_moment()} (finished)"
    usage = f" | CPU_USAGE: {cpu}" if cpu else ""
    return f"DATANAME: {dataset} | STATUS: {status} | TIME: {_moment()} | LAST COMMAND: {command}{usage}"


def _moment() -> str:
    return _now().strftime("%Y-%m-%d %H:%M:%S.%f")


def _now() -> datetime:
    return datetime.now(UTC)


def _elapsed(seconds: float) -> str:
    """As `str(timedelta)` prints it, cut to hundredths: 0:00:00.41, or 1 day, 0:00:12.05."""
    whole = timedelta(seconds=int(seconds))
    return f"{whole}.{int(seconds * 100) % 100:02d}"
