"""Text from elsewhere (outputs, names, AWS's sentences) made fit to be shown to people, on a terminal or a page."""

from __future__ import annotations

import re

SHORT = 300  # characters of a reason

# colours and cursor movements, window titles, other control characters, line and direction marks of Unicode
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """`text` without control characters; of a line that a progress bar redrew, the last version."""
    if "\r" in text:
        lines = text.replace("\r\n", "\n").split("\n")
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    # lone surrogates (names that are no UTF-8, JSON escapes) would make printing raise
    return _CONTROL.sub("", text.encode("utf-8", "backslashreplace").decode("utf-8"))


def short(text: str, limit: int = SHORT) -> str:
    """`text` cleaned, on one line, cut to `limit` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def money(value: float) -> str:
    """Dollars as people write them: $300, $3.07."""
    return f"${value:,.0f}" if value == int(value) else f"${value:,.2f}"


def duration(seconds: float) -> str:
    """A span of time as people say it: 45 s, 31 min, 48 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def plural(count: int, noun: str) -> str:
    """`1 dataset`, `3 datasets`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shown(name: str) -> str:
    """A name as it may stand in a sentence: itself, or its escapes when it holds what cannot be printed."""
    return name if name.isprintable() else ascii(name)


def kind(value: object) -> str:
    """What a value of JSON or YAML is, as people say it."""
    names: dict[type, str] = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a mapping",
        type(None): "nothing (null)",
    }
    return names.get(type(value), f"a {type(value).__name__}")
