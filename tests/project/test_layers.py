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
    "adapters": {"model", "errors", "ports", "subjects", "neurocaas", "declare", "plan"},
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


def package(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """ncaasd.engine.core.mailbox; of a package's own file the package's."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            named = {f"{node.module}.{name.name}" for name in node.names}
            modules = named & EVERY  # `from ncaasd.declare import yamlio` asks the package for nothing of its own
            found |= modules if modules == named else modules | {node.module}
    return found


EVERY = {name_of(p) for p in PACKAGE.rglob("*.py")} | {"ncaasd.__version__"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py") or p.parent != PACKAGE)


MODULES = {name_of(p) for p in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = package(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ncaasd" and len(parts) > 1 and parts[1] not in ("__version__", here):
            assert parts[1] in ALLOWED[here], f"{path.relative_to(PACKAGE)} must not import {name}"


@pytest.mark.parametrize("path", [p for p in FILES if package(p) in ("neurocaas", "plan")], ids=lambda p: p.stem)
def test_decisions_are_pure(path: Path) -> None:
    assert not {n.split(".")[0] for n in imports(path)} & (IMPURE | {"yaml"})


@pytest.mark.parametrize(
    "path", [p for p in FILES if package(p) == "adapters"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_adapters_never_import_each_other(path: Path) -> None:
    """A subpackage is one adapter."""
    here = path.relative_to(PACKAGE).parts[1].removesuffix(".py")
    for name in imports(path):
        names = name.split(".")
        if names[:2] == ["ncaasd", "adapters"] and len(names) > 2:
            assert names[2] == here, f"{path.name} must not import {name}"


def test_the_daemon_alone_knows_the_adapters() -> None:
    """The rest of the engine is given them; only the journal, which it owns, it names."""
    for path in (PACKAGE / "engine").rglob("*.py"):
        if path.name in ("daemon.py", "service.py"):
            continue
        named = {n for n in imports(path) if n.startswith("ncaasd.adapters")}
        others = {n for n in named if not n.startswith("ncaasd.adapters.journal")}
        assert others <= {"ncaasd.adapters.s3.probe"}, f"{path.name} names {others}"


# The engine's folders, each on those before it: the parts of a dataset's way, and what puts them together last.
FLOORS = ("core", "arriving", "following", "submitting", "telling", "")


def floor(module: str) -> int:
    """Of a module of the engine, by its name: ncaasd.engine.core.mailbox."""
    names = module.split(".")
    return FLOORS.index(names[2] if len(names) > 3 else "")


ENGINE = [p for p in FILES if package(p) == "engine" and p.name != "__init__.py"]


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_engines_folders_stand_on_each_other(path: Path) -> None:
    here = floor(name_of(path))
    for name in imports(path):
        if name.startswith("ncaasd.engine.") and name in MODULES:
            assert floor(name) <= here, f"{path.relative_to(PACKAGE)} must not import {name}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also not for a type only."""
    arrows = {name_of(p): {n for n in imports(p) if n in MODULES and n != name_of(p)} for p in FILES}
    left = dict(arrows)
    while done := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in done:
            del left[name]
    assert not left, {name: sorted(wanted & left.keys()) for name, wanted in left.items()}


def test_sql_stays_in_the_journal_and_boto_in_s3() -> None:
    for path in FILES:
        names = {n.split(".")[0] for n in imports(path)}
        relative = path.relative_to(PACKAGE)
        if "sqlite3" in names:
            assert relative.parts[:2] == ("adapters", "journal"), relative
        if names & {"boto3", "botocore"} and relative.parts[0] != "sandbox":
            assert relative.parts[:2] == ("adapters", "s3"), relative


def test_the_nouns_need_only_the_standard_library() -> None:
    for name in STDLIB_ONLY:
        outside = {n.split(".")[0] for n in imports(PACKAGE / f"{name}.py")} - {"ncaasd"}
        assert outside <= {"__future__", "collections", "dataclasses", "enum", "typing"}
