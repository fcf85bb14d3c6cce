"""docs/faults.md has a row for each fault's code that code, tests or docs name, and each row's tests name its code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "faults.md"
CODE = re.compile(r"(?<![A-Za-z0-9])F\d{2,3}(?![A-Za-z0-9])")
ROW = re.compile(r"\| (F\d{2,3}) \| (.+?) \| (.+?) \| (.+?) \|")


def table() -> dict[str, list[str]]:
    """Code -> its test files, below tests/. A line that begins like a row and is none fails."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| F"):
            row = ROW.fullmatch(line)
            assert row is not None, f"not a row of four cells: {line}"
            assert row[1] not in found, f"{row[1]} has two rows"
            found[row[1]] = re.findall(r"`([^`]+)`", row[4])
    return found


TABLE = table()


def codes_in(*patterns: str) -> dict[str, set[str]]:
    """Code -> the files that name it: in a name, a text or a comment."""
    found: dict[str, set[str]] = {}
    for path in (p for pattern in patterns for p in TOP.glob(pattern)):
        if path != PAGE:
            for code in CODE.findall(path.read_text()):
                found.setdefault(code, set()).add(str(path.relative_to(TOP)))
    return found


def test_every_code_that_is_used_has_a_row() -> None:
    used = codes_in("ncaasd/**/*.py", "tests/**/*.py", "docs/**/*.md")
    assert {code: files for code, files in used.items() if code not in TABLE} == {}


@pytest.mark.parametrize("code", TABLE)
def test_the_tests_of_a_row_are_there_and_name_its_code(code: str) -> None:
    assert TABLE[code], "a promise that no test holds"
    for name in TABLE[code]:
        path = TOP / "tests" / name
        assert path.name.startswith("test_") and path.is_file(), f"tests/{name} is not there"
        assert code in CODE.findall(path.read_text()), f"tests/{name} doesn't name {code}"
