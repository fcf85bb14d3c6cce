"""Results on an ext4 whose power is cut: the journal is dropped where it stands (EXT4_IOC_SHUTDOWN), then it is mounted
again. Needs root, and a loop device."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_help import needs_root

from ncaasd.adapters.files.results import LocalResults
from ncaasd.errors import LocalError, SyncFailed

pytestmark = [needs_root, pytest.mark.timeout(120)]
JOB = "job__caiman-ncap-web_123456789012345"
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    def __init__(self, image: Path, point: Path) -> None:
        self.image, self.point = image, point

    def mount(self) -> None:
        # No flush by itself for a long while: what survives was asked for.
        options = "loop,commit=300"
        done = subprocess.run(
            ["mount", "-o", options, self.image, self.point], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"this machine refuses a loop mount: {done.stderr.strip()}")

    def cut_power(self) -> None:
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        subprocess.run(["umount", self.point], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here")
    image, point = tmp_path / "image", tmp_path / "results"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    made = Disk(image, point)
    made.mount()
    try:
        yield made
    finally:
        made.unmount()


def fetch(results: LocalResults, name: str, *, deferred: bool) -> str:
    partial = results.partial(JOB, name, size=4096, token=name.replace("/", "-"))
    os.pwrite(partial.fd, name.encode().ljust(4096), 0)
    return partial.commit_deferred() if deferred else partial.commit()


def one_by_one(results: LocalResults) -> list[str]:
    return [fetch(results, f"one/{n}/r.csv", deferred=False) for n in range(5)]


def few_deferred(results: LocalResults) -> list[str]:
    paths = [fetch(results, f"few/{n}/r.csv", deferred=True) for n in range(3)]
    results.sync()
    return paths


def many_deferred(results: LocalResults) -> list[str]:
    paths = [fetch(results, f"many/{n}/r.csv", deferred=True) for n in range(60)]
    results.sync()
    return paths


@pytest.mark.parametrize("act", [one_by_one, few_deferred, many_deferred])
def test_F17_what_was_committed_survives_a_power_cut(disk: Disk, act: Callable[[LocalResults], list[str]]) -> None:
    results = LocalResults(str(disk.point), adopt=True)
    results.check()
    paths = act(results)
    results.write(JOB, "job.json", b'{"state": "done"}')
    unsynced = fetch(results, "unsynced.csv", deferred=True)
    disk.cut_power()
    for fd in results._deferred:  # the process is gone as well
        os.close(fd)
    disk.unmount()
    disk.mount()
    again = LocalResults(str(disk.point), expected_id=results.id)
    again.check()
    for path in paths:
        body = (disk.point / path).read_bytes()
        assert body == path.removeprefix(f"{JOB}/").encode().ljust(4096)
    assert (disk.point / JOB / "job.json").read_bytes() == b'{"state": "done"}'
    assert not again.matches(unsynced, 4096), "the cut cuts nothing, so this test proves nothing"


@pytest.mark.parametrize("count", [2, 40])
def test_F15_a_disk_that_fails_in_the_sync_is_not_believed(disk: Disk, count: int) -> None:
    results = LocalResults(str(disk.point), adopt=True)
    for n in range(count):
        fetch(results, str(n), deferred=True)
    disk.cut_power()
    with pytest.raises(SyncFailed):
        results.sync()
    with pytest.raises(LocalError):
        results.write(JOB, "job.json", b"{}")
