"""Which files are one unit of a rule, what the unit still lacks, and what is none of its data. What a job needs beside its
data is in test_parts.py."""

from __future__ import annotations

from typing import Any

import pytest
from builders import ANALYSIS, cases, dataset, ended, in_unit, job, row, rule, sent, session, unit

from ncaasd.model import Dataset, FileRow, FileState, JobRow, Origin, Place
from ncaasd.plan.grouping import (
    Unit,
    accompanying,
    below,
    beside,
    by_base,
    doubles,
    hollow,
    is_nothing,
    is_of,
    misplaced,
    say_hollow,
    still_to_read,
    unit_of_job,
    units,
)

WRITTEN, WHOLE, STORED, READ = FileState.SETTLING, FileState.WHOLE, FileState.STORED, FileState.READ
HELD, REFUSED, SKIPPED, GONE = FileState.HELD, FileState.REFUSED, FileState.SKIPPED, FileState.GONE
A, DONE = in_unit("a.tif"), in_unit("DONE", size=0)
GATED = {"complete_when": ("DONE",)}


@pytest.mark.parametrize(
    ("more", "rows", "missing"),
    cases(
        ("nothing is asked for", {}, [A], ""),
        ("nothing is in it", {}, [], ""),
        ("the gate is there", GATED, [A, DONE], ""),
        ("the gate is not there", GATED, [A], "waits for DONE in M7/1"),
        ("two gates, one there", {"complete_when": ("DONE", "*.csv")}, [A, DONE], "waits for *.csv in M7/1"),
        ("two gates, none there", {"complete_when": ("DONE", "*.csv")}, [A], "waits for DONE, *.csv in M7/1"),
        ("what goes with it is there", {"with": ("*.csv",)}, [A, in_unit("x.csv")], ""),
        ("what goes with it is not there", {"with": ("*.csv",)}, [A], "waits for *.csv in M7/1"),
        ("nothing goes with it", {"with": ()}, [A], ""),
        ("gates before what goes with it", {"with": ("*.csv",), **GATED}, [A], "waits for DONE, *.csv in M7/1"),
        ("something is written in it", {}, [A, in_unit("b.tif", WRITTEN), in_unit("c.tif", WRITTEN)],
         "waits until b.tif in M7/1 is whole"),
        ("something is written, and the gate isn't there", GATED, [in_unit("b.tif", WRITTEN)], "waits for DONE in M7/1"),
        ("what is excluded is written, too", {"exclude": ("x.log",)}, [A, in_unit("x.log", WRITTEN)],
         "waits until x.log in M7/1 is whole"),
    ),
)  # fmt: skip
def test_what_a_unit_lacks(more: dict[str, Any], rows: list[FileRow], missing: str) -> None:
    assert unit(*rows).missing(session(**more)) == missing


@pytest.mark.parametrize(
    ("state", "gate_is_there", "aborts", "is_member", "is_to_be_stored"),
    [
        (WRITTEN, False, True, False, True),
        (WHOLE, True, True, True, True),
        (STORED, True, True, True, False),
        (READ, True, True, True, False),
        (HELD, True, True, True, True),
        (REFUSED, True, True, True, True),
        (SKIPPED, False, True, True, False),  # there, and its job says that it can't be taken
        (GONE, False, False, False, False),
    ],
    ids=str,
)
def test_as_what_a_file_counts_in_its_unit(
    state: FileState, gate_is_there: bool, aborts: bool, is_member: bool, is_to_be_stored: bool
) -> None:
    seen, m = unit(in_unit("x.tif", state)), session(complete_when=("x.tif",), abort_when=("x.tif",))
    assert (seen.missing(m) == "") is gate_is_there
    assert seen.aborted(m) == ("x.tif" if aborts else "")
    assert [name for name, _row in seen.members(m)] == (["x.tif"] if is_member else [])
    assert len(list(seen.to_store(m))) == int(is_to_be_stored)


@pytest.mark.parametrize(
    ("more", "rows", "by"),
    cases(
        ("nothing aborts it", {"abort_when": ("BAD", "*.err")}, [A], ""),
        ("a file says so", {"abort_when": ("BAD", "*.err")}, [A, in_unit("x.err")], "x.err"),
        ("no rule of it says what aborts", {}, [A, in_unit("BAD")], ""),
        ("in a folder of it", {"abort_when": ("BAD",)}, [in_unit("sub/BAD")], ""),
        ("the file that said so is gone", {"abort_when": ("BAD",)}, [A, in_unit("BAD", GONE)], ""),
    ),
)
def test_what_aborts_a_unit(more: dict[str, Any], rows: list[FileRow], by: str) -> None:
    assert unit(*rows).aborted(session(**more)) == by


