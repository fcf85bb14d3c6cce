"""Keys in S3: each belongs to one file, and a file that waits for a key gets it when it is free (F96). In the engine thread.

Two local files may map to one key: of two sources, of a source and `inputs/`, of a package and a recording. The second is
refused, its jobs say why, and it is uploaded by itself when the first one is renamed or gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.model import FileRow, FileState, Place
from ncaasd.plan.files import (
    HAS_NO_NAME,
    Mapped,
    Role,
    collision,
    gives_way,
    holder,
    map_file,
    precedence,
    role_of,
    seen_as,
    waits_for_name,
)
from ncaasd.plan.grouping import by_base, still_to_read
from ncaasd.subjects import of_file

Told = Callable[[Context, FileRow], None]


class Packages(Protocol):
    """What `Names` needs to know about rules' packages, which have keys in S3 too."""

    def again(self, context: Context, row: FileRow) -> None:
        """A package's key, for which it waits, is free now: have it built."""

    def abandoned(self, context: Context, row: FileRow) -> bool:
        """Whether all files that a package was made of are gone."""

    def keys_of(self, context: Context, row: FileRow) -> Sequence[str]:
        """The keys of the packages that are made of a file."""


class Names:
    def __init__(
        self, runtime: Runtime, packages: Packages, *, waits: Told, unsettle: Told, settle_again: Told
    ) -> None:
        """Callbacks. `waits`: a file waits for its key, so its jobs are made and say so. `unsettle`: stop checking whether
        such a file is whole; `settle_again`: its key is free."""
        self._runtime = runtime
        self._packages = packages
        self._waits = waits
        self._unsettle = unsettle
        self._settle_again = settle_again

    def resume(self) -> None:
        """At start: put right what an earlier version, or a kill, has left."""
        journal = self._runtime.journal
        with self._runtime.transaction():
            for context in self._runtime.contexts.values():
                self.rules_changed(context)
                refused = list(journal.files(context.name, states=[FileState.REFUSED]))
                for key in dict.fromkeys(row.key for row in refused if waits_for_name(row)):
                    self.look_at(context, key)

    def mapped(self, context: Context, place: Place) -> Mapped:
        names = context.settings.upload.names
        base = by_base((m for ms in context.rules.values() for m in ms), place)
        return map_file(seen_as(place), context.layout, prefix=context.prefix, names=names, base=base)

    def key_for(
        self, context: Context, place: Place, old: FileRow | None, key: str, mapped: str, *, first: bool
    ) -> tuple[str, str]:
        """Returns (the key of an existing file, why it can't have it because another file does, or "").

        `key`: the one that it has, or would have by its name (`mapped`); `first`: found by the first scan of its tree.
        """
        journal = self._runtime.journal
        other = self._holder(context, place, key)
        if other is None:
            return key, ""
        stored = old is not None and old.stored is not None
        if old is not None and not stored and key != mapped and self._is_free(context, place, mapped):
            journal.give_key(old.id, mapped)  # a key of an earlier version, which mapped many names to one
            return mapped, ""
        together = other.state is FileState.SETTLING or first
        begun = journal.upload_begun(other.id)
        if gives_way(other, place, stored=stored, begun=begun, together=together):
            self._refuse(context, other, collision(place, key))
            return key, ""
        return key, collision(other.place, key)

    def rules_changed(self, context: Context) -> None:
        """A rule may want datasets directly in inputs/ now: give those their keys there."""
        if any(m.rule.key == "base" for ms in context.rules.values() for m in ms):
            for row in list(self._runtime.journal.files(context.name)):
                self.put_in_place(context, row)

    def put_in_place(self, context: Context, row: FileRow) -> None:
        """Give a file that a rule wants directly in inputs/ its key there, and have it uploaded, unless that rule's jobs
        have had it already. The object at the other key stays there, for the jobs that were submitted with it."""
        journal = self._runtime.journal
        waits = waits_for_name(row)  # for its old key
        if row.place.is_package or row.place.tree not in context.trees or not row.key:
            return
        if row.state in HAS_NO_NAME and not waits:
            return
        rules = [m for ms in context.rules.values() for m in ms]
        mapped = self.mapped(context, row.place)
        if not by_base(rules, row.place) or mapped.key == row.key or journal.upload_begun(row.id):
            return
        if row.stored is not None:
            if not still_to_read(rules, row, journal.jobs_using(context.name, row.key)):
                return
            journal.unstore_file(row.id, self._runtime.clock.now())
        journal.give_key(row.id, mapped.key)
        text = f"goes to {mapped.key}, because its rule has `key: base`"
        self._runtime.event(context.name, of_file(row.place), "renamed in S3", text)
        other = self._holder(context, row.place, mapped.key)
        if other is not None:
            self._refuse(context, row, collision(other.place, mapped.key))
        elif waits:
            self._let_go(context, row)
        journal.wake_jobs_of_file(row)
        self.look_at(context, row.key)

    def say_refused(self, context: Context, place: Place, why: str) -> None:
        """Report a file that was refused, as recorded in the journal."""
        row = self._runtime.journal.file_at(place)
        if row is not None:
            self._runtime.event(
                context.name, of_file(row.place), "refused", f"not uploaded: {why}", level=logging.WARNING
            )
            self._tell_jobs(context, row)

    def look_at(self, context: Context, key: str) -> None:
        """The file that had this key may be gone: look at the files that wait for the key; the first one gets it, and is
        uploaded when it is whole."""
        journal = self._runtime.journal
        rows = [r for r in journal.files_with_key(context.name, key) if waits_for_name(r)]
        for row in sorted(rows, key=lambda r: (r.stored is None, precedence(r.place))):
            if row.place.is_package:
                if self._is_free(context, row.place, row.key):
                    self._packages.again(context, row)
                continue
            if row.place.tree not in context.trees:
                continue
            mapped = self.mapped(context, row.place)
            if mapped.refused:
                self._refuse(context, row, mapped.refused)
                continue
            other = self._holder(context, row.place, key)
            renamed = row.stored is None and mapped.key != key
            if other is not None and renamed and self._is_free(context, row.place, mapped.key):
                journal.give_key(row.id, mapped.key)
                other = None
            if other is None:
                self._let_go(context, row)
            elif row.reason != collision(other.place, key):
                self._refuse(context, row, collision(other.place, key))

    def _is_free(self, context: Context, place: Place, key: str) -> bool:
        return self._holder(context, place, key) is None

    def _holder(self, context: Context, place: Place, key: str) -> FileRow | None:
        journal = self._runtime.journal
        other = holder(place, journal.files_with_key(context.name, key))
        if other is None or not other.place.is_package or not self._packages.abandoned(context, other):
            return other
        journal.set_file(other.id, FileState.GONE, "", self._runtime.clock.now())
        self._runtime.event(
            context.name, of_file(other.place), "gone", "all that it was made of is gone; what is in S3 stays"
        )
        return holder(place, journal.files_with_key(context.name, key))

    def _refuse(self, context: Context, row: FileRow, why: str) -> None:
        """Make a file wait for its key, which another file has. It was to be uploaded, or waits already."""
        self._unsettle(context, row)
        self._runtime.journal.set_file(row.id, FileState.REFUSED, why, self._runtime.clock.now())
        self.say_refused(context, row.place, why)
        self._runtime.journal.wake_jobs_of_file(row)

    def _tell_jobs(self, context: Context, row: FileRow) -> None:
        """Have the jobs of a file that waits for its key made: they wait with it, and say why."""
        if waits_for_name(row) and (row.place.tree or role_of(row.place.path) is Role.INPUT):
            self._waits(context, row)

    def _let_go(self, context: Context, row: FileRow) -> None:
        runtime = self._runtime
        runtime.journal.set_file(row.id, FileState.SETTLING, "", runtime.clock.now())
        runtime.event(context.name, of_file(row.place), "free", "no other file has its name in S3 any more: it goes up")
        runtime.journal.wake_jobs_of_file(row)
        self._settle_again(context, row)
