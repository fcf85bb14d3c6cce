"""Finds jobs that were submitted earlier in the local files: job.json in `results/`, and the status files beside manifests.

People and other programs may have put anything there, and the share may be slow: reading is bounded in number, size and time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat as modes
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ncaasd.model import EarlierJobs
from ncaasd.neurocaas.naming import ID, job_id_from_folder

FOLDERS = 200_000  # job folders that are looked at
MANIFESTS = 2_000  # whose status files are read
UNITS = 500  # whose own status files are read: their manifest's lists the newest 10,000 jobs
STATUS_LIMIT = 16 << 20  # bytes of a manifest's status file: of 10,000 jobs
JOB_LIMIT = 1 << 20  # bytes of a job.json
SECONDS = 8.0


class LocalEarlierJobs:
    """`ports.EarlierWork` of one analysis's folder."""

    def __init__(self, folder: str, *, submissions: str, seconds: float = SECONDS) -> None:
        """submissions: the key prefix of the group's submit files, so that another group's jobs don't count."""
        self._folder, self._submissions, self._seconds = folder, submissions, seconds

    def jobs(self, known: Collection[str]) -> EarlierJobs:
        until = time.monotonic() + self._seconds
        ours: set[str] = set()
        submissions = os.path.join(self._folder, "submissions")
        manifests = (p for p in _names(submissions) if p.endswith(".status.json"))
        rules = os.path.join(self._folder, "manifest.status.json")
        whole = self._status_files(itertools.chain([rules], manifests), MANIFESTS, ours, until)
        whole &= self._status_files(_below(os.path.join(submissions, "status"), until), UNITS, ours, until)
        ours -= set(known)
        others, all_seen = self._results(known, ours, until)
        return EarlierJobs(frozenset(ours), frozenset(ours | others), whole and all_seen)

    @staticmethod
    def _status_files(paths: Iterable[str], most: int, found: set[str], until: float) -> bool:
        """Add the ids of submitted jobs; False when not all could be read."""
        for number, path in enumerate(paths):
            if number >= most or time.monotonic() > until:
                return False
            document = _read(path, STATUS_LIMIT)
            jobs = document.get("jobs") if isinstance(document, dict) else None
            for job in jobs if isinstance(jobs, list) else ():
                if isinstance(job, dict) and job.get("submitted") and _is_id(job.get("id")):
                    found.add(job["id"])
        return True

    def _results(self, known: Collection[str], ours: set[str], until: float) -> tuple[set[str], bool]:
        """The unknown job ids that have a folder, and whether all folders were seen. While `ours` is empty, job.json files are
        read; the first id whose submit file is below `submissions` is added to `ours`."""
        unknown: dict[str, str] = {}
        for number, path in enumerate(_names(os.path.join(self._folder, "results"))):
            if number >= FOLDERS or time.monotonic() > until:
                return set(unknown), False
            job_id = job_id_from_folder(os.path.basename(path))
            if job_id is not None and _is_id(job_id) and job_id not in known:
                unknown[job_id] = path
        for job_id, path in unknown.items():
            if ours:
                break
            if time.monotonic() > until:
                return set(unknown), False
            document = _read(os.path.join(path, "job.json"), JOB_LIMIT)
            # A job that was started elsewhere has no submit file here.
            if isinstance(document, dict) and isinstance(document.get("submit"), dict):
                key = document.get("submit_file")
                if isinstance(key, str) and key.startswith(self._submissions):
                    ours.add(job_id)
        return set(unknown), True


def _below(folder: str, until: float) -> Iterator[str]:
    """The JSON files of a folder and of those in it."""
    waiting = [folder]
    while waiting and time.monotonic() < until:
        for path in _names(waiting.pop()):
            if path.endswith(".json"):
                yield path
            elif os.path.isdir(path) and not os.path.islink(path):
                waiting.append(path)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 64 and ID.fullmatch(value) is not None


def _names(folder: str) -> Iterator[str]:
    """The paths of a folder's entries, in the file system's order; none when it can't be listed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path


def _read(path: str, limit: int) -> Any:
    """The content of a small JSON file; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        seen = os.fstat(fd)
        if not modes.S_ISREG(seen.st_mode) or seen.st_size > limit:
            return None
        with open(fd, "rb", closefd=False) as file:
            return json.loads(file.read(limit))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
