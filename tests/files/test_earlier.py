"""What the files of an analysis's folder tell of earlier jobs, and the file that names a root's rig."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ncaasd.adapters.files.earlier import JOB_LIMIT, LocalEarlierJobs
from ncaasd.adapters.files.rigfile import LocalRigFile
from ncaasd.errors import LocalError, RootMissing

OURS = {"submit": {"dataname": ["a"]}, "submit_file": "lab/submissions/1-submit.json"}


def job(home: Path, job_id: str, document: object = OURS) -> None:
    folder = home / "results" / f"job__caiman-web_{job_id}"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(document if isinstance(document, str) else json.dumps(document))


def earlier(home: Path, seconds: float = 8.0) -> LocalEarlierJobs:
    return LocalEarlierJobs(str(home), submissions="lab/submissions/", seconds=seconds)


def test_what_is_known_is_no_news(tmp_path: Path) -> None:
    job(tmp_path, "1")
    assert earlier(tmp_path).jobs({"1"}).seen == frozenset()
    found = earlier(tmp_path).jobs(())
    assert (found.submitted, found.seen, found.complete) == ({"1"}, {"1"}, True)


def test_a_folder_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    found = earlier(tmp_path / "gone").jobs(())
    assert (found.submitted, found.seen, found.complete) == (frozenset(), frozenset(), True)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[" * 200_000, "9" * 100_000, '{"submit": {}}', '{"submit": {}, "submit_file": []}', "\0", "ÿþ"],
)
def test_whatever_a_job_json_holds(tmp_path: Path, text: str) -> None:
    job(tmp_path, "1", text)
    job(tmp_path, "2")
    assert earlier(tmp_path).jobs(()).submitted <= {"2"}


def test_one_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    job(tmp_path, "1", json.dumps(OURS) + " " * JOB_LIMIT)
    assert earlier(tmp_path).jobs(()).submitted == frozenset()


def test_unit_s_files_in_folders_tell_too_and_links_are_not_followed(tmp_path: Path) -> None:
    line = json.dumps({"jobs": [{"id": "77", "submitted": "2026-01-01"}, {"id": "78", "submitted": None}]})
    below = tmp_path / "submissions/status/two-photon/m7"
    below.mkdir(parents=True)
    (below / "1.json").write_text(line)
    (below / "loop").symlink_to(tmp_path / "submissions")
    assert earlier(tmp_path).jobs(()).submitted == {"77"}
    (below / "2.json").symlink_to(below / "1.json")
    (below / "1.json").rename(tmp_path / "elsewhere.json")
    assert earlier(tmp_path).jobs(()).submitted == frozenset()


def test_ten_thousand_known_jobs_cost_one_listing(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"results/job__caiman-web_{number}").mkdir(parents=True)
    known = {str(number) for number in range(10_000)}
    began = time.monotonic()
    found = earlier(tmp_path).jobs(known)
    assert found.complete and not found.seen
    assert time.monotonic() - began < 2.0


def test_what_takes_too_long_is_said_to_be_a_part(tmp_path: Path) -> None:
    job(tmp_path, "1")
    assert not earlier(tmp_path, seconds=-1.0).jobs(()).complete


# -- the root's file


def test_the_name_is_written_once(tmp_path: Path) -> None:
    mark = LocalRigFile(str(tmp_path))
    assert mark.read() is None
    assert mark.write("scope-1a2b3c") == "scope-1a2b3c"
    assert mark.write("another") == "scope-1a2b3c" == mark.read(), "never over one that is there"
    assert os.listdir(tmp_path) == [".ncaasd-rig"]
    assert "Keep this file" in (tmp_path / ".ncaasd-rig").read_text()


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_from: str, _to: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    mark = LocalRigFile(str(tmp_path))
    assert mark.write("scope-1a2b3c") == "scope-1a2b3c"
    assert mark.write("another") == "scope-1a2b3c"
    assert os.listdir(tmp_path) == [".ncaasd-rig"]


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RootMissing):
        LocalRigFile(str(tmp_path / "gone")).read()
    with pytest.raises(LocalError):
        LocalRigFile(str(tmp_path / "gone")).write("a")


@pytest.mark.parametrize("text", ["", "rig:\n", "rig: ../up\n", "rig: .journals\n", "name: a\n", "\0\0"])
def test_a_file_that_names_no_rig_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / ".ncaasd-rig").write_text(text)
    with pytest.raises(LocalError, match=r"names no rig.*delete the file"):
        LocalRigFile(str(tmp_path)).read()


def test_a_link_or_a_folder_is_no_rig_s_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("rig: a\n")
    (tmp_path / ".ncaasd-rig").symlink_to(tmp_path / "other")
    with pytest.raises(LocalError, match="cannot be read"):
        LocalRigFile(str(tmp_path)).read()
    (tmp_path / ".ncaasd-rig").unlink()
    (tmp_path / ".ncaasd-rig").mkdir()
    with pytest.raises(LocalError):
        LocalRigFile(str(tmp_path)).read()
