"""What a local file is for, its key, which of several files has one key, and whether a job may be reading it. Pure."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ncaasd.errors import FileUnreadable
from ncaasd.model import ABORTED, EVENTUALLY, FileRow, FileState, JobRow, Phase, Place
from ncaasd.neurocaas.naming import Layout, key_problems, needs_mapping, safe_key


class Role(StrEnum):
    """What a file below an analysis's folder is for."""

    INPUT = "input"
    CONFIG = "config"
    MANIFEST = "manifest"  # standing rules
    ONE_OFF = "one-off"  # a manifest in submissions/
    SUBMIT = "submit"  # a hand-written submit file
    NONE = "none"  # nothing of ours


def role_of(path: str) -> Role:
    """The role of a path: `inputs/…`, `configs/…`, `manifest.yaml`, `submissions/*.yaml`, `submissions/*submit.json`."""
    top, _, rest = path.partition("/")
    if top == "inputs":
        return Role.INPUT
    if top == "configs":
        return Role.CONFIG
    if path == "manifest.yaml":
        return Role.MANIFEST
    if top == "submissions" and rest and "/" not in rest:
        if rest.endswith((".yaml", ".yml")):
            return Role.ONE_OFF
        # The platform's rule is case-sensitive: any key that ends in submit.json starts a job.
        if rest.endswith("submit.json"):
            return Role.SUBMIT
    return Role.NONE


def seen_as(place: Place) -> str:
    """The path that decides a file's role and key: a source's files are treated as those in `inputs/`."""
    return f"inputs/{place.path}" if place.tree else place.path


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file's key in S3; `refused` says why it must not be uploaded at all."""

    key: str
    refused: str = ""


def key_of(path: str, layout: Layout, prefix: str, *, base: bool = False) -> str:
    """The key of a dataset whose path below `inputs/`, or below its source, is `path`: as it is named on the disk, in a
    manifest, or by a rule's package. `base`: directly in inputs/, by its file name alone (a rule's `key: base`)."""
    return layout.input_key("", safe_key(path.rpartition("/")[2])) if base else layout.input_key(prefix, safe_key(path))


def map_file(path: str, layout: Layout, *, prefix: str, names: str, base: bool = False) -> Mapped:
    """The key of `inputs/…` or `configs/…`; `names` is the config's `upload.names`: sanitize or refuse; `base`: see `key_of`."""
    role = role_of(path)
    below = path.partition("/")[2]
    key = key_of(below, layout, prefix, base=base) if role is Role.INPUT else layout.config_key(prefix, safe_key(below))
    if names == "refuse" and needs_mapping(below):
        return Mapped(key, "its name has characters that NeuroCAAS puts unquoted into a shell line: rename it")
    if role is Role.CONFIG and below.endswith(".yml"):
        return Mapped(key, "NeuroCAAS reads .yaml and .json only: rename it to .yaml")
    problems = key_problems(key)
    return Mapped(key, "; ".join(problems))


HAS_NO_NAME = (FileState.GONE, FileState.REFUSED, FileState.SKIPPED)


def holder(place: Place, others: Iterable[FileRow]) -> FileRow | None:
    """Which of the files that map to one key has it, other than the one at `place`: it exists, and may be uploaded."""
    return next((o for o in others if o.place != place and _has_its_key(o)), None)


def _has_its_key(row: FileRow) -> bool:
    if row.state in HAS_NO_NAME:
        return False
    # A file that no rule names, that goes up in a package or whose unit was aborted doesn't keep its key from others.
    left = bool(row.reason) and row.retry_at > EVENTUALLY
    return not (row.state is FileState.WHOLE and row.stored is None and (left or row.reason.startswith(ABORTED)))


def gives_way(held_by: FileRow, place: Place, *, stored: bool, begun: bool, together: bool) -> bool:
    """Whether the file `held_by` must give its key to the one at `place`, which maps to the same key.

    A file that may be in S3 keeps its key (`begun`: its upload has begun). `stored`: the object at the key is of the file at
    `place`, which was away. `together`: one scan found both; then `precedence` decides, so that the same file gets the key
    each time: the analysis's own folder comes before sources, and sources are in order of their names.
    """
    if held_by.stored is not None or begun or held_by.place.is_package:
        return False
    return stored or (together and held_by.state in _NOT_SENT and precedence(place) < precedence(held_by.place))


