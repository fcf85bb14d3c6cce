"""Every scenario, played to its end on the real server: what is in S3 then, and on the way there.

The regular expressions are those of the protocol (docs/neurocaas.md), written here anew.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from sandbox_user import BUCKET, User

from ncaasd.errors import UserError
from ncaasd.model import JobState
from ncaasd.neurocaas.certificate import parse_certificate
from ncaasd.neurocaas.evidence import Evidence
from ncaasd.neurocaas.job_state import judge
from ncaasd.neurocaas.machines import machine_number
from ncaasd.neurocaas.status import parse_status
from ncaasd.neurocaas.submission import is_result
from ncaasd.sandbox.job_manager import JobManager
from ncaasd.sandbox.scenarios import SCENARIOS, Scenario, choose
from ncaasd.sandbox.worker import ODD_NAMES

E = r"(?:\t \[\+[\d:. ,a-z]+\])?$"
MONEY = r"\$([\d.e+-]+)"
DONE = re.compile(r"^\[Job Manager\] STEP ([1-4])/4 \(([^)]*)\): DONE" + E)
ERROR = re.compile(r"^\[Job Manager\] STEP ([1-4])/4 \(([^)]*)\): (AWS|INTERNAL) ERROR\. (.*)$")
SHUTTING_DOWN = re.compile(r"^\[Job Manager\] Shutting down job\." + E)
TROUBLE = re.compile(r"^ {8}\[Internal \((\w+)\)\] (INPUT|RESOURCE) ERROR: (.*?)" + E)
COST = re.compile(
    rf"^ {{8}}\[Internal \(get_costmonitoring\)\] Projected total costs: {MONEY}\. "
    rf"(Remaining budget: {MONEY}|Over budget \({MONEY}\), cancelling job\. .*?)" + E
)
MONITOR = re.compile(
    r"^DATANAME: (.*?) \| STATUS: ([^|]*?) \| TIME: ([^|]*?)( \(finished\))?"
    r"(?: \| LAST COMMAND: (.*?))?(?: \| CPU_USAGE: ([^|]*))?$"
)
COMPLETE = re.compile(r"^JOB MONITOR LOG COMPLETE")
REASON = re.compile(r"^[\w.]*(?:Error|Exception): (.*)$")
# Which expression a line must match that has this in it.
MUST_MATCH = [
    (": DONE", DONE),
    ("ERROR. ", ERROR),
    ("Shutting down", SHUTTING_DOWN),
    ("INPUT ERROR", TROUBLE),
    ("RESOURCE ERROR", TROUBLE),
    ("Projected total costs", COST),
    ("DATANAME: ", MONITOR),
    ("JOB MONITOR LOG COMPLETE", COMPLETE),
]


def facts(certificate: str) -> str:
    """What the certificate says, in one line: steps, errors (with the reason for people), and whether it is complete.

    Every line that should be recognisable must be.
    """
    found: list[str] = []
    lines = certificate.split("\n")
    for number, line in enumerate(lines):
        for part, expression in MUST_MATCH:
            if part in line and not line.startswith("  File "):
                assert expression.match(line), line
        if step := DONE.match(line):
            found.append(f"{step[1]} done")
        elif trouble := TROUBLE.match(line):
            found.append(f"{trouble[2]} ERROR in {trouble[1]}")
        elif error := ERROR.match(line):
            rest = lines[number + 1 :]
            block = rest[: next(index for index, text in enumerate(rest) if SHUTTING_DOWN.match(text))]
            reasons = [reason[1] for text in block if (reason := REASON.match(text))]
            found.append(f"{error[1]} {error[3]} ERROR: {reasons[-1] if reasons else error[4]}")
        elif COMPLETE.match(line):
            found.append("complete")
    return "; ".join(found)


START = "1 done; 2 done; 3 done"
LAUNCHED = f"{START}; 4 done; complete"
NO_DATA = "'dataname' field refers to data that cannot be found. Be sure this is a full path to the data"
CLEANING = "While cleaning up"
S, F, P, I = "SUCCESS", "FAILED", "IN PROGRESS", "INITIALIZING"  # noqa: E741 - reads as a table
END, EARLY = "end of analysis marker", "end file.\n"

# scenario → the certificate (its beginning), the two datasets' last status, the end marker's versions
PLAYED: dict[str, tuple[str | None, tuple[str, ...], list[str]]] = {
    "normal": (LAUNCHED, (S, S), [END]),
    "no-certificate": (None, (), []),
    "silent-death": ("", (), []),
    "rejected-step-1": ("INPUT ERROR in init", (), []),
    "rejected-step-2": (
        f"1 done; INPUT ERROR in check_existence; 2 INTERNAL ERROR: [JOB TERMINATE REASON] {NO_DATA}",
        (),
        [],
    ),
    "rejected-step-3": ("1 done; 2 done; 3 INTERNAL ERROR: [JOB TERMINATE REASON] The environment", (), []),
    "rejected-step-4": (f"{START}; 4 INTERNAL ERROR: Waiter SystemStatusOk failed: Max attempts exceeded", (), [END]),
    "over-budget": ("1 done; 2 INTERNAL ERROR: Error: Job is not covered by budget.", (), []),
    "no-capacity": (f"{START}; 4 AWS ERROR: {{'Code': 'InsufficientInstanceCapacity', 'Message'", (), []),
    "vcpu-limit": (f"{START}; 4 AWS ERROR: {{'Code': 'VcpuLimitExceeded', 'Message'", (), []),
    "no-bandwidth": (f"{START}; RESOURCE ERROR in acquire_instances; 4 INTERNAL ERROR: [JOB TERMINATE REASON]", (), []),
    "aws-error": (f"{START}; 4 AWS ERROR: Transient AWS Communication Error. Please Try Again", (), []),
    "retry-succeeds": (LAUNCHED, (S, S), [END]),
    "one-fails": (LAUNCHED, (S, F), [END]),
    "all-fail": (LAUNCHED, (F, F), [END]),
    "machine-dies": (LAUNCHED, (S, P), [END]),
    "machine-stopped": (LAUNCHED, (S, P), []),
    "never-starts": (LAUNCHED, (I, I), []),
    "no-end-marker": (LAUNCHED, (S, S), []),
    "early-end": (LAUNCHED, (S, S), [EARLY, END]),
    "legacy-logs": (LAUNCHED, (S, S), [END]),
    "legacy-text": (LAUNCHED, (S, S), [END]),
    "lower-case": (LAUNCHED, ("success", "success"), [END]),
    "lower-case-failed": (LAUNCHED, (S, "failed"), [END]),
    "out-of-memory": (LAUNCHED, (S, "sigkill/oom"), [END]),
    "dead": (LAUNCHED, (S, "dead"), [END]),
    "late-results": (LAUNCHED, (S, S), [END]),
    "racing-workers": ("", (S, S), [END]),
    "half-written": (LAUNCHED, (S, S), [END]),
    "slow-certificate": (LAUNCHED, (S, S), [END]),
    "slow-analysis": (LAUNCHED, (S, S), [END]),
    "equal-names": (LAUNCHED, (S, S), [END]),
    "ensemble": (LAUNCHED, (S,), [END]),
    "ensemble-one-fails": (LAUNCHED, (S,), [END]),
    "odd-names": (LAUNCHED, (S, S), [END]),
}
FASTER = {"slow-certificate": {"delay": 0.05}, "slow-analysis": {"seconds": 1}}


@pytest.fixture(scope="module")
def played(user: User) -> dict[str, str]:
    """All scenarios at once; each one's job folder."""
    folders = {}
    for number, name in enumerate(SCENARIOS):
        config = f"lab/configs/{name}.yaml"
        user.put(config, json.dumps({"__sandbox__": {"scenario": name, **FASTER.get(name, {})}}))
        data = [f"lab/inputs/{base}" for base in datasets(name)]
        folders[name] = user.submit(f"{number:015d}", data, config)
    user.wait(60)
    return folders


