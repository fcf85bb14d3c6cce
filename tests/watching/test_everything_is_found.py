"""Through the real daemon, by events alone and by rescans alone: every way to bring a recording, and all that lies about.

Both daemons get the same folders at the same time. Each recording is in S3 with its final bytes; once, if its writer's
pauses were shorter than `settle`; and what is no recording is not there, and is said.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.rig import BUCKET, GROUP, Bench, Rig, blob
from watching.writers_at_work import WRITERS, Bystanders, Writer, bystanders, whole

from ncaasd.adapters import control
from ncaasd.model import FileState, JobState

SETTLE = 2.0
DEEP = 60  # folders in one another
TOO_DEEP = 120  # its key would be longer than S3 allows
NEW_FOLDERS = 100
LONG = "f" * 255
MODES = {
    "native": {"mode": "native", "rescan": "1h"},  # events alone must find it all
    "polling": {"mode": "polling", "rescan": "500ms"},
}


@dataclass
class Gathered:
    rig: Rig
    beside: Bystanders
    longest: dict[str, float] = field(default_factory=dict)  # writer -> its longest pause, as it came

    def path(self, writer: Writer) -> str:
        base = os.fsdecode(writer.base) or f"{writer.name}.bin"
        return os.path.join(self.rig.home, "inputs", "writers", base)

    def key(self, path: str) -> str:
        """Of a local path below the analysis's folder."""
        found = [f for f in self.rig.files() if f.place.path == path]
        assert len(found) == 1 and found[0].state is FileState.STORED, found
        return found[0].key

    def versions(self) -> dict[str, int]:
        return self.rig.bench.versions(f"inputs/{self.rig.name}/")


def _drop_folders(rig: Rig) -> None:
    """Folders that are made and filled at once (F23), a deep one, one that is moved in whole (F25), hard links (F28)."""
    inputs = os.path.join(rig.home, "inputs")
    for number in range(NEW_FOLDERS):
        folder = os.path.join(inputs, f"new{number % 7}", f"run{number}", "raw")
        os.makedirs(folder)
        whole(os.path.join(folder, "a.bin"), b"%d" % number)
    for name, depth in (("deep", DEEP), ("toodeep", TOO_DEEP)):
        folder = os.path.join(inputs, name, *["subfolder"] * depth)
        os.makedirs(folder)
        whole(os.path.join(folder, "a.bin"), b"deep")
    os.makedirs(os.path.join(inputs, LONG))
    whole(os.path.join(inputs, LONG, "a.bin"), b"long")
    moved = os.path.join(rig.root, "staging", "session")
    os.makedirs(os.path.join(moved, "trial"))
    for name in ("a.bin", "trial/b.bin"):
        whole(os.path.join(moved, name), name.encode())
        os.utime(os.path.join(moved, name), (1_500_000_000, 1_500_000_000))
    os.rename(moved, os.path.join(inputs, "session"))
    whole(os.path.join(inputs, "one-name.bin"), b"of two names")
    os.link(os.path.join(inputs, "one-name.bin"), os.path.join(inputs, "another-name.bin"))


@pytest.fixture(scope="module")
def both(shared: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gathered]]:
    found: dict[str, Gathered] = {}
    writing = []
    try:
        for mode, watch in MODES.items():
            base = tmp_path_factory.mktemp(mode)
            (base / "outside").mkdir()
            rig = Rig(shared, str(base / "rig"), changes={"watch": {**watch, "settle": f"{SETTLE}s"}})
            os.makedirs(os.path.join(rig.home, "inputs", "writers"))
            rig.start(command=False)
            rig.wait_for(lambda rig=rig: _is_watched(rig, mode), "the first look")  # noqa: B023  # waited for here
            gathered = found[mode] = Gathered(rig, bystanders(rig.home, str(base / "outside")))
            for number, writer in enumerate(WRITERS):

                def write(g: Gathered = gathered, w: Writer = writer, seed: int = number) -> None:
                    g.longest[w.name] = w.write(g.path(w), blob(w.size, seed))

                writing.append(threading.Thread(target=write))
                writing[-1].start()
            _drop_folders(rig)
        for thread in writing:
            thread.join(60)
        for gathered in found.values():
            gathered.rig.wait_for(lambda g=gathered: _all_there(g), "everything to be stored", timeout=90)
        yield found
        for gathered in found.values():
            gathered.rig.stop()
    finally:
        for gathered in found.values():
            gathered.rig.close()


def _is_watched(rig: Rig, mode: str) -> bool:
    watching = (rig.live() or {}).get("watching", {})
    return watching.get(f"{BUCKET}:", {}).get("mode") == mode


