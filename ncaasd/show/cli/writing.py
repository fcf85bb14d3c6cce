"""`init` and `submit`: write files that people would otherwise write by hand."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncaasd.errors import UserError
from ncaasd.neurocaas.addresses import is_address, split
from ncaasd.show.cli.common import AnalysisOption, ConfigOption, JsonOption, command, note, say_json
from ncaasd.show.places import config_path, read_config, reader_if_any, state_of

if TYPE_CHECKING:
    from ncaasd.declare.config import Config

AREAS = ("inputs", "configs", "submissions", "results")


def register(app: typer.Typer) -> None:
    command(
        app,
        init,
        "Write the config and the folder tree.",
        example="ncaasd init --group user1 --root /data/neurocaas --analysis caiman-ncap-web",
    )
    command(
        app,
        submit,
        "Write a manifest for one job.",
        example="ncaasd submit -d mouse7/a.tif -d mouse7/b.tif -c caiman.yaml",
    )


# -- init


def init(
    config: ConfigOption = None,
    group: Annotated[
        str, typer.Option("--group", help='"S3 Bucket For Datasets and config files" on the NeuroCAAS profile page.')
    ] = "",
    root: Annotated[str, typer.Option("--root", metavar="DIR", help="The folder to watch.")] = "",
    analysis: Annotated[
        list[str] | None, typer.Option("--analysis", metavar="NAME", help="An analysis's bucket; may be given again.")
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="The AWS profile with the group's key; else the default.")
    ] = "",
    endpoint_url: Annotated[str, typer.Option("--endpoint-url", metavar="URL", help="Another S3 than Amazon's.")] = "",
    rig: Annotated[str, typer.Option("--rig", help="This rig's name; else one made of the host's.")] = "",
) -> None:
    """Write the config (where --config says, or its usual place), and make the folders. Asks for what isn't given.

    What is there already is never overwritten. No secret is asked for: the key belongs in ~/.aws or the environment.
    """
    from ncaasd.declare.config import load_config

    path = config_path(config)
    if os.path.lexists(path):
        raise UserError(f"{path} is there already", hint="edit it; or name another with --config")
    group = group or _ask(
        "group", 'The group: "S3 Bucket For Datasets and config files" on your NeuroCAAS profile page'
    )
    root = os.path.abspath(os.path.expanduser(root or _ask("root", "The folder to watch, such as /data/neurocaas")))
    buckets = analysis or _ask("analysis", "The analyses' buckets, such as caiman-ncap-web (spaces between)").split()
    body = _config_text(group, root, buckets, profile, endpoint_url, rig)
    load_config(body, path)  # raises with every problem
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        for bucket in buckets:
            for area in AREAS:
                os.makedirs(os.path.join(root, bucket, area), exist_ok=True)
        _write_new(path, body)
    except OSError as error:
        raise UserError(f"{error.filename or path} can't be made: {error.strerror}") from error
    print(f"wrote {path}")
    for bucket in buckets:
        print(f"made  {os.path.join(root, bucket)}/{{{','.join(AREAS)}}}")
    print("next: `ncaasd check`, then `ncaasd run`. What to run on what is said in a manifest: docs/manifest.md")


def _ask(flag: str, question: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(f"--{flag} is needed", hint="ncaasd init --group G --root DIR --analysis BUCKET")
    return str(typer.prompt(question)).strip()


def _config_text(group: str, root: str, buckets: list[str], profile: str, endpoint_url: str, rig: str) -> bytes:
    def scalar(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)  # JSON's strings are YAML's

    lines = ["# ncaasd: every key, with its default, is in config.example.yaml and docs/config.md"]
    lines += [f"rig: {scalar(rig)}"] if rig else []
    lines += [f"group: {scalar(group)}", f"root: {scalar(root)}", "analyses:"]
    lines += [f"  {scalar(bucket)}: {{}}" for bucket in buckets]
    if profile or endpoint_url:
        lines += ["aws:"]
        lines += [f"  profile: {scalar(profile)}"] if profile else []
        lines += [f"  endpoint_url: {scalar(endpoint_url)}"] if endpoint_url else []
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _write_new(path: str, body: bytes) -> None:
    """Write a file that isn't there yet, whole or not at all. Raises FileExistsError."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails when it is there, unlike a rename
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(17, "is there already", path) from None
            os.rename(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


# -- submit


def submit(
    more: Annotated[list[str] | None, typer.Argument(metavar="DATA", help="More datasets.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", metavar="DATA", help="A file below inputs/, or s3://…; may be given again."),
    ] = None,
    analysis_config: Annotated[
        str, typer.Option("-c", "--analysis-config", metavar="CONFIG", help="A file below configs/, or s3://….")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="The job's name; else made of its data's and config's.")] = "",
    overlay: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Laid over the config; may be given again.")
    ] = None,
    instance_type: Annotated[str, typer.Option("--instance-type", help="Another machine, such as p3.2xlarge.")] = "",
    resultpath: Annotated[str, typer.Option("--resultpath", metavar="S3URL", help="Where results go (bypass).")] = "",
    config: ConfigOption = None,
    analysis: AnalysisOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a manifest for one job into submissions/. Dropping it there is the request; the daemon does the rest.

    Several datasets are one job, processed in parallel, one machine each.
    """
    from ncaasd.declare.manifest import parse_manifest
    from ncaasd.show.manifests import analysis_of, below, one_off

    wanted = [*(data or ()), *(more or ())]
    if not wanted or not analysis_config:
        raise UserError("a job needs data and a config", hint="ncaasd submit -d DATA -c CONFIG")
    loaded = read_config(config)
    analysis = analysis_of(loaded, analysis, wanted[0])
    folder = os.path.join(loaded.root, analysis)
    datasets = [below(d, os.path.join(folder, "inputs"), "datasets") for d in wanted]
    settings = below(analysis_config, os.path.join(folder, "configs"), "configs")
    name = name or _name_of(datasets, settings)
    path = f"submissions/{name}.yaml"
    body = one_off(
        name,
        datasets,
        settings,
        instance_type=instance_type,
        resultpath=resultpath,
        overlay=dict(_setting(item) for item in overlay or ()),
    )
    parse_manifest(body, path, standing=False, sources=loaded.sources, tools=loaded.tools)
    _refuse_known(loaded, analysis, name)
    for area, files in (("inputs", datasets), ("configs", [settings])):
        for file in files:
            if not is_address(file) and not os.path.exists(os.path.join(folder, area, file)):
                note(f"ncaasd: {area}/{file} is not there yet: the job waits for it")
    target = os.path.join(folder, path)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write_new(target, body)
    except FileExistsError as error:
        raise UserError(f"{target} is there already", hint="give the job another --name") from error
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror}") from error
    status = target.removesuffix(".yaml") + ".status.json"
    if as_json:
        say_json({"manifest": target, "name": name, "analysis": analysis, "status": status})
        return
    from ncaasd.adapters.lock import running

    print(f"wrote {target}")
    if running(state_of(loaded)) is None:
        print("no daemon runs: `ncaasd once --wait` does it now")
    else:
        print(f"the daemon takes it up; follow it with `ncaasd job {name}`")


def _name_of(datasets: list[str], settings: str) -> str:
    """`mouse7-a-caiman` of mouse7/a.tif and caiman.yaml; letters, digits, . _ and - only."""
    from ncaasd.neurocaas.naming import transliterated

    named = "/".join(split(datasets[0])) if is_address(datasets[0]) else datasets[0]
    first = named.rpartition(".")[0] or datasets[0]
    parts = [
        first,
        *([f"and-{len(datasets) - 1}-more"] if len(datasets) > 1 else []),
        settings.rpartition("/")[2].rpartition(".")[0],
    ]
    return transliterated("-".join(parts).replace("/", "-")).strip("-._")[-90:].strip("-._")


def _setting(item: str) -> tuple[str, Any]:
    """KEY=VALUE; a value that is JSON (a number, true, a list) is taken as such, anything else as text."""
    key, sign, value = item.partition("=")
    if not (key and sign):
        raise UserError(f"--set {item}: must be KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _refuse_known(config: Config, analysis: str, name: str) -> None:
    """Raise UserError when a job of this name is known: declaring it again would make no new job."""
    from ncaasd.show.status import known_as

    with reader_if_any(config) as journal:
        known = [j for j in journal.jobs(analysis) if j.spec.name == name] if journal is not None else []
    if known:
        raise UserError(
            f"there is a job {name} already: {known_as(known[0])}, {known[0].state}",
            hint=f"`ncaasd rerun {known_as(known[0])}` runs it again; or give this one another --name",
        )
