"""What following 500 jobs costs the daemon, at the default interval (BENCH goal 12).

    python benchmarks/polling.py                       # every row of the table, one to five minutes each
    python benchmarks/polling.py --jobs 100 --rows 2 3

A SeaweedFS server with NeuroCAAS's policy holds the jobs' folders, as the platform would have left them; the journal
knows the jobs as submitted. The daemon runs as it is, in a process of its own, whose CPU seconds (user + system) and
requests are counted over a window that begins when it has looked at every job once, and has every job's next look in
it. Where the table says so, logs are rewritten meanwhile, as workers do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.s3 import requests as s3_fast
from ncaasd.engine.daemon import journal_path
from ncaasd.engine.service import serve
from ncaasd.model import Dataset, JobSpec, JobState, Origin, Phase
from ncaasd.neurocaas.naming import Layout, folder_name
from ncaasd.sandbox.server import LAB_PROFILE, SandboxServer

BUCKET, GROUP = "demo-analysis", "lab"
LAYOUT = Layout(BUCKET, GROUP)
GOAL = 0.10  # of one core
HOUR = 3600.0
WARM_UP = 120.0  # seconds at most for the first look at all jobs
STEPS = ("Initialization", "Validation", "Environment Setup", "Initialize Processing")
LOG_LINES = 200  # of what each analysis has printed so far


@dataclass(frozen=True)
class Row:
    """`age`: how long the jobs have run, which makes the `interval` they are looked at; `status` of their datasets;
    `rewrites`: status files rewritten a second."""

    name: str
    age: float
    interval: float
    status: str
    rewrites: float = 0.0


ROWS = (
    Row("running for 10 h", 10 * HOUR, 300.0, "IN PROGRESS"),
    Row("running for 10 h, logs growing", 10 * HOUR, 300.0, "IN PROGRESS", rewrites=10),
    Row("running for 10 min", 600.0, 60.0, "IN PROGRESS"),
    Row("all starting at once", 30.0, 15.0, "INITIALIZING"),
)


def job_id(number: int) -> str:
    return str(10**14 + number)


def certificate(number: int) -> bytes:
    steps = "\n".join(f"[Job Manager] STEP {n}/4 ({name}): DONE" for n, name in enumerate(STEPS, 1))
    line = f"DATANAME: {GROUP}/inputs/{number}.tif | STATUS: IN PROGRESS | TIME: now"
    head = f"PER ENVIRONMENT MONITORING:\n{'=' * 16}\n{line}\n{'=' * 16}\n"
    return f"{head}{steps}\nJOB MONITOR LOG COMPLETE\n".encode()


def status(number: int, word: str, lines: int) -> bytes:
    printed = {str(n): f"frame {n} of 100000 done, {n * 0.37:.2f} s\n" for n in range(lines)}
    return json.dumps(
        {"status": word, "reason": None, "input": f"{GROUP}/inputs/{number}.tif", "std": printed}
    ).encode()


class Platform:
    """The admin's key: what NeuroCAAS's job manager and workers put."""

    def __init__(self, server: SandboxServer) -> None:
        self._s3 = server.client(server.admin_credentials)

    def put(self, number: int, name: str, body: bytes) -> None:
        self._s3.put_object(Bucket=BUCKET, Key=f"{LAYOUT.job_folder(job_id(number))}{name}", Body=body)

    def start(self, number: int, word: str) -> None:
        self.put(number, "logs/certificate.txt", certificate(number))
        self.put(number, f"logs/DATASET_NAME:{number}.tif_STATUS.txt", status(number, word, LOG_LINES))

    def grow(self, number: int, lines: int) -> None:
        self.put(number, f"logs/DATASET_NAME:{number}.tif_STATUS.txt", status(number, "IN PROGRESS", lines))
        self.put(number, "logs/certificate.txt", certificate(number) + f"{lines}\n".encode())


def journal_of(state: str, jobs: int, age: float) -> None:
    """A journal that knows `jobs` submitted jobs."""
    os.makedirs(state, exist_ok=True)
    journal = open_journal(journal_path(state))
    with journal.transaction():
        for number in range(jobs):
            add(journal, number, time.time() - age)
    journal.close()


def add(journal: Journal, number: int, submitted: float) -> None:
    key = f"{GROUP}/inputs/{number}.tif"
    spec = JobSpec(
        analysis=BUCKET,
        name=f"job{number}",
        unit=f"{number}.tif",
        version="",
        origin=Origin.MANIFEST,
        declared_in="submissions/all.yaml",
        datasets=(Dataset(f"{number}.tif", key),),
        config="c.yaml",
    )
    row = journal.add_job(spec, 0, submitted)
    journal.update_job(
        row,
        phase=Phase.SUBMITTED,
        state=JobState.SUBMITTED,
        job_id=job_id(number),
        submit_key=LAYOUT.submit_key(job_id(number)),
        config_key=f"{LAYOUT.configs}c.yaml",
        submitted=submitted,
        attempted=submitted,
        seen=submitted,
        results=folder_name(BUCKET, job_id(number)),
    )


def config_file(folder: str, endpoint: str) -> str:
    """The defaults, but for what the place demands."""
    root = os.path.join(folder, "root")
    for area in ("inputs", "configs", "submissions", "results"):
        os.makedirs(os.path.join(root, BUCKET, area), exist_ok=True)
    config = {
        "group": GROUP,
        "root": root,
        "state": os.path.join(folder, "state"),
        "analyses": {BUCKET: {}},
        "aws": {"profile": LAB_PROFILE, "endpoint_url": endpoint},
        "watch": {"min_free": "1 MB"},
        "jobs": {"max_active": 1000},
        "web": "off",
    }
    path = os.path.join(folder, "ncaasd.yaml")
    Path(path).write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


# -- the daemon's process --------------------------------------------------------------------------------------------


def daemon(path: str) -> None:
    """Serve until the input ends; for each line of it, say what was used so far."""
    requests: Counter[str] = Counter()
    for name in ("list", "get"):
        count_calls(name, requests)
    over = threading.Event()

    def answer() -> None:
        for _ in sys.stdin:
            used = resource.getrusage(resource.RUSAGE_SELF)
            said = {"cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024, **requests}
            print(json.dumps(said), flush=True)
        over.set()

    threading.Thread(target=answer, daemon=True).start()
    serve(path, stop=over.is_set)


def count_calls(name: str, counts: Counter[str]) -> None:
    send = getattr(s3_fast.FastRequests, name)

    def counted(*args: Any, **more: Any) -> Any:
        counts[name] += 1
        return send(*args, **more)

    setattr(s3_fast.FastRequests, name, counted)


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    cpu: float  # seconds a second
    lists: float  # a second
    gets: float
    peak: float  # MiB


def measure(folder: str, server: SandboxServer, row: Row, jobs: int, seconds: float) -> Measured:
    platform = Platform(server)
    for number in range(jobs):
        platform.start(number, row.status)
    journal_of(os.path.join(folder, "state"), jobs, row.age)
    path = config_file(folder, server.endpoint)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {"AWS_SHARED_CREDENTIALS_FILE": server.credentials_file, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, __file__, "--daemon", path]
    with (
        open(os.path.join(folder, "log"), "wb") as log,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
        growing(platform, row, jobs),
    ):
        try:
            until_all_are_seen(process, jobs)
            before, began = ask(process), time.monotonic()
            time.sleep(max(seconds, row.interval))  # they were all looked at when it began: a whole round
            after, took = ask(process), time.monotonic() - began
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)

    def rate(name: str) -> float:
        return float(after.get(name, 0) - before.get(name, 0)) / took

    return Measured(rate("cpu"), rate("list"), rate("get"), after["peak"])


def ask(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def until_all_are_seen(process: subprocess.Popen[str], jobs: int) -> None:
    """Every job was listed, and each of its two logs read."""
    end = time.monotonic() + WARM_UP
    while (said := ask(process)).get("get", 0) < 2 * jobs or said.get("list", 0) < jobs:
        if time.monotonic() > end:
            raise SystemExit(f"after {WARM_UP:.0f} s the daemon has not seen all jobs: {said}")
        time.sleep(0.5)
    time.sleep(2.0)


class growing:  # noqa: N801 - reads as a verb where it is used
    """Rewrites the jobs' logs one after the other, `row.rewrites` a second, in a thread of this process."""

    def __init__(self, platform: Platform, row: Row, jobs: int) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(platform, row.rewrites, jobs))

    def _run(self, platform: Platform, rate: float, jobs: int) -> None:
        for turn in self._turns(rate):
            platform.grow(turn % jobs, LOG_LINES + turn // jobs)

    def _turns(self, rate: float) -> Iterator[int]:
        turn = 0
        while rate and not self._over.wait(1 / rate):
            yield turn
            turn += 1

    def __enter__(self) -> growing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement, at least one interval")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(ROWS))), help="numbers, from 0")
    parser.add_argument("--daemon", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.daemon:
        daemon(asked.daemon)
        return
    print(f"{asked.jobs} jobs; goal: {GOAL:.0%} of a core")
    print("| jobs are | CPU, s in 60 s | of a core | listings a second | a job, every | GETs a second | peak, MiB |")
    print("|---|---|---|---|---|---|---|")
    for row in [ROWS[n] for n in asked.rows for _ in range(asked.repeat)]:
        with (
            tempfile.TemporaryDirectory() as folder,
            SandboxServer(os.path.join(folder, "s3"), buckets=[BUCKET], group=GROUP, engine="seaweedfs") as server,
        ):
            found = measure(folder, server, row, asked.jobs, asked.seconds)
        every = f"{asked.jobs / found.lists:.0f} s" if found.lists else "-"
        print(
            f"| {row.name} | {found.cpu * 60:.2f} | {found.cpu:.1%} | {found.lists:.1f} | {every} | {found.gets:.1f}"
            f" | {found.peak:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
