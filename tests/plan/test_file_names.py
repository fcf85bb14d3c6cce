"""What a file is for, where it goes in S3, and which of several files has a key there (F96)."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from builders import ANALYSIS, LAYOUT, cases, ended, job, row, sent, states

from ncaasd.model import NEVER, FileRow, FileState, JobRow, JobState, Phase, Place
from ncaasd.neurocaas.naming import safe_key
from ncaasd.plan.files import (
    Role,
    collision,
    found_by_itself,
    gives_way,
    holder,
    in_use,
    in_words,
    map_file,
    precedence,
    role_of,
    seen_as,
    taken_by,
    unreadable,
    waits_for_name,
    with_names_given,
)

WRITTEN, WHOLE, STORED, READ = FileState.SETTLING, FileState.WHOLE, FileState.STORED, FileState.READ
HELD, REFUSED, SKIPPED, GONE = FileState.HELD, FileState.REFUSED, FileState.SKIPPED, FileState.GONE


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("inputs/a.tif", Role.INPUT),
        ("inputs/x/manifest.yaml", Role.INPUT),
        ("configs/c.yaml", Role.CONFIG),
        ("manifest.yaml", Role.MANIFEST),
        ("manifest.yml", Role.NONE),
        ("x/manifest.yaml", Role.NONE),
        ("submissions/a.yaml", Role.ONE_OFF),
        ("submissions/a.yml", Role.ONE_OFF),
        ("submissions/x/a.yaml", Role.NONE),
        ("submissions/1-submit.json", Role.SUBMIT),
        ("submissions/submit.json", Role.SUBMIT),
        ("submissions/1-SUBMIT.JSON", Role.NONE),  # the platform's rule is case-sensitive
        ("submissions/x/1-submit.json", Role.NONE),
        ("submissions/a.json", Role.NONE),
        ("submissions", Role.NONE),
        ("results/a.tif", Role.NONE),
        ("a.tif", Role.NONE),
    ],
)
def test_what_a_file_is_for(path: str, role: Role) -> None:
    assert role_of(path) is role


MAPPED = safe_key("Größe 3.tif")
SHELL = "its name has characters that NeuroCAAS puts unquoted into a shell line: rename it"


@pytest.mark.parametrize(
    ("path", "more", "key", "refused"),
    cases(
        ("an input", "inputs/M7/a.tif", {}, "lab/inputs/M7/a.tif", ""),
        ("an input, with a prefix", "inputs/M7/a.tif", {"prefix": "rig1"}, "lab/inputs/rig1/M7/a.tif", ""),
        ("an input, by its file name alone", "inputs/M7/a.tif", {"base": True}, "lab/inputs/a.tif", ""),
        ("by its file name alone: the prefix is left out", "inputs/M7/a.tif", {"base": True, "prefix": "rig1"},
         "lab/inputs/a.tif", ""),
        ("an input whose name is mapped", "inputs/Größe 3.tif", {}, f"lab/inputs/{MAPPED}", ""),
        ("by its file name alone, mapped", "inputs/x y/Größe 3.tif", {"base": True}, f"lab/inputs/{MAPPED}", ""),
        ("an input whose name may not be mapped", "inputs/Größe 3.tif", {"names": "refuse"}, f"lab/inputs/{MAPPED}", SHELL),
        ("a folder's name counts as well", "inputs/x y/a.tif", {"names": "refuse", "base": True}, "lab/inputs/a.tif", SHELL),
        ("a name that needs no mapping", "inputs/a.tif", {"names": "refuse"}, "lab/inputs/a.tif", ""),
        ("an input that would start a job", "inputs/x-submit.json", {}, "lab/inputs/x-submit.json", "it ends in submit.json"),
        ("an input that would end a job", "inputs/append.txt", {}, "lab/inputs/append.txt", "it ends in end.txt"),
        ("a folder that workers take for the group's", "inputs/M7/inputs/a.tif", {}, "lab/inputs/M7/inputs/a.tif",
         "inputs begins with inputs"),
        ("a .yml that is an input", "inputs/a.yml", {}, "lab/inputs/a.yml", ""),
        ("a config", "configs/x/c.yaml", {}, "lab/configs/x/c.yaml", ""),
        ("a config, with a prefix", "configs/c.yaml", {"prefix": "rig1"}, "lab/configs/rig1/c.yaml", ""),
        ("a config keeps its folder", "configs/x/c.yaml", {"base": True}, "lab/configs/x/c.yaml", ""),
        ("a config that NeuroCAAS does not read", "configs/c.yml", {}, "lab/configs/c.yml",
         "NeuroCAAS reads .yaml and .json only: rename it to .yaml"),
        ("a config whose name may not be mapped", "configs/c d.yaml", {"names": "refuse"},
         f"lab/configs/{safe_key('c d.yaml')}", SHELL),
    ),
)  # fmt: skip
def test_where_a_file_goes(path: str, more: dict[str, Any], key: str, refused: str) -> None:
    found = map_file(path, LAYOUT, **({"prefix": "", "names": "sanitize"} | more))
    assert found.key == key
    assert refused in found.refused and bool(refused) is bool(found.refused)


def test_what_lies_in_a_source_goes_where_inputs_go() -> None:
    assert seen_as(Place(ANALYSIS, "rig1", "M7/a.tif")) == "inputs/M7/a.tif"
    assert seen_as(Place(ANALYSIS, "", "configs/c.yaml")) == "configs/c.yaml"


# -- who has a key

A = row("a.tif", WHOLE, tree="rig1")  # a.tif of inputs/ and of two sources come to one key
MINE = row("inputs/a.tif", WHOLE)


def other(state: FileState = WHOLE, **more: Any) -> FileRow:
    return row("a.tif", state, tree="rig1", **more)


@pytest.mark.parametrize(
    ("theirs", "has"),
    cases(
        ("being written", other(WRITTEN), True),
        ("whole", other(), True),
        ("stored", other(STORED), True),
        ("read", other(READ), True),
        ("held", other(HELD, reason="came late", retry_at=NEVER), True),
        ("refused", other(REFUSED), False),
        ("skipped", other(SKIPPED), False),
        ("gone", other(GONE), False),
        ("gone, and stored once", other(GONE, stored=other(STORED).stored), False),
        ("the file itself", MINE, False),
        ("no rule names it", other(reason="no rule names it", retry_at=NEVER), False),
        ("no rule names it any more, and it is stored", other(reason="no rule", retry_at=NEVER, stored=A.stat), True),
        ("it waits for its unit, which is looked at again", other(reason="waits for DONE", retry_at=5.0), True),
        ("it is looked at when something happens, for no reason", other(retry_at=NEVER), True),
        ("its unit was aborted", other(reason="its unit was aborted: BAD is in M7/1", retry_at=5.0), False),
        ("its unit was aborted, and it is stored", other(reason="its unit was aborted: BAD", stored=A.stat), True),
        ("its unit was aborted, and something writes to it", other(WRITTEN, reason="its unit was aborted: BAD"), True),
    ),
)  # fmt: skip
def test_who_has_a_key(theirs: FileRow, has: bool) -> None:
    assert holder(MINE.place, [theirs]) == (theirs if has else None)
    # What is asked of a key whose own file isn't here gives the same answer, and what was stored stays, gone or not.
    assert taken_by(MINE.place, None, [theirs]) == (
        theirs.place if has or (theirs.stored is not None and theirs.place != MINE.place) else None
    )


def test_the_first_that_has_a_key_is_named() -> None:
    gone, first, second = other(GONE), row("a.tif", WHOLE, tree="rig2"), row("a.tif", WHOLE, tree="rig3")
    assert holder(MINE.place, [MINE, gone, first, second]) == first
    assert holder(MINE.place, []) is None


@pytest.mark.parametrize(
    ("place", "own", "others", "taker"),
    cases(
        ("nobody was ever there", MINE.place, None, [], None),
        ("its own bytes are there", MINE.place, row(), [other(STORED)], None),
        ("its own were there, and it is gone", MINE.place, row(state=GONE, stored=A.stat), [other(STORED)], None),
        ("it is here and not stored, another is", MINE.place, MINE, [MINE, other(STORED)], A.place),
        ("another's, which is gone here", MINE.place, None, [other(GONE, stored=A.stat)], A.place),
        ("another that was never there, and is gone", MINE.place, None, [other(GONE)], None),
        ("another that will be there", MINE.place, None, [other()], A.place),
        ("of two others the first that is or will be there", MINE.place, None,
         [other(REFUSED), row("a.tif", WRITTEN, tree="rig2"), row("a.tif", tree="rig3")], Place(ANALYSIS, "rig2", "a.tif")),
        ("a dataset that means no file here", None, None, [other(STORED)], A.place),
    ),
)  # fmt: skip
def test_whose_bytes_are_at_a_key(
    place: Place | None, own: FileRow | None, others: list[FileRow], taker: Place | None
) -> None:
    assert taken_by(place, own, others) == taker


NEITHER: dict[str, bool] = {"stored": False, "begun": False, "together": False}


@pytest.mark.parametrize(
    ("held_by", "place", "more", "gives"),
    cases(
        ("the first that came keeps it", other(), MINE.place, {}, False),
        ("what is at the key is the newcomer's own", other(), MINE.place, {"stored": True}, True),
        ("but not from one whose upload was begun", other(), MINE.place, {"stored": True, "begun": True}, False),
        ("nor from one that is stored", other(STORED), MINE.place, {"stored": True}, False),
        ("nor from a package", row("a.tif", WHOLE, tree="package:dgp"), MINE.place, {"stored": True}, False),
        ("found together: inputs/ before a source", other(), MINE.place, {"together": True}, True),
        ("found together: a source not before inputs/", MINE, A.place, {"together": True}, False),
        ("found together: sources by their names", row("a.tif", WHOLE, tree="rig2"), A.place, {"together": True}, True),
        ("found together: not the other way round", A, Place(ANALYSIS, "rig2", "a.tif"), {"together": True}, False),
        ("found together: by their paths", row("inputs/b.tif", WHOLE), MINE.place, {"together": True}, True),
        ("found together, one not before itself", MINE, MINE.place, {"together": True}, False),
        ("found together, and still being written", other(WRITTEN), MINE.place, {"together": True}, True),
        ("found together, but its upload was begun", other(), MINE.place, {"together": True, "begun": True}, False),
        ("found together, but held", other(HELD), MINE.place, {"together": True}, False),
        ("the newcomer's own bytes, from one that is held", other(HELD), MINE.place, {"stored": True}, True),
    ),
)  # fmt: skip
def test_who_gives_a_key_to_whom(held_by: FileRow, place: Place, more: dict[str, bool], gives: bool) -> None:
    assert gives_way(held_by, place, **(NEITHER | more)) is gives


def test_who_comes_first_of_those_that_wait() -> None:
    places = [
        Place(ANALYSIS, "", "inputs/a.tif"),
        Place(ANALYSIS, "", "inputs/b.tif"),
        Place(ANALYSIS, "rig1", "a.tif"),
        Place(ANALYSIS, "rig2", "a.tif"),
        Place(ANALYSIS, "package:dgp", "a.tif"),
        Place(ANALYSIS, "package:dgp", "b.tif"),
    ]
    assert sorted((places[n] for n in (5, 3, 1, 4, 2, 0)), key=precedence) == places


@pytest.mark.parametrize(
    ("files", "fresh", "waiting", "expected"),
    cases(
        ("one file", [MINE], [], [], ["whole"]),
        ("two names", [MINE, row("inputs/b.tif", WHOLE)], [], [], ["whole", "whole"]),
        ("two that were there", [A, MINE], [], [], ["refused", "whole"]),
        ("what is stored keeps it", [other(STORED), MINE], [], [], ["stored", "refused"]),
        ("what was there before goes before what is new", [MINE, A], [MINE], [], ["refused", "whole"]),
        ("what is new goes before what waits", [row(state=REFUSED), A], [A], [MINE], ["refused", "whole"]),
        ("what waits goes up when nobody has it", [row(state=REFUSED)], [], [MINE], ["whole"]),
        ("what waits for one that is gone goes up", [row(state=REFUSED), other(GONE)], [], [MINE], ["whole", "gone"]),
        ("of two that wait one goes up", [row("a.tif", REFUSED, tree="rig1"), row(state=REFUSED)], [], [MINE, A],
         ["refused", "whole"]),
        ("what is refused for its own sake stays so", [row(state=REFUSED), A], [], [], ["refused", "whole"]),
        ("what does not go up keeps no name", [other(reason="no rule names it", retry_at=NEVER), MINE], [], [],
         ["whole", "whole"]),
        ("what is never uploaded has no key", [row("manifest.yaml", READ, key=""), row("submissions/b.yaml", READ, key="")],
         [], [], ["read", "read"]),
        ("a package comes last", [row("a.tif", WHOLE, tree="package:dgp"), A], [], [], ["refused", "whole"]),
    ),
)  # fmt: skip
def test_each_key_goes_to_one_file(
    files: list[FileRow], fresh: list[FileRow], waiting: list[FileRow], expected: list[str]
) -> None:
    made = with_names_given(files, fresh={f.place for f in fresh}, waiting={f.place for f in waiting})
    assert states(made) == expected
    assert [f.place for f in made] == [f.place for f in files], "in the same order"


def test_the_one_that_is_refused_is_told_by_whom_and_waits() -> None:
    _first, second = with_names_given([MINE, A], fresh=(), waiting=())
    assert second.reason == collision(MINE.place, A.key) and waits_for_name(second)
    assert second.reason == (
        "inputs/a.tif has its name in S3 already (lab/inputs/a.tif): rename one of the two; when the other one is renamed or"
        " moved away, this one goes up by itself"
    )


def test_what_is_let_go_has_no_reason_any_more() -> None:
    (freed,) = with_names_given([row(state=REFUSED, reason="x has its name")], fresh=(), waiting={MINE.place})
    assert (freed.state, freed.reason) == (WHOLE, "")


@pytest.mark.parametrize(
    ("file", "waits"),
    cases(
        ("refused for another's sake", row(state=REFUSED, reason=collision(A.place, A.key)), True),
        (
            "as the first release said it",
            row(state=REFUSED, reason="a.tif maps to the same key in S3 already (k)"),
            True,
        ),
        ("refused for its own name's sake", row(state=REFUSED, reason=SHELL), False),
        ("not refused", row(state=WHOLE, reason=collision(A.place, A.key)), False),
        ("gone since", row(state=GONE, reason=collision(A.place, A.key)), False),
    ),
)
def test_who_waits_for_a_name(file: FileRow, waits: bool) -> None:
    assert waits_for_name(file) is waits


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (MINE.place, "inputs/a.tif"),
        (A.place, "a.tif in source rig1"),
        (Place(ANALYSIS, "package:dgp", "M7.zip"), "the package M7.zip of rule dgp"),
    ],
)
def test_a_file_in_words(place: Place, words: str) -> None:
    assert in_words(place) == words


# -- what else is said of a file


@pytest.mark.parametrize(
    ("link", "found"),
    [("", False), ("inputs/run5.tif", True), ("run5.tif", True), ("/mnt/videos/run5.tif", False)],
)
def test_a_link_to_what_the_scan_finds(link: str, found: bool) -> None:
    assert found_by_itself(row(link=link)) is found


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EACCES, "let the daemon's user (uid 7) read it, such as with `chmod a+r '/d/a b.tif'`"),
        (errno.EPERM, "let the daemon's user (uid 7) read it"),
        (errno.EIO, "check its disk, or copy the file here once more"),
    ],
)
def test_what_is_said_of_a_file_that_cannot_be_read(code: int, hint: str) -> None:
    error = unreadable("/d/a b.tif", OSError(code, "why"), 7)
    assert str(error).startswith(f"/d/a b.tif cannot be read: why ({errno.errorcode[code]})")
    assert error.hint.startswith(hint)


def test_a_name_that_is_no_text_is_said_all_the_same() -> None:
    assert r"/d/\udcff" in unreadable("/d/\udcff", OSError(errno.EACCES, "why"), 7).hint
    assert "(" in str(unreadable("/d/a", OSError("no number"), 7))


@pytest.mark.parametrize(
    ("using", "reads"),
    cases(
        ("open", job(), False),
        ("intended", sent(phase=Phase.INTENT), True),
        ("attempted", sent(phase=Phase.ATTEMPTED), True),
        ("runs", sent(), True),
        ("its results are being fetched", sent(verdict=JobState.DONE), False),
        ("ended", ended(), False),
        ("ended without a verdict", ended(verdict=None), False),
    ),
)
def test_F86_who_may_still_be_reading_a_key(using: JobRow, reads: bool) -> None:
    assert in_use([job("b.tif"), using]) == (using if reads else None)
