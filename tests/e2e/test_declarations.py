"""What is declared happens: the installed command, a real daemon, a real S3 server. One story a case."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from support.commands import command
from support.rig import BUCKET, CONFIG, GROUP, Rig, blob

from ncaasd.model import FileState, JobRow, JobState, Phase

NewRig = Callable[..., Rig]
FAILS = {"__sandbox__": "all-fail"}


def rules(rig: Rig, *wanted: dict[str, Any]) -> None:
    made = [{"name": "r", "datasets": "*.bin", "config": CONFIG, **rule} for rule in wanted]
    rig.drop("manifest.yaml", yaml.safe_dump({"rules": made}))


def record(folder: Path, path: str, body: bytes | str = b"") -> Path:
    """A file of a share, which is no place of ncaasd's."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body.encode() if isinstance(body, str) else body)
    return target


def inputs_in_s3(rig: Rig) -> list[str]:
    below = f"{GROUP}/inputs/{rig.name}/"
    return sorted(key.removeprefix(below) for key in rig.bench.objects(f"inputs/{rig.name}/"))


def config_of(rig: Rig, job: JobRow) -> tuple[str, dict[str, Any]]:
    """(the key that the job's submit file names, what is there)"""
    key = json.loads(rig.bench.body(job.submit_key))["configname"]
    return key, yaml.safe_load(rig.bench.body(key))


def result(rig: Rig, job: JobRow, name: str) -> bytes:
    """The analysis copies its input."""
    return Path(rig.home, "results", job.results, "process_results", name).read_bytes()


def ended(rig: Rig, state: JobState, count: int, name: str = "") -> bool:
    found = [j for j in rig.jobs() if name in ("", j.spec.name)]
    return sum(j.phase is Phase.ENDED and j.state is state for j in found) == count


def status(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(rig, "status", "--json").stdout)
    return found


