"""Whether a whole file may go up: its unit's gates, its package, and what came too late."""

from __future__ import annotations

from typing import Any

import pytest
from builders import NOW, cases, in_unit, row, rule, session, unit

from ncaasd.model import FileRow, FileState
from ncaasd.neurocaas.naming import safe_key
from ncaasd.plan.gates import EMPTY, Permit, UnitState, When, gives_name, late, permit, state_of, warnings
from ncaasd.plan.grouping import Matcher, Unit, below

GO, LATER, NEVER, HELD = When.NOW, When.LATER, When.NEVER, When.HELD
WHOLE, WRITTEN, GONE = FileState.WHOLE, FileState.SETTLING, FileState.GONE


def asked(file: FileRow, rules: list[Matcher], beside: list[FileRow], *, is_late: bool = False) -> Permit:
    """`beside`: what else is in the unit M7/1."""

    def unit_of(m: Matcher) -> Unit | None:
        return unit(file, *beside) if m.unit_of(below(file)) else None

    return permit(file, rules, unit_of, lambda _m, _unit: is_late)


DATA = in_unit("a.tif", WHOLE)
EMPTY_DATA = in_unit("a.tif", WHOLE, size=0)
LOG = in_unit("x.log", WHOLE)
DONE = in_unit("DONE", WHOLE, size=0)
GATED = {"complete_when": ("DONE",)}
OF_RIG1 = in_unit("a.tif", WHOLE, tree="rig1")


