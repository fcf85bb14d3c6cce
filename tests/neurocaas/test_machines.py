"""Several machines on one dataset: they share one status file and one line, and neither is all that there is to know (F101).

The certificates are built as the platform's own code writes them for an ensemble (neurocaas/machines.py says where).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from certificate_samples import (
    CONFIG,
    COST,
    STEP_1,
    STEP_2,
    STEP_3,
    STEP_4,
    aws_error,
    header,
    monitor,
    stamped,
    status,
)
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.model import JobState
from ncaasd.neurocaas.certificate import Certificate, parse_certificate, parse_status
from ncaasd.neurocaas.evidence import Evidence, Facts, Patience
from ncaasd.neurocaas.job_state import END_MARKER, Judgement, judge
from ncaasd.neurocaas.machines import KEPT, Heard, Memory, machine_number, remembered

KEY = "wardlab/inputs/m1.zip"
DONE, FAILED, RUNNING, LOST = JobState.DONE, JobState.FAILED, JobState.RUNNING, JobState.LOST


def launch(datasets: list[str]) -> list[str]:
    """Step 4, with a machine for each entry of the job manager's list."""
    machines = [
        stamped(f"        [Utils] New instance ec2.Instance(id='i-0a1b2c3d4e5f{number:05d}') created!", 16)
        for number in range(len(datasets))
    ]
    created = stamped(
        f"        [Internal (start_instance)] Created {len(datasets)} immutable analysis environments.", 18
    )
    work = [
        stamped(f"        [Internal (process_inputs)] Starting analysis {number} with parameter set {name}", 19)
        for number, name in enumerate((d.rpartition("/")[2] for d in datasets), start=1)
    ]
    return [*machines, created, *work]


def certificate(datasets: list[str], *lines: str, asked: list[str] | None = None, at: str = "") -> Certificate:
    """`datasets`: the job manager's list, of which an ensemble's repeats its one; `lines`: the monitor section."""
    written = [
        *(monitor(*lines) if lines else []),
        *header(asked or list(dict.fromkeys(datasets))),
        *STEP_1,
        *CONFIG,
        *COST,
        *STEP_2,
        *STEP_3,
        *launch(datasets),
        *STEP_4,
    ]
    text = "\n".join(written)
    return parse_certificate(text.replace("2031-03-05 04:10:11.12", at) if at else text)


def line(word: str, key: str = KEY, at: str = "2031_03_05_04_44_05 (finished)") -> str:
    return f"{key} | STATUS: {word} | TIME: {at} | LAST COMMAND:  | CPU_USAGE: 97.0 %"


def seen(
    cert: Certificate | None,
    files: Mapping[str, bytes],
    *,
    expected: tuple[str, ...] = ("m1.zip",),
    marker: str | None = END_MARKER,
    **more: object,
) -> Evidence:
    found = {name: parse_status(data, f"logs/DATASET_NAME:{name}_STATUS.txt") for name, data in files.items()}
    given = {"quiet": 0.0, "age": 3600.0} | more
    return Evidence(certificate=cert, expected=expected, statuses=found, end_marker=marker, **given)  # type: ignore[arg-type]


ENSEMBLE = [KEY, KEY, KEY]
OK = {"m1.zip": status("SUCCESS", "m1.zip", job_finish="2031-03-05T05:00:00Z")}
BAD = {"m1.zip": status("FAILED", "m1.zip", lines=("ValueError: no frames",), job_finish="2031-03-05T04:20:00Z")}
BUSY = {"m1.zip": status("IN PROGRESS", "m1.zip")}
ALL = frozenset({1, 2, 3})
ONE_FAILED = (
    "m1.zip: 3 machines worked on it, 1 failed: its line in the certificate says FAILED; its status file shows only the last"
    " to write"
)
SHARED = "they share one status file, which shows only the last to write. Look at its logs and results"


def test_F101_a_certificate_tells_how_many_machines_there_are() -> None:
    told = certificate(ENSEMBLE, line("SUCCESS"))
    assert (told.machines, told.created, told.launched, told.started) == (3, 3, 3, ("m1.zip",) * 3)
    assert told.requested == "2031-03-05 04:10:11.12 (GMT)"
    assert len(told.monitor) == 1
    starting = parse_certificate("\n".join([*header([KEY]), *launch(ENSEMBLE)[:2]]))  # two were given so far
    assert (starting.machines, starting.created) == (2, 0)
    assert parse_certificate("\n".join(header([KEY]))).machines == 0


