"""A mount that hangs stops nothing but itself (F89), through the real daemon and a FUSE file system that stops answering."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from files.tiny_fuse import TinyFuse, mounted
from support.rig import BUCKET, GROUP, MIB, Rig, blob

from ncaasd.engine import root as waiting
from ncaasd.engine.arriving.uploading import QUEUED
from ncaasd.engine.loop import silence
from ncaasd.errors import DiskSilent
from ncaasd.model import FileState, JobState, Phase

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse here"),
]


@pytest.fixture
def share(tmp_path: Path) -> Iterator[TinyFuse]:
    try:
        with mounted(tmp_path / "backing", tmp_path / "share") as made:
            yield made
    except OSError as error:
        pytest.skip(f"FUSE cannot be mounted here: {error}")


def start(rig: Rig) -> None:
    env = rig.bench.sandbox.environment()
    rig.process = rig.bench.spawner.call("watching.hasty:daemon", rig.config, log=rig.log, env=env)


def troubles(rig: Rig) -> str:
    return "\n".join((rig.live() or {}).get("troubles", ()))


def of_share(rig: Rig) -> list[FileState]:
    return [f.state for f in rig.files() if f.place.tree == "slow"]


RULES = {
    "rules": [
        {"name": "share", "datasets": "*.bin", "config": "config.yaml", "source": "slow"},
        {"name": "local", "datasets": "*.bin", "config": "config.yaml"},
    ]
}


def test_F89_a_source_that_hangs_from_the_start(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    rig = new_rig(changes={"sources": {"slow": str(share.point)}})
    rig.drop_config()
    rig.drop("manifest.yaml", json.dumps(RULES))
    rig.drop("inputs/0.bin", blob(500, 0))
    (share.backing / "first.bin").write_bytes(blob(500, 10))
    share.hang()
    start(rig)
    rig.wait_for(lambda: rig.stored("0.bin"), "what is local")
    rig.wait_for(lambda: "does not answer" in troubles(rig), "the hanging mount to be said")
    share.answer()
    rig.wait_done(2)
    rig.wait_for(lambda: "does not answer" not in troubles(rig), "it to answer again")
    rig.stop()


def test_F89_an_analysis_that_hangs_from_the_start(new_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Its folder is a mount of its own below the root: the other analysis is served, and it itself when it answers."""
    rig = new_rig(changes={"analyses": {"other-analysis": {}}})
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/0.bin", blob(500, 0))
    with contextlib.ExitStack() as stack:
        try:
            share = stack.enter_context(mounted(tmp_path / "backing", Path(rig.root, "other-analysis")))
        except OSError as error:
            pytest.skip(f"FUSE cannot be mounted here: {error}")
        share.hang()
        start(rig)
        rig.wait_for(
            lambda: f"other-analysis: {share.point} does not answer" in troubles(rig), "the hanging one to be said"
        )
        rig.wait_done(1)
        share.answer()
        rig.wait_for(lambda: "does not answer" not in troubles(rig), "it to answer")
        rig.wait_for((share.backing / "results/.ncaasd-results").exists, "its folders to be made")

        def marked() -> str | None:
            with rig.reading() as journal:
                return journal.get_meta("results id:other-analysis")

        rig.wait_for(marked, "the folder's marker to be known")
        rig.stop()


