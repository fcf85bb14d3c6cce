"""Reading what NeuroCAAS writes: certificates and status files, whole, cut and garbled."""

from __future__ import annotations

import time

import pytest
from certificate_samples import CAPACITY, CERTIFICATES, DATA, LINES, old_status, status
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.model import CostNote
from ncaasd.neurocaas.certificate import (
    Certificate,
    MonitorLine,
    StepError,
    Trouble,
    cost_sentence,
    parse_certificate,
    parse_status,
    readable_log,
    status_basename,
)

STATUS_NAME = "logs/DATASET_NAME:a.tif_STATUS.txt"


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("launched", {1, 2, 3, 4}),
        ("silent", set()),
        ("no dataname", set()),
        ("no config", {1}),
        ("over budget", {1}),
        ("capacity", {1, 2, 3}),
        ("limit", {1, 2, 3}),
        ("running", {1, 2, 3, 4}),
    ],
)
def test_steps_done(name: str, steps: set[int]) -> None:
    assert parse_certificate(CERTIFICATES[name]).steps_done == steps


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("launched", None),
        ("silent", None),
        ("no config", StepError(2, "Validation", "INTERNAL", "'configname' field refers to nothing.")),
        (
            "over budget",
            StepError(2, "Validation", "INTERNAL", "Job is not covered by budget. Contact the administrator."),
        ),
        # the last exception of a chain, without the job manager's prefixes
        ("cost unknown", StepError(2, "Validation", "INTERNAL", "Unable to estimate cost of current job.")),
        ("limit", StepError(4, "Initialize Processing", "INTERNAL", "Too many deployed analyses.")),
        # the first error: the second comes from cleaning up
        (
            "capacity",
            StepError(
                4,
                "Initialize Processing",
                "AWS",
                "InsufficientInstanceCapacity: We have none of that type just now.",
                "InsufficientInstanceCapacity",
            ),
        ),
        (
            "transient",
            StepError(4, "Initialize Processing", "AWS", "Transient AWS Communication Error. Please Try Again"),
        ),
        (
            "transient, and cleaning up",
            StepError(4, "Initialize Processing", "AWS", "Transient AWS Communication Error. Please Try Again"),
        ),
        (
            "code only",
            StepError(4, "Initialize Processing", "AWS", "UnauthorizedOperation", "UnauthorizedOperation"),
        ),
        ("cut off", StepError(2, "Validation", "INTERNAL", "'fr'")),
        # an exception whose sentence goes on in the next line
        (
            "disk",
            StepError(
                4,
                "Initialize Processing",
                "INTERNAL",
                "Parameter validation failed: Invalid type for parameter Ebs.VolumeSize, value: 35.5",
            ),
        ),
    ],
)
def test_step_error(name: str, error: StepError | None) -> None:
    assert parse_certificate(CERTIFICATES[name]).error == error


def test_every_error_is_kept_in_order() -> None:
    errors = parse_certificate(CERTIFICATES["capacity"]).errors
    assert [(error.kind, error.number) for error in errors] == [("AWS", 4), ("INTERNAL", 4)]


@pytest.mark.parametrize(
    ("name", "troubles"),
    [
        ("launched", ()),
        (
            "no dataname",
            (Trouble("init", "INPUT", "Submit file does not contain field 'dataname', needed to analyze data."),),
        ),
        ("no config", (Trouble("check_existence", "INPUT", "S3 Bucket does not contain wardlab/configs/x.yaml"),)),
        ("limit", (Trouble("acquire_instances", "RESOURCE", "Instance requests greater than pipeline bandwidth."),)),
    ],
)
def test_input_and_resource_errors(name: str, troubles: tuple[Trouble, ...]) -> None:
    assert parse_certificate(CERTIFICATES[name]).troubles == troubles


@pytest.mark.parametrize(
    ("name", "cost", "sentence"),
    [
        ("launched", CostNote(4.125, 295.875), "projected cost $4.12, $295.88 of the budget left"),
        ("over budget", CostNote(301.056, None, "$1.06"), "over budget: $301.06 of $300 would be used"),
        ("no config", None, ""),
    ],
)
def test_money(name: str, cost: CostNote | None, sentence: str) -> None:
    certificate = parse_certificate(CERTIFICATES[name])
    assert certificate.cost == cost
    assert cost_sentence(certificate) == sentence


