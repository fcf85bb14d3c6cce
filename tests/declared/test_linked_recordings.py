"""Links to recordings: parts of units, alone, after the results; and recordings that can't be read."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from declared_rig import DeclaredRig, FileState, python

from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import open_reader
from ncaasd.engine.commands import release_files
from ncaasd.model import FileRow, JobState, Phase
from ncaasd.show.foresight import foresee
from ncaasd.show.safety import judge

ZIP = {
    "source": "share",
    "unit": "projects/{project}",
    "datasets": ["config.yaml", "labeled/**", "videos/**"],
    "complete_when": "READY",
    "package": "zip",
}
NAME = "caiman-web"


def row(rig: DeclaredRig, path: str) -> FileRow:
    (found,) = [f for f in rig.files() if f.place.path in (path, f"inputs/{path}")]
    return found


def project(rig: DeclaredRig, video: Path) -> None:
    """As DeepLabCut makes one, with copy_videos=False."""
    rig.record("projects/reach/config.yaml", "task: reach")
    rig.record("projects/reach/labeled/m1/img01.png")
    (rig.source / "projects/reach/videos").mkdir()
    os.symlink(video, rig.source / "projects/reach/videos/m1.avi")
    rig.record("projects/reach/READY", "x")


def in_zip(rig: DeclaredRig, name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(rig.body(name))) as made:
        return {n: made.read(n) for n in made.namelist()}


def elsewhere(rig: DeclaredRig, name: str, body: bytes) -> Path:
    path = rig.base / "videos" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    return path


# -- parts of units


def test_F97_a_zip_holds_the_bytes_of_a_video_in_links_under_the_links_name(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    project(rig, elsewhere(rig, "raw-m1.avi", b"V" * 100_000))
    rig.rules(ZIP)
    rig.until(lambda: rig.submitted(1), "the submit")
    assert in_zip(rig, "projects/reach.zip") == {
        "config.yaml": b"task: reach",
        "labeled/m1/img01.png": b"recording projects/reach/labeled/m1/img01.png",
        "videos/m1.avi": b"V" * 100_000,
    }
    assert row(rig, "projects/reach/videos/m1.avi").link == f"{rig.base}/videos/raw-m1.avi"


def test_F97_a_zip_holds_the_bytes_of_a_video_of_the_same_source(rig: DeclaredRig) -> None:
    project(rig, rig.record("raw/m1.avi", b"video"))
    rig.rules(ZIP)
    rig.until(lambda: rig.submitted(1), "the submit")
    assert in_zip(rig, "projects/reach.zip")["videos/m1.avi"] == b"video"
    assert row(rig, "projects/reach/videos/m1.avi").link == "raw/m1.avi"
    assert rig.uploaded() == ["projects/reach.zip"]


def test_F97_a_link_out_of_the_source_is_recorded_with_its_target(rig: DeclaredRig) -> None:
    project(rig, elsewhere(rig, "m1.avi", b"V"))
    rig.until(lambda: rig.state("projects/reach/videos/m1.avi") is FileState.SKIPPED, "the link")
    assert f"{rig.base}/videos/m1.avi" in row(rig, "projects/reach/videos/m1.avi").reason
    rig.configure(links=[str(rig.base / "videos")])
    rig.until(lambda: rig.state("projects/reach/videos/m1.avi") is FileState.WHOLE, "the link")


def test_a_tool_gets_the_links_own_path(rig: DeclaredRig) -> None:
    join = ("import sys", "open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]) + open(sys.argv[-1]).read())")
    rig.configure(tools={"join": [*python(rig.base, *join), "{out}", "{files}"]}, links=[str(rig.base / "videos")])
    project(rig, elsewhere(rig, "raw-m1.avi", b"video"))
    rig.rules({**ZIP, "datasets": "videos/**", "package": {"tool": "join", "name": "made/{project}.txt"}})
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("made/reach.txt").decode() == f"{rig.source}/projects/reach/videos/m1.avivideo"


@pytest.mark.parametrize("size", [10, 20_000_000], ids=["one PUT", "parts"])
def test_each_link_of_a_unit_goes_up_as_a_file_of_its_own(rig: DeclaredRig, size: int) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    rig.write("inputs/M7/1/a.tif", "a")
    os.symlink(elsewhere(rig, "b.tif", b"b" * size), rig.home / "inputs/M7/1/b.tif")
    os.symlink("a.tif", rig.home / "inputs/M7/1/c.tif")
    rig.write("inputs/M7/1/DONE", "x")
    rig.rules({"unit": "{animal}/{run}", "complete_when": "DONE", "job_per": "unit"})
    rig.until(lambda: rig.submitted(1), "the submit")
    assert [d.name for d in rig.job().spec.datasets] == ["M7/1/a.tif", "M7/1/b.tif", "M7/1/c.tif"]
    assert (rig.body("M7/1/b.tif"), rig.body("M7/1/c.tif")) == (b"b" * size, b"a")


def test_a_link_that_is_pointed_elsewhere_before_its_upload_settles_again(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")], watch={"settle": "1s", "rescan": "1h", "min_free": 0})
    link = rig.home / "inputs/a.tif"
    os.symlink(elsewhere(rig, "one.tif", b"one"), link)
    rig.rules({"datasets": "*.none"})
    rig.rig.turn()
    other = elsewhere(rig, "two.tif", b"two")
    os.utime(other, ns=(link.stat().st_atime_ns, link.stat().st_mtime_ns))
    rig.until(lambda: rig.state("a.tif") in (FileState.SETTLING, FileState.WHOLE), "the link")
    link.unlink()
    os.symlink(other, link)
    rig.until(lambda: rig.state("a.tif") is FileState.STORED, "the upload")
    assert rig.body("a.tif") == b"two"


def test_F26_when_the_disk_with_the_videos_is_away_nothing_is_gone(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    os.symlink(elsewhere(rig, "m1.tif", b"V"), rig.home / "inputs/m1.tif")
    rig.until(lambda: rig.state("m1.tif") is FileState.STORED, "the upload")
    os.rename(rig.base / "videos", rig.base / "away")
    rig.turns(6)
    assert rig.state("m1.tif") is FileState.STORED
    assert rig.events("gone") == []


def test_a_link_whose_folder_left_the_config_does_not_go_up(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    rig.rules({"unit": "{animal}/{run}", "complete_when": "DONE"})
    rig.write("inputs/M7/1/x.txt", "x")
    os.symlink(elsewhere(rig, "m1.tif", b"V"), rig.home / "inputs/M7/1/m1.tif")
    rig.until(lambda: rig.state("M7/1/m1.tif") is FileState.WHOLE, "the link")
    rig.configure(links=[])
    rig.write("inputs/M7/1/DONE", "x")
    rig.turns(12)
    assert rig.state("M7/1/m1.tif") is FileState.SKIPPED
    assert "M7/1/m1.tif" not in rig.uploaded()


def test_until_a_scan_has_said_so_a_link_that_the_config_forbids_does_not_go_up_either(rig: DeclaredRig) -> None:
    seldom = {"settle": "1s", "rescan": "1h", "min_free": 0}
    rig.configure(links=[str(rig.base / "videos")], watch=seldom)
    rig.rules({"unit": "{animal}/{run}", "complete_when": "DONE"})
    rig.write("inputs/M7/1/x.txt", "x")
    os.symlink(elsewhere(rig, "m1.tif", b"V"), rig.home / "inputs/M7/1/m1.tif")
    rig.until(lambda: rig.state("M7/1/m1.tif") is FileState.WHOLE, "the link")
    engine = rig.rig.engine
    assert engine is not None
    tree = engine.runtime.contexts[NAME].trees[""]
    assert isinstance(tree, LocalTree)
    tree._links = LocalTree(tree.root)._links  # as with another config, before its first scan
    rig.write("inputs/M7/1/DONE", "x")
    engine.observer.hint(NAME, "", "inputs/M7/1/DONE")
    rig.until(lambda: rig.state("M7/1/DONE") is FileState.STORED, "the others")
    rig.turns(3)
    assert "M7/1/m1.tif" not in rig.uploaded()
    assert "in no folder of `links`" in row(rig, "M7/1/m1.tif").reason


# -- alone


def test_a_link_to_the_latest_run_starts_no_job_of_its_own(rig: DeclaredRig) -> None:
    rig.rules({"datasets": "*.tif"})
    rig.write("inputs/run5.tif", "five")
    os.symlink("run5.tif", rig.home / "inputs/latest.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns(8)
    assert rig.units() == ["run5.tif"]
    assert rig.uploaded() == ["run5.tif"]
    assert "found by itself" in row(rig, "latest.tif").reason
    rig.write("inputs/run6.tif", "six")
    (rig.home / "inputs/latest.tif").unlink()
    os.symlink("run6.tif", rig.home / "inputs/latest.tif")
    rig.until(lambda: rig.submitted(2), "the next submit")
    rig.turns(8)
    assert rig.units() == ["run5.tif", "run6.tif"]
    rig.restart()
    rig.turns(8)
    assert rig.units() == ["run5.tif", "run6.tif"]


def test_links_that_pick_recordings_for_a_rule_are_its_datasets(rig: DeclaredRig) -> None:
    """The rule doesn't name what they lead to, so nothing is paid for twice."""
    rig.rules({"datasets": "good/*.tif"})
    rig.write("inputs/raw/run5.tif", "five")
    (rig.home / "inputs/good").mkdir()
    os.symlink("../raw/run5.tif", rig.home / "inputs/good/run5.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.units() == ["good/run5.tif"]
    assert rig.body("good/run5.tif") == b"five"


@pytest.mark.parametrize("source", [None, "share"])
def test_in_a_unit_of_a_job_for_each_dataset_a_link_to_one_of_them_has_none(
    rig: DeclaredRig, source: str | None
) -> None:
    folder = rig.source if source else rig.home / "inputs"
    for path in ("M7/1/run5.tif", "M7/1/raw/a.bin", "M7/1/DONE"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    os.symlink("run5.tif", folder / "M7/1/latest.tif")
    os.symlink("raw/a.bin", folder / "M7/1/a.tif")
    rig.rules({"source": source, "unit": "{animal}/{run}", "complete_when": "DONE", "datasets": "*.tif"})
    rig.until(lambda: rig.submitted(2), "the submits")
    rig.turns(10)
    assert rig.units() == ["M7/1/a.tif", "M7/1/run5.tif"]
    assert row(rig, "M7/1/latest.tif").state is FileState.WHOLE
    assert "found by itself" in row(rig, "M7/1/latest.tif").reason, "and it is not held as one that came late"
    assert "M7/1/latest.tif" not in rig.uploaded()


def test_nor_does_a_link_to_a_link_to_a_video_elsewhere(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    rig.rules({"datasets": "*.tif"}, {"name": "u", "unit": "{animal}/{run}", "datasets": "*.tif", "package": "zip"})
    os.symlink(elsewhere(rig, "v.tif", b"V"), rig.home / "inputs/v.tif")
    os.symlink("v.tif", rig.home / "inputs/latest.tif")
    (rig.home / "inputs/M7/1").mkdir(parents=True)
    os.symlink("../../latest.tif", rig.home / "inputs/M7/1/a.tif")
    rig.until(lambda: rig.submitted(2), "the submits")
    rig.turns(8)
    assert rig.units() == ["M7/1", "v.tif"]
    assert rig.uploaded() == ["M7/1.zip", "v.tif"]
    assert in_zip(rig, "M7/1.zip") == {"a.tif": b"V"}


def test_plan_says_the_same(rig: DeclaredRig) -> None:
    rig.configure(links=[str(rig.base / "videos")])
    rig.rules({"datasets": "*.tif"})
    rig.write("inputs/run5.tif", "five")
    os.symlink("run5.tif", rig.home / "inputs/latest.tif")
    os.symlink(elsewhere(rig, "v.tif", b"V"), rig.home / "inputs/video.tif")
    os.symlink("/etc/passwd", rig.home / "inputs/out.txt")
    for _known in ("before the daemon ran", "after"):
        with_journal = open_reader(rig.rig.journal_path) if _known == "after" else None
        (made,) = foresee(rig.rig.config, with_journal, [NAME], rig.clock.now()).previews
        assert sorted(j.spec.unit for j in made.jobs) == ["run5.tif", "video.tif"]
        if with_journal is None:
            assert sorted(u.what for u in made.uploads if "inputs" in u.what) == ["inputs/run5.tif", "inputs/video.tif"]
            rig.until(lambda: rig.submitted(2), "the submits")
        else:
            with_journal.close()
    assert sorted(rig.units()) == ["run5.tif", "video.tif"]
    assert rig.uploaded() == ["run5.tif", "video.tif"]


def test_a_link_that_no_rule_names_goes_up_as_any_file_of_inputs(rig: DeclaredRig) -> None:
    rig.write("inputs/run5.tif", "five")
    os.symlink("run5.tif", rig.home / "inputs/mine.tif")
    rig.ask("by-name", "mine.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("mine.tif") == b"five"


# -- after the results


def test_after_the_results_neither_a_link_nor_what_it_leads_to_goes(rig: DeclaredRig) -> None:
    videos = rig.base / "videos"
    rig.configure(after_results={"local_inputs": {"move": f"{rig.archive}/{{path}}"}}, links=[str(videos)])
    rig.rules({"datasets": "*.tif"})
    rig.write("inputs/run5.tif", "five")
    rig.write("inputs/plain.tif", "plain")
    os.symlink("run5.tif", rig.home / "inputs/latest.tif")
    os.symlink(elsewhere(rig, "v.tif", b"V"), rig.home / "inputs/video.tif")
    rig.until(lambda: rig.submitted(3), "the submits")
    rig.run_jobs()
    rig.until(lambda: not (rig.home / "inputs/plain.tif").exists(), "the move of an ordinary one")
    rig.turns(10)
    assert {p.name for p in (rig.home / "inputs").iterdir()} == {"run5.tif", "latest.tif", "video.tif"}
    assert (videos / "v.tif").read_bytes() == b"V"
    assert {p.name for p in rig.archive.iterdir()} == {"plain.tif"}
    told = " ".join(rig.events("after results"))
    assert f"inputs/video.tif stays: it is a symbolic link to {videos}/v.tif" in told
    assert "inputs/run5.tif: inputs/latest.tif is a symbolic link to it" in told
    with_reader = open_reader(rig.rig.journal_path)
    try:
        verdicts = {Path(v.path).name: v for v in judge(rig.rig.config, with_reader, str(rig.home / "inputs"))}
        (plan,) = foresee(rig.rig.config, with_reader, [NAME], rig.clock.now()).previews
    finally:
        with_reader.close()
    assert not any(v.safe for v in verdicts.values())
    assert "latest.tif is a symbolic link to it" in verdicts["run5.tif"].why
    assert "it is a symbolic link to" in verdicts["video.tif"].why
    assert next(r.condition for r in plan.removals if r.what == "inputs/run5.tif").count("symbolic link") == 1
    (rig.home / "inputs/latest.tif").unlink()
    rig.clock.sleep(6 * 3600)
    rig.until(lambda: not (rig.home / "inputs/run5.tif").exists(), "its move, when no link leads to it any more", 200)


def test_what_a_package_was_made_of_stays_where_it_is_a_link(rig: DeclaredRig) -> None:
    videos = rig.base / "videos"
    rig.configure(after_results={"local_inputs": {"move": f"{rig.archive}/{{path}}"}}, links=[str(videos)])
    rig.rules({"unit": "{animal}/{run}", "complete_when": "DONE", "package": "zip"})
    rig.write("inputs/M7/1/a.tif", "a")
    os.symlink(elsewhere(rig, "v.tif", b"V"), rig.home / "inputs/M7/1/v.tif")
    rig.write("inputs/M7/1/DONE", "x")
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.until(lambda: not (rig.home / "inputs/M7/1/a.tif").exists(), "the move of an ordinary one")
    rig.until(lambda: rig.events("after results"), "the word on the link")
    assert rig.events("after results") == [f"inputs/M7/1/v.tif stays: it is a symbolic link to {videos}/v.tif"]
    assert (rig.home / "inputs/M7/1/v.tif").is_symlink()
    assert (videos / "v.tif").exists()


# -- what can't be read


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names of which the system refuses to open the file, as it does of others' files to all but root."""
    names: set[str] = set()
    real = os.open

    def refused(path: str, *args: object, **kwargs: object) -> int:
        if os.path.basename(str(path)) == "bad.tif" and names:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]  # handed through as they come

    names.add("bad.tif")
    monkeypatch.setattr(os, "open", refused)
    return Path("bad.tif")


def test_F97_a_recording_that_cannot_be_read_is_held_and_says_how_to_mend_it(
    rig: DeclaredRig, unreadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.rules({"datasets": "*.tif"})
    rig.write("inputs/bad.tif", "x")
    rig.write("inputs/good.tif", "x")
    rig.until(lambda: rig.state("bad.tif") is FileState.HELD, "the answer")
    held = row(rig, "bad.tif")
    for word in ("inputs/bad.tif cannot be read", "Permission denied (EACCES)", f"uid {os.geteuid()}", "chmod a+r"):
        assert word in held.reason
    rig.until(lambda: rig.submitted(1), "the other")
    rig.turns(30)
    assert len(rig.events("unreadable")) == 1
    assert row(rig, "bad.tif").failures <= 2, "not tried again and again"
    job = next(j for j in rig.jobs() if j.spec.unit == "bad.tif")
    assert (job.state, job.phase) == (JobState.WAITING, Phase.OPEN)
    assert "Permission denied" in job.reason
    monkeypatch.undo()
    (rig.home / "inputs/bad.tif").chmod(0o644)  # another ctime: that is all that is needed
    (rig.home / "inputs/bad.tif").chmod(0o600)
    rig.until(lambda: rig.submitted(2), "its submit, as soon as it can be read")


def test_a_released_recording_that_could_not_be_read_may_overwrite_nothing(
    rig: DeclaredRig, unreadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write("inputs/bad.tif", "x")
    rig.until(lambda: rig.state("bad.tif") is FileState.HELD, "the answer")
    monkeypatch.undo()
    release_files(rig.rig.journal, ["bad.tif"], rig.clock.now())
    assert not row(rig, "bad.tif").ours
    rig.until(lambda: rig.state("bad.tif") is FileState.STORED, "the upload")


def test_F97_a_package_names_the_file_that_cannot_be_read(
    rig: DeclaredRig, unreadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.rules({**ZIP, "unit": "{animal}/{run}", "datasets": "*.tif"})
    rig.record("M7/1/bad.tif")
    rig.record("M7/1/good.tif")
    rig.record("M7/1/READY", "x")
    rig.until(lambda: rig.jobs() and "cannot be read" in rig.job().reason, "the answer")
    assert f"{rig.source}/M7/1/bad.tif cannot be read: Permission denied (EACCES)" in rig.job().reason
    assert rig.uploaded() == []
    monkeypatch.undo()
    (rig.source / "M7/1/bad.tif").chmod(0o600)
    rig.until(lambda: rig.submitted(1), "the submit")


def test_F29_a_file_behind_a_link_out_of_the_tree_settles_as_on_a_share(rig: DeclaredRig) -> None:
    """It may be on one, where what other machines write is seen late."""
    rig.configure(links=[str(rig.base / "videos")])
    rig.rig.start()
    assert rig.rig.engine is not None
    rig.rig.engine.runtime.contexts[NAME].settle_links = 60.0
    video = elsewhere(rig, "v.tif", b"V")
    os.utime(video, (1, 1))
    os.symlink(video, rig.home / "inputs/video.tif")
    rig.write("inputs/run5.tif", "five")
    os.symlink("run5.tif", rig.home / "inputs/here.tif")
    rig.until(lambda: rig.state("here.tif") is FileState.STORED, "the link within")
    assert rig.state("run5.tif") is FileState.STORED
    assert rig.state("video.tif") is FileState.SETTLING
    rig.until(lambda: rig.state("video.tif") is FileState.STORED, "the other", 200)


def test_F97_a_hinted_folder_that_cannot_be_entered_is_recorded_at_once(
    rig: DeclaredRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.configure(watch={"settle": "1s", "rescan": "1h", "min_free": 0})
    rig.turns(4)
    (rig.source / "M7/1/closed").mkdir(parents=True)
    (rig.source / "M7/1/open").mkdir()
    real = os.open

    def refused(path: str, *args: object, **kwargs: object) -> int:
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]  # handed through as they come

    monkeypatch.setattr(os, "open", refused)
    assert rig.rig.engine is not None
    for folder in ("M7/1/closed/", "M7/1/open/", "M7/1/none/"):
        rig.rig.engine.observer.hint(NAME, "share", folder)
    rig.turns(3)
    assert {f.place.path: f.state for f in rig.files() if f.place.tree} == {"M7/1/closed/": FileState.SKIPPED}
