"""Random faults, kills and changes, over several lives: what is in place at the end is whole, equal, and there once."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

from fakes.memory_store import Fault
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from transfer_rig import KIB, RANGE, Killed, Rig

from ncaasd.adapters.transfers import CRASH_POINTS
from ncaasd.errors import Busy, NoSuchUpload, Throttled, Unreachable
from ncaasd.model import DownloadTask, Outcome, UploadTask, Verdict

PART = KIB
LIVES = 40

UP_OPS = ["put", "put_part", "create_multipart", "complete_multipart", "find"]
ERRORS = {"reset": Unreachable, "slow": Throttled, "busy": Busy}


@st.composite
def faults(draw: st.DrawFn, ops: list[str]) -> Fault:
    op = draw(st.sampled_from(ops))
    skip = draw(st.integers(0, 6))
    times = draw(st.integers(1, 3))
    kinds = [*ERRORS, "lost", "late", "twice"]
    if op in ("put", "put_part"):
        kinds.append("flip")
    if op in ("get",):
        kinds = [*ERRORS, "flip", "cut"]
    if op in ("put_part", "complete_multipart"):
        kinds.append("forgotten")
    kind = draw(st.sampled_from(kinds))
    rule = Fault(op, skip=skip, times=times)
    if kind in ERRORS:
        rule.error = lambda: ERRORS[kind](kind)
    elif kind == "forgotten":
        rule.error, rule.times = NoSuchUpload("forgotten"), 1
    elif kind == "lost":
        rule.lost = True
    elif kind == "late":
        rule.late = draw(st.integers(0, 5))
    elif kind == "twice":
        rule.twice = True
    elif kind == "flip":
        rule.flip = draw(st.integers(0, 5000))
    else:
        rule.cut = draw(st.integers(0, RANGE))
    return rule


def points(kind: str) -> st.SearchStrategy[tuple[str, int]]:
    """Where to kill, or to change something: the crash point, and how often it was passed before."""
    names = [name for name in CRASH_POINTS if name.startswith(kind)]
    return st.tuples(st.sampled_from(names), st.integers(0, 3))


def one_life(rig: Rig, task: UploadTask | DownloadTask, kill: tuple[str, int] | None, change: object) -> Outcome | None:
    """The outcome; None when the process was killed before."""
    left = {"kill": kill[1] if kill else -1, "change": change[1] if isinstance(change, tuple) else -1}

    def crash(point: str) -> None:
        if isinstance(change, tuple) and point == change[0]:
            if left["change"] == 0:
                change[2]()
            left["change"] -= 1
        if kill and point == kill[0]:
            if left["kill"] == 0:
                raise Killed
            left["kill"] -= 1

    pool = rig.life(crash=crash)
    try:
        pool.start(task)
    except Killed:
        return None
    (outcome,) = rig.outcomes
    return outcome


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(0, 8 * PART),
    rules=st.lists(faults(UP_OPS), max_size=5),
    kills=st.lists(points("upload"), max_size=4),
    changes=st.lists(st.tuples(points("upload"), st.sampled_from(["rewrite", "append", "truncate"])), max_size=2),
    ours=st.booleans(),
)
def test_F31_F38_F48_uploads(
    size: int,
    rules: list[Fault],
    kills: list[tuple[str, int]],
    changes: list[tuple[tuple[str, int], str]],
    ours: bool,
) -> None:
    noise = random.Random(size)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        path = rig.file("a.tif", noise.randbytes(size))
        key = "lab/inputs/a.tif"
        versions = {path.read_bytes()}
        if ours:
            rig.store.seed(key, b"our older version")
            versions.add(b"our older version")
        rig.store.faults.extend(rules)

        def change(how: str) -> None:
            body = path.read_bytes()
            if how == "rewrite":
                path.write_bytes(noise.randbytes(len(body)))
            elif how == "append":
                path.write_bytes(body + noise.randbytes(PART))
            else:
                path.write_bytes(body[: len(body) // 2])
            versions.add(path.read_bytes())

        outcome: Outcome | None = None
        for _ in range(LIVES):
            task = rig.upload(path, part_size=PART, ours=ours)
            kill = kills.pop() if kills else None
            when = changes.pop() if changes else None
            how = (when[0][0], when[0][1], lambda how=when[1]: change(how)) if when else None
            outcome = one_life(rig, task, kill, how)
            for version in rig.store._versions.get(key, []):
                assert version.body in versions, "a mix of versions is in S3"
            if outcome is None:
                continue
            event(outcome.verdict.value)
            ours = ours or outcome.stored is not None
            if outcome.verdict is Verdict.CHANGED:
                rig.log.uploads.clear()  # what the engine does: the parts were another version's
                continue
            if outcome.verdict in (Verdict.STORED, Verdict.FOREIGN):
                break
            assert outcome.verdict is Verdict.FAILED, outcome
        assert outcome is not None
        if outcome.verdict is Verdict.STORED:
            assert rig.store.body(key) == path.read_bytes()
            rig.store.flush_late()
            assert rig.store.body(key) in versions
        else:  # a version of ours whose answer nobody heard, and the file changed after that
            assert outcome.verdict is Verdict.FOREIGN and len(versions) > 1, outcome


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(0, 6 * RANGE),
    rules=st.lists(faults(["get", "checksum"]), max_size=5),
    kills=st.lists(points("download"), max_size=4),
    lost=st.sets(st.integers(0, 6)),
    replaced=st.none() | points("download"),
    data=st.data(),
)
def test_F09_F10_F38_downloads(
    size: int,
    rules: list[Fault],
    kills: list[tuple[str, int]],
    lost: set[int],
    replaced: tuple[str, int] | None,
    data: st.DataObject,
) -> None:
    noise = random.Random(size)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        name = "process_results/out.bin"
        versions = {noise.randbytes(size)}
        task = rig.download(name, next(iter(versions)))
        rig.store.faults.extend(rules)

        def replace() -> None:
            body = noise.randbytes(size)
            versions.add(body)
            rig.store.seed(task.key, body)

        place = rig.results.root / task.folder / name
        outcome: Outcome | None = None
        for life in range(LIVES):
            if life in lost:  # somebody tidies up
                for temporary in rig.results.temporaries():
                    os.unlink(rig.results.temporary / temporary)
            task = rig.download(name)
            change = (*replaced, replace) if replaced and life == 0 else None
            outcome = one_life(rig, task, kills.pop() if kills else None, change)
            assert not place.exists() or place.read_bytes() in versions, "a mix is under the final name"
            if outcome is None:
                continue
            event(outcome.verdict.value)
            if outcome.verdict is Verdict.FETCHED:
                break
            assert outcome.verdict in (Verdict.REPLACED, Verdict.FAILED), outcome
            assert outcome.verdict is not Verdict.REPLACED or len(versions) > 1
        assert outcome is not None and outcome.verdict is Verdict.FETCHED
        assert place.read_bytes() in versions
        assert rig.results.unsynced == []
        found = rig.store.find(task.key)
        assert found is not None
        if found.etag == task.etag:
            assert place.read_bytes() == rig.store.body(task.key)
