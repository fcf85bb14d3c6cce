"""What every command shares: the config, JSON, sentences for errors. Light: imported before any command is known."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import DeclarationError, NcaasdError, UserError

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.declare.config import Config
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

SYSTEM_CONFIG = "/etc/ncaasd/config.yaml"


def user_config() -> str:
    """Where this user's config is, or would be."""
    import platformdirs

    return os.path.join(platformdirs.user_config_dir("ncaasd"), "config.yaml")


def config_path(given: str | None) -> str:
    """The config to use. The last place is named when there is none, so that the error says what to do."""
    named = given or os.environ.get("NCAASD_CONFIG", "")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    mine = user_config()
    if os.path.exists(mine) or not os.path.exists(SYSTEM_CONFIG):
        return mine
    return SYSTEM_CONFIG


def read_config(given: str | None) -> Config:
    """Raises UserError when it can't be read, DeclarationError with all its problems."""
    from ncaasd.declare.config import load_config
    from ncaasd.declare.yamlio import MAX_BYTES

    path = config_path(given)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"the config {path} can't be read: {error.strerror}",
            hint="`ncaasd init` writes one; or name yours with --config FILE or $NCAASD_CONFIG",
        ) from error
    return load_config(data, path)


def state_of(config: Config) -> str:
    """The state folder: the config's, systemd's, or the user's."""
    import platformdirs

    systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return config.state or systemd or os.path.join(platformdirs.user_state_dir("ncaasd"), config.group)


def journal_of(config: Config) -> str:
    return os.path.join(state_of(config), "journal.sqlite")


@contextmanager
def reader(config: Config) -> Iterator[Journal]:
    """The journal, to read. Raises StateError when there is none."""
    from ncaasd.adapters.journal import open_reader

    journal = open_reader(journal_of(config))
    try:
        yield journal
    finally:
        journal.close()


def one_job(journal: Journal, name: str, analysis: str = "") -> JobRow:
    """The job that `name` (its id, its number here, or its name) means: the newest attempt of it.

    Raises UserError when there is none, or when a rule's name means several.
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
    """What happened on one line (each problem of a file on its own), what to do below it."""
    lines = [str(p) for p in error.problems] if isinstance(error, DeclarationError) else error.message.splitlines()
    for line in lines:
        print(f"ncaasd: {_printable(line)}", file=sys.stderr)
    if error.hint:
        print(f"  → {_printable(error.hint)}", file=sys.stderr)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def exit_code_of(error: NcaasdError) -> int:
    """The user's mistake, or the environment's trouble."""
    return MISTAKE if isinstance(error, UserError) else ENVIRONMENT


def note(sentence: str) -> None:
    """Something beside the answer, on standard error."""
    print(_printable(sentence), file=sys.stderr)
