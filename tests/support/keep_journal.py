"""Keeps a journal in the middle of its work as a test file: `cd tests && python -m support.keep_journal`, once a release.

A real run on a real server, held still and killed: a recording half sent, a submit about to be sent, a job running, a
job's results half fetched. Written as SQL, for review: fixtures/journal-<schema>.sql. The test of later versions opens it
and goes on (tests/journal/test_kept_journals.py).
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing

from fakes.fault_proxy import Rule
from support.rig import MIB, Bench, Rig, bench, blob

import ncaasd
from ncaasd.adapters.journal import schema
from ncaasd.model import JobState, Phase

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "journal", "fixtures")
NAME = "kept-rig"
# Path below inputs/ -> size and seed of its bytes.
RECORDINGS = {
    "fetching.bin": (20 * MIB, 101),  # its job has ended; one of two ranges of the result is here
    "running.bin": (50_000, 102),  # its job runs, for so many seconds more
    "attempted.bin": (60_000, 103),  # its submit may have been sent
    "m7/big.bin": (20 * MIB, 104),  # two of three parts are sent
}
RUNS = 12  # seconds
KILLED = "killed at"  # in meta: so that the test can move all times


def content(path: str) -> bytes:
    return blob(*RECORDINGS[path])


def hold_still(rig: Rig) -> None:
    """Bring all of it to where it is to be killed."""
    assert rig.proxy is not None
    rig.proxy.rules += [
        Rule(method="GET", path="process_results/fetching.bin", skip=1, times=None, hang=True),
        Rule(method="PUT", query="partNumber=3", skip=1, times=None, hang=True),
    ]
    rig.drop_config()
    rig.drop_job("fetching", "fetching.bin")
    rig.drop("inputs/fetching.bin", content("fetching.bin"))
    rig.start(command=False)
    rig.wait_for(lambda: _ranges(rig) == 1, "one range to be fetched")
    rig.drop_job("running", "running.bin", set={"__sandbox__": {"scenario": "slow-analysis", "seconds": RUNS}})
    rig.drop("inputs/running.bin", content("running.bin"))
    rig.wait_for(lambda: _jobs(rig).get("running") == (Phase.SUBMITTED, JobState.RUNNING), "a job to run")
    rig.proxy.rules.append(Rule(method="PUT", path="submit.json", times=None, hang=True))
    rig.drop_job("attempted", "attempted.bin")
    rig.drop("inputs/attempted.bin", content("attempted.bin"))
    rig.drop_rule("m7/*.bin", name="large")
    rig.drop("inputs/m7/big.bin", content("m7/big.bin"))
    rig.wait_for(lambda: _parts(rig) == 2, "two parts to be sent")
    rig.wait_for(lambda: _jobs(rig).get("attempted", (None,))[0] is Phase.ATTEMPTED, "the attempt")
    assert _jobs(rig)["running"] == (Phase.SUBMITTED, JobState.RUNNING)
    assert _jobs(rig)["fetching"] == (Phase.SUBMITTED, JobState.FETCHING)


def _jobs(rig: Rig) -> dict[str, tuple[Phase, JobState]]:
    return {j.spec.name: (j.phase, j.state) for j in rig.jobs()}


def _ranges(rig: Rig) -> int:
    if "fetching" not in _jobs(rig):
        return 0
    with rig.reading() as journal:
        return sum(len(a.ranges) for a in journal.artefacts(rig.job("fetching").row))


def _parts(rig: Rig) -> int:
    with closing(sqlite3.connect(rig.journal_path)) as db:
        return int(db.execute("SELECT count(*) FROM part").fetchone()[0])


def configs_of(fixture: str) -> str:
    """The file with the jobs' configs, as they are in S3: key -> text."""
    return fixture.removesuffix(".sql") + "-configs.json"


def dumped(path: str) -> Iterator[str]:
    with closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        yield f"-- The journal of ncaasd {ncaasd.__version__} (schema {version}) at work: support/keep_journal.py"
        yield from db.iterdump()
        yield f"PRAGMA user_version={version};"


def keep(made: Bench, folder: str) -> str:
    rig = Rig(made, folder, name=NAME, proxy=True)
    try:
        hold_still(rig)
        rig.kill()
        with rig.writing() as journal, journal.transaction():
            journal.set_meta(KILLED, str(time.time()))
        target = os.path.join(FIXTURES, f"journal-{schema.VERSION}.sql")
        with open(target, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in dumped(rig.journal_path))
        configs = {job.config_key: made.body(job.config_key).decode() for job in rig.jobs() if job.config_key}
        with open(configs_of(target), "w", encoding="utf-8") as file:
            json.dump(configs, file, indent=2)
        return target
    finally:
        rig.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, bench(os.path.join(folder, "sandbox")) as made:
        print(keep(made, os.path.join(folder, "rig")))


if __name__ == "__main__":
    sys.exit(main())
