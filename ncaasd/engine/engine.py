"""The loop: observe, plan, perform, record. One thread; it waits for nobody longer than `LONGEST_WAIT`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from ncaasd.engine.aftercare import Aftercare
from ncaasd.engine.declaring import Declarer
from ncaasd.engine.fetching import Fetcher
from ncaasd.engine.gating import Gate
from ncaasd.engine.house import Context, House
from ncaasd.engine.jobs import Jobs
from ncaasd.engine.observing import Observer
from ncaasd.engine.opening import Opener
from ncaasd.engine.packaging import Packager
from ncaasd.engine.pauses import Pauses
from ncaasd.engine.recordings import Recordings
from ncaasd.engine.reporting import Reporter
from ncaasd.engine.unitbook import UnitBook
from ncaasd.engine.units import Units
from ncaasd.engine.uploading import Uploader
from ncaasd.errors import JournalBroken, SyncFailed
from ncaasd.model import DownloadTask, FileRow, JobRow, JobState, Outcome, Phase
from ncaasd.plan.grouping import Matcher

LONGEST_WAIT = 5.0  # the heartbeat to systemd is sent once a turn
ENDING = 300.0  # an end that may still turn out to be none is not waited for longer by `once`
JUMP = 30.0  # seconds by which wall and monotonic time may drift apart before it counts as a jump


class Engine:
    def __init__(
        self,
        house: House,
        *,
        root: str,
        sources: Iterable[str] = (),
        tools: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.house = house
        self.book = UnitBook(house.journal)
        self.pauses = Pauses(house, self.book, scanned=self._scanned, over=self._pause_is_over)
        self.packager = Packager(house, self.book, self.pauses, tools=tools or {})
        self.declarer = Declarer(
            house, self.packager, self.book, sources=sources, tools=tools or {}, rules_changed=self._rules_changed
        )
        self.fetcher = Fetcher(house, root=root, finished=self._job_finished)
        self.aftercare = Aftercare(house, self.packager, root=root, tools=tools or {})
        recordings = Recordings(house, self.packager, self.book)
        self.jobs = Jobs(
            house, self.declarer, self.fetcher, self.book, self.pauses, recordings, put_in_place=self._put_in_place
        )
        self.observer = Observer(
            house,
            whole=self._whole,
            gone=self._gone,
            skipped=self._skipped,
            back=self.declarer.reread_unread,
            rescan=_rescan,
            packages=self.packager,
        )
        self.uploader = Uploader(
            house,
            gate=Gate(house, self.book),
            stored=self._stored,
            changed=self._changed_under_way,
            leaves=self.observer.names.look_at,
        )
        self.opener = Opener(house)
        self.reporter = Reporter(house, self.declarer, root=root)
        self.units = Units(house, self.reporter, self.book)
        self.root = root
        self.config_trouble = ""
        self.silent: frozenset[str] = frozenset()  # disks that don't answer, as was said
        self._offset = house.clock.now() - house.clock.monotonic()
        with house.journal.transaction():
            house.journal.forget_appointments(house.clock.now())  # the clock may have been put right while we were down
            for context in house.contexts.values():
                house.journal.retry_files(context.name)
                self.declarer.reread_unread(context)
            self.packager.resume()
            self.declarer.redeclare_reruns()

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

    def _rules_changed(self, context: Context) -> None:
        self.observer.names.rules_changed(context)

    def _put_in_place(self, context: Context, row: FileRow) -> None:
        self.observer.names.put_in_place(context, row)

    def _scanned(self, context: Context, tree: str) -> bool:
        return self.observer.has_scanned(context, tree)

    def _pause_is_over(self, context: Context, m: Matcher, unit: str) -> None:
        self.declarer.look_again(context, m, unit)
        self.house.journal.wake_unit(context.name, m.rule.name, unit)

    def _gone(self, context: Context, row: FileRow) -> None:
        self.pauses.changed(context, row)
        self.declarer.gone(context, row)
        self.jobs.assessor.changed(context, row)

    def _skipped(self, context: Context, row: FileRow) -> None:
        self.declarer.skipped(context, row)
        self.jobs.assessor.changed(context, row)

    def _whole(self, context: Context, row: FileRow, old: bool) -> None:
        self.pauses.changed(context, row, old=old)
        self.declarer.whole(context, row)
        self.jobs.assessor.changed(context, row)
        if row.key:
            self.house.journal.wake_jobs_of_file(row)

    def _stored(self, context: Context, row: FileRow) -> None:
        self.declarer.stored(context, row)
        self.jobs.assessor.stored(context, row)
        if row.place.is_package:
            self.packager.stored(row)

    def _changed_under_way(self, row: FileRow) -> None:
        if row.place.is_package:
            self.packager.lost(row)
        else:
            self.observer.changed_under_way(row)

    def _job_finished(self, context: Context, job: JobRow) -> None:
        self.declarer.changed.add((context.name, job.spec.declared_in))
        self.jobs.finished(context, job)
        self.aftercare.finished(context, job)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def turn(self, wait: float) -> None:
        """One turn: read what others posted (waiting up to `wait` seconds for the first), then do all that is due.

        Raises JournalError when nothing can be recorded (no space, F13): what is in memory may then be ahead of the journal, so
        the house is to be taken down, and put up again from the journal when that can be written.
        """
        self.house.desk.read(wait)
        self._notice_jump()
        self._notice_disks()
        self.book.turn()
        self.observer.turn()
        self.declarer.turn()
        self.pauses.turn()
        self.opener.turn()
        self.packager.turn()
        self.uploader.turn()
        self.jobs.turn()
        self.fetcher.turn()
        self.aftercare.turn()
        self.units.turn()
        self.reporter.turn()

    def _notice_jump(self) -> None:
        """A clock that was put back must not keep appointments waiting for years (F83)."""
        house = self.house
        offset = house.clock.now() - house.clock.monotonic()
        moved, self._offset = offset - self._offset, offset
        if abs(moved) < JUMP:
            return
        for context in house.contexts.values():
            context.paused_until = min(context.paused_until, house.clock.now())
            context.results_retry = 0.0
        self.opener.forget_appointments()
        self.observer.rescan_all()  # a suspend looks like this too, and other machines went on meanwhile (F85)
        with house.journal.transaction():
            house.journal.forget_appointments(house.clock.now())
            house.event("", "", "clock", f"this machine's clock has jumped by {moved:+.0f} s", level=logging.WARNING)

    def _notice_disks(self) -> None:
        """Say once that a disk does not answer, however much waits for it (F89), and go on when it does again."""
        house = self.house
        silent = frozenset(house.transfers.hanging())
        new, back = silent - self.silent, self.silent - silent
        if not new and not back:
            return
        self.silent = silent
        with house.journal.transaction():
            for disk in sorted(new):
                house.event("", "", "hanging", silence(disk), level=logging.ERROR)
            for disk in sorted(back):
                house.event("", "", "disk back", f"{disk} answers again")
            for context in house.contexts.values() if back else ():
                house.journal.retry_files(context.name)
                context.results_retry = 0.0

    def wait_for(self) -> float:
        """Seconds until something is due, at most LONGEST_WAIT."""
        house = self.house
        wall, monotonic = house.clock.now(), house.clock.monotonic()
        waits = [LONGEST_WAIT]
        for due in (self.observer.next_due(), self.declarer.next_due(), self.pauses.next_due()):
            if due is not None:
                waits.append(due - monotonic)
        opening = self.opener.next_due()
        if opening is not None:
            waits.append(opening - wall)
        room = self.uploader.wait()
        if room is not None:
            ready = [c.name for c in house.contexts.values() if c.opened and house.awake(c)]
            uploads = [at - wall for name in ready if (at := house.journal.next_upload(name)) is not None]
            waits += [max(room, upload) for upload in uploads]
        packing = self.packager.next_due()
        if packing is not None:
            waits.append(packing - wall)
        job = house.journal.next_due(self.jobs.rows_under_way())
        if job is not None:
            waits.append(job - wall)
        if self.declarer.changed:
            waits.append(0.3)
        return max(0.02, min(waits))

    def quiet(self, *, patient: bool, wait: bool) -> bool:
        """Whether a pass is over: nothing is under way and nothing is due. `patient`: settling files are waited for;
        `wait`: unended jobs too. What a person must decide, and what can't be reached, is not waited for."""
        house = self.house
        now = house.clock.now()
        if not self.observer.scanned() or self.observer.working() or self.declarer.reading():
            return False
        if self.uploader.busy() or self.jobs.busy() or self.fetcher.busy() or not self.opener.settled():
            return False
        if self.packager.busy() or self.aftercare.busy():
            return False
        if patient and self.observer.unsettled():
            return False
        if wait and self.pauses.pending():
            return False
        reachable = [c.name for c in house.contexts.values() if c.opened and house.awake(c)]
        if any(house.journal.pending_files(name, now, 1) for name in reachable):
            return False
        for job in house.journal.jobs(unfinished=True):
            if job.spec.analysis not in reachable:
                continue
            if job.next_at <= now:
                return False
            ended = job.phase is Phase.SUBMITTED and job.verdict is not None
            surely = job.verdict is JobState.DONE or now - job.ended < ENDING
            if ended and surely and not house.contexts[job.spec.analysis].results_trouble:
                return False  # what it left is fetched in this pass
            if wait and (job.phase is not Phase.OPEN or job.state is JobState.READY):
                return False
        return True


def silence(disk: str) -> str:
    return (
        f"{disk} does not answer: its mount hangs. What is to be uploaded from it or fetched to it waits; everything else"
        " goes on"
    )


def _rescan(context: Context) -> float:
    return context.settings.watch.rescan
