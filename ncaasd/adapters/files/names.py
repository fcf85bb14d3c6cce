"""Which names and paths a scan passes over."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

from ncaasd.plan.matching import compile_ignored_path

_MAGIC = re.compile(r"[*?\[]")


class IgnoredNames:
    """Whether a base name matches one of `globs` (shell globs, case-sensitive; for files and folders alike).

    The usual patterns (`*.tmp`, `~*`, `Thumbs.db`) are matched without regular expressions, which would cost a scan
    as much as its system calls do. `matches` does the same as a call, for loops in which one more call costs much.
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
        self.matches = _compiled(frozenset(names), tuple(starts), tuple(ends), rest)

    def __call__(self, name: str) -> bool:
        return self.matches(name)


def _compiled(
    names: frozenset[str], starts: tuple[str, ...], ends: tuple[str, ...], rest: Sequence[str]
) -> Callable[[str], bool]:
    def usual(name: str) -> bool:
        return name.startswith(starts) or name.endswith(ends) or name in names

    if not rest:
        return usual
    matches = re.compile("|".join(rest)).match
    return lambda name: usual(name) or matches(name) is not None


class Ignoring:
    """`watch.ignore`, with the built-in list: which paths of a tree are passed over, with all that is below them.

    A pattern without a slash is for names, of files and folders; one with a slash is for a whole path
    (`plan.matching.compile_ignored_path` says from where). Paths are the tree's own; `areas` are the folders that an
    analysis's own tree has, empty for a source.
    """

    def __init__(self, patterns: Sequence[str], *, areas: Sequence[str] = ()) -> None:
        trimmed = [p.rstrip("/") if p.strip("/") else p for p in patterns]  # `scratch/` is the folder of that name
        self.name = IgnoredNames([p for p in trimmed if "/" not in p])
        paths = [p for p in trimmed if "/" in p]
        self.path: Callable[[str], bool] | None = compile_ignored_path(paths, areas) if paths else None

    def __call__(self, path: str) -> bool:
        """Whether a path, or a folder that it lies in, is passed over."""
        return any(self.name(part) for part in path.split("/")) or self.lies_in(path)

    def lies_in(self, path: str) -> bool:
        """Whether a pattern of a whole path means this path, or a folder that it lies in."""
        if self.path is None:
            return False
        parts = path.split("/")
        return any(self.path("/".join(parts[: n + 1])) for n in range(len(parts)))
