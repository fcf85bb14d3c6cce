"""The job manager on the real server: what starts a job, what it checks, where things are put, and restarts."""

from __future__ import annotations

import configparser
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sandbox_user import BUCKET, User

from ncaasd.errors import UserError
from ncaasd.sandbox.home import DEFAULT_ANALYSIS, Sandbox, run_sandbox
from ncaasd.sandbox.job_manager import JobManager, event_key
from ncaasd.sandbox.server import LAB_PROFILE

needs_weed = pytest.mark.usefixtures("weed_binary")


def until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


A, B, PLAIN = "lab/inputs/a.csv", "lab/inputs/b.csv", "lab/configs/plain.yaml"
END = b"end of analysis marker"


def certificate(user: User, folder: str, *, bucket: str = BUCKET) -> str:
    return user.get(folder + "logs/certificate.txt", bucket=bucket).decode()


def reasons(text: str) -> list[str]:
    """The lines of a certificate that say what went wrong."""
    lines = text.split("\n")
    return [
        line
        for line in lines
        if " ERROR" in line or (line[:1].isalpha() and ("Error: " in line or "Exception: " in line))
    ]


# What is wrong with the submit file or the config → what the certificate must say (parts of it, in order).
WRONG: list[tuple[str, dict[str, Any], dict[str, bytes], list[str]]] = [
    ("data-absent", {"datasets": ["lab/inputs/nope"]}, {}, ["INPUT ERROR: S3 Bucket does not contain ['lab/inputs/nope']",
     "STEP 2/4 (Validation): INTERNAL ERROR", "ValueError: [JOB TERMINATE REASON] 'dataname' field refers to data"]),
    ("one-absent", {"datasets": [A, "lab/inputs/nope"]}, {}, [f"does not contain ['{A}', 'lab/inputs/nope']"]),
    ("config-absent", {"config": "lab/configs/nope.yaml"}, {}, ["does not contain lab/configs/nope.yaml",
     "'configname' field refers to a configuration file"]),
    ("mixed-list", {"datasets": [A, 1]}, {}, ["STEP 2/4", "TypeError: [JOB TERMINATE REASON] 'dataname' field is not the right"]),
    ("yml", {}, {"c.yml": b"a: 1"}, ["STEP 2/4", "UnboundLocalError: cannot access local variable 'passed_config'"]),
    ("upper", {}, {"c.YAML": b"a: 1"}, ["STEP 2/4", "UnboundLocalError"]),
    ("no-extension", {}, {"c": b"a: 1"}, ["STEP 2/4", "UnboundLocalError"]),
    ("list-config", {}, {"l.yaml": b"- a"}, ["STEP 2/4", "TypeError: list indices must be integers or slices, not str"]),
    ("empty-config", {}, {"e.yaml": b""}, ["STEP 2/4", "TypeError: 'NoneType' object is not subscriptable"]),
    ("json-bom", {}, {"b.json": b"\xef\xbb\xbf{}"}, ["STEP 2/4", "JSONDecodeError: Unexpected UTF-8 BOM"]),
    ("bad-yaml", {}, {"y.yaml": b"a: [1"}, ["STEP 2/4", "while parsing a flow sequence"]),
    ("latin-1", {}, {"x.json": b'{"a": "\xe9"}'}, ["STEP 2/4", "UnicodeDecodeError"]),
    ("text-duration", {}, {"d1.yaml": b"__duration__: '30'"}, ["STEP 2/4", "unsupported operand", "Unable to estimate cost"]),
    ("fraction-duration", {}, {"d2.yaml": b"__duration__: 30.5"}, ["STEP 4/4", "Given __duration__ parameter is not valid"]),
    ("true-duration", {}, {"d3.yaml": b"__duration__: true"}, ["STEP 4/4", "Given __duration__ parameter is not valid"]),
    ("huge-duration", {}, {"d4.yaml": b"__duration__: 100000"}, ["STEP 2/4", "INTERNAL ERROR. Error: Job is not covered"]),
    ("fraction-size", {}, {"s1.yaml": b"__dataset_size__: 20.5"}, ["STEP 4/4", "ParamValidationError: Parameter"]),
    ("text-size", {}, {"s2.yaml": b"__dataset_size__: '20'"}, ["STEP 4/4", "TypeError: unsupported operand"]),
    ("unknown-type", {"instance_type": "m9.huge"}, {}, ["STEP 2/4", "IndexError: list index out of range", "Unable to estimate"]),
    ("null-type", {"instance_type": None}, {}, ["STEP 2/4", "Unable to estimate cost of current job."]),
    ("no-datasets", {"datasets": []}, {}, ["STEP 4/4 (Initialize Processing): AWS ERROR. {'Code': 'InvalidParameterValue'"]),
    ("data-bypass-only", {"datasets": ["s3://lab-own/x"]}, {}, ["INPUT ERROR: S3 Bucket does not contain ['s3://lab-own/x']"]),
    ("config-bypass-only", {"config": "s3://lab-own/c.yaml"}, {}, ["INPUT ERROR: S3 Bucket does not contain s3://lab-own/c.yaml"]),
]  # fmt: skip


