"""The event log has one name for each file, package, job and unit, whoever writes of it."""

from __future__ import annotations

import os

from declared_rig import BUCKET, DeclaredRig, FileState

from ncaasd.engine.commands import release_files
from ncaasd.model import Place
from ncaasd.plan.files import in_words
from ncaasd.subjects import of_attempt, of_file, of_unit

SAME = "configs/a.json"
OWN, SHARED = (Place(BUCKET, tree, SAME) for tree in ("", "share"))
PACKAGE = Place(BUCKET, "package:r", "M7/1.zip")
UNIT = {"source": "share", "unit": "{animal}/{run}", "datasets": "*.tif", "complete_when": "DONE"}


def told(rig: DeclaredRig, subject: str) -> set[str]:
    """The kinds of events of one subject."""
    return {e.kind for e in rig.rig.journal.events(subject=subject, limit=10_000)}


def others(rig: DeclaredRig, *known: str) -> set[str]:
    return {e.subject for e in rig.rig.journal.events(limit=10_000)} - {"", "file manifest.yaml", *known}


def test_places_differ_so_names_do() -> None:
    of_a_source = Place(BUCKET, "package", "r:M7/1.zip")
    found = [of_file(place) for place in (OWN, SHARED, PACKAGE, of_a_source)]
    assert found == [
        "file configs/a.json",
        "file share:configs/a.json",
        "package r:M7/1.zip",
        "file package:r:M7/1.zip",
    ]
    assert [in_words(PACKAGE), in_words(of_a_source)] == [
        "the package M7/1.zip of rule r",
        "r:M7/1.zip in source package",
    ]
    assert of_unit("r", "M7/1") != of_attempt("r", "M7/1") != of_attempt("r", "M7/1", 1)
    no_text = Place(BUCKET, "", os.fsdecode(b"inputs/caf\xe9.tif"))
    assert of_file(no_text) == r"file inputs/caf\udce9.tif", "as the log has it"


def test_a_file_of_a_source_has_one_name_whatever_becomes_of_it(rig: DeclaredRig) -> None:
    """Equal paths in the analysis's own folder and in a source: two stories, each whole."""
    (rig.source / "configs").mkdir()
    os.mkfifo(rig.source / SAME)
    rig.rules({"name": "r", "source": "share", "datasets": "**/*.json", "config": "late.yaml"})
    rig.until(lambda: rig.events("skipped"), "the FIFO")
    os.unlink(rig.source / SAME)
    rig.record(SAME)
    rig.write(SAME, "{}")
    key = f"lab/inputs/{SAME}"
    rig.server.seed(key, b"of another rig")
    rig.until(lambda: any(f.state is FileState.HELD for f in rig.files()), "what is foreign")
    assert [f.place for f in release_files(rig.rig.journal, [SAME], rig.clock.now())] == [SHARED]
    rig.until(lambda: len(rig.events("stored")) == 3, "the uploads")
    rig.server.remove(key)
    rig.write("configs/late.yaml", "fr: 1\n")
    rig.until(lambda: rig.submitted(1), "the submit", turns=400)
    assert told(rig, of_file(SHARED)) >= {"skipped", "whole", "held", "released", "stored", "lost in S3"}
    assert told(rig, of_file(OWN)) == {"whole", "stored"}
    configs = ["file configs/c.yaml", "file configs/late.yaml"]
    assert others(rig, of_file(SHARED), of_file(OWN), of_attempt("r", SAME), *configs) == set()


def test_a_package_has_one_name_whatever_becomes_of_it(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/1.zip", "has the package's name in S3")
    rig.rules({**UNIT, "package": "zip"}, {"name": "other", "datasets": "**/*.zip", "config": "never.yaml"})
    rig.record("M7/1/a.tif")
    rig.record("M7/1/DONE", "x")
    rig.until(lambda: rig.events("refused"), "the refusal")
    assert told(rig, of_file(PACKAGE)) == {"refused"}
    os.unlink(rig.home / "inputs/M7/1.zip")
    rig.until(lambda: rig.state("M7/1.zip") is FileState.GONE, "the name to be free")
    rig.until(lambda: "stored" in told(rig, of_file(PACKAGE)), "the package", turns=400)
    assert told(rig, of_file(PACKAGE)) >= {"refused", "packed", "stored"}


def test_what_was_said_of_a_unit_whose_name_is_no_text_is_found_again(rig: DeclaredRig) -> None:
    unit = os.fsdecode(b"caf\xe9/1")
    rig.record(f"{unit}/a.tif", "data")
    rig.record(f"{unit}/ABORTED", "x")
    rig.rules({**UNIT, "abort_when": "ABORTED"})
    rig.until(lambda: rig.events("aborted"), "the word on it")
    rig.restart()
    rig.turns(20)
    assert told(rig, of_unit("r", unit)) == {"aborted"}
    assert len(rig.events("aborted")) == 1, "said once"
