"""`status`, `jobs`, `job`, `logs` on a journal, with no daemon."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from show_machine import ANALYSIS, ID, NOW, Call, Machine, add_file, add_job, done, spec, submitted

from ncaasd.adapters.journal import Journal
from ncaasd.model import FileState, JobState, Origin

OTHER = "482913377120999"


@pytest.fixture
def three(journal: Journal) -> None:
    """One done job with a failed first attempt, one held, one that waits."""
    add_job(journal, spec(), created=time.time() - 9000, **done(state=JobState.FAILED, reason="exit code 1"))
    add_job(journal, spec(), attempt=1, created=time.time() - 8000, **done(OTHER))
    add_job(
        journal,
        spec(unit="m8/b.tif"),
        created=time.time() - 7000,
        state=JobState.HELD,
        hold="person",
        reason="held by hand",
    )
    one_off = {"origin": Origin.MANIFEST, "declared_in": "submissions/today.yaml"}
    add_job(
        journal, spec("today", "c.tif", **one_off), created=time.time() - 60, reason="waits for c.tif (not in inputs/)"
    )


@pytest.mark.usefixtures("three")
def test_jobs_the_newest_first_and_the_newest_attempt_only(ncaasd: Call) -> None:
    answer = ncaasd("jobs")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == ["4", "3", OTHER]
    assert max(len(line.rstrip()) for line in lines) <= 80


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], [None, None, OTHER]),
        (["--state", "held"], [None]),
        (["--state", "held", "--state", "done"], [None, OTHER]),
        (["--state", "lost"], []),
        (["--all-attempts"], [None, None, OTHER, ID]),
        (["--analysis", ANALYSIS, "--state", "done"], [OTHER]),
    ],
)
def test_jobs_as_json(ncaasd: Call, arguments: list[str], ids: list[str | None]) -> None:
    assert [job["id"] for job in ncaasd("jobs", "--json", *arguments).json] == ids


PROMISED = {"id", "name", "analysis", "state", "reason", "datasets", "created", "submitted", "ended", "results"}


@pytest.mark.usefixtures("three")
def test_a_job_in_json_has_at_least_what_is_promised(ncaasd: Call) -> None:
    for job in [*ncaasd("jobs", "--json").json, ncaasd("job", OTHER, "--json").json]:
        assert job.keys() >= PROMISED


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("name", "first_line"),
    [
        (OTHER, "two-photon m7/a.tif (attempt 1)"),
        (ID, "two-photon m7/a.tif,"),
        ("3", "two-photon m8/b.tif"),
        ("#3", "two-photon m8/b.tif"),
        ("today", "today c.tif"),
        ("m8/b.tif", "two-photon m8/b.tif"),
    ],
)
def test_a_job_is_named_by_id_number_name_or_unit(ncaasd: Call, name: str, first_line: str) -> None:
    answer = ncaasd("job", name)
    assert answer.code == 0
    assert first_line in answer.out.splitlines()[0]


def test_one_job_tells_its_story(machine: Machine, journal: Journal, ncaasd: Call) -> None:
    add_file(journal, "inputs/m7/a.tif", FileState.STORED, size=12_300_000_000)
    row = add_job(journal, spec(), **done())
    subject = "job two-photon m7/a.tif"
    with journal.transaction():
        journal.event(NOW - 600, ANALYSIS, subject, "declared", "declared by manifest.yaml")
        journal.event(NOW - 500, ANALYSIS, subject, "submitted", f"job {ID}")
        journal.event(NOW - 400, ANALYSIS, "job other", "submitted", "not this one")
        journal.want_artefact(row, "process_results/out.csv", ANALYSIS, "k", 2000, "e")
    answer = ncaasd("job", ID)
    facts = {line[:12].strip(): line[12:] for line in answer.out.splitlines() if line[:1].strip()}
    assert facts["state"] == "done: the dataset succeeded"
    assert facts["cost"] == "$3.07 projected, $296.93 of the budget left then"
    assert facts["datasets"] == "m7/a.tif (12.3 GB, stored)"
    assert facts["config"] == "caiman.yaml (as lab/configs/caiman-1a2b3c4d.yaml)"
    assert facts["fetched"] == "0 of 1 file, 0 B of 2.0 kB"
    assert facts["results"] == str(machine.home / "results" / f"job__{ANALYSIS}_{ID}")
    assert "declared by manifest.yaml" in answer.out
    assert "not this one" not in answer.out
    document = ncaasd("job", ID, "--json").json
    assert [e["kind"] for e in document["timeline"]] == ["declared", "submitted"]
    assert document["cost"] == {"projected": 3.072, "budget_left": 296.93}


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        (done(), None),
        (done(state=JobState.FAILED), f"ncaasd rerun {ID}"),
        (done(state=JobState.REFUSED), f"ncaasd rerun {ID}"),
        (submitted(state=JobState.LOST), f"ncaasd rerun {ID}"),
        (submitted(), None),
        ({"state": JobState.HELD, "hold": "budget"}, "ncaasd release 1"),
    ],
)
def test_one_job_names_the_command_that_helps(
    journal: Journal, ncaasd: Call, fields: dict[str, Any], command: str | None
) -> None:
    add_job(journal, spec(), **fields)
    assert ncaasd("job", "1", "--json").json["command"] == command


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["job", "nono"], "there is no job nono"),
        (["job", "two-photon"], "two-photon means 2 jobs"),
        (["logs", "nono"], "there is no job nono"),
        (["jobs", "--state", "broken"], "'broken' is no state"),
        (["jobs", "--analysis", "other"], "the config has no analysis 'other'"),
        (["status", "--config", "/nowhere/c.yaml"], "the config /nowhere/c.yaml can't be read"),
    ],
)
def test_mistakes_are_sentences_with_exit_code_2(ncaasd: Call, arguments: list[str], said: str) -> None:
    answer = ncaasd(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"ncaasd: {said}")
    assert "\n  → " in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    "arguments", [["status"], ["jobs"], ["job", "1"], ["logs", "1"], ["hold", "1"], ["fetch", "1"]]
)
def test_before_the_first_start_there_is_no_journal(ncaasd: Call, arguments: list[str]) -> None:
    answer = ncaasd(*arguments)
    assert answer.code == 2
    assert answer.err.startswith("ncaasd: there is no journal at ")


def test_all_problems_of_a_config_are_said_each_at_its_line(machine: Machine, ncaasd: Call) -> None:
    machine.config_path.write_text("group: lab\nroot: relative\nanalyzes: {}\nwatch: {settle: soon}\n")
    answer = ncaasd("status")
    lines = answer.err.splitlines()
    assert answer.code == 2
    assert all(line.startswith(f"ncaasd: {machine.config_path}:") for line in lines)
    assert [line.removeprefix(f"ncaasd: {machine.config_path}:")[:2] for line in lines] == ["1:", "2:", "3:", "4:"]


def test_a_newer_journal_is_refused(machine: Machine, journal: Journal, ncaasd: Call) -> None:
    journal._db.execute("PRAGMA user_version=999")
    answer = ncaasd("status")
    assert answer.code == 2
    assert "newer ncaasd" in answer.err


def test_a_journal_that_is_none_is_the_environments_trouble(machine: Machine, ncaasd: Call) -> None:
    machine.state.mkdir()
    (machine.state / "journal.sqlite").write_bytes(b"not a database at all" * 100)
    assert ncaasd("status").code == 3


# -- logs

CERTIFICATE = """\
[Job Manager] REQUEST START TIME: 2026-11-23
[Job Manager] STEP 1/4 (Initialization): DONE
[Job Manager] STEP 2/4 (Validation): DONE
"""


def put_log(machine: Machine, journal: Journal, row: int, name: str, text: str) -> None:
    folder = f"job__{ANALYSIS}_{ID}"
    path = machine.home / "results" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with journal.transaction():
        journal.want_artefact(row, name, ANALYSIS, f"k/{name}", len(text), str(hash(text)))
        (found,) = [a for a in journal.artefacts(row) if a.name == name]
        journal.artefact_done(found.id, f"{folder}/{name}")


def status_file(status: str, *lines: str) -> str:
    printed = {str(number): line for number, line in enumerate(lines)}
    return json.dumps({"status": status, "reason": "", "input": "lab/inputs/a.tif", "std": printed})


def test_logs_are_text_not_json(machine: Machine, journal: Journal, ncaasd: Call) -> None:
    row = add_job(journal, spec(), **submitted())
    put_log(machine, journal, row, "logs/certificate.txt", CERTIFICATE)
    put_log(
        machine,
        journal,
        row,
        "logs/DATASET_NAME:a.tif_STATUS.txt",
        status_file("IN PROGRESS", "frame 1\n", "frame 2\n"),
    )
    answer = ncaasd("logs", ID)
    assert answer.code == 0
    assert "steps done: 1, 2 of 4" in answer.out
    assert "=== a.tif: IN PROGRESS" in answer.out
    assert "frame 1\nframe 2\n" in answer.out
    assert "{" not in answer.out
    (dataset,) = ncaasd("logs", ID, "--json").json["datasets"]
    assert (dataset["name"], dataset["output"]) == ("a.tif", "frame 1\nframe 2\n")


def test_logs_before_there_are_any(journal: Journal, ncaasd: Call) -> None:
    add_job(journal, spec(), reason="waits for m7/a.tif (not in inputs/)")
    answer = ncaasd("logs", "1")
    assert (answer.code, answer.out) == (0, "no logs yet: the job is waiting (waits for m7/a.tif (not in inputs/))\n")


@pytest.mark.parametrize("spoil", ["gone", "link", "fifo", "half"])
def test_logs_that_cannot_be_read_are_left_out(
    machine: Machine, journal: Journal, ncaasd: Call, spoil: str, tmp_path: Path
) -> None:
    row = add_job(journal, spec(), **submitted())
    put_log(machine, journal, row, "logs/certificate.txt", CERTIFICATE)
    name = "logs/DATASET_NAME:a.tif_STATUS.txt"
    put_log(machine, journal, row, name, status_file("IN PROGRESS", "x")[: 20 if spoil == "half" else None])
    path = machine.home / "results" / f"job__{ANALYSIS}_{ID}" / name
    if spoil != "half":
        path.unlink()
    if spoil == "link":
        (tmp_path / "secret").write_text(status_file("SUCCESS", "secret"))
        path.symlink_to(tmp_path / "secret")
    if spoil == "fifo":
        os.mkfifo(path)
    answer = ncaasd("logs", ID)
    assert answer.code == 0
    assert "steps done" in answer.out
    assert "a.tif" not in answer.out


def test_logs_followed_show_each_line_once_and_end_with_the_job(
    machine: Machine, journal: Journal, ncaasd: Call
) -> None:
    row = add_job(journal, spec(), **submitted())
    name = "logs/DATASET_NAME:a.tif_STATUS.txt"
    put_log(machine, journal, row, name, status_file("IN PROGRESS", "frame 1\n"))

    def later() -> None:
        with_journal = machine.journal()
        time.sleep(0.5)
        put_log(machine, with_journal, row, name, status_file("SUCCESS", "frame 1\n", "frame 2\n"))
        with with_journal.transaction():
            with_journal.update_job(row, **{k: v for k, v in done().items() if k != "cost"})
        with_journal.close()

    thread = threading.Thread(target=later)
    thread.start()
    answer = ncaasd("logs", "-f", ID)
    thread.join()
    assert answer.code == 0
    assert answer.out == "frame 1\n=== a.tif: IN PROGRESS ===\nframe 2\n=== a.tif: SUCCESS ===\n"


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"jobs": {"max_activ": 3}}, 0, "is max_active meant?"),
        ({"analyses": {ANALYSIS: {"watch": {"settle": "soon"}}}}, 0, "settle"),
        ({"root": "not/absolute"}, 2, "root"),
    ],
)
def test_F78_status_says_what_is_wrong_with_the_config_and_shows_the_rest(
    machine: Machine, ncaasd: Call, change: dict[str, Any], code: int, says: str
) -> None:
    machine.configure(**change)
    answer = ncaasd("status", "--json")
    assert answer.code == code
    if code:
        assert says in answer.err
        return
    (trouble,) = answer.json["troubles"]
    assert says in trouble and str(machine.config_path) in trouble
    assert answer.json["analyses"][0]["jobs"] == {"done": 1, "held": 1, "waiting": 1}
    assert says in ncaasd("status").out.replace("\n", " ")


def test_status_of_a_wrong_config_that_never_ran_says_what_is_wrong(machine: Machine, ncaasd: Call) -> None:
    machine.configure(jobs={"max_activ": 3})
    answer = ncaasd("status")
    assert (answer.code, "is max_active meant?" in answer.err, "no journal" in answer.err) == (2, True, False)