def test_what_is_wrong_is_said_as_the_platform_says_it(user: User) -> None:
    folders = {}
    for name, body, configs, _expected in WRONG:
        for config, content in configs.items():
            user.put(f"lab/configs/{config}", content)
        used = f"lab/configs/{next(iter(configs), 'plain.yaml')}"
        arguments = {"datasets": [A], "config": used, **body}
        folders[name] = user.submit(name, arguments.pop("datasets"), arguments.pop("config"), **arguments)
    user.wait(60)
    for name, _body, _configs, expected in WRONG:
        text = certificate(user, folders[name])
        rest = "\n".join(reasons(text) if name != "bad-yaml" else [text])
        for part in expected:
            assert part in rest, f"{name}: {part!r} is not in {rest!r}, after what came before it"
            rest = rest.partition(part)[2]
        assert text.rstrip("\n").split("\n")[-1].startswith("[Job Manager] Shutting down job."), name
        assert user.names(folders[name] + "process_results/") == [], name


@pytest.mark.parametrize(
    ("name", "body", "last_line"),
    [
        ("s1", {"configname": PLAIN}, "INPUT ERROR: Submit file does not contain field 'dataname'"),
        ("s2", {"dataname": [A]}, "INPUT ERROR: Submit file does not contain field 'configname'"),
        ("s3", {"dataname": 5, "configname": PLAIN}, "Analysis request with dataset(s): 5, config file"),
        ("s4", {"dataname": None, "configname": PLAIN}, "Analysis request with dataset(s): None, config file"),
        ("s5", {"dataname": ["s3://lab-own/v"], "configname": "s3://public-data/c.yaml"}, "Analysis request"),
        ("s6", {"dataname": [A], "configname": PLAIN, "resultpath": "s3://no-such-bucket/x"}, "Full bypass info"),
    ],
)
def test_step_1_dies_without_a_word(user: User, name: str, body: dict[str, Any], last_line: str) -> None:
    user.submitted += 1
    user.put(f"lab/submissions/{name}-submit.json", json.dumps({"timestamp": name, **body}))
    user.wait()
    folder = f"lab/results/job__{BUCKET}_{name}/"
    text = certificate(user, folder)
    assert last_line in text.rstrip("\n").split("\n")[-1]
    assert user.names(folder) == ["", "logs/certificate.txt"]


WHOLE = json.dumps({"dataname": [A], "configname": PLAIN, "timestamp": "never"}).encode()
TRACELESS: list[tuple[str, bytes]] = [
    *(
        (f"lab/submissions/{name}submit.json", WHOLE)
        for name in ("my run ", "a+b-", "a(1)", "a:b-", "a~b-", "t\u00e9st-")
    ),
    ("lab/submissions/x-submit.JSON", WHOLE),
    ("lab/submissions/x-submit.json.txt", WHOLE),
    ("lab/inputs/mysubmit.json", WHOLE),
    ("lab/submissions/empty-submit.json", b""),
    ("lab/submissions/bom-submit.json", b"\xef\xbb\xbf" + WHOLE),
    ("lab/submissions/list-submit.json", b"[]"),
    ("lab/submissions/untimed-submit.json", b'{"dataname": "lab/inputs/a.csv"}'),
]


