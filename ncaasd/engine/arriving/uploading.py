"""Start the uploads that are due, and record what became of them. In the engine thread; the pool moves the bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from ncaasd.engine.arriving.packaging import target_of
from ncaasd.engine.core.mailbox import Mailbox
from ncaasd.engine.core.part import Part as EnginePart
from ncaasd.engine.core.part import Waits
from ncaasd.engine.core.runtime import Context, Runtime, target_of_link
from ncaasd.errors import DiskSilent, FileUnreadable, StoreError
from ncaasd.model import ABORTED, NEVER, DownloadTask, FileRow, FileState, Outcome, Part, UploadTask, Verdict
from ncaasd.neurocaas.naming import first_safe_key, needs_mapping, part_size
from ncaasd.plan.files import collision, holder, in_use, in_words, key_of
from ncaasd.plan.gates import EMPTY, Permit, When
from ncaasd.plan.grouping import below
from ncaasd.plan.retry import backoff
from ncaasd.ports import Transfers
from ncaasd.subjects import of_file

QUEUED = 256  # transfers given to the pool at a time; the rest wait in the journal, in order
HANDFUL = 64  # the pool is given more when it has room for so many,
SOON = 0.2  # or after so many seconds: one query costs the same for one file as for many
LOOK_AGAIN = 30.0  # seconds until a file that may not be uploaded yet is checked again
LOOK_AGAIN_AT_UNIT = 300.0  # seconds; longer, because a change of its unit makes a file due at once
CONFIGS_FIRST = -1.0
FOREIGN_AGAIN = 3600.0
SILENT_AGAIN = 3600.0
UNREADABLE_AGAIN = 3600.0


class JournaledTransfers:
    """Implements ports.TransferLog: what must survive a crash, committed by the engine."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def _mailbox(self) -> Mailbox:
        return self._runtime.mailbox

    def upload_created(self, file_id: int, upload_id: str) -> None:
        self._mailbox.ask(lambda: self._runtime.journal.upload_created(file_id, upload_id))

    def part_stored(self, file_id: int, part: Part) -> None:
        self._mailbox.ask(lambda: self._runtime.journal.part_stored(file_id, part))

    def flush(self) -> None:
        self._mailbox.ask(lambda: None)  # the mailbox is read in order

    def upload_lost(self, file_id: int) -> None:
        self._mailbox.ask(lambda: self._runtime.journal.forget_upload(file_id))

    def range_fetched(self, object_id: int, start: int, end: int) -> None:
        self._mailbox.tell(lambda: self._runtime.journal.range_fetched(object_id, start, end))

    def download_lost(self, object_id: int) -> None:
        self._mailbox.ask(lambda: self._runtime.journal.drop_ranges(object_id))


def reachable(transfers: Transfers, tasks: Collection[UploadTask | DownloadTask]) -> int:
    """How many of these tasks may end soon. The others are on disks that don't answer, and no pass waits for those."""
    if not transfers.hanging():
        return len(tasks)
    return sum(not transfers.hangs(task) for task in tasks)


