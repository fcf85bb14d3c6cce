"""From rules and manifests to the jobs that are wanted: which there are, of which data, with which config and version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import ANALYSIS, LAYOUT, T, cases, in_unit, package_of, row, rule, session, unit

from ncaasd.declare.manifest import OneOff
from ncaasd.model import Dataset, FileRow, FileState, JobSpec, Origin, Place, Stat
from ncaasd.neurocaas.naming import safe_key
from ncaasd.neurocaas.submission import SubmitBody
from ncaasd.plan.expand import (
    fingerprint,
    is_mapped,
    job_of_one_off,
    job_of_submit,
    jobs_of_rule,
    jobs_of_unit,
    meant,
    package_name,
    package_place,
    with_keys,
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
    assert jobs(m, [A, in_unit("b.tif", WHOLE)]) == []


def test_the_data_of_a_package_is_the_package() -> None:
    def packed(state: FileState, etag: str) -> list[str]:
        made = replace(package_of("M7/1.zip"), row=row("M7/1.zip", state, tree="package:dgp", etag=etag))
        return [
            s.version for s in jobs_of_rule(session(**ZIP, **DATA), [A], **(HOW | {"package_of": lambda _name: made}))
        ]

    assert jobs(session(**ZIP, **DATA), [A]) == packed(WHOLE, "") == [], "nothing before it is made and stored"
    assert packed(STORED, "e") == packed(STORED, "e") != packed(STORED, "f")


def test_the_config_that_makes_a_version_is_the_units_own() -> None:
    asked: list[str] = []
    m = session(config="{animal}.yaml", **CONFIG)
    only(m, [A], config_checksum=lambda path: asked.append(path) or "c")
    only(session(**DATA), [A], config_checksum=lambda path: asked.append(path) or "c")
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


def test_names_and_order_count_in_a_package() -> None:
    prints = {
        fingerprint(m)
        for m in ([], [("a", A)], [("b", A)], [("a", A), ("b", A)], [("b", A), ("a", A)], [("\udcff", A)])
    }
    assert len(prints) == 6


# -- one-off jobs


class Disk:
    """What is known of local files."""

    def __init__(self, *rows: FileRow) -> None:
        self._rows = rows

    def file_at(self, place: Place) -> FileRow | None:
        return next((r for r in self._rows if r.place == place), None)

    def files_with_key(self, analysis: str, key: str) -> Sequence[FileRow]:
        return [r for r in self._rows if r.place.analysis == analysis and r.key == key]


def one_off(known: Disk, prefix: str = "", **more: Any) -> JobSpec:
    one = OneOff.model_validate({"name": "m7", "datasets": ("a.tif",), "config": "c.yaml"} | more)
    return job_of_one_off(
        one, analysis=ANALYSIS, declared_in="submissions/a.yaml", layout=LAYOUT, prefix=prefix, known=known
    )


HERE = row().place


@pytest.mark.parametrize(
    ("name", "prefix", "known", "key"),
    cases(
        ("a file that is not here yet", "a.tif", "", Disk(), "lab/inputs/a.tif"),
        ("a file that is not here yet, with a prefix", "a.tif", "rig1", Disk(), "lab/inputs/rig1/a.tif"),
        ("a file that is not here yet, mapped", "a b.tif", "", Disk(), f"lab/inputs/{safe_key('a b.tif')}"),
        ("a file that is here keeps its key", "a.tif", "rig1", Disk(row(key="lab/inputs/old.tif")), "lab/inputs/old.tif"),
        ("a file whose key isn't known", "a.tif", "", Disk(row(key="")), "lab/inputs/a.tif"),
        ("a file of a source of that name is not meant", "a.tif", "", Disk(row("a.tif", tree="rig1", key="k")),
         "lab/inputs/a.tif"),
    ),
)  # fmt: skip
def test_the_file_that_a_one_off_means(name: str, prefix: str, known: Disk, key: str) -> None:
    made = one_off(known, prefix, datasets=(name,)).datasets
    assert made == (Dataset(name, key, "", Place(ANALYSIS, "", f"inputs/{name}")),)


def test_what_is_declared_of_a_one_off() -> None:
    made = one_off(Disk(), datasets=("b.tif", "a.tif"), set={"fr": 30}, instance_type="p3.2xlarge")
    assert (made.name, made.origin, made.version, made.config) == ("m7", Origin.MANIFEST, "", "c.yaml")
    assert made.unit == "a.tif, b.tif", "in another order it is the same job"
    assert [d.name for d in made.datasets] == ["b.tif", "a.tif"]
    assert (made.overlay, made.instance_type, made.declared_in) == ('{"fr": 30}', "p3.2xlarge", "submissions/a.yaml")


def test_data_in_another_bucket_is_no_file_here() -> None:
    made = one_off(Disk(), datasets=("s3://b/a.tif",), config="s3://b/c.yaml", resultpath="s3://b/out")
    assert made.datasets == (Dataset("s3://b/a.tif", "s3://b/a.tif"),) and made.resultpath == "s3://b/out"


def body(*names: str, config: str = "lab/configs/c.yaml", **more: Any) -> SubmitBody:
    return SubmitBody(names, config, "1700000000", **more)


def submit(known: Disk, *names: str, prefix: str = "", **more: Any) -> JobSpec:
    where: dict[str, Any] = {"analysis": ANALYSIS, "declared_in": "submissions/1-submit.json", "layout": LAYOUT}
    return job_of_submit(body(*names, **more), prefix=prefix, known=known, **where)


MAPPED = f"lab/inputs/{safe_key('a b.tif')}"
SPACE = row("inputs/a b.tif", key=MAPPED)


@pytest.mark.parametrize(
    ("name", "known", "prefix", "expected"),
    cases(
        ("a key whose file is not here", "lab/inputs/a.tif", Disk(), "", Dataset("a.tif", "lab/inputs/a.tif", "", HERE)),
        ("a key whose file is here", "lab/inputs/a.tif", Disk(row()), "", Dataset("a.tif", "lab/inputs/a.tif", "", HERE)),
        ("a file that is stored elsewhere", "lab/inputs/a.tif", Disk(row(key="lab/inputs/old.tif")), "",
         Dataset("a.tif", "lab/inputs/old.tif", "", HERE)),
        ("a name as it is on the disk", "lab/inputs/a b.tif", Disk(SPACE), "", Dataset("a b.tif", MAPPED, "", SPACE.place)),
        ("a name as it is on the disk, not here yet", "lab/inputs/a b.tif", Disk(), "",
         Dataset("a b.tif", MAPPED, "", SPACE.place)),
        ("the key of a name that is mapped", MAPPED, Disk(SPACE), "",
         Dataset(safe_key("a b.tif"), MAPPED, "", SPACE.place)),
        ("the same, but the file that has its name is gone", MAPPED,
         Disk(row(f"inputs/{safe_key('a b.tif')}", GONE), SPACE), "", Dataset(safe_key("a b.tif"), MAPPED, "", SPACE.place)),
        ("the same, but the file that is mapped is gone", MAPPED, Disk(row("inputs/a b.tif", GONE, key=MAPPED)), "",
         Dataset(safe_key("a b.tif"), MAPPED, "", Place(ANALYSIS, "", f"inputs/{safe_key('a b.tif')}"))),
        ("the same, but the file that is mapped was refused", MAPPED, Disk(row("inputs/a b.tif", REFUSED, key=MAPPED)), "",
         Dataset(safe_key("a b.tif"), MAPPED, "", Place(ANALYSIS, "", f"inputs/{safe_key('a b.tif')}"))),
        ("the file of that very name goes before one that is mapped", MAPPED,
         Disk(SPACE, row(f"inputs/{safe_key('a b.tif')}")), "",
         Dataset(safe_key("a b.tif"), MAPPED, "", Place(ANALYSIS, "", f"inputs/{safe_key('a b.tif')}"))),
        ("a file of a source that has the key is not meant", "lab/inputs/a.tif", Disk(row("a.tif", tree="rig1")), "",
         Dataset("a.tif", "lab/inputs/a.tif", "", HERE)),
        ("another file of inputs that has the key is not meant", "lab/inputs/a.tif",
         Disk(row("inputs/x/a.tif", key="lab/inputs/a.tif")), "", Dataset("a.tif", "lab/inputs/a.tif", "", HERE)),
        ("a file that is gone keeps its key", "lab/inputs/a.tif", Disk(row(state=GONE, key="lab/inputs/old.tif")), "",
         Dataset("a.tif", "lab/inputs/old.tif", "", HERE)),
        ("below this rig's prefix", "lab/inputs/rig1/a.tif", Disk(), "rig1",
         Dataset("rig1/a.tif", "lab/inputs/rig1/a.tif", "", HERE)),
        ("below another rig's prefix", "lab/inputs/rig2/a.tif", Disk(), "rig1", Dataset("rig2/a.tif", "lab/inputs/rig2/a.tif")),
        ("in another bucket", "s3://b/a.tif", Disk(), "", Dataset("s3://b/a.tif", "s3://b/a.tif")),
    ),
)  # fmt: skip
def test_the_file_that_a_submit_file_means(name: str, known: Disk, prefix: str, expected: Dataset) -> None:
    assert submit(known, name, prefix=prefix).datasets == (expected,)


def test_a_dataset_that_is_no_file_here_stays_as_it_is() -> None:
    assert meant(Dataset("a.tif", "lab/inputs/a.tif"), Disk(row())) == Dataset("a.tif", "lab/inputs/a.tif")


def test_what_is_declared_by_a_submit_file() -> None:
    made = submit(Disk(), "lab/inputs/b.tif", "lab/inputs/a.tif", instance_type="p3.2xlarge", resultpath="s3://b/out")
    assert (made.name, made.unit, made.origin) == ("1700000000", "a.tif, b.tif", Origin.SUBMIT)
    assert [d.name for d in made.datasets] == ["b.tif", "a.tif"]
    assert (made.config, made.version, made.instance_type, made.resultpath) == (
        "c.yaml",
        "",
        "p3.2xlarge",
        "s3://b/out",
    )


def test_a_submit_file_that_names_files_as_on_the_disk_is_given_their_keys() -> None:
    made = with_keys(body("lab/inputs/a b.tif", "s3://b/a b.tif", config="lab/configs/c d.yaml"), LAYOUT)
    assert made == body(MAPPED, "s3://b/a b.tif", config=f"lab/configs/{safe_key('c d.yaml')}")


@pytest.mark.parametrize(
    ("path", "safe", "mapped"),
    [
        ("inputs/a b.tif", f"inputs/{safe_key('a b.tif')}", True),
        ("inputs/a.tif", "inputs/a.tif", False),
        ("inputs/a b.tif", "inputs/a.tif", False),
        ("inputs/a b.tif", "inputs/a b.tif", False),
    ],
)
def test_which_name_is_another_as_it_is_mapped(path: str, safe: str, mapped: bool) -> None:
    assert is_mapped(path, safe) is mapped
