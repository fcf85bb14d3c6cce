"""The analyses' configs: each trap of the platform, and that laying values over one changes nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from declare_tables import problems
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.declare.analysis_config import read_analysis_config, render_analysis_config
from ncaasd.declare.overlay import wrong_reserved
from ncaasd.errors import DeclarationError


@pytest.mark.parametrize(
    ("name", "data", "line", "words"),
    [
        ("c.yml", b"a: 1", 0, "must end in .yaml"),
        ("c.YAML", b"a: 1", 0, "must end in .yaml"),
        ("c.JSON", b"{}", 0, "must end in .json"),
        ("c.txt", b"a: 1", 0, "must end in .yaml or .json"),
        ("c", b"a: 1", 0, "must end in .yaml or .json"),
        ("mysubmit.json", b'{"a": 1}', 0, "would start a job"),
        ("c.yaml", b"", 0, "is empty"),
        ("c.yaml", b"# nothing", 0, "is empty"),
        ("c.yaml", b"{}", 0, "is empty"),
        ("c.yaml", b"~", 0, "is empty"),
        ("c.yaml", b"[1]", 0, "is no mapping"),
        ("c.yaml", b"just text", 0, "is no mapping"),
        ("c.yaml", b"0", 0, "is no mapping"),
        ("c.yaml", b"a: 1\nb: \xff", 2, "not UTF-8"),
        ("c.yaml", b"a: 1\n\tb: 2", 2, "a tab"),
        ("c.yaml", b"a: 1\na: 2", 2, "here twice"),
        ("c.yaml", b"a: !!python/tuple [1]", 1, "has a tag"),
        ("c.yaml", b"a: !mine 1", 1, "has a tag"),
        ("c.yaml", b"a: 1\n__duration__: '240'", 2, "whole number of minutes"),
        ("c.yaml", b"a: 1\n__duration__: 1.5", 2, "whole number of minutes"),
        ("c.yaml", b"a: 1\n__duration__: 1:30", 2, "whole number of minutes"),
        ("c.yaml", b"a: 1\n__duration__: 0", 2, "1 or more"),
        ("c.yaml", b"a: 1\n__dataset_size__: true", 2, "whole number of GB"),
        ("c.yaml", b"__dataset_size__:", 1, "whole number of GB"),
        ("c.json", b"", 1, "is not JSON"),
        ("c.json", b"{}", 0, "is empty"),
        ("c.json", b"[]", 0, "is empty"),
        ("c.json", b"5", 0, "is no mapping"),
        ("c.json", b'\xef\xbb\xbf{"a": 1}', 1, "byte-order mark"),
        ("c.json", b'{"a": 1,}', 1, "is not JSON"),
        ("c.json", b"a: 1", 1, "is not JSON"),
        ("c.json", b'{\n"a": NaN}', 2, "is no JSON"),
        ("c.json", b'{\n"a": 1,\n"a": 2}', 3, "here twice"),
        ("c.json", b'{\n"__duration__": "240"}', 2, "whole number of minutes"),
        ("c.json", b"[" * 100_000, 1, "nested too deeply"),
        ("c.json", b'{"a": ' + b"9" * 10_000 + b"}", 1, "a number too long"),
    ],
)
def test_what_the_platform_would_drop_is_refused(name: str, data: bytes, line: int, words: str) -> None:
    ((found, _, _, message),) = problems(lambda: read_analysis_config(data, name))
    assert found == line
    assert words in message


@pytest.mark.parametrize(
    ("name", "data", "values"),
    [
        ("c.yaml", b"fr: 30\n__duration__: 240\n", {"fr": 30, "__duration__": 240}),
        ("sub/c.json", b'{"fr": 30, "__dataset_size__": 5}', {"fr": 30, "__dataset_size__": 5}),
        ("c.yaml", b"\xef\xbb\xbfa: 1", {"a": 1}),  # YAML allows the mark, and the platform reads it
        ("c.yaml", b"a: .inf\nb: on", {"a": ".inf", "b": "on"}),  # kept as written
        ("c.yaml", b"base: &b {p: 1}\nmore: {<<: *b, q: 2}", {"base": {"p": 1}, "more": {"q": 2, "p": 1}}),
        ("c.yaml", "ü: é\r\n".encode(), {"ü": "é"}),
    ],
)
def test_what_is_right_is_read(name: str, data: bytes, values: dict[str, Any]) -> None:
    assert read_analysis_config(data, name) == values


def test_values_are_laid_over_deeply_and_lists_are_replaced() -> None:
    values = read_analysis_config(b"a: {x: 1, y: {z: [1, 2]}}\nb: 2\n", "c.yaml")
    out = render_analysis_config(
        values, "c.yaml", {"a": {"y": {"z": [3]}, "w": "on"}, "b": {"now": "a mapping"}, "c": None}
    )
    assert yaml.safe_load(out) == {"a": {"x": 1, "y": {"z": [3]}, "w": "on"}, "b": {"now": "a mapping"}, "c": None}


def test_equal_values_give_equal_bytes() -> None:
    data = b"b: 1\na: {d: on, c: 0x10}\n"
    first, second = (render_analysis_config(read_analysis_config(data, "c.yaml"), "c.yaml", {"x": 1}) for _ in range(2))
    assert first == second == b"b: 1\na:\n  d: on\n  c: 0x10\nx: 1\n"
    assert render_analysis_config({"a": "ü"}, "c.json", {"x": 1}) == '{\n  "a": "ü",\n  "x": 1\n}\n'.encode()


# What people write, and what readers of YAML 1.1 (PyYAML) and 1.2 take for different things.
_WORDS = """on off yes no y n true false True null ~ 1 -1 0 007 010 0o17 0x10 0b11 1_000 1.5 1. .5 1e3 1e-3 1.5e3 1.0e+3 +1
12:30 1:30:00 2024-01-02 2024-01-02T03:04:05Z .inf -.inf .nan a "on" "1" "" '1e-3' a_b ü "\\n" /x/y.z 3d v1.0 1.2.3"""
_SCALARS = [*_WORDS.split(), '"a: b"', "'x #y'", '"  a "', "two words", '!!float "3"', "!!str 5"]
_scalars = st.sampled_from(_SCALARS)
_keys = st.sampled_from(["a", "b", "c d", "on", "1", "2024-01-02", "~", '"1"', "1.5", "y", "é"])


def _mapping(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(_keys, inner), min_size=1, max_size=4, unique_by=lambda pair: pair[0].strip('"'))
    return pairs.map(lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}")


_yaml = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]") | _mapping(inner),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(_mapping(_yaml))
def test_laying_a_value_over_changes_no_other(text: str) -> None:
    """A YAML 1.1 reader finds every other value in the new file as it found it in the old one."""
    before = yaml.safe_load(text)
    after = yaml.safe_load(
        render_analysis_config(read_analysis_config(text.encode(), "c.yaml"), "c.yaml", {"laid over": 7})
    )
    assert after.pop("laid over") == 7
    assert same(before, after)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=5), _json, min_size=1, max_size=4),
    st.dictionaries(st.text(max_size=3), _json, max_size=2),
)
def test_what_is_laid_over_means_the_same_in_both_formats(values: dict[str, Any], overlay: dict[str, Any]) -> None:
    as_json = json.loads(render_analysis_config(values, "c.json", overlay))
    as_yaml = yaml.safe_load(render_analysis_config(values, "c.yaml", overlay))
    assert same(as_json, as_yaml)
    assert all(key in as_json for key in overlay)


@given(st.binary(max_size=100), st.sampled_from(["c.yaml", "c.json"]))
def test_no_bytes_raise_anything_else(data: bytes, name: str) -> None:
    problems(lambda: read_analysis_config(data, name))


def test_every_problem_names_the_file() -> None:
    with pytest.raises(DeclarationError) as caught:
        read_analysis_config(b"a: 1\na: 2\n__duration__: x\n", "sub/c.yaml")
    assert [(p.file, p.line) for p in caught.value.problems] == [("sub/c.yaml", 2), ("sub/c.yaml", 3)]


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("__duration__", 240, True),
        ("__duration__", 1, True),
        ("__duration__", None, False),
        ("__duration__", 0, False),
        ("__duration__", -5, False),
        ("__duration__", "240", False),
        ("__duration__", 30.5, False),
        ("__duration__", 30.0, False),
        ("__duration__", True, False),
        ("__duration__", [240], False),
        ("__dataset_size__", 0, False),
        ("__dataset_size__", 20, True),
        ("__dataset_size__", None, False),
        ("__dataset_size__", -1, False),
        ("__dataset_size__", 20.5, False),
        ("__dataset_size__", "20", False),
    ],
)
def test_reserved_keys(key: str, value: object, right: bool) -> None:
    found = [name for name, _why in wrong_reserved({key: value, "fr": "30"})]
    assert found == ([] if right else [key])
