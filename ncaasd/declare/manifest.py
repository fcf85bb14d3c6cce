"""The manifests: standing rules (`manifest.yaml`) and one-off jobs (`submissions/*.yaml`).

`docs/manifest.md` and the JSON Schema are made from the descriptions here (`python -m ncaasd.declare.generate`).
A manifest can name no path outside inputs/ but through the config's `sources`, and no command but through its `tools`:
whoever can write to a share must not read files, or run code, as the daemon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from ncaasd.declare import reading, template, yamlio
from ncaasd.declare.kinds import Absent, Duration, Listed, Name, Seconds, Text, Whole, Word
from ncaasd.declare.overlay import Overlay, wrong_reserved
from ncaasd.declare.paths import (
    ConfigName,
    Dataset,
    Instance,
    NameInS3,
    PackageName,
    Pattern,
    ResultPath,
    Unit,
)
from ncaasd.declare.reading import Loc, Misfit, Section
from ncaasd.errors import Problem
from ncaasd.neurocaas.addresses import is_address, split


def _known(kind: str, name: str, info: ValidationInfo) -> str:
    """`name`, if the config's `kind` has it. Without a context (the model is made by a program), every name is known."""
    known = (info.context or {}).get(kind)
    if known is not None and name not in known:
        have = ", ".join(sorted(known)) or "there are none"
        raise ValueError(f"must be one of the config's `{kind}` ({have})")
    return name


_SET = (
    "Laid over the config, key by key. Quotes make text; without them true and false are booleans, null is null, numbers are "
    "numbers, and all else is text (so on, 2024-01-02 and 007 are text). Reserved by NeuroCAAS: __duration__ (whole minutes), "
    "__dataset_size__ (whole GB of extra disk)."
)
_INSTANCE = "Another machine than the analysis's own, such as p3.2xlarge."


def _set_faults(overlay: dict[str, Any]) -> Iterator[tuple[Loc, str]]:
    return ((("set", key), message) for key, message in wrong_reserved(overlay))


class PackageTool(Section):
    """A command of the config's `tools` that turns a unit into one file."""

    tool: Text = Field(description="The name of one of the config's `tools`.")
    name: PackageName = Field(description="The file's name, below inputs/; the unit's parts can be used in it.")

    @field_validator("tool")
    @classmethod
    def _tool_is_known(cls, value: str, info: ValidationInfo) -> str:
        return _known("tools", value, info)


def _which_package(value: Any) -> str:
    return "<tool>" if isinstance(value, (dict, PackageTool)) else "<word>"


Package = Annotated[
    Annotated[Literal["none", "zip"], Word, Tag("<word>")] | Annotated[PackageTool, Tag("<tool>")],
    Discriminator(_which_package),
]


