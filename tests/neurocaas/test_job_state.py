"""The decision table: what is seen -> the state, the row, the reason. And what must hold for anything that is seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace

import pytest
from certificate_samples import CERTIFICATES, DATA, LINES, old_status, status
from hypothesis import given, settings
from hypothesis import strategies as st

from ncaasd.model import CostNote, JobState
from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, parse_certificate, parse_status
from ncaasd.neurocaas.job_state import END_MARKER, ROWS, TIMED_OUT_ROW, Evidence, Judgement, Patience, judge

MIN = 60.0
NAMES = ("a.tif", "b.tif", "c.tif")
WORKER_MARKER = "end file.\n"  # on one stack a worker puts it, when the first dataset is through
WORDS: dict[str, bytes | None] = {
    "init": old_status("INITIALIZING"),
    "busy": status("IN PROGRESS"),
    "ok": status("SUCCESS"),
    "old ok": old_status("success", out={"0": "fine\n"}, err={}),
    "bad": status("FAILED", lines=("ValueError: no frames",), reason=1),
    "oom": status("sigkill/oom"),
    "half": b'{"status": "SUCC',
}


def statuses(words: str) -> dict[str, DatasetStatus | None]:
    """`ok, half, -`: the files of a.tif, b.tif, c.tif; `-` is none there."""
    found = {}
    for name, word in zip(NAMES, filter(None, words.split(", ")), strict=False):
        if word != "-":
            found[name] = parse_status(WORDS[word] or b"", f"logs/DATASET_NAME:{name}_STATUS.txt")
    return found


def seen(
    certificate: str | None,
    words: str = "",
    marker: str | None = None,
    *,
    quiet: float = 0.0,
    age: float = 60 * MIN,
    total: int = 3,
    **more: object,
) -> Evidence:
    return Evidence(
        certificate=None if certificate is None else parse_certificate(CERTIFICATES[certificate]),
        expected=NAMES[:total],
        statuses=statuses(words),
        end_marker=marker,
        quiet=quiet,
        age=age,
        **more,  # type: ignore[arg-type]  # a table's keyword arguments
    )


NO_CAPACITY = "no capacity: AWS has no machine of that type to give (InsufficientInstanceCapacity)"
BLIND = {"blind": True, "total": 1}
CASES: list[tuple[Evidence, JobState, str, str]] = [
    # nothing was heard
    (seen(None, age=0), JobState.SUBMITTED, "submitted", "waiting for NeuroCAAS to start it"),
    (seen(None, age=15 * MIN - 1), JobState.SUBMITTED, "submitted", "waiting for NeuroCAAS to start it"),
    (
        seen(None, age=15 * MIN),
        JobState.LOST,
        "no answer",
        "NeuroCAAS has not answered for 15 min: it could not read the submit file, or is down",
    ),
    # step 4, AWS: the platform tries again by itself
    (
        seen("capacity", quiet=10 * MIN - 1),
        JobState.STARTING,
        "platform retries",
        f"{NO_CAPACITY}; NeuroCAAS tries again by itself",
    ),
    (seen("capacity", quiet=10 * MIN), JobState.REFUSED, "platform gave up", NO_CAPACITY),
    (
        seen("vcpu", quiet=10 * MIN),
        JobState.REFUSED,
        "platform gave up",
        "no capacity: AWS has no machine of that type to give (VcpuLimitExceeded)",
    ),
    (
        seen("rule limit", quiet=10 * MIN),
        JobState.FAILED,
        "platform gave up",
        "step 4 of 4 (Initialize Processing) failed at AWS: LimitExceededException: too many rules",
    ),
    (
        seen("transient", quiet=10 * MIN),
        JobState.FAILED,
        "platform gave up",
        "step 4 of 4 (Initialize Processing) failed at AWS: Transient AWS Communication Error. Please Try Again",
    ),
    # rejected
    (seen("over budget"), JobState.REFUSED, "rejected", "over budget: $301.06 of $300 would be used"),
    (
        seen("limit"),
        JobState.REFUSED,
        "rejected",
        "no capacity: NeuroCAAS says: Instance requests greater than pipeline bandwidth.",
    ),
    (seen("no config"), JobState.FAILED, "rejected", "configs/x.yaml is not in S3"),
    (seen("no config", marker=END_MARKER), JobState.FAILED, "rejected", "configs/x.yaml is not in S3"),
    (seen("no data"), JobState.FAILED, "rejected", "inputs/m1/a.tif is not in S3"),
    (
        seen("some data missing"),
        JobState.FAILED,
        "rejected",
        "one of inputs/m1/a.tif, inputs/m1/b.tif, inputs/m2/c.tif is not in S3",
    ),
    (seen("no dataname"), JobState.FAILED, "rejected", "the submit file has no dataname"),
    (
        seen("yml"),
        JobState.FAILED,
        "rejected",
        "NeuroCAAS could not read the config: its name must end in .yaml or .json",
    ),
    (
        seen("cost unknown"),
        JobState.FAILED,
        "rejected",
        "NeuroCAAS could not tell what it would cost: instance_type or __duration__ is not one that it knows",
    ),
    (
        seen("waiter"),
        JobState.FAILED,
        "rejected",
        "step 4 of 4 (Initialize Processing) failed: Waiter SystemStatusOk failed: Max attempts exceeded",
    ),
    # ended, and nothing was started
    (seen(None, marker=END_MARKER), JobState.FAILED, "ended unstarted", "it ended before any dataset was started"),
    (seen("launched", marker=""), JobState.FAILED, "ended unstarted", "it ended before any dataset was started"),
    (seen("transient", marker=END_MARKER), JobState.FAILED, "ended unstarted",
     "step 4 of 4 (Initialize Processing) failed at AWS: Transient AWS Communication Error. Please Try Again"),
    # step 1
    (seen("silent", quiet=3 * MIN - 1), JobState.STARTING, "initializing", "NeuroCAAS sets it up: 0 of 4 steps done"),
    (
        seen("silent", quiet=3 * MIN),
        JobState.FAILED,
        "silent death",
        "it failed silently while starting: only NeuroCAAS's own log knows why",
    ),
    (
        seen("argument", quiet=9 * MIN),
        JobState.FAILED,
        "rejected",
        "something new",
    ),
    (seen("cut off"), JobState.FAILED, "rejected", "step 2 of 4 (Validation) failed: 'fr'"),
    # later steps
    (seen("step 1", quiet=9 * MIN), JobState.STARTING, "setting up", "NeuroCAAS sets it up: 1 of 4 steps done"),
    (seen("launched", quiet=20 * MIN - 1), JobState.STARTING, "setting up", "its machines are starting"),
    (
        seen("launched", quiet=20 * MIN),
        JobState.LOST,
        "never dispatched",
        "no dataset was started, and nothing was heard for 20 min",
    ),
    # step 4 failed when some datasets were started
    (
        seen("waiter", "init", END_MARKER),
        JobState.FAILED,
        "dispatch failed and ended",
        "step 4 of 4 (Initialize Processing) failed: Waiter SystemStatusOk failed: Max attempts exceeded",
    ),
    (seen("capacity", "init, busy", quiet=10 * MIN), JobState.FAILED, "dispatch failed", NO_CAPACITY),
    (
        seen("capacity", "init, busy", quiet=10 * MIN - 1),
        JobState.STARTING,
        "dispatch failing",
        f"{NO_CAPACITY}; waiting for what NeuroCAAS makes of it",
    ),
    (seen("capacity", "init", WORKER_MARKER), JobState.STARTING, "dispatch failing",
     f"{NO_CAPACITY}; waiting for what NeuroCAAS makes of it"),
    # verdicts on all
    (seen("running", "ok, ok, ok", END_MARKER), JobState.DONE, "verdicts and end marker", "all 3 datasets succeeded"),
    (seen("running", "ok", f" {END_MARKER}\n", total=1), JobState.DONE, "verdicts and end marker", "the dataset succeeded"),
    (seen(None, "ok, old ok, ok", END_MARKER), JobState.DONE, "verdicts and end marker", "all 3 datasets succeeded"),
    (
        seen("running", "ok, bad, oom", END_MARKER),
        JobState.FAILED,
        "verdicts and end marker",
        "2 of 3 datasets failed: b.tif: ValueError: no frames; c.tif: killed, probably because it ran out of memory",
    ),
    (seen("running", "bad", END_MARKER, total=1), JobState.FAILED, "verdicts and end marker",
     "1 of 1 dataset failed: a.tif: ValueError: no frames"),
    (seen("running", "ok, ok, ok", quiet=30 * MIN), JobState.DONE, "verdicts and quiet", "all 3 datasets succeeded"),
    (seen("running", "ok, bad, ok", WORKER_MARKER, quiet=30 * MIN), JobState.FAILED, "verdicts and quiet",
     "1 of 3 datasets failed: b.tif: ValueError: no frames"),
    (seen("running", "ok, bad, ok", quiet=30 * MIN - 1), JobState.RUNNING, "settling",
     "3 of 3 datasets finished, 1 failed; results may still settle"),
    (seen("running", "ok, ok, ok", WORKER_MARKER), JobState.RUNNING, "settling",
     "3 of 3 datasets finished; results may still settle"),
    # data in another bucket, without resultpath: the status files are never written
    (seen("launched", "init", END_MARKER, results=2, **BLIND), JobState.DONE, "blind and ended",
     "2 result files came; NeuroCAAS writes no verdict on data in another bucket without resultpath"),
    (seen("launched", "init", END_MARKER, results=0, **BLIND), JobState.FAILED, "blind and ended",
     "it ended without results; NeuroCAAS writes no verdict on data in another bucket without resultpath"),
    (seen("launched", "init", results=1, quiet=30 * MIN, **BLIND), JobState.DONE, "blind with results",
     "1 result file came; NeuroCAAS writes no verdict on data in another bucket without resultpath"),
    (seen("launched", "init", results=1, quiet=29 * MIN, **BLIND), JobState.RUNNING, "blind",
     "NeuroCAAS reports no progress on data in another bucket without resultpath"),
    # of several datasets, one may still be at work
    (seen("launched", "init, init, init", results=1, quiet=90 * MIN, blind=True), JobState.RUNNING, "blind",
     "NeuroCAAS reports no progress on data in another bucket without resultpath"),
    (seen("launched", "init", quiet=9 * 60 * MIN, age=9 * 60 * MIN, **BLIND), JobState.RUNNING, "blind",
     "NeuroCAAS reports no progress on data in another bucket without resultpath"),
    # a status that was written after all is believed
    (seen("launched", "bad", END_MARKER, results=2, **BLIND), JobState.FAILED, "verdicts and end marker",
     "1 of 1 dataset failed: a.tif: ValueError: no frames"),
    # no verdict on some
    (seen("running", "ok, busy, bad", END_MARKER), JobState.FAILED, "no verdict",
     "the machine of b.tif went down without a verdict; 1 of 3 datasets failed: c.tif: ValueError: no frames"),
    (seen("launched", "init, init, -", END_MARKER), JobState.FAILED, "no verdict",
     "the machine of a.tif, b.tif, c.tif went down without a verdict"),
    (seen("running", "ok, busy, -", quiet=31 * MIN), JobState.LOST, "gone quiet",
     "nothing was heard for 31 min; 1 of 3 datasets finished, no verdict on b.tif, c.tif"),
    (seen("running", "ok, busy, -", WORKER_MARKER, quiet=30 * MIN), JobState.LOST, "gone quiet",
     "nothing was heard for 30 min; 1 of 3 datasets finished, no verdict on b.tif, c.tif"),
    (seen("running", "ok, busy, init"), JobState.RUNNING, "some finished", "1 of 3 datasets finished"),
    (seen("running", "ok, bad, -", WORKER_MARKER), JobState.RUNNING, "some finished", "2 of 3 datasets finished, 1 failed"),
    (seen("running", "ok, ok, half"), JobState.RUNNING, "some finished", "2 of 3 datasets finished"),
    (seen("running", "init, busy, init"), JobState.RUNNING, "running", "0 of 3 datasets finished"),
    (seen("running", "busy", WORKER_MARKER, total=1), JobState.RUNNING, "running", "0 of 1 dataset finished"),
    (seen("running", "half", total=1), JobState.RUNNING, "running", "0 of 1 dataset finished"),
    (seen("launched", "init, init, init", quiet=29 * MIN), JobState.STARTING, "machines starting", "its machines are starting"),
    # the whole job's cap
    (seen("running", "ok, busy, init", age=48 * 60 * MIN), JobState.TIMED_OUT, TIMED_OUT_ROW,
     "no end after 48 h; last it was running: 1 of 3 datasets finished"),
    (seen("running", "busy, busy, -", age=48 * 60 * MIN - 1), JobState.RUNNING, "running", "0 of 3 datasets finished"),
    (seen("running", "busy, busy, -", age=600, timeout=600.0), JobState.TIMED_OUT, TIMED_OUT_ROW,
     "no end after 10 min; last it was running: 0 of 3 datasets finished"),
    (seen("running", "ok, ok, ok", END_MARKER, age=72 * 60 * MIN), JobState.DONE, "verdicts and end marker",
     "all 3 datasets succeeded"),
    (seen(None, age=49 * 60 * MIN), JobState.TIMED_OUT, TIMED_OUT_ROW,
     "no end after 48 h; last it was lost: NeuroCAAS has not answered for 49 h: it could not read the submit file, or is down"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "state", "row", "reason"), CASES, ids=[f"{case[2]}-{n}" for n, case in enumerate(CASES)]
)
def test_F57_F58_F60_F61_F62_the_table(evidence: Evidence, state: JobState, row: str, reason: str) -> None:
    verdict = judge(evidence)
    assert (verdict.state, verdict.row, verdict.reason) == (state, row, reason)


def test_every_row_has_a_case() -> None:
    assert {row for _evidence, _state, row, _reason in CASES} == {row.name for row in ROWS} | {TIMED_OUT_ROW}


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("evidence", "state"), [(case[0], case[1]) for case in CASES])
def test_a_rows_column_names_the_states_that_it_gives(evidence: Evidence, state: JobState) -> None:
    row = next((row for row in ROWS if row.name == judge(evidence).row), None)
    if row is not None:
        assert state in re.findall(r"\w+", row.state)


@pytest.mark.parametrize(
    ("evidence", "kind", "cost"),
    [
        (seen("over budget"), "budget", CostNote(301.056, None, "$1.06")),
        (seen("limit"), "capacity", CostNote(4.125, 295.875)),
        (seen("capacity", quiet=10 * MIN), "capacity", CostNote(4.125, 295.875)),
        (seen("capacity"), None, CostNote(4.125, 295.875)),  # not yet refused
        (seen("no config"), None, None),
        (seen("running", "ok, ok, ok", END_MARKER), None, CostNote(4.125, 295.875)),
    ],
)
def test_F62_refusals_and_costs(evidence: Evidence, kind: str | None, cost: CostNote | None) -> None:
    verdict = judge(evidence)
    assert (verdict.refused_kind, verdict.cost) == (kind, cost)


@pytest.mark.parametrize(
    ("evidence", "final"),
    [
        (seen("no config"), True),
        (seen("running", "ok, ok, ok", END_MARKER), True),
        (seen("running", "ok, busy, ok", END_MARKER), True),
        (seen("capacity", quiet=10 * MIN), False),  # the platform's own retry may still come
        (seen("silent", quiet=10 * MIN), False),
        (seen("running", "ok, ok, ok", quiet=31 * MIN), False),
        (seen("running", "busy, busy, busy", age=50 * 60 * MIN), False),
    ],
)
def test_the_platforms_last_word(evidence: Evidence, final: bool) -> None:
    verdict = judge(evidence)
    assert verdict.ended
    assert verdict.final is final


@pytest.mark.parametrize(
    ("expected", "words", "finished", "total", "state"),
    [
        # another job's files in the same folder don't count
        (("b.tif",), "ok, busy, ok", 0, 1, JobState.RUNNING),
        (("a.tif",), "ok, busy", 1, 1, JobState.DONE),
        # equal base names share one file: it tells of the last to write, and nobody of the other
        (("a.tif", "a.tif"), "ok", 0, 1, JobState.FAILED),
        # a job of somebody else: what its certificate and its folder say
        ((), "ok, ok", 2, 3, JobState.FAILED),
        ((), "ok, ok, ok", 3, 3, JobState.DONE),
    ],
)
def test_whose_datasets_count(
    expected: tuple[str, ...], words: str, finished: int, total: int, state: JobState
) -> None:
    evidence = replace(seen("running", words, END_MARKER), expected=expected)
    if state is JobState.RUNNING:
        evidence = replace(evidence, end_marker=None)
    verdict = judge(evidence)
    assert (verdict.finished, verdict.total, verdict.state) == (finished, total, state)


def test_many_failures_are_not_all_listed() -> None:
    names = tuple(f"{number}.tif" for number in range(9))
    bad = parse_status(WORDS["bad"] or b"", "x")
    evidence = replace(seen("running", "", END_MARKER), expected=names, statuses=dict.fromkeys(names, bad))
    assert judge(evidence).reason == (
        "9 of 9 datasets failed: 0.tif: ValueError: no frames; 1.tif: ValueError: no frames; 2.tif: ValueError: no frames; "
        "and 6 more"
    )


def test_many_names_are_not_all_listed() -> None:
    evidence = replace(seen("running", "init", END_MARKER), expected=("a.tif", "b.tif", "c.tif", "d.tif", "e.tif"))
    assert judge(evidence).reason == "the machine of a.tif, b.tif, c.tif and 2 more went down without a verdict"


def test_patience_is_an_argument() -> None:
    short = Patience(no_certificate=1, silent_start=2, no_dispatch=3, platform_retry=4, quiet=5, whole_job=60)
    cases = [
        (seen(None, age=1), JobState.LOST),
        (seen("silent", quiet=2, age=9), JobState.FAILED),
        (seen("launched", quiet=3, age=9), JobState.LOST),
        (seen("capacity", quiet=4, age=9), JobState.REFUSED),
        (seen("running", "ok, ok, ok", quiet=5, age=9), JobState.DONE),
        (seen("running", "ok, ok, busy", quiet=5, age=9), JobState.LOST),
        (seen("running", "ok, ok, busy", age=60), JobState.TIMED_OUT),
    ]
    assert [judge(evidence, short).state for evidence, _state in cases] == [state for _evidence, state in cases]


def test_every_time_in_the_table_is_a_patience() -> None:
    named = {name for row in ROWS for name in re.findall(r"\{(\w+)\}", row.time)}
    assert named == {field.name for field in fields(Patience)} - {"whole_job"}


# What must hold for anything that is seen

words = st.lists(st.sampled_from([*WORDS, "-"]), max_size=3).map(", ".join)
times = st.floats(0, 4 * 24 * 3600) | st.sampled_from([0.0, 3 * MIN, 10 * MIN, 15 * MIN, 20 * MIN, 30 * MIN])


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    text = draw(st.none() | st.sampled_from(sorted(CERTIFICATES)))
    certificate = None if text is None else parse_certificate(CERTIFICATES[text][: draw(st.integers(0, 4000))])
    return Evidence(
        certificate=certificate,
        expected=NAMES[: draw(st.integers(0, 3))],
        statuses=statuses(draw(words)),
        end_marker=draw(st.none() | st.sampled_from(["", WORKER_MARKER, END_MARKER])),
        quiet=draw(times),
        age=draw(times),
        timeout=draw(st.none() | times),
        blind=draw(st.booleans()),
        results=draw(st.integers(0, 2)),
    )


@settings(max_examples=400)
@given(evidences())
def test_whatever_is_seen_is_judged(evidence: Evidence) -> None:
    verdict = judge(evidence)
    names = set(evidence.expected) or None
    verdicts = [s for name, s in evidence.statuses.items() if s and s.terminal and (names is None or name in names)]
    assert verdict.reason
    assert "\n" not in verdict.reason
    assert verdict.finished == len(verdicts) <= verdict.total
    assert (verdict.refused_kind is None) == (verdict.state is not JobState.REFUSED)
    assert not verdict.final or verdict.ended
    if verdict.state is JobState.DONE and not evidence.blind:  # F58: done needs every dataset's success
        assert verdict.total == len(verdicts) > 0
        assert all(s.success for s in verdicts)
    if any(not s.success for s in verdicts):
        assert verdict.state is not JobState.DONE


def grow(lines: list[str], found: Mapping[str, DatasetStatus | None]) -> list[Judgement]:
    """The judgements of a certificate that is read line by line as it grows."""
    texts = ["\n".join(lines[:count]) for count in range(len(lines) + 1)]
    return [judge(Evidence(parse_certificate(text), NAMES, found, None, quiet=0, age=MIN)) for text in texts]


@pytest.mark.parametrize("name", sorted(LINES))
@pytest.mark.parametrize("words", ["", "init, init, init", "ok, busy, init", "ok, ok, ok"])
def test_F61_a_growing_certificate_never_goes_back_from_an_end(name: str, words: str) -> None:
    ended: Judgement | None = None
    for verdict in grow(LINES[name], statuses(words)):
        assert ended is None or verdict.state is ended.state, f"{verdict} after {ended}"
        ended = verdict if verdict.ended else ended


def test_F61_the_platforms_own_retry_is_the_one_way_back() -> None:
    """It gave up by our patience, started again after all, and succeeds."""
    capacity = parse_certificate(CERTIFICATES["capacity"])
    verdicts = [
        judge(Evidence(capacity, NAMES, {}, None, quiet=quiet, age=20 * MIN)) for quiet in (0, 9 * MIN, 11 * MIN)
    ]
    verdicts += grow(LINES["launched"], {})
    verdicts += [
        judge(seen("running", found, marker))
        for found, marker in [("busy, busy, init", None), ("ok, ok, ok", END_MARKER)]
    ]
    states = [verdict.state for verdict in verdicts]
    assert states[:3] == [JobState.STARTING, JobState.STARTING, JobState.REFUSED]
    assert not verdicts[2].final
    assert set(states[3:-2]) == {JobState.STARTING}
    assert states[-2:] == [JobState.RUNNING, JobState.DONE]


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[tuple[str, ...]], bool]:
    """The status files of a job from dispatch to end, as polls may find them; and whether all succeed."""
    ends = [draw(st.sampled_from(["ok", "old ok", "bad", "oom"])) for _name in NAMES]
    now = ["-", "-", "-"]
    polls = [tuple(now)]
    pace = {"-": "init", "init": "busy", "busy": "end", "half": "busy"}
    while any(word in pace for word in now):
        index = draw(st.sampled_from([index for index, word in enumerate(now) if word in pace]))
        step = pace[now[index]]
        now[index] = ends[index] if step == "end" else step
        if step == "busy" and draw(st.booleans()):
            now[index] = "half"
        polls.append(tuple(now))
    return polls, all("ok" in word for word in ends)


@given(lives(), st.data())
def test_a_jobs_life_ends_once_and_right(life: tuple[list[tuple[str, ...]], bool], data: st.DataObject) -> None:
    """Workers race each other for the certificate, so any old version of it may be seen at any time."""
    polls, success = life
    verdicts = []
    early = data.draw(st.integers(1, len(polls)))
    for number, found in enumerate(polls):
        certificate = data.draw(st.sampled_from(["launched", "running"]))
        marker = WORKER_MARKER if number >= early else None
        if all(word == "-" for word in found):
            marker = None
        verdicts.append(judge(seen(certificate, ", ".join(found), marker, quiet=data.draw(st.floats(0, 15 * MIN)))))
    assert re.fullmatch("(starting )*(running )*", "".join(f"{verdict.state} " for verdict in verdicts))
    last = judge(seen("running", ", ".join(polls[-1]), END_MARKER))
    assert last.state is (JobState.DONE if success else JobState.FAILED)
    assert last.final


def test_an_empty_certificate_is_a_job_that_begins() -> None:
    assert judge(Evidence(Certificate(), NAMES, {}, None, quiet=0, age=1)).row == "initializing"


def test_the_samples_name_the_datasets() -> None:
    assert parse_certificate(CERTIFICATES["running"]).datasets == tuple(DATA)
