"""The paths, patterns and names of manifests: what a manifest may reach, and what NeuroCAAS can take.

A manifest can name no path outside inputs/ but through the config's `sources`: whoever can write to a share must not
read files as the daemon.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from ncaasd.declare import template
from ncaasd.declare.kinds import Text
from ncaasd.neurocaas.addresses import is_address, split

_SHELL = re.compile(r"[\s\"'$\\`;&|<>()*?!#~{}\[\]]")


def _relative(text: str) -> str:
    """A path below inputs/ or configs/, or below a source."""
    if text.startswith("/") or re.match(r"[A-Za-z]:[\\/]", text):
        raise ValueError("must not be an absolute path: a manifest reaches files outside inputs/ only through `source`")
    if "\\" in text:
        raise ValueError("must have / between folders, not \\")
    parts = text.split("/")
    if ".." in parts:
        raise ValueError("must not contain ..: a manifest reaches files outside inputs/ only through `source`")
    if "" in parts or "." in parts:
        raise ValueError("must be a path such as mouse7/a.tif, without // or ./ and not ending in /")
    return text


def _below_inputs(text: str) -> str:
    text = _relative(text)
    if text.startswith("inputs/"):
        raise ValueError("is taken below inputs/ already; leave inputs/ out")
    return text


def _pattern(text: str) -> str:
    if is_address(text):
        raise ValueError("must be a pattern below inputs/; data that is in S3 already goes into a one-off job")
    return _below_inputs(text)


def _no_signal(text: str) -> None:
    """Keys with these endings start or end jobs, wherever they are. Source: NeuroCAAS protocol, docs/neurocaas.md."""
    if text.endswith(("submit.json", "end.txt")):
        raise ValueError(
            "must not end in submit.json or end.txt: NeuroCAAS would start or end a job at that name; rename"
        )


def _s3(text: str) -> str:
    if not (is_address(text) and all(split(text))):
        raise ValueError("must be s3://bucket/key")
    if _SHELL.search(text):
        raise ValueError("has characters that NeuroCAAS cannot take (it puts names in a shell line): rename in S3")
    return text


def _one_dataset(text: str) -> str:
    if is_address(text):
        return _s3(text)
    if "*" in text or "?" in text:
        raise ValueError("must be a file; patterns belong in a rule of manifest.yaml")
    text = _below_inputs(text)
    _no_signal(text)
    return text


def _config_name(text: str) -> str:
    """Source: NeuroCAAS protocol, docs/neurocaas.md: with any other ending the job dies silently."""
    if is_address(text):
        text = _s3(text)
    else:
        text = _relative(text)
        if text.startswith("configs/"):
            raise ValueError("is taken below configs/ already; leave configs/ out")
        _no_signal(text)
    if not text.endswith((".yaml", ".json")):
        if text.lower().endswith((".yml", ".yaml")):
            raise ValueError(
                "must end in .yaml: NeuroCAAS knows no .yml and no .YAML; rename the file and write that here"
            )
        raise ValueError("must end in .yaml or .json: NeuroCAAS reads no other")
    return text


def _name_in_s3(text: str) -> str:
    if text in ("content", "keep"):
        return text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(yaml|json)", text):
        raise ValueError("must be content, keep, or a file name such as config.yaml or config.json")
    _no_signal(text)
    return text


def _unit(text: str) -> str:
    text = _below_inputs(text)
    template.check_unit(text)
    return text


def _package_name(text: str) -> str:
    text = _relative(text)
    _no_signal(text)
    return text


def _instance(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", text):
        raise ValueError("must be an AWS instance type such as p3.2xlarge")
    return text


def _resultpath(text: str) -> str:
    return _s3(text).rstrip("/")


Dataset = Annotated[Text, AfterValidator(_one_dataset)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
ConfigName = Annotated[Text, AfterValidator(_config_name)]
NameInS3 = Annotated[Text, AfterValidator(_name_in_s3)]
Unit = Annotated[Text, AfterValidator(_unit)]
PackageName = Annotated[Text, AfterValidator(_package_name)]
ResultPath = Annotated[Text, AfterValidator(_resultpath)]
Instance = Annotated[Text, AfterValidator(_instance)]
