"""Is everything as it should be? One `Finding` each, with what to do. Used by `ncaasd check`.

Nothing here is fatal: what can't be found out is a finding, too, and the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ncaasd.declare.config import Config


class Level(StrEnum):
    GOOD = "good"
    NOTE = "note"  # works, but should be known
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was looked at, what was found, and what to do about it (empty when nothing). `analysis`: of which."""

    what: str
    level: Level
    text: str
    fix: str = ""
    analysis: str = ""

    def document(self) -> dict[str, Any]:
        return {
            "analysis": self.analysis or None,
            "what": self.what,
            "level": str(self.level),
            "text": self.text.encode("utf-8", "backslashreplace").decode(),
            "fix": self.fix or None,
        }


def findings(config: Config, *, offline: bool = False) -> Iterator[Finding]:
    """Everything about a config that could be read: this machine first, then what S3 says of each analysis."""
    from ncaasd.show.check.declared import declared_findings
    from ncaasd.show.check.machine import machine_findings

    yield from machine_findings(config)
    for name, settings in config.analyses.items():
        yield from declared_findings(config, name, settings)
    if offline:
        return
    from ncaasd.show.check.store import store_findings

    # Side by side: an endpoint that doesn't answer costs its timeouts once, not once an analysis.
    with ThreadPoolExecutor(max_workers=8) as pool:
        for found in pool.map(lambda item: list(store_findings(config, *item)), config.analyses.items()):
            yield from found


def above(path: str) -> str:
    """The nearest folder at or above `path` that is there."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
