"""What results are called on the disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.adapters.files.localnames import NAME_MAX, NameRules, local_segments, original, told_apart
from ncaasd.errors import UnsafePath

LINUX, WINDOWS, MAC = NameRules(), NameRules(windows=True, folds=True), NameRules(folds=True, normalizes=True)
LONG = "x" * 300 + ".tif"

# `process_results/a.tif`, the usual case, and everything that is not.
CASES = [
    ("process_results/a.tif", "process_results/a.tif", "process_results/a.tif"),
    (
        "logs/DATASET_NAME:a.tif_STATUS.txt",
        "logs/DATASET_NAME:a.tif_STATUS.txt",
        "logs/DATASET_NAME%3Aa.tif_STATUS.txt",
    ),
    ("50% done.txt", "50%25 done.txt", "50%25 done.txt"),
    ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
    ("a/./b", "a/%2E/b", "a/%2E/b"),
    ("/etc/passwd", "%/etc/passwd", "%/etc/passwd"),
    ("a//b", "a/%/b", "a/%/b"),
    ("folder/", "folder/%", "folder/%"),
    ("", "%", "%"),
    ("nul\0byte", "nul%00byte", "nul%00byte"),
    ("two\nlines", "two%0Alines", "two%0Alines"),
    ("...", "...", "..%2E"),
    ("ends in dot.", "ends in dot.", "ends in dot%2E"),
    ("ends in space ", "ends in space ", "ends in space%20"),
    ("back\\slash", "back\\slash", "back%5Cslash"),
    ('q"<>|?*', 'q"<>|?*', "q%22%3C%3E%7C%3F%2A"),
    ("NUL.txt", "NUL.txt", "%4EUL.txt"),
    ("console", "console", "console"),
    ("café", "café", "café"),
]


@pytest.mark.parametrize(("key", "linux", "windows"), CASES)
def test_F70_F72_names(key: str, linux: str, windows: str) -> None:
    assert "/".join(local_segments(key, LINUX)) == linux
    assert "/".join(local_segments(key, WINDOWS)) == windows


def test_F73_where_unicode_forms_are_one_only_ascii_is_used() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert local_segments(composed, MAC) == ("caf%C3%A9",)
    assert local_segments(decomposed, MAC) == ("cafe%CC%81",)


@pytest.mark.parametrize("rules", [LINUX, WINDOWS, MAC])
@given(key=st.text(max_size=20))  # more may be shortened, where each byte is escaped
def test_F72_the_key_can_be_told_from_the_name(rules: NameRules, key: str) -> None:
    if not _is_text(key):
        return
    assert original("/".join(local_segments(key, rules))) == key


@pytest.mark.parametrize("rules", [LINUX, WINDOWS, MAC])
@given(key=st.text(alphabet="./\\%:\0 aé中", max_size=700))
def test_F70_every_name_is_one_that_stays_inside(rules: NameRules, key: str) -> None:
    for segment in local_segments(key, rules):
        assert segment not in ("", ".", "..")
        assert "/" not in segment
        assert "\0" not in segment
        assert len(segment.encode()) <= NAME_MAX


@given(keys=st.lists(st.text(alphabet="aA%/.:~é\u0301", max_size=12), min_size=2, max_size=2, unique=True))
def test_F70_no_two_keys_share_a_name(keys: list[str]) -> None:
    for rules in (LINUX, WINDOWS, MAC):
        assert local_segments(keys[0], rules) != local_segments(keys[1], rules)


def test_F70_overlong_names_are_shortened_and_told_apart() -> None:
    (short,), (other,) = local_segments(LONG, LINUX), local_segments("y" + LONG, LINUX)
    assert len(short) == NAME_MAX
    assert short.startswith("xxx")
    assert short.endswith(".tif")
    assert short != other
    assert local_segments("中" * 300, LINUX)[0].startswith("中" * 80)
    assert local_segments("%" * 300, LINUX)[0].startswith("%25%25")


def test_F70_what_is_not_text_is_refused() -> None:
    with pytest.raises(UnsafePath):
        local_segments("lone \ud800 surrogate", LINUX)


@pytest.mark.parametrize(
    ("name", "other"), [("fig.png", "fig~"), ("fig", "fig~"), (".hidden", ".hidden~"), ("a.b/", "a~")]
)
def test_F73_told_apart_is_stable_and_keeps_the_suffix(name: str, other: str) -> None:
    assert told_apart(name) == told_apart(name)
    assert told_apart(name).startswith(other)
    assert told_apart(name).rpartition(".")[2] == name.rpartition(".")[2] or "." not in name.lstrip(".")
    assert told_apart(name) != told_apart(name.upper())


def _is_text(key: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in key)
