"""The pool itself: stop, the same task twice, progress, and what must never happen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.memory_store import Fault
from support.cputime import cpu_of
from transfer_rig import ANALYSIS, KIB, RANGE, Rig, eventually, verdicts

from ncaasd.errors import JournalBroken
from ncaasd.model import Part

PART = 64 * KIB


def is_worker(thread: threading.Thread) -> bool:
    return thread.name.startswith("transfer-")


def workers() -> int:
    return sum(map(is_worker, threading.enumerate()))


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Each test stops its pool, and then nothing of it is left."""
    before = workers()
    yield
    eventually(lambda: workers() <= before, seconds=3)


def test_F12_stop_in_the_middle_is_quick_and_resumable(rig: Rig) -> None:
    body = os.urandom(40 * PART)
    path = rig.file("a.tif", body)
    rig.rate = 10 * PART
    pool = rig.life(parallel=4)
    up, down = rig.upload(path, part_size=PART), rig.download("process_results/a", body)
    waiting = [rig.upload(rig.file(f"w{n}.tif", b"x")) for n in range(50)]
    for task in (up, down, *waiting):
        pool.start(task)
    eventually(lambda: rig.log.uploads and len(rig.log.uploads[up.file_id].parts) >= 3)
    began = time.monotonic()
    pool.stop(timeout=10)
    assert time.monotonic() - began < 1
    assert pool.active() == 0
    assert workers() == 0
    ends = {outcome.task.key: outcome.verdict.value for outcome in rig.outcomes}
    assert len(rig.outcomes) == len(ends) == 52
    assert ends[up.key] == ends[down.key] == "stopped"
    rig.rate = None
    sent = rig.store.sent("put_part")
    again = (rig.upload(path, part_size=PART), rig.download("process_results/a"))
    assert len(again[0].parts) >= 3
    assert sorted(verdicts(rig.run(*again, parallel=4))) == ["fetched", "stored"]
    assert rig.store.body(up.key) == rig.fetched(down) == body
    assert rig.store.sent("put_part") - sent == 40 * PART - sum(part.size for part in again[0].parts)


def test_F12_a_request_that_hangs_is_left_behind(rig: Rig) -> None:
    release = threading.Event()
    rig.store.faults.append(Fault("put", before=lambda _key: release.wait(20) and None))
    pool = rig.life(parallel=2)
    pool.start(rig.upload(rig.file("a.tif", b"x")))
    eventually(lambda: rig.store.count("put") == 1)
    began = time.monotonic()
    pool.stop(timeout=0.3)
    assert time.monotonic() - began < 2
    assert verdicts(rig.outcomes) == ["stopped"]
    release.set()
    eventually(lambda: workers() == 0)
    assert verdicts(rig.outcomes) == ["stopped"]  # what came too late is not told


def test_start_after_stop_is_answered(rig: Rig) -> None:
    pool = rig.life(parallel=2)
    pool.stop(timeout=1)
    pool.start(rig.upload(rig.file("a.tif", b"x")))
    assert verdicts(rig.outcomes) == ["stopped"]
    assert rig.store.ops == []


def test_the_same_task_twice_is_done_one_after_the_other(rig: Rig) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(PART)))
    pool = rig.queued(task, task)
    assert pool.active() == 2
    pool.drain()
    assert verdicts(rig.outcomes) == ["stored", "stored"]
    assert rig.store.created(task.key) == 1


def test_an_idle_pool_has_no_threads_and_uses_no_time(rig: Rig) -> None:
    pool = rig.life(parallel=8)
    assert workers() == 0
    pool.start(rig.upload(rig.file("a.tif", b"x")))
    eventually(lambda: not pool.active())
    began = cpu_of(is_worker)
    time.sleep(0.5)
    assert cpu_of(is_worker) - began < 0.01
    pool.stop(timeout=5)


def test_a_sink_may_start_the_next_task(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(PART))
    pool = rig.life()
    tasks = [rig.upload(rig.file(f"{n}.tif", b"x")) for n in range(5)]
    sink, pool._sink = pool._sink, lambda outcome: (sink(outcome), tasks and pool.start(tasks.pop()))
    pool.start(rig.upload(path))
    assert verdicts(rig.outcomes) == ["stored"] * 6
    assert pool.active() == 0