def datasets(scenario: str) -> tuple[str, ...]:
    """Of an ensemble it is one, for all its machines."""
    return ("a.csv",) if SCENARIOS[scenario].ensemble else ("a.csv", "b.csv")


def statuses(user: User, folder: str) -> dict[str, bytes]:
    """The status files by the datasets' base names."""
    found = {}
    for name in user.names(folder + "logs/"):
        if match := re.fullmatch(r"DATASET_NAME:(.*)_STATUS\.txt", name):
            found[match[1]] = user.get(f"{folder}logs/{name}")
    return found


def test_every_scenario_is_in_the_table() -> None:
    assert list(PLAYED) == [name for name in SCENARIOS if name in PLAYED] and set(PLAYED) == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_to_its_end(user: User, played: dict[str, str], name: str) -> None:
    certificate, words, markers = PLAYED[name]
    folder = played[name]
    if certificate is None:
        assert user.names(folder) == []
        return
    text = user.get(folder + "logs/certificate.txt").decode()
    assert facts(text).startswith(certificate) if certificate else "ERROR" not in facts(text)
    last = {base: json.loads(body)["status"] for base, body in statuses(user, folder).items()}
    assert tuple(last.get(base, "") for base in datasets(name) if last) == words
    assert [body.decode() for body in user.history(folder + "process_results/end.txt")] == markers


