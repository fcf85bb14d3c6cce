"""The name of a result on the disk, given its key. Pure.

A key may be anything of up to 1,024 bytes of UTF-8; a file name may not. What a file system can hold is kept as it
is. The rest is escaped as `%XX` per byte, and `%` itself as `%25`, so that the key can be computed from the name
(`original`), and no two keys share a name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ncaasd.errors import UnsafePath

NAME_MAX = 255  # bytes; no file system in use takes more


@dataclass(frozen=True, slots=True)
class NameRules:
    """What a file system does with names."""

    windows: bool = False  # takes only what Windows takes
    folds: bool = False  # takes names that differ by case as one
    normalizes: bool = False  # takes Unicode forms of a name as one


# Always: what ends a name, breaks a line of a log, or looks like an escape.
_ALWAYS = re.compile(r"[\x00-\x1f\x7f%]")
# Microsoft, "Naming Files, Paths, and Namespaces".
_WINDOWS = re.compile(r'[\x00-\x1f\x7f%"*:<>?\\|]|[. ](?=\Z)')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\Z|\.)", re.IGNORECASE)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def local_segments(name: str, rules: NameRules) -> tuple[str, ...]:
    """The folders and the file that the key `name` (below its job's folder) is kept under.

    `..`, `.` and empty segments are escaped, so a key that is absolute, climbs or ends in "/" stays below the job's
    folder. Raises UnsafePath when the name is not text.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UnsafePath(f"the key {name!r} is not Unicode text, so no file can be named after it") from error
    return tuple(_fitting(_escaped(segment, rules)) for segment in name.split("/"))


def _escaped(segment: str, rules: NameRules) -> str:
    if not segment:
        return "%"  # no other segment becomes this: a real % is %25
    if segment in (".", ".."):
        return segment.replace(".", "%2E")
    escaped = (_WINDOWS if rules.windows else _ALWAYS).sub(_percent, segment)
    if rules.normalizes:
        escaped = _NOT_ASCII.sub(_percent, escaped)
    if rules.windows and _DEVICE.match(escaped):
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    return escaped


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _fitting(escaped: str) -> str:
    """Shorten a name that is too long for any file system. The key can't be computed from it then; the journal has the key."""
    return escaped if len(escaped.encode()) <= NAME_MAX else told_apart(escaped)


def told_apart(escaped: str) -> str:
    """A replacement, always the same, for a name that is too long, or taken by another key (on a file system that
    folds case, or a file and a folder of one name): `fig.png` becomes `fig~1a2b3c4d.png`."""
    digest = hashlib.sha256(escaped.encode()).hexdigest()[:8]
    stem, dot, suffix = escaped.rpartition(".")
    if not stem or len(suffix) > 16:
        stem, dot, suffix = escaped, "", ""
    room = NAME_MAX - len(f"~{digest}{dot}{suffix}".encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    stem = re.sub(r"%[0-9A-F]?\Z", "", stem)  # half of an escape
    return f"{stem}~{digest}{dot}{suffix}"


def original(path: str) -> str:
    """The key that `local_segments`, joined by "/", made `path` of, unless a name in it was shortened or told apart."""
    return "/".join("" if part == "%" else _unescaped(part) for part in path.split("/"))


def _unescaped(part: str) -> str:
    return re.sub(r"(?:%[0-9A-F]{2})+", lambda match: bytes.fromhex(match[0].replace("%", "")).decode(), part)
