"""The journal on a disk that fails, fills up, or loses its power: no committed row is lost, none is there twice, and none
by half (F13, F15, F17).

Faults are injected into the system calls of a real process (strace), and power cuts are made on a file system of their own
(a loop device). Which calls are hit rotates from day to day.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from support.journal_work import BROKEN, DONE, rows_of
from support.spawner import ROOT, TESTS

ROWS = 25
TODAY = int(time.time() // 86_400)

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")


def can_trace() -> bool:
    """Whether this machine lets strace trace."""
    done = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, check=False)
    return done.returncode == 0


def work_command(path: str, rows: int) -> list[str]:
    return [sys.executable, "-m", "support.journal_work", path, str(rows)]


def work_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, TESTS])}


@dataclass(frozen=True)
class Ran:
    """How a writer of a journal fared."""

    code: int
    committed: list[int]
    failed: list[str]
    hit: list[str]  # the files whose system calls met the fault

    @property
    def what_went_wrong(self) -> str:
        return "; ".join(self.failed)


def run_under_strace(path: str, inject: str, rows: int = ROWS) -> Ran:
    """Write `rows` rows while strace injects, "call:fault:when=N"."""
    trace = path + ".trace"
    quick = [] if "signal" in inject else ["--seccomp-bpf"]  # with which strace 6.1 injects no signals
    calls = inject.partition(":")[0]
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-y", *quick, "-o", trace, "-e", f"trace={calls}", "-e", f"inject={inject}"),
            *work_command(path, rows),
        ],
        env=work_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (DONE, BROKEN, -signal.SIGKILL), done.stderr[-2000:]
    with open(trace, encoding="utf-8", errors="replace") as file:
        hit = [os.path.basename(re.findall(r"<([^>]*)>", line)[0]) for line in file if "(INJECTED)" in line]
    return Ran(
        code=done.returncode,
        committed=[int(n) for n in re.findall(r"^committed (\d+)$", done.stdout, re.MULTILINE)],
        failed=re.findall(r"^(?:failed|broken) (.*)$", done.stdout, re.MULTILINE),
        hit=hit,
    )


def check_rows(path: str, committed: list[int], *, all_said: list[int] | None = None) -> None:
    """Every row that was called committed is there; none is there twice or by half."""
    there = rows_of(path)
    assert [n for n in committed if n not in there] == [], "a committed row is lost"
    assert set(there.values()) <= {1}, "a row is there twice"
    said = committed if all_said is None else all_said
    assert set(there) <= {*said, len(said)}, "at most the one in flight is there beside them"


# -- single faults, by strace

CALLS = {"fdatasync": 45, "pwrite64": 480}  # about as many as ROWS rows take


def rotating(call: str, count: int) -> list[int]:
    """Ordinals spread over all calls, others each day."""
    every = CALLS[call] / count
    return sorted({1 + int((i + TODAY % 97 / 97) * every) for i in range(count)})


SINGLE = [
    *((f"fdatasync:error=EIO:when={n}", "F15") for n in rotating("fdatasync", 12)),
    *((f"fdatasync:signal=KILL:when={n}", "kill") for n in rotating("fdatasync", 8)),
    *((f"pwrite64:error=EIO:when={n}", "F13") for n in rotating("pwrite64", 8)),
    *((f"pwrite64:error=ENOSPC:when={n}", "F13") for n in rotating("pwrite64", 8)),
    *((f"pwrite64:signal=KILL:when={n}", "kill") for n in rotating("pwrite64", 8)),
]


@pytest.fixture(scope="session")
def tracing() -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    if not can_trace():
        pytest.skip("this machine doesn't let strace trace")


@pytest.fixture
def quick_folder() -> Iterator[str]:
    """In memory, where there is such a place: what is durable is not what these tests are about."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield folder


@pytest.mark.parametrize(("inject", "row"), SINGLE, ids=[f"{row}-{inject}" for inject, row in SINGLE])
def test_F13_F15_a_single_fault(tracing: None, quick_folder: str, inject: str, row: str) -> None:
    path = os.path.join(quick_folder, "journal.sqlite")
    ran = run_under_strace(path, inject)
    check_rows(path, ran.committed)
    if row == "kill":
        assert ran.code in (-signal.SIGKILL, DONE)  # there were fewer such calls
    elif row == "F15" and ran.hit == ["journal.sqlite-wal"] and len(ran.committed) < ROWS:
        assert ran.code == BROKEN, "after a failed fsync the process ends"
    elif row == "F13":
        assert ran.code == DONE, f"it goes on by itself: {ran.what_went_wrong}"
        assert len(ran.committed) == ROWS
    if ran.hit and "journal.sqlite-wal" in ran.hit and len(ran.committed) < ROWS:
        assert ran.failed, "what went wrong is said"