@pytest.mark.parametrize(
    ("file", "rules", "beside", "way", "reason"),
    cases(
        # inputs/ goes up whether a rule names it or not
        ("an input, without any rule", DATA, [], [], GO, ""),
        ("an input that a rule wants", DATA, [rule()], [], GO, ""),
        ("an input that no rule wants", LOG, [rule()], [], GO, ""),
        ("an input in no unit of a rule that has some", row("inputs/a.tif", WHOLE), [session(**GATED)], [], GO, ""),
        ("an empty input that no rule wants", in_unit("x.log", WHOLE, size=0), [rule()], [], GO, ""),
        # of a source only what a rule names
        ("of a source, without any rule", OF_RIG1, [], [], NEVER, "no rule names it"),
        ("of a source, wanted by a rule of inputs", OF_RIG1, [rule()], [], NEVER, "no rule names it"),
        ("of a source, wanted by a rule of another source", OF_RIG1, [rule(source="rig2")], [], NEVER, "no rule names it"),
        ("of a source, which its rule wants", OF_RIG1, [rule(source="rig1")], [], GO, ""),
        ("of a source, which its rule excludes", OF_RIG1, [rule(source="rig1", exclude=("M7/**",))], [], NEVER,
         "no rule names it"),
        ("of a source, which its rule's `with` names", in_unit("x.log", WHOLE, tree="rig1"),
         [session(source="rig1", **{"with": ("*.log",)})], [], GO, ""),
        ("of inputs, wanted by a source's rule", DATA, [session(source="rig1", **GATED)], [], GO, ""),
        # configs and packages
        ("a config", row("configs/c.yaml", WHOLE), [rule()], [], GO, ""),
        ("a config whose name the jobs of a rule have", row("configs/c.yaml", WHOLE), [rule(config_name="c.yaml")], [],
         NEVER, "goes up with each job of rule dgp, which has it under this name (`config_name`)"),
        ("a package", row("M7/1.zip", WHOLE, tree="package:dgp"), [session(**GATED)], [], GO, ""),
        # links
        ("a link to a file that the rule finds by itself", row("inputs/b.tif", WHOLE, link="inputs/a.tif"), [rule()], [],
         NEVER, "a symbolic link to a file of the same tree, which is found by itself: name that one"),
        ("a link that one of two rules takes for its data", row("inputs/b.tif", WHOLE, link="inputs/a.tif"),
         [rule(), rule(datasets=("b.tif",))], [], GO, ""),
        ("a link to a file outside the tree", row("inputs/b.tif", WHOLE, link="/mnt/a.tif"), [rule()], [], GO, ""),
        ("a link that no rule wants", row("inputs/b.lnk", WHOLE, link="inputs/a.tif"), [rule()], [], GO, ""),
        # gates
        ("of a unit that is not whole", DATA, [session(**GATED)], [], LATER, "waits for DONE in M7/1"),
        ("of a unit in which something is written", DATA, [session(**GATED)], [DONE, in_unit("b.tif", WRITTEN)], LATER,
         "waits until b.tif in M7/1 is whole"),
        ("of a unit that is whole", DATA, [session(**GATED)], [DONE], GO, ""),
        ("the gate itself", DONE, [session(**GATED)], [], GO, ""),
        ("no dataset, of a unit that is not whole", LOG, [session(**GATED)], [], LATER, "waits for DONE in M7/1"),
        ("of a unit without a gate in which something is written", DATA, [session()], [in_unit("b.tif", WRITTEN)], GO, ""),
        ("of a unit that `abort_when` only can stop, while something is written", DATA, [session(abort_when=("BAD",))],
         [in_unit("b.tif", WRITTEN)], LATER, "waits until b.tif in M7/1 is whole"),
        ("of a unit that was aborted", DATA, [session(abort_when=("BAD",))], [in_unit("BAD", WHOLE)], LATER,
         "its unit was aborted: BAD is in M7/1"),
        ("aborted and not whole", DATA, [session(abort_when=("BAD",), **GATED)], [in_unit("BAD", WHOLE)], LATER,
         "its unit was aborted: BAD is in M7/1"),
        ("of two rules one waits", DATA, [session(), session(**GATED)], [], LATER, "waits for DONE in M7/1"),
        ("of two rules one aborts", DATA, [session(), session(abort_when=("BAD",))], [in_unit("BAD", WHOLE)], LATER,
         "its unit was aborted: BAD is in M7/1"),
        # nothing in it
        ("an empty dataset", EMPTY_DATA, [rule()], [], NEVER, EMPTY),
        ("an empty dataset of a unit", EMPTY_DATA, [session()], [], NEVER, EMPTY),
        ("an empty gate, where all is data", DONE, [session(datasets=("**",), **GATED)], [], GO, ""),
        ("an empty gate of one rule that another takes for data", DONE,
         [session(datasets=("**",), **GATED), rule(datasets=("**",))], [], NEVER, EMPTY),
        ("an empty dataset of a unit that is not whole", EMPTY_DATA, [session(**GATED)], [], LATER,
         "waits for DONE in M7/1"),
        # packages
        ("a part of a package", DATA, [session(package="zip")], [], NEVER, "goes up in its unit's package, not by itself"),
        ("a part of a package, and another rule's data", DATA, [session(package="zip"), rule()], [], GO, ""),
        ("beside a package", LOG, [session(package="zip")], [], GO, ""),
        ("a part of a package of a unit that is not whole", DATA, [session(package="zip", **GATED)], [], LATER,
         "waits for DONE in M7/1"),
    ),
)  # fmt: skip
def test_whether_a_file_may_go_up(
    file: FileRow, rules: list[Matcher], beside: list[FileRow], way: When, reason: str
) -> None:
    made = asked(file, rules, beside)
    assert (made.when, made.reason) == (way, reason)
    assert made.unit is (way is LATER), "what waits for its unit is asked again with it"


@pytest.mark.parametrize(
    ("file", "rules", "beside", "way"),
    cases(
        ("a dataset of a unit that was submitted", DATA, [session()], [], HELD),
        ("a part of a package that was submitted", DATA, [session(package="zip")], [], HELD),
        ("no dataset", LOG, [session()], [], GO),
        ("an empty one: it is asked again when something is in it", EMPTY_DATA, [session()], [], NEVER),
        ("the unit is not whole: that is said first", DATA, [session(**GATED)], [], LATER),
        ("of a rule without units", DATA, [rule()], [], GO),
        ("of two rules one is late", DATA, [rule(), session()], [], HELD),
    ),
)  # fmt: skip
def test_F92_what_came_after_its_units_job_is_held(
    file: FileRow, rules: list[Matcher], beside: list[FileRow], way: When
) -> None:
    made = asked(file, rules, beside, is_late=True)
    assert made.when is way
    if way is HELD:
        assert made.reason == (
            "came after M7/1 was submitted, so no job has it: `ncaasd release inputs/M7/1/a.tif` lets it go up, and `ncaasd"
            " rerun M7/1` runs the unit again with it"
        )


