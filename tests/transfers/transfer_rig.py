"""What the transfers' tests work on: a bucket, a folder, a record of what was logged, a clock, and a pool over them."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fakes.memory_store import MemoryStore

from ncaasd.adapters.transfers import TransferPool
from ncaasd.errors import UnsafePath
from ncaasd.model import DownloadTask, Outcome, Part, Stat, UploadTask
from ncaasd.ports import CrashPoint, no_crash

ANALYSIS = "caiman-ncap-web"
KIB = 1 << 10
MIB = 1 << 20
RANGE = 64 * KIB


class Killed(BaseException):
    """SIGKILL, as far as a thread can be killed."""


class BentClock:
    """A clock that is slept forward. `on_sleep` sees each sleep."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now - 1_690_000_000.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class Uploads:
    upload_id: str | None = None
    parts: dict[int, Part] = field(default_factory=dict)


class MemoryLog:
    """What the journal would know. Nothing is recorded after a kill."""

    def __init__(self) -> None:
        self.uploads: dict[int, Uploads] = {}
        self.ranges: dict[int, list[tuple[int, int]]] = {}
        self.events: list[str] = []
        self.dead = threading.Event()

    def upload_created(self, file_id: int, upload_id: str) -> None:
        self._alive(f"created {upload_id}")
        self.uploads[file_id] = Uploads(upload_id)

    def part_stored(self, file_id: int, part: Part) -> None:
        self._alive(f"part {part.number}")
        self.uploads[file_id].parts[part.number] = part

    def flush(self) -> None:
        if self.dead.is_set():
            raise Killed

    def upload_lost(self, file_id: int) -> None:
        self._alive("lost")
        self.uploads.pop(file_id, None)

    def range_fetched(self, object_id: int, start: int, end: int) -> None:
        self._alive(f"range {start}-{end}")
        self.ranges.setdefault(object_id, []).append((start, end))

    def download_lost(self, object_id: int) -> None:
        self._alive("download lost")
        self.ranges.pop(object_id, None)

    def _alive(self, event: str) -> None:
        if self.dead.is_set():
            raise Killed
        self.events.append(event)


