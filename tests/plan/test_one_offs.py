"""The jobs that are asked for one by one, in a manifest or a submit file: which files here their datasets mean (F96)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from builders import ANALYSIS, LAYOUT, cases, row

from ncaasd.declare.manifest import OneOff
from ncaasd.model import Dataset, FileRow, FileState, JobSpec, Origin, Place
from ncaasd.neurocaas.naming import safe_key
from ncaasd.neurocaas.submission import SubmitBody
from ncaasd.plan.expand import is_mapped, job_of_one_off, job_of_submit, meant, with_keys

GONE, REFUSED = FileState.GONE, FileState.REFUSED


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
    made = one_off(Disk(), datasets=("b.tif", "a.tif"), set={"q": 1, "fr": 30}, instance_type="p3.2xlarge")
    assert (made.name, made.origin, made.version, made.config) == ("m7", Origin.MANIFEST, "", "c.yaml")
    assert made.unit == "a.tif, b.tif", "in another order it is the same job"
    assert [d.name for d in made.datasets] == ["b.tif", "a.tif"]
    assert (made.overlay, made.instance_type, made.declared_in) == (
        '{"fr": 30, "q": 1}',
        "p3.2xlarge",
        "submissions/a.yaml",
    )


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
        ("nor is one of a source whose path is like one of inputs", MAPPED, Disk(row("inputs/a b.tif", tree="rig1", key=MAPPED)),
         "", Dataset(safe_key("a b.tif"), MAPPED, "", Place(ANALYSIS, "", f"inputs/{safe_key('a b.tif')}"))),
        ("a file whose key isn't known", "lab/inputs/a.tif", Disk(row(key="")), "",
         Dataset("a.tif", "lab/inputs/a.tif", "", HERE)),
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
