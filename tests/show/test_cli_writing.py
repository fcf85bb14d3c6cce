"""`init`, `submit`, `plan`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from show_machine import ANALYSIS, NOW, Call, Machine, add_job, done, spec

from ncaasd.adapters.journal import Journal
from ncaasd.declare.config import load_config
from ncaasd.declare.manifest import Manifest, parse_manifest
from ncaasd.model import FileState, Place, Stat

# -- init

INIT = ["--group", "user1", "--root", "{root}", "--analysis", "caiman-ncap-web", "--analysis", "dlc-ncap-web"]


def init(tmp_path: Path, *more: str) -> list[str]:
    return [
        "init",
        *(a.format(root=tmp_path / "neuro caas") for a in INIT),
        "--config",
        str(tmp_path / "new" / "c.yaml"),
        *more,
    ]


def test_init_writes_a_config_that_can_be_read_and_the_folders(tmp_path: Path, ncaasd: Call) -> None:
    answer = ncaasd(*init(tmp_path, "--profile", "lab", "--rig", "rig-a"))
    assert answer.code == 0, answer.err
    path = tmp_path / "new" / "c.yaml"
    config = load_config(path.read_bytes(), str(path))
    assert (config.group, config.rig, config.aws.profile) == ("user1", "rig-a", "lab")
    assert config.root == str(tmp_path / "neuro caas")
    assert list(config.analyses) == ["caiman-ncap-web", "dlc-ncap-web"]
    for analysis in config.analyses:
        assert sorted(os.listdir(Path(config.root) / analysis)) == ["configs", "inputs", "results", "submissions"]
    assert os.listdir(path.parent) == ["c.yaml"]


def test_init_overwrites_nothing(tmp_path: Path, ncaasd: Call) -> None:
    path = tmp_path / "new" / "c.yaml"
    path.parent.mkdir()
    path.write_text("mine")
    assert ncaasd(*init(tmp_path)).code == 2
    assert path.read_text() == "mine"
    assert not (tmp_path / "neuro caas").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--group", "a/b"], "without slashes"),
        (["--analysis", "No Bucket"], "S3 bucket"),
        (["--endpoint-url", "localhost"], "must be a URL"),
    ],
)
def test_init_checks_before_it_writes(tmp_path: Path, ncaasd: Call, more: list[str], said: str) -> None:
    answer = ncaasd(*init(tmp_path, *more))
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "new").exists()


def test_init_says_what_is_missing_when_nobody_can_be_asked(tmp_path: Path, ncaasd: Call) -> None:
    answer = ncaasd("init", "--config", str(tmp_path / "c.yaml"))
    assert answer.code == 2
    assert answer.err.startswith("ncaasd: --group is needed")


# -- submit


def written(machine: Machine, name: str) -> Manifest:
    path = machine.home / "submissions" / f"{name}.yaml"
    return parse_manifest(path.read_bytes(), str(path), standing=False, sources=(), tools=())


@pytest.fixture
def dropped(machine: Machine) -> Machine:
    (machine.home / "inputs" / "m 7").mkdir()
    for path in ("inputs/a.tif", "inputs/m 7/b.tif", "configs/caiman.yaml"):
        (machine.home / path).write_text("window: 3\n")
    return machine


@pytest.mark.parametrize(
    ("arguments", "name", "datasets"),
    [
        (["-d", "a.tif"], "a-caiman", ("a.tif",)),
        (["-d", "a.tif", "m 7/b.tif"], "a-and-1-more-caiman", ("a.tif", "m 7/b.tif")),
        (["-d", "a.tif", "-d", "m 7/b.tif"], "a-and-1-more-caiman", ("a.tif", "m 7/b.tif")),
        (["-d", "{home}/inputs/m 7/b.tif"], "m_7-b-caiman", ("m 7/b.tif",)),
        (["-d", "a.tif", "--name", "today"], "today", ("a.tif",)),
    ],
)
def test_submit_writes_a_manifest(
    dropped: Machine, ncaasd: Call, arguments: list[str], name: str, datasets: tuple[str, ...]
) -> None:
    answer = ncaasd("submit", "-c", "caiman.yaml", *(a.format(home=dropped.home) for a in arguments))
    assert answer.code == 0, answer.err
    (job,) = written(dropped, name).jobs
    assert (job.name, job.datasets, job.config) == (name, datasets, "caiman.yaml")
    assert os.listdir(dropped.home / "submissions") == [f"{name}.yaml"]
    assert answer.err == ""


def test_submit_takes_paths_as_they_are_seen_from_here(
    dropped: Machine, ncaasd: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dropped.home / "inputs" / "m 7")
    assert ncaasd("submit", "-d", "b.tif", "-c", "../../configs/caiman.yaml", "--name", "x").code == 0
    (job,) = written(dropped, "x").jobs
    assert (job.datasets, job.config) == (("m 7/b.tif",), "caiman.yaml")


def test_submit_with_values_for_the_config(dropped: Machine, ncaasd: Call) -> None:
    values = ["--set", "fr=30", "--set", "name=30 Hz: it's", "--set", "on=true", "--instance-type", "p3.2xlarge"]
    assert ncaasd("submit", "-d", "a.tif", "-c", "caiman.yaml", "--name", "x", *values).code == 0
    (job,) = written(dropped, "x").jobs
    assert job.set == {"fr": 30, "name": "30 Hz: it's", "on": True}
    assert job.instance_type == "p3.2xlarge"


def test_submit_of_data_that_is_in_s3_already(dropped: Machine, ncaasd: Call) -> None:
    bypass = ["-d", "s3://lab/data/a.tif", "-c", "s3://lab/c.yaml", "--resultpath", "s3://lab/out"]
    assert ncaasd("submit", *bypass).code == 0
    (job,) = written(dropped, "lab-data-a-c").jobs
    assert (job.datasets, job.config, job.resultpath) == (("s3://lab/data/a.tif",), "s3://lab/c.yaml", "s3://lab/out")


def test_submit_says_what_is_not_there_yet(dropped: Machine, ncaasd: Call) -> None:
    answer = ncaasd("submit", "-d", "later.tif", "-c", "caiman.yaml")
    assert answer.code == 0
    assert answer.err == "ncaasd: inputs/later.tif is not there yet: the job waits for it\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-d", "a.tif"], "a job needs data and a config"),
        (["-d", "a.tif", "-c", "caiman.yml"], "must end in .yaml"),
        (["-d", "xsubmit.json", "-c", "caiman.yaml"], "must not end in submit.json"),
        (["-d", "../../no/such", "-c", "caiman.yaml"], "must not contain .."),
        (["-d", "/etc/passwd", "-c", "caiman.yaml"], "/etc/passwd is not in "),
        (["-d", "s3://lab/a.tif", "-c", "caiman.yaml"], "must be s3:// too"),
        (["-d", "a.tif", "-c", "caiman.yaml", "--set", "fr"], "--set fr: must be KEY=VALUE"),
        (["-d", "a.tif", "-c", "caiman.yaml", "--set", "__duration__=1.5"], "must be a whole number of minutes"),
        (["-d", "a.tif", "-c", "caiman.yaml", "--name", "a/b"], "must be a name"),
        (["-d", "a.tif", "-c", "caiman.yaml", "--analysis", "other"], "the config has no analysis 'other'"),
    ],
)
def test_submit_refuses_before_anything_is_written(
    dropped: Machine, ncaasd: Call, arguments: list[str], said: str
) -> None:
    answer = ncaasd("submit", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert os.listdir(dropped.home / "submissions") == []


def test_F36_submit_refuses_a_name_that_would_make_no_new_job(dropped: Machine, journal: Journal, ncaasd: Call) -> None:
    add_job(journal, spec("today", "a.tif"), **done())
    answer = ncaasd("submit", "-d", "a.tif", "-c", "caiman.yaml", "--name", "today")
    assert answer.code == 2
    assert "there is a job today already" in answer.err
    assert "ncaasd rerun" in answer.err


def test_submit_does_not_replace_a_manifest(dropped: Machine, ncaasd: Call) -> None:
    assert ncaasd("submit", "-d", "a.tif", "-c", "caiman.yaml", "--json").json["name"] == "a-caiman"
    before = (dropped.home / "submissions" / "a-caiman.yaml").read_bytes()
    answer = ncaasd("submit", "-d", "a.tif", "-c", "caiman.yaml", "--set", "a=1")
    assert (answer.code, "is there already" in answer.err) == (2, True)
    assert (dropped.home / "submissions" / "a-caiman.yaml").read_bytes() == before


def test_submit_asks_which_analysis_where_there_are_several(dropped: Machine, ncaasd: Call) -> None:
    dropped.configure(analyses={ANALYSIS: {}, "other-analysis": {}})
    assert "which analysis?" in ncaasd("submit", "-d", "nowhere.tif", "-c", "caiman.yaml").err
    answer = ncaasd("submit", "-d", f"{dropped.home}/inputs/a.tif", "-c", "caiman.yaml", "--json")
    assert answer.json["analysis"] == ANALYSIS  # the path tells


# -- plan

RULE = """\
rules:
  - name: two-photon
    datasets: "**/*.tif"
    config: caiman.yaml