@pytest.mark.parametrize(
    ("lines", "files", "numbers", "state", "reason"),
    [
        # the last to write succeeded, and nobody knows of the others
        ([line("SUCCESS")], OK, (), FAILED,
         f"3 machines worked on m1.zip, and only 1 of them left a verdict that can be read: {SHARED}"),
        ([line("SUCCESS")], OK, (1, 3), FAILED,
         f"3 machines worked on m1.zip, and only 2 of them left a verdict that can be read: {SHARED}"),
        # each left the result that it leaves last
        ([line("SUCCESS")], OK, (1, 2, 3), DONE, "all 3 machines on the dataset succeeded"),
        # and so much for what an earlier, larger job left
        ([line("SUCCESS")], OK, (1, 3, 4, 5), FAILED,
         f"3 machines worked on m1.zip, and only 2 of them left a verdict that can be read: {SHARED}"),
        # the failed one's line was not overwritten, its status file was
        ([line("FAILED")], OK, (1, 2), FAILED,
         ONE_FAILED),
        ([line("failed")], OK, (1, 2, 3), FAILED,
         ONE_FAILED),
        # the failed one was the last to write
        ([line("SUCCESS")], BAD, (1, 2), FAILED, "m1.zip: 3 machines worked on it, 1 failed: ValueError: no frames"),
        ([line("FAILED")], BAD, (), FAILED,
         "m1.zip: 3 machines worked on it, 1 failed, 2 left no verdict that can be read: ValueError: no frames"),
        # a job manager that writes a line for each machine
        ([line("SUCCESS")] * 3, OK, (), DONE, "all 3 machines on the dataset succeeded"),
        ([line("SUCCESS"), line("FAILED"), line("SUCCESS")], OK, (), FAILED,
         ONE_FAILED),
        ([line("SUCCESS"), line("SUCCESS"), line("IN PROGRESS", at="now")], OK, (), FAILED,
         f"3 machines worked on m1.zip, and only 2 of them left a verdict that can be read: {SHARED}"),
        ([line("IN PROGRESS", at="now")], BUSY, (), FAILED,
         f"3 machines worked on m1.zip, and none of them left a verdict that can be read: {SHARED}"),
        # the last to write went down in the middle
        ([line("IN PROGRESS", at="now")], BUSY, (1, 2), FAILED,
         f"3 machines worked on m1.zip, and only 2 of them left a verdict that can be read: {SHARED}"),
    ],
)  # fmt: skip
def test_F101_what_is_said_of_an_ensemble_that_has_ended(
    lines: list[str], files: Mapping[str, bytes], numbers: tuple[int, ...], state: JobState, reason: str
) -> None:
    verdict = judge(seen(certificate(ENSEMBLE, *lines), files, numbers=frozenset(numbers)))
    assert (verdict.state, verdict.reason) == (state, reason)
    assert (verdict.total, verdict.machines) == (1, 3)
    assert verdict.final


def test_F101_more_lines_than_datasets_are_machines_without_a_word_of_their_number() -> None:
    told = replace(certificate(ENSEMBLE, *[line("SUCCESS")] * 3), created=0, launched=0, started=())
    assert judge(seen(told, OK)).reason == "all 3 machines on the dataset succeeded"
    told = replace(certificate(ENSEMBLE, *[line("SUCCESS")] * 2, line("FAILED")), created=0, launched=0, started=())
    assert (judge(seen(told, OK)).state, judge(seen(told, OK)).machines) == (FAILED, 3)


def test_F101_an_ensemble_goes_on_after_the_first_verdict() -> None:
    told = certificate(ENSEMBLE, line("SUCCESS"))
    verdict = judge(seen(told, OK, marker=None))
    assert (verdict.state, verdict.row, verdict.finished) == (RUNNING, "running", 0)
    assert verdict.reason == "1 of 3 machines known to have finished"
    verdict = judge(seen(certificate(ENSEMBLE, line("IN PROGRESS", at="now")), BAD, marker=None))
    assert (verdict.state, verdict.reason) == (RUNNING, "1 of 3 machines known to have finished, 1 failed")
    verdict = judge(seen(told, OK, marker=None, quiet=31 * 60.0))
    assert (verdict.state, verdict.row) == (LOST, "gone quiet")
    assert verdict.reason == (
        "nothing was heard for 31 min; 1 of 3 machines known to have finished, no verdict on m1.zip"
    )


