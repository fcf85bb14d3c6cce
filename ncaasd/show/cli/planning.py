"""`plan`: what would be done; changes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ncaasd.errors import NcaasdError, UserError
from ncaasd.show.cli.common import AnalysisOption, ConfigOption, JsonOption, command, note, say_json
from ncaasd.show.places import read_config, reader_if_any

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.declare.config import Config
    from ncaasd.model import FileRow
    from ncaasd.show.manifests import Planned

SHOWN = 40


def register(app: typer.Typer) -> None:
    command(app, plan, "What would be uploaded and submitted; changes nothing.", example="ncaasd plan mouse7.yaml")


def plan(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="A manifest that is not dropped yet.")] = "",
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    as_json: JsonOption = False,
) -> None:
    """What a manifest would do: which jobs it makes, which exist already, what each waits for. Changes nothing.

    Without MANIFEST: what is to be uploaded, submitted and fetched now, and what each job waits for.
    """
    loaded = read_config(config)
    with reader_if_any(loaded) as journal:
        if not manifest:
            if journal is None:
                raise UserError(
                    "nothing is known yet", hint="`ncaasd once` looks; or name a manifest: ncaasd plan FILE"
                )
            _plan_now(loaded, journal, as_json)
            return
        planned = _plan_file(loaded, journal, manifest, analysis)
    if as_json:
        say_json([p.document(loaded.root) for p in planned])
        return
    _show_plan(planned)


def _plan_file(config: Config, journal: Journal | None, manifest: str, analysis: str) -> list[Planned]:
    from ncaasd.show.manifests import analysis_of, plan_manifest, read_manifest

    try:
        with open(manifest, "rb") as file:
            data = file.read(4 * 2**20)
    except OSError as error:
        raise UserError(f"{manifest} can't be read: {error.strerror}") from error
    analysis = analysis_of(config, analysis, manifest)
    parsed = read_manifest(data, manifest, config)
    folder = os.path.join(config.root, analysis)
    files = _files(config, journal, analysis)

    def config_there(name: str) -> bool:
        return os.path.isfile(os.path.join(folder, "configs", name))

    return plan_manifest(parsed, os.path.basename(manifest), analysis, config, files, journal, config_there)


def _files(config: Config, journal: Journal | None, analysis: str) -> list[FileRow]:
    """What the journal knows, and what is on the disk besides."""
    from ncaasd.adapters.files.tree import LocalTree
    from ncaasd.model import FileRow, FileState, Place
    from ncaasd.neurocaas.naming import Layout
    from ncaasd.plan.files import map_file

    settings = config.analyses[analysis]
    known = {f.place: f for f in journal.files(analysis)} if journal is not None else {}
    trees = {"": os.path.join(config.root, analysis), **config.sources}
    for tree, path in trees.items():
        try:
            seen = LocalTree(path, ignore=settings.watch.ignore, **({} if not tree else {"within": ()})).scan({})
        except NcaasdError as error:
            note(f"ncaasd: {error}")
            continue
        for file, stat in seen.changed.items():
            place = Place(analysis, tree, file)
            shown = file if not tree else f"inputs/{file}"
            if place in known or not shown.startswith("inputs/"):
                continue
            key = map_file(
                shown, Layout(analysis, config.group), prefix=settings.upload.prefix, names=settings.upload.names
            )
            state = FileState.REFUSED if key.refused else FileState.WHOLE
            known[place] = FileRow(0, place, stat, state, key.refused, 0.0, key.key, None, "", 0.0, 0)
    return list(known.values())


def _show_plan(planned: list[Planned]) -> None:
    from ncaasd.show import words
    from ncaasd.show.terminal import console, render_plan

    out = console()
    if not planned:
        out.print("it makes no job of what is there now")
        return
    out.print(render_plan(planned[:SHOWN]))
    if len(planned) > SHOWN:
        out.print(f"and {len(planned) - SHOWN} more (--json has all)")
    fresh = [p for p in planned if p.known is None]
    machines = sum(len(p.spec.datasets) for p in fresh)
    much = f"{words.count(machines, 'machine')}, {words.size(sum(p.size for p in fresh))}"
    out.print(f"{words.count(len(fresh), 'new job')} ({much}); {len(planned) - len(fresh)} made already")


def _plan_now(config: Config, journal: Journal, as_json: bool) -> None:
    from ncaasd.engine.documents import job_document
    from ncaasd.model import FileState, JobState, Phase
    from ncaasd.show import words
    from ncaasd.show.terminal import console, render_jobs

    uploads = [
        f
        for name in config.analyses
        for f in journal.files(name, states=[FileState.SETTLING, FileState.WHOLE])
        if f.key
    ]
    jobs = [j for j in journal.jobs(unfinished=True) if j.spec.analysis in config.analyses]
    if as_json:
        say_json(
            {
                "uploads": [
                    {"file": str(f.place), "state": str(f.state), "bytes": f.stat.size, "reason": f.reason}
                    for f in uploads
                ],
                "jobs": [job_document(j, config.root) for j in jobs],
            }
        )
        return
    out = console()
    size = sum(f.stat.size for f in uploads)
    out.print(f"to upload: {words.count(len(uploads), 'file')}" + (f", {words.size(size)}" if uploads else ""))
    open_jobs = [j for j in jobs if j.phase is Phase.OPEN]
    followed = [j for j in jobs if j.phase is not Phase.OPEN]
    for title, group in (("to submit, or waiting", open_jobs), ("followed, or being fetched", followed)):
        out.print(f"{title}: {words.count(len(group), 'job')}")
        if group:
            out.print(render_jobs(group[:SHOWN], time.time(), analyses=len(config.analyses)))
    held = sum(j.state is JobState.HELD for j in jobs)
    if held:
        out.print("`ncaasd status` names the commands that release what is held")
