"""F96 on a real server: two recordings of one name in S3. The analysis copies its input, so a job's result tells whose bytes it
was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.rig import BUCKET, CONFIG, GROUP, Rig, blob

from ncaasd.model import FileState, JobRow, Phase, Place
from ncaasd.neurocaas.naming import safe_key

NewRig = Callable[..., Rig]
SIZES = {"small": 40_000, "multipart": 9 << 20}


def two_sources(new_rig: NewRig, tmp_path: Path, size: int) -> tuple[Rig, Path, Path]:
    first, second = tmp_path / "camera-1", tmp_path / "camera-2"
    for folder, seed in ((first, 1), (second, 2)):
        (folder / "m7").mkdir(parents=True)
        (folder / "m7/a.bin").write_bytes(blob(size, seed))
    rig = new_rig(changes={"sources": {"camera-1": str(first), "camera-2": str(second)}})
    rig.drop_config()
    rules = [
        {"name": name, "source": f"camera-{name[-1]}", "datasets": "**/*.bin", "config": CONFIG}
        for name in ("r1", "r2")
    ]
    rig.drop("manifest.yaml", yaml.safe_dump({"rules": rules}))
    return rig, first, second


def state(rig: Rig, tree: str, path: str = "m7/a.bin") -> FileState | None:
    with rig.reading() as journal:
        row = journal.file_at(Place(BUCKET, tree, path))
    return row.state if row else None


def job(rig: Rig, rule: str) -> JobRow:
    return rig.job(rule)


def result(rig: Rig, job: JobRow, name: str) -> bytes:
    return Path(rig.home, "results", job.results, "process_results", name).read_bytes()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("crash", ["", "upload.put:1", "submit.before_intent:1"])
def test_F96_each_job_has_its_own_recording_also_when_both_have_one_name(
    new_rig: NewRig, tmp_path: Path, size: int, crash: str
) -> None:
    if size > SIZES["small"]:
        crash = crash.replace("upload.put", "upload.completed")
    rig, first, _second = two_sources(new_rig, tmp_path, size)
    rig.start(command=False)
    rig.wait_for(lambda: rig.done(1, "r1"), "the first one's job")
    rig.wait_for(lambda: state(rig, "camera-2") is FileState.REFUSED, "the second one to wait")
    waits = job(rig, "r2")
    assert waits.phase is Phase.OPEN and "m7/a.bin in source camera-1 has its name in S3 already" in waits.reason
    rig.stop()
    # Another daemon, killed at a bad moment of the second one's way, and one more.
    os.rename(first / "m7/a.bin", first / "m7/a-of-monday.bin")
    if crash:
        # The renamed one goes up under its new name, and isn't paid for again (F103). Wherever it dies, nothing is mixed.
        rig.start(crash, command=False)
        rig.crashes()
    rig.start(command=False)
    rig.wait_for(lambda: rig.done(1, "r2"), "the second one's job")
    rig.wait_for(lambda: any(j.hold == "renamed" for j in rig.jobs()), "the renamed one's hold")
    rig.stop()
    assert result(rig, job(rig, "r2"), "a.bin") == blob(size, 2)
    by_unit = {j.spec.unit: j for j in rig.jobs() if j.spec.name == "r1"}
    assert result(rig, by_unit["m7/a.bin"], "a.bin") == blob(size, 1)
    assert by_unit["m7/a-of-monday.bin"].phase is Phase.OPEN
    assert rig.bench.body(f"{GROUP}/inputs/{rig.name}/m7/a-of-monday.bin") == blob(size, 1)
    assert rig.bench.body(f"{GROUP}/inputs/{rig.name}/m7/a.bin") == blob(size, 2)
    assert [f.state for f in rig.files() if f.state is FileState.HELD] == [], "what this rig has put is not foreign"
    assert sorted(rig.submits().values()) == [1, 1]


def test_F96_the_object_that_a_job_reads_is_not_overwritten_by_another_file(new_rig: NewRig, tmp_path: Path) -> None:
    rig, first, _second = two_sources(new_rig, tmp_path, 40_000)
    rig.drop_config(__sandbox__="slow-analysis")
    rig.start(command=False)
    rig.wait_for(lambda: len(rig.jobs()) == 2 and job(rig, "r1").phase is Phase.SUBMITTED, "the first one's submit")
    (first / "m7/a.bin").unlink()
    rig.wait_for(lambda: state(rig, "camera-2") is FileState.WHOLE, "the second one's turn")
    rig.wait_for(
        lambda: any("may still be reading" in f.reason for f in rig.files() if f.place.tree == "camera-2"),
        "why it waits",
    )
    assert rig.bench.body(f"{GROUP}/inputs/{rig.name}/m7/a.bin") == blob(40_000, 1)
    assert job(rig, "r2").phase is Phase.OPEN
    rig.stop()


def test_F96_names_of_any_script_have_their_own_objects_jobs_and_results(rig: Rig) -> None:
    names = {"日本.bin": 1, "中文.bin": 2, "Größe 3.bin": 3, "é.bin": 4, "e\u0301.bin": 5}
    rig.drop_config()
    rig.drop_rule()
    for name, seed in names.items():
        rig.drop(f"inputs/{name}", blob(20_000, seed))
    rig.start(command=False)
    rig.wait_done(len(names))
    rig.stop()
    for name, seed in names.items():
        done = rig.job(name)
        assert done.spec.datasets[0].key == f"{GROUP}/inputs/{rig.name}/{safe_key(name)}"
        assert result(rig, done, safe_key(name)) == blob(20_000, seed)
        document = Path(rig.home, "results", done.results, "job.json").read_text(encoding="utf-8")
        assert f'"{name}"' in document and safe_key(name) in document
    rig.check_submits(len(names))
