"""The loop: observe, plan, perform, record. One thread; it waits for nobody longer than `LONGEST_WAIT`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ncaasd.engine.declaring import Declarer
from ncaasd.engine.fetching import Fetcher
from ncaasd.engine.house import Context, House
from ncaasd.engine.jobs import Jobs
from ncaasd.engine.observing import Observer
from ncaasd.engine.opening import Opener
from ncaasd.engine.reporting import Reporter
from ncaasd.engine.uploading import Uploader
from ncaasd.errors import JournalBroken, JournalError, SyncFailed
from ncaasd.model import DownloadTask, FileRow, FileState, JobRow, JobState, Outcome, Phase
from ncaasd.plan.files import role_of

LONGEST_WAIT = 5.0  # the heartbeat to systemd is sent once a turn
JOURNAL_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do, for `once`."""

    files: int  # to settle or upload
    jobs: int  # not ended, and not waiting for a person
    busy: bool


class Engine:
    def __init__(self, house: House, *, root: str, sources: Iterable[str] = (), tools: Iterable[str] = ()) -> None:
        self.house = house
        self.declarer = Declarer(house, sources=sources, tools=tools)
        self.fetcher = Fetcher(house, root=root, finished=self._job_finished)
        self.jobs = Jobs(house, self.declarer, self.fetcher)
        self.observer = Observer(house, whole=self._whole, gone=self.declarer.gone, rescan=_rescan)
        self.uploader = Uploader(
            house, gate=self.declarer.gate, stored=self.declarer.stored, changed=self.observer.changed_under_way
        )
        self.opener = Opener(house)
        self.reporter = Reporter(house, self.declarer, root=root)
        self.journal_trouble = ""
        with house.journal.transaction():
            for context in house.contexts.values():
                house.journal.retry_files(context.name)
                house.journal.wake_open_jobs(context.name)
            self.declarer.reread_unread()

    # -- called by others --------------------------------------------------------------------------------------------

    def sink(self, outcome: Outcome) -> None:
        """From pool threads: a transfer has ended."""
        self.house.desk.tell(lambda: self._outcome(outcome))

    def _outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, SyncFailed):
            # A failed fsync may have lost what was written before; a later success proves nothing (F15).
            raise JournalBroken(str(outcome.error))
        if isinstance(outcome.task, DownloadTask):
            self.fetcher.done(outcome)
        else:
            self.uploader.done(outcome)

    def _whole(self, context: Context, row: FileRow) -> None:
        self.declarer.whole(context, row)
        if row.key:
            self.house.journal.wake_jobs_using(context.name, row.key)

    def _job_finished(self, context: Context, job: JobRow) -> None:
        self.declarer.changed.add((context.name, job.spec.declared_in))
        self.jobs.finished(context, job)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def turn(self, wait: float) -> None:
        """One turn: read what others posted (waiting up to `wait` seconds for the first), then do all that is due."""
        try:
            self.house.desk.read(wait)
            self.observer.turn()
            self.opener.turn()
            self.uploader.turn()
            self.jobs.turn()
            self.fetcher.turn()
            self.reporter.turn()
        except JournalBroken:
            raise
        except JournalError as error:
            # No space: nothing is submitted while nothing can be recorded; it goes on by itself (F13).
            if self.journal_trouble != str(error):
                self.journal_trouble = str(error)
                logging.getLogger("ncaasd").error("%s", error)
            self.house.clock.sleep(min(JOURNAL_RETRY, LONGEST_WAIT))
        else:
            if self.journal_trouble:
                logging.getLogger("ncaasd").info("the journal can be written again")
                self.journal_trouble = ""

    def wait_for(self) -> float:
        """Seconds until something is due, at most LONGEST_WAIT."""
        house = self.house
        wall, monotonic = house.clock.now(), house.clock.monotonic()
        waits = [LONGEST_WAIT]
        due = self.observer.next_due()
        if due is not None:
            waits.append(due - monotonic)
        opening = self.opener.next_due()
        if opening is not None:
            waits.append(opening - wall)
        if self.uploader.room() and any(c.opened and house.awake(c) for c in house.contexts.values()):
            upload = house.journal.next_upload()
            if upload is not None:
                waits.append(upload - wall)
        job = house.journal.next_due(self.jobs.rows_under_way())
        if job is not None:
            waits.append(job - wall)
        if self.declarer.changed:
            waits.append(0.3)
        return max(0.02, min(waits))

    def left(self) -> Work:
        """What is unfinished. Jobs that a person must decide about, and those of paused analyses, count as nobody's."""
        journal = self.house.journal
        files = 0
        for name, context in self.house.contexts.items():
            if context.tree_trouble:
                continue
            for row in journal.files(name, states=[FileState.SETTLING, FileState.WHOLE]):
                files += role_of(row.place.path) != "none" and not row.reason.startswith(
                    ("waits for", "aborted", "no rule")
                )
        waiting = (JobState.HELD, JobState.WAITING)
        jobs = sum(j.state not in waiting or j.phase not in (Phase.OPEN,) for j in journal.jobs(unfinished=True))
        busy = self.uploader.busy() or self.jobs.busy() or self.fetcher.busy() or not self.observer.settled()
        return Work(files, jobs, busy or not all(c.opened or c.paused for c in self.house.contexts.values()))

    def run(self, stop: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Turn until `stop()`. `beat` is called once a turn: a hung engine stops beating, and is restarted."""
        wait = 0.0
        while not stop():
            self.turn(wait)
            beat()
            wait = self.wait_for()


def _rescan(context: Context) -> float:
    return context.settings.watch.rescan