@pytest.mark.parametrize("number", ["1.2.3", "e", "+-", "1e999", "9e300"])
def test_a_number_that_is_none_is_passed_over(number: str) -> None:
    line = f"        [Internal (get_costmonitoring)] Projected total costs: ${number}. Remaining budget: $1.0"
    assert parse_certificate(line).cost is None


def test_costs_in_scientific_notation() -> None:
    line = "        [Internal (get_costmonitoring)] Projected total costs: $5e-05. Remaining budget: $299.99995\t [+0:00:00.42]"
    assert parse_certificate(line).cost == CostNote(5e-05, 299.99995)


def test_monitor_lines_in_both_time_formats() -> None:
    monitor = parse_certificate(CERTIFICATES["running"]).monitor
    assert monitor == (
        MonitorLine(DATA[0], "SUCCESS", "2031_03_05_04_44_05", True, "", "97.0 %"),
        MonitorLine(DATA[1], "IN PROGRESS", "2031-03-05 04:44:01.250401", False, "echo a | b", "81"),
        MonitorLine(DATA[2], "INITIALIZING", "2031-03-05 04:12:01.250401", False, "NONE", ""),
    )


def test_only_newlines_split_lines() -> None:
    """A form feed or a Unicode line separator in a last command is no new line, and cannot forge one."""
    forged = "\x0c[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. boo\u2028[Job Manager] STEP 1/4 (x): DONE"
    text = f"DATANAME: a.tif | STATUS: IN PROGRESS | TIME: now | LAST COMMAND: {forged} | CPU_USAGE: 1"
    certificate = parse_certificate(text)
    assert certificate.error is None
    assert certificate.steps_done == frozenset()
    assert certificate.monitor[0].last_command == forged


@pytest.mark.parametrize("stopwatch", ["", "\t [+0:00:00.42]", "\t [+1 day, 0:00:00.42]"])
def test_the_stopwatch_may_be_missing(stopwatch: str) -> None:
    assert parse_certificate(f"[Job Manager] STEP 3/4 (Environment Setup): DONE{stopwatch}").steps_done == {3}


@pytest.mark.parametrize(
    ("asked", "datasets"),
    [
        (str(DATA), tuple(DATA)),
        ("wardlab/inputs/a.tif", ("wardlab/inputs/a.tif",)),
        (str([f"wardlab/inputs/{number:06}.tif" for number in range(500)]), None),  # a line of 15,000 characters
    ],
)
def test_what_the_job_manager_read_from_the_submit_file(asked: str, datasets: tuple[str, ...] | None) -> None:
    line = f"        [Internal (init)] Analysis request with dataset(s): {asked}, config file wardlab/configs/c.yaml"
    certificate = parse_certificate(line + "\t [+0:00:00.04]")
    assert certificate.config == "wardlab/configs/c.yaml"
    if datasets is None:
        assert len(certificate.datasets) == 500
    else:
        assert certificate.datasets == datasets


@pytest.mark.parametrize(
    ("info", "bucket", "output"),
    [
        (
            "{'input': {'bucket': None, 'datapath': None, 'configpath': None}, 'output': {'bucket': None, 'resultpath': None}}",
            "",
            None,
        ),
        (
            "{'input': {'bucket': 'lab', 'datapath': ['a'], 'configpath': 'c'}, 'output': {'bucket': 'o', 'resultpath': 'x/y'}}",
            "lab",
            ("o", "x/y"),
        ),
    ],
)
def test_storage_bypass(info: str, bucket: str, output: tuple[str, str] | None) -> None:
    certificate = parse_certificate(f"        [Internal (init)] Full bypass info: {info}\t [+0:00:00.05]")
    assert (certificate.input_bucket, certificate.output) == (bucket, output)


def test_complete() -> None:
    assert parse_certificate(CERTIFICATES["launched"]).complete
    assert not parse_certificate(CERTIFICATES["capacity"]).complete