def again(before: Judgement, evidence: Evidence) -> Judgement:
    """The next look, with what the journal kept of the last."""
    return judge(replace(evidence, memory=remembered(before.memory)))


def test_F101_a_failure_that_was_seen_once_is_not_forgotten() -> None:
    told = certificate(ENSEMBLE, line("SUCCESS"))
    first = judge(seen(told, BAD, marker=None))
    second = again(first, seen(told, BUSY, marker=None))
    last = again(second, seen(told, OK, numbers=ALL))
    assert last.state is FAILED
    assert last.reason == (
        "m1.zip: 3 machines worked on it, 1 failed: ValueError: no frames; its status file shows only the last to write"
    )


def test_F101_a_line_that_was_seen_once_is_not_forgotten() -> None:
    first = judge(seen(certificate(ENSEMBLE, line("FAILED")), BUSY, marker=None))
    last = again(first, seen(certificate(ENSEMBLE, line("SUCCESS")), OK, numbers=ALL))
    assert (last.state, "its line in the certificate says FAILED" in last.reason) == (FAILED, True)


def test_F101_three_successes_that_were_seen_one_after_the_other_are_three() -> None:
    told = certificate(ENSEMBLE, line("IN PROGRESS", at="now"))
    verdict = judge(seen(told, BUSY, marker=None))
    for minute in range(3):
        files = {"m1.zip": status("SUCCESS", "m1.zip", job_finish=f"2031-03-05T05:0{minute}:00Z")}
        for _look in range(2):  # one that is looked at twice is one
            verdict = again(verdict, seen(told, files, marker=None))
    assert again(verdict, seen(told, files)).reason == "all 3 machines on the dataset succeeded"


def test_F101_the_platforms_own_retry_has_machines_of_its_own() -> None:
    begun = [*header([KEY]), *STEP_1, *launch(ENSEMBLE), *aws_error("Transient AWS Communication Error.")]
    first = judge(seen(parse_certificate("\n".join(begun)), BAD, marker=None))
    assert remembered(first.memory).heard
    retried = certificate(ENSEMBLE, line("SUCCESS"), at="2031-03-05 04:12:00.00")
    assert again(first, seen(retried, OK, numbers=ALL)).state is DONE


def test_F66_F101_two_datasets_of_one_base_name_share_a_status_file() -> None:
    keys = ["wardlab/inputs/x/a.tif", "wardlab/inputs/y/a.tif"]
    files = {"a.tif": status("SUCCESS", "a.tif")}
    told = certificate(keys, line("SUCCESS", keys[0]), line("FAILED", keys[1]))
    verdict = judge(seen(told, files, expected=("a.tif", "a.tif")))
    assert (verdict.state, verdict.machines) == (FAILED, 2)
    assert "2 machines worked on it, 1 failed" in verdict.reason
    # started elsewhere, so that only the certificate tells
    assert judge(seen(told, files, expected=())).state is FAILED
    good = certificate(keys, line("SUCCESS", keys[0]), line("SUCCESS", keys[1]))
    assert judge(seen(good, files, expected=())).state is DONE


def test_F101_a_dataset_that_is_named_twice_has_two_machines() -> None:
    told = certificate([KEY, KEY, "wardlab/inputs/n.zip"], line("SUCCESS"), line("SUCCESS", "wardlab/inputs/n.zip"))
    files = OK | {"n.zip": status("SUCCESS", "n.zip")}
    verdict = judge(seen(told, files, expected=("m1.zip", "m1.zip", "n.zip")))
    assert (verdict.state, verdict.finished, verdict.total, verdict.machines) == (FAILED, 1, 2, 3)
    assert verdict.reason.startswith("2 machines worked on m1.zip, and only 1 of them left a verdict")


def test_F101_one_machine_whose_line_says_failed_is_not_done() -> None:
    verdict = judge(seen(certificate([KEY], line("FAILED")), OK))
    assert (verdict.state, verdict.reason) == (
        FAILED,
        "1 of 1 dataset failed: m1.zip: its line in the certificate says FAILED, though its status file says SUCCESS",
    )


