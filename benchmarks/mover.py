"""What the daemon does to move files, without its waiting: the real pool, store, journal and mailbox.

    python benchmarks/mover.py up FOLDER PREFIX --endpoint URL --state STATE
    python benchmarks/mover.py down PREFIX FOLDER --endpoint URL --state STATE
    python benchmarks/mover.py crc FILE

Everything is journaled as the engine journals it (SQLite, synchronous=FULL, up to 1,000 notes in a commit), verified, and
of what is downloaded, durable. Files to the bucket `bench`; credentials as the SDK finds them. Prints two lines of JSON, the
seconds since its process began (wall and CPU) when it is ready (imports, the journal), and when all is done and
recorded: a daemon starts and ends once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.s3.answers import encoded
from ncaasd.adapters.s3.credentials import CredentialSource
from ncaasd.adapters.s3.store import S3Store
from ncaasd.adapters.transfers import TransferPool
from ncaasd.adapters.transfers.checksums import crc64
from ncaasd.engine.arriving.uploading import QUEUED
from ncaasd.engine.core.clock import SystemClock
from ncaasd.engine.core.mailbox import ThreadMailbox
from ncaasd.model import DownloadTask, FileState, JobSpec, Origin, Outcome, Part, Place, Stat, UploadTask, Verdict
from ncaasd.neurocaas.naming import part_size

BUCKET = "bench"
NEVER = 1e15


class Log:
    """`ports.TransferLog`, as the engine has it."""

    def __init__(self, mailbox: ThreadMailbox, journal: Journal) -> None:
        self._mailbox, self._journal = mailbox, journal

    def upload_created(self, file_id: int, upload_id: str) -> None:
        self._mailbox.ask(lambda: self._journal.upload_created(file_id, upload_id))

    def part_stored(self, file_id: int, part: Part) -> None:
        self._mailbox.ask(lambda: self._journal.part_stored(file_id, part))

    def flush(self) -> None:
        self._mailbox.ask(lambda: None)

    def upload_lost(self, file_id: int) -> None:
        self._mailbox.ask(lambda: self._journal.forget_upload(file_id))

    def range_fetched(self, object_id: int, start: int, end: int) -> None:
        self._mailbox.tell(lambda: self._journal.range_fetched(object_id, start, end))

    def download_lost(self, object_id: int) -> None:
        self._mailbox.ask(lambda: self._journal.drop_ranges(object_id))


class Mover:
    """A pool with what it needs, and the loop that feeds it and records what comes of it."""

    def __init__(self, options: argparse.Namespace, results: LocalResults | None) -> None:
        os.makedirs(options.state, exist_ok=True)
        self.journal = open_journal(os.path.join(options.state, "journal.db"))
        self.mailbox = ThreadMailbox(self.journal)
        self.store = S3Store(BUCKET, CredentialSource(None), endpoint_url=options.endpoint)
        self.under_way: set[int] = set()
        self.pool = TransferPool(
            lambda _analysis, _bucket: self.store,
            lambda _analysis: results,  # type: ignore[arg-type,return-value]  # uploads never ask for it
            Log(self.mailbox, self.journal),
            lambda outcome: self.mailbox.tell(lambda: self._done(outcome)),
            SystemClock(),
            parallel=options.parallel,
            limit=lambda: None,
        )

    def run(self, tasks: Iterator[list[UploadTask | DownloadTask]]) -> None:
        """Until all are done; each next batch is asked for when there is room."""
        more = True
        while more or self.under_way:
            if more and len(self.under_way) <= QUEUED * 3 // 4:
                batch = next(tasks, [])
                more = bool(batch)
                for task in batch:
                    self.under_way.add(number_of(task))
                    self.pool.start(task)
            else:
                self.mailbox.read(1.0)
        while self.mailbox.read(0):
            pass
        self.pool.stop(timeout=5.0)
        self.journal.close()

    def room(self) -> int:
        return QUEUED - len(self.under_way)

    def _done(self, outcome: Outcome) -> None:
        task = outcome.task
        self.under_way.discard(number_of(task))
        if isinstance(task, UploadTask) and outcome.verdict is Verdict.STORED and outcome.stored is not None:
            now = time.time()
            self.journal.file_stored(task.file_id, task.expect, outcome.stored, now)
            text = f"uploaded and verified ({outcome.stored.size} bytes, {task.key})"
            self.journal.event(now, task.analysis, f"file {task.key}", "stored", text)
        elif isinstance(task, DownloadTask) and outcome.verdict is Verdict.FETCHED:
            self.journal.artefact_done(task.object_id, outcome.path)
        else:
            raise SystemExit(f"{task.key}: {outcome.verdict} {outcome.detail}")


def number_of(task: UploadTask | DownloadTask) -> int:
    return task.file_id if isinstance(task, UploadTask) else task.object_id


def up(mover: Mover, folder: str, prefix: str) -> None:
    journal = mover.journal
    with journal.transaction():
        for path, seen in found(folder):
            place = Place(BUCKET, "", f"inputs/{path}")
            before = journal.file_at(place)
            if before is None or before.stat != seen:
                journal.see_file(place, seen, f"{prefix}/{path}", FileState.WHOLE, "", time.time())
            else:
                journal.put_off_file(before.id, 0.0, "")  # as the daemon does when it starts

    def batches() -> Iterator[list[UploadTask | DownloadTask]]:
        while True:
            tasks: list[UploadTask | DownloadTask] = []
            now = time.time()
            with journal.transaction():
                for row in journal.pending_files(BUCKET, now, mover.room()):
                    size = part_size(row.stat.size)
                    begun = journal.begin_upload(row.id, row.key, row.stat, size, now)
                    journal.put_off_file(row.id, NEVER, "")
                    path = os.path.join(folder, row.place.path.removeprefix("inputs/"))
                    task = UploadTask(row.id, BUCKET, path, row.stat, row.key, size, begun.upload_id, begun.parts)
                    tasks.append(task)
            yield tasks

    mover.run(batches())


def found(folder: str) -> Iterator[tuple[str, Stat]]:
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = os.path.join(parent, name)
            info = os.lstat(path)
            yield os.path.relpath(path, folder), Stat(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def down(mover: Mover, prefix: str) -> None:
    journal = mover.journal
    spec = JobSpec(BUCKET, "bench", "bench", "", Origin.RULE, "manifest.yaml", (), "config.yaml")
    with journal.transaction():
        job = journal.add_job(spec, 1, time.time())
        for info in mover.store.list(prefix).objects:
            name = info.key.removeprefix(prefix).strip("/") or "file"
            journal.want_artefact(job, name, BUCKET, info.key, info.size, info.etag)

    def batches() -> Iterator[list[UploadTask | DownloadTask]]:
        while True:
            tasks: list[UploadTask | DownloadTask] = []
            for one in journal.due_artefacts(job, time.time(), mover.room(), list(mover.under_way)):
                task = DownloadTask(
                    one.id, BUCKET, one.bucket, one.key, one.size, one.etag, "job__bench_1", one.name, one.ranges
                )
                tasks.append(task)
            yield tasks

    mover.run(batches())


def crc_of(path: str) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(8 << 20):
            crc = crc64(block, crc)
    return crc


def print_times() -> None:
    with open("/proc/self/stat") as stat:
        began = float(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    wall = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    print(json.dumps({"wall": wall, "cpu": time.process_time()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["up", "down", "crc"])
    parser.add_argument("source")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--endpoint")
    parser.add_argument("--state")
    parser.add_argument("--parallel", type=int, default=8)  # the config's default
    options = parser.parse_args()
    if options.what == "crc":
        print(encoded(crc_of(options.source)))
        return
    results = LocalResults(options.target, adopt=True) if options.what == "down" else None
    mover = Mover(options, results)
    print_times()
    if options.what == "up":
        up(mover, options.source, options.target)
    else:
        down(mover, options.source)
    print_times()


if __name__ == "__main__":
    main()
