"""Which base names a scan passes over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

_MAGIC = re.compile(r"[*?\[]")


class IgnoredNames:
    """Whether a base name matches one of `globs` (shell globs, case-sensitive; for files and folders alike).

    The usual patterns (`*.tmp`, `~*`, `Thumbs.db`) are matched without regular expressions, which would cost a scan
    as much as its system calls do.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        names, starts, ends, rest = set(), [], [], []
        for glob in globs:
            if not _MAGIC.search(glob):
                names.add(glob)
            elif glob.endswith("*") and not _MAGIC.search(glob[:-1]):
                starts.append(glob[:-1])
            elif glob.startswith("*") and not _MAGIC.search(glob[1:]):
                ends.append(glob[1:])
            else:
                rest.append(translate(glob))
        self._names, self._starts, self._ends = frozenset(names), tuple(starts), tuple(ends)
        self._rest = re.compile("|".join(rest)).match if rest else None

    def __call__(self, name: str) -> bool:
        return (
            name.startswith(self._starts)
            or name.endswith(self._ends)
            or name in self._names
            or (self._rest is not None and self._rest(name) is not None)
        )