def test_these_leave_no_trace(user: User) -> None:
    for key, body in TRACELESS:
        user.put(key, body)
    marker = user.submit("after-them", [A], PLAIN)  # found later than they were
    user.wait()
    assert user.get(marker + "process_results/end.txt") == END
    assert user.names(f"lab/results/job__{BUCKET}_never") == []
    assert len(user.sandbox.manager.jobs) == user.submitted


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("lab/submissions/a-b.c_submit.json", "lab/submissions/a-b.c_submit.json"),
        ("lab/submissions/a*b_submit.json", "lab/submissions/a*b_submit.json"),
        ("lab/submissions/my run submit.json", "lab/submissions/my+run+submit.json"),
        ("lab/submissions/a+b_submit.json", "lab/submissions/a%2Bb_submit.json"),
        ("lab/submissions/t\u00e9st_submit.json", "lab/submissions/t%C3%A9st_submit.json"),
        ("lab/submissions/a(1)_submit.json", "lab/submissions/a%281%29_submit.json"),
        ("lab/submissions/a~=,@b_submit.json", "lab/submissions/a%7E%3D%2C%40b_submit.json"),
    ],
)
def test_keys_arrive_encoded(key: str, encoded: str) -> None:
    assert event_key(key) == encoded


def test_submit_files_in_folders_and_of_other_groups_start_jobs(user: User) -> None:
    user.put("lab/submissions/sub/x_submit.json", json.dumps({"dataname": A, "configname": PLAIN, "timestamp": "deep"}))
    user.put("other/inputs/o.csv", "other\n")
    body = {"dataname": "other/inputs/o.csv", "configname": PLAIN, "timestamp": "other"}
    user.put("other/submissions/x-submit.json", json.dumps(body))
    user.submitted += 2
    user.wait()
    assert user.get(f"lab/results/job__{BUCKET}_deep/process_results/end.txt") == END
    assert user.get(f"other/results/job__{BUCKET}_other/process_results/o.csv") == b"other\n"


def test_every_put_is_a_job(user: User) -> None:
    """An equal name reuses the folder, and the first job is not watched any more."""
    before = len(user.sandbox.manager.jobs)
    user.put("lab/configs/slow.yaml", json.dumps({"__sandbox__": {"scenario": "slow-analysis", "seconds": 1}}))
    body = json.dumps({"dataname": [A], "configname": "lab/configs/slow.yaml", "timestamp": "twice"})
    for _ in range(2):
        user.put("lab/submissions/twice-submit.json", body)
        user.submitted += 1
    user.wait()
    assert [job.submission.body["timestamp"] for job in user.sandbox.manager.jobs[before:]] == ["twice", "twice"]
    assert user.sandbox.server.submit_versions(BUCKET, "lab/submissions/twice-submit.json") == 2
    folder = f"lab/results/job__{BUCKET}_twice/"
    assert len(user.history(folder + "process_results/update.txt")) == 2
    assert user.history(folder + "process_results/end.txt") == [END]


def test_existence_is_asked_by_prefix_and_the_worker_finds_out(user: User) -> None:
    folder = user.submit("prefix", ["lab/inputs/data"], PLAIN)  # only data2 is there
    user.wait()
    assert "4/4 (Initialize Processing): DONE" in certificate(user, folder)
    status = json.loads(user.get(folder + "logs/DATASET_NAME:data_STATUS.txt"))
    assert status["status"] == "FAILED" and "(404)" in "".join(status["std"].values())
    assert user.names(folder + "process_results/") == ["end.txt", "update.txt"]


@pytest.mark.parametrize(("job_id", "name"), [("sh1", 'q"uote.csv'), ("sh2", "do$llar.csv"), ("sh3", "back`tick.csv")])
def test_names_that_the_shell_line_breaks(user: User, job_id: str, name: str) -> None:
    # (SeaweedFS makes a slash of a backslash, so that one cannot be played.)
    user.put(f"lab/inputs/{name}", "x")
    folder = user.submit(job_id, [f"lab/inputs/{name}"], PLAIN)
    user.wait()
    assert json.loads(user.get(f"{folder}logs/DATASET_NAME:{name}_STATUS.txt"))["status"] == "FAILED"


def test_equal_base_names_share_one_status_file(user: User) -> None:
    for animal in ("m1", "m2"):
        user.put(f"lab/inputs/{animal}/vid.csv", f"{animal}\n")
    folder = user.submit("basenames", ["lab/inputs/m1/vid.csv", "lab/inputs/m2/vid.csv"], PLAIN)
    user.wait()
    assert [name for name in user.names(folder + "logs/") if "STATUS" in name] == ["DATASET_NAME:vid.csv_STATUS.txt"]
    assert certificate(user, folder).count("DATANAME: ") == 2
    assert sorted(user.history(folder + "process_results/vid.csv")) == [b"m1\n", b"m2\n"]


