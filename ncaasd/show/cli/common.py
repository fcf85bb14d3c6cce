"""What every command shares: the config, JSON, sentences for errors. Light: imported before any command is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import DeclarationError, NcaasdError, UserError

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.model import JobRow

WELL, NOT_WELL, MISTAKE, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 130

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The config; else $NCAASD_CONFIG, else ~/.config/ncaasd/config.yaml, else /etc/ncaasd/config.yaml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
AnalysisOption = Annotated[str, typer.Option("--analysis", metavar="NAME", help="Of this analysis only.")]


def command(app: typer.Typer, function: Callable[..., None], short: str, *, example: str) -> None:
    """Register a function as the command of its name. Its docstring is the help; every command has an example."""
    app.command(function.__name__, short_help=short, epilog=f"Example:  {example}")(function)


def one_job(journal: Journal, name: str, analysis: str = "") -> JobRow:
    """The newest attempt of the job that `name` (its id, its number here, or its name) means.

    Raises UserError when there is no such job, or when a rule's name means several.
    """
    from ncaasd.engine.commands import Selection, select
    from ncaasd.show.status import known_as, newest_attempts, title

    by_id = [j for j in select(journal, Selection(ids=(name,))) if not analysis or j.spec.analysis == analysis]
    exact = [j for j in by_id if j.job_id == name] or by_id
    found = exact if len(exact) == 1 else newest_attempts(exact)
    if not found:
        raise UserError(f"{analysis} has no job {name}", hint="`ncaasd jobs` lists them")
    if len(found) > 1:
        some = ", ".join(f"{known_as(j)} ({title(j)})" for j in found[:3])
        raise UserError(f"{name} means {len(found)} jobs: {some}{' …' if len(found) > 3 else ''}", hint="take one's id")
    return found[0]


def say_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def complain(error: NcaasdError) -> None:
    """Print an error to standard error: what happened, a line for each problem of a file, and below it what to do."""
    lines = [str(p) for p in error.problems] if isinstance(error, DeclarationError) else error.message.splitlines()
    for line in lines:
        print(f"ncaasd: {_printable(line)}", file=sys.stderr)
    if error.hint:
        print(f"  → {_printable(error.hint)}", file=sys.stderr)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def exit_code_of(error: NcaasdError) -> int:
    """MISTAKE for the user's errors, ENVIRONMENT for all others."""
    return MISTAKE if isinstance(error, UserError) else ENVIRONMENT


def note(sentence: str) -> None:
    """Print a remark beside the command's output, to standard error."""
    print(_printable(sentence), file=sys.stderr)
