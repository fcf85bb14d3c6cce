"""`hold`, `release`, `rerun`, `forget`: a person's decisions. They are carried out by the daemon when it runs, else on the
journal itself, under the lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.show.cli.choosing import (
    Asked,
    Ids,
    RuleOption,
    SinceOption,
    WhereOption,
    YesOption,
    confirm,
    nothing,
    say_effects,
)
from ncaasd.show.cli.common import NOT_WELL, AnalysisOption, ConfigOption, JsonOption, command, say_json
from ncaasd.show.places import journal_of, read_config, reader, state_of

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.declare.config import Config
    from ncaasd.model import JobRow


def register(app: typer.Typer) -> None:
    command(app, hold, "Keep jobs from being submitted.", example="ncaasd hold --rule two-photon")
    command(app, release, "Let held jobs go on.", example="ncaasd release --rule two-photon --yes")
    command(app, rerun, "Run jobs again: each is a new job, and is paid for.", example="ncaasd rerun 482913377120344")
    command(app, forget, "Stop following jobs; they are not made again.", example="ncaasd forget 482913377120344")


def hold(
    ids: Ids = None,
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    rule: RuleOption = "",
    where: WhereOption = None,
    since: SinceOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep jobs from being submitted until they are released.

    What was submitted already can't be called back. Shows what is meant, and asks when it is more than one job.
    """
    _decide("hold", config, Asked(ids, analysis, rule, where, since), yes=yes, as_json=as_json)


def release(
    ids: Ids = None,
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    rule: RuleOption = "",
    where: WhereOption = None,
    since: SinceOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let held jobs go on, past what held them; or held files go up, by their path.

    Shows how many jobs, machines and bytes that is, and asks when it is more than one job.
    """
    _decide("release", config, Asked(ids, analysis, rule, where, since), yes=yes, as_json=as_json)


def rerun(
    ids: Ids = None,
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    rule: RuleOption = "",
    where: WhereOption = None,
    since: SinceOption = "",
    with_config: Annotated[
        str, typer.Option("--with-config", metavar="NAME", help="With this config below configs/, instead of theirs.")
    ] = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run jobs again, with their data, config and rule as they are now. Each gets a new id, and is paid for.

    Shows how many jobs, machines and bytes that is, and asks when it is more than one job. Asked twice, it is done once.
    """
    _decide("rerun", config, Asked(ids, analysis, rule, where, since), yes=yes, as_json=as_json, new=with_config)


def forget(
    ids: Ids = None,
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    rule: RuleOption = "",
    where: WhereOption = None,
    since: SinceOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop following jobs, and don't show them any more. What they left stays, and they are not made again.

    A job that runs at NeuroCAAS goes on there, and is paid for. Asks when it is more than one job.
    """
    _decide("forget", config, Asked(ids, analysis, rule, where, since), yes=yes, as_json=as_json)


def _decide(action: str, config: str | None, asked: Asked, *, yes: bool, as_json: bool, new: str = "") -> None:
    from ncaasd.engine.commands import check_config, held_files, select

    loaded = read_config(config)
    with reader(loaded) as journal:
        files = held_files(journal, asked.ids, asked.analysis) if action == "release" and asked.ids else []
        if files:
            names = {name for row in files for name in (row.place.path, row.place.path.partition("/")[2])}
            asked.ids = tuple(name for name in asked.ids if name not in names)
        meant = select(journal, asked.selection()) if asked.ids or not files else []
        for job in meant if new else ():
            check_config(job, new)
    if files:
        _release_files(loaded, [row.place.path for row in files], as_json=as_json and not meant)
        if not meant:
            return
    # Jobs that were named are all tried, so that the reason is shown if nothing can be done; of a rule's jobs, only those that
    # the action applies to.
    chosen = meant if asked.ids else [job for job in meant if _is_about(action, job)]
    if not chosen:
        nothing(action, len(meant), as_json)
        return
    if len(chosen) > 1:
        confirm(action, chosen, loaded, yes=yes, silent=as_json)
    done = _carry_out(loaded, action, [f"#{job.row}" for job in chosen], new)
    if as_json:
        say_json(done)
    else:
        say_effects(done)
    if not any(effect["done"] for effect in done):
        raise typer.Exit(NOT_WELL)


def _is_about(action: str, job: JobRow) -> bool:
    from ncaasd.model import Hold, Phase

    match action:
        case "hold":
            return job.phase is Phase.OPEN and job.hold is not Hold.PERSON
        case "release":
            return job.hold is not None and job.phase is not Phase.ENDED
        case "rerun":
            return job.phase is Phase.ENDED
        case _:
            return not job.forgotten


def _release_files(config: Config, names: list[str], *, as_json: bool) -> None:
    from ncaasd.adapters.control import ask
    from ncaasd.engine.commands import release_files

    answer = ask(state_of(config), {"do": "release files", "names": names})
    if answer is not None:
        done = [str(name) for name in answer["files"]]
    else:
        with _alone(config) as journal:
            done = [str(row.place) for row in release_files(journal, names, time.time())]
    if as_json:
        say_json([{"file": name, "done": True, "text": "released"} for name in done])
        return
    for name in done:
        print(f"{name}: released; it goes up")


@contextmanager
def _alone(config: Config) -> Iterator[Journal]:
    """The journal, opened for writing under the lock. Raises StateError when a daemon runs."""
    from ncaasd.adapters.journal import open_journal
    from ncaasd.adapters.lock import Locked

    locked = Locked(state_of(config), config.root)
    try:
        journal = open_journal(journal_of(config))
        try:
            yield journal
        finally:
            journal.close()
    finally:
        locked.close()


def _carry_out(config: Config, action: str, ids: list[str], new: str = "") -> list[dict[str, Any]]:
    """Carry out an action by the daemon; without one, on the journal, under the lock. Raises StateError when neither is
    possible."""
    from ncaasd.adapters.control import ask

    answer = ask(state_of(config), {"do": action, "ids": ids} | ({"config": new} if new else {}))
    if answer is not None:
        effects: list[dict[str, Any]] = answer["effects"]
        return effects
    from ncaasd.engine.commands import Selection, apply
    from ncaasd.engine.core.documents import job_document

    with _alone(config) as journal:
        done = apply(journal, action, Selection(ids=tuple(ids)), time.time(), config=new)
    return [{"job": job_document(e.job, config.root), "row": e.job.row, "done": e.done, "text": e.text} for e in done]