def test_data_outside_inputs_gets_no_end_marker(user: User) -> None:
    user.put("lab/results/old/out.csv", "old\n")
    folder = user.submit("outside", ["lab/results/old/out.csv"], PLAIN)
    user.wait()
    assert user.names(folder + "process_results/") == ["out.csv", "plain.yaml", "update.txt"]


def test_a_folder_named_inputs_leads_the_worker_astray(user: User) -> None:
    user.put("lab/inputs/inputs_old/a.csv", "astray\n")
    folder = user.submit("astray", ["lab/inputs/inputs_old/a.csv"], PLAIN)
    user.wait()
    assert user.names(f"lab/inputs/results/job__{BUCKET}_astray/process_results/") == [
        "a.csv",
        "plain.yaml",
        "update.txt",
    ]
    assert json.loads(user.get(folder + "logs/DATASET_NAME:a.csv_STATUS.txt"))["status"] == "INITIALIZING"


def test_a_job_name_that_is_too_long_is_found_with_machines_running(user: User) -> None:
    fits, too_long = "1" * (51 - len(BUCKET)), "1" * (52 - len(BUCKET))
    good, bad = user.submit(fits, [A], PLAIN), user.submit(too_long, [A], PLAIN)
    user.wait()
    assert user.get(good + "process_results/end.txt") == END
    text = certificate(user, bad)
    assert "created!" in text and "STEP 4/4 (Initialize Processing): AWS ERROR. {'Code': 'ValidationException'" in text
    assert "Member must have length less than or equal to 64" in text


# -- storage bypass: submit file's fields → where certificate, status file, results and end marker are
BYPASS = [
    (
        "resultpath",
        {"datasets": [A], "config": PLAIN, "resultpath": "s3://lab-own/out"},
        ("lab-own", "out", "SUCCESS"),
        ("lab-own", "out"),
        (BUCKET, "out"),
    ),
    (
        "resultpath-slash",
        {"datasets": [A], "config": PLAIN, "resultpath": "s3://lab-own/out/"},
        ("lab-own", "out", "SUCCESS"),
        ("lab-own", "out"),
        (BUCKET, "out"),
    ),
    (
        "resultpath-bucket",
        {"datasets": [A], "config": PLAIN, "resultpath": "s3://lab-own"},
        ("lab-own", "", "SUCCESS"),
        ("lab-own", ""),
        None,
    ),
    (
        "foreign",
        {"datasets": ["s3://public-data/set/inputs/v.csv"], "config": "s3://public-data/set/c.yaml"},
        (BUCKET, "lab/results", "INITIALIZING"),
        ("public-data", "set/results"),
        (BUCKET, "lab/results"),
    ),
    (
        "foreign-elsewhere",
        {"datasets": ["s3://public-data/set/v.csv"], "config": "s3://public-data/set/c.yaml"},
        (BUCKET, "lab/results", "INITIALIZING"),
        ("public-data", "set/results"),
        None,
    ),
    (
        "foreign-resultpath",
        {
            "datasets": ["s3://public-data/set/inputs/v.csv"],
            "config": "s3://public-data/set/c.yaml",
            "resultpath": "s3://lab-own/deep/er",
        },
        ("lab-own", "deep/er", "SUCCESS"),
        ("lab-own", "deep/er"),
        (BUCKET, "deep/er"),
    ),
]


