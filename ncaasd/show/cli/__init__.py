"""The command line. `main` is the console script: errors become sentences and exit codes, never tracebacks."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence

from ncaasd.errors import NcaasdError
from ncaasd.show.cli.common import ENVIRONMENT, INTERRUPTED, MISTAKE, complain, exit_code_of

__all__ = ["ENVIRONMENT", "INTERRUPTED", "MISTAKE", "main"]

LOOK_AFTER = 50_000  # new objects


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ncaasd` with `arguments` (None: this process's); ends with SystemExit. Exit codes: docs/cli.md."""
    # Imported objects live until the end: collecting garbage among them, meanwhile and at the end, takes a fifth of a command's
    # time. The daemon, which runs for long, uses Python's own threshold (`engine.service`).
    gc.set_threshold(LOOK_AFTER, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    from ncaasd.show.cli.app import app_for

    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app_for(given)(args=given, prog_name="ncaasd")
    except NcaasdError as error:
        complain(error)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
