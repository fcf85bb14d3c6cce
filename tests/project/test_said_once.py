"""What is decided at one place is decided nowhere else. Reads the source; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ncaasd"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in FILES}

each_file = pytest.mark.parametrize("file", list(TREES))


def nodes(file: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(TREES[file]) if isinstance(node, kinds))


@each_file
def test_a_time_that_never_comes_is_of_the_model(file: str) -> None:
    for node in nodes(file, ast.Assign, ast.AnnAssign):
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Constant) and value.value in (1e14, 1e15):
            assert file == "model.py", f"{file}:{value.lineno}: model.NEVER and model.EVENTUALLY are these"


@each_file
def test_waits_that_grow_are_of_one_function(file: str) -> None:
    """`plan.retry.backoff`. The other power of a variable is the step of a plot's axis."""
    for node in nodes(file, ast.BinOp):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not isinstance(node.right, ast.Constant):
            powers = node.left, node.right
            constant = all(
                isinstance(n, ast.Constant) for power in powers for n in ast.walk(power) if isinstance(n, ast.expr)
            )
            assert constant or file in ("plan/retry.py", "sandbox/analysis.py"), f"{file}:{node.lineno}"


CUTS = {
    "startswith",
    "removeprefix",
    "partition",
    "rpartition",
    "split",
    "replace",
    "format",
    "compile",
    "match",
    "fullmatch",
}


@each_file
def test_addresses_in_s3_are_read_and_made_by_one_module(file: str) -> None:
    """`neurocaas.addresses`. Sentences and help texts may say s3://; nothing else tests it, strips it or looks for it."""
    if file == "neurocaas/addresses.py":
        return
    for node in nodes(file, ast.Call, ast.Compare, ast.Assign, ast.AnnAssign):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and node.func.attr in CUTS):
            continue
        whole = isinstance(node, ast.Assign | ast.AnnAssign)
        for text in texts(node):
            assert not (text == "s3://" if whole else "s3://" in text), (
                f"{file}:{node.lineno}: neurocaas.addresses does that"
            )


def texts(node: ast.AST) -> Iterator[str]:
    """The texts that are written out in it; those with values in them are sentences."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for inner in ast.iter_child_nodes(node):
        yield from texts(inner)


SUBJECT_AT = {"event": (1, 2), "events": (1,)}  # of Runtime.event; of Journal.event, which is told the time first


@each_file
def test_subjects_of_events_are_made_by_one_module(file: str) -> None:
    """`ncaasd.subjects`: what is written of a file and what is read of it have one name. What concerns all has none."""
    if file == "subjects.py":
        return
    for node in nodes(file, ast.Call):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SUBJECT_AT:
            places = SUBJECT_AT[node.func.attr]
            after_time = len(places) == 2 and len(node.args) > 4
            given = [k.value for k in node.keywords if k.arg == "subject"] or node.args[places[after_time] :][:1]
            for subject in given:
                assert is_made_there(subject), f"{file}:{node.lineno}: a subject is made by ncaasd.subjects"
    for node in nodes(file, ast.Assign):
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["subject"]:
            assert is_made_there(node.value), f"{file}:{node.lineno}"


def is_made_there(node: ast.expr) -> bool:
    named = isinstance(node, ast.Name) and node.id == "subject"
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("of_")
    of_all = isinstance(node, ast.Attribute) and ast.unparse(node) == "subjects.CONFIG"
    return named or made or of_all or (isinstance(node, ast.Constant) and node.value == "")


@pytest.mark.parametrize("file", [f for f in TREES if f.startswith("adapters/")])
def test_adapters_look_for_subjects_as_they_are_made(file: str) -> None:
    for node in nodes(file, ast.JoinedStr):
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            begins = str(node.values[0].value)
            assert begins not in ("file ", "job ", "unit ", "package ", "result "), f"{file}:{node.lineno}"