@pytest.mark.parametrize(("name", "body", "logs", "results", "end"), BYPASS, ids=[row[0] for row in BYPASS])
def test_storage_bypass(
    user: User,
    name: str,
    body: dict[str, Any],
    logs: tuple[str, str, str],
    results: tuple[str, str],
    end: tuple[str, str] | None,
) -> None:
    for key in ("set/inputs/v.csv", "set/v.csv"):
        user.put(key, "public\n", bucket="public-data")
    user.put("set/c.yaml", "a: 1\n", bucket="public-data")
    arguments = dict(body)
    home = user.submit(name, arguments.pop("datasets"), arguments.pop("config"), **arguments)
    user.wait()

    def at(prefix: str) -> str:
        return f"{prefix}/job__{BUCKET}_{name}/".lstrip("/")

    base = body["datasets"][0].rpartition("/")[2]
    text = certificate(user, at(logs[1]), bucket=logs[0])
    assert "STEP 4/4 (Initialize Processing): DONE" in text
    assert f"DATANAME: {body['datasets'][0].removeprefix('s3://public-data/')} | STATUS: {logs[2]}" in text
    status = json.loads(user.get(f"{at(logs[1])}logs/DATASET_NAME:{base}_STATUS.txt", bucket=logs[0]))
    assert status["status"] == logs[2]
    found = user.names(at(results[1]) + "process_results/", bucket=results[0])
    expected = {base, body["config"].rpartition("/")[2], "update.txt"}
    if end == results:
        expected.add("end.txt")
    assert set(found) == expected
    ends = [
        (bucket, key.removesuffix(f"job__{BUCKET}_{name}/process_results/end.txt").rstrip("/"))
        for bucket in (BUCKET, "lab-own", "public-data")
        for key in user.names("", bucket=bucket)
        if key.endswith(f"job__{BUCKET}_{name}/process_results/end.txt")
    ]
    assert ends == ([end] if end else [])
    stub = certificate(user, home)
    assert ("STEP 1/4" in stub) == (logs[0] == BUCKET)  # a stub stays in the home folder


# -- limits


@needs_weed
def test_budget_and_machines_are_shared_by_all_jobs(tmp_path: Path) -> None:
    release = tmp_path / "release"
    wait = f"import os, time\nwhile not os.path.exists({str(release)!r}): time.sleep(0.05)"
    with Sandbox(tmp_path / "s", analysis_command=[sys.executable, "-c", wait], pace=0.02, budget=7, machines=2) as own:
        user = User(own)
        for name in ("a.csv", "b.csv", "c.csv"):
            user.put(f"lab/inputs/{name}", "x")
        user.put(PLAIN, "a: 1\n")
        user.put("lab/configs/cheap.yaml", "__duration__: 1\n")
        user.submit("first", [A, B], PLAIN)  # $6.144 of $7, and both machines
        until(lambda: bool(own.manager.jobs) and own.manager.jobs[0].outcome == "launched")
        dear = user.submit("dear", [A], PLAIN)
        until(lambda: len(own.manager.jobs) == 2 and own.manager.busy() == 1)
        cheap = user.submit("cheap", [A], "lab/configs/cheap.yaml")
        until(lambda: len(own.manager.jobs) == 3 and own.manager.busy() == 1)
        projected = re.search(r"Projected total costs: \$([\d.]+)\. Over", certificate(user, dear))
        assert projected and float(projected[1]) == pytest.approx(6.144 + 3.072, abs=0.001)
        assert "Over budget ($7.0), cancelling job." in certificate(user, dear)
        assert "RESOURCE ERROR: Instance requests greater than pipeline bandwidth." in certificate(user, cheap)
        release.touch()
        user.wait()
        after = user.submit("after", [A, B], PLAIN)
        user.wait()
        assert user.get(after + "process_results/end.txt") == END


# -- restarts


@needs_weed
def test_a_restart_replays_nothing_and_ends_what_ran(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, analysis_command="sleep 60", pace=0.02)
    with sandbox:
        user = User(sandbox)
        user.put(A, "x")
        user.put(PLAIN, "a: 1\n")
        folder = user.submit("interrupted", [A], PLAIN)
        until(
            lambda: "IN PROGRESS" in str([user.get(folder + name) for name in user.names(folder) if "STATUS" in name])
        )
    with sandbox:
        user = User(sandbox)
        assert user.get(folder + "process_results/end.txt") == END  # its machine went down with the sandbox
        assert json.loads(user.get(folder + "logs/DATASET_NAME:a.csv_STATUS.txt"))["status"] == "IN PROGRESS"
        time.sleep(0.6)
        assert sandbox.manager.jobs == []
    with sandbox:
        assert len(User(sandbox).history(folder + "process_results/end.txt")) == 1


