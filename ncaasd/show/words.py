"""Numbers, times and names as people write them. Light; the terminal and the page share them."""

from __future__ import annotations

import math
from datetime import datetime

from ncaasd.neurocaas.text import short

_SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_SPANS = (("d", 86400), ("h", 3600), ("min", 60))


def size(count: float) -> str:
    """Bytes: 12.3 GB, 512 B."""
    for unit, scale in _SIZES:
        if count >= scale * 0.9995:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def rate(per_second: float) -> str:
    """Bytes per second: 8.1 MB/s."""
    return f"{size(per_second)}/s"


def span(seconds: float) -> str:
    """A length of time: 45 s, 3 min, 2 h 05 min, 3 d 4 h."""
    seconds = max(0.0, seconds)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def ago(at: float, now: float) -> str:
    """A point in time, seen from now: 3 min ago, in 20 s. Empty for "never"."""
    if at <= 0:
        return ""
    passed = now - at
    if abs(passed) < 1:
        return "now"
    for unit, length in _SPANS:
        if abs(passed) >= length:
            count = f"{math.floor(abs(passed) / length)} {unit}"
            break
    else:
        count = f"{abs(passed):.0f} s"
    return f"{count} ago" if passed > 0 else f"in {count}"


def moment(at: float) -> str:
    """A point in time on this machine's clock: 2026-11-23 00:38:12."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def left(done: float, whole: float, per_second: float) -> float | None:
    """Seconds until `whole` at this rate; None when it isn't known."""
    return (whole - done) / per_second if per_second > 0 and whole >= done else None


def count(number: int, noun: str, many: str = "") -> str:
    """`1 job`, `3 jobs`, `2 analyses`."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def dollars(value: float) -> str:
    """$3.07; less than a cent has four decimals."""
    return f"${value:,.4f}" if 0 < abs(value) < 0.01 else f"${value:,.2f}"


def cut(text: str, width: int) -> str:
    """`text` in at most `width` characters; of a path, the end is kept."""
    if len(text) <= width:
        return text
    return "…" + text[-(width - 1) :] if "/" in text else text[: width - 1] + "…"


def plain(text: str) -> str:
    """`text` on one line, without control characters, which file names and other programs' messages may contain."""
    return short(text, 2000)