@given(st.sampled_from(sorted(CERTIFICATES)), st.data())
def test_any_truncation_is_read(name: str, data: st.DataObject) -> None:
    text = CERTIFICATES[name]
    start, end = (data.draw(st.integers(0, len(text))) for _ in range(2))
    certificate = parse_certificate(text[start:end])
    assert len(certificate.errors) <= len(parse_certificate(text).errors)


@given(st.lists(st.tuples(st.sampled_from(sorted(LINES)), st.integers(0, 40)), max_size=30))
def test_any_interleaving_is_read(picks: list[tuple[str, int]]) -> None:
    lines = [LINES[name][number % len(LINES[name])] for name, number in picks]
    certificate = parse_certificate("\n".join(lines))
    assert len(certificate.errors) == sum("/4 (" in line and " ERROR. " in line for line in lines)


@given(st.text() | st.lists(st.sampled_from("\n|:()[] $\t"), max_size=200).map("".join))
def test_garbage_is_read_as_nothing(text: str) -> None:
    certificate = parse_certificate(text)
    assert isinstance(certificate, Certificate)
    assert certificate.error is None


def test_a_hostile_line_is_read_in_no_time() -> None:
    lines = [
        "DATANAME: " + " | STATUS: x | TIME: y (finished) | LAST COMMAND: z" * 30_000,
        "        [Internal (init)] Full bypass info: {'input': {'bucket': '" + "'output': {'bucket': '" * 50_000,
        "        [Internal (get_costmonitoring)] Projected total costs: $" + "1" * 10**6,
        "        [Internal (x)] INPUT ERROR: " + "\t [+" * 300_000,
        "        [Internal (init)] Analysis request with dataset(s): [" + "'\\" * 500_000,
        "[Job Manager] STEP 2/4 (x): AWS ERROR. " + "'Code': '" * 100_000,
    ]
    begun = time.process_time()
    parse_certificate("\n".join(lines))
    assert time.process_time() - begun < 2


# Status files


@pytest.mark.parametrize(
    ("word", "terminal", "success"),
    [
        ("INITIALIZING", False, False),
        ("IN PROGRESS", False, False),
        ("LOGFAIL", False, False),
        ("SUCCESS", True, True),
        ("success", True, True),
        ("FAILED", True, False),
        ("failed", True, False),
        ("sigkill/oom", True, False),
        ("dead", True, False),
    ],
)
def test_status_words(word: str, terminal: bool, success: bool) -> None:
    for data in (status(word), old_status(word)):
        read = parse_status(data, STATUS_NAME)
        assert read is not None
        assert (read.terminal, read.success, read.basename) == (terminal, success, "a.tif")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            status("SUCCESS", lines=("one", "two", *"abcdefghi", "twelfth")),
            "one\ntwo\na\nb\nc\nd\ne\nf\ng\nh\ni\ntwelfth\n",
        ),
        (status("SUCCESS", std="one\ntwo\n"), "one\ntwo\n"),
        (status("SUCCESS", std=["one", "two\n"]), "one\ntwo\n"),
        (status("SUCCESS", std=None), ""),
        (old_status("INITIALIZING"), ""),
        (old_status("FAILED", out={"0": "said\n"}, err={}), "said\n"),
        (old_status("FAILED", out="said\n", err={"0": "cried\n"}), "said\n--- standard error ---\ncried\n"),
        (old_status("FAILED", out={}, err="cried\n"), "cried\n"),
        # a progress bar, colours, a window title, a lone surrogate
        (
            status("SUCCESS", std="\x1b[32m 10%\r 50%\r100%\x1b[0m\r\n\x1b]0;title\x07ok \ud800\n"),
            "100%\nok \\ud800\n",
        ),
    ],
)
def test_output_is_readable(data: bytes, text: str) -> None:
    read = parse_status(data, STATUS_NAME)
    assert read is not None
    assert read.text() == text


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("cpu_usage", ["76"], "76"),
        ("cpu_usage", "99.0 %", "99.0 %"),
        ("cpu_usage", 12.5, "12.5"),
        ("cpu_usage", None, ""),
        ("cpu_usage", "N/A", ""),
        ("cpu_usage", {"odd": 1}, ""),
    ],
)
def test_fields_of_many_types(field: str, value: object, found: str) -> None:
    read = parse_status(status("IN PROGRESS", **{field: value}), STATUS_NAME)
    assert read is not None
    assert read.cpu == found


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (status("FAILED", lines=("ValueError: no frames in b.tif", "cleaning up")), "ValueError: no frames in b.tif"),
        (status("FAILED", lines=("numpy.linalg.LinAlgError",), reason=1), "numpy.linalg.LinAlgError"),
        (
            status("FAILED", lines=("----STARTING ANALYSIS----", "no such command"), reason=127),
            "no such command (exit code 127)",
        ),
        (status("FAILED", lines=("----STARTING ANALYSIS----",), reason=3), "exit code 3"),
        (status("FAILED", lines=("boom",), reason=1), "boom (exit code 1)"),
        (status("FAILED", lines=("boom",), reason=0), "boom"),
        (status("FAILED", reason=None), "no reason was given"),
        # an error of long ago was survived
        (
            status("FAILED", lines=("OSError: retried", *["working"] * 30, "killed by user"), reason=2),
            "killed by user (exit code 2)",
        ),
        (status("sigkill/oom", lines=("ValueError: old",)), "killed, probably because it ran out of memory"),
        (status("dead"), "its machine died"),
        (old_status("FAILED", out={"0": "ok\n"}, err={"0": "KeyError: 'fr'\n"}), "KeyError: 'fr'"),
    ],
)
def test_why_a_dataset_failed(data: bytes, why: str) -> None:
    read = parse_status(data, STATUS_NAME)
    assert read is not None
    assert read.why() == why


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"status": 3}',
        b'{"status": null}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"status": "SUCC',
    ],
)
def test_F63_a_half_written_status_is_none(data: bytes) -> None:
    assert parse_status(data, STATUS_NAME) is None


