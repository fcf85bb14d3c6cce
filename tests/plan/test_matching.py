"""Patterns and units: which paths they mean, and that no pattern is slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.plan.matching import UnitTemplate, compile_glob, compile_ignored_path


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("**/*.tif", ["a.tif", "x/a.tif", "x/y/a.tif", ".tif"], ["a.TIF", "a.tiff", "a.tif/x"]),
        ("*.tif", ["a.tif"], ["x/a.tif", "a.tif2"]),
        ("x/*.tif", ["x/a.tif"], ["x/y/a.tif", "a.tif", "X/a.tif"]),
        ("raw/**", ["raw/a", "raw/x/y"], ["raw", "a/raw/b"]),
        ("**", ["a", "a/b"], []),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "x/a/b"]),
        ("**/raw/**/*.t", ["raw/a.t", "x/raw/y/z/a.t", "raw/raw/a.t"], ["raw.t", "x/a.t"]),
        ("**/x/y/**/z", ["x/x/y/z", "x/y/x/y/q/z"], ["x/z/y", "x/y"]),
        ("?.t", ["a.t", "ü.t"], ["ab.t", ".t", "/.t"]),
        ("[a-c]1", ["a1", "c1"], ["d1", "A1", "1"]),
        ("[!a-c]1", ["d1", "A1"], ["a1", "/1"]),
        ("[]x]", ["]", "x"], ["[]x]"]),
        ("[z-a]", [], ["z", "a", "-", "[z-a]"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("a[1", ["a[1"], ["a1"]),
        ("a+(b).{c}^$|\\", ["a+(b).{c}^$|\\"], ["ab"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["ab", "axc", "a/bc"]),
        ("*", ["a", ".a", "a\nb"], ["a/b"]),
        ("[*]", ["*"], ["a"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("20240102_01", ["20240102_01"], ["2024010201"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str]) -> None:
    matches = compile_glob(pattern)
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in others if matches(path)] == []


def slow_glob(pattern: str, path: str) -> bool:
    """The meaning of a pattern, as plainly as it can be written; exponential."""

    def name(glob: str, text: str) -> bool:
        if not glob:
            return not text
        if glob[0] == "*":
            return name(glob[1:], text) or (text != "" and name(glob, text[1:]))
        return text != "" and glob[0] in ("?", text[0]) and name(glob[1:], text[1:])

    def names(globs: list[str], parts: list[str]) -> bool:
        if not globs:
            return not parts
        if globs[0] == "**" and len(globs) == 1:
            return len(parts) > 0
        if globs[0] == "**":
            return names(globs[1:], parts) or (parts != [] and names(globs, parts[1:]))
        return parts != [] and name(globs[0], parts[0]) and names(globs[1:], parts[1:])

    return names(pattern.split("/"), path.split("/"))


_names = st.text("ab", min_size=1, max_size=4)
_globs = st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=5))


@given(st.lists(_globs, min_size=1, max_size=5).map("/".join), st.lists(_names, min_size=1, max_size=6).map("/".join))
def test_globs_mean_what_the_plain_definition_says(pattern: str, path: str) -> None:
    assert compile_glob(pattern)(path) == slow_glob(pattern, path)


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_text_is_a_pattern(pattern: str, path: str) -> None:
    compile_glob(pattern)(path)
    compile_ignored_path([pattern], ())(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 100 + "b", "a" * 4000),
        ("**/" * 100 + "*a" * 50 + "b", "a/" * 400 + "a" * 200),
        ("*a/**/" * 60 + "b", "aaaaaaaaaa/" * 300 + "a"),
        ("**/*/" * 60 + "b", "a/" * 600 + "a"),
        ("?" * 500 + "*" * 200, "a" * 499),
        ("[ab]*" * 200 + "c", "ab" * 1000),
    ],
)
def test_no_pattern_is_slow(pattern: str, path: str) -> None:
    matches = compile_glob(pattern)
    begin = time.process_time()
    assert not matches(path)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("raw/old", "inputs/raw/old", True),
        ("raw/old", "inputs/raw/old/x", False),  # that it lies in a folder that is: whoever walks knows
        ("raw/old", "inputs/x/raw/old", False),
        ("raw/old", "configs/raw/old", False),
        ("/raw/old", "inputs/raw/old", True),
        ("/scratch", "inputs/scratch", True),
        ("scratch/*", "inputs/scratch/x", True),
        ("scratch/*", "inputs/scratch", False),
        ("**/scratch", "inputs/M7/scratch", True),
        ("inputs/raw/old", "inputs/raw/old", True),
        ("configs/old", "configs/old", True),
        ("configs/old", "inputs/configs/old", False),
    ],
)
def test_ignored_paths_are_meant_as_rules_mean_theirs(pattern: str, path: str, ignored: bool) -> None:
    assert compile_ignored_path([pattern], ("inputs", "configs", "submissions"))(path) is ignored


def test_ignored_paths_of_a_source_are_below_it() -> None:
    matches = compile_ignored_path(["raw/old", "inputs/x"], ())
    assert [p for p in ("raw/old", "inputs/raw/old", "inputs/x", "x") if matches(p)] == ["raw/old", "inputs/x"]


@pytest.mark.parametrize(
    ("template", "path", "unit"),
    [
        ("{animal}/{date}_{run}", "M7/2024_3/a.tif", ("M7/2024_3", {"animal": "M7", "date": "2024", "run": "3"})),
        ("{animal}/{date}_{run}", "M7/2024_3/raw/x/a.tif", ("M7/2024_3", {"animal": "M7", "date": "2024", "run": "3"})),
        ("{animal}/{date}_{run}", "M7/2024_01_3/a", ("M7/2024_01_3", {"animal": "M7", "date": "2024", "run": "01_3"})),
        ("{animal}/{date}_{run}", "M7/2024_3", None),  # the folder's own name, no file in it
        ("{animal}/{date}_{run}", "M7/a.tif", None),
        ("{animal}/{date}_{run}", "M7/2024/a.tif", None),
        ("{animal}/{date}_{run}", "M7/_3/a.tif", None),
        ("{animal}/{date}_{run}", "M7/2024_/a.tif", None),
        ("{animal}/{date}_{run}", "M7/__3/a.tif", ("M7/__3", {"animal": "M7", "date": "_", "run": "3"})),
        ("raw/{a}.d", "raw/x.d/f", ("raw/x.d", {"a": "x"})),
        ("raw/{a}.d", "raw/x.d.d/f", ("raw/x.d.d", {"a": "x.d"})),
        ("raw/{a}.d", "raw/.d/f", None),
        ("raw/{a}.d", "RAW/x.d/f", None),
        ("{a}/fixed", "x/fixed/f", ("x/fixed", {"a": "x"})),
        ("{a}/fixed", "x/fixed2/f", None),
        ("{animal}/{animal}_{date}", "M_7/M_7_2024/f", ("M_7/M_7_2024", {"animal": "M_7", "date": "2024"})),
        ("{animal}/{animal}_{date}", "M7/M8_2024/f", None),
        (
            "{animal}/{animal}_{date}",
            "{date}/{date}_2024/f",
            ("{date}/{date}_2024", {"animal": "{date}", "date": "2024"}),
        ),
        ("s{n}_{m}_e", "s1_2_e/f", ("s1_2_e", {"n": "1", "m": "2"})),
        ("s{n}_{m}_e", "s1_e/f", None),
    ],
)
def test_units(template: str, path: str, unit: tuple[str, dict[str, str]] | None) -> None:
    assert UnitTemplate(template).match(path) == unit


@pytest.mark.parametrize(
    "template", ["", "raw", "/{a}", "{a}/", "{a}//{b}", "../{a}", "{a}{b}", "{a}_{a}", "{a}*", "{a b}"]
)
def test_no_templates(template: str) -> None:
    with pytest.raises(ValueError, match=r"must|has|may"):
        UnitTemplate(template)


_part = st.text("ab-.{}", min_size=1, max_size=6) | st.sampled_from(["{animal}", "{date}"])


@given(_part, _part, _part, _names)
def test_what_is_expanded_is_found_again(animal: str, date: str, run: str, file: str) -> None:
    template = UnitTemplate("{animal}/x{date}_{run}")
    fields = {"animal": animal, "date": date, "run": run}
    folder = template.expand(template.text, fields)
    assert template.match(f"{folder}/{file}") == (folder, fields)


def test_expanding_takes_only_the_parts() -> None:
    template = UnitTemplate("{animal}/{date}")
    fields = {"animal": "{date}", "date": "2024"}
    assert template.expand("{animal}-{date}-{run}-{}-{ animal }", fields) == "{date}-2024-{run}-{}-{ animal }"