SENT: dict[str, Any] = {"sent": True, "named": False, "packed": None}
PACKAGE = row("M7/1.zip", tree="package:dgp", id=50)
NEW = in_unit("a.tif", WHOLE, id=51)
ZIP, ONE_JOB = {"package": "zip"}, {"job_per": "unit"}


@pytest.mark.parametrize(
    ("more", "file", "known", "is_late"),
    cases(
        ("a job of each unit, sent without it", ONE_JOB, NEW, SENT, True),
        ("a job of each unit, sent with it", ONE_JOB, NEW, SENT | {"named": True}, False),
        ("a job of each unit, not sent yet", ONE_JOB, NEW, SENT | {"sent": False}, False),
        ("said to be whole, sent without it", GATED, NEW, SENT, True),
        ("said to be whole, sent with it", GATED, NEW, SENT | {"named": True}, False),
        ("a job of each dataset, of a unit without a gate", {}, NEW, SENT, False),
        ("it was put before, or a person released it", ONE_JOB, in_unit("a.tif", WHOLE, ours=True), SENT, False),
        ("new data makes a new job", ONE_JOB | {"rerun_on": ("data",)}, NEW, SENT, False),
        ("a new config makes a new job", ONE_JOB | {"rerun_on": ("config",)}, NEW, SENT, True),
        ("packed, found after the package was made", ZIP, NEW, SENT | {"packed": PACKAGE}, True),
        ("packed, found before the package was made", ZIP, in_unit("a.tif", WHOLE, id=49), SENT | {"packed": PACKAGE}, False),
        ("packed, found with the package", ZIP, in_unit("a.tif", WHOLE, id=50), SENT | {"packed": PACKAGE}, False),
        ("packed, and the package's job not sent", ZIP, NEW, {"sent": False, "named": False, "packed": PACKAGE}, False),
        ("packed, and the package isn't known", ZIP, NEW, SENT, False),
        ("packed, and the package is gone", ZIP, NEW,
         SENT | {"packed": row("M7/1.zip", GONE, tree="package:dgp", id=50)}, False),
        ("packed, and a job names it by itself", ZIP, NEW, SENT | {"named": True, "packed": PACKAGE}, True),
    ),
)  # fmt: skip
def test_F92_what_is_late(more: dict[str, Any], file: FileRow, known: dict[str, Any], is_late: bool) -> None:
    assert late(session(**more), file, **known) is is_late


LONG_AGO = in_unit("a.tif", since=NOW - 3601)
HOUR = {"overdue": "1h"}


@pytest.mark.parametrize(
    ("more", "rows", "state", "why"),
    cases(
        ("nothing is lacking", {}, [DATA], UnitState.WHOLE, ""),
        ("the gate is there", GATED, [DATA, DONE], UnitState.WHOLE, ""),
        ("the gate is not there", GATED, [DATA], UnitState.WAITING, "waits for DONE in M7/1"),
        ("whole, however long ago", HOUR, [LONG_AGO], UnitState.WHOLE, ""),
        ("waiting for longer than `overdue`", GATED | HOUR, [LONG_AGO], UnitState.OVERDUE,
         "M7/1 is not whole after 1h: it waits for DONE in M7/1"),
        ("waiting for exactly `overdue`", GATED | HOUR, [in_unit("a.tif", since=NOW - 3600)], UnitState.WAITING,
         "waits for DONE in M7/1"),
        ("waiting for long, of a rule without `overdue`", GATED, [LONG_AGO], UnitState.WAITING, "waits for DONE in M7/1"),
        ("the first file that is there counts", GATED | HOUR, [LONG_AGO, in_unit("b.tif")], UnitState.OVERDUE,
         "M7/1 is not whole after 1h: it waits for DONE in M7/1"),
        ("what is gone doesn't count", GATED | HOUR, [in_unit("a.tif", GONE, since=1.0), in_unit("b.tif")],
         UnitState.WAITING, "waits for DONE in M7/1"),
        ("nothing is there any more", GATED | HOUR, [in_unit("a.tif", GONE, since=1.0)], UnitState.WAITING,
         "waits for DONE in M7/1"),
        ("aborted", {"abort_when": ("BAD",)}, [DATA, in_unit("BAD")], UnitState.ABORTED,
         "BAD is in M7/1: it is never uploaded, and never submitted"),
        ("aborted, and overdue", {"abort_when": ("BAD",)} | GATED | HOUR, [LONG_AGO, in_unit("BAD")], UnitState.ABORTED,
         "BAD is in M7/1: it is never uploaded, and never submitted"),
    ),
)  # fmt: skip
def test_what_has_become_of_a_unit(more: dict[str, Any], rows: list[FileRow], state: UnitState, why: str) -> None:
    assert state_of(session(**more), unit(*rows), NOW) == (state, why)