@pytest.mark.parametrize(
    ("more", "names"),
    cases(
        ("of either pattern", {"datasets": ("*.tif", "*.csv")}, ["a.tif", "b.csv"]),
        ("its datasets, by their names", {}, ["a.tif", "sub/b.tif"]),
        ("below the unit", {"datasets": ("*.tif",)}, ["a.tif"]),
        ("but what is excluded", {"exclude": ("sub/**",)}, ["a.tif"]),
        ("all of it, but no folder that can't be entered", {"datasets": ("**",)}, ["a.tif", "b.csv", "sub/b.tif"]),
    ),
)
def test_a_units_datasets(more: dict[str, Any], names: list[str]) -> None:
    rows = [in_unit("sub/b.tif"), in_unit("b.csv"), A, in_unit("shut/", SKIPPED), in_unit("c.tif", GONE)]
    assert [name for name, _row in unit(*rows).members(session(**more))] == names


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    cases(
        ("a new file", None, A, True),
        ("looked at again", A, A, False),
        ("uploaded: it is there as before", in_unit("a.tif", WHOLE), A, False),
        ("whole now", in_unit("a.tif", WRITTEN), in_unit("a.tif", WHOLE), True),
        ("gone before it was whole", in_unit("a.tif", WRITTEN), in_unit("a.tif", GONE), True),
        ("gone now", A, in_unit("a.tif", GONE), True),
        ("can't be taken any more", A, in_unit("a.tif", SKIPPED), True),
        ("changed", A, in_unit("a.tif", size=5), True),
        ("under another key", A, in_unit("a.tif", key="lab/inputs/a.tif"), True),
        ("for another reason", A, in_unit("a.tif", reason="x"), False),
    ),
)
def test_which_changes_count(before: FileRow | None, after: FileRow, counts: bool) -> None:
    seen = unit(before) if before else unit(DONE)
    assert seen.put("a.tif", after) is counts
    assert seen.files["a.tif"] == after


def test_what_was_answered_is_asked_again_when_something_changes() -> None:
    m = session(complete_when=("DONE",), abort_when=("BAD",))
    seen = unit(in_unit("b.tif", WRITTEN))
    for _again in range(2):
        assert (seen.missing(m), seen.aborted(m), seen.members(m)) == ("waits for DONE in M7/1", "", [])
        assert seen.skipped(m) == ""
    seen.put("DONE", DONE)
    assert seen.missing(m) == "waits until b.tif in M7/1 is whole"
    seen.put("b.tif", in_unit("b.tif"))
    seen.put("BAD", in_unit("BAD"))
    assert (seen.missing(m), seen.aborted(m), len(seen.members(m))) == ("", "BAD", 1)
    seen.put("b.tif", in_unit("b.tif", reason="another row that counts the same"))
    assert seen.members(m)[0][1].reason == "another row that counts the same"


def test_what_cannot_be_taken_is_told_by_the_first_name() -> None:
    rows = [in_unit(name, SKIPPED, reason=f"{name} is a link") for name in ("c.tif", "b.tif", "d.tif")]
    more = "; and 2 more of it can't be taken"
    assert unit(*rows).skipped(session()) == f"M7/1/b.tif can't be taken: b.tif is a link{more}"
    loose = Unit("", {}, {"x.csv": row("inputs/x.csv", SKIPPED, reason="a link")})
    assert loose.skipped(rule(**{"with": ("*.csv",)})) == "x.csv can't be taken: a link"


def test_of_what_is_to_be_stored_the_first_two_are_told() -> None:
    rows = [in_unit(f"{n}.csv", WHOLE) for n in range(3)]
    assert beside(session(), unit(*rows), "", lambda _row: True).files == tuple(rows[:2])


# -- nothing in it


@pytest.mark.parametrize(
    ("more", "rows", "name"),
    cases(
        ("all have something in them", {}, [A], ""),
        ("one is empty", {}, [A, in_unit("b.tif", size=0), in_unit("c.tif", size=0)], "b.tif"),
        ("a link that can't be followed has no size", {}, [in_unit("b.tif", SKIPPED, size=0)], ""),
        ("the gate may be empty", GATED, [A, DONE], ""),
        ("what aborts may be empty", {"abort_when": ("DONE",)}, [A, DONE], ""),
    ),
)
def test_the_first_that_is_empty(more: dict[str, Any], rows: list[FileRow], name: str) -> None:
    m = session(datasets=("**",), **more)
    assert hollow(m, unit(*rows).members(m)) == name


