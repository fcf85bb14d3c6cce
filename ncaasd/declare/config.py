"""The config: one YAML file that says which folders belong to which analyses, and how careful to be.

`config.example.yaml`, `docs/config.md` and the JSON Schema are made from the descriptions here and in `sections`
(`python -m ncaasd.declare.generate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ncaasd.declare import kinds, reading, unbuilt, yamlio
from ncaasd.declare.kinds import Absent, Absolute, Bucket, Listed, Name, Takes, Text
from ncaasd.declare.reading import Misfit, Section
from ncaasd.declare.sections import (
    AfterResults,
    Analysis,
    Aws,
    Band,
    Delete,
    Jobs,
    Log,
    Move,
    Notify,
    Results,
    Sections,
    Upload,
    Watch,
    Web,
    bandwidth_limit,
)
from ncaasd.errors import DeclarationError, Problem

__all__ = [
    "AfterResults",
    "Analysis",
    "Aws",
    "Band",
    "Config",
    "Delete",
    "Jobs",
    "Log",
    "Move",
    "Notify",
    "Results",
    "Upload",
    "Watch",
    "Web",
    "bandwidth_limit",
    "inside",
    "load_config",
    "places_only",
]


def _group(text: str) -> str:
    if "/" in text:
        raise ValueError("must be the group alone, without slashes (ncaasd adds inputs/, configs/ … itself)")
    return kinds.name(text)


def _command(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv:
        raise ValueError("must name a program, as a list: [python, frames.py]")
    return argv


def _not_a_line(value: Any) -> Any:
    if isinstance(value, (yamlio.Scalar, str)):
        raise ValueError("must be a list, the program and each argument apart ([python, frames.py]): there is no shell")
    return value


Command = Annotated[tuple[Text, ...], BeforeValidator(_not_a_line), AfterValidator(_command)]


def _off(value: Any) -> Any:
    """`off`, and `false`, which is what YAML 1.1 makes of it."""
    return None if isinstance(value, yamlio.Scalar) and value.text.lower() in ("off", "false") else value


class Config(Sections):
    """Everything optional but `group`, `root` and `analyses`."""

    rig: Annotated[Name | None, Absent] = Field(
        default=None,
        description="This rig's name, another for each machine; else one made of the host's at the first start, and kept in the "
        "state and in the root (`.ncaasd-rig`), whatever becomes of the host's.",
    )
    state: Annotated[Absolute | None, Absent] = Field(
        default=None,
        description="Where the journal and the lock are: on a local disk, outside the root. Else $STATE_DIRECTORY under "
        "systemd, else the platform's user state folder.",
    )
    group: Annotated[Text, AfterValidator(_group)] = Field(
        examples=["user1"], description='"S3 Bucket For Datasets and config files" on the NeuroCAAS profile page.'
    )
    root: Absolute = Field(
        examples=["/data/neurocaas"],
        description="The watched folder: one folder per analysis in it, named as its bucket.",
    )
    analyses: dict[Bucket, Analysis] = Field(
        min_length=1,
        examples=[{"caiman-ncap-web": {}, "dlc-ncap-web": {"aws": {"profile": "dlc"}}}],
        description="The analyses' buckets; any section below can be overridden in each, key by key.",
    )
    sources: dict[Name, Absolute] = Field(
        default={},
        description="Read-only trees that rules may name, such as {rig1: /mnt/rig1}: a manifest can name no path outside "
        "inputs/ but through them.",
    )
    links: Annotated[tuple[Absolute, ...], Listed] = Field(
        default=(),
        description="Folders outside the trees to which symbolic links in inputs/ and in sources may lead, such as "
        "[/mnt/videos]: a link to a file in them is followed, as one to a file of its own tree is; any other is skipped, and "
        "said. Whoever can put a link into a tree can have every file in these folders uploaded.",
    )
    tools: dict[Name, Command] = Field(
        default={},
        description="Commands that rules (`package`) and `after_results.run` may name; a manifest can run nothing else. Each is "
        'a list, the program and its arguments apart, such as {frames: [python3, /opt/rig/frames.py, "{files}", "{out}"]}: there '
        "is no shell. It runs in a folder of its own, so write absolute paths; a program without a slash is looked for in "
        "the daemon's PATH. For a package {files}, alone, becomes one argument per file, and {out} is the file to make; after "
        "the results {results} is the job's folder, and {job} its id.",
    )
    notify: Notify = Notify()
    web: Annotated[Web | None, Takes(_off, also={"enum": ["off", False]})] = Field(
        default=Web(), description="The status page; or off. This version has none yet."
    )
    log: Log = Log()

    @model_validator(mode="after")
    def _together(self) -> Config:
        faults = [*_overlaps(self), *_unknown_tools(self), *unbuilt.of_config(self)]
        if faults:
            raise Misfit(faults)
        return self


def _overlaps(config: Config) -> Iterator[tuple[reading.Loc, str]]:
    """Folders that overlap but must not. Paths are compared as text; `ncaasd check` follows symbolic links."""
    trees = [("", config.root), *config.sources.items()]  # the root has no name
    called = {name: f"the source {name}" if name else "the root" for name, _ in trees}
    owners: dict[str, str] = {}
    for name, path in trees:
        if path in owners:
            yield ("sources", name), f"overlaps {called[owners[path]]}: the same file would be two"
        owners.setdefault(path, name)
    for name, path in trees:
        above = next((owners[folder] for folder in _above(path) if folder in owners), None)
        if above is not None:
            source, other = (name, above) if name else (above, name)
            yield ("sources", source), f"overlaps {called[other]}: the same file would be two"
    if config.state is not None:
        for name, path in trees:
            if inside(config.state, path) or inside(path, config.state):
                yield ("state",), f"must not overlap {called[name]}: it would be watched as if recordings were in it"
        for number, path in enumerate(config.links):
            if inside(config.state, path) or inside(path, config.state):
                yield ("links", number), "must not overlap the state folder: a link could have the journal uploaded"


def _above(path: str) -> Iterator[str]:
    """The folders that `path` is in."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _unknown_tools(config: Config) -> Iterator[tuple[reading.Loc, str]]:
    places: list[tuple[reading.Loc, AfterResults]] = [((), config.after_results)]
    places += [(("analyses", name), analysis.after_results) for name, analysis in config.analyses.items()]
    for where, section in places:
        if section.run is not None and section.run not in config.tools:
            known = ", ".join(config.tools) or "there are none"
            yield (*where, "after_results", "run"), f"{section.run!r} is not one of `tools` ({known})"


def inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it, as text."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def load_config(data: bytes, file: str) -> Config:
    """The config in `data`. `file` is the name that problems give; read at most `yamlio.MAX_BYTES` + 1 bytes of it.

    Raises DeclarationError with every problem of the file.
    """
    document = yamlio.parse(data, file)
    problems = list(document.problems)
    root = document.root
    if isinstance(root, yamlio.Mapping):
        root = _with_analyses_merged(root, file)
    config = reading.check(Config, root, file, problems)
    reading.finish(problems)
    assert config is not None  # there were no problems
    return config


def places_only(data: bytes, file: str) -> Config:
    """The group and the folders of a config that is wrong elsewhere, with all else at its default, so that commands can still
    show what goes on. Raises DeclarationError when these are wrong, too."""
    root = yamlio.parse(data, file).root
    if isinstance(root, yamlio.Mapping):
        wanted = ("rig", "state", "group", "root", "analyses")
        kept: dict[str, tuple[yamlio.Scalar, yamlio.Node]] = {n: e for n, e in root.entries.items() if n in wanted}
        if "analyses" in kept and isinstance(kept["analyses"][1], yamlio.Mapping):
            key, analyses = kept["analyses"][0], kept["analyses"][1]
            bare: dict[str, tuple[yamlio.Scalar, yamlio.Node]] = {
                name: (at, yamlio.Mapping({}, node.line, node.column)) for name, (at, node) in analyses.entries.items()
            }
            kept["analyses"] = (key, yamlio.Mapping(bare, analyses.line, analyses.column))
        root = yamlio.Mapping(kept, root.line, root.column)
    problems: list[Problem] = []
    config = reading.check(Config, root, file, problems)
    reading.finish(problems)
    assert config is not None  # there were no problems
    return config


def _with_analyses_merged(root: yamlio.Mapping, file: str) -> yamlio.Mapping:
    """The file with each analysis's sections laid over the general ones; every value keeps its own place."""
    entry = root.entries.get("analyses")
    if entry is None or not isinstance(entry[1], yamlio.Mapping):
        return root
    analyses = entry[1]
    merged: dict[str, tuple[yamlio.Scalar, yamlio.Node]] = {}
    general = {name: root.entries[name] for name in Sections.model_fields if name in root.entries}
    base = yamlio.Mapping(general, analyses.line, analyses.column)
    if yamlio.count(base) * len(analyses.entries) > yamlio.MAX_NODES:
        message = f"are too many: with the general sections in each, they have more than {yamlio.MAX_NODES:,} values"
        raise DeclarationError([Problem(file, entry[0].line, entry[0].column, "analyses", message)])
    for name, (key, node) in analyses.entries.items():
        merged[name] = (key, _merge(Analysis, base, node))
    entries = {**root.entries, "analyses": (entry[0], yamlio.Mapping(merged, analyses.line, analyses.column))}
    return yamlio.Mapping(entries, root.line, root.column)


def _merge(model: type[Section], base: yamlio.Node, over: yamlio.Node) -> yamlio.Node:
    """`over` laid on `base`, section by section; anything that is no section is replaced whole."""
    if isinstance(over, yamlio.Scalar) and over.is_null:
        return base
    if not (isinstance(base, yamlio.Mapping) and isinstance(over, yamlio.Mapping)):
        return over
    entries = dict(base.entries)
    for name, (key, node) in over.entries.items():
        field = model.model_fields.get(name)
        section = field.annotation if field else None
        if name in entries and isinstance(section, type) and issubclass(section, Section):
            entries[name] = (key, _merge(section, entries[name][1], node))
        else:
            entries[name] = (key, node)
    return yamlio.Mapping(entries, over.line, over.column)
