"""F89: disks that hang in the midst of transfers. Sources are on a FUSE file system, results on a stand-in with gates."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from files.tiny_fuse import TinyFuse, mounted
from transfer_rig import KIB, MIB, RANGE, FolderFile, FolderResults, Rig, eventually, verdicts

from ncaasd.adapters.transfers import TransferPool, disks
from ncaasd.errors import DiskSilent
from ncaasd.model import Outcome, UploadTask

OTHER = "dlc-ncap-web"
PART = 64 * KIB
HANGS_AFTER = 0.4


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "HANGS_AFTER", HANGS_AFTER)
    monkeypatch.setattr(disks, "SYNC_HANGS_AFTER", HANGS_AFTER)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[TinyFuse]:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("mounting needs root and /dev/fuse")
    try:
        with mounted(tmp_path / "backing", tmp_path / "share") as made:
            yield made
    except OSError as error:
        pytest.skip(f"FUSE cannot be mounted here: {error}")


class GatedResults(FolderResults):
    """A results tree in which writing an object waits for its gate, and a sync for the gate "sync"."""

    def __init__(self, root: Path, *gates: str) -> None:
        super().__init__(root)
        self.gates = {name: threading.Event() for name in gates}
        self.waiting: Counter[str] = Counter()

    def _pass(self, name: str) -> None:
        if name in self.gates:
            self.waiting[name] += 1
            self.gates[name].wait(60)

    def partial(self, folder: str, name: str, *, size: int, token: str) -> FolderFile:
        self._pass(name)
        return super().partial(folder, name, size=size, token=token)

    def sync(self) -> None:
        self._pass("sync")
        super().sync()


class Life:
    """A pool, and somebody who looks at it, as the daemon's loop does."""

    def __init__(self, rig: Rig, parallel: int) -> None:
        self.rig, self.pool = rig, rig.life(parallel)

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        def looked() -> object:
            self.pool.look()
            return condition()

        eventually(looked, seconds)

    def start(self, *tasks: UploadTask) -> None:
        for task in tasks:
            self.pool.start(task)

    def ends(self) -> dict[str, str]:
        return {o.task.key.rpartition("/")[2]: str(o.verdict) for o in self.rig.outcomes}


@contextlib.contextmanager
def living(rig: Rig, parallel: int) -> Iterator[Life]:
    life = Life(rig, parallel)
    try:
        yield life
    finally:
        life.pool.stop(timeout=5)


def threads_of(pool: TransferPool) -> int:
    return len(pool._threads)  # how many there are is the point


def on_share(rig: Rig, share: TinyFuse, name: str, body: bytes, *, part_size: int = 8 * MIB) -> UploadTask:
    (share.backing / name).write_bytes(body)
    return rig.upload(share.point / name, part_size=part_size)


