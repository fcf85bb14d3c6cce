"""Which paths a pattern matches, and which unit a path belongs to. Pure, and never slow, whatever the pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ncaasd.declare import template


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a `/`-separated relative path matches `pattern` as a whole.

    `*` and `?` stay within one name, `[...]` and `[!...]` is one character of a set, `**/` is any folders or none,
    a `**` at the end is anything below. Capital letters count.
    """
    expression = re.compile(_path(pattern))
    return lambda path: expression.fullmatch(path) is not None


def compile_ignored_path(patterns: Iterable[str], areas: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether one of `patterns` matches the path of a file or folder in a tree, as a whole.

    Like a rule's patterns they are relative to `inputs/`, or to the source. In an analysis's own tree, whose top folders are
    `areas`, a pattern that begins with such a folder (`configs/old`) is relative to the analysis's folder. A slash at the
    beginning is ignored.
    """
    expressions = []
    for pattern in patterns:
        below = pattern.lstrip("/")
        at_home = not areas or below.partition("/")[0] in areas
        expressions.append(_path(below if at_home else f"inputs/{below}"))
    matches = re.compile("|".join(expressions)).fullmatch
    return lambda path: matches(path) is not None


def _path(pattern: str) -> str:
    """The regular expression of a glob.

    Between two `**` the number of names is fixed, and between two `*` the number of characters: the first place where they
    fit is always right, so atomic groups may drop the others, and backtracking is never exponential.
    """
    *folders, last = pattern.split("/")
    blocks = [""]
    for folder in folders:
        if folder == "**":
            blocks.append("")
        else:
            blocks[-1] += _name(folder) + "/"
    blocks[-1] += ".+" if last == "**" else _name(last)
    first, *middle = blocks
    if not middle:
        return f"(?s:{first})"
    *middle, end = middle
    return f"(?s:{first}{''.join(f'(?>(?:[^/]+/)*?{block})' for block in middle if block)}(?:[^/]+/)*?{end})"


def _name(glob: str) -> str:
    """The regular expression of one name's glob."""
    head, *rest = _chunks(glob)
    if not rest:
        return head
    *middle, tail = rest
    return head + "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk) + f"[^/]*{tail}"


def _chunks(glob: str) -> list[str]:
    """What is between the stars, as regular expressions of a fixed number of characters."""
    chunks = [""]
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            chunks.append("")
        elif char == "?":
            chunks[-1] += "[^/]"
        elif char == "[" and (end := glob.find("]", at + 1 + (glob[at : at + 1] == "!"))) > 0:
            chunks[-1] += _one_of(glob[at:end])
            at = end + 1
        else:
            chunks[-1] += re.escape(char)
    return chunks


def _one_of(inside: str) -> str:
    """`[abc]`, `[a-z]`, `[!a-z]`, without the brackets, as a regular expression."""
    negated = inside.startswith("!")
    chars = inside[1:] if negated else inside
    members = ""
    at = 0
    while at < len(chars):
        if chars[at + 1 : at + 2] == "-" and at + 2 < len(chars):
            if chars[at] <= chars[at + 2]:  # [z-a] is no character
                members += f"{re.escape(chars[at])}-{re.escape(chars[at + 2])}"
            at += 3
        else:
            members += re.escape(chars[at])
            at += 1
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"[^/{members}]" if negated else f"(?!/)[{members}]"


class UnitTemplate:
    """The template of a unit's folder, such as `{animal}/{date}_{run}`.

    A part is never empty and never contains a `/`. Between two parts, the first one ends as early as it can
    (`{date}_{run}` finds date `2024` and run `01_3` in `2024_01_3`). A part that occurs again in another folder's name
    must have the same value there.
    """

    def __init__(self, text: str) -> None:
        """Raises ValueError when `text` is no template."""
        template.check_unit(text)
        self.text = text
        self.fields = tuple(dict.fromkeys(template.fields(text)))
        self._folders = text.split("/")

    def match(self, path: str) -> tuple[str, dict[str, str]] | None:
        """The unit's folder and its parts, for the path of a file in it; None when it is in no unit."""
        names = path.split("/", len(self._folders))
        if len(names) <= len(self._folders):
            return None
        values: dict[str, str] = {}
        for folder, name in zip(self._folders, names, strict=False):
            found = _parts(folder, name, values)
            if found is None:
                return None
            values |= found
        return "/".join(names[:-1]), values

    def expand(self, text: str, fields: Mapping[str, str]) -> str:
        """`text` with the unit's parts in place of their names in braces; other braces stay."""
        return template.expand(text, fields)


def _parts(folder: str, name: str, known: Mapping[str, str]) -> dict[str, str] | None:
    """The new parts of one folder's name. The first place where a literal fits is right, as for a glob."""
    parts: list[str] = []
    literals = [""]
    for piece, is_part in template.split(folder):
        if is_part and piece not in known:
            parts.append(piece)
            literals.append("")
        else:
            literals[-1] += known[piece] if is_part else piece
    start, *ends = literals
    if not parts:
        return {} if name == start else None
    if not (name.startswith(start) and name.endswith(ends[-1])):
        return None
    values: dict[str, str] = {}
    at = len(start)
    for number, (part, literal) in enumerate(zip(parts, ends, strict=True), 1):
        end = len(name) - len(literal) if number == len(parts) else name.find(literal, at + 1)
        if end <= at:
            return None
        values[part] = name[at:end]
        at = end + len(literal)
    return values
