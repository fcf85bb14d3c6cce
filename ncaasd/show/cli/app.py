"""Registers the commands. Every module here is light: heavy modules are imported inside the commands.

Typer reads every command's signature before it runs one, which takes longer than most commands themselves. So when a call
names its command, only the commands of that one's module are registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

import ncaasd

# In the order of the help. A test compares them to what the modules register.
COMMANDS = {
    "writing": ("init", "submit"),
    "checking": ("check",),
    "planning": ("plan",),
    "running": ("run", "once"),
    "looking": ("status", "jobs", "job", "logs"),
    "deciding": ("hold", "release", "rerun", "forget"),
    "cleaning": ("safe",),
    "fetching": ("fetch",),
    "trying": ("sandbox", "demo"),
}


def app_for(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line for `arguments`: with all commands, or those of one module if the first argument names one of them."""
    app = typer.Typer(
        name="ncaasd",
        help="A folder that runs NeuroCAAS analyses: drop recordings in, results come back.",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: fast, and the same in a log file
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(
        epilog="Start with `ncaasd demo`. Then: ncaasd init, ncaasd check, ncaasd run. "
        "Each command has --help with an example. Exit codes: docs/cli.md."
    )(_root)
    named = [module for module, commands in COMMANDS.items() if arguments and arguments[0] in commands]
    for module in named or COMMANDS:
        import_module(f"ncaasd.show.cli.{module}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ncaasd {ncaasd.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and end.")
    ] = False,
) -> None:
    pass
