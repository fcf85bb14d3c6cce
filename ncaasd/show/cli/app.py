"""The commands, gathered. Every module here is light: what is heavy is imported inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

import ncaasd
from ncaasd.show.cli import checking, cleaning, deciding, fetching, looking, planning, running, trying, writing

app = typer.Typer(
    name="ncaasd",
    help="A folder that runs NeuroCAAS analyses: drop recordings in, results come back.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: fast, and the same in a log file
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ncaasd {ncaasd.__version__}")
        raise typer.Exit


@app.callback(
    epilog="Start with `ncaasd demo`. Then: ncaasd init, ncaasd check, ncaasd run. "
    "Each command has --help with an example. Exit codes: docs/cli.md."
)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and end.")
    ] = False,
) -> None:
    pass


for module in (writing, checking, planning, running, looking, deciding, cleaning, fetching, trying):
    module.register(app)
