"""`fetch`: bring results here, again or for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.choosing import Asked, Ids, YesOption, confirm, nothing, say_effects
from ncaasd.show.cli.common import NOT_WELL, AnalysisOption, ConfigOption, JsonOption, command, note, say_json
from ncaasd.show.places import read_config, reader, state_of

if TYPE_CHECKING:
    from ncaasd.declare.config import Config


def register(app: typer.Typer) -> None:
    command(app, fetch, "Bring the results of jobs here again.", example="ncaasd fetch 482913377120344")


def fetch(
    ids: Ids = None,
    config: ConfigOption = None,
    every: Annotated[bool, typer.Option("--all", help="Of all jobs that have ended.")] = False,
    analysis: AnalysisOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the results of jobs that have ended here again, also those that were deleted here.

    The daemon fetches them in the background. Where none runs, one pass is made now, as `ncaasd once` does.
    """
    from ncaasd.adapters.control import ask
    from ncaasd.engine.commands import select
    from ncaasd.model import Phase
    from ncaasd.show.status import title

    loaded = read_config(config)
    asked = Asked(ids, analysis, "", None, "", every=every)
    with reader(loaded) as journal:
        chosen = select(journal, asked.selection())
    if not asked.ids:
        chosen = [job for job in chosen if job.phase is Phase.ENDED and job.verdict is not None and not job.forgotten]
    if not chosen:
        nothing("fetch", 0, as_json)
        return
    if len(chosen) > 1:
        confirm("fetch", chosen, loaded, yes=yes, silent=as_json)
    rows = [f"#{job.row}" for job in chosen]
    answer = ask(state_of(loaded), {"do": "fetch", "ids": rows})
    if answer is not None:
        done, here = answer["effects"], True
    elif not any(job.phase is Phase.ENDED for job in chosen):
        raise UserError(
            f"{title(chosen[0])} is {chosen[0].state}: results come by themselves when a job has ended",
            hint="start `ncaasd run`, or `ncaasd once --wait`",
        )
    else:
        note("no daemon runs: one pass is made now")
        done, here = _fetch_here(loaded, rows)
    if as_json:
        say_json(done)
    else:
        say_effects(done)
    if not here or not any(effect["done"] for effect in done):
        raise typer.Exit(NOT_WELL)


def _fetch_here(config: Config, rows: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """Mark the jobs and make a pass; (what was done, whether nothing was in the way)."""
    from ncaasd.engine.commands import Selection
    from ncaasd.engine.daemon import Running
    from ncaasd.engine.service import fetch as mark
    from ncaasd.engine.service import run_pass
    from ncaasd.show.cli.passing import PassView

    done: list[dict[str, Any]] = []
    with PassView(config, quiet=False) as view:

        def each(house: Running) -> None:
            if not done:  # in the engine's thread, before the first time that it may be quiet
                with house.journal.transaction():
                    done.extend(mark(house.engine, Selection(ids=tuple(rows))))
            view.turn(house)

        result = run_pass(config, each=each)
    for trouble in result.troubles:
        note(f"ncaasd: {trouble}")
    return done, result.finished and not result.troubles
