"""Before anything of an analysis is uploaded or submitted: check the endpoint, and learn what this rig did before.

1. The endpoint must honour If-None-Match on a key of ours, else nothing is submitted there (F51).
2. Traces of earlier work are gathered: the marks of this rig's journals in S3, and the files in the analysis's folder.
   `plan/journals` judges whether this journal knows of all that (F18, F81, F100). What was seen is committed before anything
   is put into S3, so a crash in between can't make an old rig look new, or an old copy look current (docs/exactly-once.md).
3. With a new journal, what is in S3 already is noted, so that it is recognised instead of sent again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from awscrt.checksums import crc64nvme

from ncaasd.adapters.journal import Journal
from ncaasd.adapters.s3.probe import honours_if_none_match
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.part import Part
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import Exists, LocalError, NcaasdError, StoreError
from ncaasd.model import EarlierJobs, ObjectInfo
from ncaasd.neurocaas.naming import ID_DIGITS, ID_LIMIT
from ncaasd.plan.journals import FirstScan, Memory, Signs, Standing, judge, others_now, rig_of
from ncaasd.plan.retry import backoff

LOOK_WAIT = 12.0  # seconds at most that opening an analysis waits for a folder that doesn't answer
LOOK_AGAIN = 15.0
PENDING = "pending"  # stored instead of the last file's id while a first scan has not ended


@dataclass(frozen=True, slots=True)
class _Opened:
    conditional: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """What the disk shows: the rig that the root's own file names, and jobs that the journal doesn't know."""

    rig: str | None = None
    jobs: EarlierJobs | None = None
    trouble: str = ""  # why the root's file can't be used
    unreadable: bool = False  # the root's file exists and can't be read, or the analysis's folder can't be


class Opener(Part):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._opening: set[str] = set()
        self._failures: dict[str, int] = {}
        self._next: dict[str, float] = {}
        self._looks: dict[str, _Look] = {}
        self._looking: dict[str, float] = {}  # analysis -> monotonic time since which its folder has not answered
        self._look_at: dict[str, float] = {}  # analysis -> monotonic time of the next look at its folder
        self._unread: dict[str, str] = {}  # analysis -> why its folder or the root's file couldn't be read
        self._said = ""
        self._called = runtime.rig  # the rig's name by the config or the state, before the root's file is read

    def look(self) -> None:
        """Start reading the local files that tell of earlier jobs, where that is due."""
        monotonic = self._runtime.clock.monotonic()
        for context in self._runtime.contexts.values():
            name = context.name
            if name not in self._looks and name not in self._looking and monotonic >= self._look_at.get(name, 0.0):
                self._look(context)

    def turn(self) -> None:
        self.look()
        now, monotonic = self._runtime.clock.now(), self._runtime.clock.monotonic()
        for context in self._runtime.contexts.values():
            name = context.name
            waiting = now < self._next.get(name, 0) or not self._runtime.awake(context)
            if (
                not context.opened
                and name not in self._opening
                and not waiting
                and self._has_looked(context, monotonic)
            ):
                self._open(context)

    def forget_appointments(self) -> None:
        self._next.clear()

    def busy(self) -> bool:
        """An analysis is being opened, or has not been tried yet."""
        contexts = self._runtime.contexts.values()
        return bool(self._opening) or any(not c.opened and not c.paused for c in contexts)

    def due(self) -> float | None:
        now, monotonic = self._runtime.clock.now(), self._runtime.clock.monotonic()
        times = []
        for c in self._runtime.contexts.values():
            if not c.opened and c.name not in self._opening:
                times.append(max(self._next.get(c.name, 0.0), c.paused_until, now + self._owed(c, monotonic)))
        return min(times) - now if times else None

    # -- what the disk tells -----------------------------------------------------------------------------------------

    def _look(self, context: Context) -> None:
        """Read what the disk shows, before the first status file is written: existing ones may name jobs that this journal
        doesn't know."""
        runtime, name = self._runtime, context.name
        self._looking[name] = runtime.clock.monotonic()
        known = runtime.journal.submitted_ids(name) | _noted(runtime, context)[0]
        rig, rig_file, earlier = runtime.rig, runtime.rig_file, context.earlier

        def work() -> _Look:
            context.trees[""].check()
            jobs = earlier.jobs(known) if earlier is not None else None
            if rig_file is None:
                return _Look(jobs=jobs)
            try:
                found = rig_file.read()
            except LocalError as error:
                return _Look(jobs=jobs, trouble=str(error), unreadable=True)
            try:
                if found is None:
                    context.results.check()  # F26, F90: nothing is written into the mount point of a disk that is away
                    found = rig_file.write(rig)
            except LocalError as error:
                why = f"{rig_file.path} can't be written, so only the state folder knows this rig's name: {error}"
                return _Look(jobs=jobs, trouble=why)
            return _Look(found, jobs)

        runtime.mailbox.do(f"earlier:{name}", work, lambda r: self._looked(context, r))

    def _looked(self, context: Context, result: Result[_Look]) -> None:
        name = context.name
        self._looking.pop(name, None)
        context.looked = True
        if result.error is not None and not isinstance(result.error, NcaasdError):
            raise result.error
        look = result.get() if result.error is None else _Look(trouble=str(result.error), unreadable=True)
        if look.unreadable:
            self._unread[name] = look.trouble
            self._look_at[name] = self._runtime.clock.monotonic() + LOOK_AGAIN
        if look.trouble and result.error is None:  # another part reports a missing folder
            self._say(look.trouble)
        if result.error is None and not (look.unreadable and not _is_named(self._runtime)):
            self._looks[name] = look
            if context.opened and self._is_news(context, look):
                context.opened = False  # it answered late: judged again before anything more is submitted

    def _say(self, text: str) -> None:
        if self._said != text:
            self._said = text
            self._runtime.event("", "", "rig", text, level=logging.WARNING)

    def _is_news(self, context: Context, look: _Look) -> bool:
        other = look.rig is not None and look.rig not in self._memory(context).rigs
        return other or bool(look.jobs and self._unknown(context, look.jobs.submitted))

    def _owed(self, context: Context, monotonic: float) -> float:
        """Seconds for which its folder is still waited for."""
        if context.name in self._looks:
            return 0.0
        since = self._looking.get(context.name)
        return 0.0 if since is None else max(0.0, since + LOOK_WAIT - monotonic)

    def _has_looked(self, context: Context, monotonic: float) -> bool:
        if not context.looked and self._owed(context, monotonic) > 0:
            return False
        context.looked = True
        runtime = self._runtime
        if context.name in self._looks or runtime.rig_file is None or _is_named(runtime):
            return True
        # The root's file may show that this rig has been here before: nothing is done until it can be read.
        why = self._unread.get(context.name) or f"{runtime.rig_file.path} can't be looked for: the disk does not answer"
        if context.paused != why:
            context.paused = why
            runtime.event(context.name, "", "not opened", why, level=logging.ERROR)
        return False

    def _unknown(self, context: Context, ids: Collection[str]) -> frozenset[str]:
        """Those of `ids` that the journal doesn't have as submitted and that were not judged before; none when local files
        are not used any more."""
        noted, usable = _noted(self._runtime, context)
        return frozenset(ids) - self._runtime.journal.submitted_ids(context.name) - noted if usable else frozenset()

    def _memory(self, context: Context) -> Memory:
        journal, name = self._runtime.journal, context.name
        opened = journal.get_meta(_rig(context)) is not None
        rigs = json.loads(journal.get_meta(f"rigs:{name}") or "[]")
        return Memory(
            opened=opened,
            generation=journal.get_meta(f"generation:{name}") or "",
            submits=int(journal.get_meta(f"submits:{name}") or 0),
            others=json.loads(journal.get_meta(f"others:{name}") or "{}"),
            rigs=rigs or ([self._called] if opened else []),  # of an older version
        )

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open(self, context: Context) -> None:
        if len(context.layout.bucket) + ID_DIGITS > ID_LIMIT:
            # F64: detected here, before anything is uploaded; NeuroCAAS would fail after machines were launched.
            context.submits_blocked = (
                f"the bucket name {context.layout.bucket} is too long for NeuroCAAS to follow a job in it"
                f" ({ID_LIMIT - ID_DIGITS} characters are allowed)"
            )
        self._opening.add(context.name)
        store, layout, runtime = context.store, context.layout, self._runtime
        seen = self._looks.get(context.name)
        look = seen or _Look()
        rig = look.rig or runtime.rig
        memory = self._memory(context)
        names = list(dict.fromkeys([*memory.rigs, rig]))
        if not memory.opened and runtime.rig_file is not None and runtime.host not in names:
            names.append(runtime.host)  # an older version used the host's name for a rig without one

        def work() -> _Opened:
            conditional = honours_if_none_match(store, layout.probe_key())
            marks = {n: store.list(layout.journal_marks(n)).objects for n in names}
            found: list[ObjectInfo] = []
            known = False
            if not memory.opened:
                known = any(store.find(layout.rig_marker(n)) is not None for n in names)
                found = [*store.list(layout.inputs).objects, *store.list(layout.configs).objects]
            submits = {n: layout.marked_submits(n, (o.key for o in objects)) for n, objects in marks.items()}
            runtime.mailbox.ask(lambda: self._commit(context, rig, look, known, submits, found))
            runtime.crash("open.committed")
            body = f"rig {rig}\n".encode()
            with contextlib.suppress(Exists):
                store.put(layout.rig_marker(rig), body, crc=crc64nvme(body), only_if_absent=True)
            for name, counts in submits.items():
                # Older marks of this journal, left by a crash: the newest is enough. Where deleting isn't allowed, no harm is
                # done.
                newest = layout.journal_mark(name, memory.generation, counts.get(memory.generation, 0))
                mine = layout.journal_marks(name) + memory.generation
                for mark in marks[name]:
                    if memory.generation and mark.key.startswith(mine) and mark.key < newest:
                        with contextlib.suppress(StoreError):
                            store.delete(mark.key)
            return _Opened(conditional)

        runtime.mailbox.do(f"open:{context.name}", work, lambda r: self._done(context, seen, r))

    def _commit(
        self,
        context: Context,
        rig: str,
        look: _Look,
        known: bool,
        submits: dict[str, dict[str, int]],
        found: Sequence[ObjectInfo],
    ) -> None:
        """Judge, and remember what was seen. In a transaction."""
        runtime, journal, name = self._runtime, self._runtime.journal, context.name
        memory = self._memory(context)  # as it is now: a submit may have been under way when this opening began
        jobs = self._unknown(context, look.jobs.submitted) if look.jobs else frozenset()
        signs = Signs(known, submits, look.rig, jobs)
        verdict = judge(memory, signs)
        generation = memory.generation
        if not generation or (verdict.doubtful and memory.opened):
            # A new generation, so that the jobs this journal submits from now on can be told from those it didn't know of.
            generation = uuid.uuid4().hex[:16]
            journal.set_meta(f"generation:{name}", generation)
            journal.set_meta(f"submits:{name}", "0")
        journal.set_meta(f"others:{name}", json.dumps(others_now(memory, signs, generation)))
        journal.set_meta(f"rigs:{name}", json.dumps([*(n for n in memory.rigs if n != rig), rig]))
        if look.jobs is not None and (jobs or not memory.opened):
            self._note(context, look.jobs)
        runtime.rig = rig
        if runtime.rig_file is not None:
            journal.set_meta("rig", rig)
        if not memory.opened:
            journal.set_meta(_rig(context), "seen" if verdict.doubtful else "new")
            journal.add_inventory(name, found)
        elif verdict.doubtful:
            journal.set_meta(_rig(context), "seen")
            journal.doubt_unended_jobs(name)
            for tree in context.trees:
                last = context.scanned_to.get(tree)
                journal.set_meta(first_scan(name, tree), PENDING if last is None else str(last))
        if verdict.doubtful:
            journal.set_meta(f"doubt:{name}", verdict.why)
            kind = "rebuilt" if verdict.standing is Standing.REBUILT else "behind"
            text = (
                f"{verdict.why}: what is in S3 is adopted, and jobs of files that are here now are held where S3 shows no trace"
                " of them; `ncaasd status` lists them, and `ncaasd release ID` (or `--rule NAME`) lets them go on"
            )
            runtime.event(name, "", kind, text, level=logging.WARNING)

    def _note(self, context: Context, jobs: EarlierJobs) -> None:
        """Record the jobs that were judged, so that they are no news at the next start. If there were more than could be
        read, there would be news at every start, so this journal doesn't use such files any more."""
        noted, _usable = _noted(self._runtime, context)
        value = {"jobs": sorted(noted | jobs.seen), "usable": jobs.complete or not jobs.submitted}
        self._runtime.journal.set_meta(f"noted:{context.name}", json.dumps(value))

    def _done(self, context: Context, seen: _Look | None, result: Result[_Opened]) -> None:
        runtime = self._runtime
        self._opening.discard(context.name)
        error = result.error
        if error is not None:
            if not isinstance(error, NcaasdError):
                raise error
            failures = self._failures[context.name] = self._failures.get(context.name, 0) + 1
            self._next[context.name] = runtime.clock.now() + backoff(
                failures, first=2, most=120, spread=runtime.spread()
            )
            if not runtime.handle(context, error) and context.paused != str(error):
                context.paused = str(error)  # shown; `_next` says when it is tried again
                kind = "unreachable" if isinstance(error, StoreError) else "not opened"
                runtime.event(context.name, "", kind, str(error), level=logging.ERROR)
            return
        runtime.unpause(context)
        late = self._looks.get(context.name)
        if late is not None and late is not seen and self._is_news(context, late):
            return  # the folder answered meanwhile: judged again
        context.opened = True
        context.noted = noted_jobs(runtime.journal, context.name)
        runtime.journal.wake_unended_jobs(context.name)
        if not result.get().conditional:
            context.submits_blocked = (
                "this S3 endpoint ignores If-None-Match, so a job could be started twice: nothing is submitted to it"
            )
            runtime.event(context.name, "", "submits blocked", context.submits_blocked, level=logging.ERROR)
        runtime.event(
            context.name,
            "",
            "opened",
            f"s3://{context.layout.bucket}/{context.layout.group}/ answers; this is rig {runtime.rig}",
        )


