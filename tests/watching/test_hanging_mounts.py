"""A mount that hangs stops nothing but itself (F89), through the real daemon and a FUSE file system that stops answering."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from files.tiny_fuse import TinyFuse, mounted
from support.rig import BUCKET, Rig, blob

from ncaasd.model import FileState

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


@pytest.mark.xfail(
    strict=True,
    reason="reads of a hanging mount occupy every thread of the transfer pool: what is local waits with them",
)
def test_F89_a_source_that_hangs_in_the_midst_of_its_uploads(new_rig: Callable[..., Rig], share: TinyFuse) -> None:
    rig = new_rig(changes={"sources": {"slow": str(share.point)}, "upload": {"parallel": 4}})
    rig.drop_config()
    rig.drop("manifest.yaml", json.dumps(RULES))
    for number in range(40):
        (share.backing / f"{number}.bin").write_bytes(blob(300_000, number))
    start(rig)
    rig.wait_for(lambda: of_share(rig).count(FileState.STORED) >= 2, "the first of many from the share")
    share.hang()
    try:
        rig.drop("inputs/1.bin", blob(500, 1))
        rig.wait_for(lambda: rig.stored("1.bin"), "what is local, while uploads from the share hang", timeout=20)
    finally:
        share.answer()
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