CONFIG = row("configs/c.yaml")


@pytest.mark.parametrize(
    ("more", "file", "theirs"),
    cases(
        ("named by its content", {}, CONFIG, False),
        ("under its own name", {"config_name": "keep"}, CONFIG, True),
        ("under its own name, another config", {"config_name": "keep"}, row("configs/d.yaml"), False),
        ("under its own name, in a folder", {"config_name": "keep"}, row("configs/x/c.yaml"), False),
        ("under its own name, with a prefix: another key", {"config_name": "keep"},
         row("configs/c.yaml", key="lab/configs/rig1/c.yaml"), False),
        ("under its own name, which has a part of the unit's", {"config_name": "keep", "config": "{animal}.yaml",
         "unit": "{animal}/{run}"}, row("configs/M7.yaml"), True),
        ("under a name that has a part, in a folder", {"config_name": "keep", "config": "{animal}.yaml",
         "unit": "{animal}/{run}"}, row("configs/x/M7.yaml"), False),
        *((f"under its own name, mapped: {name}", {"config_name": "keep", "config": name},
           row(f"configs/{name}", key=f"lab/configs/{safe_key(name)}"), True)
          for name in ("Größe.yaml", "a b.yaml", "a[1].yaml")),
        ("under a name that another's is mapped to", {"config_name": "keep"}, row("configs/c d.yaml", key="lab/configs/c.yaml"),
         True),
        ("under the name that its analysis opens", {"config_name": "config.yaml"}, row("configs/config.yaml"), True),
        ("under another name than its analysis opens", {"config_name": "config.yaml"}, CONFIG, False),
        ("no config", {"config_name": "keep"}, row("inputs/c.yaml", key="lab/configs/c.yaml"), False),
        ("of a source", {"config_name": "keep"}, row("configs/c.yaml", tree="rig1", key="lab/configs/c.yaml"), False),
        ("a package", {"config_name": "keep"}, row("configs/c.yaml", tree="package:dgp", key="lab/configs/c.yaml"), False),
    ),
)  # fmt: skip
def test_whose_name_in_s3_is_the_jobs(more: dict[str, Any], file: FileRow, theirs: bool) -> None:
    assert gives_name(rule(**more), file) is theirs


@pytest.mark.parametrize(
    ("more", "warned"),
    cases(
        ("one job of a unit, and only a pause", {"job_per": "unit"}, True),
        ("one package of a unit, and only a pause", {"package": "zip"}, True),
        ("a job of each dataset", {}, False),
        ("a gate", {"package": "zip", "complete_when": ("DONE",)}, False),
        ("a pause that was chosen", {"package": "zip", "whole_after": 60.0}, False),
    ),
)
def test_F99_what_only_a_pause_makes_whole_is_warned_of(more: dict[str, Any], warned: bool) -> None:
    found = warnings([rule(), session(**more)])
    assert len(found) is int(warned)
    assert all("dgp" in text for text in found)
