"""F77: a second daemon on the same state or root is refused; two hosts with the same tree still submit once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
import yaml
from support.rig import MIB, Rig, blob

from ncaasd.model import FileState


def config_of(rig: Rig, name: str, **changes: object) -> str:
    """A copy of a rig's config, with changes; its path."""
    with open(rig.config, encoding="utf-8") as file:
        wanted = yaml.safe_load(file)
    path = os.path.join(rig.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump({**wanted, **changes}, file)
    return path


@pytest.mark.parametrize("same", ["state", "root"])
def test_F77_a_second_daemon_is_refused_with_the_pid_of_the_first(rig: Rig, same: str) -> None:
    process = rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")
    other = rig.config if same == "state" else config_of(rig, "other.yaml", state=os.path.join(rig.folder, "state2"))
    log = os.path.join(rig.folder, "log2")
    second = rig.bench.spawner.call("support.work:refused", other, log=log, env=rig.bench.sandbox.environment())
    assert second.wait(30) == 0, second.said()
    assert f"pid {process.pid}" in second.said()
    assert process.running() and rig.live(), "the first one goes on"


def test_F77_the_lock_goes_with_its_holder(rig: Rig) -> None:
    rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")
    rig.kill()
    rig.start(command=False)
    rig.wait_for(rig.live, "the next daemon to answer")
    rig.stop()


def test_F77_two_hosts_with_the_same_tree_submit_once(new_rig: Callable[..., Rig]) -> None:
    """The same prefix, rule and recordings, from two roots with two states: the ids are the same, and S3 decides."""
    first = new_rig()
    second = new_rig(changes={"rig": f"{first.name}-b", "upload": {"prefix": f"{first.name}/"}})
    second.name = first.name  # its keys
    for number in range(6):
        first.drop(f"inputs/{number}.bin", blob(30_000 + number, number))
    first.drop("inputs/big.bin", blob(20 * MIB, 9))
    first.drop_config()
    first.drop_rule()
    shutil.copytree(first.home, second.home, dirs_exist_ok=True)
    shutil.rmtree(os.path.join(second.home, "results"))
    first.start(command=False)
    second.start(command=False)
    first.wait_done(7)
    second.wait_done(7)
    first.stop()
    second.stop()
    assert {j.job_id for j in first.jobs()} == {j.job_id for j in second.jobs()}
    first.check(7, raced=("big.bin",))
    second.check(7, raced=("big.bin",))
    adopted = len(first.events("adopted")) + len(second.events("adopted"))
    submitted = len(first.events("submitted")) + len(second.events("submitted"))
    assert adopted + submitted == 14 and submitted <= 7


def test_F77_the_same_name_with_other_content_is_held(new_rig: Callable[..., Rig]) -> None:
    first = new_rig()
    second = new_rig(changes={"rig": f"{first.name}-b", "upload": {"prefix": f"{first.name}/"}})
    second.name = first.name
    for rig in (first, second):
        rig.drop_config()
        rig.drop_rule()
    first.drop("inputs/a.bin", blob(1000, 1))
    second.drop("inputs/a.bin", blob(1000, 2))
    first.start(command=False)
    first.wait_done(1)
    second.start(command=False)
    second.wait_for(lambda: any(f.state is FileState.HELD for f in second.files()), "the other's file to be held")
    first.stop()
    second.stop()
    first.check(1)
    assert not second.events("submitted")
