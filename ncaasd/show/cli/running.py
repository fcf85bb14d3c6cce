"""`run` and `once`: the daemon, and a single pass."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ncaasd.show.cli.common import (
    ENVIRONMENT,
    INTERRUPTED,
    MISTAKE,
    NOT_WELL,
    WELL,
    ConfigOption,
    JsonOption,
    command,
    say_json,
)
from ncaasd.show.places import config_path, read_config, reader

if TYPE_CHECKING:
    from ncaasd.declare.config import Config
    from ncaasd.show.outcome import PassOutcome


def register(app: typer.Typer) -> None:
    command(app, run, "The daemon, in the foreground.", example="ncaasd run --config /etc/ncaasd/config.yaml")
    command(app, once, "One pass, for scripts and cron.", example="ncaasd once --wait && make figures")


def run(config: ConfigOption = None) -> None:
    """The daemon, in the foreground: watch, upload, submit, follow, fetch, until it is told to stop.

    systemd runs this. Ctrl-C or SIGTERM ends it within seconds; everything goes on where it was when it is started again. A
    changed config is taken up by itself.
    """
    from ncaasd.engine.service import serve
    from ncaasd.show.logs import set_up

    def taken(loaded: Config) -> None:
        set_up(level=loaded.log.level, json_lines=loaded.log.format == "json")

    serve(config_path(config), taken=taken)


def once(
    config: ConfigOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Go on until every job has ended, or needs a person.")] = False,
    as_json: JsonOption = False,
) -> None:
    """One pass: upload what is whole, submit what is ready, look at every unfinished job, fetch what has ended.

    For scripts and cron. Files that are still being written are waited for as long as `watch.settle` says.
    """
    from ncaasd.engine.service import run_pass
    from ncaasd.show.cli.passing import PassView

    loaded = read_config(config)
    stopped = threading.Event()
    old = {number: signal.signal(number, lambda *_: _stop(stopped)) for number in (signal.SIGINT, signal.SIGTERM)}
    began = time.time()
    try:
        with PassView(loaded, quiet=as_json) as view:
            result = run_pass(loaded, wait=wait, each=view.turn, stop=stopped.is_set)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    code = _report(loaded, began, result.troubles, wait=wait, as_json=as_json)
    raise typer.Exit(code if result.finished else INTERRUPTED)


def _stop(stopped: threading.Event) -> None:
    """The first signal ends the pass so that a later one can resume; the second ends it at once."""
    if stopped.is_set():
        raise KeyboardInterrupt
    stopped.set()


def _report(config: Config, began: float, troubles: tuple[str, ...], *, wait: bool, as_json: bool) -> int:
    """Print what happened in the pass. Returns the exit code."""
    from ncaasd.show.outcome import pass_outcome

    with reader(config) as journal:
        outcome = pass_outcome(journal, config.analyses, began, troubles, waited=wait)
    if as_json:
        say_json(outcome.document(config.root))
    else:
        from ncaasd.show.cli.passing import show_outcome

        show_outcome(outcome, time.time())
    return exit_code(outcome)


def exit_code(outcome: PassOutcome) -> int:
    """The pass's exit code: first by its troubles, then by wrong manifests, then by jobs and files."""
    if outcome.troubles:
        return ENVIRONMENT
    if outcome.bad_manifests:
        return MISTAKE
    return NOT_WELL if outcome.bad_jobs or outcome.bad_files else WELL
