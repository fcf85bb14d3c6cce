"""`pytest` alone is fast: what needs a server is known by its fixtures (SERVERS in tests/conftest.py)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
STARTERS = {"SandboxServer", "Sandbox", "ThreadedMotoServer", "bench", "find_weed"}


def fixtures_that_start_servers() -> set[str]:
    found = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(d) for d in node.decorator_list):
                called = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
                if called & STARTERS:
                    found.add(node.name)
    return found


def test_every_fixture_that_starts_a_server_marks_what_uses_it(request: pytest.FixtureRequest) -> None:
    conftest = next(p for p in request.config.pluginmanager.get_plugins() if getattr(p, "SERVERS", None))
    found = fixtures_that_start_servers()
    assert found >= {"shared", "weed", "moto_endpoint"}, "the search finds those that are there"
    assert found <= conftest.SERVERS
