"""Names with parts, such as `{animal}/{date}_{run}`: what is a part, what is written out."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def fields(text: str) -> list[str]:
    """The names in braces, in order. Other braces are text."""
    return _FIELD.findall(text)


def expand(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `{name}` that is in `values` replaced; others stay as they are."""
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), text)


def split(text: str) -> list[tuple[str, bool]]:
    """`text` cut into (literal, False) and (name of a part, True), in turn, beginning and ending with a literal."""
    pieces = _FIELD.split(text)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces)]


def check_unit(text: str) -> None:
    """Raise ValueError when `text` cannot be the template of a unit's folder."""
    segments = text.split("/")
    if "" in segments or "." in segments or ".." in segments:
        raise ValueError("must be a folder below inputs/ (or below the source), such as {animal}/{date}_{run}")
    if not fields(text):
        raise ValueError("must name at least one part in braces, such as {animal}/{date}_{run}")
    for segment in segments:
        pieces = split(segment)
        names = [piece for piece, is_field in pieces if is_field]
        if len(set(names)) < len(names):
            raise ValueError("has a part twice in one folder's name; it may come again only in another folder's name")
        if any(not literal for literal, _ in pieces[2:-1:2]):
            raise ValueError("has two parts with nothing between them: where does the first one end?")
        if any(char in literal for literal, _ in pieces[::2] for char in "{}*?[]"):
            raise ValueError("may have only letters, digits and parts such as {animal}; no *, ?, [ ] or other braces")