def test_what_a_package_waits_for() -> None:
    assert (
        say_hollow(unit(A), "b.tif")
        == "M7/1/b.tif is empty: write into it or delete it, or name it in the rule's `exclude`"
    )


@pytest.mark.parametrize(
    ("file", "nothing"),
    cases(
        ("a file", row(), False),
        ("an empty file", row(size=0), True),
        ("a link that can't be followed", row(state=SKIPPED, size=0), False),
        ("a folder that can't be entered", row("inputs/M7/", SKIPPED, size=0), True),
    ),
)
def test_what_is_no_dataset_whatever_its_name(file: FileRow, nothing: bool) -> None:
    assert is_nothing(file) is nothing


# -- where a rule looks

SOURCE = {"source": "rig1"}


@pytest.mark.parametrize(
    ("more", "file", "looks"),
    cases(
        ("in inputs", {}, row(), True),
        ("not in configs", {}, row("configs/a.tif"), False),
        ("not in a source", {}, row("inputs/a.tif", tree="rig1"), False),
        ("in its source", SOURCE, row("a.tif", tree="rig1"), True),
        ("not in another source", SOURCE, row("a.tif", tree="rig2"), False),
        ("not in inputs, with a source", SOURCE, row(), False),
    ),
)
def test_where_a_rule_looks(more: dict[str, Any], file: FileRow, looks: bool) -> None:
    assert is_of(rule(**more), file) is looks


def test_a_path_as_rules_see_it() -> None:
    assert [below(row("inputs/x/a.tif")), below(row("x/a.tif", tree="rig1"))] == ["x/a.tif", "x/a.tif"]


def test_units_are_found_by_their_folders() -> None:
    rows = [row(f"inputs/{p}") for p in ("M8/1/a.tif", "M7/2/sub/b.tif", "M7/2/a.tif", "M7/a.tif")]
    found = units(session(), rows)
    assert [(u.path, u.fields, sorted(u.files)) for u in found] == [
        ("M7/2", {"animal": "M7", "run": "2"}, ["a.tif", "sub/b.tif"]),
        ("M8/1", {"animal": "M8", "run": "1"}, ["a.tif"]),
    ]
    assert units(rule(), rows) == []


def test_what_a_rule_without_units_names_beside_its_data_is_one_unit() -> None:
    rows = [row("inputs/x/a.csv"), row("inputs/x/a.tif"), row("x/b.csv", tree="rig1")]
    made = accompanying(rule(**{"with": ("**/*.csv",)}), rows)
    assert (made.path, made.shown, sorted(made.files)) == ("", "inputs/", ["x/a.csv"])
    assert accompanying(rule(), rows).files == {} and accompanying(rule(**{"with": ()}), rows).files == {}
    assert Unit("").missing(rule(**{"with": ("**/*.csv",)})) == "waits for **/*.csv in inputs/"


@pytest.mark.parametrize(
    ("more", "path", "goes_along"),
    cases(
        ("named", {"with": ("*.csv",)}, "M7/1/x.csv", True),
        ("named in full", {"with": ("x.csv",)}, "M7/1/x.csv", True),
        ("named by one of two", {"with": ("*.csv", "*.txt")}, "M7/1/x.csv", True),
        ("not named", {"with": ("*.csv",)}, "M7/1/x.txt", False),
        ("in no unit", {"with": ("*.csv",)}, "x.csv", False),
        ("nothing is named", {}, "M7/1/x.csv", False),
    ),
)
def test_what_goes_up_beside_the_data(more: dict[str, Any], path: str, goes_along: bool) -> None:
    assert session(**more).accompanies(path) is goes_along


@pytest.mark.parametrize(
    ("m", "of", "folder"),
    cases(
        ("no units", rule(), "M7/1/a.tif", ""),
        ("a job of each dataset", session(), "M7/1/sub/a.tif", "M7/1"),
        ("a job of each unit", session(job_per="unit"), "M7/1", "M7/1"),
        ("a package of each unit", session(package="zip"), "M7/1", "M7/1"),
        ("a job that was made before the rule had units", session(), "a.tif", "a.tif"),
    ),
)
def test_the_unit_that_a_job_is_about(m: Any, of: str, folder: str) -> None:
    assert unit_of_job(m, job(of).spec) == folder


LINK = row("inputs/l.tif", link="inputs/a.tif")


