"""The commands around a real daemon (or none), with the real server and the group's restricted key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from show_machine import Answer
from support.rig import BUCKET, Rig, blob

from ncaasd.model import JobState, Phase

NewRig = Callable[..., Rig]


def ncaasd(rig: Rig, *arguments: str, timeout: float = 120) -> Answer:
    """The command line as a process of its own, as people start it."""
    run = subprocess.run(
        [sys.executable, "-m", "ncaasd", *arguments, "--config", rig.config],
        env={**os.environ, **rig.bench.sandbox.environment()},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return Answer(run.returncode, run.stdout, run.stderr)


def test_check_once_job_logs_and_a_rerun_without_a_daemon(rig: Rig) -> None:
    assert ncaasd(rig, "check").code == 0
    rig.drop("inputs/a.bin", blob(2000, 1))
    rig.drop_config()
    answer = ncaasd(rig, "submit", "-d", "a.bin", "-c", "config.yaml", "--name", "first")
    assert answer.out.endswith("no daemon runs: `ncaasd once --wait` does it now\n")
    answer = ncaasd(rig, "once", "--wait", "--json")
    assert answer.code == 0, answer
    (job,) = answer.json["jobs"]
    assert (job["name"], job["state"]) == ("first", "done")
    assert sorted(answer.json["stored"]) == [f"{BUCKET}: file configs/config.yaml", f"{BUCKET}: file inputs/a.bin"]
    with open(f"{job['results']}/process_results/a.bin", "rb") as file:
        assert file.read() == blob(2000, 1)
    assert "a.bin: SUCCESS" in ncaasd(rig, "logs", job["id"]).out
    assert [e["kind"] for e in ncaasd(rig, "job", "first", "--json").json["timeline"]][:3] == [
        "declared",
        "intended",
        "submitted",
    ]
    assert ncaasd(rig, "once").out.startswith("nothing to do")
    assert ncaasd(rig, "rerun", "first").code == 0
    assert ncaasd(rig, "once", "--wait").code == 0
    ids = [j["id"] for j in ncaasd(rig, "jobs", "--all-attempts", "--json").json]
    assert len(set(ids)) == 2
    rig.check_submits(2)


def test_deleted_results_come_back_by_fetch(rig: Rig) -> None:
    rig.drop("inputs/a.bin", blob(2000, 2))
    rig.drop_config()
    rig.drop_job("one", "a.bin")
    assert ncaasd(rig, "once", "--wait").code == 0
    path = f"{ncaasd(rig, 'job', 'one', '--json').json['results']}/process_results/a.bin"
    os.unlink(path)
    assert ncaasd(rig, "once").code == 0
    assert not os.path.exists(path), "F88: deleted results come back only by fetch"
    answer = ncaasd(rig, "fetch", "one")
    assert (answer.code, "being fetched" in answer.out) == (0, True), answer
    with open(path, "rb") as file:
        assert file.read() == blob(2000, 2)


@pytest.mark.parametrize(
    ("drop", "code", "said"),
    [
        (lambda rig: rig.drop("manifest.yaml", "rules: [\n"), 2, f"not in force: {BUCKET}/manifest.yaml:"),
        (lambda rig: rig.drop("inputs/xsubmit.json", "x"), 1, "refused: demo-analysis/inputs/xsubmit.json: it ends in"),
        (lambda rig: rig.configure({"aws": {"endpoint_url": "http://127.0.0.1:9"}}), 3, "got no answer"),
        (lambda rig: rig.configure({"aws": {"profile": "nono"}}), 3, "nono"),
        (lambda rig: rig.configure({"group": "other"}), 3, "is denied"),
        (lambda rig: rig.configure({"colour": "red"}), 2, "colour: is not a key here"),
    ],
)
def test_once_tells_by_its_exit_code_who_must_act(rig: Rig, drop: Callable[[Rig], Any], code: int, said: str) -> None:
    drop(rig)
    answer = ncaasd(rig, "once")
    assert answer.code == code, answer
    assert said in answer.out + answer.err


def test_once_with_a_job_that_fails(new_rig: NewRig) -> None:
    rig = new_rig()
    rig.drop("inputs/a.bin", blob(100, 3))
    rig.drop_config(__sandbox__="all-fail")
    rig.drop_job("bad", "a.bin")
    answer = ncaasd(rig, "once", "--wait")
    assert answer.code == 1, answer
    assert "failed" in answer.out
    assert ncaasd(rig, "job", "bad", "--json").json["command"].startswith("ncaasd rerun ")


def test_ctrl_c_ends_a_pass_where_it_can_go_on(rig: Rig) -> None:
    rig.configure({"watch": {"settle": "1h"}})
    rig.drop("inputs/a.bin", blob(100, 4))
    command = [sys.executable, "-m", "ncaasd", "once", "--wait", "--config", rig.config]
    process = subprocess.Popen(
        command, env={**os.environ, **rig.bench.sandbox.environment()}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not rig.files():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_commands_talk_to_a_running_daemon(rig: Rig) -> None:
    """status, submit, hold, release, fetch, a second `once`, live logs."""
    rig.start()
    rig.drop_config()
    rig.wait_for(rig.live, "the daemon to listen")
    status = ncaasd(rig, "status", "--json").json
    assert status["daemon"] == {"running": True, "pid": status["daemon"]["pid"]}
    assert status["rig"] == rig.name
    assert next(iter(status["watching"].values())).startswith("native")

    refused = ncaasd(rig, "once")
    assert (refused.code, "another ncaasd (pid " in refused.err) == (2, True)

    answer = ncaasd(rig, "submit", "-d", "later.bin", "-c", "config.yaml", "--name", "later")
    assert "the daemon takes it up" in answer.out
    rig.wait_for(rig.jobs, "the job to be known")
    assert "held by hand" in ncaasd(rig, "hold", "later").out
    attention = ncaasd(rig, "status", "--json").json["attention"]
    assert [(a["kind"], a["command"]) for a in attention] == [("held", f"ncaasd release {rig.job().row}")]
    rig.drop("inputs/later.bin", blob(3000, 5))
    rig.wait_for(lambda: rig.stored("later.bin"), "the recording to be stored")
    time.sleep(1)
    assert rig.job().phase is Phase.OPEN, "what is held is not submitted"
    assert ncaasd(rig, "release", "later").code == 0
    followed = ncaasd(rig, "logs", "-f", "later")
    assert "=== later.bin: SUCCESS ===" in followed.out
    rig.wait_done(1)
    path = f"{ncaasd(rig, 'job', 'later', '--json').json['results']}/process_results/later.bin"
    os.unlink(path)
    assert "being fetched" in ncaasd(rig, "fetch", "--all").out
    rig.wait_for(lambda: os.path.exists(path), "the result to be back")
    again = ncaasd(rig, "rerun", "later", "--json").json
    assert again[0]["done"] is True
    rig.wait_done(2, "later")  # `fetch --all` made the group's other jobs known too
    rig.stop()
    rig.check_submits(2)


def test_F87_changed_data_is_said_with_the_command(rig: Rig) -> None:
    rig.drop("inputs/a.bin", blob(100, 6))
    rig.drop_config()
    rig.drop_job("one", "a.bin")
    assert ncaasd(rig, "once", "--wait").code == 0
    rig.drop("inputs/a.bin", blob(200, 7))
    assert ncaasd(rig, "once", "--wait").code == 0
    job = rig.job()
    assert job.state is JobState.DONE
    (item,) = ncaasd(rig, "status", "--json").json["attention"]
    assert (item["kind"], item["command"]) == ("changed", f"ncaasd rerun {job.job_id}")
    rig.check_submits(1)


def test_a_wrong_config_ends_run_with_every_problem(rig: Rig) -> None:
    with open(rig.config, "w", encoding="utf-8") as file:
        json.dump({"group": "a/b", "root": "here"}, file)
    answer = ncaasd(rig, "run")
    assert (answer.code, len(answer.err.splitlines())) == (2, 3)
    assert all(line.startswith(f"ncaasd: {rig.config}:1:") for line in answer.err.splitlines())