def test_a_session_on_a_share_waits_for_its_gates_and_each_animal_has_its_config(
    new_rig: NewRig, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    rig = new_rig(changes={"sources": {"share": str(share)}})
    for animal in ("M7", "M8"):
        rig.drop(f"configs/{animal}.yaml", yaml.safe_dump({"fr": 30, "who": "nobody", "animal": animal}))
    for session in ("M7/1", "M7/2", "M8/1", "M8/2"):
        record(share, f"{session}/a.bin", f"a of {session}")
        record(share, f"{session}/b.bin", f"b of {session}")
        record(share, f"{session}/camera.avi", "not wanted")
    for done in ("M7/1", "M8/1", "M8/2"):
        record(share, f"{done}/DONE")
    record(share, "M8/1/ABORTED")
    before = sorted(share.rglob("*"))
    rules(
        rig,
        {
            "name": "sessions",
            "source": "share",
            "unit": "{animal}/{run}",
            "complete_when": "DONE",
            "abort_when": "ABORTED",
            "overdue": "1s",
            "job_per": "unit",
            "config": "{animal}.yaml",
            "set": {"who": "{animal}-{run}", "fr": 15},
        },
    )
    rig.start(command=False)
    rig.wait_done(2)
    stored = ["M7/1/a.bin", "M7/1/b.bin", "M8/2/a.bin", "M8/2/b.bin"]
    assert inputs_in_s3(rig) == stored, "nothing of a unit that isn't whole, and nothing that no rule names"
    configs = {unit: config_of(rig, rig.job(unit)) for unit in ("M7/1", "M8/2")}
    assert configs["M7/1"][1] == {"fr": 15, "who": "M7-1", "animal": "M7"}
    assert configs["M8/2"][1] == {"fr": 15, "who": "M8-2", "animal": "M8"}
    assert configs["M7/1"][0].startswith(f"{GROUP}/configs/M7-"), "named by its content"
    assert json.loads(rig.job("M7/1").spec.fields) == {"animal": "M7", "run": "1"}

    def said(unit: str) -> str:
        return str(rig.statuses().get(f"submissions/status/sessions/{unit}.json", {}).get("unit", {}).get("state"))

    rig.wait_for(lambda: (said("M7/2"), said("M8/1")) == ("overdue", "aborted"), "what the units wait for")
    found = status(rig)["analyses"][0]
    assert {left["why"]: left["files"] for left in found["not_uploaded"]} == {
        "no rule names it": 4 + 3 + 1,  # the films; the gates' files of whole units and of the aborted one
        "its unit was aborted": 2,
    }
    assert found["files"]["whole"]["files"] == 2, "those of M7/2 are still to be uploaded"
    assert sorted(share.rglob("*")) == before, "a source is only read"
    record(share, "M7/2/DONE")
    rig.wait_done(3)
    assert inputs_in_s3(rig) == sorted([*stored, "M7/2/a.bin", "M7/2/b.bin"])


def test_a_session_is_packed_by_zip_and_another_by_a_tool(new_rig: NewRig, tmp_path: Path) -> None:
    share = tmp_path / "share"
    tool = record(
        tmp_path,
        "join.py",
        "import sys\n"
        "*files, out = sys.argv[1:]\n"
        "open(out, 'wb').write(b'|'.join(open(f, 'rb').read() for f in files))\n"
        "print('joined', len(files), 'files')\n",
    )
    record(share, "M9/1/a.bin", "one")
    record(share, "M9/1/b.bin", "two")
    rig = new_rig(
        changes={
            "sources": {"share": str(share)},
            "tools": {"join": [sys.executable, "-I", "-S", str(tool), "{files}", "{out}"]},
        }
    )
    rig.drop_config()
    frames = {f"M1/s1/{n}.bin": blob(1000, n) for n in range(3)}
    for name, body in frames.items():
        rig.drop(f"inputs/{name}", body)
    rig.drop("inputs/M1/s1/notes.txt", "goes up by itself")
    rules(
        rig,
        {"name": "zips", "unit": "{animal}/{run}", "package": "zip"},
        {
            "name": "joined",
            "source": "share",
            "unit": "{animal}/{run}",
            "package": {"tool": "join", "name": "{animal}_{run}.dat"},
        },
    )
    rig.start(command=False)
    rig.wait_done(2)
    assert inputs_in_s3(rig) == ["M1/s1.zip", "M1/s1/notes.txt", "M9_1.dat"], (
        "what is packed goes up in its package only"
    )
    with zipfile.ZipFile(io.BytesIO(result(rig, rig.job("zips"), "s1.zip"))) as packed:
        assert {f"M1/s1/{name}": packed.read(name) for name in packed.namelist()} == frames
    assert result(rig, rig.job("joined"), "M9_1.dat") == b"one|two"
    assert "joined 2 files" in command(rig, "job", rig.job("joined").job_id).stdout

    def packages() -> list[str]:
        return [name for _p, _f, names in os.walk(os.path.join(rig.state, "packages")) for name in names]

    rig.wait_for(lambda: packages() == [], "the packages to be removed: they are stored")
    (left,) = status(rig)["analyses"][0]["not_uploaded"]
    assert (left["why"], left["files"]) == ("goes up in its unit's package, not by itself", 5)


def test_guards_hold_jobs_and_status_names_the_command_that_releases_them(new_rig: NewRig) -> None:
    rig = new_rig(changes={"jobs": {"ask_above": 3, "stop_after_failures": 2}})
    rig.drop_config()
    rig.drop("configs/bad.yaml", yaml.safe_dump(FAILS))
    rules(
        rig,
        {"name": "many", "datasets": "many/*.bin"},
        {"name": "first", "datasets": "first/*.bin", "canary": 1},
        {"name": "bad", "datasets": "bad/*.bin", "config": "bad.yaml"},
    )
    for name in ("many/1", "many/2", "many/3", "many/4", "first/1", "first/2", "bad/1", "bad/2"):
        rig.drop(f"inputs/{name}.bin", name)
    rig.start(command=False)
    rig.wait_for(lambda: ended(rig, JobState.DONE, 2, "first") and ended(rig, JobState.FAILED, 2, "bad"), "the ends")
    canary, rest = sorted((j for j in rig.jobs() if j.spec.name == "first"), key=lambda j: j.submitted)
    assert canary.ended <= rest.intended, "the rest waited for the canary"
    rig.drop("inputs/bad/3.bin", "bad/3")
    rig.wait_for(
        lambda: [j.spec.unit for j in rig.jobs() if j.hold == "failures"] == ["bad/3.bin"], "the third to be held"
    )
    asked = {a["name"]: a for a in status(rig)["attention"]}
    assert set(asked) == {"many: 4 jobs (4 machines, 24 B)", "bad bad/3.bin"}
    backlog = asked["many: 4 jobs (4 machines, 24 B)"]
    assert "more than jobs.ask_above: 3" in backlog["why"]
    assert "failed in a row" in asked["bad bad/3.bin"]["why"]
    assert backlog["command"] == "ncaasd release --rule many" and backlog["command"] in command(rig, "status").stdout
    assert not [j for j in rig.jobs() if j.spec.name == "many" and j.phase is not Phase.OPEN]
    words = shlex.split(backlog["command"])[1:]
    unanswered = command(rig, *words)
    assert unanswered.returncode and not ended(rig, JobState.DONE, 4, "many"), "nobody said yes"
    released = command(rig, *words, "--yes")
    assert released.returncode == 0, released.stdout + released.stderr
    rig.wait_for(lambda: ended(rig, JobState.DONE, 4, "many"), "the released jobs")
    assert rig.job("bad/3.bin").hold == "failures", "another rule's"


def test_recordings_go_only_when_an_archive_has_them(new_rig: NewRig, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    rig = new_rig(changes={"after_results": {"local_inputs": {"delete": {"copy_at": f"{archive}/{{path}}"}}}})
    rig.drop_config()
    rig.drop_rule()
    bodies = {name: blob(1000, number) for number, name in enumerate(("kept", "other", "none"))}
    for name, body in bodies.items():
        rig.drop(f"inputs/{name}.bin", body)
    record(archive, "kept.bin", bodies["kept"])
    record(archive, "other.bin", bodies["other"][:-1] + b"!")
    rig.start(command=False)
    rig.wait_done(3)
    inputs = Path(rig.home, "inputs")

    def verdicts() -> tuple[int, dict[str, Any]]:
        said = command(rig, "safe", str(inputs), "--json")
        return said.returncode, {Path(v["path"]).name: v for v in json.loads(said.stdout)}

    rig.wait_for(lambda: not (inputs / "kept.bin").exists(), "the proved one to be deleted")
    rig.wait_for(lambda: len([e for e in rig.events("after results") if "not done yet" in e.text]) == 2, "the others")
    assert sorted(os.listdir(inputs)) == ["none.bin", "other.bin"]
    code, found = verdicts()
    assert code == 1 and set(found) == {"none.bin", "other.bin"}
    for name in found:
        assert [found[name][k] for k in ("safe", "stored", "analysed", "fetched", "archived")] == [
            False,
            *[True] * 3,
            False,
        ]
        assert str(archive / name) in found[name]["why"] and found[name]["jobs"] == [rig.job(name).job_id]
    for name in ("none", "other"):
        record(archive, f"{name}.bin", bodies[name])
    code, found = verdicts()
    assert code == 0 and all(v["safe"] and len(v["crc64nvme"]) == 16 for v in found.values())
    # moved instead: ncaasd makes and proves the copy itself; and nothing of it stays in S3
    rig.configure({"after_results": {"local_inputs": {"move": f"{archive}/{{path}}"}, "remote_inputs": "delete"}})
    assert rig.process is not None
    rig.process.signal(signal.SIGHUP)
    rig.wait_for(lambda: rig.events("reloaded"), "the new config")
    moved = blob(1000, 7)
    rig.drop("inputs/day 2/moved.bin", moved)
    rig.wait_for(lambda: ended(rig, JobState.DONE, 4), "the fourth job")
    rig.wait_for(lambda: not (inputs / "day 2/moved.bin").exists(), "it to be moved")
    assert (archive / "day 2/moved.bin").read_bytes() == moved
    rig.wait_for(lambda: "moved.bin" not in " ".join(inputs_in_s3(rig)), "it to be deleted in S3")
    assert inputs_in_s3(rig) == ["kept.bin", "none.bin", "other.bin"]


def test_F36_F78_an_edited_manifest_makes_no_new_job_and_a_bad_config_leaves_the_old_in_force(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", "a")
    process = rig.start(command=False)
    rig.wait_done(1)

    rig.drop_rule(set={"fr": 99}, instance_type="p3.2xlarge")  # F36
    rig.wait_for(lambda: len([e for e in rig.events("read") if "manifest" in e.subject]) == 2, "the edit to be read")
    rig.drop("manifest.yaml", "rules:\n  - {name: all, datsets: '*'}\n")  # a bad manifest: the edit stays in force
    rig.wait_for(lambda: rig.events("bad manifest"), "it to be refused")

    good = Path(rig.config).read_text()
    Path(rig.config).write_text(good.replace("min_free", "min_fre"))  # F78
    process.signal(signal.SIGHUP)
    rig.wait_for(lambda: rig.events("bad config"), "the bad config to be said")
    rig.drop("inputs/b.bin", "b")
    rig.wait_done(2)
    assert config_of(rig, rig.job("b.bin"))[1]["fr"] == 99, "the manifest as edited"
    assert "fr" not in config_of(rig, rig.job("a.bin"))[1]
    found = status(rig)
    assert [t for t in found["troubles"] if "watch.min_fre" in t and "is min_free meant?" in t], found["troubles"]
    (manifest,) = [a for a in found["attention"] if a["kind"] == "manifest"]
    assert "manifest.yaml:2:" in manifest["why"] and "is datasets meant?" in manifest["why"]
    assert not rig.statuses()["manifest.status.json"]["ok"]
    said = command(rig, "status").stdout
    assert "watch.min_fre" in said and "manifest.yaml:2:" in said

    Path(rig.config).write_text(good.replace(f"{rig.name}/", f"{rig.name}/day2/"))
    process.signal(signal.SIGHUP)
    rig.wait_for(lambda: rig.events("reloaded"), "the good one")
    rig.drop("inputs/c.bin", "c")
    rig.wait_done(3)
    assert inputs_in_s3(rig) == ["a.bin", "b.bin", "day2/c.bin"], "the new prefix is for what is new"
    assert status(rig)["troubles"] == []
    assert process.running() and sorted(rig.submits().values()) == [1, 1, 1]


def test_many_jobs_are_rerun_by_rule_and_animal_and_since_and_with_a_new_config(rig: Rig) -> None:
    rig.drop_config(fr=1)
    rig.drop("configs/better.yaml", "fr: 2\n")
    for name in ("M7/1/a", "M7/2/a", "M8/1/a"):
        rig.drop(f"inputs/{name}.bin", name)
    rules(rig, {"unit": "{animal}/{run}", "config": CONFIG})
    rig.start(command=False)
    rig.wait_done(3)

    unanswered = command(rig, "rerun", "--rule", "r", "--where", "animal=M7", "--since", "1h")
    assert unanswered.returncode and "2 jobs" in unanswered.stdout + unanswered.stderr, unanswered
    assert command(rig, "rerun", "--rule", "r", "--where", "animal=M9", "--yes").returncode
    assert len(rig.jobs()) == 3
    again = command(rig, "rerun", "--rule", "r", "--where", "animal=M7", "--since", "1h", "--yes")
    assert again.returncode == 0, again.stderr
    rig.wait_for(lambda: ended(rig, JobState.DONE, 5), "the reruns")
    assert sorted((j.spec.unit, j.attempt) for j in rig.jobs() if j.attempt) == [("M7/1/a.bin", 1), ("M7/2/a.bin", 1)]

    better = command(rig, "rerun", "--where", "animal=M8", "--with-config", "better.yaml", "--yes", "--json")
    assert [e["done"] for e in json.loads(better.stdout)] == [True]
    rig.wait_for(lambda: ended(rig, JobState.DONE, 6), "the rerun with the new config")
    assert [config_of(rig, rig.job("M8/1/a.bin", attempt))[1]["fr"] for attempt in (0, 1)] == [1, 2]
    assert set(rig.submits().values()) == {1} and len(rig.submits()) == 6


def test_what_plan_says_happens(rig: Rig) -> None:
    """`plan` before anything was ever started, then the daemon; the submit files are those it showed."""
    rig.drop_config()
    rig.drop("inputs/a.bin", "a")
    rig.drop("inputs/b.bin", "bb")
    rig.drop_rule(set={"fr": 5})
    rig.drop_job("pair", "a.bin", "b.bin")
    said = command(rig, "plan", "--json")
    assert said.returncode == 0, said.stderr
    planned = json.loads(said.stdout)
    assert not os.path.exists(rig.state), "nothing is changed by it"
    bodies = [json.loads(job["submit_file"]) for job in planned["jobs"]]
    assert [job["plan"] for job in planned["jobs"]] == ["submit"] * 3
    rig.start(command=False)
    rig.wait_done(3)
    assert sorted((json.loads(rig.bench.body(j.submit_key)) for j in rig.jobs()), key=str) == sorted(bodies, key=str)
    keys = {upload["key"] for upload in planned["uploads"]}
    assert {f"{GROUP}/inputs/{rig.name}/a.bin", f"{GROUP}/inputs/{rig.name}/b.bin"} <= keys
    assert {f.key for f in rig.files() if f.state is FileState.STORED} <= keys
    assert BUCKET in command(rig, "jobs").stdout or len(json.loads(command(rig, "jobs", "--json").stdout)) >= 1
