"""What a check comes to."""

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