class Rule(Section):
    """Every dataset like this gets a job like that."""

    name: Name = Field(description="A job is known by its rule's name and its unit: a renamed rule is a new one.")
    datasets: Annotated[tuple[Pattern, ...], Listed] = Field(
        min_length=1,
        description='Patterns below inputs/ (or the source), or below the unit; "**/" matches any folders, or none. Quotes '
        "are needed where one begins with *.",
    )
    exclude: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(), description="Patterns of what is no dataset after all, and of what in a unit no job needs."
    )
    config: ConfigName = Field(description="Below configs/; .yaml or .json only. The unit's parts can be used in it.")
    config_name: NameInS3 = Field(
        default="content",
        description="content | keep | config.yaml | config.json …: the config's name in S3. content: one of its own for each "
        "content, so that it can be mended while jobs run. keep: its own name; or the name that its analysis opens. Jobs with "
        "different configs under one name run one after the other.",
    )
    key: Annotated[Literal["path", "base"], Word] = Field(
        default="path",
        description="path | base: where datasets lie in S3. base: directly in inputs/, by their file name alone, for an analysis "
        "that looks nowhere else; `upload.prefix` is left out then.",
    )
    source: Annotated[Text | None, Absent] = Field(
        default=None,
        description="A tree of the config's `sources`: only what a job needs is uploaded from it, nothing is copied.",
    )
    unit: Annotated[Unit | None, Absent] = Field(
        default=None,
        description="A folder that belongs together (a session), such as {animal}/{date}_{run}; its parts can be used in "
        "config, set and package. Between two parts, the first one ends as early as it can.",
    )
    complete_when: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(), description="The unit is whole when each of these is in it; nothing of it is uploaded before."
    )
    abort_when: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(),
        description="With one of these in it, the unit is never uploaded, never submitted, and shown as aborted.",
    )
    whole_after: Annotated[Seconds | None, Absent] = Field(
        default=None,
        description="Nothing in the unit must have changed for so long before it is packed or submitted. Without a value: ten "
        "times `watch.settle` where there is no `complete_when`, else 0s.",
    )
    beside: Annotated[Annotated[tuple[Pattern, ...], Listed] | None, Absent] = Field(
        default=None,
        alias="with",
        description="Patterns of what must be in S3, too, before a job is submitted, because its analysis reads what lies beside "
        "its data; something must match each. Without a value: all of the unit that is uploaded. [] is nothing more.",
    )
    overdue: Annotated[Duration | None, Absent] = Field(default=None, description="Not whole for so long: an alarm.")
    package: Package = Field(
        default="none",
        description='none | zip | {tool: frames, name: "{animal}_{date}_{run}.zip"}: the unit is made into one file, by a '
        "reproducible zip or a command of the config's `tools`.",
    )
    job_per: Annotated[Literal["dataset", "unit"], Word] = Field(
        default="dataset",
        description="dataset | unit. One job per dataset is the safe way: the results of one job are not kept apart.",
    )
    set: Overlay = Field(default={}, description=_SET)
    instance_type: Annotated[Instance | None, Absent] = Field(default=None, description=_INSTANCE)
    rerun_on: Annotated[tuple[Annotated[Literal["data", "config"], Word], ...], Listed] = Field(
        default=(), description="[] (once per unit, ever) | [data] | [config]: what makes another job when it changes."
    )
    canary: Whole = Field(default=0, description="So many jobs must be done before the rest is submitted.")

    @property
    def ungated(self) -> bool:
        """Whether only a pause says that a unit is whole, though all of it goes into one package or one job."""
        together = self.package != "none" or self.job_per == "unit"
        return self.unit is not None and together and not self.complete_when and self.whole_after is None

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _known("sources", value, info)

    @model_validator(mode="after")
    def _together(self) -> Rule:
        faults = [*_unit_faults(self), *_part_faults(self), *_set_faults(self.set)]
        if is_address(self.config):
            faults.append(
                (("config",), "must be below configs/; a config that is in S3 already goes into a one-off job")
            )
        if faults:
            raise Misfit(faults)
        return self


def _unit_faults(rule: Rule) -> Iterator[tuple[Loc, str]]:
    """Keys that make sense only with a `unit`."""
    if rule.unit is not None:
        return
    for key, used in (
        ("complete_when", bool(rule.complete_when)),
        ("abort_when", bool(rule.abort_when)),
        ("package", rule.package != "none"),
        ("job_per", rule.job_per == "unit"),
        ("overdue", rule.overdue is not None),
        ("whole_after", rule.whole_after is not None),
    ):
        if used:
            yield (key,), 'needs `unit`: which files belong together? (such as unit: "{animal}/{date}_{run}")'


def _part_faults(rule: Rule) -> Iterator[tuple[Loc, str]]:
    """Parts in braces that the unit's template doesn't have. Without a unit, braces in `set` are text."""
    known = set(template.fields(rule.unit)) if rule.unit else set()
    places: list[tuple[Loc, str]] = [(("config",), rule.config)]
    if isinstance(rule.package, PackageTool):
        places.append((("package", "name"), rule.package.name))
        if known and not template.fields(rule.package.name):
            yield (
                ("package", "name"),
                f"must have a part of the unit in it ({', '.join(sorted(known))}): each unit has its own",
            )
    if rule.unit:
        places += _texts(rule.set, ("set",))
    have = ", ".join(template.fields(rule.unit or "")) or "there is no `unit`"
    for loc, text in places:
        strange = next((name for name in template.fields(text) if name not in known), None)
        if strange is not None:
            yield loc, f"{{{strange}}} is no part of the unit ({have})"


def _texts(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*loc, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, (*loc, number))


class OneOff(Section):
    """One job, now."""

    name: Name = Field(description="The job is known by it: the same name dropped again makes no new job.")
    datasets: Annotated[tuple[Dataset, ...], Listed] = Field(
        min_length=1,
        description="Files below inputs/: one, or a list (one job, its datasets processed in parallel). Or s3:// (storage "
        "bypass: data that is in S3 already), then all of them and the config in one bucket.",
    )
    config: ConfigName = Field(description="Below configs/, .yaml or .json only; or s3://, when the datasets are.")
    resultpath: Annotated[ResultPath | None, Absent] = Field(
        default=None, description="s3://bucket/folder: where results go, instead of the group's own results/."
    )
    instance_type: Annotated[Instance | None, Absent] = Field(default=None, description=_INSTANCE)
    set: Overlay = Field(default={}, description=_SET)

    @property
    def bypass(self) -> bool:
        """Whether data and config are in S3 already."""
        return is_address(self.config)

    @model_validator(mode="after")
    def _together(self) -> OneOff:
        faults = [*_bypass_faults(self), *_same_names(self), *_set_faults(self.set)]
        if faults:
            raise Misfit(faults)
        return self


