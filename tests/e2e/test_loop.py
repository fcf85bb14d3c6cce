"""The whole loop, as a user has it: the installed command, the group's restricted key, a real S3 server, real files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.rig import BUCKET, CONFIG, GROUP, MIB, Rig, blob

from ncaasd.model import JobState

TIMEOUT = 90


@pytest.mark.loop
def test_a_rule_a_one_off_and_a_hand_written_submit_each_become_one_job(rig: Rig) -> None:
    rig.start()
    rig.wait_for(rig.live, "the daemon to answer")
    rig.drop_config()
    rig.drop("inputs/new/folder/a.bin", blob(1000, 1))
    rig.drop("inputs/big.bin", blob(20 * MIB, 2))
    rig.drop("inputs/b c.dat", blob(1, 3))
    rig.drop_rule("**/*.bin")
    rig.drop_job("one", "b c.dat")
    submit = {
        "dataname": f"{GROUP}/inputs/{rig.name}/big.bin",
        "configname": f"{GROUP}/configs/{CONFIG}",
        "timestamp": "mine-1",
    }
    rig.drop("submissions/mine-submit.json", json.dumps(submit))
    rig.wait_done(4, timeout=TIMEOUT)

    submits = rig.submits()
    assert sorted(submits.values()) == [1, 1, 1, 1]
    for job in rig.jobs():
        body = json.loads(rig.bench.body(job.submit_key))
        assert set(body) == {"dataname", "configname", "timestamp"}
        assert body["timestamp"] == job.job_id and len(job.job_id) == 15 and job.job_id[0] != "0"
        assert body["dataname"] == [d.key for d in job.spec.datasets]
        assert body["configname"].startswith(f"{GROUP}/configs/config-")
        assert rig.bench.body(body["configname"]) == Path(rig.home, "configs", CONFIG).read_bytes()
        document = json.loads(Path(rig.home, "results", job.results, "job.json").read_text())
        assert (document["state"], document["id"]) == ("done", job.job_id)
        for dataset in job.spec.datasets:
            base = dataset.key.rpartition("/")[2]
            result = Path(rig.home, "results", job.results, "process_results", base)
            assert result.read_bytes() == rig.bench.body(dataset.key), "the analysis copies: results are the recording"
    inputs = rig.inputs()
    stored = {f.key: f.place.path for f in rig.files() if f.key.startswith(f"{GROUP}/inputs/")}
    assert {os.path.join(rig.home, p) for p in stored.values()} == set(inputs.values())
    for key, path in stored.items():
        assert rig.bench.body(key) == Path(rig.home, path).read_bytes()

    def finished() -> bool:
        names = ("manifest.status.json", "submissions/one.status.json", "submissions/mine-submit.status.json")
        found = rig.statuses()
        return all(name in found and found[name]["counts"].get("done") for name in names)

    rig.wait_for(finished, "the status files to say so")
    assert rig.statuses()["submissions/status/all/new/folder/a.bin.json"]["jobs"][0]["state"] == "done"
    assert rig.stop() < 30


def test_a_restart_does_nothing_again(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    for number in range(3):
        rig.drop(f"inputs/{number}.bin", blob(500, number))
    rig.start()
    rig.wait_done(3)
    rig.kill()
    before = rig.bench.versions(f"inputs/{rig.name}/")
    rig.start()
    rig.wait_for(rig.live, "the daemon to answer")
    rig.drop("inputs/4.bin", blob(500, 4))
    rig.wait_done(4)
    rig.check(4)
    assert all(rig.bench.versions(f"inputs/{rig.name}/")[key] == count for key, count in before.items())


def test_once_waits_for_the_end_and_then_finds_nothing_to_do(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(700, 1))
    first = command(rig, "once", "--wait")
    assert first.returncode == 0, first.stdout + first.stderr
    rig.check(1)
    again = command(rig, "once", "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    rig.check(1)


def test_status_jobs_and_logs_say_what_happened(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(700, 1))
    assert command(rig, "once", "--wait").returncode == 0
    job = rig.job()
    jobs = json.loads(command(rig, "jobs", "--json").stdout)
    found = jobs["jobs"][0] if isinstance(jobs, dict) else jobs[0]
    assert found["id"] == job.job_id and found["state"] == "done" and found["analysis"] == BUCKET
    assert {"id", "name", "analysis", "state", "reason", "datasets", "created", "submitted", "ended", "results"} <= set(
        found
    )
    status = command(rig, "status")
    assert status.returncode == 0 and "done" in status.stdout
    logs = command(rig, "logs", job.job_id)
    assert logs.returncode == 0 and "a.bin" in logs.stdout and '{"' not in logs.stdout


# -- bad input, from the first day ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "code", "text", "says"),
    [
        ("run", 2, None, "can't be read"),
        ("once", 2, None, "can't be read"),
        ("status", 2, None, "can't be read"),
        ("run", 2, "group: lab\nroot: [\n", "ncaasd.yaml:"),
        ("once", 2, "group: lab\nroot: /tmp/x\nanalyses: {a-web: {}}\nuplaod: {parallel: 2}\n", "upload"),
        ("run", 2, "group: lab\ngroup: lab2\nroot: relative\nanalyses: {a-web: {}}\n", "ncaasd.yaml:2"),
        # `check` shows the config as one of its lines: something is red
        ("check", 1, "group: lab\ngroup: lab2\nroot: relative\nanalyses: {a-web: {}}\n", "ncaasd.yaml:2"),
    ],
)
def test_a_wrong_config_is_the_users_mistake(rig: Rig, verb: str, code: int, text: str | None, says: str) -> None:
    if text is None:
        os.unlink(rig.config)
    else:
        Path(rig.config).write_text(text)
    done = command(rig, verb)
    assert done.returncode == code, done
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_what_is_wrong_is_said_and_the_rest_goes_on(rig: Rig) -> None:
    """A bad manifest, a config that isn't there, a `.yml`, a dataset that would start a job: each is said; nothing is lost."""
    rig.drop_config()
    rig.drop("configs/old.yml", "window: 3\n")
    rig.drop("inputs/good.bin", blob(300, 1))
    rig.drop("inputs/evil-submit.json", "{}")
    rig.drop("submissions/broken.yaml", "jobs:\n  - name: x\n    datasetz: a.bin\n    config: c.yaml\n")
    rig.drop_job("lonely", "good.bin", config="nowhere.yaml")
    rig.drop_job("hopeful", "later.bin")
    rig.drop_rule("good.bin")
    rig.start()
    rig.wait_for(lambda: any(j.state is JobState.DONE for j in rig.jobs()), "the good one's job")

    def said() -> bool:
        found = rig.statuses()
        return all(f"submissions/{n}.status.json" in found for n in ("broken", "lonely", "hopeful"))

    rig.wait_for(said, "the status files")
    statuses = rig.statuses()
    broken = statuses["submissions/broken.status.json"]
    assert not broken["ok"] and any("broken.yaml:3:" in e and "datasets" in e for e in broken["errors"]), broken[
        "errors"
    ]
    assert "nowhere.yaml" in statuses["submissions/lonely.status.json"]["jobs"][0]["reason"]
    assert "later.bin" in statuses["submissions/hopeful.status.json"]["jobs"][0]["reason"]
    files = {f.place.path: f for f in rig.files()}
    assert files["configs/old.yml"].state == "refused" and ".yaml" in files["configs/old.yml"].reason
    assert files["inputs/evil-submit.json"].state == "refused" and "job" in files["inputs/evil-submit.json"].reason
    assert not [k for k in rig.bench.objects("inputs/") if k.endswith("submit.json")]
    rig.drop("inputs/later.bin", blob(10, 2))
    rig.wait_for(lambda: rig.job("hopeful").state is JobState.DONE, "the job whose dataset came late")


