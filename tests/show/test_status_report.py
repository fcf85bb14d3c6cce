"""From a journal to what `status` shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from show_machine import ANALYSIS, ID, NOW, add_file, add_job, done, spec, stat, submitted

from ncaasd.adapters.journal import Journal
from ncaasd.model import NEVER, FileState, JobState, Phase
from ncaasd.plan.gates import ABORTED
from ncaasd.show.status import StatusReport, status_report
from ncaasd.show.terminal import render_status

LIVE: dict[str, Any] = {
    "pid": 77,
    "rig": "rig-a",
    "transfers": [
        {"analysis": ANALYSIS, "name": "lab/inputs/big.tif", "direction": "up", "done": 25, "size": 100, "rate": 5.0},
        {"analysis": ANALYSIS, "name": "lab/results/x", "direction": "down", "done": 0, "size": 100, "rate": 0.0},
    ],
    "troubles": [f"{ANALYSIS}: the disk is full"],
    "watching": {f"{ANALYSIS}:": {"mode": "polling", "why": "nfs4 does not tell of changes that other machines make"}},
}


def report(journal: Journal, live: dict[str, Any] | None = None) -> StatusReport:
    return status_report(journal, live, root="/data", analyses=[ANALYSIS], pid=77 if live else None, now=NOW)


def shown(found: StatusReport, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(render_status(found))
    return out.getvalue()


def attention(found: StatusReport) -> list[tuple[str, str, str]]:
    return [(a.kind, a.name, a.command) for a in found.attention]


def test_an_empty_journal(journal: Journal) -> None:
    found = report(journal)
    assert (found.pid, found.attention, found.transfers) == (None, (), ())
    assert "no daemon runs" in shown(found)


def test_files_are_counted_by_state_with_bytes(journal: Journal) -> None:
    add_file(journal, "inputs/a.tif", FileState.STORED, size=100)
    add_file(journal, "inputs/b.tif", FileState.STORED, size=200)
    add_file(journal, "inputs/c.tif", FileState.SETTLING, size=7)
    add_file(journal, "manifest.yaml", FileState.READ)  # no data
    files = report(journal).analyses[0].files
    assert files == {FileState.STORED: (2, 300), FileState.SETTLING: (1, 7)}


PACKED, UNNAMED = "goes up in its unit's package, not by itself", "no rule names it"


@pytest.mark.parametrize(
    ("files", "to_upload", "left"),
    [
        ([(0.0, "")], 1, {}),  # due
        ([(NEVER, "")], 1, {}),  # under way
        ([(NOW + 30, "waits for DONE in M7/1")], 1, {}),
        ([(NEVER, PACKED), (NEVER, PACKED), (NEVER, UNNAMED)], 0, {PACKED: 2, UNNAMED: 1}),
        (
            [(0.0, ""), (NOW + 30, f"{ABORTED}: STOP is in a"), (0.0, f"{ABORTED}: STOP is in b")],
            1,
            {ABORTED: 2},
        ),
    ],
)
def test_only_what_will_be_uploaded_is_to_upload(
    journal: Journal, files: list[tuple[float, str]], to_upload: int, left: dict[str, int]
) -> None:
    for number, (retry_at, reason) in enumerate(files):
        row = add_file(journal, f"inputs/{number}.tif", FileState.WHOLE, size=10)
        with journal.transaction():
            journal.put_off_file(row, retry_at, reason)
    found = report(journal)
    assert found.analyses[0].files.get(FileState.WHOLE, (0, 0)) == (to_upload, 10 * to_upload)
    assert found.analyses[0].left == {why: (n, 10 * n) for why, n in left.items()}
    assert found.document()["analyses"][0]["not_uploaded"] == [
        {"why": why, "files": n, "bytes": 10 * n} for why, n in sorted(left.items())
    ]
    assert all(why in shown(found, 120) for why in left)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": JobState.WAITING}, []),
        (submitted(), []),
        (done(), []),
        (
            {"state": JobState.HELD, "hold": "person", "reason": "held by hand"},
            [("held", "two-photon m7/a.tif", "ncaasd release 1")],
        ),
        ({"state": JobState.WAITING, "released": {"backlog"}}, []),  # released, not yet looked at
        (  # held once more, after a release
            {"state": JobState.HELD, "hold": "same", "released": {"same"}, "reason": "declared twice"},
            [("held", "two-photon m7/a.tif", "ncaasd forget 1")],
        ),
        (
            submitted(
                phase=Phase.ATTEMPTED, state=JobState.HELD, hold="foreign", reason="another submit file is there"
            ),
            [("held", "two-photon m7/a.tif", f"ncaasd rerun {ID}")],
        ),
        (submitted(state=JobState.LOST), [("lost", "two-photon m7/a.tif", f"ncaasd rerun {ID}")]),
        (done(forgotten=True, state=JobState.LOST), []),
    ],
)
def test_what_needs_a_person_and_the_command_for_it(
    journal: Journal, fields: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    add_job(journal, spec(), **fields)
    assert attention(report(journal)) == expected


def test_F94_a_backlog_is_one_line_with_jobs_machines_and_bytes(journal: Journal) -> None:
    for number in range(25):
        held = {"state": JobState.HELD, "hold": "backlog", "reason": "25 datasets at once"}
        add_job(journal, spec(unit=f"m7/{number}.tif"), size=2_000_000_000, **held)
    found = report(journal)
    assert attention(found) == [
        ("held", "two-photon: 25 jobs (25 machines, 50.0 GB)", "ncaasd release --rule two-photon")
    ]


def test_a_rerun_counts_once_and_only_its_newest_attempt(journal: Journal) -> None:
    add_job(journal, spec(), **done(state=JobState.FAILED))
    add_job(journal, spec(), attempt=1, **submitted("482913377120345"))
    assert report(journal).analyses[0].jobs == {JobState.RUNNING: 1}


DATA = "inputs/m7/a.tif"
OLD, NEW = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", False),
        ("stored anew", True),
        ("being written", True),
        ("deleted here", False),
        ("never submitted", False),
    ],
)
def test_F87_a_job_whose_data_has_changed_since_is_said(journal: Journal, what: str, said: bool) -> None:
    fields = {} if what == "never submitted" else done()
    row = add_job(journal, spec(), **fields)
    if what != "never submitted":
        with journal.transaction():
            journal.datasets_submitted(row, [replace(d, etag=OLD) for d in spec().datasets])
    file = add_file(journal, DATA, FileState.STORED, etag=NEW if what in ("stored anew", "never submitted") else OLD)
    with journal.transaction():
        if what == "being written":
            place = journal.file(file).place  # type: ignore[union-attr]  # it was just made
            journal.see_file(place, stat(2000), f"lab/{DATA}", FileState.SETTLING, "", NOW)
        if what == "deleted here":
            journal.set_file(file, FileState.GONE, "", NOW)
    expected = [("changed", "two-photon m7/a.tif", f"ncaasd rerun {ID}")] if said else []
    found = report(journal)
    assert attention(found) == expected
    if said:
        assert found.attention[0].why.startswith(f"already job {ID} of 20")


@pytest.mark.parametrize("state", [FileState.HELD, FileState.REFUSED])
def test_files_that_do_not_go_up_are_named_with_the_reason(journal: Journal, state: FileState) -> None:
    add_file(journal, "inputs/x", state, reason="something else is at its key")
    (item,) = report(journal).attention
    assert (item.kind, item.name, item.why) == (
        "file",
        f"{ANALYSIS}/inputs/x",
        f"{state}: something else is at its key",
    )


def test_a_bad_manifest_is_shown_with_each_problem(journal: Journal) -> None:
    with journal.transaction():
        journal.set_manifest(ANALYSIS, "manifest.yaml", b"", "", NOW)
        journal.set_manifest(
            ANALYSIS, "submissions/x.yaml", None, "x.yaml:1:1: jobs: is missing\nx.yaml:2:1: a: no", NOW
        )
    found = report(journal)
    assert [m.problems for m in found.analyses[0].manifests] == [
        (),
        ("x.yaml:1:1: jobs: is missing", "x.yaml:2:1: a: no"),
    ]
    text = shown(found)
    assert "1 in force, 1 wrong" in text
    assert "x.yaml:1:1: jobs: is missing\n" in text.replace("  ", "")
    assert "x.yaml:2:1: a: no" in text


def test_what_only_the_daemon_knows(journal: Journal) -> None:
    found = report(journal, LIVE)
    assert [t.left for t in found.transfers] == [15.0, None]
    text = shown(found)
    for part in (
        "the daemon runs, pid 77, rig rig-a",
        "25%",
        "5 B/s",
        "15 s left",
        "! demo-analysis: the disk is full",
        "polling: nfs4",
    ):
        assert part in text


def test_as_json(journal: Journal) -> None:
    add_file(journal, "inputs/a.tif", FileState.STORED)
    add_file(journal, "inputs/\udcff.tif", FileState.HELD)  # a name that is no UTF-8
    add_job(journal, spec(), **submitted())
    document = json.loads(json.dumps(report(journal, LIVE).document()))
    assert document["daemon"] == {"running": True, "pid": 77}
    assert document["analyses"][0]["files"]["stored"] == {"files": 1, "bytes": 1000}
    assert document["analyses"][0]["jobs"] == {"running": 1}
    assert document["transfers"][0]["seconds_left"] == 15
    assert document["attention"][0]["name"].endswith("\\udcff.tif")


def test_it_fits_80_columns(journal: Journal) -> None:
    for number in range(30):
        unit = f"a-rather-long-animal-name/2026-11-23_{number}/and/deeper/still/recording-{number}.tif"
        add_job(journal, spec(unit=unit), state=JobState.HELD, hold="person", reason="r" * 200)
        add_file(journal, f"inputs/{unit}", FileState.REFUSED, reason="it has a space in it: " + "w " * 60)
    live = LIVE | {"transfers": [LIVE["transfers"][0] | {"name": "lab/inputs/" + "x" * 200}] * 20}
    assert max(len(line.rstrip()) for line in shown(report(journal, live)).splitlines()) <= 80