def test_F89_a_root_that_hangs_from_the_start(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    for area in ("inputs", "configs", "submissions", "results"):
        (share.backing / BUCKET / area).mkdir(parents=True)
    rig = new_rig(changes={"root": str(share.point)})
    share.hang()
    start(rig)
    said = f"the root {share.point} does not answer: its mount hangs"
    rig.wait_for(lambda: said in rig.said(), "it to be said", timeout=30)
    assert rig.process is not None
    rig.process.signal(signal.SIGTERM)
    rig.wait_for(lambda: "stopped; everything goes on where it was" in rig.said(), "it to stop", timeout=10)
    share.answer()
    assert rig.dies(30) == 0
    share.hang()
    start(rig)
    rig.wait_for(lambda: rig.said().count(said) == 2, "it to be said again", timeout=30)
    (share.backing / BUCKET / "inputs/0.bin").write_bytes(blob(500, 0))
    share.answer()
    rig.wait_for(lambda: [f.place.path for f in rig.files()] == ["inputs/0.bin"], "it to be served")
    rig.stop()


def test_F89_a_pass_does_not_wait_for_a_root_that_hangs(share: TinyFuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "ROOT_WAIT", 0.5)
    share.hang()
    with pytest.raises(DiskSilent, match="does not answer"):
        waiting.root_answers(str(share.point), lambda: False, tell=lambda *_: None, forever=False)
    share.answer()
    assert waiting.root_answers(str(share.point), lambda: False, tell=lambda *_: None, forever=False)
    assert waiting.root_answers(str(share.point / "none"), lambda: False, tell=lambda *_: None, forever=False)


def said_once(rig: Rig, share: TinyFuse) -> None:
    """However many files wait: one sentence for the mount, in the log and in `status`, and none for a file."""
    rig.wait_for(lambda: rig.events("hanging"), "it to be journaled")  # it is shown before the commit
    assert [e.text for e in rig.events("hanging") if not e.analysis] == [silence(str(share.point))]
    assert silence(str(share.point)) in troubles(rig)
    assert rig.events("upload failed") == rig.events("fetch failed") == []


def test_F89_a_source_that_hangs_in_the_midst_of_its_uploads(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    """More files than the uploader takes up at a time, and older ones than what is local; large ones, too."""
    # So slow that it hangs long before all is up, however fast the server is.
    upload = {"parallel": 4, "bandwidth": "5 MB/s"}
    rig = new_rig(changes={"sources": {"slow": str(share.point)}, "upload": upload})
    rig.drop_config()
    rig.drop("manifest.yaml", json.dumps(RULES))
    names = [f"{number}.bin" for number in range(QUEUED + 60)]
    for number, name in enumerate(names):
        (share.backing / name).write_bytes(blob(20 * MIB if number == 1 else 100_000, number))
    start(rig)
    rig.wait_for(lambda: of_share(rig).count(FileState.STORED) >= 2, "the first of many from the share")
    share.hang()
    try:
        local = [f"local{number}.bin" for number in range(20)]
        for number, name in enumerate(local):
            rig.drop(f"inputs/{name}", blob(500, number))
        rig.wait_for(lambda: rig.stored(*local), "what is local, while uploads from the share hang", timeout=20)
        rig.wait_for(lambda: "does not answer" in troubles(rig), "the hanging mount to be said")
        said_once(rig, share)
        assert of_share(rig).count(FileState.WHOLE) > 60
    finally:
        share.answer()
    # 52 MB at that speed, and their results beside them
    rig.wait_for(lambda: of_share(rig) == [FileState.STORED] * len(names), "all of the share", timeout=180)
    rig.wait_for(lambda: "does not answer" not in troubles(rig), "it to answer again")
    rig.wait_for(lambda: rig.events("disk back"), "that to be journaled")
    assert [e.text for e in rig.events("disk back")] == [f"{share.point} answers again"]
    every = [f"{GROUP}/inputs/{rig.name}/{name}" for name in names + local]
    assert rig.bench.versions(f"inputs/{rig.name}/") == dict.fromkeys(every, 1), "none twice"
    rig.stop()


def test_F89_results_that_hang_in_the_midst_of_being_fetched(new_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Uploads and submits go on, and the results come when the share answers."""
    rig = new_rig(changes={"upload": {"parallel": 2}, "results": {"logs": "end"}})
    with contextlib.ExitStack() as stack:
        try:
            share = stack.enter_context(mounted(tmp_path / "backing", Path(rig.home, "results")))
        except OSError as error:
            pytest.skip(f"FUSE cannot be mounted here: {error}")
        rig.drop_config()
        rig.drop_rule()
        for number in range(6):
            rig.drop(f"inputs/first{number}.bin", blob(3 * MIB, number))
        start(rig)
        rig.wait_for(lambda: len(rig.bench.objects("results/")) > 0 and rig.jobs(), "jobs")
        rig.wait_for(lambda: any(j.state is JobState.FETCHING for j in rig.jobs()), "results to be fetched")
        share.hang()
        rig.wait_for(lambda: "does not answer" in troubles(rig), "the hanging mount to be said")
        for number in range(10):
            rig.drop(f"inputs/second{number}.bin", blob(500, 10 + number))
        rig.wait_for(
            lambda: (
                all(j.phase is Phase.SUBMITTED for j in rig.jobs() if "second" in j.spec.unit)
                and rig.stored(*(f"second{n}.bin" for n in range(10)))
            ),
            "uploads and submits to go on",
        )
        assert rig.events("fetch failed") == []
        assert len([e for e in rig.events() if "does not answer" in e.text]) <= 3, "its transfers, its checks, its scan"
        share.answer()
        rig.wait_done(16)
        assert "does not answer" not in troubles(rig)
        rig.check(16)
        rig.stop()


def test_F89_it_stops_when_told_to_while_uploads_hang(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    rig = new_rig(changes={"sources": {"slow": str(share.point)}, "upload": {"parallel": 4}})
    rig.drop_config()
    rig.drop("manifest.yaml", json.dumps(RULES))
    for number in range(40):
        (share.backing / f"{number}.bin").write_bytes(blob(300_000, number))
    start(rig)
    rig.wait_for(lambda: of_share(rig).count(FileState.STORED) >= 2, "the first of many from the share")
    share.hang()
    rig.wait_for(lambda: silence(str(share.point)) in troubles(rig), "the hanging mount to be said")
    assert rig.process is not None
    rig.process.signal(signal.SIGTERM)
    rig.wait_for(lambda: "stopped; everything goes on where it was" in rig.said(), "it to stop", timeout=15)
    share.answer()
    assert rig.dies(30) == 0
    start(rig)
    rig.wait_for(lambda: of_share(rig) == [FileState.STORED] * 40, "all of the share")
    rig.stop()


def test_F89_it_stops_when_told_to_while_a_mount_hangs(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    """The kernel lets a process go only when FUSE has answered what it was asked; everything else is over within seconds."""
    rig = new_rig(changes={"sources": {"slow": str(share.point)}})
    (share.backing / "first.bin").write_bytes(blob(500, 10))
    start(rig)
    rig.wait_for(lambda: (rig.live() or {}).get("watching", {}).get(f"{BUCKET}:slow"), "the share to be watched")
    share.hang()
    rig.wait_for(lambda: "does not answer" in troubles(rig), "the hanging mount to be said")
    assert rig.process is not None
    rig.process.signal(signal.SIGTERM)
    rig.wait_for(lambda: "stopped; everything goes on where it was" in rig.said(), "it to stop", timeout=30)
    share.answer()
    assert rig.dies(30) == 0
