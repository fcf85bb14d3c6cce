"""Full, read-only and failing disks under the real daemon, and too few file descriptors (F13, F14, F15, F19, F20)."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.rig import MIB, Rig, blob, run_command

from ncaasd.engine.core.crash import VARIABLE
from ncaasd.model import JobState, Phase


class Mounts:
    """Small file systems in memory, which end with the test."""

    def __init__(self) -> None:
        self._at: list[str] = []

    def tmpfs(self, path: str, size: str) -> None:
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", path], check=True)
        self._at.append(path)

    def remount(self, path: str, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)

    def close(self) -> None:
        for path in reversed(self._at):
            subprocess.run(["umount", "-l", path], check=False)


@pytest.fixture
def mounts(new_rig: Callable[..., Rig], tmp_path: Path) -> Iterator[Mounts]:
    """Taken down before the rigs of new_rig are ended; lazily, so that no daemon is in the way."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    made = Mounts()
    try:
        made.tmpfs(str(tmp_path / "may-mount"), "1m")
    except subprocess.CalledProcessError:
        pytest.skip("this machine doesn't let us mount")
    yield made
    made.close()


def fill(folder: str) -> str:
    """Use up the space; the file that does."""
    path = os.path.join(folder, "filler")
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 8, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def troubles(rig: Rig) -> list[str]:
    return list((rig.live() or {}).get("troubles", []))


def recorded_submits(rig: Rig) -> set[str]:
    return {j.submit_key for j in rig.jobs() if j.phase not in (Phase.OPEN, Phase.INTENT)}


@pytest.mark.root
def test_F13_no_space_for_the_journal(mounts: Mounts, rig: Rig) -> None:
    mounts.tmpfs(rig.state, "6m")
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(10_000, 1))
    process = rig.start(command=False)
    rig.wait_done(1)
    filler = fill(rig.state)
    dropped = 1
    while not troubles(rig):
        rig.drop(f"inputs/{dropped}.bin", blob(10_000, 1 + dropped))
        dropped += 1
        time.sleep(0.3)
        assert dropped < 100 and process.running(), rig.tail()
    assert any("full" in trouble for trouble in troubles(rig)), troubles(rig)

    for number in range(3):
        rig.drop(f"inputs/late{number}.bin", blob(10_000, 200 + number))
    before = rig.submits()
    assert set(before) <= recorded_submits(rig), "nothing was sent that is not recorded"
    time.sleep(4.0)
    assert rig.submits() == before, "nothing is sent while nothing can be recorded"
    assert process.running()

    os.unlink(filler)
    rig.wait_done(dropped + 3)
    assert process.running(), "by itself"
    assert not troubles(rig)
    rig.stop()
    rig.check(dropped + 3)


@pytest.mark.root
def test_F13_no_space_at_the_start(mounts: Mounts, rig: Rig) -> None:
    mounts.tmpfs(rig.state, "6m")
    filler = fill(rig.state)
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    process = rig.start(command=False)
    time.sleep(3.0)
    if process.running():
        os.unlink(filler)
    else:
        # Nothing to lock with: it says so, ends, and systemd starts it again.
        assert "space" in rig.tail(), rig.tail()
        os.unlink(filler)
        rig.start(command=False)
    rig.wait_done(1)
    rig.stop()
    rig.check(1)


@pytest.mark.root
def test_F14_F76_no_space_for_results_of_one_job_and_the_others_go_on(mounts: Mounts, rig: Rig) -> None:
    results = os.path.join(rig.home, "results")
    mounts.tmpfs(results, "12m")
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/big.bin", blob(20 * MIB, 1))
    process = rig.start(command=False)
    rig.wait_for(lambda: any("free" in trouble for trouble in troubles(rig)), "it to be said")
    rig.drop("inputs/small.bin", blob(10_000, 2))
    rig.wait_for(lambda: _states(rig).get("small.bin") is JobState.DONE, "the others to go on", timeout=90)
    assert _states(rig)["big.bin"] is JobState.FETCHING
    names = {n for parent, _folders, found in os.walk(results) for n in found if "partial" not in parent}
    assert "big.bin" not in names
    mounts.remount(results, "size=64m")
    rig.wait_done(2, timeout=120)
    assert process.running()
    rig.stop()
    rig.check(2)


def _states(rig: Rig) -> dict[str, JobState]:
    return {j.spec.unit: j.state for j in rig.jobs()}


