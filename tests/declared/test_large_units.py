"""A unit of many files costs what its files cost: not each of them once more for every other."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from declared_rig import DeclaredRig

FEW, MANY = 150, 600


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def seconds(base: Path, files: int, rule: dict[str, Any], jobs: int) -> float:
    """CPU seconds from a session that comes whole to its files in S3 and its jobs submitted."""
    rig = DeclaredRig(base)
    try:
        limits = {"max_active": 10**6, "max_per_day": 10**6, "ask_above": 10**6}
        rig.configure(jobs={**limits, "poll": {"min": "1s", "max": "4s"}})
        rig.rules({"source": "share", "unit": "{animal}/{run}", **rule})
        rig.turns(5)
        for number in range(files):
            rig.record(f"M7/1/{number:05}.tif")
        rig.record("M7/1/DONE", "x")
        began = cpu()
        rig.until(lambda: len(rig.rig.journal.jobs()) == jobs, "the jobs", 400)
        wanted = 1 if rule.get("package") else files
        rig.until(lambda: len(rig.uploaded()) == wanted, "the uploads", 400)
        return cpu() - began
    finally:
        rig.rig.kill()


@pytest.mark.parametrize(
    ("rule", "each"),
    [
        ({"package": "zip", "complete_when": "DONE"}, False),
        ({"job_per": "unit", "complete_when": "DONE"}, False),
        ({"job_per": "dataset"}, True),
    ],
    ids=["packed", "one job", "a job for each"],
)
def test_a_unit_costs_in_proportion_to_its_files(tmp_path: Path, rule: dict[str, Any], each: bool) -> None:
    few = seconds(tmp_path / "few", FEW, rule, FEW if each else 1)
    many = seconds(tmp_path / "many", MANY, rule, MANY if each else 1)
    more = MANY / FEW  # the square of it would be 16
    assert many / few < 2 * more, f"{FEW} files: {few:.2f} s, {MANY} files: {many:.2f} s"
