"""The command line. `main` is the console script: the user's mistakes become sentences and exit codes, never traces."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ncaasd.errors import NcaasdError
from ncaasd.show.cli.common import ENVIRONMENT, INTERRUPTED, MISTAKE, complain, exit_code_of

__all__ = ["ENVIRONMENT", "INTERRUPTED", "MISTAKE", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ncaasd` with `arguments` (None: this process's); ends with SystemExit. Exit codes: docs/cli.md."""
    from ncaasd.show.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="ncaasd")
    except NcaasdError as error:
        complain(error)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