@pytest.mark.root
def test_F14_the_disk_fills_up_in_the_middle_of_a_result(mounts: Mounts, new_rig: Callable[..., Rig]) -> None:
    """Somebody else's files: there was room when it began."""
    from fakes.fault_proxy import Rule

    rig = new_rig(proxy=True, changes={"upload": {"parallel": 1}})
    assert rig.proxy is not None
    proxy = rig.proxy
    results = os.path.join(rig.home, "results")
    mounts.tmpfs(results, "40m")
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/big.bin", blob(24 * MIB, 1))
    proxy.rules.append(Rule(method="GET", path="process_results/big.bin", throttle=8.0 * MIB, times=None))
    process = rig.start(command=False)
    rig.wait_for(lambda: _partial_bytes(results) > 2 * MIB, "the result to be on its way")
    filler = fill(results)
    rig.wait_for(lambda: troubles(rig), "it to be said")
    proxy.rules.clear()
    os.unlink(filler)
    rig.wait_done(1, timeout=120)
    assert process.running()
    rig.stop()
    rig.check(1)


def _partial_bytes(results: str) -> int:
    folder = os.path.join(results, ".ncaasd-partial")
    total = 0
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
            total += entry.stat().st_blocks * 512
    return total


@pytest.mark.root
def test_F19_the_root_is_remounted_read_only(mounts: Mounts, rig: Rig) -> None:
    home = rig.root + ".mine"
    os.rename(rig.root, home)
    mounts.tmpfs(rig.root, "64m")
    shutil.copytree(home, rig.root, dirs_exist_ok=True)
    rig.drop_config(__sandbox__={"scenario": "slow-analysis", "seconds": 3})
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    process = rig.start(command=False)
    rig.wait_for(lambda: rig.jobs() and rig.job().state is JobState.RUNNING, "the job to run")
    mounts.remount(rig.root, "ro")
    rig.wait_for(lambda: any("read-only" in trouble.lower() for trouble in troubles(rig)), "it to be said")
    assert rig.job().state is not JobState.DONE

    rig.kill()  # and a start on it is no crash loop either
    process = rig.start(command=False)
    rig.wait_for(lambda: any("read-only" in trouble.lower() for trouble in troubles(rig)), "it to be said again")
    time.sleep(2.0)
    assert process.running() and _cpu_share(process.pid, 2.0) < 0.5, "degraded, and quiet"

    mounts.remount(rig.root, "rw")
    rig.wait_done(1, timeout=120)
    assert process.running()
    rig.stop()
    rig.check(1)


def test_F20_file_descriptors_run_out(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(10_000, 1))
    process = rig.start(command=False)
    rig.wait_done(1)
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{process.pid}/fd"))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_now, hard))
    for number in range(5):
        rig.drop(f"inputs/m/{number}.bin", blob(10_000, 10 + number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 20))
    time.sleep(3.0)
    assert process.running(), f"it backs off\n{rig.tail()}"
    assert _cpu_share(process.pid, 3.0) < 0.7, "without turning in circles"
    assert process.running(), rig.tail()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    rig.wait_done(7, timeout=120)
    rig.stop()
    rig.check(7)


def _cpu_share(pid: int, seconds: float) -> float:
    """How much of one processor it used over the next `seconds`."""

    def ticks() -> int:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


@pytest.mark.parametrize("when", [14, 25])
def test_F15_a_failed_fsync_ends_the_daemon(rig: Rig, when: int) -> None:
    """Under strace, which makes one fsync of the journal fail; started again, it goes on."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    rig.drop_config()
    rig.drop_rule()
    for number in range(3):
        rig.drop(f"inputs/{number}.bin", blob(10_000, number))
    inject = ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={when}"]
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", rig.log + ".trace", *inject, *run_command(rig.config)]
    env = {**rig.bench.sandbox.environment(), VARIABLE: ""}
    process = rig.bench.spawner.run(command, log=rig.log, env=env)
    code = process.wait(60)
    assert code not in (None, 0), rig.tail()
    with open(rig.log + ".trace", encoding="utf-8") as file:
        assert "(INJECTED)" in file.read()
    assert "disk I/O error" in rig.said() or "could not be made durable" in rig.said()
    rig.start(command=False)
    rig.wait_done(3)
    rig.stop()
    rig.check(3)
