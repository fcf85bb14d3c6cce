"""The daemon's log on standard error: text for people, JSON lines for collectors, priorities for systemd's journal."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

# sd-daemon(3): the numbers by which systemd knows the priority of a line.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


_EXTRA = ("analysis", "subject", "kind")


class TextLines(logging.Formatter):
    """`2026-11-23 00:38:12 WARNING what happened`; the level INFO is left out."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{at} {level}{_text(self, record)}"


class JournalLines(logging.Formatter):
    """For systemd's journal, which adds the time itself, and takes the level from `<N>` in front of each line."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in _text(self, record).splitlines() or [""])


class JsonLines(logging.Formatter):
    """One object a line: time (ISO 8601, UTC), level, message; for events of the event log also analysis, subject and kind;
    `trace` if there is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        document |= {name: value for name in _EXTRA if (value := getattr(record, name, ""))}
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    message = record.getMessage()
    return f"{message}\n{formatter.formatException(record.exc_info)}" if record.exc_info else message


def under_systemd(environment: Mapping[str, str], fd: int = 2) -> bool:
    """Whether `fd` is systemd's journal. JOURNAL_STREAM alone doesn't show that: children that write elsewhere inherit it."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def set_up(*, level: str, json_lines: bool, handler: logging.Handler | None = None) -> None:
    """Log to standard error (or `handler`). Other libraries' records are logged from WARNING on."""
    handler = handler or logging.StreamHandler(sys.stderr)
    if json_lines:
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(JournalLines() if under_systemd(os.environ) else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ncaasd").setLevel(level.upper())
