"""The version is in one place, and the changelog's first section is its."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ncaasd

TOP = Path(__file__).parents[2]


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ncaasd.__version__"}


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first[1] == ncaasd.__version__
