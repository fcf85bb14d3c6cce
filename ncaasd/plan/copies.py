"""Whether a file's name says that it is a copy of another file, made by a synchronising program or a person. Pure.

After a conflict the copy may be the only right version of a recording, so it is neither ignored nor paid for: it is uploaded,
and its job is held for a person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ncaasd.model import FileRow, Hold, JobRow, Place
from ncaasd.plan.guards import Stop

# Forms that only conflict copies have, in the name of a file or folder. Sources: the programs' own documentation.
_CERTAIN = (
    # x.sync-conflict-20240102-120000-ABCDEFG.tif
    ("Syncthing", re.compile(r"\.sync-conflict-\d{8}-\d{6}(?:-[A-Z0-9]{7})?(?=\.|$)")),
    # x (conflicted copy 2024-01-02).tif, x (Rig1's conflicted copy 2024-01-02).tif, x (conflicted copy 2024-01-02 120000).tif
    ("Dropbox or Nextcloud", re.compile(r"\((?:[^()/]* )?conflicted copy\b[^()/]*(?:\(\d+\))?\)", re.IGNORECASE)),
    ("Dropbox", re.compile(r"\((?:[^()/]* )?(?:Case|Unicode Encoding|Selective Sync|White ?[Ss]pace) [Cc]onflict\b[^()/]*\)")),
    ("Dropbox", re.compile(r"\((?:In Konflikt stehende Kopie|Copie en conflit|[Cc]opia en conflicto)\b[^()/]*\)")),
    # x_conflict-20240102-120000.tif
    ("ownCloud", re.compile(r"_conflict-(?:[^/]*-)?\d{8}-\d{6}(?=\.|$)")),
    # x (SFConflict name@lab.org 2024-01-02-12-00-00).tif
    ("Seafile", re.compile(r"\(SFConflict [^()/]*\)")),
    # x.Conflict.tif; x.tif.conflict1
    ("Resilio Sync or rclone", re.compile(r"\.conflict\d*(?=\.[^.]+$|$)", re.IGNORECASE)),
    # x [conflicted].tif
    ("pCloud", re.compile(r"[\[(]conflicted(?: \d+)?[\])]", re.IGNORECASE)),
)  # fmt: skip

# Forms that a recording's own name may have: a copy only where the original (`name` + `end`) is in the same folder.
_NUMBER = r"(?: ?\(\d+\))?"
_DOUBTFUL = (
    # x (1).tif: Windows, browsers, Google Drive
    re.compile(r"(?P<name>.+?) ?\(\d{1,3}\)(?P<end>(?:\.[^.]*)?)"),
    # x - Copy.tif, x - Copy (2).tif, x - Kopie.tif, x copy.tif, x copy 2.tif: Windows, macOS
    re.compile(rf"(?P<name>.+?) (?:- )?(?:[Cc]opy|[Kk]opie|[Cc]opie|[Cc]opia)(?: \d+|{_NUMBER})(?P<end>(?:\.[^.]*)?)"),
    # Copy of x.tif, Copy (2) of x.tif, Kopie von x.tif: Google Drive, older Windows
    re.compile(rf"(?:Copy{_NUMBER} of|Kopie{_NUMBER} von|Copi[ea]{_NUMBER} de) (?P<name>.+?)(?P<end>(?:\.[^.]*)?)"),
    # x_conf(1).tif: Google Drive
    re.compile(r"(?P<name>.+?)_conf\(\d+\)(?P<end>(?:\.[^.]*)?)"),
)  # fmt: skip
# x 2.tif: macOS makes such copies, and people name their second recording so. A copy only where it has the same bytes.
_NUMBERED = re.compile(r"(?P<name>.+?) (?:[2-9]|\d{2})(?P<end>(?:\.[^.]*)?)")


# Each of these forms has a space, a bracket or `conf` in it.
_MAY_BE = re.compile(r"[ (\[]|_?conf", re.IGNORECASE)


class Copy(NamedTuple):
    """A copy, by its name. `original`: the path that must exist for it to be one, with the same bytes if `equal`; "" when the
    name alone is certain."""

    what: str
    original: str = ""
    equal: bool = False


def named_as_copy(path: str) -> list[Copy]:
    """The kinds of copy that a path may be, by the names in it; the certain ones first."""
    certain: list[Copy] = []
    doubtful: list[Copy] = []
    if not _MAY_BE.search(path):
        return []
    names = path.split("/")
    for at, name in enumerate(names):
        certain += [
            Copy(f"a conflict copy, as {program} makes them") for program, form in _CERTAIN if form.search(name)
        ]
        for form in (*_DOUBTFUL, _NUMBERED):
            found = form.fullmatch(name)
            if found:
                original = "/".join([*names[:at], found["name"] + found["end"], *names[at + 1 :]])
                # Numbered session folders look like copied folders, and have files of the same names in them.
                equal = form is _NUMBERED or (form is _DOUBTFUL[0] and at < len(names) - 1)
                doubtful.append(Copy(f"a copy of {original}, which is there too", original, equal))
    return [*certain, *doubtful]


def copied(job: JobRow, files: Iterable[FileRow], at: Callable[[Place], FileRow | None]) -> Stop | None:
    """Hold `job` when one of its files is, by its name, a copy. `files`: those of its datasets; `at`: the file that is at a
    place now."""
    if job.attempt or Hold.COPY in job.released:
        return None
    for file in files:
        if file.place.is_package:
            continue
        # `inputs/`, above the paths that rules see, is not part of the recording's name.
        head, slash, path = ("", "", file.place.path) if file.place.tree else file.place.path.partition("/")
        for copy in named_as_copy(path):
            if copy.original:
                original = at(Place(file.place.analysis, file.place.tree, head + slash + copy.original))
                if original is None or (copy.equal and not _same_bytes(file, original)):
                    continue
            return Stop(Hold.COPY, f"{path} is, by its name, {copy.what}: its data may be paid for already", asks=True)
    return None


def _same_bytes(one: FileRow, other: FileRow) -> bool:
    """Whether both have the same bytes, as far as is known: by checksum, or by size and time where one has none."""
    if one.stat.size != other.stat.size:
        return False
    if one.crc and other.crc:
        return one.crc == other.crc
    return one.stat.mtime_ns == other.stat.mtime_ns
