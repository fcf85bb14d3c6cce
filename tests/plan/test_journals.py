"""What a journal's memory, S3 and the files here say together: F18, F81, F100."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import cases, row

from ncaasd.model import FileRow
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan.journals import Memory, Signs, Standing, is_rig_name, judge, others_now, rig_of, was_there

G, H, K, NEXT = "a" * 16, "b" * 16, "c" * 16, "d" * 16
NEW = Memory(opened=False, generation="", submits=0, others={}, rigs=[])
OLDER = Memory(opened=True, generation="", submits=0, others={}, rigs=["rig-a"])  # of a version that counted nothing
KEPT = Memory(opened=True, generation=G, submits=12, others={H: 3}, rigs=["rig-a"])
NOTHING = Signs(known=False, submits={})


def shows(**submits: int) -> Signs:
    names = {"g": G, "h": H, "k": K}
    return Signs(known=True, submits={"rig-a": {names[n]: count for n, count in submits.items()}})


@pytest.mark.parametrize(
    ("memory", "signs", "standing"),
    [
        (NEW, NOTHING, Standing.NEW),
        (NEW, Signs(known=True, submits={}), Standing.REBUILT),
        (NEW, replace(shows(g=1), known=False), Standing.REBUILT),
        (NEW, replace(NOTHING, submits={"rig-a": {}, "scope-pc": {H: 2}}), Standing.REBUILT),
        (NEW, replace(NOTHING, jobs={"1"}), Standing.REBUILT),
        (NEW, replace(NOTHING, root="rig-a"), Standing.NEW),  # a name alone says nothing of submits
        (OLDER, NOTHING, Standing.CURRENT),
        (OLDER, shows(g=1), Standing.FOREIGN),  # an old copy from before the journals were counted
        (OLDER, replace(NOTHING, jobs={"1"}), Standing.BEHIND),
        (KEPT, NOTHING, Standing.CURRENT),
        (KEPT, shows(g=11), Standing.CURRENT),  # killed between the commit and the mark
        (KEPT, shows(g=12), Standing.CURRENT),
        (KEPT, shows(g=13), Standing.BEHIND),
        (KEPT, shows(g=12, h=3), Standing.CURRENT),  # another daemon on this root, as last seen
        (KEPT, shows(g=12, h=4), Standing.FOREIGN),
        (KEPT, shows(g=12, k=1), Standing.FOREIGN),
        (KEPT, replace(shows(g=12), root="rig-a"), Standing.CURRENT),
        (KEPT, replace(shows(g=12), root="rig-b"), Standing.FOREIGN),
        (KEPT, replace(shows(g=12), jobs={"1"}), Standing.BEHIND),
        # `rig:` was edited: the journals under the new name are another rig's, if anybody's; our own is known under any.
        (KEPT, Signs(True, {"rig-a": {G: 12}, "rig-z": {K: 7}}), Standing.CURRENT),
        (KEPT, Signs(True, {"rig-a": {G: 12}, "rig-z": {G: 15}}), Standing.BEHIND),
        # It was given its own name, because another machine has the one that it had.
        (replace(KEPT, rigs=["rig-a", "rig-z"]), Signs(True, {"rig-a": {G: 12, H: 99}, "rig-z": {}}), Standing.CURRENT),
        (replace(KEPT, rigs=["rig-a", "rig-z"]), Signs(True, {"rig-a": {G: 13}, "rig-z": {G: 1}}), Standing.BEHIND),
    ],
)
def test_F100_what_is_known_of_a_journal(memory: Memory, signs: Signs, standing: Standing) -> None:
    verdict = judge(memory, signs)
    assert verdict.standing is standing
    assert verdict.doubtful == (standing not in (Standing.NEW, Standing.CURRENT)) == bool(verdict.why)
    # What was judged is no news at the next start, under the generation that the journal then has.
    generation = NEXT if verdict.doubtful or not memory.generation else memory.generation
    submits = 0 if generation != memory.generation else memory.submits
    rigs = [*memory.rigs, *(signs.submits.keys() - set(memory.rigs)), *([signs.root] if signs.root else [])]
    after = Memory(True, generation, submits, others_now(memory, signs, generation), rigs or ["rig-a"])
    assert judge(after, replace(signs, jobs=())).standing is Standing.CURRENT


def test_F100_marks_are_read_from_their_keys() -> None:
    layout = Layout("caiman-web", "lab")
    keys = [
        layout.journal_mark("rig-a", G, 9),
        layout.journal_mark("rig-a", G, 10),
        layout.journal_mark("rig-a", H, 0),
        layout.journal_mark("rig-a.b", K, 5),  # another rig's
        layout.rig_marker("rig-a"),
        layout.journal_marks("rig-a") + "notes.txt",
        layout.journal_marks("rig-a") + f"{K}.12",
    ]
    assert layout.marked_submits("rig-a", keys) == {G: 10, H: 0}
    assert not any(key.endswith(("submit.json", "end.txt")) for key in keys)
    assert not layout.journal_mark("rig-a", G, 1).startswith(f"{layout.rig_marker('rig-a')}/"), "that is an object"


@pytest.mark.parametrize(
    ("remembered", "used", "worked", "name"),
    [
        ("kept", ["rig-a"], True, "kept"),
        (None, ["rig-a", "rig-b"], True, "rig-b"),  # the config named it until now
        (None, [], True, "scope pc"),  # of a version that called it by its host's name
        (None, [], False, "scope-pc-1a2b3c"),
    ],
)
def test_F100_a_rig_without_a_name(remembered: str | None, used: list[str], worked: bool, name: str) -> None:
    assert rig_of(remembered, used=used, worked=worked, host="scope pc", letters="1a2b3c") == name


def test_F100_a_new_name_is_a_name_whatever_the_host_is_called() -> None:
    for host in ("", "...", "_a", "müller", "a" * 300, "-"):
        assert is_rig_name(rig_of(None, used=[], worked=False, host=host, letters="1a2b3c"))
    assert not any(is_rig_name(text) for text in ("", ".journals", "a/b", "a b", "ä", "a" * 101, "a\n"))


EARLY, LATE, OF_RIG1 = row(id=5), row("inputs/b.tif", id=6), row("a.tif", tree="rig1", id=6)
FIRST_SCAN = {"": 5.0, "rig1": 6.0, "rig2": float("inf")}


@pytest.mark.parametrize(
    ("files", "scanned", "there"),
    cases(
        ("found by the first scan", [EARLY], True, True),
        ("found later", [LATE], True, False),
        ("one of them was found later", [EARLY, LATE], True, False),
        ("of a source, found by its own first scan", [EARLY, OF_RIG1], True, True),
        ("of a source that is still scanned for the first time", [row("a.tif", tree="rig2", id=999)], True, True),
        ("of no file here", [], True, False),
        ("of a journal that knows of all", [EARLY], False, False),
    ),
)
def test_F100_what_was_there_when_the_journal_was_new(files: list[FileRow], scanned: bool, there: bool) -> None:
    assert was_there(files, FIRST_SCAN.__getitem__ if scanned else None) is there
