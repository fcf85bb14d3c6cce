"""Durations, sizes, rates and hours, as people write them, both ways."""

from __future__ import annotations

import re

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_DURATION_PART = re.compile(_NUMBER + r"\s*([a-z]+)\s*")
_SIZE = re.compile(_NUMBER + r"\s*([A-Za-z]+)")
_RATE = re.compile(_NUMBER + r"\s*([kKmMgGtT]i?)?(B|bits?|b)\s*(/\s*s(?:ec(?:ond)?)?|ps)")
_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*[-–]\s*([0-9]{1,2}):([0-9]{2})")

_SECONDS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400.0),
}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
DURATION = "a duration such as 30s, 5m, 48h or 1h30m"
SIZE = "a size such as 5 GB, 500 MB or 8 MiB"
KEEP = "a duration such as 90d, or forever"
RATE = "a rate such as 10 MB/s or 80 Mbit/s, or none (no limit), or 0 (a pause)"
HOURS = "hours such as 08:00-19:00 (or 22:00-06:00, past midnight)"


def duration(text: str) -> float:
    """Seconds. Raises ValueError."""
    rest = text.strip().lower()
    if rest == "0":
        return 0.0
    total, seen = 0.0, False
    while rest:
        part = _DURATION_PART.match(rest)
        if part is None or part[2] not in _SECONDS:
            raise ValueError(f"expected {DURATION}")
        total += float(part[1]) * _SECONDS[part[2]]
        rest, seen = rest[part.end() :], True
    if not seen:
        raise ValueError(f"expected {DURATION}")
    if total > 10 * 366 * 86400:
        raise ValueError("is longer than ten years")
    return total


def keep(text: str) -> float | None:
    """Seconds, a day at least (a pass of `once`, which may take hours, reads in the event log what it did); None is for ever.
    Raises ValueError."""
    if text.strip().lower() == "forever":
        return None
    try:
        seconds = duration(text)
    except ValueError:
        raise ValueError(f"expected {KEEP}") from None
    if seconds < _SECONDS["d"]:
        raise ValueError("must be 1d or more, or forever")
    return seconds


def size(text: str) -> int:
    """Bytes: GB is 10^9, GiB is 2^30. Raises ValueError."""
    if text.strip() == "0":
        return 0
    found = _SIZE.fullmatch(text.strip().lower())
    unit = "" if found is None else re.sub(r"bytes?$|b$", "", found[2])
    if found is None or unit not in _PREFIXES:
        raise ValueError(f"expected {SIZE}")
    return _bounded(float(found[1]) * _PREFIXES[unit])


def rate(text: str) -> int | None:
    """Bytes per second; None is no limit. Raises ValueError, also for Mb/s, which people use for bits and for bytes."""
    text = text.strip()
    if text.lower() in ("none", "unlimited"):
        return None
    if text == "0":
        return 0
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"expected {RATE}")
    if found[3] == "b" and found[4] != "ps":
        raise ValueError("may mean bytes or bits: write 10 MB/s (bytes) or 80 Mbit/s (bits)")
    amount = float(found[1]) * _PREFIXES[(found[2] or "").lower()]
    return _bounded(amount if found[3] == "B" else amount / 8)


def hours(text: str) -> tuple[int, int]:
    """(start, end) in minutes of the local day; the end may lie before the start, past midnight. Raises ValueError."""
    found = _HOURS.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected {HOURS}")
    first, second = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if max(int(found[2]), int(found[4])) > 59 or first >= 1440 or second > 1440:
        raise ValueError(f"expected {HOURS}")
    if first == second:
        raise ValueError("begins when it ends; the whole day is 00:00-24:00")
    return first, second


def _bounded(value: float) -> int:
    if value > 2**60:
        raise ValueError("is more than there is")
    return round(value)


def say_duration(seconds: float) -> str:
    """As people write it: 30s, 5m, 48h, 1.5s."""
    for unit, name in ((3600.0, "h"), (60.0, "m")):
        if seconds and seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{round(seconds, 3)}s"


def say_days(seconds: float | None) -> str:
    """As people write it, where days are meant: 90d, 36h, forever."""
    if seconds is None:
        return "forever"
    return f"{seconds / 86400:.0f}d" if seconds % 86400 == 0 else say_duration(seconds)


def say_size(count: int) -> str:
    """As people write it: 5 GB, 8 MiB, 512 B."""
    for name, unit in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} B"


def say_hours(band: tuple[int, int]) -> str:
    """As people write it: 08:00-19:00."""
    return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in band)


def say_rate(limit: int | None) -> str:
    """As people write it: 10 MB/s, none, 0."""
    return "none" if limit is None else "0" if limit == 0 else f"{say_size(limit)}/s"
