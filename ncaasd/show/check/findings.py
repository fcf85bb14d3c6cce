"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    GOOD = "good"
    NOTE = "note"  # works, but should be known
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked (`what`), what was found (`text`), and what to do (`fix`, empty when nothing); for `analysis`, if any."""

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