@needs_weed
def test_stopping_ends_the_analysis(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    with Sandbox(tmp_path / "s", analysis_command=[sys.executable, "-c", script, str(started)], pace=0.02) as own:
        user = User(own)
        user.put(A, "x")
        user.put(PLAIN, "a: 1\n")
        user.submit("long", [A], PLAIN)
        until(lambda: started.exists() and bool(started.read_text()))
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert not Path(f"/proc/{started.read_text()}").exists()


@needs_weed
def test_stopping_in_the_middle_of_a_certificate_is_no_rejection(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, analysis_command="true", pace=0.02)
    with sandbox:
        user = User(sandbox)
        user.put(A, "x")
        user.put("lab/configs/slow.yaml", json.dumps({"__sandbox__": {"scenario": "slow-certificate", "delay": 0.2}}))
        folder = user.submit("cut", [A], "lab/configs/slow.yaml")
        until(lambda: "logs/certificate.txt" in user.names(folder) and "STEP 1" in certificate(user, folder))
    with sandbox:
        text = certificate(User(sandbox), folder)
        assert "ERROR" not in text and "JOB MONITOR LOG COMPLETE" not in text


# -- the command


def test_a_failing_command_fails_the_dataset_and_its_words_are_kept(tmp_path: Path, user: User) -> None:
    command = [sys.executable, "-c", "import sys; print('half done'); sys.exit('no such channel: \u00e9')"]
    manager = JobManager(tmp_path, user.admin, buckets=["lab-own"], group="lab", analysis=command, pace=0.02, tick=0.1)
    user.put(A, "x", bucket="lab-own")
    user.put("lab/configs/c.yaml", "a: 1\n", bucket="lab-own")
    body = {"dataname": A, "configname": "lab/configs/c.yaml", "timestamp": "fails"}
    with manager:
        user.put("lab/submissions/f-submit.json", json.dumps(body), bucket="lab-own")
        assert manager.wait(1, 20)
    folder = "lab/results/job__lab-own_fails/"
    status = json.loads(user.get(folder + "logs/DATASET_NAME:a.csv_STATUS.txt", bucket="lab-own"))
    assert (status["status"], status["reason"]) == ("FAILED", 1)
    assert list(status["std"].values())[-2:] == ["half done\n", "no such channel: \u00e9\n"]
    text = certificate(user, folder, bucket="lab-own")
    assert "STATUS: FAILED" in text and "LAST COMMAND: no such channel: \u00e9 | CPU_USAGE: " in text


@pytest.mark.parametrize("command", ["", "no-such-program {data}", "unclosed 'quote", []])
def test_commands_that_cannot_be_are_the_users_mistake(tmp_path: Path, command: Any) -> None:
    with pytest.raises(UserError, match="the analysis's command cannot be"):
        JobManager(tmp_path, None, buckets=[BUCKET], group="lab", analysis=command)


def test_moto_plays_a_job_too(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    sandbox = Sandbox(tmp_path, analysis_command="cp {data} {results}/", pace=0.02, engine="moto")
    for _again in range(2):  # what was there is gone the second time, the job manager's memory too
        with sandbox:
            user = User(sandbox)
            user.put(A, "x\n")
            user.put(PLAIN, "a: 1\n")
            folder = user.submit("moto", [A], PLAIN)
            user.wait()
            assert user.get(folder + "process_results/a.csv") == b"x\n"
            assert user.get(folder + "process_results/end.txt") == END


# -- for people


@needs_weed
def test_what_the_command_prints_is_enough_to_use_it(tmp_path: Path) -> None:
    lines: list[str] = []
    stop, failure = threading.Event(), []

    def run() -> None:
        try:
            run_sandbox(tmp_path / "home", echo=lines.append, stop=stop, analyses=["demo-analysis", "other"], group="g")
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: bool(failure) or any("Ctrl-C" in line for line in lines))
    stop.set()
    thread.join(20)
    assert not failure and not thread.is_alive()
    text = "\n".join(lines)
    config = yaml.safe_load((tmp_path / "home" / "ncaasd.yaml").read_text())
    assert config["group"] == "g" and set(config["analyses"]) == {"demo-analysis", "other"}
    assert config["aws"]["endpoint_url"] in text and config["aws"]["profile"] == LAB_PROFILE
    export = next(line for line in lines if line.strip().startswith("export AWS_SHARED_CREDENTIALS_FILE="))
    profiles = configparser.ConfigParser()
    profiles.read(export.partition("=")[2])
    assert profiles[LAB_PROFILE]["aws_access_key_id"]
    for part in ("inputs", "configs", "submissions"):
        assert Path(config["root"], "demo-analysis", part).is_dir() and f"demo-analysis/{part}" in text


def test_the_shipped_analysis_is_a_file_that_is_there() -> None:
    assert Path(DEFAULT_ANALYSIS[2]).is_file() and DEFAULT_ANALYSIS[3:] == ("{data}", "{config}", "{results}")
