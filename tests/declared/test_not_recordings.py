"""F102: what lies among recordings and is none gets no job, and is said: junk of storage and systems, half copies, copies,
empty files."""

from __future__ import annotations

import os

import pytest
from declared_rig import DeclaredRig, FileState

from ncaasd.adapters.files.names import Ignoring
from ncaasd.declare import ignored

JUNK = (
    "#recycle/a.tif", "@eaDir/a.tif@SynoEAStream.tif", "M7/@eaDir/b.tif", "@Recycle/a.tif", "$RECYCLE.BIN/S-1-5-21/$RABC12.tif",
    "System Volume Information/a.tif", "lost+found/a.tif", ".Trash-1000/files/a.tif", ".Trashes/501/a.tif",
    ".snapshot/daily/a.tif", ".stversions/a.tif", "._a.tif", "~a.tif", ".a.tif.Ab12Cd",
)  # fmt: skip


@pytest.mark.parametrize("source", [True, False])
def test_F102_folders_of_storage_and_systems_get_no_job_and_are_said(rig: DeclaredRig, source: bool) -> None:
    for path in JUNK:
        rig.record(path) if source else rig.write(f"inputs/{path}", path)
    rig.record("M7/good.tif") if source else rig.write("inputs/M7/good.tif", "good")
    rig.rules({"source": "share"} if source else {})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns()
    assert rig.units() == ["M7/good.tif"] and rig.uploaded() == ["M7/good.tif"]
    (said,) = rig.events("ignored")
    assert "#recycle, $RECYCLE.BIN, @Recycle, @eaDir" in said and "watch.ignore_defaults" in said
    rig.restart()
    rig.turns()
    assert len(rig.events("ignored")) == 1


@pytest.mark.parametrize(
    ("watch", "uploaded"),
    [
        ({"ignore": ["*.log"]}, ["good.tif"]),
        ({"ignore": []}, ["good.tif", "x.log"]),
        ({"ignore": ["*.log"], "ignore_defaults": False}, ["good.tif", "x.tif.part"]),
    ],
)
def test_F102_an_own_list_adds_to_the_built_in_one(
    rig: DeclaredRig, watch: dict[str, object], uploaded: list[str]
) -> None:
    rig.configure(watch=watch)
    for name in ("good.tif", "x.log", "x.tif.part"):
        rig.write(f"inputs/{name}", name)
    rig.until(lambda: len(rig.uploaded()) >= len(uploaded), "the uploads")
    rig.turns()
    assert rig.uploaded() == uploaded


def test_patterns_with_a_slash_keep_what_is_below_from_upload_and_jobs(rig: DeclaredRig) -> None:
    rig.configure(watch={"ignore": ["raw/old", "scratch/*"]})
    for path in ("raw/old/a.tif", "raw/old/b/a.tif", "scratch/a.tif", "scratch/x/a.tif", "raw/new.tif"):
        rig.write(f"inputs/{path}", path)
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns()
    assert (rig.units(), rig.uploaded()) == (["raw/new.tif"], ["raw/new.tif"])


def test_a_pattern_that_is_new_takes_the_open_jobs_of_what_it_means(rig: DeclaredRig) -> None:
    rig.write("inputs/raw/a.tif", "a")
    rig.rules({"config": "later.yaml"})
    rig.until(lambda: rig.units() == ["raw/a.tif"] and rig.state("raw/a.tif") is FileState.STORED, "the job")
    rig.configure(watch={"ignore": ["raw/*"]})
    rig.until(lambda: not rig.jobs(), "nothing to be run")


@pytest.mark.parametrize(
    "name", ["2024_01.tif", "x.partx", "part.tif", "recycle", "@x.tif", "#x.tif", "tmp", "x.tmp.tif"]
)
def test_the_built_in_list_means_no_recording(name: str) -> None:
    assert not Ignoring(ignored.names())(f"M7/{name}")


def test_every_built_in_name_is_said_to_be_somebodys() -> None:
    assert all(entry.whose and entry.names for entry in ignored.BUILT_IN)
    assert set(ignored.names()) >= ignored.FOLDERS
    assert len(ignored.names()) == sum(len(entry.names) for entry in ignored.BUILT_IN)
    assert os.sep not in "".join(ignored.names())