@pytest.mark.parametrize("word", ["IN PROGRESS", "INITIALIZING", "LOGFAIL", "SUCCESS"])
def test_one_machine_is_believed_by_its_status_file(word: str) -> None:
    """Workers revert each other's lines: a line that is behind says nothing."""
    two = ["wardlab/inputs/a.zip", "wardlab/inputs/b.zip"]
    told = certificate(two, line(word, two[0], at="now"), line("SUCCESS", two[1]))
    files = {"a.zip": status("SUCCESS", "a.zip"), "b.zip": status("SUCCESS", "b.zip")}
    assert judge(seen(told, files, expected=("a.zip", "b.zip"))).reason == "all 2 datasets succeeded"


def test_a_name_with_blanks_overwrites_the_first_line() -> None:
    """A worker that doesn't find its line takes the first: two lines of one dataset, and one machine each."""
    two = ["wardlab/inputs/my a.zip", "wardlab/inputs/my b.zip"]
    told = certificate(two, line("SUCCESS", two[1]), line("INITIALIZING", two[1], at="now"))
    files = {"my a.zip": status("SUCCESS", "my a.zip"), "my b.zip": status("SUCCESS", "my b.zip")}
    verdict = judge(seen(told, files, expected=("my a.zip", "my b.zip")))
    assert (verdict.state, verdict.machines) == (DONE, 2)


def test_a_certificate_without_a_monitor_section_believes_the_status_files() -> None:
    assert judge(seen(certificate([KEY]), OK)).state is DONE


def test_the_counts_of_a_certificate_of_other_datasets_are_not_this_jobs() -> None:
    told = certificate(["wardlab/inputs/x.zip", "wardlab/inputs/y.zip"], line("FAILED", "wardlab/inputs/x.zip"))
    assert judge(seen(told, OK)).state is DONE


def test_an_assertion_that_is_worded_as_the_budgets_is_told_apart() -> None:
    said = "Error: Job is not covered by budget. Contact NeuroCAAS administrator."
    lines = [
        *header(["wardlab/inputs/a.zip", "wardlab/inputs/b.zip"]),
        *STEP_1,
        f"[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. {said}",
        stamped("[Job Manager] Shutting down job.", 30),
    ]
    verdict = judge(seen(parse_certificate("\n".join(lines)), {}, expected=("a.zip", "b.zip"), marker=None))
    assert (verdict.state, verdict.row) == (FAILED, "rejected")
    assert verdict.reason.endswith("An ensemble takes exactly one dataset")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("process_results/results1.zip", 1),
        ("process_results/results12.zip", 12),
        ("process_results/results0.zip", 0),
        ("process_results/results01.zip", 0),
        ("process_results/results.zip", 0),
        ("process_results/x/results1.zip", 0),
        ("logs/results1.zip", 0),
        ("process_results/results1.zip.part", 0),
    ],
)
def test_which_machine_left_a_result(name: str, number: int) -> None:
    assert machine_number(name) == number


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '["x"]', '["x", [[1, 2]]]', "{}", "null", '["x", 3]'])
def test_a_memory_that_cannot_be_read_is_empty(text: str) -> None:
    assert remembered(text).heard == ()


heards = st.builds(Heard, st.sampled_from(["status", "line"]), st.text(), st.text(), st.booleans(), st.text())


@given(st.text(), st.lists(heards, min_size=1).map(tuple))
def test_a_memory_is_read_as_it_was_written(requested: str, heard: tuple[Heard, ...]) -> None:
    memory = Memory(requested, heard)
    assert remembered(memory.dump()) == memory


def test_a_memory_has_an_end() -> None:
    heard = tuple(Heard("status", "m1.zip", str(number), True, "") for number in range(3 * KEPT))
    evidence = seen(certificate(ENSEMBLE, line("SUCCESS")), OK, memory=Memory("", heard))
    assert len(Facts(evidence, Patience()).memory.heard) <= KEPT


def test_jobs_with_a_machine_a_dataset_remember_nothing() -> None:
    assert judge(seen(certificate([KEY], line("FAILED")), BAD)).memory == ""