def of_disk(outcomes: list[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if isinstance(o.error, DiskSilent)]


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_F89_what_is_local_goes_on(rig: Rig, share: TinyFuse, parallel: int) -> None:
    theirs = [on_share(rig, share, f"share{n}", os.urandom(20_000)) for n in range(12)]
    mine = [rig.upload(rig.file(f"local{n}", os.urandom(20_000))) for n in range(12)]
    with living(rig, parallel) as life:
        share.hang()
        life.start(*theirs)  # older, so before what is local
        eventually(lambda: threads_of(life.pool) == parallel)
        time.sleep(2 * HANGS_AFTER)
        assert rig.outcomes == [], "nobody has looked yet"
        life.start(*mine)
        life.until(lambda: list(life.ends().values()).count("stored") == 12)
        assert {name for name, verdict in life.ends().items() if verdict == "stored"} == {
            f"local{n}" for n in range(12)
        }
        assert life.pool.hanging() == {str(share.point)}
        silent = of_disk(rig.outcomes)
        assert len(silent) == 12 - parallel, "those that wait say at once why; those that hang are left alone"
        assert f"{share.point} does not answer" in str(silent[0].error)
        life.start(theirs[-1])
        assert rig.outcomes[-1].verdict == "failed", "nor is anything more begun on it"
        assert threads_of(life.pool) == 2 * parallel
        share.answer()
        life.until(lambda: list(life.ends().values()).count("stored") == 12 + parallel and not life.pool.hanging())
        rest = [task for task in theirs if life.ends()[task.key.rpartition("/")[2]] == "failed"]
        life.start(*rest)
        life.until(lambda: not life.pool.active())
        assert set(life.ends().values()) == {"stored"}
        life.until(lambda: threads_of(life.pool) == parallel)
    assert rig.store.created_keys() == dict.fromkeys((t.key for t in theirs + mine), 1), "none is stored twice"


def test_F89_large_files_go_on_at_their_parts(rig: Rig, share: TinyFuse) -> None:
    body = os.urandom(40 * PART)
    task = on_share(rig, share, "large", body, part_size=PART)
    local = rig.upload(rig.file("local", os.urandom(10 * PART)), part_size=PART)
    rig.rate = 20 * PART
    with living(rig, parallel=3) as life:
        life.start(task)
        life.until(lambda: rig.store.count("put_part") >= 4)
        share.hang()
        rig.rate = None
        life.until(life.pool.hanging)
        life.start(local)
        life.until(lambda: life.ends().get("local") == "stored")
        assert "large" not in life.ends(), "it is open, and waits for its disk"
        share.answer()
        life.until(lambda: not life.pool.active())
    assert life.ends() == {"large": "stored", "local": "stored"}
    assert rig.store.body(task.key) == body
    assert rig.store.count("put_part") == 50, "no part is sent twice"


def test_F89_a_slow_share_is_not_a_dead_one(rig: Rig, share: TinyFuse) -> None:
    """All of a file takes much longer than a call may; so does the look whether it is in S3 already."""
    body = os.urandom(12 * MIB)
    task = on_share(rig, share, "slow", body, part_size=16 * MIB)
    rig.store.seed(task.key, body)
    share.takes = HANGS_AFTER / 20  # the kernel asks for some 128 KiB at a time: 100 answers
    with living(rig, parallel=1) as life:
        began = time.monotonic()
        life.start(task)
        life.until(lambda: life.pool.hanging() or not life.pool.active())
        assert not life.pool.hanging()
        assert time.monotonic() - began > 2 * HANGS_AFTER
    assert verdicts(rig.outcomes) == ["stored"]


@pytest.mark.parametrize("gate", ["a0", "sync"], ids=["a write", "a sync"])
@pytest.mark.parametrize("size", [100, 3 * RANGE], ids=["small", "large"])
def test_F89_results_that_hang_stop_their_own_analysis_only(rig: Rig, tmp_path: Path, gate: str, size: int) -> None:
    if gate == "sync" and size > RANGE:
        pytest.skip("large files share no sync")
    rig.results = gated = GatedResults(tmp_path / "gated", gate)
    rig.other_results[OTHER] = FolderResults(tmp_path / "other")
    with living(rig, parallel=2) as life:
        hanging = rig.download("a0", os.urandom(size))
        life.pool.start(hanging)
        life.until(lambda: f"results of {hanging.analysis}" in life.pool.hanging())
        for number in range(5):
            life.pool.start(rig.download(f"b{number}", os.urandom(size), analysis=OTHER))
            life.pool.start(rig.download(f"a{number + 1}", os.urandom(size)))
        life.until(lambda: list(life.ends().values()).count("fetched") == 5)
        assert len(of_disk(rig.outcomes)) == 5
        gated.gates[gate].set()
        life.until(lambda: life.ends().get("a0") == "fetched" and not life.pool.hanging())
        for number in range(5):
            life.pool.start(rig.download(f"a{number + 1}"))
        life.until(lambda: not life.pool.active())
    assert set(life.ends().values()) == {"fetched"}


def test_F89_one_file_that_hangs_is_no_dead_disk(rig: Rig, tmp_path: Path) -> None:
    """A bad sector, a file on tape: others of the same disk are answered meanwhile."""
    rig.results = gated = GatedResults(tmp_path / "gated", "tape")
    with living(rig, parallel=2) as life:
        life.pool.start(rig.download("tape", b"t"))
        count = 0
        until = time.monotonic() + 3 * HANGS_AFTER
        while time.monotonic() < until:
            count += 1
            life.pool.start(rig.download(f"b{count}", b"b" * count))
            life.until(lambda wanted=count: len(rig.outcomes) >= wanted)  # type: ignore[misc]
            assert not life.pool.hanging()
        assert threads_of(life.pool) == 3, "another has come for the one that hangs"
        gated.gates["tape"].set()
        life.until(lambda: len(rig.outcomes) == count + 1)
        life.until(lambda: threads_of(life.pool) == 2)
    assert set(life.ends().values()) == {"fetched"}


def test_F89_threads_are_bounded_however_many_disks_hang(rig: Rig, tmp_path: Path) -> None:
    names = [f"analysis{n}" for n in range(8)]
    for name in names:
        rig.other_results[name] = GatedResults(tmp_path / name, "x0", "x1", "x2")
    with living(rig, parallel=2) as life:
        most = 0
        for name in names:
            for number in range(3):
                life.pool.start(rig.download(f"x{number}", b"x", analysis=name))

        def watched() -> bool:
            nonlocal most
            most = max(most, threads_of(life.pool))
            return len(life.pool.hanging()) >= 6

        life.until(watched)
        assert most <= 8
        for name in names:
            for gate in rig.other_results[name].gates.values():  # type: ignore[attr-defined]  # gated, all of them
                gate.set()
        life.until(lambda: not life.pool.active())
        life.until(lambda: threads_of(life.pool) == 2)


@pytest.mark.parametrize("known", [True, False], ids=["known to hang", "not yet known"])
def test_F89_it_stops_in_time_while_a_disk_hangs(rig: Rig, share: TinyFuse, known: bool) -> None:
    large = on_share(rig, share, "large", os.urandom(40 * PART), part_size=PART)
    small = [on_share(rig, share, f"small{n}", b"x" * 100) for n in range(5)]
    rig.rate = 20 * PART
    life = Life(rig, 3)
    life.start(large)
    life.until(lambda: rig.store.count("put_part") >= 2)
    share.hang()
    rig.rate = None
    if known:
        life.until(life.pool.hanging)
        time.sleep(2 * HANGS_AFTER)
        life.pool.look()  # those that came to it later
    life.start(*small)
    began = time.monotonic()
    life.pool.stop(timeout=1.0)
    assert time.monotonic() - began < (0.5 if known else 2.0)
    ends = life.ends()
    assert ends.pop("large") == "stopped"
    assert set(ends.values()) <= ({"failed"} if known else {"stopped"})
    assert len(rig.outcomes) == 6
    share.answer()
    eventually(lambda: not threads_of(life.pool))
    again = rig.upload(share.point / "large", part_size=PART)
    assert len(again.parts) >= 1
    assert verdicts(rig.run(again)) == ["stored"], "from where it was"