def test_wrong_credentials_and_an_endpoint_that_is_down_are_said(new_rig: Callable[..., Rig], tmp_path: Path) -> None:
    wrong = tmp_path / "credentials"
    wrong.write_text("[ncaasd-sandbox]\naws_access_key_id = NOBODY\naws_secret_access_key = nothing\n")
    rig = new_rig()
    rig.drop("inputs/a.bin", b"x")
    refused = command(rig, "once", AWS_SHARED_CREDENTIALS_FILE=str(wrong))
    assert refused.returncode == 3, refused
    assert "access key" in refused.stdout + refused.stderr and "Traceback" not in refused.stderr
    down = new_rig(changes={"aws": {"endpoint_url": "http://127.0.0.1:9"}})
    down.drop("inputs/a.bin", b"x")
    refused = command(down, "once")
    assert refused.returncode == 3, refused
    assert "endpoint_url" in refused.stdout + refused.stderr and "Traceback" not in refused.stderr


def test_the_daemon_survives_a_server_that_is_down_at_first(rig: Rig) -> None:
    config: dict[str, Any] = {"aws": {"endpoint_url": "http://127.0.0.1:9"}}
    rig.configure(config)
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(100, 1))
    rig.start()
    rig.wait_for(lambda: (rig.live() or {}).get("troubles"), "the trouble to be shown")
    rig.configure({})  # taken up without a restart
    rig.wait_done(1)
    rig.check(1)
