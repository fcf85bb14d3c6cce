"""`plan`: what would be done; changes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ncaasd.errors import UserError
from ncaasd.show.cli.common import NOT_WELL, AnalysisOption, ConfigOption, JsonOption, command, note, say_json
from ncaasd.show.places import read_config, reader_if_any

if TYPE_CHECKING:
    from ncaasd.plan.preview import Preview
    from ncaasd.show.foresight import Foresight

SHOWN = 40


def register(app: typer.Typer) -> None:
    command(app, plan, "What would be done; changes nothing.", example="ncaasd plan mouse7.yaml")


def plan(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="A manifest that is not dropped yet.")] = "",
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    as_json: JsonOption = False,
) -> None:
    """What would be uploaded (and as which key), submitted (--json has each exact submit file), fetched, and deleted or moved
    by `after_results`; what each job waits for, what is held and by which guard; how many jobs, machines and bytes. Changes
    nothing, and asks nothing of S3.

    With MANIFEST, which need not be dropped yet: only the jobs it makes. Ends with 1 when a manifest here is wrong, or a
    folder can't be looked at.
    """
    from ncaasd.show.foresight import foresee, foresee_manifest
    from ncaasd.show.manifests import analysis_of

    loaded = read_config(config)
    now = time.time()
    with reader_if_any(loaded) as journal:
        if manifest:
            chosen = analysis_of(loaded, analysis, manifest)
            seen = foresee_manifest(loaded, journal, chosen, _read(manifest), manifest, now)
        else:
            analyses = [analysis_of(loaded, analysis, "")] if analysis else list(loaded.analyses)
            seen = foresee(loaded, journal, analyses, now)
    if as_json:
        say_json(seen.document(loaded.root))
    else:
        _show(seen, one=bool(manifest))
    if seen.troubles:
        raise typer.Exit(NOT_WELL)


def _read(manifest: str) -> bytes:
    from ncaasd.declare.yamlio import MAX_BYTES

    try:
        with open(manifest, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{manifest} can't be read: {os.strerror(error.errno or 0)}") from error


def _show(seen: Foresight, *, one: bool) -> None:
    from ncaasd.show import words
    from ncaasd.show.terminal import console
    from ncaasd.show.words import plain

    out = console()
    for preview in seen.previews:
        if len(seen.previews) > 1:
            out.print(f"{preview.analysis}:")
        _show_uploads(preview)
        _show_jobs(preview, one=one)
        if preview.followed:
            states = ", ".join(f"{j.job_id} {j.state}" for j in preview.followed[:10])
            out.print(f"followed, or being fetched: {words.count(len(preview.followed), 'job')} ({states})")
        _show_fetches(preview)
        _show_removals(preview)
    for warning in seen.warnings:
        out.print(f"warning: {plain(warning)}", soft_wrap=True)
    for trouble in seen.troubles:
        note(f"ncaasd: {plain(trouble)}")


def _show_uploads(preview: Preview) -> None:
    from rich.table import Table

    from ncaasd.show import words
    from ncaasd.show.terminal import console
    from ncaasd.show.words import plain

    out = console()
    going = [u for u in preview.uploads if not u.kept_back]
    kept = [u for u in preview.uploads if u.kept_back]
    out.print(
        f"to upload: {words.count(len(going), 'file')}, {words.size(preview.bytes)}" if going else "to upload: 0 files"
    )
    table = Table.grid(padding=(0, 2))
    for upload in going[:SHOWN]:
        table.add_row(f"  {plain(upload.what)}", words.size(upload.size), f"-> {plain(upload.key)}")
    for upload in kept[: SHOWN - len(going[:SHOWN])]:
        table.add_row(f"  {plain(upload.what)}", words.size(upload.size), f"not now: {plain(upload.kept_back)}")
    if going or kept:
        out.print(table)
    left = len(preview.uploads) - SHOWN
    if left > 0:
        out.print(f"  and {left} more (--json has all)")


def _show_fetches(preview: Preview) -> None:
    from rich.table import Table

    from ncaasd.show import words
    from ncaasd.show.terminal import console
    from ncaasd.show.words import plain

    out = console()
    out.print(f"to fetch: the results of {words.count(len(preview.fetches), 'job')}")
    table = Table.grid(padding=(0, 2))
    for fetch in preview.fetches[:SHOWN]:
        much = "" if fetch.files is None else f"{words.count(fetch.files, 'file')}, {words.size(fetch.size or 0)}"
        table.add_row(
            f"  {plain(fetch.spec.unit or fetch.spec.name)}", f"-> results/{fetch.folder}", much or fetch.when
        )
    if preview.fetches:
        out.print(table)
    if len(preview.fetches) > SHOWN:
        out.print(f"  and {len(preview.fetches) - SHOWN} more (--json has all)")


def _show_removals(preview: Preview) -> None:
    """Only where `after_results` takes anything away."""
    from ncaasd.show import words
    from ncaasd.show.terminal import console
    from ncaasd.show.words import plain

    out = console()
    going = [r for r in preview.removals if not r.kept]
    if not preview.removals:
        out.print("to move or delete: nothing")
        return
    here, away = [r for r in going if r.here], [r for r in going if not r.here]
    out.print(
        f"to move or delete (after_results): {words.count(len(here), 'file')} here ({words.size(sum(r.size for r in here))}),"
        f" {len(away)} in S3 ({words.size(sum(r.size for r in away))})"
    )
    for removal in [*going, *(r for r in preview.removals if r.kept)][:SHOWN]:
        where = "" if removal.here else "in S3: "
        to = f" -> {plain(removal.copy)}" if removal.moves and not removal.kept else ""
        why = f"stays: {plain(removal.kept)}" if removal.kept else plain(removal.condition) or "now"
        out.print(f"  {where}{plain(removal.what)}{to}  {why}", soft_wrap=True)
    if len(preview.removals) > SHOWN:
        out.print(f"  and {len(preview.removals) - SHOWN} more (--json has all)")


def _show_jobs(preview: Preview, *, one: bool) -> None:
    from ncaasd.plan.holds import asks_a_person
    from ncaasd.show import words
    from ncaasd.show.terminal import console, render_plan

    out = console()
    shown = preview.jobs if one else preview.fresh
    if not shown:
        out.print("it makes no job of what is there now" if one else "to submit, or waiting: 0 jobs")
        return
    fresh = preview.fresh
    if not one:
        out.print(f"to submit, or waiting: {words.count(len(fresh), 'job')}")
    out.print(render_plan(shown[:SHOWN]))
    if len(shown) > SHOWN:
        out.print(f"and {len(shown) - SHOWN} more (--json has all)")
    much = f"{words.count(preview.machines, 'machine')}, {words.size(sum(j.size for j in fresh))}"
    new = "new job" if one else "job"
    out.print(f"{words.count(len(fresh), new)} ({much}); {len(preview.jobs) - len(fresh)} made already")
    if any(j.plan == "hold" and asks_a_person(j.guard) for j in fresh):
        out.print("what is held waits for a person: `ncaasd status` has the command for each")