@pytest.mark.parametrize("name", [name for name, row in PLAYED.items() if row[0] is not None])
def test_every_certificate_on_the_way_is_in_the_format(user: User, played: dict[str, str], name: str) -> None:
    texts = [text.decode() for text in user.history(played[name] + "logs/certificate.txt")]
    assert len(texts) > 5  # line by line
    for text in texts:
        if SHUTTING_DOWN.search(text) or " ERROR. " not in text:
            facts(text)
    # The job manager only ever appends, until it starts again, or the workers take over.
    grown = sum(1 for before, after in pairwise(texts) if after.startswith(before))
    assert grown >= 6


@pytest.mark.parametrize("name", [name for name, row in PLAYED.items() if row[1]])
def test_every_status_file_on_the_way_is_in_the_format(user: User, played: dict[str, str], name: str) -> None:
    halves = 0
    for base in datasets(name):
        words = []
        for body in user.history(f"{played[name]}logs/DATASET_NAME:{base}_STATUS.txt"):
            try:
                status = json.loads(body)
            except ValueError:
                halves += 1
                continue
            words.append(status["status"])
            assert {"status", "reason", "input", "instance", "command"} <= set(status)
            assert ("std" in status) != ("stdout" in status and "stderr" in status)
            if "std" in status:
                assert {"cpu_usage", "memory_usage", "job_start", "job_finish"} <= set(status)
                assert list(status["std"]) == [str(number) for number in range(len(status["std"]))]
                assert (status["job_finish"] == "N/A") == (status["status"] == P)
        if SCENARIOS[name].ensemble:
            assert (
                words[:1] == [I] and words[-1] == S and {P, S} < set(words)
            )  # each machine's own story, one over another
            continue
        unique = list(dict.fromkeys(words))
        assert unique == [I, P, *([words[-1]] if words[-1] not in (I, P) else [])][: len(unique)]
    assert (halves > 0) == (name == "half-written")


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_client_should_say(user: User, played: dict[str, str], name: str) -> None:
    """Our own reading of it, after hours of quiet, is the state that the table promises."""
    folder = played[name]
    there = user.names(folder)
    certificate = user.get(folder + "logs/certificate.txt").decode() if there else None
    read = {base: parse_status(body, base) for base, body in statuses(user, folder).items()}
    marker = user.get(folder + "process_results/end.txt").decode() if "process_results/end.txt" in there else None
    evidence = Evidence(
        certificate=None if certificate is None else parse_certificate(certificate),
        expected=datasets(name),
        statuses=read,
        end_marker=marker,
        quiet=2 * 3600.0,
        age=3 * 3600.0,
        numbers=frozenset(filter(None, map(machine_number, there))),
    )
    assert judge(evidence).state is SCENARIOS[name].state


