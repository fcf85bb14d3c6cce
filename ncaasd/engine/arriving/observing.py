"""Find what is on disk: scans, quick looks at single files, settling. Tells the engine what became whole or is gone.

Every tree has a worker (a thread) of its own, so that a mount that hangs in `stat` blocks nothing else (F89). The engine
thread never touches a watched disk. Rescans are started by the schedule (engine/core/schedule.py); only the looks at settling
files and the next try of a failed scan are timed here, by the monotonic clock.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ncaasd.engine.arriving.names import Names, Packages
from ncaasd.engine.arriving.watched import Unsettled, Watched
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.opening import PENDING, first_scan
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import LocalError, NcaasdError, RootMissing
from ncaasd.model import FileRow, FileState, Look, Place, ScanDelta, Stat
from ncaasd.plan import skipping
from ncaasd.plan.files import Role, role_of, waits_for_name
from ncaasd.plan.settling import Observation, Settled, Sign, Wait, long_untouched, observe, settle, unchanged
from ncaasd.subjects import of_file

LOOK_BATCH = 500  # files of one look: whole ones are uploaded while the next are looked at
NEWS_BATCH = 1000  # files of a scan in one transaction: the loop keeps turning, and a kill loses little
HANGS_AFTER = 60.0  # seconds without an answer after which a tree is reported to hang
RETRY_MISSING = 15.0
OTHERS_SAID = 100  # of the skipped entries that no rule could want, so many are reported per scan


@dataclass(frozen=True, slots=True)
class _Looked:
    looks: dict[str, Look]
    held_open: set[str]
    short_of_space: bool


class Observer(Part):
    def __init__(
        self,
        runtime: Runtime,
        *,
        whole: Callable[[Context, FileRow, bool], None],
        gone: Callable[[Context, FileRow], None],
        skipped: Callable[[Context, FileRow], None],
        back: Callable[[Context], None],
        rescan: Callable[[Context], float],
        packages: Packages,
    ) -> None:
        """Callbacks. `whole`: a file became whole; True when it had been untouched for long when the daemon started.
        `gone`: a file was deleted or renamed. `skipped`: an entry can't be uploaded, or waits for its key. `back`: a
        missing tree is there again."""
        self._runtime = runtime
        self._whole = whole
        self._gone = gone
        self._skipped = skipped
        self._back = back
        self._packages = packages
        self.names = Names(runtime, packages, waits=skipped, unsettle=self._unsettle, settle_again=self._settle_again)
        self.trees: dict[tuple[str, str], Watched] = {}
        for context in runtime.contexts.values():
            for name, tree in context.trees.items():
                watched = Watched(context, name, tree, rescan(context))
                watched.known = runtime.journal.known(context.name, name)
                watched.skipped = runtime.journal.skipped(context.name, name)
                watched.said_away = runtime.journal.get_meta(watched.said_away_key) == "yes"
                self.trees[context.name, name] = watched
                self._resume(watched)
        self.names.resume()

    def _resume(self, watched: Watched) -> None:
        """Files that were settling when we stopped are to be looked at again."""
        now = self._runtime.clock.monotonic()
        for row in self._runtime.journal.files(watched.context.name, tree=watched.name, states=[FileState.SETTLING]):
            observation = Observation(row.stat, now, now, self._old(watched, Look(row.stat, row.link)))
            watched.look_later(row.place.path, Unsettled(row.id, observation, now, link=row.link))

    # -- from outside ------------------------------------------------------------------------------------------------

    def hint(self, analysis: str, tree: str, path: str | None, *, published: bool = False) -> None:
        """Something changed at `path` (None: anywhere in the tree): look soon. `published`: it was renamed into place."""
        watched = self.trees.get((analysis, tree))
        if watched is None:
            return
        if path is None:
            watched.scan_at = 0.0
        else:
            watched.hinted.add(path)
            if published:
                watched.published.add(path)

    def rescan_all(self) -> None:
        for watched in self.trees.values():
            watched.scan_at = 0.0

    def rescan(self, analysis: str) -> None:
        """Called by the schedule: compare the analysis's trees with what is known. A tree whose scans take long is left
        time for looks."""
        now = self._runtime.clock.monotonic()
        for watched in self.trees.values():
            rested = not watched.scanning and now - watched.scanned_at >= watched.rescan / 2
            if watched.context.name == analysis and rested:
                watched.scan_at = 0.0

    def working(self) -> bool:
        """Whether a tree is being looked at, or is to be at once. Trees that hang or are missing don't count."""
        trees = [w for w in self.trees.values() if w.name not in w.context.tree_trouble]
        return any(w.working_since is not None or w.hinted or w.news for w in trees)

    def unsettled(self) -> int:
        return sum(len(w.unsettled) for w in self.trees.values() if w.name not in w.context.tree_trouble)

    def scanned(self) -> bool:
        return all(w.scans or w.context.tree_trouble.get(w.name) for w in self.trees.values())

    def has_scanned(self, context: Context, tree: str) -> bool:
        """Whether the first scan of a tree by this process has been taken in completely."""
        watched = self.trees.get((context.name, tree))
        return watched is not None and watched.scans > 0

    def busy(self) -> bool:
        return not self.scanned() or self.working()

    def pending(self, waits: Waits) -> bool:
        return waits.settling and self.unsettled() > 0

    def due(self) -> float | None:
        now = self._runtime.clock.monotonic()
        times: list[float] = []
        for watched in self.trees.values():
            if watched.news is not None or (watched.hinted and watched.working_since is None):
                return 0.0
            if watched.working_since is None:
                look = watched.next_look()
                times += [watched.scan_at] if look is None else [watched.scan_at, look]
        first = min(times, default=math.inf)
        return None if first == math.inf else first - now

    # -- each turn ---------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        now = self._runtime.clock.monotonic()
        for watched in self.trees.values():
            if watched.news is not None:
                self._take_in(watched)
            if watched.working_since is not None:
                self._say_when_hanging(watched, now)
            elif now >= watched.scan_at and watched.news is None:
                self._start_scan(watched, now)
            else:
                self._start_looks(watched, now)

    def _say_when_hanging(self, watched: Watched, now: float) -> None:
        progress = watched.tree.progress
        if progress != watched.progress:  # slow, but it answers
            watched.working_since, watched.progress = now, progress
        elif now - (watched.working_since or now) > HANGS_AFTER and not watched.slow_said:
            watched.slow_said = True
            watched.context.tree_trouble[watched.name] = f"{watched.tree.root} does not answer: its mount hangs"
            text = f"{watched.tree.root} has not answered for {HANGS_AFTER:.0f} s; everything else goes on"
            with self._runtime.transaction():
                self._runtime.event(watched.context.name, "", "hanging", text, level=logging.ERROR)
                self._note_away(watched, True)

    def _note_away(self, watched: Watched, away: bool) -> None:
        if watched.said_away != away:
            watched.said_away = away
            self._runtime.journal.set_meta(watched.said_away_key, "yes" if away else "no")

    def _start_scan(self, watched: Watched, now: float) -> None:
        watched.working_since, watched.progress = now, watched.tree.progress
        watched.scanning, watched.scan_at = True, math.inf
        tree, known = watched.tree, watched.known
        self._runtime.mailbox.do(watched.worker, lambda: tree.scan(known), lambda r: self._scan_done(watched, r))
        if watched.context.results_trouble and not watched.name:
            self._look_at_results(watched.context)

    def _look_at_results(self, context: Context) -> None:
        """Check whether a results folder is available again, also when nothing is to be fetched (F90)."""

        def looked(result: Result[None]) -> None:
            if result.error is None and context.results_trouble:
                context.results_trouble, context.results_retry = "", 0.0
                self._runtime.event(context.name, "", "results back", "the results folder can be written again")
            elif result.error is not None and not isinstance(result.error, LocalError):
                raise result.error

        if not self._runtime.mailbox.busy(f"results:{context.name}"):
            self._runtime.mailbox.do(f"results:{context.name}", context.results.check, looked)

    def _start_looks(self, watched: Watched, now: float) -> None:
        due = watched.due(now, LOOK_BATCH)
        hinted = list(itertools.islice(watched.hinted, LOOK_BATCH))
        paths = hinted + due
        if not paths:
            return
        watched.hinted.difference_update(paths)
        watched.working_since, watched.progress = now, watched.tree.progress
        tree, min_free = watched.tree, watched.context.settings.watch.min_free

        def look() -> _Looked:
            tree.check()
            looks = {p: tree.look(p) for p in paths}
            return _Looked(looks, tree.held_open(due), tree.free_bytes() < min_free)

        def looked(result: Result[_Looked]) -> None:
            if result.error is not None:
                # Look again when the tree may be back; the scan at that time finds hinted files, too. (A hint that was kept
                # would be due at once, again and again, while file descriptors are short: F20.)
                for path in due:
                    if waiting := watched.unsettled.get(path):
                        watched.look_later(path, replace(waiting, look_at=now + RETRY_MISSING))
            self._look_done(watched, result, set(due))

        self._runtime.mailbox.do(watched.worker, look, looked)

    # -- results, in the engine thread and a transaction -------------------------------------------------------------

    def _worked(self, watched: Watched, result: Result[ScanDelta] | Result[_Looked]) -> bool:
        """Note whether the tree is in trouble; True when its answer can be used."""
        context = watched.context
        watched.working_since = None
        watched.slow_said = False
        if result.error is None:
            context.tree_trouble.pop(watched.name, "")
            if watched.said_away:
                self._note_away(watched, False)
                self._runtime.event(context.name, "", "root back", f"{watched.tree.root} is there again")
                self._back(context)
            return True
        if not isinstance(result.error, NcaasdError):
            raise result.error
        # An unmounted or suddenly empty root doesn't mean that files were deleted: nothing is concluded from it (F26).
        if context.tree_trouble.get(watched.name) != str(result.error):
            context.tree_trouble[watched.name] = str(result.error)
            kind = "root missing" if isinstance(result.error, RootMissing) else "scan failed"
            self._runtime.event(context.name, "", kind, str(result.error), level=logging.ERROR)
            self._note_away(watched, True)
        watched.scan_at = self._runtime.clock.monotonic() + min(RETRY_MISSING, watched.rescan)
        return False

    def _scan_done(self, watched: Watched, result: Result[ScanDelta]) -> None:
        watched.scanning, watched.scanned_at = False, self._runtime.clock.monotonic()
        if not self._worked(watched, result):
            return
        delta = result.get()
        now = self._runtime.clock.monotonic()
        watched.files = delta.files
        self._note_skipped(watched, delta)
        self._say_passed_over(watched, sorted(delta.passed_over))
        watched.news = self._news(watched, delta, now)
        self._take_in(watched)

    def _say_passed_over(self, watched: Watched, names: list[str]) -> None:
        """Report ignored folders once: someone may look for a recording in a recycle bin, or miss its files."""
        meta, found = f"passed over:{watched.context.name}:{watched.name}", "/".join(names)
        said = self._runtime.journal.get_meta(meta) or ""
        if set(names) <= set(said.split("/")):
            return
        self._runtime.journal.set_meta(meta, found)
        text = (
            f"not looked at in {watched.tree.root}: {', '.join(names)}, folders of storage and systems. If recordings are in"
            " them, move those out (or set watch.ignore_defaults: false)"
        )
        self._runtime.event(watched.context.name, "", "ignored", text)

    def _news(self, watched: Watched, delta: ScanDelta, now: float) -> Iterator[Callable[[], None]]:
        """What a scan found, one file at a time."""
        first = watched.scans == 0
        for path, stat in delta.changed.items():
            look = Look(stat, delta.links.get(path, ""))
            sign = self._old(watched, look) if first else Sign.NONE
            yield lambda path=path, look=look, sign=sign: self._saw(watched, path, look, now, sign)  # type: ignore[misc]  # mypy can't infer a lambda's defaults
        for path in delta.gone:
            yield lambda path=path: self._lost(watched, path)  # type: ignore[misc]  # as above

    def _take_in(self, watched: Watched) -> None:
        """Process a part of what the last scan found; the rest follows in the next turns."""
        assert watched.news is not None
        with self._runtime.transaction():
            taken = 0
            for take in itertools.islice(watched.news, NEWS_BATCH):
                take()
                taken += 1
            if taken == NEWS_BATCH:
                return
            watched.news = None
            watched.scans += 1
            if watched.scans == 1:
                self._first_scan_done(watched)

    def _first_scan_done(self, watched: Watched) -> None:
        """Record the last file that the first scan of a new journal, or of an old copy, has found: later files are new for
        sure (see engine/core/opening.py)."""
        journal, context = self._runtime.journal, watched.context
        last = context.scanned_to[watched.name] = journal.last_file_id()
        main = journal.get_meta(first_scan(context.name, ""))
        known = journal.get_meta(first_scan(context.name, watched.name))
        if known == PENDING or (known is None and (not watched.name or main is None)):
            journal.set_meta(first_scan(context.name, watched.name), str(last))
        if not watched.name and main is None:
            for name in context.trees.keys() - {""}:  # a source whose scan takes longer isn't taken for one added later
                if journal.get_meta(first_scan(context.name, name)) is None:
                    journal.set_meta(first_scan(context.name, name), PENDING)

    def _look_done(self, watched: Watched, result: Result[_Looked], due: set[str]) -> None:
        if not self._worked(watched, result):
            return
        looked = result.get()
        now = self._runtime.clock.monotonic()
        self._note_space(watched, looked.short_of_space)
        for path, look in looked.looks.items():
            if look.stat is None:
                self._no_file(watched, path, look, now)
            elif path not in due or not self._settle(watched, path, look.stat, now, looked):
                sign = Sign.PUBLISHED if path in watched.published else Sign.NONE
                self._saw(watched, path, look, now, sign)
            watched.published.discard(path)

    def _no_file(self, watched: Watched, path: str, look: Look, now: float) -> None:
        """A look found something that is no file, or nothing, or something that can't be looked at."""
        waiting = watched.unsettled.get(path)
        if look.unseen and waiting is not None:
            if waiting.why != look.skipped:
                waiting.why = look.skipped
                self._runtime.journal.set_file(
                    waiting.file_id, FileState.SETTLING, look.skipped, self._runtime.clock.now()
                )
            watched.look_later(path, replace(waiting, look_at=now + RETRY_MISSING))
        if not look.unseen:
            self._lost(watched, path)
        if not look.skipped:
            self._skipped_no_more(watched, path)
        elif skipping.can_matter(watched.name, path) and len(watched.skipped) < skipping.MOST:
            self._skip(watched, path, look.skipped)  # when there are too many, the next scan sums them up by folder

    # -- what is skipped ---------------------------------------------------------------------------------------------

    def _note_skipped(self, watched: Watched, delta: ScanDelta) -> None:
        """Record what a scan skipped: it counts when units are judged (F97)."""
        wanted = skipping.to_record(watched.name, delta.skipped)
        with self._runtime.transaction():
            for path, why in wanted.items():
                if path in delta.gone:
                    self._lost(watched, path)
                self._skip(watched, path, why)
            # Nothing is concluded for what lies in a folder that can't be looked into (F26).
            unseen = tuple(path for path in delta.skipped if path.endswith("/"))
            for path in [p for p in watched.skipped if p not in wanted and not p.startswith(unseen)]:
                self._skipped_no_more(watched, path)
        others = {p: why for p, why in delta.skipped.items() if not skipping.can_matter(watched.name, p)}
        for path in [p for p, why in others.items() if watched.of_no_matter.get(p) != why][:OTHERS_SAID]:
            self._say_skipped(watched, path, others[path])
        watched.of_no_matter = others

    def _say_skipped(self, watched: Watched, path: str, why: str) -> None:
        context, text = watched.context, f"skipped: {why}"
        place = Place(context.name, watched.name, path)
        self._runtime.event(context.name, of_file(place), "skipped", text, level=logging.WARNING)

    def _skip(self, watched: Watched, path: str, why: str) -> None:
        if watched.skipped.get(path) == why:
            return
        runtime, context = self._runtime, watched.context
        place = Place(context.name, watched.name, path)
        row = runtime.journal.file_at(place)
        if row is not None and row.state not in (FileState.SKIPPED, FileState.GONE):
            return  # a file that can't be looked at now: what is known of it stays known (F26)
        watched.skipped[path] = why
        key = "" if path.endswith("/") else self.names.mapped(context, place).key
        row = runtime.journal.skip_file(place, key, why, runtime.clock.now())
        self._say_skipped(watched, path, why)
        self._skipped(context, row)

    def _skipped_no_more(self, watched: Watched, path: str) -> None:
        """A skipped entry isn't there any more, or is a file now."""
        if watched.skipped.pop(path, None) is None:
            return
        runtime, context = self._runtime, watched.context
        row = runtime.journal.file_at(Place(context.name, watched.name, path))
        if row is not None and row.state is FileState.SKIPPED:
            runtime.journal.set_file(row.id, FileState.GONE, "", runtime.clock.now())
            runtime.event(
                context.name, of_file(row.place), "not skipped", "not there any more, or no obstacle any more"
            )
            self._gone(context, row)

    def _settle(self, watched: Watched, path: str, stat: Stat, now: float, looked: _Looked) -> bool:
        """Check whether a file is whole; False when it has changed, so that it must be seen anew."""
        waiting = watched.unsettled.get(path)
        if waiting is None or not unchanged(waiting.observation.stat, stat):
            return False
        waiting.observation = observe(waiting.observation, stat, now)
        verdict = settle(
            waiting.observation,
            now,
            _settle_for(watched, waiting.link),
            held_open=path in looked.held_open,
            short_of_space=looked.short_of_space,
        )
        if isinstance(verdict, Wait):
            waiting.look_at = max(verdict.until, now + 0.05)
            watched.look_later(path, waiting)
            if verdict.why != waiting.why:
                waiting.why = verdict.why
                self._runtime.journal.set_file(
                    waiting.file_id, FileState.SETTLING, verdict.why, self._runtime.clock.now()
                )
            return True
        assert isinstance(verdict, Settled)
        del watched.unsettled[path]
        watched.known[path] = stat
        self._became_whole(watched, waiting.file_id, waiting.observation.sign is Sign.OLD)
        return True

    def _note_space(self, watched: Watched, short: bool) -> None:
        """Report a disk that is short of space once, and show it for as long as it lasts (F91)."""
        context = watched.context
        if short and not watched.disk_short:
            text = (
                f"the disk of {watched.tree.root} has less than watch.min_free left: recordings on it may be cut short"
            )
            context.tree_trouble[f"{watched.name} disk"] = f"{text}, so no new file counts as whole"
            self._runtime.event(context.name, "", "disk short", text, level=logging.ERROR)
        elif watched.disk_short and not short:
            del context.tree_trouble[f"{watched.name} disk"]
            self._runtime.event(context.name, "", "disk free", f"the disk of {watched.tree.root} has space again")
        watched.disk_short = short

    # -- what a file is ----------------------------------------------------------------------------------------------

    def _saw(self, watched: Watched, path: str, look: Look, now: float, sign: Sign = Sign.NONE) -> None:
        """A file is new, or has changed."""
        runtime, context, stat = self._runtime, watched.context, look.stat
        assert stat is not None
        watched.known[path] = stat
        watched.skipped.pop(path, None)
        place = Place(context.name, watched.name, path)
        role = Role.INPUT if watched.name else role_of(path)
        if role is Role.NONE:
            return
        old = runtime.journal.file_at(place)
        is_known = old is not None and old.state not in (FileState.GONE, FileState.SETTLING, FileState.SKIPPED)
        if old and is_known and not waits_for_name(old) and unchanged(old.stat, stat) and old.link == look.link:
            watched.unsettled.pop(path, None)
            return  # another inode number alone is no change: a remount
        as_stored = bool(old and old.stored and unchanged(old.stored, stat))
        key, refused = "", ""
        if role in (Role.INPUT, Role.CONFIG):
            mapped = self.names.mapped(context, place)
            refused = "" if as_stored else mapped.refused
            key = old.key if old and old.key else mapped.key
            if not refused:
                key, refused = self.names.key_for(context, place, old, key, mapped.key, first=watched.scans == 0)
        if refused:
            watched.unsettled.pop(path, None)
            if old and waits_for_name(old) and old.reason == refused and unchanged(old.stat, stat):
                return
            runtime.journal.see_file(place, stat, key, FileState.REFUSED, refused, runtime.clock.now(), link=look.link)
            self.names.say_refused(context, place, refused)
            return
        if as_stored:
            runtime.journal.see_file(place, stat, key, FileState.STORED, "", runtime.clock.now(), link=look.link)
            watched.unsettled.pop(path, None)
            return
        file_id = runtime.journal.see_file(
            place, stat, key, FileState.SETTLING, "", runtime.clock.now(), link=look.link
        )
        waiting = watched.unsettled.get(path)
        observation = observe(waiting.observation if waiting else None, stat, now, sign)
        verdict = settle(observation, now, _settle_for(watched, look.link))
        look_at = verdict.until if isinstance(verdict, Wait) else now
        watched.look_later(path, Unsettled(file_id, observation, look_at, link=look.link))

    def _settle_again(self, context: Context, row: FileRow) -> None:
        """A file's key is free now: let the file settle again, so that it is uploaded once it is whole."""
        now, watched = self._runtime.clock.monotonic(), self.trees[context.name, row.place.tree]
        observation = Observation(row.stat, now, now, self._old(watched, Look(row.stat, row.link)))
        watched.look_later(row.place.path, Unsettled(row.id, observation, now, link=row.link))

    def _unsettle(self, context: Context, row: FileRow) -> None:
        """A file has to wait for its key: stop checking whether it is whole."""
        watched = self.trees.get((context.name, row.place.tree))
        if watched is not None:
            watched.unsettled.pop(row.place.path, None)

    def _old(self, watched: Watched, look: Look) -> Sign:
        stat = look.stat
        # The target of a link may be on a share, with another machine's clock.
        if watched.context.polled or look.link or stat is None:
            return Sign.NONE
        if not long_untouched(stat, self._runtime.clock.now(), watched.context.settle):
            return Sign.NONE
        return Sign.OLD

    def _became_whole(self, watched: Watched, file_id: int, old: bool) -> None:
        runtime = self._runtime
        row = runtime.journal.file_whole(file_id, runtime.clock.now())
        if row is not None:
            runtime.event(
                watched.context.name, of_file(row.place), "whole", f"whole, {row.stat.size} bytes", level=logging.DEBUG
            )
            self._whole(watched.context, row, old)

    def _lost(self, watched: Watched, path: str) -> None:
        """A file is not there any more. Nothing is deleted in S3 for it."""
        runtime, context = self._runtime, watched.context
        watched.known.pop(path, None)
        watched.unsettled.pop(path, None)
        row = runtime.journal.file_at(Place(context.name, watched.name, path))
        if row is None or row.state in (FileState.GONE, FileState.SKIPPED):
            return
        runtime.journal.set_file(row.id, FileState.GONE, "", runtime.clock.now())
        runtime.event(context.name, of_file(row.place), "gone", "deleted or renamed here; what is in S3 stays")
        self._gone(context, row)
        for key in [row.key, *self._packages.keys_of(context, row)]:
            if key:
                self.names.look_at(context, key)

    def changed_under_way(self, row: FileRow) -> None:
        """A transfer found the file changed or gone: look again at once."""
        watched = self.trees.get((row.place.analysis, row.place.tree))
        if watched is not None:
            watched.hinted.add(row.place.path)
            watched.known.pop(row.place.path, None)


def _settle_for(watched: Watched, link: str) -> float:
    """Seconds without a change after which a file is whole. Files on a share need longer, also behind a link on a local
    disk."""
    context = watched.context
    return max(context.settle, context.settle_links) if link.startswith("/") else context.settle
