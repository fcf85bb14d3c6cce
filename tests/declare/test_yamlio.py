"""Reading YAML: what a scalar means, where a problem is."""

from __future__ import annotations

import json
import math

import pytest
from declare_tables import problems
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.declare import yamlio


def natural(node: yamlio.Node) -> object:
    """The typed value of a whole tree."""
    if isinstance(node, yamlio.Mapping):
        return {key: natural(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, yamlio.Sequence):
        return [natural(item) for item in node.items]
    return yamlio.natural_scalar(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("2024-01-02", "2024-01-02"),
        ("20240102_01", "20240102_01"),
        ("19:00", "19:00"),
        ("1_000", "1_000"),
        ("007", "007"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("true", True),
        ("false", False),
        ("True", True),
        ("'true'", "true"),
        ("null", None),
        ("~", None),
        ("", {}),
        ("''", ""),
        ("30", 30),
        ("-7", -7),
        ("0", 0),
        ("1.50", 1.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("'30'", "30"),
        ("[1, a, {b: on}]", [1, "a", {"b": "on"}]),
        ("{on: 1, 2024-01-02: 2, 1: 3}", {"on": 1, "2024-01-02": 2, "1": 3}),
        ("{a: &x {p: 1, q: 2}, b: {<<: *x, q: 3}}", {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}}),
    ],
)
def test_natural_values(text: str, value: object) -> None:
    found = natural(yamlio.parse(text.encode(), "x").root)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", ".NaN", "1e999"])
def test_f67_natural_values_are_finite(text: str) -> None:
    with pytest.raises(ValueError, match=r"finite|too large"):
        natural(yamlio.parse(text.encode(), "x").root)


@pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        (b"a: 1\n\tb: 2", 2, 1, "a tab is used for indentation"),
        (b"a:\n  - b\n\t- c", 3, 1, "a tab is used for indentation"),
        (b"a: 1\nb: \xff", 2, 4, "not UTF-8 (byte 0xff)"),
        ("a: 1\nb: ü\n".encode("latin-1"), 2, 4, "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, 1, "is UTF-16"),
        ("a: 1".encode("utf-16-le"), 1, 2, "U+0000"),
        (b"\xef\xbb\xbfa: 1", 1, 1, "begins with a byte-order mark"),
        (b"a: 1\r\nb: \x07", 2, 4, "U+0007"),
        (b"a: 1\n---\nb: 2", 2, 1, "a second document"),
        (b"a: [1,\nb: 2", 1, 4, "is not closed"),
        (b"b: 1\na: 'x\n\n", 2, 4, "is not closed"),
        (b"a: b: c", 1, 5, "mapping values are not allowed"),
        (b"a: **/*.tif", 1, 5, "must be in quotes"),
        (b"a: *tif", 1, 4, "needs quotes"),
        (b"a: &x [*x]", 1, 8, "stands for nothing"),
        (b"a: {x: /a/{path}}", 1, 11, "braces inside braces"),
        (b"? [a]\n: b", 1, 3, "a key must be text"),
    ],
)
def test_what_is_no_yaml_is_refused_at_its_place(data: bytes, line: int, column: int, words: str) -> None:
    ((found_line, found_column, _, message),) = problems(lambda: yamlio.parse(data, "x"))
    assert (found_line, found_column) == (line, column)
    assert words in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2", [(2, 1, "a", 1)]),
        ("a: 1\n'a': 2\nb: 3\nb: 4\nb: 5", [(2, 1, "a", 1), (4, 1, "b", 3), (5, 1, "b", 3)]),
        ("x:\n  - {a: 1}\n  - {b: 1, b: 2}", [(3, 12, "x[1].b", 3)]),
        ("x:\r\n  y:\r\n    a: 1\r\n    a: 2", [(4, 5, "x.y.a", 3)]),
    ],
)
def test_f67_every_duplicate_key_is_named(text: str, expected: list[tuple[int, int, str, int]]) -> None:
    found = yamlio.parse(text.encode(), "x").problems
    assert [(p.line, p.column, p.key) for p in found] == [e[:3] for e in expected]
    assert all(f"first in line {e[3]}" in p.message for p, e in zip(found, expected, strict=True))


def test_tags_are_refused_and_never_make_objects() -> None:
    document = yamlio.parse(b"a: !!python/object/apply:os.system [true]\nb: !!str 1", "x")
    assert [(p.line, p.column) for p in document.problems] == [(1, 4), (2, 4)]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    problems(lambda: yamlio.parse(data, "x"))


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(_values)
def test_json_means_itself(value: object) -> None:
    """What a program writes as JSON, with quotes around text, is read as the same values."""
    text = json.dumps(value, ensure_ascii=True)
    if "\\ud8" in text or "\\ud9" in text or "\\uda" in text or "\\udb" in text:
        return  # JSON's pairs of \u escapes for what lies beyond 16 bits are no YAML
    assert natural(yamlio.parse(text.encode(), "x").root) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(value: float) -> None:
    found = natural(yamlio.parse(repr(value).encode(), "x").root)
    assert isinstance(found, float)
    assert math.isclose(found, value, rel_tol=0, abs_tol=0)
