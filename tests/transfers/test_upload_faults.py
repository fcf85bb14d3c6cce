"""What S3 and the network do to an upload, and what must be true then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes.memory_store import Fault
from transfer_rig import ANALYSIS, KIB, Rig, verdicts

from ncaasd.errors import BadCredentials, Busy, Corrupted, Denied, NoSuchUpload, Throttled, Unreachable

PART = 4 * KIB
SIZE = 5 * PART + 7


def reset() -> Unreachable:
    return Unreachable("the connection was reset")


def slow_down() -> Throttled:
    return Throttled("503 SlowDown")


# fault, bytes sent more than the file has
SMALL_FAULTS = {
    "F38 reset": (Fault("put", error=reset), PART),
    "F38 reset three times": (Fault("put", times=3, error=reset), 3 * PART),
    "F38 the answer is lost": (Fault("put", lost=True), PART),
    "F38 applied much later": (Fault("put", late=1), PART),
    "F40 slow down": (Fault("put", times=4, error=slow_down), 4 * PART),
    "F41 a byte flipped": (Fault("put", flip=100), PART),
    "sent twice by a proxy": (Fault("put", twice=True), 0),
    "a conflict": (Fault("put", error=Busy("409")), PART),
}
LARGE_FAULTS = {
    "F38 part reset": (Fault("put_part", skip=2, error=reset), PART),
    "F38 last part reset": (Fault("put_part", skip=5, error=reset), 7),
    "F38 the answer to a part is lost": (Fault("put_part", skip=2, lost=True), PART),
    "F38 a part applied later": (Fault("put_part", skip=2, late=2), PART),
    "F40 slow down": (Fault("put_part", skip=1, times=6, error=slow_down), 6 * PART),
    "F41 a byte flipped": (Fault("put_part", skip=3, flip=100), PART),
    "create: reset": (Fault("create_multipart", error=reset), 0),
    "create: the answer is lost": (Fault("create_multipart", lost=True), 0),
    "complete: reset": (Fault("complete_multipart", error=reset), 0),
    "F48 complete: the answer is lost": (Fault("complete_multipart", lost=True), 0),
    "F48 complete: applied much later": (Fault("complete_multipart", late=1), 0),
    "F47 complete: 200 with an error": (Fault("complete_multipart", times=2, error=slow_down), 0),
    "complete: sent twice by a proxy": (Fault("complete_multipart", twice=True), 0),
    "complete: a conflict": (Fault("complete_multipart", error=Busy("409")), 0),
    "listing: reset": (Fault("find", times=2, error=reset), 0),
    "listing after complete: reset": (Fault("find", skip=1, error=reset), 0),
}


@pytest.mark.parametrize("ours", [False, True], ids=["new", "ours"])
@pytest.mark.parametrize("name", SMALL_FAULTS)
def test_F38_F40_F41_a_small_file_survives(rig: Rig, name: str, ours: bool) -> None:
    fault, more = SMALL_FAULTS[name]
    body = os.urandom(PART)
    task = rig.upload(rig.file("a.tif", body), part_size=PART, ours=ours)
    if ours:
        rig.store.seed(task.key, b"our older version")
    rig.store.faults.append(replace(fault))
    assert verdicts(rig.run(task)) == ["stored"]
    rig.store.flush_late()
    assert rig.store.body(task.key) == body
    assert rig.store.sent("put") == PART + more
    if not ours:
        assert rig.store.created(task.key) == 1


@pytest.mark.parametrize("parallel", [0, 3])
@pytest.mark.parametrize("ours", [False, True], ids=["new", "ours"])
@pytest.mark.parametrize("name", LARGE_FAULTS)
def test_F38_F40_F41_F47_F48_a_large_file_survives(rig: Rig, name: str, ours: bool, parallel: int) -> None:
    fault, more = LARGE_FAULTS[name]
    body = os.urandom(SIZE)
    task = rig.upload(rig.file("a.tif", body), part_size=PART, ours=ours)
    if ours:
        rig.store.seed(task.key, b"our older version")
    rig.store.faults.append(replace(fault))
    (outcome,) = rig.run(task, parallel=parallel)
    assert outcome.verdict.value == "stored", outcome
    rig.store.flush_late()
    assert rig.store.body(task.key) == body
    assert rig.store.count("put_part") == -(-SIZE // PART) + -(-more // PART)
    if not parallel:  # else it depends on the threads which parts they are, and the last is a short one
        assert rig.store.sent("put_part") == SIZE + more
    assert rig.store.created(task.key) == (2 if ours else 1)
    assert outcome.stored is not None
    found = rig.store.find(task.key)
    assert found is not None and outcome.stored.etag == found.etag


def test_F48_a_forgotten_upload_is_begun_again(rig: Rig) -> None:
    body = os.urandom(SIZE)
    task = rig.upload(rig.file("a.tif", body), part_size=PART)
    rig.store.faults.append(Fault("put_part", skip=3, before=lambda _key: rig.store.forget_uploads()))
    assert verdicts(rig.run(task)) == ["stored"]
    assert rig.store.body(task.key) == body
    assert [event for event in rig.log.events if "part" not in event] == [
        "created upload-1",
        "lost",
        "created upload-2",
    ]


def test_F48_an_upload_forgotten_while_the_rig_was_off(rig: Rig) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    assert rig.run_until_killed(rig.upload(path, part_size=PART), "upload.part", skip=3)
    rig.store.forget_uploads()
    assert verdicts(rig.run(rig.upload(path, part_size=PART))) == ["stored"]
    assert rig.store.body("lab/inputs/a.tif") == body


def test_F48_an_upload_that_is_always_forgotten_is_given_up(rig: Rig) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(SIZE)), part_size=PART)
    rig.store.faults.append(Fault("put_part", times=None, error=lambda: NoSuchUpload("gone")))
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, NoSuchUpload)
    assert rig.store.count("create_multipart") == 4


@pytest.mark.parametrize("how", ["lost", "forgotten"])
def test_F48_F95_somebody_elses_object_of_equal_size_is_not_taken_for_ours(rig: Rig, how: str) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(SIZE)), part_size=PART)
    theirs = os.urandom(SIZE)

    def meddle(key: str) -> None:
        rig.store.seed(key, theirs)
        if how == "forgotten":
            rig.store.forget_uploads()

    rig.store.faults.append(Fault("complete_multipart", before=meddle))
    assert verdicts(rig.run(task)) == ["foreign"]
    assert rig.store.body(task.key) == theirs


def test_F48_parts_in_flight_come_back_before_the_upload_is_begun_again(rig: Rig) -> None:
    body = os.urandom(SIZE)
    task = rig.upload(rig.file("a.tif", body), part_size=PART)

    def wait(_key: str) -> None:
        deadline = time.monotonic() + 0.5
        while rig.store.count("create_multipart") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    rig.store.faults.append(Fault("put_part", before=wait))
    rig.store.faults.append(Fault("put_part", skip=1, before=lambda _key: rig.store.forget_uploads()))
    assert verdicts(rig.run(task, parallel=4)) == ["stored"]
    assert rig.store.body(task.key) == body
    assert rig.store.count("create_multipart") == 2


def foreign_whole(rig: Rig, key: str, body: bytes) -> None:
    rig.store.seed(key, b"somebody else's")


def foreign_of_equal_size(rig: Rig, key: str, body: bytes) -> None:
    rig.store.seed(key, os.urandom(len(body)))


@pytest.mark.parametrize("put_there", [foreign_whole, foreign_of_equal_size])
@pytest.mark.parametrize(("size", "look_first"), [(PART, False), (PART, True), (SIZE, False)])
def test_F95_what_is_not_ours_is_never_overwritten(
    rig: Rig, size: int, look_first: bool, put_there: Callable[[Rig, str, bytes], None]
) -> None:
    body = os.urandom(size)
    task = rig.upload(rig.file("a.tif", body), part_size=PART, look_first=look_first)
    put_there(rig, task.key, body)
    theirs = rig.store.body(task.key)
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "foreign"
    assert task.key in outcome.detail
    assert rig.store.body(task.key) == theirs
    assert rig.store.sent("put_part") == 0
    assert rig.store.sent("put") == (PART if size == PART and not look_first else 0)


@pytest.mark.parametrize("skip", range(6))
def test_F95_nor_what_comes_there_during_the_upload(rig: Rig, skip: int) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(SIZE)), part_size=PART)
    rig.store.faults.append(Fault("put_part", skip=skip, before=lambda key: rig.store.seed(key, b"theirs") and None))
    assert verdicts(rig.run(task)) == ["foreign"]
    assert rig.store.body(task.key) == b"theirs"


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, SIZE])
def test_adoption_with_a_fresh_journal_sends_nothing(rig: Rig, size: int) -> None:
    """Issue 5, item 3: what is in S3 already is recognised by size and recomputed ETag."""
    path = rig.file("a.tif", os.urandom(size))
    rig.run(rig.upload(path, part_size=PART))
    rig.log.uploads.clear()
    sent = len(rig.store.ops)
    (outcome,) = rig.run(rig.upload(path, part_size=PART, look_first=True))
    assert outcome.verdict.value == "stored"
    assert outcome.stored is not None and outcome.stored.adopted
    assert [op.name for op in rig.store.ops[sent:]] == ["find"]
    assert rig.store.created("lab/inputs/a.tif") == 1


def test_adoption_of_a_large_file_that_somebody_put_whole(rig: Rig) -> None:
    body = os.urandom(SIZE)
    task = rig.upload(rig.file("a.tif", body), part_size=PART)
    rig.store.seed(task.key, body)
    (outcome,) = rig.run(task)
    assert outcome.stored is not None and outcome.stored.adopted
    assert rig.store.count("create_multipart") == 0


def test_our_own_large_file_that_was_only_touched_is_not_sent_again(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(SIZE))
    rig.run(rig.upload(path, part_size=PART))
    rig.log.uploads.clear()
    os.utime(path)
    sent = rig.store.sent("put_part")
    assert verdicts(rig.run(rig.upload(path, part_size=PART, ours=True))) == ["stored"]
    assert rig.store.sent("put_part") == sent


@pytest.mark.parametrize("error", [Denied("the policy denies put"), BadCredentials("the token expired")])
def test_F53_F55_no_permission_fails_at_once_and_goes_on_with_the_same_upload(rig: Rig, error: Exception) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    rule = Fault("put_part", skip=3, times=None, error=error)  # type: ignore[arg-type]
    rig.store.faults.append(rule)
    (outcome,) = rig.run(rig.upload(path, part_size=PART))
    assert (outcome.verdict.value, outcome.error) == ("failed", error)
    assert rig.store.count("put_part") == 4
    rig.store.faults.clear()
    assert verdicts(rig.run(rig.upload(path, part_size=PART))) == ["stored"]
    assert rig.store.body("lab/inputs/a.tif") == body
    assert rig.store.count("create_multipart") == 1
    assert rig.store.sent("put_part") == SIZE + PART  # the refused one


def test_F39_an_outage_is_given_up_after_two_minutes_and_few_requests(rig: Rig) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(SIZE)), part_size=PART)
    rule = Fault("*", times=None, error=reset)
    rig.store.faults.append(rule)
    began = rig.clock.monotonic()
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, Unreachable)
    assert 60 < rig.clock.monotonic() - began <= 121
    assert len(rig.store.ops) < 15


def test_F39_twelve_hours_without_a_network(rig: Rig) -> None:
    """As the engine does it: the task is started again five minutes after each failure, until it gets through."""
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    outage = Fault("*", times=None, error=reset)
    rig.store.faults.append(Fault("put_part", skip=3, before=lambda _key: rig.store.faults.append(outage)))
    began = rig.clock.monotonic()
    while verdicts(rig.run(rig.upload(path, part_size=PART))) == ["failed"]:
        rig.clock.sleep(300)
        if rig.clock.monotonic() - began > 12 * 3600:
            rig.store.faults.clear()
    assert verdicts(rig.outcomes) == ["stored"]
    assert rig.store.body("lab/inputs/a.tif") == body
    assert rig.store.count("create_multipart") == 1
    assert len(rig.store.ops) < 12 * 60 * 2  # two requests a minute, while it lasted
    arrived = sum(op.sent for op in rig.store.ops if op.name == "put_part" and not op.error)
    assert arrived == SIZE


def test_F39_many_files_make_no_storm(rig: Rig) -> None:
    tasks = [rig.upload(rig.file(f"{n}.tif", os.urandom(10 + n)), part_size=PART) for n in range(300)]
    asked: list[float] = []

    def unreachable() -> Unreachable:
        asked.append(rig.clock.monotonic())
        return reset()

    rig.store.faults.append(Fault("*", times=None, error=unreachable))
    pool = rig.queued(*tasks)
    began = rig.clock.monotonic()
    pool.drain()
    assert verdicts(rig.outcomes) == ["failed"] * 300
    seconds = rig.clock.monotonic() - began
    assert len(asked) / seconds < 0.06  # requests a second, over all files
    assert max(sum(at <= other < at + 60 for other in asked) for at in asked) < 10


def test_F40_a_store_that_recovers_is_used_at_full_speed_again(rig: Rig) -> None:
    tasks = [rig.upload(rig.file(f"{n}.tif", os.urandom(10 + n)), part_size=PART) for n in range(300)]
    rig.store.faults.append(Fault("put", times=8, error=slow_down))
    pool = rig.queued(*tasks)
    began = rig.clock.monotonic()
    pool.drain()
    assert verdicts(rig.outcomes) == ["stored"] * 300
    assert rig.clock.monotonic() - began < 120


def test_F55_a_refused_analysis_is_asked_less_and_less_and_the_others_go_on(rig: Rig) -> None:
    refused = [rig.upload(rig.file(f"{n}.tif", b"x" * n), part_size=PART) for n in range(50)]
    others = [rig.upload(rig.file(f"o{n}.tif", b"x" * n), part_size=PART, analysis="dlc-ncap-web") for n in range(50)]
    rig.store.deny("put")
    pool = rig.queued(*refused, *others)
    pool.drain()
    ends = [(outcome.task.analysis, outcome.verdict.value) for outcome in rig.outcomes]
    assert ends.count((ANALYSIS, "failed")) == 50
    assert ends.count(("dlc-ncap-web", "stored")) == 50
    assert [analysis for analysis, _ in ends[:53]].count(ANALYSIS) <= 3


def test_a_listing_that_shows_another_object_after_complete_is_a_failure(rig: Rig) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(SIZE)), part_size=PART)
    rig.store.faults.append(Fault("find", skip=1, before=lambda key: rig.store.seed(key, b"theirs") and None))
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, Corrupted)
    assert outcome.stored is not None  # ours was there


def test_a_part_that_never_gets_through_does_not_send_the_others_again(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(SIZE))
    bad = Fault("put_part", skip=1, times=None, flip=3)
    task = rig.upload(path, part_size=PART)
    rig.store.faults.append(bad)
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, Corrupted)


def test_two_analyses_are_told_apart(rig: Rig) -> None:
    path = rig.file("a.tif", b"x")
    rig.run(rig.upload(path), rig.upload(path, analysis="dlc-ncap-web"))
    assert rig.store_of(ANALYSIS).keys() == rig.store_of("dlc-ncap-web").keys() == ["lab/inputs/a.tif"]
