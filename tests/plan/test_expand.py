"""From rules to the jobs that are wanted: which there are, of which data, with which config and version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import ANALYSIS, T, cases, in_unit, package_of, row, rule, session, unit

from ncaasd.model import Dataset, FileRow, FileState, JobSpec, Origin, Place, Stat
from ncaasd.plan.expand import (
    fingerprint,
    jobs_of_rule,
    jobs_of_unit,
    package_name,
    package_place,
)
from ncaasd.plan.grouping import Matcher

WRITTEN, WHOLE, STORED, READ = FileState.SETTLING, FileState.WHOLE, FileState.STORED, FileState.READ
HELD, REFUSED, SKIPPED, GONE = FileState.HELD, FileState.REFUSED, FileState.SKIPPED, FileState.GONE
HOW: dict[str, Any] = {
    "analysis": ANALYSIS,
    "declared_in": "manifest.yaml",
    "config_checksum": lambda path: f"sum of {path}",
    "package_of": package_of,
}


def jobs(m: Matcher, rows: Sequence[FileRow], **how: Any) -> list[tuple[str, list[str]]]:
    """(unit, names of the datasets) of each job that the rule wants of these files."""
    return [(s.unit, [d.name for d in s.datasets]) for s in jobs_of_rule(m, rows, **(HOW | how))]


# -- a rule without units


@pytest.mark.parametrize(
    ("state", "has_a_job"),
    [
        (WRITTEN, False),
        (WHOLE, True),
        (STORED, True),
        (READ, True),
        (HELD, True),
        (REFUSED, True),
        (SKIPPED, True),  # its job says that it can't be taken
        (GONE, False),
    ],
    ids=str,
)
def test_which_files_make_a_job(state: FileState, has_a_job: bool) -> None:
    assert jobs(rule(), [row("inputs/x/a.tif", state)]) == ([("x/a.tif", ["x/a.tif"])] if has_a_job else [])


@pytest.mark.parametrize(
    ("m", "rows", "found"),
    cases(
        ("a job of each", rule(), [row(), row("inputs/b.tif")], [("a.tif", ["a.tif"]), ("b.tif", ["b.tif"])]),
        ("what the rule does not want has none", rule(), [row("inputs/a.csv")], []),
        ("an empty file has none", rule(), [row(size=0)], []),
        ("a link that can't be followed has one that says so", rule(), [row(state=SKIPPED, size=0)], [("a.tif", ["a.tif"])]),
        ("a folder that can't be entered has none", rule(datasets=("**",)), [row("inputs/x/", SKIPPED, size=0)], []),
        ("a link to another dataset has none", rule(), [row("inputs/l.tif", link="inputs/a.tif")], []),
        ("of a source", rule(source="rig1"), [row("x/a.tif", tree="rig1")], [("x/a.tif", ["x/a.tif"])]),
    ),
)  # fmt: skip
def test_the_jobs_of_files(m: Matcher, rows: list[FileRow], found: list[tuple[str, list[str]]]) -> None:
    assert jobs(m, rows) == found


# -- a rule with units

A, B, DONE = in_unit("a.tif"), in_unit("b.tif"), in_unit("DONE", size=0)
GATED, ONE_JOB, ZIP = {"complete_when": ("DONE",)}, {"job_per": "unit"}, {"package": "zip"}
A_JOB, B_JOB = ("M7/1/a.tif", ["M7/1/a.tif"]), ("M7/1/b.tif", ["M7/1/b.tif"])


@pytest.mark.parametrize(
    ("more", "rows", "found"),
    cases(
        ("a job of each dataset", {}, [B, A], [A_JOB, B_JOB]),
        ("one job of all", ONE_JOB, [B, A], [("M7/1", ["M7/1/a.tif", "M7/1/b.tif"])]),
        ("one package of all", ZIP, [B, A], [("M7/1", ["M7/1.zip"])]),
        ("a package that a tool makes", {"package": {"tool": "t", "name": "{animal}_{run}.avi"}}, [A],
         [("M7/1", ["M7_1.avi"])]),
        ("in no unit", {}, [row("inputs/a.tif")], []),
        ("without a dataset in it", ZIP, [in_unit("x.log")], []),
        ("not whole", GATED, [A], []),
        ("whole", GATED, [A, DONE], [A_JOB]),
        ("something is written in it", {}, [A, in_unit("b.tif", WRITTEN)], []),
        ("aborted", {"abort_when": ("BAD",)}, [A, in_unit("BAD")], []),
        ("two units, one whole", GATED, [A, DONE, row("inputs/M7/2/a.tif")], [A_JOB]),
        # nothing in it
        ("an empty dataset has no job", {}, [A, in_unit("b.tif", size=0)], [A_JOB]),
        ("an empty dataset is waited for by the job of all", ONE_JOB, [A, in_unit("b.tif", size=0)],
         [("M7/1", ["M7/1/a.tif", "M7/1/b.tif"])]),
        ("an empty gate is none of its data", ONE_JOB | GATED | {"datasets": ("**",)}, [A, DONE], [("M7/1", ["M7/1/a.tif"])]),
        ("a gate with something in it is its data", ONE_JOB | GATED | {"datasets": ("**",)}, [A, in_unit("DONE", size=1)],
         [("M7/1", ["M7/1/DONE", "M7/1/a.tif"])]),
        ("nothing but an empty gate", ONE_JOB | GATED | {"datasets": ("**",)}, [DONE], []),
        # links
        ("a link to another dataset has no job", {}, [A, in_unit("l.tif", link="inputs/M7/1/a.tif")], [A_JOB]),
        ("a link is a part of the job of all", ONE_JOB, [A, in_unit("l.tif", link="inputs/M7/1/a.tif")],
         [("M7/1", ["M7/1/a.tif", "M7/1/l.tif"])]),
    ),
)  # fmt: skip
def test_the_jobs_of_units(more: dict[str, Any], rows: list[FileRow], found: list[tuple[str, list[str]]]) -> None:
    assert jobs(session(**more), rows) == found


@pytest.mark.parametrize(
    ("more", "but", "units_of_jobs"),
    cases(
        ("all", {}, (), ["M7/1/a.tif", "M7/1/b.tif"]),
        ("but one that has its job", {}, ("a.tif",), ["M7/1/b.tif"]),
        ("a job of the whole unit leaves nothing out", ONE_JOB, ("a.tif",), ["M7/1"]),
        ("nor does a package", ZIP, ("a.tif",), ["M7/1"]),
    ),
)
def test_the_jobs_of_one_unit(more: dict[str, Any], but: tuple[str, ...], units_of_jobs: list[str]) -> None:
    assert [s.unit for s in jobs_of_unit(session(**more), unit(A, B), **HOW, but=but)] == units_of_jobs


# -- what a job is


def only(m: Matcher, rows: Sequence[FileRow], **how: Any) -> JobSpec:
    (spec,) = jobs_of_rule(m, rows, **(HOW | how))
    return spec


def test_what_is_declared_of_a_job() -> None:
    m = session(
        config="{animal}.yaml",
        config_name="keep",
        instance_type="p3.2xlarge",
        set={"who": "{animal}", "deep": [{"runs": ["{run}", 1, "{ run }"]}], "fr": 30, "on": True, "x": None},
    )
    assert only(m, [A]) == JobSpec(
        analysis=ANALYSIS,
        name="dgp",
        unit="M7/1/a.tif",
        version="",
        origin=Origin.RULE,
        declared_in="manifest.yaml",
        datasets=(Dataset("M7/1/a.tif", "lab/inputs/M7/1/a.tif", "", A.place),),
        config="M7.yaml",
        overlay=json.dumps(
            {"deep": [{"runs": ["1", 1, "{ run }"]}], "fr": 30, "on": True, "who": "M7", "x": None}, sort_keys=True
        ),
        instance_type="p3.2xlarge",
        fields='{"animal": "M7", "run": "1"}',
        config_name="keep",
    )


def test_the_parts_of_a_units_name_are_told_in_one_order() -> None:
    assert only(session(unit="{run}/{animal}"), [row("inputs/1/M7/a.tif")]).fields == '{"animal": "M7", "run": "1"}'


def test_a_dataset_keeps_the_key_that_it_is_stored_under() -> None:
    assert only(rule(), [row(key="lab/inputs/old/a.tif")]).datasets[0].key == "lab/inputs/old/a.tif"


def test_a_package_lies_in_a_tree_of_its_rule() -> None:
    made = only(session(package="zip"), [A]).datasets[0]
    assert made == Dataset("M7/1.zip", "lab/inputs/M7/1.zip", "", Place(ANALYSIS, "package:dgp", "M7/1.zip"))
    assert package_place(ANALYSIS, session(package="zip").rule, unit(A)) == made.place
    assert package_name(session(package="zip").rule, unit(A)) == "M7/1.zip"


DATA, CONFIG, EITHER = {"rerun_on": ("data",)}, {"rerun_on": ("config",)}, {"rerun_on": ("data", "config")}
CHANGED = row(etag="f")


def test_without_rerun_on_there_is_one_version_ever() -> None:
    assert (
        only(rule(), [row()]).version
        == only(rule(), [CHANGED]).version
        == only(rule(), [row(state=WHOLE)]).version
        == ""
    )


def version(more: dict[str, Any], *rows: FileRow, checksum: str = "c") -> str | None:
    """None: there is no job yet."""
    found = jobs_of_rule(rule(**more), rows, **(HOW | {"config_checksum": lambda _path: checksum}))
    return found[0].version if found else None


@pytest.mark.parametrize(
    ("more", "of_data", "of_config"),
    cases(("data", DATA, True, False), ("config", CONFIG, False, True), ("both", EITHER, True, True)),
)
def test_what_makes_another_version(more: dict[str, Any], of_data: bool, of_config: bool) -> None:
    first = version(more, row())
    assert first and len(first) == 16 and first == version(more, row())
    assert (version(more, CHANGED) != first) is of_data
    assert (version(more, row(key="lab/inputs/b.tif")) != first) is of_data
    assert (version(more, row(), checksum="d") != first) is of_config


@pytest.mark.parametrize(
    ("more", "seen"),
    cases(
        ("data", DATA, b"lab/inputs/a.tif=e"),
        ("config", CONFIG, b"config=c"),
        ("both", EITHER, b"lab/inputs/a.tif=e\nconfig=c"),
    ),
)
def test_a_version_is_the_same_in_every_release_or_all_would_be_run_again(more: dict[str, Any], seen: bytes) -> None:
    assert version(more, row()) == hashlib.sha256(seen).hexdigest()[:16]


@pytest.mark.parametrize(
    ("more", "file", "checksum", "known"),
    cases(
        ("data that is stored", DATA, row(), "", True),
        ("data that is not stored yet", DATA, row(state=WHOLE), "c", False),
        ("data that is held", DATA, row(state=HELD), "c", False),
        ("a config that is there", CONFIG, row(state=WHOLE), "c", True),
        ("a config that is not there yet", CONFIG, row(), "", False),
        ("both, without the data", EITHER, row(state=WHOLE), "c", False),
        ("both, without the config", EITHER, row(), "", False),
        ("neither is asked for", {}, row(state=WHOLE), "", True),
    ),
)
def test_a_job_waits_for_what_makes_its_version(
    more: dict[str, Any], file: FileRow, checksum: str, known: bool
) -> None:
    assert (version(more, file, checksum=checksum) is not None) is known


def test_a_version_is_of_all_datasets_in_whichever_order() -> None:
    m = session(**ONE_JOB, **DATA)
    whole, other = only(m, [A, B]).version, only(m, [A, in_unit("b.tif", etag="f")]).version
    assert whole != other and only(m, [B, A]).version == whole
    elsewhere = only(m, [in_unit("a.tif", key="lab/inputs/z.tif"), B]).version
    assert elsewhere == hashlib.sha256(b"lab/inputs/M7/1/b.tif=e\nlab/inputs/z.tif=e").hexdigest()[:16]
    assert jobs(m, [A, in_unit("b.tif", WHOLE)]) == []


def test_the_data_of_a_package_is_the_package() -> None:
    def packed(state: FileState, etag: str) -> list[str]:
        made = replace(package_of("M7/1.zip"), row=row("M7/1.zip", state, tree="package:dgp", etag=etag))
        return [
            s.version for s in jobs_of_rule(session(**ZIP, **DATA), [A], **(HOW | {"package_of": lambda _name: made}))
        ]

    assert not jobs(session(**ZIP, **DATA), [A]) and not packed(WHOLE, ""), "nothing before it is made and stored"
    assert packed(STORED, "e") == packed(STORED, "e") != packed(STORED, "f")


def test_the_config_that_makes_a_version_is_the_units_own() -> None:
    asked: list[str] = []

    def checksum(path: str) -> str:
        asked.append(path)
        return "c"

    m = session(config="{animal}.yaml", **CONFIG)
    only(m, [A], config_checksum=checksum)
    only(session(**DATA), [A], config_checksum=checksum)
    assert asked == ["M7.yaml"]


@pytest.mark.parametrize(
    ("other", "same"),
    cases(
        ("the same", in_unit("a.tif"), True),
        ("another row of it", in_unit("a.tif", HELD, id=5, etag="f"), True),
        ("of another inode", in_unit("a.tif", stat=Stat(1000, T, T, 8)), True),
        ("of another size", in_unit("a.tif", stat=Stat(1001, T, T, 7)), False),
        ("of another mtime", in_unit("a.tif", stat=Stat(1000, T + 1, T, 7)), False),
        ("of another ctime", in_unit("a.tif", stat=Stat(1000, T, T + 1, 7)), False),
    ),
)
def test_what_a_package_is_made_of(other: FileRow, same: bool) -> None:
    assert (fingerprint([("a.tif", A)]) == fingerprint([("a.tif", other)])) is same


def test_a_package_is_the_same_in_every_release_or_all_would_be_made_again() -> None:
    assert fingerprint([("a.tif", A)]) == hashlib.sha256(f"'a.tif' 1000 {T} {T}\n".encode()).hexdigest()


def test_names_and_order_count_in_a_package() -> None:
    prints = {
        fingerprint(m)
        for m in ([], [("a", A)], [("b", A)], [("a", A), ("b", A)], [("b", A), ("a", A)], [("\udcff", A)])
    }
    assert len(prints) == 6
