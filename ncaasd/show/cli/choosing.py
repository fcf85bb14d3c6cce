"""Choosing jobs on the command line: the options for it, the preview, the question."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.common import NOT_WELL, WELL, say_json

if TYPE_CHECKING:
    from ncaasd.declare.config import Config
    from ncaasd.engine.commands import Selection
    from ncaasd.model import JobRow

SHOWN = 20

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids, numbers or names, as in `ncaasd jobs`.")]
RuleOption = Annotated[str, typer.Option("--rule", metavar="NAME", help="The jobs of this rule.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="PART=VALUE", help="Whose unit has this part, such as animal=M7; may be given again."
    ),
]
SinceOption = Annotated[
    str,
    typer.Option(
        "--since", metavar="WHEN", help="Declared since: 2d, 3h, today, yesterday, 2026-11-20, 2026-11-20T08:00."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask, also when it is about many jobs.")]


class Asked:
    """The choice of jobs that the command line's arguments make."""

    def __init__(
        self,
        ids: list[str] | None,
        analysis: str,
        rule: str,
        where: list[str] | None,
        since: str,
        *,
        every: bool = False,
    ) -> None:
        self.ids, self.analysis, self.rule = tuple(ids or ()), analysis, rule
        self.where = tuple(_pair(item) for item in where or ())
        self.since = since_when(since, time.time()) if since else 0.0
        if not (self.ids or rule or self.where or since or every):
            raise UserError("which jobs?", hint="give ids, or --rule, --where, --since; `ncaasd jobs` lists them")

    def selection(self) -> Selection:
        from ncaasd.engine.commands import Selection

        return Selection(ids=self.ids, analysis=self.analysis, rule=self.rule, where=self.where, since=self.since)


def _pair(text: str) -> tuple[str, str]:
    part, sign, value = text.partition("=")
    if not (part and sign and value):
        raise UserError(f"--where {text}: must be PART=VALUE, such as animal=M7")
    return part, value


def since_when(text: str, now: float) -> float:
    """A point in time from what people write. Raises UserError."""
    from datetime import datetime, timedelta

    from ncaasd.declare.measures import duration

    today = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return (today - timedelta(days=text == "yesterday")).timestamp()
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        pass
    try:
        return now - duration(text.removesuffix("ago").strip())
    except ValueError:
        raise UserError(
            f"--since {text}: must be such as 2d, 3h, today, yesterday, 2026-11-20 or 2026-11-20T08:00"
        ) from None


def nothing(action: str, meant: int, as_json: bool) -> None:
    if as_json:
        say_json([])
    else:
        print(f"nothing to {action}" + (f" among {meant} jobs" if meant else ": no job is like that"))
    raise typer.Exit(WELL if meant else NOT_WELL)


def confirm(action: str, chosen: Sequence[JobRow], config: Config, *, yes: bool, silent: bool) -> None:
    """Show the chosen jobs and ask. Raises UserError when standard input is no terminal, Exit when the answer is no."""
    from ncaasd.show import words
    from ncaasd.show.terminal import console, render_jobs

    machines, size = sum(max(j.total, len(j.spec.datasets), j.machines) for j in chosen), sum(j.size for j in chosen)
    much = f"{words.count(len(chosen), 'job')}, {words.count(machines, 'machine')}, {words.size(size)}"
    paid = "; each is a new job, and is paid for" if action == "rerun" else ""
    if not silent:
        out = console(stderr=True)
        out.print(render_jobs(chosen[:SHOWN], time.time(), analyses=len(config.analyses)))
        if len(chosen) > SHOWN:
            out.print(f"and {len(chosen) - SHOWN} more")
        out.print(f"{action}: {much}{paid}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{action} is about {much}{paid}", hint="say --yes when that is meant")
    if not typer.confirm(f"{action} them?", err=True):
        raise typer.Exit(NOT_WELL)


def say_effects(effects: Sequence[dict[str, Any]]) -> None:
    for effect in effects:
        job = effect["job"]
        name = job["name"] if job["unit"] in ("", job["name"]) else f"{job['name']} {job['unit']}"
        print(f"{job['id'] or effect['row']}  {name}: {'' if effect['done'] else 'not done: '}{effect['text']}")