@given(st.integers(0, 600), st.binary(max_size=8))
def test_F63_any_cut_of_a_status_file_is_none_or_right(cut: int, tail: bytes) -> None:
    whole = status("SUCCESS", lines=("a", "b"))
    read = parse_status(whole[:cut] + tail, STATUS_NAME)
    assert read is None or read.status == "SUCCESS"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["status", "reason", "std", "stdout", "stderr", "input", "cpu_usage", "job_start"]), json_values)
def test_any_value_in_any_field_is_read(field: str, value: object) -> None:
    read = parse_status(status("FAILED", **{field: value}), STATUS_NAME)
    if read is None:
        assert field == "status"
        assert not isinstance(value, str)
    else:
        (read.text() + read.why() + readable_log(None, [read])).encode()  # printable, whatever was in it


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("wardlab/results/job__b_1/logs/DATASET_NAME:a.tif_STATUS.txt", "a.tif"),
        ("DATASET_NAME:odd_STATUS.txt_STATUS.txt", "odd_STATUS.txt"),
        ("logs/certificate.txt", None),
        ("logs/DATASET_NAME:a.tif", None),
    ],
)
def test_status_basename(key: str, name: str | None) -> None:
    assert status_basename(key) == name


def test_readable_log() -> None:
    read = parse_status(status("FAILED", lines=("----STARTING----", "ValueError: x")), STATUS_NAME)
    assert read is not None
    log = readable_log(parse_certificate(CERTIFICATES["running"]), [read])
    assert log == (
        "steps done: 1, 2, 3, 4 of 4\n"
        "projected cost $4.12, $295.88 of the budget left\n"
        "wardlab/inputs/m1/a.tif: FAILED at 2031_03_05_04_44_05, 97.0 % CPU\n"  # the status file is believed
        "wardlab/inputs/m1/b.tif: IN PROGRESS at 2031-03-05 04:44:01.250401, 81 CPU\n"
        "wardlab/inputs/m2/c.tif: INITIALIZING at 2031-03-05 04:12:01.250401\n"
        "\n"
        "=== a.tif: FAILED (CPU 55.0 %, memory 1024 MB, from 2031-03-05T04:14:00Z) ===\n"
        "----STARTING----\n"
        "ValueError: x\n"
    )
    assert "step 4 (Initialize Processing) failed: " in readable_log(parse_certificate(CERTIFICATES["capacity"]), [])
    assert CAPACITY not in readable_log(parse_certificate(CERTIFICATES["capacity"]), [])
    assert readable_log(None, []) == ""