class Uploader(EnginePart):
    def __init__(
        self,
        runtime: Runtime,
        *,
        gate: Callable[[Context, FileRow], Permit],
        stored: Callable[[Context, FileRow], None],
        changed: Callable[[FileRow], None],
        leaves: Callable[[Context, str], None],
    ) -> None:
        """`gate`: whether a file may be uploaded. `leaves`: called with the key of a file that will not be uploaded."""
        self._runtime = runtime
        self._gate = gate
        self._stored = stored
        self._changed = changed
        self._leaves = leaves
        self._under_way: dict[int, UploadTask] = {}
        self._not_older: set[int] = set()  # files that were compared with what the first release put
        self._next = 0.0  # monotonic time until which room for HANDFUL is required

    def busy(self) -> bool:
        return self._taken() > 0

    def pending(self, waits: Waits) -> bool:
        runtime = self._runtime
        return any(runtime.journal.pending_files(c.name, runtime.clock.now(), 1) for c in runtime.reachable())

    def due(self) -> float | None:
        """Seconds until the next whole file is due and there is room for it."""
        runtime, room = self._runtime, self._room_in()
        if room is None:
            return None
        times = [at for c in runtime.reachable() if (at := runtime.journal.next_upload(c.name)) is not None]
        return max(room, min(times) - runtime.clock.now()) if times else None

    def _room_in(self) -> float | None:
        """Seconds until uploads may be begun; None while there is no room for one."""
        room = QUEUED - self._taken()
        if room >= HANDFUL:
            return 0.0
        return max(0.0, self._next - self._runtime.clock.monotonic()) if room > 0 else None

    def _taken(self) -> int:
        return reachable(self._runtime.transfers, self._under_way.values())

    def turn(self) -> None:
        runtime = self._runtime
        if self._room_in() != 0.0:
            return
        now, self._next = runtime.clock.now(), runtime.clock.monotonic() + SOON
        for context in runtime.contexts.values():
            room = QUEUED - self._taken()
            if room <= 0 or not context.opened or not runtime.awake(context):
                continue
            due = runtime.journal.pending_files(context.name, now, room)
            if due:
                with runtime.transaction():
                    tasks = [t for row in due if (t := self._begin(context, row, now)) is not None]
                for task in tasks:
                    runtime.transfers.start(task)

    def _begin(self, context: Context, row: FileRow, now: float) -> UploadTask | None:
        """Commit that this upload is under way; None when it has to wait."""
        runtime = self._runtime
        if row.id in self._under_way:
            runtime.journal.put_off_file(row.id, NEVER, "")  # it was made due for another reason
            return None
        others = [r for r in runtime.journal.files_with_key(context.name, row.key) if r.id != row.id]
        ending = next((r for r in others if r.id in self._under_way), None)
        if ending is not None:
            text = f"waits for the end of the upload of {in_words(ending.place)}, which had its name in S3"
            runtime.journal.put_off_file(row.id, now + LOOK_AGAIN, text)
            return None
        first = holder(row.place, others)
        if first is not None:  # it may be uploaded only now: a rule has come to name it, or its unit
            why = collision(first.place, row.key)
            runtime.journal.set_file(row.id, FileState.REFUSED, why, now)
            runtime.event(context.name, of_file(row.place), "refused", f"not uploaded: {why}", level=logging.WARNING)
            runtime.journal.wake_jobs_of_file(row)
            return None
        before = next((r for r in others if r.stored is not None), None)  # the other file whose bytes are at the key
        # Queried only when another version, or another file that had this key, is in S3: a job may name 10,000 datasets.
        known = row.stored is not None or before is not None
        user = in_use(runtime.journal.jobs_using(context.name, row.key)) if known else None
        if user is not None:
            text = f"changed, but job {user.job_id} may still be reading the version in S3: uploaded when it has ended"
            if before is not None:
                text = (
                    f"{in_words(before.place)} had its name in S3, and job {user.job_id} may still be reading that:"
                    " uploaded when it has ended"
                )
            runtime.journal.put_off_file(row.id, now + LOOK_AGAIN, text)
            return None
        if not self._may_pass(context, row, now):
            return None
        older = self._older_key(context, row) if before is None else ""
        if older and any(
            r.id != row.id and r.stored is None for r in runtime.journal.files_with_key(context.name, older)
        ):
            runtime.journal.put_off_file(row.id, now + LOOK_AGAIN, f"another file is compared with {older} in S3")
            return None
        if older:
            runtime.journal.give_key(row.id, older)
            row = replace(row, key=older)
        if before is not None and before.ours:
            runtime.journal.take_key(row)  # this rig put what is there, so it is not foreign
            row = replace(row, ours=True)
        size = part_size(row.stat.size)
        begun = runtime.journal.begin_upload(row.id, row.key, row.stat, size, now)
        runtime.journal.put_off_file(row.id, NEVER, row.reason if row.state is FileState.HELD else "")
        order = CONFIGS_FIRST if row.place.path.startswith("configs/") else row.stat.mtime_ns / 1e9
        task = UploadTask(
            file_id=row.id,
            analysis=context.name,
            path=self._path(context, row),
            expect=row.stat,
            key=row.key,
            part_size=size,
            upload_id=begun.upload_id,
            parts=begun.parts,
            ours=row.ours,
            look_first=row.state is FileState.HELD or runtime.journal.inventory(context.name, row.key) is not None,
            order=order,
            link=target_of_link(runtime.journal, context, row) if row.link else None,
        )
        self._under_way[row.id] = task
        return task

    def _older_key(self, context: Context, row: FileRow) -> str:
        """The key under which the first release may have put this very file, when this journal is newer than what is in S3
        (lost, or another machine's): what is stored keeps its key, and its job its id. "" for none."""
        journal, path = self._runtime.journal, below(row)
        if not needs_mapping(path) or row.stored is not None or row.ours or row.id in self._not_older:
            return ""
        older = context.layout.input_key(context.prefix, first_safe_key(path))
        found = journal.inventory(context.name, older)
        is_input = bool(row.place.tree) or row.place.path.startswith("inputs/")
        if (
            found is None
            or found.size != row.stat.size
            or not is_input
            or row.key != key_of(path, context.layout, context.prefix)
        ):
            return ""
        taken = any(r.id != row.id and r.stored is not None for r in journal.files_with_key(context.name, older))
        return "" if taken or journal.upload_begun(row.id) else older

    def _is_newer(self, context: Context, row: FileRow) -> bool:
        """Whether the object at a file's older key is another file's; if so, the file is uploaded under its own key."""
        mine = key_of(below(row), context.layout, context.prefix)
        older = context.layout.input_key(context.prefix, first_safe_key(below(row)))
        if row.key != older or older == mine or row.stored is not None:
            return False
        self._not_older.add(row.id)
        self._runtime.journal.give_key(row.id, mine)
        self._runtime.journal.put_off_file(row.id, 0, "")
        return True

    def _path(self, context: Context, row: FileRow) -> str:
        if row.place.tree in context.trees:
            return f"{context.trees[row.place.tree].root}/{row.place.path}"
        packer = self._runtime.packer
        assert packer is not None, "a package was made by it"
        return packer.path(target_of(row))

    def _may_pass(self, context: Context, row: FileRow, now: float) -> bool:
        """Whether a file may be uploaded now; if not, the reason is recorded."""
        runtime = self._runtime
        if not (row.place.tree in context.trees or row.place.is_package):
            runtime.journal.put_off_file(row.id, NEVER, f"the config has no source {row.place.tree} any more")
            return False
        if row.link and target_of_link(runtime.journal, context, row) is None:
            text = f"a symbolic link to {row.link}, which is in no folder of `links` in the config any more"
            runtime.journal.put_off_file(row.id, NEVER, text)
            return False
        permit = self._gate(context, row)
        match permit.when:
            case When.NOW:
                return True
            case When.HELD:
                runtime.journal.set_file(row.id, FileState.HELD, permit.reason, now, retry_at=NEVER)
                if row.state is not FileState.HELD:
                    runtime.event(context.name, of_file(row.place), "held", permit.reason, level=logging.WARNING)
            case When.LATER:
                wait = LOOK_AGAIN_AT_UNIT if permit.unit else LOOK_AGAIN
                runtime.journal.put_off_file(row.id, now + wait, permit.reason)
                if permit.reason.startswith(ABORTED) and row.reason != permit.reason:
                    self._leaves(context, row.key)  # its name to others
            case When.NEVER:
                runtime.journal.put_off_file(row.id, NEVER, permit.reason)
                if permit.reason == EMPTY != row.reason:
                    runtime.event(context.name, of_file(row.place), "empty", permit.reason, level=logging.WARNING)
                if row.reason != permit.reason:
                    self._leaves(context, row.key)  # another file may have its key now
        return False

    def done(self, outcome: Outcome) -> None:
        """Record the outcome of an upload. In a transaction."""
        task = outcome.task
        assert isinstance(task, UploadTask)
        runtime = self._runtime
        self._under_way.pop(task.file_id, None)
        context = runtime.contexts.get(task.analysis)
        if context is None:
            return
        now = runtime.clock.now()
        if outcome.verdict is Verdict.STORED:
            self._is_stored(context, outcome, now)
            return
        row = runtime.journal.file(task.file_id)
        if row is None:
            return
        match outcome.verdict:
            case Verdict.CHANGED | Verdict.VANISHED:
                if outcome.stored is not None:  # an older content of ours is at the key now
                    runtime.journal.file_stored(row.id, task.expect, outcome.stored, now)
                if row.state is FileState.GONE:
                    return
                text = "it changed during its upload: uploaded again when it is quiet"
                runtime.journal.set_file(row.id, FileState.SETTLING, text, now)
                runtime.event(context.name, of_file(row.place), "changed", text)
                self._changed(row)
            case Verdict.FOREIGN if row.state is FileState.GONE or self._is_newer(context, row):
                return
            case Verdict.FOREIGN:
                text = (
                    f"something else is at {task.key} in S3 already, which this rig did not put: another rig, or the website."
                    " Rename the file, or set upload.prefix; nothing is overwritten"
                )
                # Checked again now and then: when two daemons share a folder, what the other one put may become equal to our
                # file.
                runtime.journal.set_file(row.id, FileState.HELD, text, now, retry_at=now + FOREIGN_AGAIN)
                if row.state is not FileState.HELD:
                    runtime.event(context.name, of_file(row.place), "held", text, level=logging.ERROR)
                    runtime.journal.wake_jobs_of_file(row)
            case Verdict.STOPPED:
                runtime.journal.put_off_file(row.id, 0, "")
            case _:
                self._failed(context, row, task, outcome.error, now)

    def _is_stored(self, context: Context, outcome: Outcome, now: float) -> None:
        task, stored, runtime = outcome.task, outcome.stored, self._runtime
        assert isinstance(task, UploadTask) and stored is not None
        runtime.unpause(context)
        row = runtime.journal.file_stored(task.file_id, task.expect, stored, now)
        if row is None:
            return
        how = "was in S3 already, equal" if stored.adopted else "uploaded and verified"
        runtime.event(context.name, of_file(row.place), "stored", f"{how} ({stored.size} bytes, {task.key})")
        if row.state is FileState.STORED:
            runtime.journal.wake_jobs_of_file(row)
            self._stored(context, row)

    def _failed(self, context: Context, row: FileRow, task: UploadTask, error: Exception | None, now: float) -> None:
        runtime = self._runtime
        if runtime.handle(context, error):
            runtime.journal.put_off_file(row.id, 0, str(error))
            return
        if isinstance(error, DiskSilent):
            # Reported once per disk; the engine makes all its files due when the disk answers (F89).
            later = now + SILENT_AGAIN if runtime.transfers.hangs(task) else 0
            runtime.journal.put_off_file(row.id, later, str(error))
            return
        failures = row.failures + 1
        if isinstance(error, FileUnreadable):
            # A person must fix it. That changes its ctime, so the file is then found at once, as after any change.
            again = now + UNREADABLE_AGAIN
            runtime.journal.set_file(row.id, FileState.HELD, str(error), now, retry_at=again, failures=failures)
            if row.reason != str(error):
                runtime.event(context.name, of_file(row.place), "unreadable", str(error), level=logging.ERROR)
                runtime.journal.wake_jobs_using(context.name, row.key)
            return
        wait = backoff(failures, first=5, most=300, spread=runtime.spread())
        level = logging.WARNING if isinstance(error, StoreError) and error.transient else logging.ERROR
        if row.reason != str(error):
            runtime.event(
                context.name, of_file(row.place), "upload failed", f"{error}; tried again in {wait:.0f} s", level=level
            )
        if row.state is FileState.WHOLE:
            runtime.journal.set_file(row.id, FileState.WHOLE, str(error), now, retry_at=now + wait, failures=failures)
        elif row.state is FileState.HELD:  # the reason of the hold stays; whether it still applies is checked later
            runtime.journal.put_off_file(row.id, now + FOREIGN_AGAIN, row.reason)
