"""`fetch`: downloads results, again or for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.choosing import Asked, Ids, YesOption, confirm, nothing, say_effects
from ncaasd.show.cli.common import NOT_WELL, AnalysisOption, ConfigOption, JsonOption, command, note, say_json
from ncaasd.show.places import read_config, reader, state_of

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.declare.config import Config
    from ncaasd.model import JobRow


def register(app: typer.Typer) -> None:
    command(app, fetch, "Bring the results of jobs here again.", example="ncaasd fetch 482913377120344")


def fetch(
    ids: Ids = None,
    config: ConfigOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Of all jobs that have ended, and of all that others started in the group.")
    ] = False,
    analysis: AnalysisOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the results of jobs that have ended here again, also those that were deleted here.

    A job that was started on the website, or by another rig, is looked for in S3 by its id; it is then followed like our own.
    The daemon fetches them in the background. Where none runs, one pass is made now, as `ncaasd once` does.
    """
    from ncaasd.adapters.control import ask
    from ncaasd.model import Phase
    from ncaasd.show.status import title

    loaded = read_config(config)
    asked = Asked(ids, analysis, "", None, "", every=every)
    with reader(loaded) as journal:
        chosen, unknown = _meant(journal, asked)
    if not asked.ids:
        chosen = [job for job in chosen if job.phase is Phase.ENDED and job.verdict is not None and not job.forgotten]
    if not chosen and not unknown and not every:
        nothing("fetch", 0, as_json)
        return
    if len(chosen) > 1:
        confirm("fetch", chosen, loaded, yes=yes, silent=as_json)
    ids = [*(f"#{job.row}" for job in chosen), *unknown]
    answer = ask(state_of(loaded), {"do": "fetch", "ids": ids, "analysis": analysis, "all": every})
    if answer is not None:
        done, here = answer["effects"], True
    elif chosen and not unknown and not every and not any(job.phase is Phase.ENDED for job in chosen):
        raise UserError(
            f"{title(chosen[0])} is {chosen[0].state}: results come by themselves when a job has ended",
            hint="start `ncaasd run`, or `ncaasd once --wait`",
        )
    else:
        note("no daemon runs: one pass is made now")
        done, here = _fetch_here(loaded, ids, analysis, every)
    if as_json:
        say_json(done)
    else:
        say_effects(done)
    if not here or not any(effect["done"] for effect in done):
        raise typer.Exit(NOT_WELL)


def _meant(journal: Journal, asked: Asked) -> tuple[list[JobRow], list[str]]:
    """The chosen jobs that the journal knows, and the names it doesn't know, which may be ids of jobs known to S3 only."""
    from ncaasd.engine.commands import Selection, select

    if not asked.ids:
        return select(journal, asked.selection()), []
    known: dict[int, JobRow] = {}
    unknown = []
    for name in asked.ids:
        try:
            known |= {job.row: job for job in select(journal, Selection(ids=(name,), analysis=asked.analysis))}
        except UserError:
            unknown.append(name)
    return list(known.values()), unknown


def _fetch_here(config: Config, ids: list[str], analysis: str, every: bool) -> tuple[list[dict[str, Any]], bool]:
    """Mark the jobs and make a pass. Returns what was done, and whether the pass finished without trouble."""
    from ncaasd.engine.commands import Selection
    from ncaasd.engine.daemon import Running
    from ncaasd.engine.service import fetch as mark
    from ncaasd.engine.service import find_elsewhere, run_pass
    from ncaasd.show.cli.passing import PassView

    done: list[dict[str, Any]] = []
    selection = Selection(ids=tuple(ids), analysis=analysis)
    with PassView(config, quiet=False) as view:

        def each(runtime: Running) -> None:
            if not done:  # in the engine's thread, before the pass can find nothing to do and end
                found = find_elsewhere(runtime.engine, selection, every=every)
                with runtime.engine.runtime.transaction():
                    done.extend(mark(runtime.engine, selection, found))
            view.turn(runtime)

        result = run_pass(config, each=each)
    for trouble in result.troubles:
        note(f"ncaasd: {trouble}")
    return done, result.finished and not result.troubles
