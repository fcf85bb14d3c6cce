"""`after_results`: what goes when results are here, and all that must be true before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from declared_rig import DeclaredRig, python, tree
from state_machine.inline_rig import BUCKET, Killed

from ncaasd.adapters.files.archive import LocalArchive
from ncaasd.engine import commands
from ncaasd.errors import FileChanged, LocalError
from ncaasd.model import Stat

LONG = 7 * 3600.0  # longer than any retry waits


@pytest.fixture
def archived(rig: DeclaredRig) -> DeclaredRig:
    rig.archive.mkdir()
    rig.write("inputs/M7/a.tif", "recording a")
    return rig


def after(rig: DeclaredRig, **more: Any) -> None:
    rig.configure(after_results=more)


def move(rig: DeclaredRig) -> dict[str, str]:
    return {"move": f"{rig.archive}/{{path}}"}


def copy_at(rig: DeclaredRig) -> dict[str, dict[str, str]]:
    return {"delete": {"copy_at": f"{rig.archive}/{{path}}"}}


def here(rig: DeclaredRig) -> dict[str, bytes]:
    return tree(rig.home / "inputs")


def run_one(rig: DeclaredRig) -> None:
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.turns(10)


def told(rig: DeclaredRig) -> str:
    return "\n".join(rig.events("after results"))


def test_nothing_is_touched_by_default(archived: DeclaredRig) -> None:
    run_one(archived)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert archived.uploaded() == ["M7/a.tif"]


def test_a_recording_moves_when_its_job_is_done(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    run_one(archived)
    assert here(archived) == {}
    assert tree(archived.archive) == {"M7/a.tif": b"recording a"}
    assert "has the same bytes" in archived.events("archived")[0]
    assert archived.uploaded() == ["M7/a.tif"]
    archived.restart()
    archived.turns(10)
    assert (len(archived.jobs()), len(archived.submits())) == (1, 1), "what has moved is no wish for anything"


@pytest.mark.parametrize("point", ["afterwards.before_delete", "afterwards.deleted"])
@pytest.mark.parametrize("moves", [True, False], ids=["move", "delete"])
def test_killed_around_a_deletion_the_recording_is_gone_once_and_its_copy_is_whole(
    archived: DeclaredRig, point: str, moves: bool
) -> None:
    if not moves:
        (archived.archive / "M7").mkdir()
        (archived.archive / "M7/a.tif").write_bytes(b"recording a")
    after(archived, local_inputs=move(archived) if moves else copy_at(archived))
    archived.rules({})
    archived.until(lambda: archived.submitted(1), "the submit")
    assert archived.rig.engine is not None
    seen = []

    def crash(name: str) -> None:
        if name == point:
            seen.append(name)
            raise Killed

    archived.rig.engine.runtime.crash = crash
    archived.run_jobs()
    archived.turns(10)
    assert seen == [point], "it was killed there, once"
    assert here(archived) == {}
    assert tree(archived.archive) == {"M7/a.tif": b"recording a"}
    assert archived.events("archived"), "the story is not behind the disk"
    assert len(archived.submits()) == 1


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_recording_stays_while_its_job_is_not_done(archived: DeclaredRig, state: str) -> None:
    after(archived, local_inputs=move(archived), remote_inputs="delete")
    archived.rules({})
    archived.until(lambda: archived.submitted(1), "the submit")
    if state == "failed":
        archived.run_jobs(well=False)
    archived.turns(20)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert archived.uploaded() == ["M7/a.tif"]
    assert tree(archived.archive) == {}


def test_a_recording_stays_while_its_results_are_not_here(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    archived.rules({})
    archived.until(lambda: archived.submitted(1), "the submit")
    lost = archived.home / "results" / archived.job().results / "process_results/out.bin"
    job = archived.job()
    archived.finish(job)
    for _ in range(200):
        archived.rig.turn()
        lost.unlink(missing_ok=True)
        archived.clock.sleep(0.6)
        if archived.done(1):
            break
    archived.turns(10)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert "ncaasd fetch" in told(archived)


def test_a_recording_stays_while_another_job_needs_it(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived), remote_inputs="delete")
    archived.ask("waits", "M7/a.tif", "later.tif")
    run_one(archived)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert archived.uploaded() == ["M7/a.tif"]
    assert "job waits" in told(archived)
    (archived.home / "submissions/waits.yaml").unlink()
    archived.turns(5)
    archived.clock.sleep(LONG)
    archived.turns(10)
    archived.clock.sleep(LONG)
    archived.turns(10)
    assert (here(archived), archived.uploaded()) == ({}, [])


def test_a_recording_that_changed_since_stays(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    archived.rules({})
    archived.until(lambda: archived.submitted(1), "the submit")
    archived.write("inputs/M7/a.tif", "another recording")
    archived.turns(3)
    archived.run_jobs()
    archived.turns(30)
    assert here(archived) == {"M7/a.tif": b"another recording"}
    assert tree(archived.archive) == {}
    assert "stays" in told(archived)


def test_nothing_in_the_archive_is_overwritten(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    (archived.archive / "M7").mkdir()
    (archived.archive / "M7/a.tif").write_bytes(b"older work")
    run_one(archived)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert tree(archived.archive) == {"M7/a.tif": b"older work"}
    assert "nothing is overwritten" in told(archived)


@pytest.mark.parametrize(
    ("copy", "gone"),
    [(b"recording a", True), (b"recording b", False), (b"recording", False), (None, False)],
    ids=["equal", "differs", "shorter", "not there"],
)
def test_delete_wants_an_equal_copy(archived: DeclaredRig, copy: bytes | None, gone: bool) -> None:
    after(archived, local_inputs=copy_at(archived))
    if copy is not None:
        (archived.archive / "M7").mkdir()
        (archived.archive / "M7/a.tif").write_bytes(copy)
    run_one(archived)
    assert (here(archived) == {}) is gone
    assert gone or "is not there, or not equal" in told(archived)


def test_a_copy_that_comes_later_is_found(archived: DeclaredRig) -> None:
    after(archived, local_inputs=copy_at(archived))
    run_one(archived)
    (archived.archive / "M7").mkdir()
    (archived.archive / "M7/a.tif").write_bytes(b"recording a")
    archived.clock.sleep(LONG)
    archived.turns(10)
    assert here(archived) == {}


def test_a_source_is_only_read(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    archived.record("M8/1/a.tif")
    archived.rules({"source": "share"})
    archived.until(lambda: archived.submitted(1), "the submit")
    archived.run_jobs()
    archived.turns(10)
    assert list(tree(archived.source)) == ["M8/1/a.tif"]
    assert tree(archived.archive) == {}


def test_a_packed_session_moves_whole(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    for name in ("1/a.tif", "1/b.tif", "1/notes.txt"):
        archived.write(f"inputs/M9/{name}", name)
    archived.rules({"unit": "M9/{run}", "datasets": "*.tif", "package": "zip", "job_per": "unit"})
    archived.until(lambda: archived.submitted(1), "the submit")
    archived.run_jobs()
    archived.turns(10)
    assert sorted(tree(archived.archive)) == ["M9/1/a.tif", "M9/1/b.tif"]
    assert sorted(here(archived)) == ["M7/a.tif", "M9/1/notes.txt"], "what the job did not have stays"


def test_remote_inputs_go_when_no_job_needs_them(archived: DeclaredRig) -> None:
    after(archived, remote_inputs="delete")
    archived.ask("other", "foreign.tif")
    archived.server.seed("lab/inputs/foreign.tif", b"of another rig")
    archived.rules({})
    archived.until(lambda: archived.submitted(2), "the submits")
    archived.run_jobs()
    archived.turns(10)
    assert archived.uploaded() == ["foreign.tif"]
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert "this rig did not put it" in told(archived)
    commands.apply(archived.rig.journal, "rerun", commands.Selection(ids=("r",)), archived.clock.now())
    archived.until(lambda: len(archived.submits()) == 3, "the rerun, with its data uploaded again", 400)


def test_a_tool_runs_first_and_is_given_results_and_job(archived: DeclaredRig) -> None:
    code = [
        "import os, sys",
        f"open({str(archived.base / 'out')!r}, 'a').write(repr((sys.argv[1:], os.listdir(sys.argv[1]))))",
    ]
    archived.configure(
        tools={"note": [*python(archived.base, *code), "{results}", "{job}"]},
        after_results={"run": "note", "local_inputs": move(archived)},
    )
    run_one(archived)
    arguments, names = eval((archived.base / "out").read_text())
    job = archived.job()
    assert arguments == [f"{archived.home}/results/{job.results}", job.job_id]
    assert {"job.json", "process_results"} <= set(names)
    assert here(archived) == {}


def test_nothing_goes_when_the_tool_fails(archived: DeclaredRig) -> None:
    archived.configure(
        tools={"no": [*python(archived.base, "import sys", "sys.exit('no room')"), "{results}"]},
        after_results={"run": "no", "local_inputs": move(archived), "remote_inputs": "delete"},
    )
    run_one(archived)
    for _ in range(8):
        archived.clock.sleep(LONG)
        archived.turns(5)
    assert here(archived) == {"M7/a.tif": b"recording a"}
    assert archived.uploaded() == ["M7/a.tif"]
    assert "given up after 5 tries" in told(archived) and "no room" in told(archived)


def test_a_crash_at_any_step_loses_nothing(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived), remote_inputs="delete")
    archived.rules({})
    archived.until(lambda: archived.submitted(1), "the submit")
    archived.finish(archived.job())
    for number in range(120):
        if archived.rig.engine is None:
            archived.rig.start()
        archived.rig.fuse.left = number % 7
        archived.rig.turn()
        archived.rig.fuse.left = None
        archived.clock.sleep(0.6)
        kept = [*here(archived).values(), *tree(archived.archive).values()]
        assert b"recording a" in kept, "one whole copy is there at any time"
        if number % 3 == 0:
            archived.restart()
        if archived.rig.engine and archived.done(1) and not here(archived) and not archived.uploaded():
            break
    archived.clock.sleep(LONG)
    archived.turns(20)
    assert tree(archived.archive) == {"M7/a.tif": b"recording a"}
    assert (here(archived), archived.uploaded()) == ({}, [])
    assert len(archived.submits()) == 1


# -- the archive by itself


def seen(path: Path) -> Stat:
    found = path.stat()
    return Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    path.write_bytes(b"x" * 9_000_000 + b"y")
    return path


def _hard_link(path: Path, copy: Path) -> None:
    copy.hardlink_to(path)


def _symlink(path: Path, copy: Path) -> None:
    copy.symlink_to(path)


def _folder(path: Path, copy: Path) -> None:
    copy.mkdir()


def _last_byte(path: Path, copy: Path) -> None:
    copy.write_bytes(path.read_bytes()[:-1] + b"z")


@pytest.mark.parametrize("make", [_hard_link, _symlink, _folder, _last_byte])
def test_what_is_no_copy(recording: Path, tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    copy = tmp_path / "copy.tif"
    make(recording, copy)
    archive = LocalArchive()
    try:
        assert archive.same(str(recording), seen(recording), str(copy)) is False
    except LocalError as error:
        assert "itself" in str(error)
    with pytest.raises(LocalError):
        archive.copy(str(recording), seen(recording), str(copy))


def test_a_copy_is_whole_and_leaves_nothing_beside_it(recording: Path, tmp_path: Path) -> None:
    archive, expect = LocalArchive(), seen(recording)
    copy = tmp_path / "far/away/a.tif"
    archive.copy(str(recording), expect, str(copy))
    archive.copy(str(recording), expect, str(copy))  # after a crash: it is compared
    assert copy.read_bytes() == recording.read_bytes()
    assert copy.stat().st_mtime_ns == expect.mtime_ns
    assert list(tree(copy.parent)) == ["a.tif"]


def test_a_recording_that_is_not_what_was_observed_is_neither_copied_nor_deleted(
    recording: Path, tmp_path: Path
) -> None:
    archive, expect = LocalArchive(), seen(recording)
    recording.write_bytes(b"new")
    with pytest.raises(FileChanged):
        archive.copy(str(recording), expect, str(tmp_path / "copy"))
    with pytest.raises(FileChanged):
        archive.delete(str(recording), expect)
    assert tree(tmp_path) == {"a.tif": b"new"}


def test_job_json_is_written_before_anything_goes(archived: DeclaredRig) -> None:
    after(archived, local_inputs=move(archived))
    run_one(archived)
    document = json.loads((archived.home / "results" / archived.job().results / "job.json").read_text())
    assert (document["state"], document["analysis"]) == ("done", BUCKET)
