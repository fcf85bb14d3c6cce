"""What is declared is done once: dropped again, edited, changed, deleted locally (F87, F88)."""

from __future__ import annotations

import os
import shutil
import time

import yaml
from support.rig import GROUP, Rig, blob

from ncaasd.adapters import control
from ncaasd.model import FileState
from ncaasd.show.status import changed_since


def settle(rig: Rig) -> None:
    """Until the daemon has read all that was dropped, and had the time for whatever it makes of it."""
    rig.wait_for(
        lambda: not any(f.state in (FileState.SETTLING, FileState.WHOLE) for f in rig.files()), "all files to be used"
    )
    time.sleep(1.0)


def test_F87_dropped_again_with_data_or_config_changed_since(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop_job("pair", "a.bin", "b.bin")
    rig.drop("inputs/a.bin", blob(10_000, 1))
    rig.drop("inputs/b.bin", blob(10_000, 2))
    rig.start(command=False)
    rig.wait_done(3)

    rig.drop_job("pair", "a.bin", "b.bin")  # the same again
    settle(rig)
    rig.drop_job("pair", "a.bin", "b.bin", set={"window": 5})  # edited
    rig.drop_config(window=9)
    settle(rig)
    with rig.reading() as journal:
        assert changed_since(journal, journal.jobs()) == []
    rig.drop("inputs/a.bin", blob(12_000, 3))  # new data under the old name
    settle(rig)
    rig.drop_job("pair", "a.bin", "b.bin")
    rig.drop_rule(exclude="nothing*")
    settle(rig)
    rig.kill()
    rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")
    settle(rig)
    rig.stop()

    assert rig.done(3)
    rig.check_submits(3)
    assert rig.bench.versions(f"inputs/{rig.name}/") == {
        f"{GROUP}/inputs/{rig.name}/a.bin": 2,  # its new version was put when the jobs had ended
        f"{GROUP}/inputs/{rig.name}/b.bin": 1,
    }
    with rig.reading() as journal:
        shown = changed_since(journal, journal.jobs())
    assert len(shown) == 2, "the rule's job of a.bin, and the pair"
    assert all("already job" in s.why and "ncaasd rerun" in s.command for s in shown)


def test_F88_what_is_deleted_here_is_not_fetched_again_nor_deleted_there(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_job("one", "a.bin")
    rig.drop_job("two", "b.bin")
    rig.drop("inputs/a.bin", blob(10_000, 1))
    rig.drop("inputs/b.bin", blob(10_000, 2))
    rig.start(command=False)
    rig.wait_done(2)
    there = rig.bench.objects("")
    one, two = (os.path.join(rig.home, "results", rig.job(name).results) for name in ("one", "two"))
    shutil.rmtree(one)
    os.rename(two, two + ".mine")
    os.unlink(os.path.join(rig.home, "inputs/a.bin"))
    os.rename(os.path.join(rig.home, "inputs/b.bin"), os.path.join(rig.home, "inputs/renamed.bin"))
    os.unlink(os.path.join(rig.home, "submissions/one.yaml"))
    rig.wait_for(
        lambda: rig.stored("renamed.bin") and _gone(rig) == {"inputs/a.bin", "inputs/b.bin", "submissions/one.yaml"},
        "the daemon to have seen it",
    )
    rig.kill()
    rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")
    time.sleep(3.0)  # more than a rescan

    assert not os.path.exists(one) and not os.path.exists(two), "nothing is fetched again"
    now = rig.bench.objects("")
    assert {key: now.get(key) for key in there} == there, "nothing is deleted in S3"
    rig.check_submits(2)

    answer = control.ask(rig.state, {"do": "fetch", "ids": ["one"]})
    assert answer is not None and [effect["done"] for effect in answer["effects"]] == [True]
    rig.wait_for(lambda: os.path.exists(os.path.join(one, "job.json")), "the results to be fetched on request")
    with open(os.path.join(one, "process_results", "a.bin"), "rb") as file:
        assert file.read() == blob(10_000, 1)
    assert not os.path.exists(two)
    rig.stop()
    rig.check_submits(2)


def _gone(rig: Rig) -> set[str]:
    return {f.place.path for f in rig.files() if f.state is FileState.GONE}


def test_F36_an_edited_manifest_makes_no_job_of_what_was_submitted(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_done(1)
    for changes in ({"set": {"window": 4}}, {"instance_type": "m5.large"}, {"datasets": "*.bin"}):
        rig.drop_rule(**changes)
        settle(rig)
    text = yaml.safe_dump({"rules": [{"name": "all", "datasets": "a.*", "config": "other.yaml"}]})
    rig.drop("manifest.yaml", text)
    rig.drop("configs/other.yaml", "window: 8\n")
    settle(rig)
    rig.stop()
    rig.check(1)
