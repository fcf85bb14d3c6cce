"""The budget: exact over seconds, for all who share it; a limit of 0 is a pause in mid-file."""

from __future__ import annotations

import os
import threading
import time

import pytest
from transfer_rig import KIB, MIB, RANGE, BentClock, RealClock, Rig, eventually, verdicts

from ncaasd.adapters.transfers.bandwidth import Bandwidth, Paused


def never() -> None:
    return None


@pytest.mark.parametrize("rate", [20_000, 100_000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("block", [1 * KIB, 16 * KIB, 128 * KIB])
def test_ten_seconds_of_any_limit(rate: int, block: int) -> None:
    clock = BentClock()
    bandwidth = Bandwidth(lambda: rate, clock)
    until = clock.monotonic() + 10
    moved = 0
    while clock.monotonic() < until:
        bandwidth.take(block, never)
        moved += block
    assert moved == pytest.approx(rate * 10, rel=0.05, abs=2 * block)


def test_time_that_nobody_used_is_not_saved_up() -> None:
    clock = BentClock()
    bandwidth = Bandwidth(lambda: 1_000_000, clock)
    bandwidth.take(1000, never)
    clock.sleep(3600)
    began = clock.monotonic()
    for _ in range(100):
        bandwidth.take(50_000, never)
    assert clock.monotonic() - began == pytest.approx(5, abs=0.35)


def test_a_limit_that_changes_is_noticed_by_those_who_wait() -> None:
    clock = BentClock()
    rates = [1000]
    bandwidth = Bandwidth(lambda: rates[0], clock)
    bandwidth.take(100_000, never)  # the next has 100 s to wait at 1 kB/s

    def faster() -> None:
        if clock.monotonic() > began + 10:
            rates[0] = 1_000_000

    began = clock.monotonic()
    bandwidth.take(1000, faster)
    assert 10 < clock.monotonic() - began < 11


def test_a_pause_raises_and_gives_back_what_was_promised() -> None:
    clock = BentClock()
    rates = [1000]
    bandwidth = Bandwidth(lambda: rates[0], clock)
    bandwidth.take(1000, never)

    def pause() -> None:
        rates[0] = 0

    with pytest.raises(Paused):
        bandwidth.take(100_000, pause)
    rates[0] = 1000
    clock.sleep(1)
    began = clock.monotonic()
    bandwidth.take(1000, never)
    assert clock.monotonic() - began <= 1.2


def test_no_limit_costs_nothing() -> None:
    clock = BentClock()
    bandwidth = Bandwidth(lambda: None, clock)
    for _ in range(1000):
        bandwidth.take(1 << 30, never)
    assert clock.slept == []


def test_eight_threads_share_it_in_real_time() -> None:
    clock = RealClock()
    bandwidth = Bandwidth(lambda: 20_000_000, clock)
    moved = [0] * 8
    until = time.monotonic() + 3

    def move(index: int) -> None:
        while time.monotonic() < until:
            bandwidth.take(128 * KIB, never)
            moved[index] += 128 * KIB

    threads = [threading.Thread(target=move, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(moved) == pytest.approx(60_000_000, rel=0.05)
    assert min(moved) > 0.5 * max(moved)


def test_uploads_and_downloads_together_keep_to_it(rig: Rig) -> None:
    """In real time, over five seconds, both directions, within 5%."""
    rig.rate = 4 * MIB
    up = rig.upload(rig.file("a.tif", bytes(32 * MIB)), part_size=MIB)
    down = rig.download("process_results/a", bytes(32 * MIB))
    pool = rig.life(parallel=6)
    began = time.monotonic()
    pool.start(up)
    pool.start(down)
    time.sleep(1 - (time.monotonic() - began))
    at_1 = sum(progress.done for progress in pool.progress())
    time.sleep(6 - (time.monotonic() - began))
    at_6 = sum(progress.done for progress in pool.progress())
    rates = sum(progress.rate for progress in pool.progress())
    rig.rate = None
    eventually(lambda: not pool.active())
    pool.stop(timeout=5)
    assert (at_6 - at_1) / 5 == pytest.approx(4 * MIB, rel=0.05)
    assert rates == pytest.approx(4 * MIB, rel=0.1)
    assert set(verdicts(rig.outcomes)) == {"stored", "fetched"}


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_pause_in_mid_file_and_on_it_goes(rig: Rig, parallel: int) -> None:
    body = os.urandom(4 * MIB)
    path = rig.file("a.tif", body)
    rig.rate = 8 * MIB
    pool = rig.life(parallel=parallel)
    up, down = rig.upload(path, part_size=256 * KIB), rig.download("process_results/a", body)
    pool.start(up)
    pool.start(down)
    eventually(lambda: rig.store.count("put_part") >= 2 and rig.store.count("get") >= 2)
    rig.rate = 0
    time.sleep(0.3)
    paused = len(rig.store.ops)
    time.sleep(0.3)
    assert len(rig.store.ops) == paused
    assert pool.active() == 2
    rig.rate = None
    eventually(lambda: not pool.active())
    pool.stop(timeout=5)
    assert sorted(verdicts(rig.outcomes)) == ["fetched", "stored"]
    assert rig.store.body(up.key) == body
    assert rig.fetched(down) == body
    assert rig.store.count("create_multipart") == 1


def test_a_pause_inline_keeps_everything_for_the_next_drain(rig: Rig) -> None:
    pool = rig.life()
    rig.rate = 0
    pool.start(rig.upload(rig.file("a.tif", os.urandom(RANGE)), part_size=KIB))
    assert (rig.outcomes, pool.active(), rig.store.ops) == ([], 1, [])
    rig.rate = None
    rig.clock.sleep(1)
    pool.drain()
    assert verdicts(rig.outcomes) == ["stored"]