def _rig(context: Context) -> str:
    return f"rig:{context.name}"


def first_scan(analysis: str, tree: str) -> str:
    """The meta key for the id of the last file that the first scan of a tree found: files with higher ids are certainly
    new recordings."""
    return f"first scan:{analysis}:{tree}" if tree else f"first scan:{analysis}"


def _noted(runtime: Runtime, context: Context) -> tuple[frozenset[str], bool]:
    """Returns (ids of jobs that local files named at an earlier start, whether such files are still used)."""
    value = json.loads(runtime.journal.get_meta(f"noted:{context.name}") or "{}")
    return noted_jobs(runtime.journal, context.name), bool(value.get("usable", True))


def noted_jobs(journal: Journal, analysis: str) -> frozenset[str]:
    """The ids of jobs that local files named when this journal was found not to know all that its rig has submitted."""
    return frozenset(json.loads(journal.get_meta(f"noted:{analysis}") or "{}").get("jobs", ()))


def remembered_rig(runtime: Runtime) -> str:
    """The rig's name by the state, for a config that gives none."""
    journal = runtime.journal
    names = list(runtime.contexts)
    used = [n for name in names for n in json.loads(journal.get_meta(f"rigs:{name}") or "[]")]
    worked = any(journal.get_meta(f"rig:{name}") is not None for name in names)
    return rig_of(journal.get_meta("rig"), used=used, worked=worked, host=runtime.host, letters=uuid.uuid4().hex[:6])


def _is_named(runtime: Runtime) -> bool:
    """Whether the journal knows the rig's name, or has worked for this rig before it had one."""
    journal = runtime.journal
    return journal.get_meta("rig") is not None or any(journal.get_meta(_rig(c)) for c in runtime.contexts.values())


def doubted(journal: Journal, analysis: str) -> FirstScan | None:
    """The last files of an analysis's first scans (by tree), for `plan.journals.was_there`, when the rig may have
    submitted jobs that the journal doesn't know of; else None."""
    if journal.get_meta(f"rig:{analysis}") != "seen":
        return None

    def last_of(tree: str) -> float:
        last = journal.get_meta(first_scan(analysis, tree))
        if last is None:  # a source, in a journal of an older version
            last = journal.get_meta(first_scan(analysis, ""))
        return math.inf if last in (None, PENDING) else int(last)

    return last_of