def _all_there(gathered: Gathered) -> bool:
    """Every file on the disk that is one is known and at rest: in S3, or refused."""
    states = {f.place.path: f.state for f in gathered.rig.files() if f.place.path.startswith("inputs/")}
    paths = {os.path.relpath(gathered.path(w), gathered.rig.home) for w in WRITERS}
    inputs = os.path.join(gathered.rig.home, "inputs")
    for parent, _folders, names in os.walk(inputs):
        below = os.path.relpath(parent, gathered.rig.home)
        if not below.endswith("writers") and below != "inputs":
            paths |= {os.path.join(below, name) for name in names}
    paths |= {"inputs/one-name.bin", "inputs/another-name.bin"}
    return all(states.get(path) in (FileState.STORED, FileState.REFUSED) for path in paths)


@pytest.fixture(params=MODES)
def gathered(both: dict[str, Gathered], request: pytest.FixtureRequest) -> Gathered:
    return both[request.param]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.name)
def test_F29_F30_every_way_to_write_a_recording(gathered: Gathered, writer: Writer) -> None:
    path = gathered.path(writer)
    key = gathered.key(os.path.relpath(path, gathered.rig.home))
    assert gathered.rig.bench.body(key) == Path(path).read_bytes(), "the final bytes"
    assert len(Path(path).read_bytes()) == writer.size
    if gathered.longest[writer.name] < SETTLE * 0.9:
        assert gathered.versions()[key] == 1, "and nothing before they were final"


def test_F23_files_in_folders_made_a_moment_ago(gathered: Gathered) -> None:
    for number in range(NEW_FOLDERS):
        key = gathered.key(f"inputs/new{number % 7}/run{number}/raw/a.bin")
        assert gathered.rig.bench.objects(key.removeprefix(f"{GROUP}/")) == {key: len(str(number))}


def test_F25_a_folder_moved_in_whole_with_old_times(gathered: Gathered) -> None:
    for name in ("a.bin", "trial/b.bin"):
        assert gathered.rig.bench.body(gathered.key(f"inputs/session/{name}")) == name.encode()


def test_F28_hard_links_are_two_names_once_each(gathered: Gathered) -> None:
    keys = {gathered.key(f"inputs/{name}.bin") for name in ("one-name", "another-name")}
    assert len(keys) == 2
    assert [gathered.versions()[key] for key in keys] == [1, 1]


def test_deep_trees_are_walked_and_what_has_no_key_is_refused_with_a_reason(gathered: Gathered) -> None:
    files = {f.place.path: f for f in gathered.rig.files()}
    deep = files["/".join(["inputs/deep", *["subfolder"] * DEEP, "a.bin"])]
    assert deep.state is FileState.STORED and gathered.rig.bench.body(deep.key) == b"deep"
    too_deep = files["/".join(["inputs/toodeep", *["subfolder"] * TOO_DEEP, "a.bin"])]
    assert too_deep.state is FileState.REFUSED and "1024" in too_deep.reason.replace(",", "")


def test_names_of_255_bytes(gathered: Gathered) -> None:
    assert gathered.rig.bench.body(gathered.key(f"inputs/{LONG}/a.bin")) == b"long"


def test_nothing_else_is_uploaded(gathered: Gathered) -> None:
    """In particular no temporary name, nothing behind a link, and nothing twice."""
    known = {f.key for f in gathered.rig.files() if f.state is FileState.STORED}
    versions = gathered.versions()
    assert set(versions) == known
    for key in versions:
        below = key.removeprefix(f"{GROUP}/inputs/{gathered.rig.name}/")
        assert not [part for part in gathered.beside.unlike if part in below], below
        assert "working" not in below and "4913" not in below and not below.endswith((".part", ".swp"))


def test_F28_F74_what_is_no_file_is_skipped_and_said(gathered: Gathered) -> None:
    """At the next rescan: events lead to files only."""
    control.ask(gathered.rig.state, {"do": "rescan"})
    gathered.rig.wait_for(lambda: len(_skipped(gathered)) >= len(gathered.beside.skipped), "the rescan")
    said = _skipped(gathered)
    for path, word in gathered.beside.skipped.items():
        assert word in said[path], path


def _skipped(gathered: Gathered) -> dict[str, str]:
    return {e.subject.removeprefix("file "): e.text for e in gathered.rig.events("skipped")}


def test_a_name_that_is_no_text_gets_a_job_like_any_other(gathered: Gathered) -> None:
    rig = gathered.rig
    rig.drop_config()
    rig.drop_rule(datasets="writers/caf*.bin", name=f"odd-{gathered.rig.name}")
    rig.wait_for(lambda: any(j.state is JobState.DONE for j in rig.jobs()), "its job", timeout=60)
    (job,) = rig.jobs()
    (dataset,) = job.spec.datasets
    results = Path(rig.home, "results", job.results, "process_results")
    path = os.path.join(rig.home, "inputs", "writers", os.fsdecode(b"caf\xe9 \xff.bin"))
    assert (results / os.path.basename(dataset.key)).read_bytes() == Path(path).read_bytes()
