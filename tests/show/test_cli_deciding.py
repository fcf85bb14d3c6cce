"""`hold`, `release`, `rerun`, `forget`, `fetch`: without a daemon on the journal, with one through its socket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from show_machine import ANALYSIS, ID, NOW, Call, Machine, add_file, add_job, done, spec, submitted

from ncaasd.adapters.control import ControlServer
from ncaasd.adapters.journal import Journal
from ncaasd.adapters.lock import Locked
from ncaasd.errors import UserError
from ncaasd.model import FileState, JobState, Phase
from ncaasd.show.cli.choosing import since_when

HELD = {"state": JobState.HELD, "hold": "backlog", "reason": "25 datasets at once"}


@pytest.mark.parametrize(
    ("fields", "action", "code", "said", "phase", "state", "hold"),
    [
        ({}, "hold", 0, "held by hand", Phase.OPEN, JobState.HELD, "person"),
        (HELD, "release", 0, "released from: 25 datasets at once", Phase.OPEN, JobState.WAITING, None),
        (done(), "forget", 0, "forgotten by hand", Phase.ENDED, JobState.DONE, None),
        ({}, "release", 1, "not done: it is not held", Phase.OPEN, JobState.WAITING, None),
        (submitted(), "hold", 1, "not done: it is running already", Phase.SUBMITTED, JobState.RUNNING, None),
        (
            submitted(),
            "rerun",
            1,
            "not done: it is running: a rerun would be paid",
            Phase.SUBMITTED,
            JobState.RUNNING,
            None,
        ),
        ({}, "rerun", 1, "not done: it was not submitted yet", Phase.OPEN, JobState.WAITING, None),
    ],
)
def test_one_job(
    journal: Journal,
    ncaasd: Call,
    fields: Any,
    action: str,
    code: int,
    said: str,
    phase: Phase,
    state: JobState,
    hold: str | None,
) -> None:
    row = add_job(journal, spec(), **fields)
    answer = ncaasd(action, str(row))
    assert (answer.code, said in answer.out) == (code, True), answer
    job = journal.job(row)
    assert job is not None
    assert (job.phase, job.state, job.hold) == (phase, state, hold)


def test_rerun_makes_a_new_attempt_once_and_it_is_in_the_event_log(journal: Journal, ncaasd: Call) -> None:
    add_job(journal, spec(), **done(state=JobState.FAILED))
    assert ncaasd("rerun", ID).code == 0
    assert ncaasd("rerun", "two-photon").code == 1  # a rerun of it is waiting already
    attempts = journal.attempts(ANALYSIS, "two-photon", "m7/a.tif", "")
    assert [(a.attempt, a.phase) for a in attempts] == [(0, Phase.ENDED), (1, Phase.OPEN)]
    assert [e.kind for e in journal.events(ANALYSIS)] == ["rerun"]


@pytest.fixture
def many(journal: Journal) -> Journal:
    """Rule two-photon: one done, one running, two held (of m7 and m8); rule other: one held, long ago."""
    add_job(journal, spec(unit="m7/1.tif", fields='{"animal": "m7"}'), **done("111"))
    add_job(journal, spec(unit="m7/2.tif", fields='{"animal": "m7"}'), **submitted("222"))
    add_job(journal, spec(unit="m7/3.tif", fields='{"animal": "m7"}'), size=1_500_000_000, created=time.time(), **HELD)
    add_job(journal, spec(unit="m8/4.tif", fields='{"animal": "m8"}'), size=1_500_000_000, created=time.time(), **HELD)
    add_job(journal, spec("other", "m7/5.tif", fields='{"animal": "m7"}'), created=time.time() - 30 * 86400, **HELD)
    return journal


def held(journal: Journal) -> list[str]:
    return sorted(j.spec.unit for j in journal.jobs() if j.hold)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--rule", "two-photon"], ["m7/5.tif"]),
        (["--where", "animal=m7"], ["m8/4.tif"]),
        (["--where", "animal=m"], ["m7/3.tif", "m7/5.tif", "m8/4.tif"]),
        (["--where", "run=m7"], ["m7/3.tif", "m7/5.tif", "m8/4.tif"]),
        (["--where", "animal=m7", "--rule", "two-photon"], ["m7/5.tif", "m8/4.tif"]),
        (["--since", "1d"], ["m7/5.tif"]),
        (["--since", "60d"], []),
        (["3", "#4"], ["m7/5.tif"]),
        (["--rule", "nono"], ["m7/3.tif", "m7/5.tif", "m8/4.tif"]),
    ],
)
def test_many_jobs_are_chosen_by_what_they_are(
    many: Journal, ncaasd: Call, arguments: list[str], left: list[str]
) -> None:
    assert ncaasd("release", *arguments, "--yes").code == (1 if len(left) == 3 else 0)
    assert held(many) == left


def test_of_a_rule_only_what_the_decision_is_about(many: Journal, ncaasd: Call) -> None:
    done_rows = [effect["row"] for effect in ncaasd("release", "--rule", "two-photon", "--yes", "--json").json]
    assert sorted(done_rows) == [3, 4]
    assert ncaasd("release", "--rule", "two-photon").out == "nothing to release among 4 jobs\n"


def test_many_jobs_are_shown_and_asked_about(many: Journal, ncaasd: Call) -> None:
    answer = ncaasd("release", "--rule", "two-photon")  # nobody is there to answer
    assert answer.code == 2
    assert "2 jobs, 2 machines, 3.0 GB" in answer.err
    assert "--yes" in answer.err
    assert "m7/3.tif" in answer.err
    assert len(held(many)) == 3


def test_a_rerun_of_many_says_that_it_is_paid_for(journal: Journal, ncaasd: Call) -> None:
    for unit in ("a", "b"):
        add_job(journal, spec(unit=unit), **done(f"1{ord(unit)}", state=JobState.FAILED))
    assert "each is a new job, and is paid for" in ncaasd("rerun", "--rule", "two-photon").err


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hold"], "which jobs?"),
        (["hold", "nono"], "there is no job nono"),
        (["rerun", "--where", "animal"], "--where animal: must be PART=VALUE"),
        (["rerun", "--since", "soon"], "--since soon: must be such as 2d"),
        (["fetch"], "which jobs?"),
        (["fetch", "222"], "two-photon m7/2.tif is running: results come by themselves"),
    ],
)
def test_mistakes(ncaasd: Call, arguments: list[str], said: str) -> None:
    answer = ncaasd(*arguments)
    assert answer.code == 2
    assert answer.err.startswith(f"ncaasd: {said}")


LOCAL = time.mktime((2026, 11, 20, 8, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2d", NOW - 2 * 86400),
        ("3h", NOW - 3 * 3600),
        ("90m", NOW - 90 * 60),
        ("2026-11-20T08:00", LOCAL),
        ("2026-11-20 08:00:00", LOCAL),
        ("2026-11-20T08:00:00+00:00", 1795161600.0),
    ],
)
def test_since(text: str, expected: float) -> None:
    assert since_when(text, NOW) == expected


def test_since_today_is_this_days_midnight() -> None:
    today, yesterday = since_when("today", NOW), since_when("yesterday", NOW)
    assert 0 <= NOW - today < 25 * 3600
    assert time.localtime(today)[3:6] == (0, 0, 0)
    assert time.localtime(yesterday)[3:6] == (0, 0, 0)
    assert 23 * 3600 <= today - yesterday <= 25 * 3600
    with pytest.raises(UserError):
        since_when("whenever", NOW)


# -- with a daemon


class Daemon:
    """What a daemon shows of itself: the lock of another process, and a socket on which its answers are recorded."""

    def __init__(self, machine: Machine) -> None:
        self.asked: list[dict[str, Any]] = []
        code = f"import sys; from ncaasd.adapters.lock import Locked; l = Locked({str(machine.state)!r}, {machine.config.root!r})"
        code += "; print('locked', flush=True); sys.stdin.read()"
        self._holder = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "locked\n"
        self._socket: ControlServer | None = None
        self._state = str(machine.state)

    @property
    def pid(self) -> int:
        return self._holder.pid

    def listen(self) -> None:
        def handle(request: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(request)
            if request["ids"] == ["#1"]:
                raise UserError("there is no job #1", hint="look again")
            job = {"id": ID, "name": "two-photon", "unit": "m7/a.tif"}
            return {"effects": [{"job": job, "row": 2, "done": True, "text": "held by hand"}]}

        self._socket = ControlServer(self._state, handle)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._holder.communicate("")


@pytest.fixture
def daemon(machine: Machine, journal: Journal) -> Iterator[Daemon]:
    for unit in ("m7/z.tif", "m7/a.tif"):
        add_job(journal, spec(unit=unit))
    running = Daemon(machine)
    yield running
    running.close()


def test_a_running_daemon_is_asked_through_its_socket(daemon: Daemon, journal: Journal, ncaasd: Call) -> None:
    daemon.listen()
    answer = ncaasd("hold", "m7/a.tif")
    assert (answer.code, answer.out) == (0, f"{ID}  two-photon m7/a.tif: held by hand\n")
    assert daemon.asked == [{"do": "hold", "ids": ["#2"]}]
    assert held(journal) == []  # the daemon alone writes its journal


def test_what_the_daemon_refuses_is_said(daemon: Daemon, ncaasd: Call) -> None:
    daemon.listen()
    answer = ncaasd("hold", "m7/z.tif")
    assert (answer.code, answer.err) == (2, "ncaasd: there is no job #1\n  → look again\n")


@pytest.mark.parametrize("action", ["hold", "fetch"])
def test_F77_a_daemon_that_does_not_listen_is_not_gone_around(
    daemon: Daemon, journal: Journal, ncaasd: Call, action: str
) -> None:
    with journal.transaction():
        journal.update_job(2, **{k: v for k, v in done().items() if k != "cost"} if action == "fetch" else {})
    answer = ncaasd(action, "2")
    assert answer.code == 2
    assert f"another ncaasd (pid {daemon.pid}) is running" in answer.err
    assert held(journal) == []


def test_the_lock_is_let_go_of(machine: Machine, journal: Journal, ncaasd: Call) -> None:
    add_job(journal, spec())
    assert ncaasd("hold", "1").code == 0
    Locked(str(machine.state), machine.config.root).close()
    assert os.path.exists(machine.state / "lock")


def test_rerun_with_another_config(journal: Journal, ncaasd: Call) -> None:
    add_job(journal, spec(unit="m7/1.tif"), **done("111"))
    add_job(journal, spec(unit="m8/1.tif"), **done("222"))
    wrong = ncaasd("rerun", "--rule", "two-photon", "--with-config", "new.yml", "--yes")
    assert (wrong.code, "must end in .yaml" in wrong.err) == (2, True)
    assert ncaasd("rerun", "--rule", "two-photon", "--with-config", "../../x.yaml", "--yes").code == 2
    assert len(journal.jobs()) == 2
    assert ncaasd("rerun", "--rule", "two-photon", "--with-config", "new.yaml", "--yes").code == 0
    assert {j.spec.config for j in journal.jobs() if j.attempt == 1} == {"new.yaml"}


def test_F95_a_held_file_is_released_by_its_path(journal: Journal, ncaasd: Call) -> None:
    row = add_file(journal, "inputs/a.tif", FileState.HELD, reason="something else is there")
    answer = ncaasd("release", "a.tif")
    assert (answer.code, answer.out) == (0, f"{ANALYSIS}/inputs/a.tif: released; it goes up\n")
    file = journal.file(row)
    assert file is not None
    assert (file.state, file.ours) == (FileState.WHOLE, True)
    assert ncaasd("release", "a.tif").code == 2  # it is held no more, and no job is called so