def test_the_results_of_two_datasets(user: User, played: dict[str, str]) -> None:
    folder = played["normal"]
    assert user.names(folder + "process_results/") == ["a.csv", "b.csv", "end.txt", "normal.yaml", "update.txt"]
    assert user.get(folder + "process_results/b.csv") == b"the content of b.csv\n"
    assert user.get(folder + "process_results/update.txt") == b""
    assert user.names(folder)[0] == ""  # the folder itself is an object, as NeuroCAAS makes it


def test_after_a_failure_there_is_a_config_copy_and_no_result(user: User, played: dict[str, str]) -> None:
    found = user.names(played["all-fail"] + "process_results/")
    assert found == ["all-fail.yaml", "end.txt", "update.txt"]


def test_equal_names_overwrite_each_other(user: User, played: dict[str, str]) -> None:
    versions = user.history(played["equal-names"] + "process_results/summary.txt")
    assert sorted(versions) == [b"summary of a.csv\n", b"summary of b.csv\n"]


def test_F101_an_ensembles_machines_overwrite_each_others_word(user: User, played: dict[str, str]) -> None:
    folder = played["ensemble-one-fails"]
    words = [json.loads(b)["status"] for b in user.history(f"{folder}logs/DATASET_NAME:a.csv_STATUS.txt")]
    assert F in words and words[-1] == S  # one failed, and in the end nobody says so
    certificate = parse_certificate(user.get(folder + "logs/certificate.txt").decode())
    assert [(line.dataset, line.status) for line in certificate.monitor] == [("lab/inputs/a.csv", S)]
    assert (certificate.machines, certificate.started) == (3, ("a.csv",) * 3)
    found = user.names(folder + "process_results/")
    assert [name for name in found if name.startswith("results")] == ["results1.zip", "results2.zip"]
    assert sum(name.endswith("config.json") for name in found) == 3
    assert not any(is_result(f"process_results/{n}", "ensemble.yaml") for n in found if n.endswith("config.json"))
    told = json.loads(user.get(f"{folder}process_results/{next(n for n in found if n.endswith('inst2config.json'))}"))
    assert told["jobnb"] == 2
    whole = [name for name in user.names(played["ensemble"] + "process_results/") if name.startswith("results")]
    assert whole == ["results1.zip", "results2.zip", "results3.zip"]


def test_F101_an_ensemble_of_two_datasets_is_rejected_as_the_platform_does_it(
    user: User, played: dict[str, str]
) -> None:
    folder = user.submit("999999999999999", ["lab/inputs/a.csv", "lab/inputs/b.csv"], "lab/configs/ensemble.yaml")
    user.wait(60)
    assert facts(user.get(folder + "logs/certificate.txt").decode()) == (
        "1 done; 2 INTERNAL ERROR: Error: Job is not covered by budget. Contact NeuroCAAS administrator."
    )


def test_odd_names_are_all_there(user: User, played: dict[str, str]) -> None:
    found = user.names(played["odd-names"] + "process_results/")
    assert set(found) == {*ODD_NAMES, "a.csv", "b.csv", "odd-names.yaml", "update.txt", "end.txt"}


def test_late_results_come_after_the_marker(user: User, played: dict[str, str]) -> None:
    listed = user.admin.list_objects_v2(Bucket=BUCKET, Prefix=played["late-results"] + "process_results/")
    moments = {found["Key"].rpartition("/")[2]: found["LastModified"] for found in listed["Contents"]}
    assert moments["a.csv"] >= moments["end.txt"] and moments["b.csv"] >= moments["end.txt"]
    assert user.get(played["late-results"] + "process_results/a.csv") == b"the content of a.csv\n"


