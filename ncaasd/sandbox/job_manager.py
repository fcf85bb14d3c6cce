"""NeuroCAAS's job manager, simulated on the sandbox's buckets: one job for every version of every submit file.

On AWS an `ObjectCreated` event of a key that ends in `submit.json` starts it. Here the versions of such keys are polled, so
that putting a file twice starts two jobs, as it does there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ncaasd.errors import UserError
from ncaasd.sandbox.cloud import Cloud, Place, Say, Settings, Stopping
from ncaasd.sandbox.job import END_MARKER, Job
from ncaasd.sandbox.scenarios import SCENARIOS
from ncaasd.sandbox.submission import read_submission

_POLL = (0.1, 1.0)  # seconds between two polls of submissions/, at least and at most; between these limits, the pace
# Rest after a poll, as a multiple of its duration, so that a sandbox with hundreds of jobs uses a small part of the machine.
_REST = 3.0  # into submissions/
_REST_WHOLE = 20.0  # through whole buckets


class JobManager:
    """Runs all jobs of `buckets`, in threads, until it is stopped.

    `folder` records which submit files were seen, over restarts; `s3` is a client with the admin's key; `analysis` is
    the command of the analysis, with {data}, {config} and {results} in it, run without a shell.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        s3: Any,
        *,
        buckets: Sequence[str],
        group: str,
        analysis: str | Sequence[str],
        pace: float = 0.5,
        tick: float | None = None,
        scenario: str = "normal",
        budget: float = 300.0,
        machines: int = 100,
        say: Say = lambda _sentence: None,
    ) -> None:
        if scenario not in SCENARIOS:
            raise UserError(f"there is no scenario {scenario!r}", hint=f"there are: {', '.join(SCENARIOS)}")
        self.folder = os.path.abspath(folder)
        settings = Settings(
            analysis=_command(analysis),
            folder=os.path.join(self.folder, "machines"),
            pace=pace,
            tick=max(2 * pace, 0.2) if tick is None else tick,
            scenario=SCENARIOS[scenario],
            budget=float(budget),
            machines=machines,
        )
        self.cloud = Cloud(s3, settings, say)
        self.jobs: list[Job] = []
        self._buckets = tuple(buckets)
        self._group = group
        self._say = say
        self._seen: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        self._watchers: list[threading.Thread] = []
        self._players: list[threading.Thread] = []

    def __enter__(self) -> JobManager:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start from what the folder records; jobs that ran when the sandbox was stopped have lost their machines."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        shutil.rmtree(self.cloud.settings.folder, ignore_errors=True)
        for end in self._recall():
            with contextlib.suppress(ClientError):  # its bucket may be gone
                self.cloud.put(end, "process_results/end.txt", END_MARKER)
        for prefix in (f"{self._group}/submissions/", ""):
            watch = functools.partial(self._watch, prefix)
            self._watchers.append(self._start_thread(watch, f"looking into /{prefix}"))

    def stop(self, timeout: float = 30.0) -> None:
        """Stop all jobs where they are, and end their analyses' processes. Waits for all threads, at most `timeout` seconds."""
        self.cloud.stopping.set()
        deadline = time.monotonic() + timeout
        for thread in [*self._watchers, *self._players]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def forget_everything(self) -> None:
        """Forget which submit files were seen, because the buckets are new. Call it before `start`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._memory)

    def busy(self) -> int:
        """How many jobs are running."""
        return sum(not job.over.is_set() for job in list(self.jobs))

    def wait(self, jobs: int, timeout: float) -> bool:
        """Wait until this many jobs have begun since the start, and all have ended; False if that takes more than `timeout`
        seconds."""
        deadline = time.monotonic() + timeout
        while len(self.jobs) < jobs or self.busy():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    # -- watching

    def _watch(self, prefix: str) -> None:
        """Begin a job for every new version of a submit file below `prefix` of each bucket, the oldest first."""
        with contextlib.suppress(Stopping):
            while True:
                start = time.monotonic()
                try:
                    found = [version for bucket in self._buckets for version in self._versions(bucket, prefix)]
                    for _moment, bucket, key, version in sorted(found):
                        self._begin(bucket, key, version)
                except (ClientError, BotoCoreError) as error:
                    self._say(f"the job manager cannot look for submit files: {error}")
                    self.cloud.sleep(2.0)
                poll = min(max(self.cloud.settings.pace, _POLL[0]), _POLL[1])
                rest = (_REST if prefix else _REST_WHOLE) * (time.monotonic() - start)
                self.cloud.sleep(max(poll, rest))

    def _versions(self, bucket: str, prefix: str) -> Iterator[tuple[float, str, str, str]]:
        pages = self.cloud.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for version in page.get("Versions", []):
                name = (bucket, version["Key"], version["VersionId"])
                if version["Key"].endswith("submit.json") and name not in self._seen:
                    yield (version["LastModified"].timestamp(), *name)

    def _begin(self, bucket: str, key: str, version: str) -> None:
        with self._claiming:
            if (bucket, key, version) in self._seen:
                return  # both watchers found it
            self._remember("begun", bucket, key, version)
        if event_key(key) != key:
            self._say(f"s3://{bucket}/{key}: its name arrives URL-encoded and is not decoded; no job starts")
            return
        try:
            raw = self.cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read()  # the newest: as the platform does
            submission = read_submission(bucket, key, raw)
        except (ClientError, ValueError) as error:
            self._say(f"s3://{bucket}/{key}: no job starts: {error}")
            return
        job = Job(
            self.cloud,
            submission,
            launched=lambda end: self._remember("launched", bucket, key, version, end),
            scenario=self.cloud.settings.scenario,
        )
        self.jobs.append(job)
        self._say(f"{submission.job_name}: begun")
        play = functools.partial(self._play, job, bucket, key, version)
        with self._lock:
            self._players = [thread for thread in self._players if thread.is_alive()]
            self._players.append(self._start_thread(play, submission.job_name))

    def _play(self, job: Job, bucket: str, key: str, version: str) -> None:
        try:
            job.run()
        except Stopping:
            return  # remembered as unended
        except (ClientError, BotoCoreError) as error:
            self._say(f"{job.submission.job_name}: the sandbox's S3 failed: {error}")
        finally:
            job.over.set()
        self._remember("ended", bucket, key, version)
        verdicts = ", ".join(worker.verdict or "no verdict" for worker in job.workers)
        self._say(f"{job.submission.job_name}: {job.outcome}{f' ({verdicts})' if verdicts else ''}")

    @staticmethod
    def _start_thread(target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    # -- memory

    @property
    def _memory(self) -> str:
        return os.path.join(self.folder, "jobs.jsonl")

    def _remember(self, event: str, bucket: str, key: str, version: str, end: Place | None = None) -> None:
        """Record an event of a job; recorded before the job begins, so that no restart begins it again."""
        self._seen.add((bucket, key, version))
        row = {"event": event, "bucket": bucket, "key": key, "version": version}
        if end is not None:
            row |= {"end_bucket": end.bucket, "end_prefix": end.prefix}
        with self._lock, open(self._memory, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _recall(self) -> list[Place]:
        """Read which submit files were seen. Returns where the end markers belong of jobs that the sandbox's stop ended."""
        unended: dict[tuple[str, str, str], Place] = {}
        with contextlib.suppress(FileNotFoundError), open(self._memory, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # the last line may be cut off
                    row = json.loads(line)
                    name = (row["bucket"], row["key"], row["version"])
                    self._seen.add(name)
                    unended.pop(name, None)
                    if row["event"] == "launched" and "end_bucket" in row:
                        unended[name] = Place(row["end_bucket"], row["end_prefix"])
        for name in unended:
            self._remember("ended", *name)
        return list(unended.values())


def event_key(key: str) -> str:
    """The key as it is in S3's event, URL-encoded."""
    return urllib.parse.quote_plus(key, safe="/-_.*").replace("~", "%7E")  # Python never quotes ~, Java does


def _command(analysis: str | Sequence[str]) -> tuple[str, ...]:
    try:
        parts = tuple(shlex.split(analysis)) if isinstance(analysis, str) else tuple(analysis)
    except ValueError as error:
        raise UserError(f"the analysis's command cannot be read: {error}", hint=f"it is: {analysis}") from None
    if not parts or shutil.which(parts[0]) is None:
        raise UserError(
            f"the analysis's command cannot be started: {parts[0] if parts else 'it is empty'}",
            hint="name a program with its path, as in --analysis 'python3 my.py {data} {config} {results}'",
        )
    return parts
