"""Imports go one way. Reads the source; nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ncaasd"
STDLIB_ONLY = {"model", "errors", "ports", "subjects"}
# Who may import whom, beside itself.
ALLOWED = {
    "model": set(),
    "errors": set(),
    "ports": {"model", "errors"},
    "subjects": {"model"},
    "neurocaas": {"model", "errors"},
    "declare": {"model", "errors", "neurocaas", "plan"},
    "plan": {"model", "errors", "neurocaas", "declare"},
    "adapters": {"model", "errors", "ports", "neurocaas", "declare", "plan"},
    "engine": {"model", "errors", "ports", "neurocaas", "declare", "plan", "adapters", "subjects"},
    "sandbox": {"model", "errors", "neurocaas", "subjects"},
    "show": {"model", "errors", "ports", "subjects", "neurocaas", "declare", "plan", "adapters", "engine", "sandbox"},
}
IMPURE = {
    "os",
    "sqlite3",
    "boto3",
    "botocore",
    "threading",
    "time",
    "socket",
    "subprocess",
    "random",
    "queue",
    "pathlib",
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            if node.module == "ncaasd":
                found |= {f"ncaasd.{name.name}" for name in node.names}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py") or p.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ncaasd" and len(parts) > 1 and parts[1] not in ("__version__", here):
            assert parts[1] in ALLOWED[here], f"{path.relative_to(PACKAGE)} must not import {name}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in ("neurocaas", "plan")], ids=lambda p: p.stem)
def test_decisions_are_pure(path: Path) -> None:
    assert not {n.split(".")[0] for n in imports(path)} & (IMPURE | {"yaml"})


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "adapters"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_adapters_never_import_each_other(path: Path) -> None:
    """A family is one adapter: a subpackage, or s3 with what it is made of."""
    families = {"credentials": "s3"}

    def family(name: str) -> str:
        return "s3" if name.startswith("s3_") else families.get(name, name)

    parts = path.relative_to(PACKAGE).parts
    here = family(parts[1].removesuffix(".py"))
    for name in imports(path):
        names = name.split(".")
        if names[:2] == ["ncaasd", "adapters"] and len(names) > 2:
            assert family(names[2]) == here, f"{path.name} must not import {name}"


def test_the_daemon_alone_knows_the_adapters() -> None:
    """The rest of the engine is given them; only the journal, which it owns, it names."""
    for path in (PACKAGE / "engine").glob("*.py"):
        if path.name in ("daemon.py", "service.py"):
            continue
        named = {n for n in imports(path) if n.startswith("ncaasd.adapters")}
        assert named <= {"ncaasd.adapters.journal", "ncaasd.adapters.s3.probe"}, f"{path.name} names {named}"


def test_the_engine_opens_its_transactions_itself() -> None:
    """So that what is done last within each is done in all; commands are of the command line too, and join the engine's."""
    for path in (PACKAGE / "engine").glob("*.py"):
        if path.name not in ("runtime.py", "commands.py"):
            assert "journal.transaction(" not in path.read_text(), path.name


def test_sql_stays_in_the_journal_and_boto_in_s3() -> None:
    for path in FILES:
        names = {n.split(".")[0] for n in imports(path)}
        relative = path.relative_to(PACKAGE)
        if "sqlite3" in names:
            assert relative.parts[:2] == ("adapters", "journal"), relative
        if names & {"boto3", "botocore"} and relative.parts[0] != "sandbox":
            assert relative.parts[-1] in ("s3.py", "s3_errors.py", "s3_fast.py", "credentials.py") or relative.parts[
                -1
            ].startswith("s3_"), relative


def test_the_nouns_need_only_the_standard_library() -> None:
    for name in STDLIB_ONLY:
        outside = {n.split(".")[0] for n in imports(PACKAGE / f"{name}.py")} - {"ncaasd"}
        assert outside <= {"__future__", "collections", "dataclasses", "enum", "typing"}
