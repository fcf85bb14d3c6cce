"""The event loop: observe, plan, perform, record. One thread, which never waits longer than `LONGEST_WAIT`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from ncaasd.engine.arriving.declaring import Declarer
from ncaasd.engine.arriving.gating import Gate
from ncaasd.engine.arriving.observing import Observer
from ncaasd.engine.arriving.packaging import Packager
from ncaasd.engine.arriving.pauses import Pauses
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.arriving.uploading import Uploader
from ncaasd.engine.core.opening import Opener
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.following.afterwards import Afterwards
from ncaasd.engine.following.fetching import Fetcher
from ncaasd.engine.submitting.considering import Jobs
from ncaasd.engine.submitting.recordings import Recordings
from ncaasd.engine.telling.reporting import Reporter
from ncaasd.engine.telling.units import Units
from ncaasd.errors import JournalBroken, SyncFailed
from ncaasd.model import DownloadTask, FileRow, JobRow, Outcome
from ncaasd.plan.grouping import Matcher

SHORTEST_WAIT = 0.02  # seconds; keeps the loop from spinning
LONGEST_WAIT = 5.0  # seconds; the heartbeat to systemd is sent once a turn
JUMP = 30.0  # seconds by which wall and monotonic time may drift apart before it counts as a jump


class Engine:
    def __init__(
        self,
        runtime: Runtime,
        *,
        root: str,
        sources: Iterable[str] = (),
        tools: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.runtime = runtime
        self.sessions = Sessions(runtime.journal)
        self.pauses = Pauses(runtime, self.sessions, scanned=self._scanned, over=self._pause_is_over)
        self.packager = Packager(runtime, self.sessions, self.pauses, tools=tools or {})
        self.declarer = Declarer(
            runtime, self.packager, self.sessions, sources=sources, tools=tools or {}, rules_changed=self._rules_changed
        )
        runtime.before_commit = self.declarer.look_at_touched
        self.fetcher = Fetcher(runtime, root=root, finished=self._job_finished)
        self.afterwards = Afterwards(runtime, self.packager, root=root, tools=tools or {})
        recordings = Recordings(runtime, self.packager, self.sessions)
        self.jobs = Jobs(
            runtime,
            self.declarer,
            self.fetcher,
            self.sessions,
            self.pauses,
            recordings,
            put_in_place=self._put_in_place,
        )
        self.observer = Observer(
            runtime,
            whole=self._whole,
            gone=self._gone,
            skipped=self._skipped,
            back=self.declarer.reread_unread,
            rescan=_rescan,
            packages=self.packager,
        )
        self.uploader = Uploader(
            runtime,
            gate=Gate(runtime, self.sessions),
            stored=self._stored,
            changed=self._changed_under_way,
            leaves=self.observer.names.look_at,
        )
        self.opener = Opener(runtime)
        self.reporter = Reporter(runtime, self.declarer, root=root)
        self.units = Units(runtime, self.reporter, self.sessions)
        # The order of a turn follows a dataset and its job, so that each part sees in the same turn what earlier parts have
        # recorded. Fixed positions: sessions first, because what they cache is valid for one turn; pauses after the observer,
        # which reports changes to them, so that no pause ends that has just started anew; the reporter last, so that all
        # changes of a turn are one write.
        self.parts: tuple[Part, ...] = (
            self.sessions,
            self.observer,
            self.declarer,
            self.pauses,
            self.opener,
            self.packager,
            self.uploader,
            self.jobs,
            self.fetcher,
            self.afterwards,
            self.units,
            self.reporter,
        )
        self.root = root
        self.config_trouble = ""
        self.silent: frozenset[str] = frozenset()  # disks that don't answer, as last reported
        self._offset = runtime.clock.now() - runtime.clock.monotonic()
        self._take_up()

    def _take_up(self) -> None:
        """At start nothing is under way: all that was is due again."""
        runtime = self.runtime
        with runtime.transaction():
            runtime.journal.forget_appointments(runtime.clock.now())  # the clock may have been corrected meanwhile
            for context in runtime.contexts.values():
                runtime.journal.retry_files(context.name)
                self.declarer.reread_unread(context)
            self.packager.resume()
            self.declarer.redeclare_reruns()

    # -- called by others --------------------------------------------------------------------------------------------

    def sink(self, outcome: Outcome) -> None:
        """Called from pool threads when a transfer has ended."""
        self.runtime.mailbox.tell(lambda: self._outcome(outcome))

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
        self.runtime.journal.wake_unit(context.name, m.rule.name, unit)

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
            self.runtime.journal.wake_jobs_of_file(row)

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
        self.afterwards.finished(context, job)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def turn(self, wait: float) -> None:
        """One turn: read the posted notes (waiting up to `wait` seconds for the first), then do all that is due.

        Raises JournalError when the journal can't be written (no space, F13): memory may then be ahead of the journal, so the
        engine must be taken down, and rebuilt from the journal once that can be written.
        """
        self.runtime.mailbox.read(wait)
        self._notice_jump()
        self._notice_disks()
        for part in self.parts:
            part.turn()

    def _notice_jump(self) -> None:
        """After a jump of the wall clock, make appointments due now: after a backward jump they could be years away (F83)."""
        runtime = self.runtime
        offset = runtime.clock.now() - runtime.clock.monotonic()
        moved, self._offset = offset - self._offset, offset
        if abs(moved) < JUMP:
            return
        for context in runtime.contexts.values():
            context.paused_until = min(context.paused_until, runtime.clock.now())
            context.results_retry = 0.0
        self.opener.forget_appointments()
        self.observer.rescan_all()  # a suspend looks the same, and other machines went on meanwhile (F85)
        with runtime.transaction():
            runtime.journal.forget_appointments(runtime.clock.now())
            runtime.event("", "", "clock", f"this machine's clock has jumped by {moved:+.0f} s", level=logging.WARNING)

    def _notice_disks(self) -> None:
        """Report once that a disk does not answer, however many transfers wait for it (F89), and resume them when it
        answers again."""
        runtime = self.runtime
        silent = frozenset(runtime.transfers.hanging())
        new, back = silent - self.silent, self.silent - silent
        if not new and not back:
            return
        self.silent = silent
        with runtime.transaction():
            for disk in sorted(new):
                runtime.event("", "", "hanging", silence(disk), level=logging.ERROR)
            for disk in sorted(back):
                runtime.event("", "", "disk back", f"{disk} answers again")
            for context in runtime.contexts.values() if back else ():
                runtime.journal.retry_files(context.name)
                context.results_retry = 0.0

    def wait_for(self) -> float:
        """Seconds until something is due, at most LONGEST_WAIT."""
        dues = [due for part in self.parts if (due := part.due()) is not None]
        return max(SHORTEST_WAIT, min([LONGEST_WAIT, *dues]))

    def quiet(self, waits: Waits) -> bool:
        """Whether a pass is over: nothing is under way, nothing is due, and nothing that `waits` names is still to come."""
        busy = any(part.busy() for part in self.parts)
        return not busy and not any(part.pending(waits) for part in self.parts)


def silence(disk: str) -> str:
    return (
        f"{disk} does not answer: its mount hangs. What is to be uploaded from it or fetched to it waits; everything else"
        " goes on"
    )


def _rescan(context: Context) -> float:
    return context.settings.watch.rescan
