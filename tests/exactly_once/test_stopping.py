"""F12: SIGTERM at any time ends the daemon within 30 s, and everything goes on where it was."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.fault_proxy import Rule
from support.rig import MIB, Rig, blob

PATIENCE = 30.0  # seconds


def dropped(rig: Rig) -> int:
    rig.drop_config()
    rig.drop_rule()
    for number in range(3):
        rig.drop(f"inputs/{number}.bin", blob(50_000, number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 9))
    return 4


def test_F12_sigterm_at_any_time(rig: Rig, record_property: Callable[[str, object], None]) -> None:
    """Through all of a life: at each start a little later."""
    jobs = dropped(rig)
    longest = 0.0
    for after in (0.2, 0.4, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5):
        process = rig.start(command=False)
        time.sleep(after)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        code = process.wait(PATIENCE)
        longest = max(longest, time.monotonic() - began)
        # Before it has a handler, the signal's own effect ends it.
        assert code in ((0, -signal.SIGTERM) if after < 0.5 else (0,)), rig.tail()
    record_property("longest stop (s)", round(longest, 2))
    rig.start(command=False)
    rig.wait_done(jobs)
    rig.stop()
    rig.check(jobs)


def test_F12_stopped_right_after_its_start_the_status_files_are_as_the_journal_is(rig: Rig) -> None:
    """Killed between a job's end and its status file; the next life is too short for S3 to answer."""
    dropped(rig)
    rig.drop_job("pair", "0.bin", "1.bin")
    rig.start(command=False)
    rig.wait_done(5)
    rig.stop()
    shown = rig.statuses()["submissions/pair.status.json"]
    assert [job["state"] for job in shown["jobs"]] == ["done"]
    for _ in range(4):
        Path(rig.home, "submissions/pair.status.json").write_text(json.dumps(shown | {"jobs": []}))
        rig.start(command=False)
        rig.stop()
        assert rig.statuses()["submissions/pair.status.json"]["jobs"] == shown["jobs"]


def test_F12_the_command_stops_by_itself_and_says_so(rig: Rig) -> None:
    jobs = dropped(rig)
    rig.start()
    rig.wait_done(jobs)
    assert rig.stop() < PATIENCE
    assert "everything goes on where it was" in rig.tail(3)
    rig.check(jobs)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(method="PUT", query="partNumber=2", hang=True, times=None),
        Rule(method="PUT", query="partNumber=2", throttle=200_000.0, times=None),
        Rule(method="PUT", path="submit.json", hang=True, times=None),
        Rule(method="GET", path="/results/", hang=True, times=None),
    ],
    ids=["a part that is never answered", "a slow part", "a submit that is never answered", "results that never come"],
)
def test_F12_sigterm_while_s3_does_not_answer(new_rig: Callable[..., Rig], rule: Rule) -> None:
    rig = new_rig(proxy=True)
    assert rig.proxy is not None
    proxy = rig.proxy
    proxy.rules.append(rule)
    jobs = dropped(rig)
    rig.start(command=False)
    rig.wait_for(lambda: any(seen.faulted for seen in proxy.seen), "the fault to be met")
    time.sleep(0.5)
    seconds = rig.stop(PATIENCE)
    assert seconds < PATIENCE
    proxy.rules.clear()
    rig.start(command=False)
    rig.wait_done(jobs)
    rig.stop()
    rig.check(jobs)
