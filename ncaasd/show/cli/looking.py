"""`status`, `jobs`, `job` and `logs`: the present state and the past."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.common import AnalysisOption, ConfigOption, JsonOption, command, one_job, say_json
from ncaasd.show.places import read_config, read_config_to_look, reader, state_of

if TYPE_CHECKING:
    from ncaasd.declare.config import Config
    from ncaasd.show.status import StatusReport

WATCH_EVERY = 1.0  # seconds
FOLLOW_EVERY = 1.0


def register(app: typer.Typer) -> None:
    command(app, status, "Files and jobs at a glance, live.", example="ncaasd status --watch")
    command(app, jobs, "The table of jobs.", example="ncaasd jobs --state failed --state held")
    command(app, job, "One job: its state, datasets, story.", example="ncaasd job 482913377120344")
    command(app, logs, "A job's logs, readable, also live.", example="ncaasd logs -f 482913377120344")


def status(
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show it anew every second; Ctrl-C ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Files and jobs at a glance: what is under way, what is held, and the command that releases it.

    Asks the running daemon; without one, it shows what the journal knows. A config that is wrong is said, and the rest shown.
    """
    loaded, wrong = read_config_to_look(config)
    if as_json:
        say_json(look(loaded, wrong).document())
        return
    from ncaasd.show.terminal import console, render_status

    out = console()
    if not watch:
        out.print(render_status(look(loaded, wrong)))
        return
    from rich.live import Live

    with Live(render_status(look(loaded, wrong)), console=out, screen=out.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_EVERY)
            live.update(render_status(look(loaded, wrong)), refresh=True)


def look(config: Config, wrong: str = "") -> StatusReport:
    """One look at the journal and, when it runs, at the daemon. `wrong`: what is wrong with the config."""
    from ncaasd.adapters.control import ask
    from ncaasd.adapters.lock import running
    from ncaasd.show.status import status_report

    state = state_of(config)
    pid = running(state)
    answer = ask(state, {"do": "live"}, timeout=5.0) if pid is not None else None
    live = answer["live"] if answer else None
    with reader(config) as journal:
        found = status_report(
            journal,
            live,
            root=config.root,
            analyses=config.analyses,
            pid=pid,
            now=time.time(),
        )
    if wrong and not any(trouble.endswith(wrong) for trouble in found.troubles):
        found = replace(found, troubles=(wrong, *found.troubles))
    return found


def jobs(
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="In this state only; may be given again.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many, the newest.")] = 50,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Also those that were rerun or retried.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The table of jobs, the newest first."""
    from ncaasd.model import JobState

    loaded = read_config(config)
    wrong = [s for s in state or () if s not in {str(known) for known in JobState}]
    if wrong:
        raise UserError(f"{wrong[0]!r} is no state", hint=f"there are: {', '.join(JobState)}")
    if analysis and analysis not in loaded.analyses:
        raise UserError(f"the config has no analysis {analysis!r}", hint=f"it has: {', '.join(loaded.analyses)}")
    with reader(loaded) as journal:
        found = journal.jobs(analysis, newest=not all_attempts, states=state or (), limit=-1 if as_json else limit)
        counts = journal.count_jobs(analysis, newest=not all_attempts)
    like_that = [c for c in counts if not state or c.state in state]
    if as_json:
        from ncaasd.engine.core.documents import job_document

        say_json([job_document(row, loaded.root) for row in found])
        return
    from ncaasd.show.terminal import console, render_jobs

    out = console()
    if not found:
        out.print("no jobs" + (" like that" if counts else " yet"))
        return
    out.print(render_jobs(found, time.time(), analyses=len({c.analysis for c in like_that})))
    older = sum(c.jobs for c in like_that) - len(found)
    if older > 0:
        out.print(f"and {older} older ones (--limit)")


JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, number or name, as in `ncaasd jobs`.")]


def job(
    job_id: JobArgument, config: ConfigOption = None, analysis: AnalysisOption = "", as_json: JsonOption = False
) -> None:
    """One job: its state and why, what it costs, its datasets, where its results are, and its whole story."""
    from ncaasd.show.jobs import job_report

    loaded = read_config(config)
    with reader(loaded) as journal:
        report = job_report(journal, one_job(journal, job_id, analysis), loaded.root, time.time())
    if as_json:
        say_json(report.document())
        return
    from ncaasd.show.terminal import console, facts_text, render_timeline

    out = console()
    print(facts_text(report.facts()), end="\n\n", flush=True)
    out.print(render_timeline(report.events))


def logs(
    job_id: JobArgument,
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Stay, and show what comes, until the job ends.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """A job's logs, readable: what its certificate says, then what each dataset's analysis printed.

    They are those in results/<job>/logs, which the daemon keeps up to date while the job runs (`results.logs: live`).
    """
    from ncaasd.show.joblogs import Following, read_logs

    loaded = read_config(config)
    seen: Following | None = None
    while True:
        with reader(loaded) as journal:
            row = one_job(journal, job_id, analysis)
            found = read_logs(journal, row, loaded.root)
        if as_json:
            say_json(found.document())
            return
        if not follow:
            print(found.text() or _nothing_yet(row), end="")
            return
        seen = seen or Following()
        fresh = seen.news(found)
        if fresh:
            print(fresh, end="", flush=True)
        if row.phase == "ended" or (row.state.ended and found.complete):
            return
        time.sleep(FOLLOW_EVERY)


def _nothing_yet(row: Any) -> str:
    return f"no logs yet: the job is {row.state}" + (f" ({row.reason})" if row.reason else "") + "\n"
