"""`check`: checks the config, this machine and S3; one line for each finding, with the fix."""

from __future__ import annotations

from typing import Annotated

import typer

from ncaasd.errors import DeclarationError, NcaasdError
from ncaasd.show.cli.common import NOT_WELL, ConfigOption, JsonOption, command, say_json
from ncaasd.show.places import config_path, read_config


def register(app: typer.Typer) -> None:
    command(app, check, "Is everything as it should be? With the fix.", example="ncaasd check && ncaasd run")


def check(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only what is on this machine; ask nothing of S3.")
    ] = False,
) -> None:
    """Config, manifests, folders, disk, inotify limits, credentials, each S3 permission, the clock: one line each.

    What it puts into S3 are small objects of its own (…/.ncaasd/check-RIG), which start no job, and which it deletes again.
    Ends with 0 when all is well, with 1 when something is wrong.
    """
    from ncaasd.show.check.checks import findings
    from ncaasd.show.check.findings import Finding, Level
    from ncaasd.show.terminal import BAD, DIM, GOOD, WARN, console
    from ncaasd.show.words import plain

    path = config_path(config)
    found: list[Finding] = []
    out = console()
    marks = {Level.GOOD: ("✓", GOOD), Level.BAD: ("✗", BAD), Level.NOTE: ("!", WARN)}

    def say(finding: Finding) -> None:
        found.append(finding)
        if as_json:
            return
        from rich.text import Text

        mark, style = marks[finding.level]
        where = f"{finding.analysis}: " if finding.analysis else ""
        out.print(Text(f"{mark} ", style=style) + Text(plain(f"{where}{finding.what}: {finding.text}")), soft_wrap=True)
        if finding.fix and finding.fix != (found[-2].fix if len(found) > 1 else ""):  # not repeated
            out.print(Text(f"    → {plain(finding.fix)}", style=DIM), soft_wrap=True)

    try:
        loaded = read_config(config)
    except DeclarationError as error:
        for problem in error.problems:
            say(Finding("config", Level.BAD, str(problem)))
    except NcaasdError as error:
        say(Finding("config", Level.BAD, error.message, fix=error.hint))
    else:
        say(Finding("config", Level.GOOD, path))
        for finding in findings(loaded, offline=offline):
            say(finding)
    bad = sum(f.level is Level.BAD for f in found)
    if as_json:
        say_json({"ok": not bad, "findings": [f.document() for f in found]})
    else:
        out.print()
        out.print("all is well" if not bad else f"{bad} of {len(found)} are wrong")
    if bad:
        raise typer.Exit(NOT_WELL)
