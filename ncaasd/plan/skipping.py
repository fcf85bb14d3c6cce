"""Which of the things that a scan skipped are kept in the journal. Pure.

Only a whole unit is paid for, so a part that can't be followed, entered or read must be known when the unit is judged (F97).
But a tree with a million links must not fill the journal: then one row for a folder replaces those of the things in it.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST = 2000  # rows of one tree


def can_matter(tree: str, path: str) -> bool:
    """Whether a rule could want what lies at a path: in a source, or below `inputs/`."""
    return bool(tree) or path.startswith("inputs/")


def to_record(tree: str, skipped: Mapping[str, str], most: int = MOST) -> dict[str, str]:
    """path -> why, at most `most` of them; if there are more, the fullest folders (their paths end in "/") replace all in them.

    `skipped`: as `ScanDelta.skipped`. The tree's own folder is "/", and is the last to be used so.
    """
    found = {path: (1, "", why) for path, why in skipped.items() if can_matter(tree, path)}
    while len(found) > most:
        folders: dict[str, list[str]] = {}
        for path in found:
            folders.setdefault(_folder_of(path), []).append(path)
        if set(folders) == {"/"} and set(found) == {"/"}:
            break
        for folder, paths in sorted(folders.items(), key=lambda item: (-len(item[1]), item[0])):
            if len(found) <= most:
                break
            inside = [(path, found.pop(path)) for path in sorted(paths)]
            own = found.get(folder)
            first, (_count, example, why) = inside[0]
            count = sum(c for _p, (c, _e, _w) in inside) + (own[0] if own else 0)
            found[folder] = (count, example or first, why)
    return {path: _said(*what) for path, what in sorted(found.items())}


def _folder_of(path: str) -> str:
    """The folder that a path lies in, with "/" at its end; "/" is the tree's own."""
    return path.rstrip("/").rpartition("/")[0] + "/"


def _said(count: int, example: str, why: str) -> str:
    if not example:
        return why
    return f"{count:,} things in it are skipped, too many to be told one by one; the first is {example}: {why}"
