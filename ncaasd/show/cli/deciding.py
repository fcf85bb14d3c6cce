"""`hold`, `release`, `rerun`, `forget`, `fetch`: what a person decides."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