def test_F15_every_fsync_of_a_commit_ends_the_process(tracing: None, quick_folder: str) -> None:
    """Not by chance: from the first commit to the last, one after the other."""
    ended = 0
    for when in range(10, 16):
        folder = os.path.join(quick_folder, str(when))
        os.mkdir(folder)
        path = os.path.join(folder, "journal.sqlite")
        ran = run_under_strace(path, f"fdatasync:error=EIO:when={when}", rows=8)
        check_rows(path, ran.committed)
        ended += ran.code == BROKEN and len(ran.committed) < 8
    assert ended == 6


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_F13_writing_fails_for_a_while_and_goes_on_by_itself(tracing: None, quick_folder: str, error: str) -> None:
    path = os.path.join(quick_folder, "journal.sqlite")
    first = 150 + TODAY % 50
    ran = run_under_strace(path, f"pwrite64:error={error}:when={first}..{first + 30}")
    assert ran.code == DONE
    assert len(ran.hit) >= 20 and len(ran.failed) >= 20
    assert ran.committed == list(range(ROWS))
    check_rows(path, ran.committed)


# -- power cuts, on a file system of our own

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


@contextlib.contextmanager
def ext4(folder: str) -> Iterator[tuple[str, str]]:
    """An image file with an ext4 file system, and where to mount it."""
    image, mount = os.path.join(folder, "image"), os.path.join(folder, "mount")
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    try:
        yield image, mount
    finally:
        subprocess.run(["umount", "-q", mount], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def loop_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("power cuts need root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    with ext4(str(tmp_path_factory.mktemp("ext4"))) as (image, mount):
        done = subprocess.run(["mount", "-o", "loop", image, mount], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")


def power_cut(mount: str) -> None:
    """From now on nothing reaches the disk; what was only in memory is gone."""
    fd = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, ctypes.c_uint32(NO_LOG_FLUSH))  # type: ignore[call-overload]  # a buffer it is
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Written:
    """Rows that a writer called committed: before the cut, and in all.

    ext4's shutdown is no real power cut for an fsync that is under way: it may be told of success when the transaction it
    waits for is thrown away. So only what was said before the cut must be there.
    """

    before: list[int]
    all: list[int]


def write_until_power_cut(image: str, mount: str, least: int, after: float, command: list[str]) -> Written:
    """Mount, write rows, cut the power some time after `least` rows were called committed."""
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    writer = subprocess.Popen(command, env=work_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert writer.stdout is not None
        before = b""
        while before.count(b"\n") < least and (more := os.read(writer.stdout.fileno(), 65536)):
            before += more
        time.sleep(after)
        os.set_blocking(writer.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while more := os.read(writer.stdout.fileno(), 65536):
                before += more
        power_cut(mount)
        writer.kill()
        os.set_blocking(writer.stdout.fileno(), True)
        rest = writer.stdout.read()
    finally:
        writer.kill()
        writer.wait(30)
        subprocess.run(["umount", mount], check=True)

    def rows(said: bytes) -> list[int]:
        return [int(n) for n in re.findall(r"^committed (\d+)\n", said.decode(), re.MULTILINE)]

    return Written(rows(before), rows(before + rest))


def cut_and_check(folder: str, cuts: int) -> int:
    """How many committed rows survived, over all cuts."""
    rows = 0
    with ext4(folder) as (image, mount):
        for cut in range(cuts):
            path = os.path.join(mount, f"journal{cut}.sqlite")
            least, after = 1 + cut * 7 % 20, cut * 0.37 % 0.15
            written = write_until_power_cut(image, mount, least, after, work_command(path, 100_000))
            assert len(written.before) >= least
            subprocess.run(["mount", "-o", "loop", image, mount], check=True)
            try:
                check_rows(path, written.before, all_said=written.all)
                rows += len(written.before)
                for name in os.listdir(mount):
                    if name.startswith("journal"):
                        os.unlink(os.path.join(mount, name))
            finally:
                subprocess.run(["umount", mount], check=True)
    return rows


@pytest.mark.root
def test_F17_twenty_power_cuts_lose_no_committed_row(loop_devices: None, tmp_path: str) -> None:
    assert cut_and_check(str(tmp_path), 20) > 200


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_F17_many_power_cuts_lose_no_committed_row(loop_devices: None, tmp_path: str) -> None:
    assert cut_and_check(str(tmp_path), int(os.environ.get("NCAASD_POWER_CUTS", "100"))) > 1000


NORMAL = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE note (n INTEGER)")
for n in range(100_000):
    db.execute("INSERT INTO note VALUES (?)", (n,))
    os.write(1, b"committed %d\\n" % n)
"""


@pytest.mark.root
def test_F17_the_power_cut_is_one(loop_devices: None, tmp_path: str) -> None:
    """With synchronous=NORMAL the same cut loses committed rows: the tests above can fail."""
    lost = 0
    with ext4(str(tmp_path)) as (image, mount):
        for attempt in range(8):  # somebody else's `sync` may save them all
            path = os.path.join(mount, f"note{attempt}.sqlite")
            written = write_until_power_cut(image, mount, 1, 0.1, [sys.executable, "-c", NORMAL, path])
            subprocess.run(["mount", "-o", "loop", image, mount], check=True)
            try:
                there = []
                with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
                    there = [n for (n,) in db.execute("SELECT n FROM note")]
            finally:
                subprocess.run(["umount", mount], check=True)
            lost += len(set(written.before) - set(there))
            if lost:
                break
    assert lost
