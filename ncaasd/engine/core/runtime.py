"""What all parts of the engine share, and the state of each analysis while it runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ncaasd.adapters.journal import Journal
from ncaasd.declare.config import Analysis
from ncaasd.engine.core.mailbox import Mailbox
from ncaasd.errors import BadCredentials, ClockSkewed, Denied, NoSuchBucket
from ncaasd.model import FileRow, LinkTarget
from ncaasd.neurocaas.evidence import Patience
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan.grouping import Matcher
from ncaasd.plan.retry import backoff
from ncaasd.ports import (
    Archive,
    Clock,
    CrashPoint,
    EarlierWork,
    FileTree,
    ObjectStore,
    PackageBuilder,
    ResultsTree,
    RigFile,
    StatusWriter,
    ToolRunner,
    Transfers,
    no_crash,
)

log = logging.getLogger("ncaasd")

# Errors that concern the whole analysis, not one file or job: everything of it waits until a person has acted (F55, F56).
ANALYSIS_WIDE = (BadCredentials, ClockSkewed, Denied, NoSuchBucket)


@dataclass
class Context:
    """One analysis at work."""

    name: str
    settings: Analysis
    layout: Layout
    trees: dict[str, FileTree]  # "" is its own folder, the others are sources by name
    results: ResultsTree
    status: StatusWriter
    store_for: Callable[[str], ObjectStore]
    settle: float
    polled: bool = False  # its file system sends no events for remote changes
    settle_links: float = 0.0  # at least this for a file behind a link out of its tree, maybe on a share
    prefix: str = ""
    rules: dict[str, list[Matcher]] = field(default_factory=dict)  # by manifest, in force
    noted: frozenset[str] = frozenset()  # ids of jobs named by local files, when the journal doesn't know all jobs
    opened: bool = False  # probe, marks and inventory are done: uploads and submits may begin
    earlier: EarlierWork | None = None  # reads the local files that tell of earlier jobs
    looked: bool = False  # those files were read, or don't answer: status files may be overwritten
    scanned_to: dict[str, int] = field(
        default_factory=dict
    )  # tree -> the last file that this process's first scan found
    submits_blocked: str = ""  # why nothing is submitted here
    paused: str = ""  # why no requests are sent to S3 for now
    paused_until: float = 0.0
    pauses: int = 0
    tree_trouble: dict[str, str] = field(default_factory=dict)  # tree -> why it can't be read
    results_trouble: str = ""
    results_retry: float = 0.0

    @property
    def store(self) -> ObjectStore:
        return self.store_for(self.name)


@dataclass
class Runtime:
    """What all parts of the engine share."""

    journal: Journal
    mailbox: Mailbox = field(init=False)  # set after construction: it uses the runtime's transactions
    clock: Clock
    contexts: dict[str, Context]
    rig: str  # its name; if the root's own file gives it, it is known once an analysis is open
    transfers: Transfers = field(init=False)  # set when the pool is made, which needs the engine
    patience: Patience = field(default_factory=Patience)
    crash: CrashPoint = no_crash
    packer: PackageBuilder | None = None
    archive: Archive | None = None
    tools: ToolRunner | None = None
    rig_file: RigFile | None = None  # None: the config names the rig
    host: str = ""  # this machine's name
    spread: Callable[[], float] = lambda: 0.5  # random in [0, 1): spreads retries over time
    # Called at the end of each of the engine's transactions: see `transaction`.
    before_commit: Callable[[], None] = lambda: None
    _writing: bool = field(default=False, init=False)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """How the engine writes the journal: all of the block is committed on leaving it, or rolled back on any exception.

        A nested block joins the outer one. At the end of the outermost block, still within its transaction, `before_commit`
        is called: it does once what is needed for all the rows that the block has changed, and is committed with them.
        """
        if self._writing:
            yield
            return
        with self.journal.transaction():
            self._writing = True
            try:
                yield
                self.before_commit()
            finally:
                self._writing = False

    def event(self, analysis: str, subject: str, kind: str, text: str, *, level: int = logging.INFO) -> None:
        """Record an event of a file, a job or the analysis in the journal and in the log."""
        self.journal.event(self.clock.now(), analysis, subject, kind, text)
        if not log.isEnabledFor(level):
            return
        shown = ": ".join(part for part in (analysis, subject, text) if part)
        extra = {"analysis": analysis, "subject": subject, "kind": kind}  # for `log.format: json`
        log.log(level, "%s", shown.encode("utf-8", "backslashreplace").decode(), extra=extra)

    def pause(self, context: Context, error: Exception) -> None:
        """Send no requests to S3 for this analysis for a while; others go on (F55)."""
        context.pauses += 1
        wait = backoff(context.pauses, first=15, most=600, spread=self.spread())
        context.paused_until = self.clock.now() + wait
        if context.paused != str(error):
            context.paused = str(error)
            self.event(context.name, "", "paused", str(error), level=logging.ERROR)

    def unpause(self, context: Context) -> None:
        """End the pause: S3 has answered without an error."""
        context.pauses = 0
        if context.paused:
            context.paused, context.paused_until = "", 0.0
            self.event(context.name, "", "resumed", "S3 answers again")

    def awake(self, context: Context) -> bool:
        return not context.paused or self.clock.now() >= context.paused_until

    def reachable(self) -> list[Context]:
        """The analyses for which requests may be sent to S3 now: open, and not paused."""
        return [c for c in self.contexts.values() if c.opened and self.awake(c)]

    def handle(self, context: Context, error: Exception | None) -> bool:
        """Pause the analysis when `error` concerns all of it; True when it did."""
        if isinstance(error, ANALYSIS_WIDE):
            self.pause(context, error)
            return True
        return False


MOST_LINKS = 40  # followed for one path, as in Linux


def target_of_link(journal: Journal, context: Context, row: FileRow) -> LinkTarget | None:
    """The target of a link that is followed; None when the config doesn't allow it any more. A link to another link of its
    tree is resolved from the journal."""
    link = row.link
    for _ in range(MOST_LINKS):
        after = None if link.startswith("/") else journal.file_at(replace(row.place, path=link))
        if after is None or not after.link:
            break
        link = after.link
    return context.trees[row.place.tree].target(link)
