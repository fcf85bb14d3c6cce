"""Whose turn it is: even between analyses, even between small files and large ones, by order within each."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from transfer_rig import ANALYSIS, KIB, MIB, RANGE, Rig, eventually

from ncaasd.adapters.transfers.flows import Flows
from ncaasd.adapters.transfers.transfer import Step, Transfer
from ncaasd.model import Outcome, Stat, UploadTask

OTHER = "dlc-ncap-web"


class Pieces(Transfer):
    """A transfer of so many steps of so many bytes, which never ends."""

    def __init__(self, name: str, *, pieces: int, each: int, order: float = 0.0, analysis: str = ANALYSIS) -> None:
        stat = Stat(pieces * each, 0, 0, 0)
        task = UploadTask(hash(name), analysis, name, stat, name, each, order=order)
        self.task = task
        self.small = pieces == 1
        self.memory = each
        self.inflight = 0
        self.halted = self.started = False
        self.stuck = ""
        self.outcome = None
        self._again = []
        self._left = pieces

    @property
    def size(self) -> int:
        return 0

    def fresh(self) -> Step | None:
        if not self._left:
            return None
        self._left -= 1
        return Step(lambda: None, self.memory)

    def verdict_of(self, error: Exception) -> Outcome:
        raise error

    def close(self) -> None:
        pass


def turns(flows: Flows, count: int) -> list[str]:
    """The names of the next transfers to get a turn, one worker."""
    names: list[str] = []
    for _ in range(count):
        taken = flows.take(0.0)
        if taken is None:
            break
        names.append(taken[0].task.key)
        flows.ended(taken[0])
    return names


def flows_of(*transfers: Transfer, parallel: int = 1) -> Flows:
    flows = Flows(parallel)
    for transfer in transfers:
        flows.add(transfer)
    return flows


def test_analyses_take_turns() -> None:
    flows = flows_of(
        Pieces("a", pieces=100, each=8 * MIB),
        Pieces("b", pieces=100, each=8 * MIB, analysis=OTHER),
        Pieces("c", pieces=100, each=8 * MIB, analysis="third"),
    )
    assert Counter(turns(flows, 30)) == {"a": 10, "b": 10, "c": 10}


def test_analyses_share_by_bytes_and_not_by_files() -> None:
    small = [Pieces(f"s{n}", pieces=1, each=MIB, analysis=OTHER) for n in range(200)]
    flows = flows_of(Pieces("large", pieces=100, each=8 * MIB), *small)
    got = Counter("large" if name == "large" else "small" for name in turns(flows, 60))
    assert 6 * got["large"] < got["small"] < 8 * got["large"]


def test_small_files_do_not_wait_behind_a_large_one() -> None:
    small = [Pieces(f"s{n}", pieces=1, each=16 * KIB, order=100.0) for n in range(20)]
    flows = flows_of(Pieces("large", pieces=10_000, each=8 * MIB, order=1.0), *small)
    first = turns(flows, 24)
    assert sum(name != "large" for name in first) == 20


def test_nor_does_a_large_one_wait_behind_many_small_ones() -> None:
    small = [Pieces(f"s{n}", pieces=1, each=16 * KIB, order=1.0) for n in range(10_000)]
    flows = flows_of(*small, Pieces("large", pieces=100, each=8 * MIB, order=100.0))
    assert turns(flows, 100).count("large") in (3, 4)


def test_oldest_first_within_a_kind() -> None:
    flows = flows_of(*(Pieces(f"{n}", pieces=2, each=MIB, order=float(n)) for n in (3, 1, 2)))
    assert turns(flows, 10) == ["1", "1", "2", "2", "3", "3"]


def test_manifests_and_configs_before_all() -> None:
    flows = flows_of(
        Pieces("a", pieces=5, each=MIB, order=1.0),
        Pieces("b", pieces=1, each=KIB, order=0.0, analysis=OTHER),
        Pieces("manifest", pieces=1, each=KIB, order=-2.0),
        Pieces("config", pieces=1, each=KIB, order=-1.0, analysis=OTHER),
    )
    assert set(turns(flows, 2)) == {"manifest", "config"}


def test_who_comes_late_has_no_claim_on_the_past() -> None:
    flows = flows_of(Pieces("a", pieces=1000, each=8 * MIB))
    turns(flows, 100)
    flows.add(Pieces("b", pieces=1000, each=8 * MIB, analysis=OTHER))
    got = Counter(turns(flows, 20))
    assert abs(got["a"] - got["b"]) <= 2


@pytest.mark.parametrize(("parallel", "large"), [(1, 1), (2, 1), (8, 7)])
def test_a_large_file_uses_several_workers_and_leaves_one(parallel: int, large: int) -> None:
    flows = flows_of(Pieces("large", pieces=100, each=MIB), parallel=parallel)
    running = [flows.take(0.0) for _ in range(parallel)]
    assert sum(taken is not None for taken in running) == large


def test_buffers_in_flight_are_bounded_and_a_huge_part_goes_alone() -> None:
    flows = flows_of(Pieces("large", pieces=100, each=16 * MIB), parallel=32)
    running = 0
    while flows.take(0.0):
        running += 1
    assert running == 5
    huge = flows_of(Pieces("huge", pieces=100, each=500 * MIB), parallel=32)
    assert huge.take(0.0) is not None
    assert huge.take(0.0) is None


def test_the_pool_sends_a_small_file_at_once_while_a_large_one_is_under_way(rig: Rig) -> None:
    rig.rate = 2 * MIB
    large = rig.upload(rig.file("large.tif", os.urandom(6 * MIB)), part_size=256 * KIB, order=1.0)
    small = rig.upload(rig.file("small.tif", b"x" * KIB), order=5.0)
    other = rig.upload(rig.file("other.tif", os.urandom(2 * MIB)), part_size=256 * KIB, analysis=OTHER)
    pool = rig.life(parallel=4)
    pool.start(large)
    eventually(lambda: rig.store.count("put_part") > 2)
    pool.start(small)
    pool.start(other)
    eventually(lambda: len(rig.outcomes) == 1, seconds=2)
    assert rig.outcomes[0].task is small
    eventually(lambda: rig.store_of(OTHER).count("put_part") > 1, seconds=2)
    rig.rate = None
    eventually(lambda: not pool.active())
    pool.stop(timeout=5)


def test_oldest_recordings_go_first_through_the_pool(rig: Rig) -> None:
    orders = [5.0, 1.0, 4.0, 2.0, 3.0, -1.0]
    tasks = [rig.upload(rig.file(f"{n}.tif", os.urandom(RANGE)), part_size=RANGE, order=n) for n in orders]
    rig.queued(*tasks).drain()
    puts = [op.key for op in rig.store.ops if op.name == "put"]
    assert puts == [f"lab/inputs/{n}.tif" for n in sorted(orders)]
