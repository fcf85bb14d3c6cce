"""What ncaasd offers itself is used by it: nothing is kept for tests alone. Reads the source; nothing is imported.

By name: a function counts as used where its name is read anywhere in ncaasd outside its own body. So that is no proof that
it is, but what nothing names isn't. Imports and `__all__` are no uses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ncaasd"
TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# Who else calls it, or why it stays.
CALLED_BY_OTHERS = {
    "adapters/s3/http.py _Received.readinto": "io.RawIOBase's, called by the reader of a response",
    "adapters/watcher.py _Handler.on_any_event": "watchdog calls it",
    "adapters/watcher.py _Instance.add_callback": "watchdog calls it",
    "adapters/watcher.py _Instance.handle_event": "watchdog calls it",
    "declare/analysis_config.py _Dumper.ignore_aliases": "PyYAML calls it",
    "declare/example.py _Plainer.get_title_from_name": "pydantic calls it",
    "engine/core/schedule.py Beat.get_next_fire_time": "APScheduler calls it",
    "engine/core/schedule.py Nightly.get_next_fire_time": "APScheduler calls it",
    "sandbox/server.py SandboxServer.revoke_lab_credentials": "for tests of people's own rigs (docs/sandbox.md)",
    "sandbox/server.py SandboxServer.rotate_lab_credentials": "for tests of people's own rigs (docs/sandbox.md)",
    "sandbox/server.py SandboxServer.submit_versions": "for tests of people's own rigs (docs/sandbox.md)",
    "show/cli/passing.py _AboveBars.emit": "logging calls it",
}
REGISTERED = (
    "command",
    "callback",
    "field_validator",
    "model_validator",
    "field_serializer",
    "model_serializer",
    "validator",
)


def definitions(body: Sequence[ast.stmt], owner: str = "") -> Iterator[tuple[str, Definition]]:
    """(`Class.name`, definition) of all that is public, of a module or a class."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from definitions(node.body, owner)
        if isinstance(node, Definition):
            if not node.name.startswith("_") and not is_registered(node):
                yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{owner}{node.name}.")


def is_registered(node: Definition) -> bool:
    """Whether its decorator gives it to a framework that calls it: Typer's commands, pydantic's validators."""
    called = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any((d.attr if isinstance(d, ast.Attribute) else getattr(d, "id", "")) in REGISTERED for d in called)


def uses() -> dict[str, list[tuple[str, int]]]:
    """name -> where it is read: (file, line)"""
    found: dict[str, list[tuple[str, int]]] = {}
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                name = node.id if isinstance(node, ast.Name) else node.attr
                found.setdefault(name, []).append((file, node.end_lineno or node.lineno))
    return found


def unused() -> set[str]:
    known, found = uses(), set()
    for file, tree in TREES.items():
        for name, node in definitions(tree.body):
            own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if all(where == file and line in own for where, line in known.get(node.name, ())):
                found.add(f"{file} {name}")
    return found


def test_nothing_is_kept_that_only_tests_call() -> None:
    assert unused() - set(CALLED_BY_OTHERS) == set(), "delete it, or move it to the tests that use it"


def test_the_exceptions_are_still_needed() -> None:
    assert set(CALLED_BY_OTHERS) - unused() == set()
