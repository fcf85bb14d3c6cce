"""SIGKILL at every named point, then a restart: what is sent again is what was in flight, and nothing happens twice."""

from __future__ import annotations

import os

import pytest
from transfer_rig import KIB, Rig, verdicts

from ncaasd.adapters.transfers import CRASH_POINTS

PART = 4 * KIB
PARTS = 9
SIZE = (PARTS - 1) * PART + 7


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize(
    ("point", "skip", "again", "uploads"),
    [
        ("upload.created", 0, 0, 2),  # F05: a new upload starts; the orphan has no parts
        ("upload.logged", 0, 0, 1),
        ("upload.part", 0, 1, 1),  # F06
        ("upload.part", 3, 1, 1),
        ("upload.part", PARTS - 1, 1, 1),
        ("upload.parts_done", 0, 0, 1),  # F07: only Complete is sent
        ("upload.completed", 0, 0, 1),  # F08: adopted
    ],
)
def test_F05_F06_F07_F08_killed_at(rig: Rig, point: str, skip: int, again: int, uploads: int, parallel: int) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    task = rig.upload(path, part_size=PART)
    assert rig.run_until_killed(task, point, skip=skip, parallel=parallel)
    restarted = len(rig.store.ops)
    (outcome,) = rig.run(rig.upload(path, part_size=PART), parallel=parallel)
    assert outcome.verdict.value == "stored", outcome
    assert rig.store.body(task.key) == body
    assert rig.store.created(task.key) == 1
    assert rig.store.count("create_multipart") == uploads
    in_flight = again * PART * max(1, parallel)
    assert rig.store.sent("put_part") <= SIZE + in_flight
    later = [op.name for op in rig.store.ops[restarted:]]
    if point == "upload.parts_done":
        assert later == ["complete_multipart", "find"]
    if point == "upload.completed":
        assert later == ["complete_multipart", "find"]
        assert outcome.stored is not None and outcome.stored.adopted
    if point == "upload.created":
        assert [len(parts) for parts in rig.store.open_uploads().values()] == [0]


def test_F08_killed_before_complete_was_recorded_with_a_fresh_journal(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(SIZE))
    assert rig.run_until_killed(rig.upload(path, part_size=PART), "upload.completed")
    rig.log.uploads.clear()
    (outcome,) = rig.run(rig.upload(path, part_size=PART))
    assert outcome.stored is not None and outcome.stored.adopted
    assert rig.store.sent("put_part") == SIZE


def test_a_small_file_killed_after_its_put_is_adopted(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(PART))
    task = rig.upload(path)
    assert rig.run_until_killed(task, "upload.put")
    (outcome,) = rig.run(task)
    assert outcome.stored is not None and outcome.stored.adopted
    assert rig.store.created(task.key) == 1


@pytest.mark.parametrize("parallel", [0, 4])
def test_F06_killed_again_and_again_it_still_gets_through(rig: Rig, parallel: int) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    kills = 0
    while rig.run_until_killed(rig.upload(path, part_size=PART), "upload.part", skip=1, parallel=parallel):
        kills += 1
        assert kills < 3 * PARTS
    assert kills >= 2
    assert verdicts(rig.outcomes) == ["stored"]
    assert rig.store.body("lab/inputs/a.tif") == body
    assert rig.store.sent("put_part") <= SIZE + kills * PART * max(1, parallel)
    assert rig.store.count("create_multipart") == 1


def test_parts_that_are_cut_otherwise_are_sent_again(rig: Rig) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    assert rig.run_until_killed(rig.upload(path, part_size=PART), "upload.part", skip=4)
    assert verdicts(rig.run(rig.upload(path, part_size=2 * PART))) == ["stored"]
    assert rig.store.body("lab/inputs/a.tif") == body


def test_every_crash_point_is_passed(rig: Rig) -> None:
    passed: set[str] = set()
    pool = rig.life(crash=passed.add)
    pool.start(rig.upload(rig.file("small.tif", b"x")))
    pool.start(rig.upload(rig.file("large.tif", os.urandom(SIZE)), part_size=PART))
    pool.start(rig.download("process_results/large.bin", os.urandom(200 * KIB)))
    assert passed == set(CRASH_POINTS)
    assert len(set(CRASH_POINTS)) == len(CRASH_POINTS)