_NOT_SENT = (FileState.SETTLING, FileState.WHOLE)


def precedence(place: Place) -> tuple[bool, str, str]:
    """The order in which the files that wait for one key get it."""
    return place.is_package, place.tree, place.path


def collision(other: Place, key: str) -> str:
    """Why a file can't go up while the one at `other` has its key, and what to do."""
    return (
        f"{in_words(other)} {_HAS_IT} ({key}): rename one of the two; when the other one is renamed or moved away, this one"
        " goes up by itself"
    )


_HAS_IT = "has its name in S3 already"
_HAD_IT = "maps to the same key in S3 already"  # the first release's text for the same


def waits_for_name(row: FileRow) -> bool:
    """Whether a file is refused only because another one has its key."""
    return row.state is FileState.REFUSED and (f" {_HAS_IT} (" in row.reason or f" {_HAD_IT} (" in row.reason)


def in_words(place: Place) -> str:
    """A file as its user knows it: its path and its source; a package with its rule."""
    if place.is_package:
        return f"the package {place.path} of rule {place.package_of}"
    return f"{place.path} in source {place.tree}" if place.tree else place.path


def with_names_given(
    rows: Sequence[FileRow], *, fresh: Collection[Place], waiting: Collection[Place], moved: Collection[Place] = ()
) -> list[FileRow]:
    """`rows`, all files that exist, with each key given to one of them as the engine does it; the others are refused.

    `fresh`: just found. `waiting`: refused when last looked at, because another file had the key. `moved`: with a new key, by
    a rule that the daemon has not read yet."""
    having: dict[str, FileRow] = {}

    def order(row: FileRow) -> tuple[bool, bool, bool, bool, tuple[bool, str, str]]:
        place = row.place
        return row.stored is None, place in waiting, place in moved, place in fresh, precedence(place)

    wanting = (r for r in rows if r.key and (_has_its_key(r) or r.place in waiting))
    for row in sorted(wanting, key=order):
        having.setdefault(row.key, row)
    made = []
    for row in rows:
        first = having.get(row.key) if row.key else None
        if first is None or not (_has_its_key(row) or row.place in waiting):
            made.append(row)
        elif first.place == row.place:
            let_go = row.place in waiting
            made.append(replace(row, state=FileState.WHOLE, reason="") if let_go else row)
        else:
            made.append(replace(row, state=FileState.REFUSED, reason=collision(first.place, row.key)))
    return made


def taken_by(place: Place | None, own: FileRow | None, others: Sequence[FileRow]) -> Place | None:
    """Which other file of this rig has its bytes at the key of a dataset that is not here, or will have: no job of the dataset
    may get those. None when the bytes there are the dataset's own, or no file of this rig was ever there.

    `own`: the dataset's journal row; `others`: all files with its key.
    """
    if own is not None and own.stored is not None:
        return None  # another file that takes the key clears this first
    for other in others:
        if other.place != place and (other.stored is not None or _has_its_key(other)):
            return other.place
    return None


def found_by_itself(row: FileRow) -> bool:
    """Whether a file is a link to another one that the same scan finds: `latest.tif -> run5.tif`."""
    return bool(row.link) and not row.link.startswith("/")


def unreadable(path: str, error: OSError, uid: int) -> FileUnreadable:
    """The error for a file that exists but can't be read. `uid`: the daemon's user."""
    code = errno.errorcode.get(error.errno or 0, "")
    if error.errno in (errno.EACCES, errno.EPERM):
        shown = path.encode("utf-8", "backslashreplace").decode()
        hint = (
            f"let the daemon's user (uid {uid}) read it, such as with `chmod a+r {shlex.quote(shown)}`: it goes up then"
        )
    else:
        hint = "check its disk, or copy the file here once more; it is tried again every hour"
    return FileUnreadable(f"{path} cannot be read: {error.strerror} ({code})", hint=hint)


def in_use(jobs: Sequence[JobRow]) -> JobRow | None:
    """The submitted job, of those that use a key, that may still be reading the object there: a new version, or another file,
    must wait for its end (F86)."""
    for job in jobs:
        if job.phase in (Phase.INTENT, Phase.ATTEMPTED, Phase.SUBMITTED) and job.verdict is None:
            return job
    return None
