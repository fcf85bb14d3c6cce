"""`sandbox` and `demo`: a NeuroCAAS on this machine."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.common import command


def register(app: typer.Typer) -> None:
    command(
        app,
        sandbox,
        "A NeuroCAAS on this machine.",
        example="ncaasd sandbox /tmp/box --analysis 'python mine.py {data} {config} {results}'",
    )
    command(app, demo, "The whole loop on this machine, in seconds.", example="ncaasd demo --keep /tmp/demo")


def sandbox(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Where it keeps its data over restarts.")
    ] = "ncaasd-sandbox",
    analysis: Annotated[
        str,
        typer.Option("--analysis", metavar="CMD", help="The analysis: a command with {data} {config} {results} in it."),
    ] = "",
    bucket: Annotated[
        list[str] | None, typer.Option("--bucket", metavar="NAME", help="An analysis's name; may be given again.")
    ] = None,
    group: Annotated[str, typer.Option("--group", help="The group's name.")] = "lab",
    scenario: Annotated[str, typer.Option("--scenario", metavar="NAME", help="How jobs go there.")] = "",
    list_scenarios: Annotated[bool, typer.Option("--list-scenarios", help="Say which there are, and end.")] = False,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="The S3 port; else a free one.")] = None,
    pace: Annotated[float, typer.Option("--pace", min=0.0, help="Seconds between two steps of a job.")] = 0.5,
    lab_bucket: Annotated[
        list[str] | None,
        typer.Option("--lab-bucket", metavar="NAME", help="A bucket of the lab's own (storage bypass)."),
    ] = None,
    public_bucket: Annotated[
        list[str] | None, typer.Option("--public-bucket", metavar="NAME", help="A bucket that anybody may read.")
    ] = None,
) -> None:
    """A NeuroCAAS on this machine, until Ctrl-C: S3 with a group's permissions, and a job manager that runs your analysis.

    It prints a config to use with it. For trying things out: it is open to everybody on this machine.
    """
    from ncaasd.sandbox.home import run_sandbox
    from ncaasd.sandbox.scenarios import SCENARIOS

    if list_scenarios:
        width = max(map(len, SCENARIOS))
        for each in SCENARIOS.values():
            print(f"{each.name:<{width}}  {each.sentence}")
        return
    if scenario and scenario not in SCENARIOS:
        raise UserError(
            f"there is no scenario {scenario!r}", hint="`ncaasd sandbox --list-scenarios` says which there are"
        )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_sandbox(
        folder,
        echo=lambda line: print(line, flush=True),
        stop=stop,
        analyses=tuple(bucket or ["demo-analysis"]),
        group=group,
        analysis_command=analysis or None,
        pace=pace,
        scenario=scenario or None,
        port=port,
        lab_buckets=tuple(lab_bucket or ()),
        public_buckets=tuple(public_bucket or ()),
    )


def demo(
    keep: Annotated[
        str, typer.Option("--keep", metavar="DIR", help="Keep the folder and what was made in it, in this new folder.")
    ] = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, max=600.0, help="Length of the recording of this machine.")
    ] = 4.0,
) -> None:
    """The whole loop on this machine, in seconds: a recording goes up, a job runs on it, its results come back.

    Records this machine's processor, memory and disks, and has a small real analysis make a table and a plot of it, in a
    sandbox that is taken down again. Nothing leaves this machine.
    """
    from ncaasd.sandbox.demo import run_demo

    run_demo(keep=keep or None, seconds=seconds, echo=lambda line: print(line, flush=True))