@pytest.mark.parametrize(
    ("m", "file", "twice"),
    cases(
        ("a link to the rule's own data", rule(), LINK, True),
        ("no link", rule(), row(), False),
        ("a link to what the rule does not want", rule(exclude=("a.tif",)), LINK, False),
        ("a link out of the tree", rule(), row("inputs/l.tif", link="/mnt/a.tif"), False),
        ("a link in a source", rule(source="rig1"), row("l.tif", tree="rig1", link="a.tif"), True),
        ("a link in a package", session(package="zip"), in_unit("l.tif", link="inputs/M7/1/a.tif"), False),
        ("a link in a job of a whole unit", session(job_per="unit"), in_unit("l.tif", link="inputs/M7/1/a.tif"), False),
        ("a link in a unit whose datasets have jobs", session(), in_unit("l.tif", link="inputs/M7/1/a.tif"), True),
        ("a link from a unit to what is in none", session(), in_unit("l.tif", link="inputs/a.tif"), False),
    ),
)  # fmt: skip
def test_which_links_are_data_twice(m: Any, file: FileRow, twice: bool) -> None:
    assert doubles(m, file) is twice


# -- directly in inputs/ (`key: base`)

BASE = {"key": "base"}


@pytest.mark.parametrize(
    ("m", "place", "directly"),
    cases(
        ("such a rule wants it", rule(**BASE), row().place, True),
        ("another rule wants it", rule(), row().place, False),
        ("such a rule does not want it", rule(exclude=("a.tif",), **BASE), row().place, False),
        ("such a rule of its source wants it", rule(**BASE, **SOURCE), Place(ANALYSIS, "rig1", "x/a.tif"), True),
        (
            "such a rule of its source wants it in its folder",
            rule(datasets=("x/*.tif",), **BASE, **SOURCE),
            Place(ANALYSIS, "rig1", "x/a.tif"),
            True,
        ),
        ("such a rule of inputs, it lies in a source", rule(**BASE), Place(ANALYSIS, "rig1", "x/a.tif"), False),
        ("such a rule of a source, it lies in inputs", rule(**BASE, **SOURCE), row().place, False),
        ("it is packed", session(package="zip", **BASE), in_unit("a.tif").place, False),
        ("it is a config", rule(datasets=("**",), **BASE), row("configs/a.tif").place, False),
    ),
)
def test_what_is_wanted_directly_in_inputs(m: Any, place: Place, directly: bool) -> None:
    assert by_base([rule(), m], place) is directly


FILE = row("inputs/x/a.tif")
HAD: dict[str, Any] = {"datasets": (dataset(FILE),)}


@pytest.mark.parametrize(
    ("m", "jobs", "reads"),
    cases(
        ("it has no job yet", rule(**BASE), [], True),
        ("its job is not submitted", rule(**BASE), [job(**HAD)], True),
        ("its job was submitted", rule(**BASE), [sent(**HAD)], False),
        ("its job was submitted, of another dataset, too", rule(**BASE),
         [sent(datasets=(dataset(row("inputs/b.tif")), dataset(FILE)))], False),
        ("its job has ended", rule(**BASE), [ended(**HAD)], False),
        ("one was submitted, another is not", rule(**BASE), [sent(**HAD), job(**HAD)], True),
        ("another rule's job was submitted", rule(**BASE), [sent(name="other", **HAD)], True),
        ("a manifest's job of the rule's name was submitted", rule(**BASE), [sent(origin=Origin.MANIFEST, **HAD)], True),
        ("a job of another file with the key was submitted", rule(**BASE),
         [sent(datasets=(Dataset("a.tif", FILE.key, "e", Place(ANALYSIS, "rig1", "x/a.tif")),))], True),
        ("the rule does not want it there", rule(), [], False),
        ("the rule does not want it", rule(exclude=("**",), **BASE), [], False),
    ),
)  # fmt: skip
def test_an_edited_rule_sends_nothing_again_that_its_jobs_had(m: Any, jobs: list[JobRow], reads: bool) -> None:
    assert still_to_read([m], FILE, jobs) is reads


def test_one_of_two_rules_is_still_to_read_it() -> None:
    assert still_to_read([rule(**BASE), rule(**BASE, name="new")], FILE, [sent(**HAD)])


@pytest.mark.parametrize(
    ("m", "keys", "wrong"),
    cases(
        ("directly in inputs", rule(**BASE), ["lab/inputs/a.tif"], ""),
        ("in a folder", rule(**BASE), ["lab/inputs/a.tif", "lab/inputs/x/b.tif"], "lab/inputs/x/b.tif"),
        ("in a folder, of a rule that wants it so", rule(), ["lab/inputs/x/b.tif"], ""),
    ),
)
def test_what_an_analysis_would_not_find(m: Any, keys: list[str], wrong: str) -> None:
    said = misplaced(m, [Dataset(key.rpartition("/")[2], key) for key in keys], "lab/inputs/")
    assert said == (f"b.tif is {wrong} in S3, and its rule wants it directly in inputs/ (`key: base`)" if wrong else "")