"""


def plans(answer: object) -> list[tuple[str, str]]:
    return [(p["unit"], p["plan"]) for p in answer["jobs"]]  # type: ignore[index]  # JSON


def test_plan_of_a_rule_before_the_first_start(dropped: Machine, ncaasd: Call, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(RULE)
    answer = ncaasd("plan", str(tmp_path / "manifest.yaml"), "--json")
    assert plans(answer.json) == [("a.tif", "submit"), ("m 7/b.tif", "submit")]
    assert "2 new jobs (2 machines, 20 B); 0 made already" in ncaasd("plan", str(tmp_path / "manifest.yaml")).out
    assert not dropped.state.exists()  # nothing is changed


def test_plan_tells_new_jobs_from_those_that_were_made(
    dropped: Machine, journal: Journal, ncaasd: Call, tmp_path: Path
) -> None:
    add_job(journal, spec(unit="a.tif"), **done())
    seen = (dropped.home / "inputs/m 7/b.tif").stat()
    as_seen = Stat(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
    with journal.transaction():
        place = Place(ANALYSIS, "", "inputs/m 7/b.tif")
        journal.see_file(place, as_seen, "lab/inputs/m_7/b.tif", FileState.REFUSED, "no", NOW)
    (tmp_path / "manifest.yaml").write_text(RULE)
    assert plans(ncaasd("plan", str(tmp_path / "manifest.yaml"), "--json").json) == [
        ("a.tif", "known"),
        ("m 7/b.tif", "wait"),
    ]


def test_plan_names_what_a_job_waits_for(dropped: Machine, ncaasd: Call, tmp_path: Path) -> None:
    text = "jobs:\n  - {name: x, datasets: [a.tif, later.tif], config: later.yaml}\n"
    (tmp_path / "today.yaml").write_text(text)
    (planned,) = ncaasd("plan", str(tmp_path / "today.yaml"), "--json").json["jobs"]
    why = "waits for later.tif (not in inputs/); configs/later.yaml (not here)"
    assert (planned["plan"], planned["why"]) == ("wait", why)


def test_F94_plan_says_that_a_backlog_will_be_held(dropped: Machine, ncaasd: Call, tmp_path: Path) -> None:
    dropped.configure(jobs={"ask_above": 1})
    (tmp_path / "manifest.yaml").write_text(RULE)
    planned = ncaasd("plan", str(tmp_path / "manifest.yaml"), "--json").json["jobs"]
    assert {(p["plan"], p["guard"]) for p in planned} == {("hold", "backlog")}
    assert "2 jobs on 2 machines with 0.0 GB at once, more than jobs.ask_above: 1" in planned[0]["why"]


def test_plan_of_a_wrong_manifest_names_file_and_line(dropped: Machine, ncaasd: Call, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text("rules:\n  - name: x\n    datasets: '*'\n    config: c.yml\n")
    answer = ncaasd("plan", str(path))
    assert (answer.code, f"{path}:4:13: rules[0].config: must end in .yaml" in answer.err) == (2, True)


def test_plan_without_a_manifest(dropped: Machine, journal: Journal, ncaasd: Call) -> None:
    (dropped.home / "inputs/a.tif").write_bytes(b"x" * 5_000_000)
    (dropped.home / "manifest.yaml").write_text(RULE)
    answer = ncaasd("plan")
    assert "to upload: 3 files, 5.0 MB" in answer.out
    assert "to submit, or waiting: 2 jobs" in answer.out
    planned = ncaasd("plan", "--json").json
    assert plans(planned) == [("a.tif", "submit"), ("m 7/b.tif", "submit")]
    assert planned["totals"] | {"bytes": 0} == {
        "jobs": 2, "machines": 2, "submits_now": 2, "held": 0, "uploads": 3, "bytes": 0, "fetches": 2, "deletions": 0,
    }  # fmt: skip


def test_plan_says_what_it_could_not_look_at_and_what_is_wrong(dropped: Machine, ncaasd: Call) -> None:
    (dropped.home / "manifest.yaml").write_text(RULE.replace("config", "confg"))
    answer = ncaasd("plan")
    assert (answer.code, "is config meant?" in answer.err) == (1, True)
