"""`safe`: what a rig may clean up. Deletes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.common import NOT_WELL, ConfigOption, JsonOption, command, say_json
from ncaasd.show.places import read_config, reader

SHOWN = 200


def register(app: typer.Typer) -> None:
    command(app, safe, "Which recordings may be cleaned up; deletes nothing.", example="ncaasd safe inputs/M7 --json")


def safe(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A recording, or a folder: in inputs/ or in a source.")],
    config: ConfigOption = None,
    copy_at: Annotated[
        str,
        typer.Option("--copy-at", metavar="WHERE", help="Where the archive has its copies, such as '/archive/{path}'."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Which recordings at or below PATH are stored, analysed, fetched and archived: with equal bytes in S3 (its checksum is
    shown), a job of them that is done, all its results here, and an equal copy in the archive. Deletes nothing.

    NeuroCAAS gives inputs back to nobody, so S3 alone is no copy: without an archive nothing is safe. Ends with 0 when
    all of it is safe, else with 1.
    """
    from ncaasd.show import words
    from ncaasd.show.safety import judge
    from ncaasd.show.terminal import console
    from ncaasd.show.words import plain

    if copy_at and "{path}" not in copy_at:
        raise UserError("--copy-at must have {path} in it, such as '/archive/{path}'")
    loaded = read_config(config)
    with reader(loaded) as journal:
        verdicts = judge(loaded, journal, path, copy_at)
    unsafe = [v for v in verdicts if not v.safe]
    if as_json:
        say_json([v.document() for v in verdicts])
    else:
        out = console()
        for verdict in verdicts[:SHOWN]:
            stored = f"in S3 {verdict.key}, crc64nvme {verdict.crc64}"
            said = f"safe     {plain(verdict.path)}  {stored}" if verdict.safe else ""
            out.print(said or f"not safe {plain(verdict.path)}: {plain(verdict.why)}", soft_wrap=True)
        if len(verdicts) > SHOWN:
            out.print(f"and {len(verdicts) - SHOWN} more (--json has all)")
        size = sum(v.size for v in verdicts if v.safe)
        out.print(
            f"{len(verdicts) - len(unsafe)} of {words.count(len(verdicts), 'file')} safe to delete ({words.size(size)})"
        )
    if unsafe or not verdicts:
        raise typer.Exit(NOT_WELL)
