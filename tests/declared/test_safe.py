"""`safe`: what may be cleaned up, and the first reason why something may not."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from declared_rig import DeclaredRig, tree

from ncaasd.adapters.journal import open_reader
from ncaasd.errors import UserError
from ncaasd.show.safety import Verdict, judge


@pytest.fixture
def done(rig: DeclaredRig) -> DeclaredRig:
    rig.write("inputs/M7/a.tif", "recording a")
    rig.write("inputs/M7/b.tif", "recording b")
    rig.rules({})
    rig.until(lambda: rig.submitted(2), "the submits")
    rig.run_jobs()
    shutil.copytree(rig.home / "inputs", rig.archive)
    return rig


def judged(rig: DeclaredRig, path: Path | None = None, copy_at: str = "{archive}/{{path}}") -> dict[str, Verdict]:
    with contextlib.closing(open_reader(rig.rig.journal_path)) as journal:
        template = copy_at.format(archive=rig.archive)
        found = judge(rig.rig.config, journal, str(path or rig.home / "inputs"), template)
    return {os.path.basename(v.path): v for v in found}


def test_what_is_stored_analysed_fetched_and_archived_is_safe(done: DeclaredRig) -> None:
    before = tree(done.home)
    found = judged(done)
    assert {name: (v.safe, v.why) for name, v in found.items()} == {"a.tif": (True, ""), "b.tif": (True, "")}
    assert len(found["a.tif"].crc64) == 16
    assert found["a.tif"].jobs == (done.job("M7/a.tif").job_id,)
    assert found["a.tif"].document()["copy"] == f"{done.archive}/M7/a.tif"
    assert tree(done.home) == before


def _changed(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/a.tif", "another recording")


def _new(rig: DeclaredRig) -> None:
    (rig.home / "inputs/M7/a.tif").rename(rig.home / "inputs/M7/c.tif")
    rig.write("inputs/M7/a.tif", "x")


def _result_gone(rig: DeclaredRig) -> None:
    (rig.home / "results" / rig.job("M7/a.tif").results / "process_results/out.bin").unlink()


def _no_copy(rig: DeclaredRig) -> None:
    (rig.archive / "M7/a.tif").unlink()


def _other_copy(rig: DeclaredRig) -> None:
    (rig.archive / "M7/a.tif").write_bytes(b"recording x")


def _needed(rig: DeclaredRig) -> None:
    rig.ask("again", "M7/a.tif", "later.tif")
    rig.until(lambda: len(rig.jobs()) == 3, "the other job")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_changed, "changed since"),
        (_new, "changed since"),
        (_result_gone, "not here any more"),
        (_no_copy, "not there, or not equal"),
        (_other_copy, "not there, or not equal"),
        (_needed, "is waiting and names it"),
    ],
)
def test_what_is_not_safe(done: DeclaredRig, change: Callable[[DeclaredRig], None], why: str) -> None:
    change(done)
    found = judged(done)
    assert (found["a.tif"].safe, why in found["a.tif"].why) == (False, True), found["a.tif"].why
    assert found["b.tif"].safe


def test_without_an_archive_nothing_is_safe(done: DeclaredRig) -> None:
    found = judged(done, copy_at="")
    assert not any(v.safe for v in found.values())
    assert "no archive is known" in found["a.tif"].why
    assert (found["a.tif"].stored, found["a.tif"].analysed, found["a.tif"].fetched) == (True, True, True)


def test_the_configs_archive_is_asked(done: DeclaredRig) -> None:
    done.configure(after_results={"local_inputs": {"delete": {"copy_at": f"{done.archive}/{{path}}"}}})
    done.rig.start()
    assert all(v.safe for v in judged(done, copy_at="").values())


def test_a_job_that_is_not_done_makes_nothing_safe(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    assert judged(rig)["a.tif"].why == "no job with it is done"
    rig.run_jobs(well=False)
    assert judged(rig)["a.tif"].why == "no job with it is done"


def test_a_packed_session_in_a_source(rig: DeclaredRig) -> None:
    for name in ("a.tif", "b.tif", "notes.txt"):
        rig.record(f"M7/1/{name}")
    rig.rules({"source": "share", "unit": "{animal}/{run}", "datasets": "*.tif", "package": "zip"})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    shutil.copytree(rig.source, rig.archive)
    found = judged(rig, rig.source / "M7")
    assert {name: v.safe for name, v in found.items()} == {"a.tif": True, "b.tif": True, "notes.txt": False}
    rig.record("M7/1/late.tif")
    rig.turns(6)
    found = judged(rig, rig.source / "M7")
    assert (found["a.tif"].safe, found["late.tif"].safe) == (True, False)


@pytest.mark.parametrize("where", ["elsewhere", "missing"])
def test_a_path_that_is_nowhere_is_said(done: DeclaredRig, where: str) -> None:
    (done.base / "elsewhere").mkdir()
    with pytest.raises(UserError):
        judged(done, done.base / where)
