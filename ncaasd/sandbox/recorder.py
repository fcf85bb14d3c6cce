"""A recording of this machine: its processor, memory and disks, some ten times a second, as a CSV file.

The demo uses it as data: small, real, and made on the spot. On Linux it is read from /proc; elsewhere it has what the
standard library offers (the load average).
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import time
from collections.abc import Callable

COLUMNS = ("time_s", "cpu_percent", "memory_percent", "disk_read_bytes_per_s", "disk_write_bytes_per_s")
_PROC = "/proc"
_SECTOR = 512  # bytes; the unit of /proc/diskstats, whatever the disk's own is


class Sampler:
    """Takes one sample of the machine at a time; rates are since the sample before."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), *_processor(), *_disks())

    def sample(self) -> tuple[float, float, float, float]:
        """Processor in percent of all cores, memory in percent, bytes read and written per second."""
        now = (time.monotonic(), *_processor(), *_disks())
        passed, busy, total, read, written = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        cpu = 100.0 * busy / total if total > 0 else cpu_load()
        per_second = 1.0 / passed if passed > 0 else 0.0
        return cpu, _memory_percent(), read * per_second, written * per_second


def record(
    path: str | os.PathLike[str],
    *,
    seconds: float = 10.0,
    rate: float = 10.0,
    progress: Callable[[float], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Record `seconds` of this machine at `rate` samples per second into the CSV file `path`. Returns the number of samples.

    The file grows while it is recorded, as a rig's does. `progress` is called after each sample with the fraction done.
    """
    count = max(1, round(seconds * rate))
    sampler, start = Sampler(), time.monotonic()
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number in range(1, count + 1):
            sleep(max(0.0, start + number / rate - time.monotonic()))
            values = sampler.sample()
            rows.writerow([f"{time.monotonic() - start:.3f}", *(f"{value:.3f}" for value in values)])
            file.flush()
            if progress is not None:
                progress(number / count)
    return count


def cpu_load() -> float:
    """The load average of the last minute, in percent of all cores; 0 where there is none."""
    with contextlib.suppress(OSError, AttributeError):
        return min(100.0, 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1))
    return 0.0


def memory_used() -> int:
    """Bytes of memory in use; 0 where that isn't known."""
    total, available = _memory()
    return total - available


def _memory_percent() -> float:
    total, available = _memory()
    return 100.0 * (total - available) / total if total else 0.0


def _memory() -> tuple[int, int]:
    """Bytes in all, and available."""
    lines = dict(line.split(":", 1) for line in _proc("meminfo").splitlines() if ":" in line)
    try:
        return int(lines["MemTotal"].split()[0]) << 10, int(lines["MemAvailable"].split()[0]) << 10
    except KeyError:
        return 0, 0


def _processor() -> tuple[float, float]:
    """Busy ticks and all ticks, summed over the cores, since the machine's start."""
    numbers = [float(number) for number in _proc("stat").partition("\n")[0].split()[1:9]]
    if len(numbers) < 8:
        return 0.0, 0.0
    idle = numbers[3] + numbers[4]  # waiting for a disk is idle
    return sum(numbers) - idle, sum(numbers)


def _disks() -> tuple[float, float]:
    """Bytes read and written by the machine's whole disks, which include their partitions."""
    read = written = 0.0
    for line in _proc("diskstats").splitlines():
        columns = line.split()
        if len(columns) > 9 and re.fullmatch(r"[sv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+", columns[2]):
            read += float(columns[5]) * _SECTOR
            written += float(columns[9]) * _SECTOR
    return read, written


def _proc(name: str) -> str:
    with contextlib.suppress(OSError), open(f"{_PROC}/{name}", encoding="ascii", errors="replace") as file:
        return file.read()
    return ""
