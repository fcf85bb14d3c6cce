"""Words for people: spans of time, money, names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.neurocaas.text import clean, duration, kind, money, plural, short, shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (90, "90 s"),
        (119, "119 s"),
        (120, "2 min"),
        (1860, "31 min"),
        (3600, "1 h"),
        (5400, "90 min"),
        (7200, "2 h"),
        (172_800, "48 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(300.0, "$300"), (301.056, "$301.06"), (5120.0, "$5,120"), (0.0, "$0"), (5e-05, "$0.00")]
)
def test_money(value: float, said: str) -> None:
    assert money(value) == said


def test_plural() -> None:
    assert [plural(count, "dataset") for count in (0, 1, 2)] == ["0 datasets", "1 dataset", "2 datasets"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("a b.tif", "a b.tif"), ("m\xe4use.tif", "m\xe4use.tif"), ("a\nb", "'a\\nb'"), ("bad\udcff", "'bad\\udcff'")],
)
def test_shown(name: str, said: str) -> None:
    assert shown(name) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x", "a text"),
        (True, "true or false"),
        (1, "a number"),
        (1.5, "a number"),
        ([], "a list"),
        ({}, "a mapping"),
        (None, "nothing (null)"),
        (b"", "a bytes"),
    ],
)
def test_kind(value: object, said: str) -> None:
    assert kind(value) == said


def test_short() -> None:
    assert short("a\n  b\tc") == "a b c"
    assert short("x" * 301) == "x" * 299 + "…"
    assert short("x" * 300) == "x" * 300


@given(st.text(st.characters()))
def test_what_is_clean_can_be_printed_and_does_nothing_to_a_terminal(text: str) -> None:
    found = clean(text)
    found.encode()
    assert not any(ord(char) < 32 and char not in "\n\t" for char in found)
    assert "\x7f" not in found
    assert "\x9b" not in found
