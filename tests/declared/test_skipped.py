"""What a scan skips is known in the journal, where units are judged; and it is no file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from declared_rig import DeclaredRig, FileState
from rich.console import Console

from ncaasd.adapters.files.tree import LocalTree
from ncaasd.model import FileRow, Look
from ncaasd.plan.skipping import MOST
from ncaasd.show.safety import judge
from ncaasd.show.status import status_report
from ncaasd.show.terminal import render_status

RULE = {"source": "share", "unit": "{animal}/{run}", "complete_when": "DONE", "job_per": "unit"}


def skipped(rig: DeclaredRig) -> dict[str, str]:
    return {str(f.place): f.reason for f in rig.files() if f.state is FileState.SKIPPED}


def row(rig: DeclaredRig, path: str) -> FileRow:
    (found,) = [f for f in rig.files() if f.place.path == path]
    return found


# -- in the journal


def test_F97_what_is_skipped_is_a_row_that_is_no_file(rig: DeclaredRig) -> None:
    rig.record("M7/1/a.tif")
    os.mkfifo(rig.source / "M7/1/pipe.tif")
    os.mkfifo(rig.home / "inputs/pipe.tif")
    os.mkfifo(rig.home / "configs/pipe.yaml")
    os.mkfifo(rig.home / "submissions/pipe.yaml")
    rig.turns(6)
    assert skipped(rig) == {
        "share:M7/1/pipe.tif": "a named pipe, not a file",
        "caiman-web/inputs/pipe.tif": "a named pipe, not a file",
    }
    made = row(rig, "M7/1/pipe.tif")
    assert (made.key, made.stat) == ("lab/inputs/M7/1/pipe.tif", (0, 0, 0, 0))
    assert "M7/1/pipe.tif" not in rig.rig.journal.known("caiman-web", "share")
    assert {count.state for count in rig.rig.journal.count_files()} <= {"settling", "whole", "stored"}
    rig.turns(6)
    rig.restart()
    rig.turns(6)
    assert len(rig.events("skipped")) == 4 + 2, "each said once, and again after a restart only what no rule could want"
    assert row(rig, "M7/1/pipe.tif").id == made.id


def test_a_skipped_thing_becomes_a_file_of_the_same_row_or_is_gone(rig: DeclaredRig) -> None:
    os.mkfifo(rig.home / "inputs/a.tif")
    os.mkfifo(rig.home / "inputs/b.tif")
    rig.turns(4)
    before = row(rig, "inputs/a.tif")
    assert before.state is FileState.SKIPPED
    (rig.home / "inputs/a.tif").unlink()
    (rig.home / "inputs/b.tif").unlink()
    rig.write("inputs/a.tif", "a recording")
    rig.until(lambda: rig.state("a.tif") is FileState.STORED, "the upload")
    rig.until(lambda: rig.state("b.tif") is FileState.GONE, "its end")
    assert row(rig, "inputs/a.tif").id == before.id
    assert rig.body("a.tif") == b"a recording"


def test_a_stored_file_that_gives_way_to_a_pipe_counts_for_nothing_and_is_known_again(rig: DeclaredRig) -> None:
    path = rig.write("inputs/a.tif", "a recording")
    rig.until(lambda: rig.state("a.tif") is FileState.STORED, "the upload")
    stored = row(rig, "inputs/a.tif")
    path.rename(rig.base / "aside.tif")
    os.mkfifo(path)
    rig.until(lambda: rig.state("a.tif") is FileState.SKIPPED, "the pipe")
    journal = rig.rig.journal
    assert journal.files_with_key("caiman-web", stored.key) == []
    assert [count.state for count in journal.count_files()] == ["stored"], "the config"
    os.rename(rig.base / "aside.tif", path)
    rig.until(lambda: rig.state("a.tif") is FileState.STORED, "the file again")
    again = row(rig, "inputs/a.tif")
    assert (again.id, again.etag, again.key) == (stored.id, stored.etag, stored.key)


def test_F97_a_hint_at_something_that_is_no_file_records_it_at_once(rig: DeclaredRig) -> None:
    rig.configure(watch={"settle": "1s", "rescan": "1h", "min_free": 0})
    rig.turns(4)
    os.mkfifo(rig.home / "inputs/pipe.tif")
    assert rig.rig.engine is not None
    rig.rig.engine.observer.hint("caiman-web", "", "inputs/pipe.tif")
    rig.turns(2)
    assert rig.state("pipe.tif") is FileState.SKIPPED
    (rig.home / "inputs/pipe.tif").unlink()
    rig.rig.engine.observer.hint("caiman-web", "", "inputs/pipe.tif")
    rig.turns(2)
    assert rig.state("pipe.tif") is FileState.GONE


def test_F26_what_cannot_be_looked_into_is_recorded_and_nothing_in_it_is_gone(
    rig: DeclaredRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.record("M7/1/a.tif")
    os.mkfifo(rig.source / "M7/1/pipe.tif")
    rig.turns(8)
    before = {f.place.path: f.state for f in rig.files() if f.place.tree}
    assert before == {"M7/1/a.tif": FileState.WHOLE, "M7/1/pipe.tif": FileState.SKIPPED}
    real = os.open

    def refused(path: str, *args: object, **kwargs: object) -> int:
        if path == "1" and "dir_fd" in kwargs:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]  # handed through as they come

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)  # the system's refusal, which root can't have by rights
        rig.until(lambda: rig.state("M7/1/") is FileState.SKIPPED, "the folder")
        rig.turns(3)
    assert {p: rig.state(p) for p in before} == before
    assert "Permission denied" in row(rig, "M7/1/").reason
    rig.until(lambda: rig.state("M7/1/") is FileState.GONE, "the rights")
    assert {p: rig.state(p) for p in before} == before


def test_a_file_that_cannot_be_looked_at_keeps_no_other_from_settling(
    rig: DeclaredRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalTree.look

    def look(self: LocalTree, path: str) -> Look:
        if path.endswith("bad.tif"):
            return Look(None, skipped="cannot be looked at: Input/output error", unseen=True)
        return real(self, path)

    monkeypatch.setattr(LocalTree, "look", look)  # a disk that fails for one file
    rig.write("inputs/bad.tif", "x")
    rig.write("inputs/good.tif", "x")
    rig.until(lambda: rig.state("good.tif") is FileState.STORED, "the good one")
    assert rig.state("bad.tif") is FileState.SETTLING
    assert "Input/output error" in row(rig, "inputs/bad.tif").reason
    monkeypatch.undo()
    rig.until(lambda: rig.state("bad.tif") is FileState.STORED, "the other", 60)


def test_a_tree_of_very_many_links_does_not_fill_the_journal(rig: DeclaredRig, tmp_path: Path) -> None:
    for unit in range(3):
        folder = rig.source / f"M7/{unit}"
        folder.mkdir(parents=True)
        for n in range(MOST // 2):
            os.symlink("/nowhere", folder / f"{n}.tif")
    rig.turns(4)
    found = skipped(rig)
    assert len(found) <= MOST
    assert "share:M7/0/" in found and "1,000 things" in found["share:M7/0/"]


def test_status_tells_what_is_skipped(rig: DeclaredRig) -> None:
    os.mkfifo(rig.home / "inputs/pipe.tif")
    rig.record("M7/1/a.tif")
    os.symlink("/etc/hostname", rig.source / "M7/1/b.tif")
    rig.turns(4)
    journal = rig.rig.journal
    report = status_report(journal, None, root=str(rig.base), analyses=["caiman-web"], pid=None, now=rig.clock.now())
    skipped = report.document()["analyses"][0]["skipped"]
    assert skipped["count"] == 2
    assert [s["what"] for s in skipped["first"]] == ["caiman-web/inputs/pipe.tif", "share:M7/1/b.tif"]
    assert "/etc/hostname" in skipped["first"][1]["why"]
    (verdict,) = judge(rig.rig.config, journal, str(rig.source / "M7/1/b.tif"))
    assert (verdict.safe, verdict.why) == (False, skipped["first"][1]["why"])
    out = io.StringIO()
    Console(file=out, width=200, markup=False, emoji=False, highlight=False).print(render_status(report))
    assert "2 skipped, such as caiman-web/inputs/pipe.tif: a named pipe, not a file" in out.getvalue()