class FolderFile:
    def __init__(self, results: FolderResults, temporary: Path, final: Path) -> None:
        self._results, self._temporary, self._final = results, temporary, final
        self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    @property
    def fd(self) -> int:
        return self._fd

    def commit(self) -> str:
        os.fsync(self._fd)
        path = self.commit_deferred()
        self._results.unsynced.remove(path)
        return path

    def commit_deferred(self) -> str:
        self._final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self._temporary, self._final)
        self.close()
        path = str(self._final.relative_to(self._results.root))
        self._results.unsynced.append(path)
        return path

    def discard(self) -> None:
        self._temporary.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderResults:
    """A ResultsTree in a plain folder. `unsynced` is what a power cut would lose; `fails` makes the next sync fail."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / ".tmp"
        self.temporary.mkdir(parents=True)
        self.unsynced: list[str] = []
        self.syncs = 0
        self.fails: Exception | None = None
        self.full: Exception | None = None

    def check(self) -> None:
        if self.full is not None:
            raise self.full

    def partial(self, folder: str, name: str, *, size: int, token: str) -> FolderFile:
        safe = f"{folder}/{self.local_name(name)}"
        return FolderFile(self, self.temporary / token, self.root / safe)

    def open(self, path: str) -> int | None:
        try:
            return os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None

    def sync(self) -> None:
        self.syncs += 1
        if self.fails is not None:
            raise self.fails
        self.unsynced.clear()

    def write(self, folder: str, name: str, body: bytes) -> str:
        raise NotImplementedError

    def matches(self, path: str, size: int) -> bool:
        try:
            info = os.lstat(self.root / path)
        except OSError:
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def local_name(self, name: str) -> str:
        if not name or ".." in name.split("/") or name.startswith("/"):
            raise UnsafePath(f"{name} would leave the job's folder")
        return name

    def temporaries(self) -> list[str]:
        return sorted(os.listdir(self.temporary))


class Rig:
    """One analysis by default; `store(analysis)` makes others. `life` starts a fresh pool, as after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inputs"
        self.folder.mkdir()
        self.clock: BentClock | RealClock = BentClock()
        self.stores: dict[str, MemoryStore] = {}
        self.results = FolderResults(folder / "results")
        self.other_results: dict[str, FolderResults] = {}  # of other analyses
        self.log = MemoryLog()
        self.outcomes: list[Outcome] = []
        self.rate: int | None = None
        self._ids: dict[str, int] = {}
        self._begun: dict[int, Stat] = {}

    @property
    def store(self) -> MemoryStore:
        return self.store_of(ANALYSIS)

    def store_of(self, analysis: str, bucket: str | None = None) -> MemoryStore:
        name = bucket or analysis
        if name not in self.stores:
            self.stores[name] = MemoryStore(name)
        return self.stores[name]

    def life(self, parallel: int = 0, crash: CrashPoint = no_crash) -> TransferPool:
        self.log.dead.clear()
        self.outcomes = []
        # Threads wait in real time: a 50th of what a rig would wait.
        if parallel and isinstance(self.clock, BentClock):
            self.clock = RealClock()
        return TransferPool(
            self.store_of,
            lambda analysis: self.other_results.get(analysis, self.results),
            self.log,
            self.outcomes.append,
            self.clock,
            parallel=parallel,
            limit=lambda: self.rate,
            crash=crash,
            jitter=lambda: -0.98 if parallel else 0.5,
            range_size=RANGE,
            disk_of=self.disk_of,
        )

    def disk_of(self, task: UploadTask | DownloadTask) -> str:
        """A folder of files is a disk, and an analysis's results are."""
        return os.path.dirname(task.path) if isinstance(task, UploadTask) else f"results of {task.analysis}"

    def file(self, name: str, body: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(body)
        return path

    def upload(self, path: Path, *, part_size: int = 8 * MIB, analysis: str = ANALYSIS, **more: object) -> UploadTask:
        """The task the engine would make of a file now, with what the log knows of it."""
        file_id = self._ids.setdefault(f"{analysis}/{path.name}", len(self._ids) + 1)
        # As the journal does: an upload is gone on with only when it was of this very content.
        if self._begun.get(file_id) != observed(path):
            self.log.uploads.pop(file_id, None)
        self._begun[file_id] = observed(path)
        known = self.log.uploads.get(file_id, Uploads())
        return UploadTask(
            file_id,
            analysis,
            str(path),
            observed(path),
            f"lab/inputs/{path.name}",
            part_size,
            known.upload_id,
            tuple(known.parts.values()),
            **more,  # type: ignore[arg-type]
        )

    def download(
        self, name: str, body: bytes | None = None, *, analysis: str = ANALYSIS, **more: object
    ) -> DownloadTask:
        """The task for an object of a job's folder; with `body`, the platform puts it first."""
        store, folder = self.store_of(analysis), f"job__{analysis}_12"
        key = f"lab/results/{folder}/{name}"
        info = store.seed(key, body) if body is not None else store.find(key)
        assert info is not None
        object_id = self._ids.setdefault(key, len(self._ids) + 1)
        done = tuple(self.log.ranges.get(object_id, ()))
        return DownloadTask(
            object_id,
            analysis,
            analysis,
            key,
            info.size,
            info.etag,
            folder,
            name,
            done,
            **more,  # type: ignore[arg-type]
        )

    def run(self, *tasks: UploadTask | DownloadTask, parallel: int = 0) -> list[Outcome]:
        """Run tasks to their ends in one life."""
        pool = self.life(parallel)
        for task in tasks:
            pool.start(task)
        if parallel:
            eventually(lambda: not pool.active() or pool.broken)
            pool.stop(timeout=5)
        return self.outcomes

    def queued(self, *tasks: UploadTask | DownloadTask) -> TransferPool:
        """A pool with all these waiting, in a pause of the budget that has just ended: `drain` runs them."""
        rate, self.rate = self.rate, 0
        pool = self.life()
        for task in tasks:
            pool.start(task)
        self.rate = rate
        self.clock.sleep(1)
        return pool

    def run_until_killed(
        self, task: UploadTask | DownloadTask, point: str, *, skip: int = 0, parallel: int = 0
    ) -> bool:
        """Run until the crash point was passed `skip` times, and die there. False when it was not reached."""
        left = [skip]
        lock = threading.Lock()

        def crash(name: str) -> None:
            with lock:
                if self.log.dead.is_set():
                    raise Killed
                if name == point:
                    if left[0] == 0:
                        self.log.dead.set()
                        raise Killed
                    left[0] -= 1

        pool = self.life(parallel, crash)
        try:
            pool.start(task)
            if parallel:
                eventually(lambda: pool.broken is not None or not pool.active())
        except Killed:
            pass
        pool.stop(timeout=5)  # else its other threads would live on in the next life
        return self.log.dead.is_set()

    def fetched(self, task: DownloadTask) -> bytes:
        return (self.results.root / task.folder / task.name).read_bytes()


def observed(path: Path) -> Stat:
    info = os.lstat(path)
    return Stat(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def verdicts(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.verdict.value for outcome in outcomes]
