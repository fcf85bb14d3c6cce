"""SIGKILL at random moments while recordings and manifests keep arriving: nothing is lost, doubled or torn.

NCAASD_KILLS is how often, in the long suite. The daemon is forked from a process that has imported everything, so that
the kills meet its work and not Python's imports.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pytest
from support.rig import BUCKET, GROUP, MIB, Rig, blob


class Feeder:
    """The rig's software and its people: recordings, one-off manifests, hand-written submit files."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self.rig, self.chance = rig, chance
        self.recordings: list[str] = []
        self.jobs = 0
        rig.drop_config()
        rig.drop_rule()

    def drop(self) -> None:
        number = len(self.recordings)
        large = number % 20 == 3
        size = self.chance.randrange(9 * MIB, 20 * MIB) if large else self.chance.randrange(1, 200_000)
        name = f"m{number % 3}/{number}.bin"
        self.rig.drop(f"inputs/{name}", blob(size, 1000 + number))
        self.recordings.append(name)
        self.jobs += 1
        if number % 5 == 4:
            self.rig.drop_job(f"pair{number}", *self.chance.sample(self.recordings, 2))
            self.jobs += 1
        if number % 7 == 6:
            body = {
                "dataname": f"{GROUP}/inputs/{self.rig.name}/{self.chance.choice(self.recordings)}",
                "configname": f"{GROUP}/configs/config.yaml",
                "timestamp": f"hand{number}",
            }
            self.rig.drop(f"submissions/hand{number}-submit.json", json.dumps(body))
            self.jobs += 1


def opened_after(rig: Rig, since: int, started: float) -> float | None:
    """Seconds from the start of a life to when S3 was found in order, by the log after its `since` first characters."""
    found = re.search(rf"^(\S+ \S+),(\d+) .*s3://{BUCKET}/{GROUP}/ answers", rig.said()[since:], re.MULTILINE)
    if found is None:
        return None
    return datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000 - started


def kill_often(rig: Rig, kills: int, drops: int, chance: random.Random) -> dict[str, float]:
    """Kill `kills` times, with `drops` recordings spread over these lives; then let it finish, and check all."""
    feeder = Feeder(rig, chance)
    when = Counter(chance.randrange(kills) for _ in range(drops))
    recovered = []
    began = time.monotonic()
    for life in range(kills):
        since, started = len(rig.said()), time.time()
        process = rig.start(command=False)
        longest = 2.0 if chance.random() < 0.2 else 1.0
        until = time.monotonic() + chance.uniform(0.05, longest)
        for _ in range(when[life]):
            time.sleep(chance.uniform(0.0, 0.1))
            feeder.drop()
        time.sleep(max(0.0, until - time.monotonic()))
        assert process.kill() == -signal.SIGKILL, f"it ended by itself\n{rig.tail()}"
        seconds = opened_after(rig, since, started)
        if seconds is not None:
            recovered.append(seconds)
    spent = time.monotonic() - began
    rig.start(command=False)
    last = rig.wait_done(feeder.jobs, timeout=60 + feeder.jobs)
    rig.stop()
    check_all(rig, feeder.jobs)
    return {
        "kills": kills,
        "seconds of kills": round(spent),
        "recordings": len(feeder.recordings),
        "jobs": feeder.jobs,
        "adopted submits": len(rig.events("adopted")),
        "longest time to be at work again (s)": round(max(recovered), 2),
        "from the last start to all done (s)": round(last, 1),
    }


def check_all(rig: Rig, jobs: int) -> None:
    rig.check(jobs)
    told = Counter(event.subject for kind in ("submitted", "adopted") for event in rig.events(kind))
    assert len(told) == jobs and set(told.values()) == {1}, "each submit is told once"
    ended = Counter(event.subject for event in rig.events("ended"))
    assert set(ended) == set(told)
    shown = Counter(
        job["id"]
        for path, status in rig.statuses().items()
        if not path.startswith("submissions/status/")
        for job in status["jobs"]
        if job["state"] == "done"
    )
    assert shown == {job.job_id: 1 for job in rig.jobs()}, "each job is in one status file, once, and done"


def report(found: dict[str, float], record: Callable[[str, object], None]) -> None:
    for name, value in found.items():
        record(name, value)
    print("\n" + "\n".join(f"{name:>40}: {value}" for name, value in found.items()))


@pytest.mark.timeout(420)
def test_a_hundred_kills(rig: Rig, record_property: Callable[[str, object], None]) -> None:
    report(kill_often(rig, 100, 40, random.Random(20260101)), record_property)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_thousands_of_kills(rig: Rig, record_property: Callable[[str, object], None]) -> None:
    kills = int(os.environ.get("NCAASD_KILLS", "2000"))
    report(kill_often(rig, kills, 40 + kills // 8, random.Random(kills)), record_property)
