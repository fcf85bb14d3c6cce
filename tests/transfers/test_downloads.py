"""Downloads: the very bytes of the very object, under the final name, or nothing."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes.memory_store import Fault
from transfer_rig import ANALYSIS, KIB, RANGE, Rig, eventually, verdicts

from ncaasd.errors import Corrupted, Denied, DiskFull, RootMissing, SyncFailed, Throttled, Unreachable
from ncaasd.model import Part

NAME = "process_results/out.bin"


def multipart(rig: Rig, body: bytes, part_size: int = 10 * KIB) -> None:
    """The platform's worker puts an object in parts: its ETag is no MD5 of it."""
    key, store = f"lab/results/job__{ANALYSIS}_12/{NAME}", rig.store
    from ncaasd.adapters.transfers.checksums import crc64

    upload_id = store.create_multipart(key)
    parts: list[Part] = []
    for number, start in enumerate(range(0, len(body), part_size), 1):
        piece = body[start : start + part_size]
        parts.append(store.put_part(key, upload_id, number, piece, crc=crc64(piece)))
    store.complete_multipart(key, upload_id, parts, crc=crc64(body), size=len(body), only_if_absent=False)
    store.ops.clear()


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize("size", [0, 1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE, 9 * RANGE + 5])
def test_every_size(rig: Rig, size: int, parallel: int) -> None:
    body = os.urandom(size)
    task = rig.download(NAME, body)
    (outcome,) = rig.run(task, parallel=parallel)
    assert (outcome.verdict.value, outcome.path) == ("fetched", f"{task.folder}/{NAME}")
    assert rig.fetched(task) == body
    assert rig.store.count("get") == max(1, -(-size // RANGE))
    assert rig.results.temporaries() == []
    assert rig.results.unsynced == []


FAULTS = {
    "F38 reset": Fault("get", skip=1, error=Unreachable("reset")),
    "F38 cut early": Fault("get", skip=1, cut=10),
    "F38 cut late": Fault("get", skip=1, cut=RANGE - 10),
    "F38 all cut": Fault("get", times=4, cut=RANGE // 2),
    "F40 slow down": Fault("get", times=5, error=Throttled("503")),
    "F41 a byte flipped": Fault("get", skip=1, flip=77),
    "checksum: reset": Fault("checksum", error=Unreachable("reset")),
}


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize("whole", [True, False], ids=["md5 etag", "multipart etag"])
@pytest.mark.parametrize("name", FAULTS)
def test_F38_F40_F41_a_large_object_survives(rig: Rig, name: str, whole: bool, parallel: int) -> None:
    body = os.urandom(5 * RANGE + 9)
    if not whole:
        multipart(rig, body)
    task = rig.download(NAME, body if whole else None)
    rig.store.faults.append(replace(FAULTS[name]))
    assert verdicts(rig.run(task, parallel=parallel)) == ["fetched"]
    assert rig.fetched(task) == body
    assert rig.results.temporaries() == []


@pytest.mark.parametrize(
    "fault", [Fault("get", error=Unreachable("reset")), Fault("get", cut=10), Fault("get", flip=7)], ids=str
)
def test_F38_F41_a_small_object_survives(rig: Rig, fault: Fault) -> None:
    body = os.urandom(1000)
    task = rig.download(NAME, body)
    rig.store.faults.append(replace(fault))
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body
    assert rig.results.temporaries() == []


def test_F38_only_the_rest_of_a_range_is_asked_again(rig: Rig) -> None:
    task = rig.download(NAME, os.urandom(4 * RANGE))
    rig.store.faults.append(Fault("get", skip=1, cut=3 * RANGE // 4))
    rig.run(task)
    assert sum(op.received for op in rig.store.ops) == 4 * RANGE


# A small object whose ETag is no MD5 is checked by the store itself, by the CRC that S3 keeps for it.
@pytest.mark.parametrize(("size", "whole"), [(1000, True), (3 * RANGE, True), (3 * RANGE, False)])
def test_a_200_with_the_wrong_bytes_every_time_is_a_failure(rig: Rig, size: int, whole: bool) -> None:
    body = os.urandom(size)
    if not whole:
        multipart(rig, body)
    task = rig.download(NAME, body if whole else None)
    rig.store.faults.append(Fault("get", times=None, flip=500))
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, Corrupted)
    assert rig.results.temporaries() == []
    assert not (rig.results.root / task.folder / NAME).exists()


@pytest.mark.parametrize(("size", "skip"), [(1000, 0), (5 * RANGE, 0), (5 * RANGE, 1), (5 * RANGE, 3)])
@pytest.mark.parametrize("deleted", [True, False])
def test_an_object_replaced_or_deleted_meanwhile(rig: Rig, size: int, deleted: bool, skip: int) -> None:
    task = rig.download(NAME, os.urandom(size))
    gone: Callable[[str], None] = rig.store.remove if deleted else lambda key: rig.store.seed(key, b"new") and None
    rig.store.faults.append(Fault("get", skip=skip, before=gone))
    assert verdicts(rig.run(task)) == ["replaced"]
    assert rig.results.temporaries() == []
    assert not (rig.results.root / task.folder / NAME).exists()


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize("skip", [0, 2, 4])
def test_F09_killed_in_the_middle(rig: Rig, skip: int, parallel: int) -> None:
    body = os.urandom(5 * RANGE)
    task = rig.download(NAME, body)
    assert rig.run_until_killed(task, "download.range", skip=skip, parallel=parallel)
    assert not (rig.results.root / task.folder / NAME).exists()
    again = rig.download(NAME)
    had = sum(end - start for start, end in again.done)
    before = sum(op.received for op in rig.store.ops)
    assert verdicts(rig.run(again, parallel=parallel)) == ["fetched"]
    assert rig.fetched(task) == body
    assert sum(op.received for op in rig.store.ops) - before == 5 * RANGE - had
    assert had == skip * RANGE or parallel


def test_F09_ranges_that_come_during_a_sync_share_the_next(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another's sync, and a range is recorded after a sync that began when it was written."""
    syncs: list[int] = []  # how many ranges were recorded when it began
    sync, others_came = os.fdatasync, threading.Event()

    def slow(fd: int) -> None:
        syncs.append(sum(map(len, rig.log.ranges.values())))
        if len(syncs) == 1:
            assert others_came.wait(10)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    body = os.urandom(5 * RANGE)
    task = rig.download(NAME, body)
    pool = rig.life(4)
    pool.start(task)
    eventually(lambda: rig.store.count("get") == 5 and sum(op.received for op in rig.store.ops) == len(body))
    time.sleep(0.1)  # the last of them is written
    others_came.set()
    eventually(lambda: not pool.active())
    pool.stop(timeout=5)
    assert verdicts(rig.outcomes) == ["fetched"]
    assert rig.fetched(task) == body
    assert syncs == [0, 1]
    assert sorted(rig.log.ranges[task.object_id]) == [(start, start + RANGE) for start in range(0, 5 * RANGE, RANGE)]


@pytest.mark.parametrize("point", ["download.written", "download.renamed"])
@pytest.mark.parametrize("whole", [True, False], ids=["md5 etag", "multipart etag"])
@pytest.mark.parametrize("size", [1000, 5 * RANGE])
def test_F10_killed_around_the_rename(rig: Rig, size: int, whole: bool, point: str) -> None:
    body = os.urandom(size)
    if not whole:
        multipart(rig, body)
    assert rig.run_until_killed(rig.download(NAME, body if whole else None), point)
    received = sum(op.received for op in rig.store.ops)
    task = rig.download(NAME)
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body
    if point == "download.renamed" or size > RANGE:
        assert sum(op.received for op in rig.store.ops) == received


def test_F10_what_is_in_place_and_is_not_the_object_is_fetched(rig: Rig) -> None:
    body = os.urandom(1000)
    task = rig.download(NAME, body)
    place = rig.results.root / task.folder / NAME
    place.parent.mkdir(parents=True)
    place.write_bytes(os.urandom(1000))
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body


@pytest.mark.parametrize("lost", ["removed", "emptied", "shortened"])
def test_F09_a_temporary_file_that_is_lost_is_begun_anew(rig: Rig, lost: str) -> None:
    body = os.urandom(5 * RANGE)
    assert rig.run_until_killed(rig.download(NAME, body), "download.range", skip=3)
    (name,) = rig.results.temporaries()
    path = rig.results.temporary / name
    if lost == "removed":
        path.unlink()
    else:
        os.truncate(path, 0 if lost == "emptied" else 2 * RANGE)
    task = rig.download(NAME)
    assert len(task.done) == 3
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body
    assert "download lost" in rig.log.events


def test_F09_lost_and_killed_again_leaves_no_hole(rig: Rig) -> None:
    """The ranges of the first temporary file must not count for the second, whatever its size."""
    body = os.urandom(5 * RANGE)
    multipart(rig, body)
    rig.store.checksum = lambda key, *, etag: None  # type: ignore[method-assign]  # nothing to check the whole by
    assert rig.run_until_killed(rig.download(NAME), "download.range", skip=3)
    (name,) = rig.results.temporaries()
    (rig.results.temporary / name).unlink()
    # The second life dies when the last range is recorded, before the first ones: the file has its full size.
    for key in list(rig.log.ranges):
        rig.log.ranges[key] = [(0, RANGE), (RANGE, 2 * RANGE), (2 * RANGE, 3 * RANGE)]
    assert rig.run_until_killed(rig.download(NAME), "download.range", skip=1)
    task = rig.download(NAME)
    assert task.done == ((0, RANGE),)
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body


def test_F09_ranges_of_any_shape_are_gone_on_with(rig: Rig) -> None:
    body = os.urandom(5 * RANGE)
    task = rig.download(NAME, body)
    assert rig.run_until_killed(task, "download.written")
    done = ((0, 10), (5, 3 * RANGE), (3 * RANGE + 1, 4 * RANGE), (4 * RANGE, 4 * RANGE + 1), (99 * RANGE, 100 * RANGE))
    assert verdicts(rig.run(replace(task, done=done))) == ["fetched"]
    assert rig.fetched(task) == body
    assert sum(op.received for op in rig.store.ops) == 5 * RANGE + 1 + RANGE - 1


@pytest.mark.parametrize("size", [1000, 3 * RANGE])
def test_F14_no_space(rig: Rig, size: int) -> None:
    task = rig.download(NAME, os.urandom(size))
    rig.store.faults.append(Fault("get", skip=size // RANGE // 2, before=lambda _key: fill(rig)))
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, DiskFull)
    assert rig.results.temporaries() == []


def fill(rig: Rig) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_F14_a_full_tree_fails_before_anything_is_fetched(rig: Rig) -> None:
    rig.results.full = DiskFull("less than 5 GB are free")
    (outcome,) = rig.run(rig.download(NAME, b"x"))
    assert outcome.error is rig.results.full
    assert rig.store.count("get") == 0


def test_F90_an_unmounted_share_fails_before_anything_is_fetched(rig: Rig) -> None:
    rig.results.full = RootMissing("it is another file system")
    (outcome,) = rig.run(rig.download(NAME, b"x"))
    assert (outcome.verdict.value, outcome.error) == ("failed", rig.results.full)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (SyncFailed("EIO"), SyncFailed),
        (OSError(errno.EIO, "Input/output error"), SyncFailed),
        (OSError(errno.ENOSPC, "No space"), DiskFull),
    ],
)
def test_F15_a_sync_that_fails_is_never_repeated(rig: Rig, raised: Exception, kind: type[Exception]) -> None:
    rig.results.fails = raised
    outcomes = rig.run(*(rig.download(f"process_results/{n}", b"x" * n) for n in range(5)), parallel=2)
    assert verdicts(outcomes) == ["failed"] * 5
    assert all(isinstance(outcome.error, kind) for outcome in outcomes)
    assert rig.results.syncs <= 5


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/passwd"])
def test_F70_names_that_leave_the_folder(rig: Rig, name: str) -> None:
    (outcome,) = rig.run(rig.download(name, b"x"))
    assert outcome.verdict.value == "unsafe"
    assert rig.store.count("get") == 0


def test_small_files_share_their_syncs(rig: Rig) -> None:
    tasks = [rig.download(f"process_results/{n}.txt", os.urandom(n)) for n in range(300)]
    pool = rig.life(parallel=4)
    for task in tasks:
        pool.start(task)
    eventually(lambda: not pool.active())
    assert verdicts(rig.outcomes) == ["fetched"] * 300
    assert rig.results.syncs < 30
    assert rig.results.unsynced == []
    pool.stop(timeout=5)


def test_no_outcome_before_its_sync(rig: Rig) -> None:
    durable: list[bool] = []
    pool = rig.life(parallel=4)
    pool._sink = lambda outcome: durable.append(outcome.path not in rig.results.unsynced)
    for n in range(200):
        pool.start(rig.download(f"process_results/{n}.txt", os.urandom(n)))
    eventually(lambda: not pool.active())
    assert durable == [True] * 200
    pool.stop(timeout=5)


def test_F55_denied_keeps_what_is_there(rig: Rig) -> None:
    body = os.urandom(5 * RANGE)
    task = rig.download(NAME, body)
    rig.store.faults.append(Fault("get", skip=2, times=None, error=Denied("the policy")))
    assert verdicts(rig.run(task)) == ["failed"]
    assert len(rig.results.temporaries()) == 1
    rig.store.faults.clear()
    again = rig.download(NAME)
    assert len(again.done) == 2
    assert verdicts(rig.run(again)) == ["fetched"]
    assert rig.fetched(task) == body


def test_a_bucket_other_than_the_analysis(rig: Rig) -> None:
    body = b"somewhere else"
    rig.store_of("lab-bucket").seed("out/job__x_1/r.txt", body)
    info = rig.store_of("lab-bucket").find("out/job__x_1/r.txt")
    assert info is not None
    task = replace(rig.download("r.txt", b""), bucket="lab-bucket", key=info.key, size=info.size, etag=info.etag)
    assert verdicts(rig.run(task)) == ["fetched"]
    assert rig.fetched(task) == body
