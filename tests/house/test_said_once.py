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
