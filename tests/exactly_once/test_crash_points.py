"""SIGKILL at every named point of the code, a restart, and everything is as if nothing had happened (F01-F10)."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable

import pytest
from fakes.fault_proxy import Rule
from support.rig import BUCKET, GROUP, MIB, Bench, Rig, blob

from ncaasd.adapters.transfers import CRASH_POINTS
from ncaasd.engine.core.crash import ENGINE_POINTS
from ncaasd.model import FileState, Phase

BIG = 20 * MIB  # three parts up, two ranges down

# Each point, and the first and a later permit of it. Three datasets are three jobs, and one of them is large.
POINTS = (
    ("F01", "submit.before_intent:1"),
    ("F01", "submit.before_intent:3"),
    ("F02", "submit.intended:1"),
    ("F02", "submit.intended:2"),
    ("F100", "submit.counted:1"),
    ("F100", "submit.counted:3"),
    ("F100", "submit.marked:1"),
    ("F100", "submit.marked:2"),
    ("F02", "submit.attempted:1"),
    ("F02", "submit.attempted:3"),
    ("F04", "submit.put:1"),
    ("F04", "submit.put:2"),
    ("opening", "open.committed:1"),
    ("small_file", "upload.put:1"),
    ("small_file", "upload.put:3"),
    ("F05", "upload.created:1"),
    ("F05", "upload.logged:1"),
    ("F06", "upload.part:1"),
    ("F06", "upload.part:3"),
    ("F07", "upload.parts_done:1"),
    ("F08", "upload.completed:1"),
    ("F09", "download.range:1"),
    ("F09", "download.range:2"),
    ("F09", "download.written:1"),
    ("F09", "download.written:9"),
    ("F10", "download.renamed:1"),
    ("F10", "download.renamed:7"),
)


def dropped(rig: Rig) -> int:
    """Three recordings and a rule; how many jobs that makes."""
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/small.bin", blob(90_000, 1))
    rig.drop("inputs/m7/other.bin", blob(70_000, 2))
    rig.drop("inputs/big.bin", blob(BIG, 3))
    return 3


def test_every_point_is_in_the_table() -> None:
    assert {point.partition(":")[0] for _row, point in POINTS} == {*ENGINE_POINTS, *CRASH_POINTS}


@pytest.mark.parametrize(("row", "point"), POINTS, ids=[f"{row}-{point}" for row, point in POINTS])
def test_crash_and_converge(rig: Rig, row: str, point: str) -> None:
    jobs = dropped(rig)
    rig.start(point, command=False)
    rig.crashes()
    rig.start(command=False)
    rig.wait_done(jobs)
    rig.stop()
    rig.check(jobs)


def test_one_life_for_each_point(rig: Rig) -> None:
    """The same rig killed at every point, one after the other: at each start something else is half done."""
    jobs = dropped(rig)
    points = (*ENGINE_POINTS[:1], *CRASH_POINTS[:6], *ENGINE_POINTS[1:], *CRASH_POINTS[6:])
    passed = 0
    for point in points:
        rig.start(point, command=False)
        if rig.process is not None and rig.process.wait(8.0) == -signal.SIGKILL:
            passed += 1
        rig.kill()
    rig.start(command=False)
    rig.wait_done(jobs)
    rig.stop()
    rig.check(jobs)
    assert passed >= len(points) - 2, f"only {passed} of {len(points)} points were passed"


# -- what exactly is done again


def parts_sent(rig: Rig, since: int) -> dict[int, int]:
    """Part number -> bytes of it that came in after the first `since` requests."""
    assert rig.proxy is not None
    found: dict[int, int] = {}
    for seen in rig.proxy.seen[since:]:
        number = re.search(r"partNumber=(\d+)", seen.query)
        if seen.method == "PUT" and number:
            found[int(number[1])] = found.get(int(number[1]), 0) + seen.received
    return found


def requests(rig: Rig, since: int, method: str, path: str, query: str = "") -> int:
    assert rig.proxy is not None
    return sum(
        bool(re.search(method, s.method) and re.search(path, s.path) and re.search(query, s.query))
        for s in rig.proxy.seen[since:]
    )


@pytest.fixture
def slow(new_rig: Callable[..., Rig]) -> Rig:
    """A rig behind a proxy, which sends one part at a time, with one large recording and no job."""
    rig = new_rig(proxy=True, changes={"upload": {"parallel": 1}})
    rig.drop("inputs/big.bin", blob(3 * 8 * MIB, 4))
    return rig


def restarted(rig: Rig) -> int:
    """Start again, and wait until the recording is stored; how many requests there had been before."""
    assert rig.proxy is not None
    before = len(rig.proxy.seen)
    rig.start(command=False)
    rig.wait_for(lambda: rig.stored("big.bin"), "the recording to be stored")
    rig.stop()
    rig.check_inputs()
    return before


def test_F05_an_upload_whose_id_was_not_committed_is_left_without_parts(slow: Rig, shared: Bench) -> None:
    slow.start("upload.created:1", command=False)
    slow.crashes()
    restarted(slow)
    key = f"{GROUP}/inputs/{slow.name}/big.bin"
    uploads = shared.admin.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", [])
    assert len(uploads) == 1, "the orphan, and the other one was completed"
    parts = shared.admin.list_parts(Bucket=BUCKET, Key=key, UploadId=uploads[0]["UploadId"]).get("Parts", [])
    assert parts == []


def test_F06_only_the_part_in_flight_is_sent_again(slow: Rig) -> None:
    assert slow.proxy is not None
    slow.proxy.rules.append(Rule(method="PUT", query="partNumber=2", throttle=4.0 * MIB))
    slow.start(command=False)

    def in_the_middle() -> bool:
        return any("partNumber=2" in s.query and s.received > 2 * MIB for s in slow.proxy.seen)  # type: ignore[union-attr]

    slow.wait_for(in_the_middle, "part 2 to be on its way")
    slow.kill()
    before = parts_sent(slow, 0)
    assert before[1] == 8 * MIB and 2 * MIB < before[2] < 8 * MIB
    again = parts_sent(slow, restarted(slow))
    assert again == {2: 8 * MIB, 3: 8 * MIB}


def test_F07_only_complete_is_sent(slow: Rig) -> None:
    slow.start("upload.parts_done:1", command=False)
    slow.crashes()
    since = restarted(slow)
    assert parts_sent(slow, since) == {}
    assert requests(slow, since, "POST", "big.bin") == 1
    assert requests(slow, since, "POST", "big.bin", "uploadId=") == 1


def test_F08_a_completed_upload_is_adopted(slow: Rig) -> None:
    slow.start("upload.completed:1", command=False)
    slow.crashes()
    assert not slow.stored("big.bin")
    since = restarted(slow)
    assert parts_sent(slow, since) == {}
    # Complete may be asked for once more, and is told that the upload is gone; nothing new is created.
    assert requests(slow, since, "POST", "big.bin", "^uploads") == 0
    assert any("was in S3 already" in event.text for event in slow.events("stored"))


def test_F03_killed_while_the_answer_of_the_submit_is_on_its_way(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(proxy=True)
    assert rig.proxy is not None
    killed = threading.Event()

    def kill(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        rig.kill()
        killed.set()
        return headers, body

    rig.proxy.rules.append(Rule(method="PUT", path="submit.json", edit_response=kill))
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(1000, 5))
    rig.start(command=False)
    assert killed.wait(30), rig.tail()
    assert rig.job().phase is Phase.ATTEMPTED
    assert rig.submits() == {rig.job().submit_key: 1}, "it was applied"
    rig.start(command=False)
    rig.wait_done(1)
    assert rig.events("adopted") and not rig.events("submitted")
    rig.stop()
    rig.check(1)


def test_F03_the_answer_of_the_submit_is_lost(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(proxy=True)
    assert rig.proxy is not None
    rig.proxy.rules.append(Rule(method="PUT", path="submit.json", lose_answer=True))
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(1000, 6))
    rig.start(command=False)
    rig.wait_done(1)
    assert rig.events("adopted") and not rig.events("submitted")
    rig.stop()
    rig.check(1)


def final_names(rig: Rig) -> set[str]:
    """Names of fetched results."""
    results = os.path.join(rig.home, "results")
    return {n for parent, _folders, names in os.walk(results) if "process_results" in parent for n in names}


def test_F09_the_rest_of_a_download_is_fetched_by_range(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(proxy=True, changes={"upload": {"parallel": 1}})
    assert rig.proxy is not None
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/big.bin", blob(40 * MIB, 7))  # 16 + 16 + 8 MiB down
    rig.start("download.range:2", command=False)
    rig.crashes()
    assert "big.bin" not in final_names(rig)
    with rig.reading() as journal:
        wanted = next(a for a in journal.artefacts(rig.job().row) if a.name.endswith("big.bin"))
    assert wanted.ranges == ((0, 16 * MIB),)
    since = len(rig.proxy.seen)
    rig.start(command=False)
    rig.wait_done(1)
    ranges = [
        s.headers.get("range") for s in rig.proxy.seen[since:] if s.method == "GET" and s.path.endswith("big.bin")
    ]
    assert ranges == [f"bytes={16 * MIB}-{32 * MIB - 1}", f"bytes={32 * MIB}-{40 * MIB - 1}"]
    rig.stop()
    rig.check(1)


@pytest.mark.parametrize("size", [50_000, BIG], ids=["one request", "ranges"])
def test_F10_a_result_in_place_is_verified_and_adopted(new_rig: Callable[..., Rig], size: int) -> None:
    rig = new_rig(proxy=True, changes={"results": {"logs": "never"}})
    assert rig.proxy is not None
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(size, 8))
    rig.start("download.renamed:4", command=False)  # the last of them: the recording, the config, and two markers
    rig.crashes()
    assert final_names(rig) >= {"a.bin", "end.txt", "update.txt"}
    since = len(rig.proxy.seen)
    rig.start(command=False)
    rig.wait_done(1)
    assert requests(rig, since, "GET", "/process_results/(?!end.txt)") == 0, "the bytes are here"
    rig.stop()
    rig.check(1)


def test_a_file_is_not_stored_before_it_is(rig: Rig) -> None:
    """The check itself can fail: a version more of an input, or of a submit file, is seen."""
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(1000, 9))
    rig.start(command=False)
    rig.wait_done(1)
    rig.stop()
    rig.check(1)
    assert next(f for f in rig.files() if f.place.path == "inputs/a.bin").state is FileState.STORED
    rig.bench.put(f"inputs/{rig.name}/a.bin", blob(1000, 9))
    with pytest.raises(AssertionError, match="each file is stored once"):
        rig.check_inputs()
    key = rig.job().submit_key
    rig.bench.put(key.removeprefix(f"{GROUP}/"), rig.job().body)
    with pytest.raises(AssertionError, match="each job is submitted once"):
        rig.check_submits(1)
