"""Through the real daemon: files and disks that come and go, while it runs and while it is down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.rig import BUCKET, Rig, blob, run_command

from ncaasd.model import FileState

Bind = Callable[[Path, Path], Callable[[], None]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def states(rig: Rig) -> dict[str, FileState]:
    return {f.place.path.removeprefix("inputs/"): f.state for f in rig.files() if f.place.path.startswith("inputs/")}


def troubles(rig: Rig) -> str:
    return "\n".join((rig.live() or {}).get("troubles", ()))


def test_F25_F27_F32_changes_while_it_runs_and_while_it_is_down(rig: Rig) -> None:
    inputs = Path(rig.home, "inputs")
    # A rule whose config is not there yet: its jobs wait, their data is stored.
    rig.drop_rule(datasets="later/*.bin", name="later", config="late.yaml")
    names = ("later/out.bin", "later/stays.bin", "same.bin", "grows.bin", "goes.bin", "old-name.bin")
    for seed, name in enumerate(names):
        rig.drop(f"inputs/{name}", blob(5000, seed))
    rig.start(command=False)
    rig.wait_for(lambda: rig.stored(*names) and len(rig.jobs()) == 2, "all to be stored, and two jobs to wait")

    # F25: moved out of the tree before the submit: its job is cancelled, and what is in S3 stays.
    os.rename(inputs / "later/out.bin", Path(rig.root, "moved-out.bin"))
    rig.wait_for(lambda: len(rig.jobs()) == 1, "the job of what was moved out to be cancelled")
    assert rig.bench.versions(f"inputs/{rig.name}/later/out.bin")

    # F27: while it is down.
    rig.kill()
    before = rig.bench.versions(f"inputs/{rig.name}/")
    same = inputs / "same.bin"
    old = same.stat()
    same.write_bytes(blob(5000, 99))  # F32: the same size, and the same mtime
    os.utime(same, ns=(old.st_atime_ns, old.st_mtime_ns))
    with open(inputs / "grows.bin", "ab") as file:
        file.write(b"more")
    os.unlink(inputs / "goes.bin")
    os.rename(inputs / "old-name.bin", inputs / "new-name.bin")
    shutil.copytree(inputs / "later", Path(rig.root, "whole-session"))
    os.rename(Path(rig.root, "whole-session"), inputs / "came")
    rig.drop("configs/late.yaml", "window: 3\n")
    rig.start(command=False)
    rig.wait_done(1)
    rig.wait_for(lambda: rig.stored("same.bin", "grows.bin", "new-name.bin", "came/stays.bin"), "what has changed")
    rig.wait_for(lambda: states(rig)["goes.bin"] is FileState.GONE, "what was deleted to be noticed")
    assert states(rig)["old-name.bin"] is FileState.GONE

    after = rig.bench.versions(f"inputs/{rig.name}/")
    key = {name: next(k for k in after if k.endswith(f"{rig.name}/{name}")) for name in (*names, "new-name.bin")}
    for name in ("same.bin", "grows.bin", "new-name.bin"):
        assert rig.bench.body(key[name]) == (inputs / name).read_bytes()
    sent_again = {name for name in names if after[key[name]] != before[key[name]]}
    assert sent_again == {"same.bin", "grows.bin"}, "and nothing else; nothing is deleted in S3"
    rig.drop("inputs/later/another.bin", blob(10, 7))
    rig.wait_done(2)
    assert {j.spec.unit for j in rig.jobs()} == {"later/stays.bin", "later/another.bin"}
    assert list(rig.submits().values()) == [1, 1]
    rig.stop()


def test_F26_a_root_that_goes_and_a_folder_that_is_suddenly_empty(rig: Rig) -> None:
    """Nothing is concluded from either, running or starting; afterwards it goes on as if nothing had been."""
    rig.drop_config()
    rig.drop_rule()
    for number in range(8):
        rig.drop(f"inputs/{number}.bin", blob(100, number))
    rig.start(command=False)
    rig.wait_done(8)
    before = rig.bench.versions(f"inputs/{rig.name}/")
    home, away = Path(rig.home), Path(rig.root, "away")

    def nothing_is_gone() -> None:
        assert FileState.GONE not in states(rig).values()

    home.rename(away)
    rig.wait_for(lambda: "mount it" in troubles(rig), "the missing folder to be said")
    nothing_is_gone()
    home.mkdir()
    (home / "inputs").mkdir()  # as an unmounted disk leaves its mount point behind

    def said() -> bool:
        return any(text in troubles(rig) for text in ("is not there", "is suddenly empty", "is empty, but"))

    rig.wait_for(said, "the empty folder to be said")
    nothing_is_gone()
    rig.kill()
    rig.start(command=False)
    rig.wait_for(said, "it to be said after a start as well")
    nothing_is_gone()
    assert not list((home / "inputs").iterdir())
    home.rename(Path(rig.root, "unmounted"))
    away.rename(home)
    rig.wait_for(lambda: not troubles(rig), "the trouble to be over")
    rig.drop("inputs/new.bin", blob(100, 9))
    rig.wait_done(9)
    nothing_is_gone()
    after = rig.bench.versions(f"inputs/{rig.name}/")
    assert {k: n for k, n in after.items() if k in before} == before, "nothing was sent again"
    assert rig.events("root missing") and rig.events("root back")
    rig.stop()


def test_F26_what_an_earlier_process_called_missing_is_said_to_be_back(rig: Rig) -> None:
    home, away = Path(rig.home), Path(rig.root, "away")
    rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")
    home.rename(away)
    rig.wait_for(lambda: rig.events("root missing"), "the missing folder to be said")
    rig.kill()
    assert not rig.events("root back")
    away.rename(home)
    rig.start(command=False)
    rig.wait_for(lambda: len(rig.events("root back")) == 1, "its return to be said")
    rig.stop()
    rig.start(command=False)
    rig.drop("inputs/new.bin", blob(100, 1))
    rig.wait_for(lambda: rig.stored("new.bin"), "the next process to work")
    assert len(rig.events("root back")) == 1, "and only once"
    rig.stop()


@needs_root
def test_F90_results_on_a_share_that_is_unmounted(rig: Rig, tmp_path: Path, bind: Bind) -> None:
    share, results = tmp_path / "share", Path(rig.home, "results")
    share.mkdir()
    unmount = bind(share, results)
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(100, 1))
    rig.start(command=False)
    rig.wait_done(1)
    unmount()
    rig.drop("inputs/second.bin", blob(100, 2))
    rig.wait_for(lambda: "results" in troubles(rig), "the missing share to be said")
    rig.wait_for(lambda: _ended(rig, "second"), "the second job's end, on the server")
    assert list(results.iterdir()) == [], "nothing is written below an empty mount point"
    bind(share, results)
    rig.wait_done(2)
    assert rig.events("results back")
    rig.check(2)
    rig.stop()


def _ended(rig: Rig, unit: str) -> bool:
    job = next((j for j in rig.jobs() if unit in j.spec.unit and j.job_id), None)
    folder = job and f"results/job__{BUCKET}_{job.job_id}/process_results/"
    return bool(folder) and any(key.endswith("/end.txt") for key in rig.bench.objects(folder or ""))


def test_F91_below_min_free_nothing_counts_as_whole_and_it_is_said(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(changes={"watch": {"min_free": "100000 TB"}})
    rig.drop("inputs/a.bin", blob(100, 1))
    rig.drop("inputs/b.bin", blob(100, 2))
    rig.start(command=False)
    rig.wait_for(lambda: "may be cut short" in troubles(rig), "the full disk to be said")
    rig.wait_for(lambda: rig.events("disk short"), "it to be journaled")  # it is said before the commit
    assert set(states(rig).values()) == {FileState.SETTLING}
    assert len(rig.events("disk short")) == 1, "once, not for each file"
    rig.wait_for(lambda: all("almost full" in f.reason for f in rig.files()), "it to be said of each file")
    rig.configure({})  # there is space again
    rig.wait_for(lambda: rig.stored("a.bin", "b.bin"), "them to be stored")
    assert "cut short" not in troubles(rig)
    rig.stop()


@pytest.mark.parametrize("what", ["state", "root"])
def test_F69_trees_that_overlap_are_refused(new_rig: Callable[..., Rig], what: str) -> None:
    """Each way round: what is uploaded would be the journal, or the journal's folder what is watched."""
    rig = new_rig()
    rig.configure({"state": os.path.join(rig.root, "state")} if what == "state" else {"root": rig.state})
    done = subprocess.run(
        run_command(rig.config),
        env=os.environ | rig.bench.sandbox.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "must not overlap" in done.stderr, done
    assert "Traceback" not in done.stderr
