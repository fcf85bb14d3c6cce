"""What the tables of tests/plan are made of: a file, a job, a rule and a unit, each ordinary but for what a row of a table says.

A row of a table is (the case in words, what differs from the ordinary, what is expected); the words are the test's id.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest

from ncaasd.declare.manifest import Rule
from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobSpec, JobState, Origin, Phase, Place, Stat
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan.expand import Package, package_tree
from ncaasd.plan.grouping import Matcher, Unit, below, matcher

ANALYSIS = "caiman-web"
LAYOUT = Layout("caiman-web", "lab")
NOW = 1_700_000_000.0
T = 1_700_000_001_123_456_789  # a file's time of modification, ns

_OF_A_SPEC = frozenset(f.name for f in fields(JobSpec))
_numbers = itertools.count(1000)


def cases(*rows: tuple[Any, ...]) -> list[Any]:
    """Rows of (words, values ...) as parameters; the words are the ids, and no two rows have the same."""
    assert len({words for words, *_ in rows}) == len(rows)
    return [pytest.param(*values, id=words) for words, *values in rows]


def row(
    path: str = "inputs/a.tif", state: FileState = FileState.STORED, *, tree: str = "", size: int = 1000, **more: Any
) -> FileRow:
    """A file, stored as it is unless another state is given. Its key is that of its path, whichever tree it lies in."""
    stat = more.pop("stat", Stat(size, T, T, 7))
    area, _, name = path.partition("/") if not tree else ("inputs", "", path)
    stored = state is FileState.STORED
    made = FileRow(
        id=zlib.crc32(f"{tree}:{path}".encode()),
        place=Place(ANALYSIS, tree, path),
        stat=stat,
        state=state,
        reason="",
        since=NOW,
        key=f"lab/{area}/{name}",
        stored=stat if stored else None,
        etag="e" if stored else "",
        retry_at=0.0,
        failures=0,
        ours=stored,
    )
    return replace(made, **more)


def dataset(of: FileRow, etag: str = "e") -> Dataset:
    return Dataset(below(of), of.key, etag, of.place)


def job(unit: str = "a.tif", **more: Any) -> JobRow:
    """A rule's job that waits for nothing and is not decided; what `more` says is the spec's, or else the row's. Each has a
    number of its own, the later the higher."""
    spec: dict[str, Any] = {
        "analysis": ANALYSIS,
        "name": "dgp",
        "unit": unit,
        "version": "",
        "origin": Origin.RULE,
        "declared_in": "manifest.yaml",
        "datasets": (dataset(row(f"inputs/{unit}")),),
        "config": "c.yaml",
    }
    spec |= {key: more.pop(key) for key in list(more) if key in _OF_A_SPEC}
    made = JobRow(
        row=next(_numbers), spec=JobSpec(**spec), attempt=0, job_id="", phase=Phase.OPEN, state=JobState.READY, reason="",
        hold=None, released=frozenset(), created=NOW, intended=0, attempted=0, submitted=0, ended=0, next_at=0, failures=0,
        submit_key="", config_key="", body=b"", verdict=None, refused_kind="", finished=0, total=len(spec["datasets"]),
        cost=None, seen=0, size=1000, rebuilt=False, forgotten=False, results="", quiet_looks=0, not_before=0,
    )  # fmt: skip
    return replace(made, **more)


def sent(unit: str = "a.tif", **more: Any) -> JobRow:
    """A job that was submitted a day ago, and runs."""
    told = {"phase": Phase.SUBMITTED, "state": JobState.RUNNING, "job_id": "123", "created": NOW - 86400}
    return job(unit, **(told | more))


def ended(state: JobState = JobState.DONE, unit: str = "a.tif", **more: Any) -> JobRow:
    """A job that has ended, an hour ago."""
    told = {"phase": Phase.ENDED, "state": state, "verdict": state, "ended": NOW - 3600}
    return sent(unit, **(told | more))


def rule(**more: Any) -> Matcher:
    """A rule without units that wants every .tif, below `inputs/`."""
    return matcher(Rule.model_validate({"name": "dgp", "datasets": ("**/*.tif",), "config": "c.yaml"} | more))


def session(**more: Any) -> Matcher:
    """A rule whose units are the folders of an animal's runs."""
    return rule(**({"unit": "{animal}/{run}"} | more))


def unit(*rows: FileRow, path: str = "M7/1") -> Unit:
    """A unit with these files, which must lie in it."""
    fields = dict(zip(("animal", "run"), path.split("/"), strict=False))
    return Unit(path, fields, {below(r).removeprefix(f"{path}/"): r for r in rows})


def in_unit(name: str, state: FileState = FileState.STORED, **more: Any) -> FileRow:
    """A file of the unit M7/1."""
    return row(f"M7/1/{name}" if more.get("tree") else f"inputs/M7/1/{name}", state, **more)


def package_of(name: str) -> Package:
    """As the engine gives it: where a package of this name is said to lie, and its key."""
    return Package(name, f"lab/inputs/{name}", Place(ANALYSIS, package_tree("dgp"), name))


def states(rows: Iterable[FileRow]) -> list[str]:
    return [str(r.state) for r in rows]
