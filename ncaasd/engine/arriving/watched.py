"""The state of one watched tree: its files, those that settle with the times of their next looks, and whether it answers."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ncaasd.engine.core.runtime import Context
from ncaasd.model import Stat
from ncaasd.plan.settling import Observation
from ncaasd.ports import FileTree


@dataclass
class Unsettled:
    """A file that still settles. `look_at`: monotonic time of the next look."""

    file_id: int
    observation: Observation
    look_at: float
    why: str = ""
    link: str = ""


@dataclass
class Watched:
    """One tree of one analysis."""

    context: Context
    name: str  # "" or the source's
    tree: FileTree
    rescan: float
    known: dict[str, Stat] = field(default_factory=dict)
    unsettled: dict[str, Unsettled] = field(default_factory=dict)
    looks: list[tuple[float, str]] = field(default_factory=list)  # a heap of when to look at which unsettled file
    news: Iterator[Callable[[], None]] | None = None  # what the last scan found, as far as it is not taken in yet
    hinted: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)  # renamed into place, as the watcher saw
    scan_at: float = 0.0  # monotonic time of the next scan; infinite: only on request
    working_since: float | None = None
    scanning: bool = False  # the work since `working_since` is a scan
    scanned_at: float = -math.inf  # when the last scan ended, monotonic
    progress: int = 0  # the tree's, at `working_since` or when it last answered
    scans: int = 0
    files: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # path -> why, as the journal has it
    of_no_matter: dict[str, str] = field(default_factory=dict)  # what the last scan skipped that no rule could want
    slow_said: bool = False
    disk_short: bool = False
    # The last event about the tree is that it is missing or hangs: maybe recorded by an earlier process.
    said_away: bool = False

    def look_later(self, path: str, waiting: Unsettled) -> None:
        self.unsettled[path] = waiting
        heapq.heappush(self.looks, (waiting.look_at, path))

    def next_look(self) -> float | None:
        """When the next unsettled file is to be looked at. Heap entries of files that have settled or are to be looked
        at another time are dropped as they come up."""
        while self.looks:
            at, path = self.looks[0]
            waiting = self.unsettled.get(path)
            if waiting is not None and waiting.look_at == at:
                return at
            heapq.heappop(self.looks)
        return None

    def due(self, now: float, limit: int) -> list[str]:
        """At most `limit` unsettled files that are to be looked at now. They stay unsettled, without a time for the next
        look."""
        found: list[str] = []
        while len(found) < limit and (at := self.next_look()) is not None and at <= now:
            found.append(heapq.heappop(self.looks)[1])
        return found

    @property
    def said_away_key(self) -> str:
        """The meta key of `said_away`."""
        return f"away:{self.context.name}:{self.name}"

    @property
    def worker(self) -> str:
        return f"tree:{self.context.name}:{self.name}"