def test_F13_a_journal_that_breaks_sends_no_part(rig: Rig) -> None:
    broken = JournalBroken("the disk is full")

    def refuse(file_id: int, upload_id: str) -> None:
        raise broken

    rig.log.upload_created = refuse  # type: ignore[method-assign]
    (outcome,) = rig.run(rig.upload(rig.file("a.tif", os.urandom(3 * PART)), part_size=PART))
    assert (outcome.verdict.value, outcome.error) == ("failed", broken)
    assert rig.store.count("put_part") == 0


def test_a_bug_in_a_step_is_one_failed_task(rig: Rig) -> None:
    def bug(file_id: int, part: Part) -> None:
        raise KeyError(file_id)

    rig.log.part_stored = bug  # type: ignore[method-assign]
    outcomes = rig.run(
        rig.upload(rig.file("a.tif", os.urandom(3 * PART)), part_size=PART),
        rig.upload(rig.file("b.tif", b"x")),
        parallel=3,
    )
    assert sorted(verdicts(outcomes)) == ["failed", "stored"]


def test_F20_no_descriptors_left_backs_off(rig: Rig) -> None:
    import resource

    path = rig.file("a.tif", os.urandom(3 * PART))
    task = rig.upload(path, part_size=PART)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pool = rig.life()
    rig.clock.sleep = lambda seconds: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))  # type: ignore[method-assign,assignment]
    now = [0.0]
    rig.clock.monotonic = lambda: now.__setitem__(0, now[0] + 1) or now[0]  # type: ignore[method-assign,func-returns-value]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        pool.start(task)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert verdicts(rig.outcomes) == ["stored"]


def test_progress(rig: Rig) -> None:
    rig.rate = 16 * PART
    body = os.urandom(40 * PART)
    up = rig.upload(rig.file("a.tif", body), part_size=PART)
    down = rig.download("process_results/a", body)
    pool = rig.life(parallel=4)
    assert pool.progress() == []
    pool.start(up)
    pool.start(down)
    eventually(lambda: len(pool.progress()) == 2 and all(p.done > 3 * PART for p in pool.progress()))
    by_name = {progress.name: progress for progress in pool.progress()}
    assert by_name[up.key].upload and not by_name[down.key].upload
    assert {progress.analysis for progress in by_name.values()} == {ANALYSIS}
    assert all(progress.size == 40 * PART and 0 < progress.rate < 40 * PART for progress in by_name.values())
    rig.rate = None
    eventually(lambda: not pool.active())
    assert pool.progress() == []
    pool.stop(timeout=5)


def test_progress_takes_back_what_did_not_arrive(rig: Rig) -> None:
    """Bytes of a part that failed are not done; those of an earlier life are."""
    path = rig.file("a.tif", os.urandom(10 * PART))
    assert rig.run_until_killed(rig.upload(path, part_size=PART), "upload.part", skip=4)
    seen: list[tuple[int, int]] = []
    rig.store.faults.append(Fault("put_part", skip=2, times=3, lost=True))
    pool = rig.life(crash=lambda _point: seen.extend((p.done, p.size) for p in pool.progress()))
    pool.start(rig.upload(path, part_size=PART))
    assert [done // PART for done, _ in seen] == [5, 6, 7, 8, 9, 10, 10, 10]


def test_everything_at_once(rig: Rig) -> None:
    """Three analyses, small and large, up and down, eight workers."""
    tasks: list[object] = []
    bodies: dict[str, bytes] = {}
    for analysis in ("a-web", "b-web", "c-web"):
        for n, size in enumerate([0, 1, PART, 3 * PART + 1, 17 * PART, 100, 2 * PART]):
            body = os.urandom(size)
            path = rig.file(f"{analysis}-{n}.tif", body)
            tasks.append(rig.upload(path, part_size=PART, analysis=analysis, order=float(n)))
            bodies[f"up {analysis} {n}"] = body
            tasks.append(rig.download(f"process_results/{n}", body, analysis=analysis, order=float(n)))
    outcomes = rig.run(*tasks, parallel=8)  # type: ignore[arg-type]
    assert sorted(set(verdicts(outcomes))) == ["fetched", "stored"]
    assert len(outcomes) == len(tasks) == 42
    for analysis in ("a-web", "b-web", "c-web"):
        for n in range(7):
            body = bodies[f"up {analysis} {n}"]
            assert rig.store_of(analysis).body(f"lab/inputs/{analysis}-{n}.tif") == body
            assert (rig.results.root / f"job__{analysis}_12/process_results/{n}").read_bytes() == body
    assert rig.results.temporaries() == []
    assert RANGE == PART