def _bypass_faults(job: OneOff) -> Iterator[tuple[Loc, str]]:
    """Source: NeuroCAAS protocol, docs/neurocaas.md (storage bypass): the first dataset's bucket is used for all."""
    s3 = [is_address(dataset) for dataset in job.datasets]
    if not any(s3) and not job.bypass:
        return
    if not all(s3):
        yield ("datasets",), "must all be s3:// when the config or one of them is: NeuroCAAS would not find the others"
    if not job.bypass:
        yield ("config",), "must be s3:// too when the datasets are, in their bucket"
    buckets = {split(path)[0] for path in (*job.datasets, job.config) if is_address(path)}
    if len(buckets) > 1:
        yield ("datasets",), f"must be in one bucket with each other and the config; found {', '.join(sorted(buckets))}"
    if job.set and job.bypass:
        yield ("set",), "cannot be laid over a config that is in S3 already; write the values into it"


def _same_names(job: OneOff) -> Iterator[tuple[Loc, str]]:
    """Source: NeuroCAAS protocol, docs/neurocaas.md: logs are named by base name, results are kept in one folder."""
    seen: dict[str, str] = {}
    for number, dataset in enumerate(job.datasets):
        base = dataset.rpartition("/")[2]
        if base in seen:
            yield (
                ("datasets", number),
                f"has the file name of {seen[base]}: their results would mix; make it a job of its own",
            )
        seen.setdefault(base, dataset)


class Manifest(Section):
    """A manifest: `rules` in manifest.yaml, `jobs` in a file in submissions/."""

    rules: tuple[Rule, ...] = Field(default=(), description="Standing rules; in <analysis>/manifest.yaml.")
    jobs: tuple[OneOff, ...] = Field(
        default=(), description="One-off jobs; in any <analysis>/submissions/*.yaml. Dropping the file is the request."
    )


def parse_manifest(
    data: bytes, file: str, *, standing: bool, sources: Collection[str], tools: Collection[str]
) -> Manifest:
    """The manifest in `data`: standing rules, or one-off jobs.

    `file` is the name that problems give; `sources` and `tools` are the names that the config allows. Read at most
    `yamlio.MAX_BYTES` + 1 bytes of the file. Raises DeclarationError with every problem of it.
    """
    document = yamlio.parse(data, file)
    problems = list(document.problems)
    root = document.root
    wanted, other = ("rules", "jobs") if standing else ("jobs", "rules")
    if isinstance(root, yamlio.Mapping) and other in root.entries:
        key = root.entries[other][0]
        problems.append(Problem(file, key.line, key.column, other, _MISPLACED[other]))
    elif isinstance(root, yamlio.Mapping) and not root.entries:
        problems.append(Problem(file, 0, 0, "", f"is empty; it should have `{wanted}:`"))
    elif isinstance(root, yamlio.Mapping) and wanted not in root.entries:
        problems.append(Problem(file, root.line, root.column, wanted, "is missing"))
    problems += _repeated_names(root, wanted, file)
    context = {"sources": frozenset(sources), "tools": frozenset(tools)}
    manifest = reading.check(Manifest, root, file, problems, context)
    reading.finish(problems)
    assert manifest is not None  # there were no problems
    return manifest


_MISPLACED = {
    "jobs": "one-off jobs do not belong here: put them into a file in submissions/, such as submissions/today.yaml",
    "rules": "standing rules do not belong here: put them into the analysis's manifest.yaml",
}


def _repeated_names(root: yamlio.Node, wanted: str, file: str) -> Iterator[Problem]:
    """Duplicate names. They are looked for in the tree, so that they are found even where something else is wrong."""
    listed = root.entries[wanted][1] if isinstance(root, yamlio.Mapping) and wanted in root.entries else root
    seen: dict[str, int] = {}
    for number, item in enumerate(listed.items if isinstance(listed, yamlio.Sequence) else ()):
        named = item.entries.get("name") if isinstance(item, yamlio.Mapping) else None
        if named is None or not isinstance(named[1], yamlio.Scalar):
            continue
        name = named[1]
        if name.text in seen:
            message = (
                f"{yamlio.shorten(name.text)} is the name of another one too (line {seen[name.text]}); names are unique"
            )
            yield Problem(file, name.line, name.column, f"{wanted}[{number}].name", message)
        seen.setdefault(name.text, name.line)
