"""What the tests of declarations share: a small right config, and the problems of a wrong file as a table."""

from __future__ import annotations

from collections.abc import Callable

from ncaasd.errors import DeclarationError

CONFIG = "group: user1\nroot: /data/neurocaas\nanalyses:\n  caiman-ncap-web: {}\n"


def problems(call: Callable[[], object]) -> list[tuple[int, int, str, str]]:
    """(line, column, key, message) of every problem that `call` raises; [] when it raises none."""
    try:
        call()
    except DeclarationError as error:
        assert error.problems
        return [(p.line, p.column, p.key, p.message) for p in error.problems]
    return []