def test_racing_workers_revert_lines_but_not_status_files(user: User, played: dict[str, str]) -> None:
    texts = [text.decode() for text in user.history(played["racing-workers"] + "logs/certificate.txt")]
    lost = [1 for before, after in pairwise(texts) if COMPLETE_LINE in before and COMPLETE_LINE not in after]
    assert lost


COMPLETE_LINE = "JOB MONITOR LOG COMPLETE"


def test_the_platforms_retry_starts_the_certificate_again(user: User, played: dict[str, str]) -> None:
    for name, starts in (("retry-succeeds", 2), ("no-capacity", 3), ("aws-error", 1)):
        texts = [text.decode() for text in user.history(played[name] + "logs/certificate.txt")]
        assert sum(1 for text in texts if text.count("\n") == 1) == starts


def test_logs_of_each_format_have_what_the_analysis_printed(user: User, played: dict[str, str]) -> None:
    expected = {"legacy-logs": {"stdout": dict, "stderr": dict}, "legacy-text": {"stdout": str, "stderr": str}}
    for name, kinds in expected.items():
        status = json.loads(statuses(user, played[name])["a.csv"])
        assert {part: type(status[part]) for part in kinds} == kinds
        assert "a.csv  21 / 21  (100.00%)" in str(status["stdout"])
    failed = json.loads(statuses(user, played["one-fails"])["b.csv"])
    assert "ValueError: the sandbox was asked to make b.csv fail\n" in failed["std"].values()


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        (None, "normal"),
        ({}, "normal"),
        ({"window": 1}, "normal"),
        ({"__sandbox__": "dead"}, "dead"),
        ({"__sandbox__": {"scenario": "slow-analysis", "seconds": 3}}, "slow-analysis"),
        ({"__sandbox__": {"seconds": 3}}, "normal"),
        ({"__sandbox__": "nonsense"}, "there is no scenario 'nonsense'; there are: normal, "),
        ({"__sandbox__": 5}, "must be a scenario's name"),
        ({"__sandbox__": {"scenario": "dead", "fate": 1}}, "there is no parameter 'fate'; there are: seconds"),
        ({"__sandbox__": {"seconds": "3"}}, "parameters are numbers"),
    ],
)
def test_choosing_a_scenario(config: object, chosen: str) -> None:
    default = SCENARIOS["normal"]
    if chosen in SCENARIOS:
        found = choose(config, default)
        assert found.name == chosen
        seconds = (
            config["__sandbox__"].get("seconds", 0) if isinstance(config, dict) and "seconds" in str(config) else 0
        )
        assert found.seconds == (seconds or SCENARIOS[chosen].seconds)
    else:
        with pytest.raises(ValueError, match=re.escape(chosen)):
            choose(config, default)


def test_a_config_that_asks_for_nonsense_is_rejected_with_the_list(user: User) -> None:
    user.put("lab/configs/nonsense.yaml", "__sandbox__: nonsense\n")
    folder = user.submit("nonsense", ["lab/inputs/a.csv"], "lab/configs/nonsense.yaml")
    user.wait()
    text = facts(user.get(folder + "logs/certificate.txt").decode())
    assert text.startswith("1 done; 2 INTERNAL ERROR: __sandbox__: there is no scenario 'nonsense'; there are: normal")


def test_an_unknown_scenario_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no scenario 'nonsense'"):
        JobManager(tmp_path, None, buckets=[BUCKET], group="lab", analysis="true", scenario="nonsense")


def test_the_docs_have_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
    rows = [f"| `{each.name}` | {each.sentence} | {each.state} |" for each in SCENARIOS.values()]
    head = ["| scenario | what happens | what ncaasd says in the end |", "|---|---|---|"]
    assert "\n".join([*head, *rows]) in page


def test_a_sentence_each() -> None:
    def is_sentence(scenario: Scenario) -> bool:
        return scenario.sentence.endswith(".") and scenario.sentence[0].isupper() and "\n" not in scenario.sentence

    assert all(map(is_sentence, SCENARIOS.values()))
    assert SCENARIOS["normal"].state is JobState.DONE
