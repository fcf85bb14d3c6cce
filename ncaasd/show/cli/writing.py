"""`init`, `submit`, `plan`: files that people would else write by hand."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
