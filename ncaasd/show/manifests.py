"""Manifests that are not dropped yet: which analysis they belong to, and their text. Used by `submit` and `plan`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ncaasd.declare.config import Config
from ncaasd.errors import UserError
from ncaasd.neurocaas.addresses import is_address


def analysis_of(config: Config, given: str, near: str) -> str:
    """The analysis that is meant: the one named, else the one in whose folder `near` lies, else the only one.

    Raises UserError when none of these decides it.
    """
    if given:
        if given not in config.analyses:
            raise UserError(f"the config has no analysis {given!r}", hint=f"it has: {', '.join(config.analyses)}")
        return given
    relative = os.path.relpath(os.path.realpath(near), os.path.realpath(config.root))
    if (top := relative.split(os.sep)[0]) in config.analyses:
        return top
    if len(config.analyses) == 1:
        return next(iter(config.analyses))
    raise UserError("which analysis?", hint=f"--analysis NAME, one of: {', '.join(config.analyses)}")


def below(path: str, folder: str, what: str) -> str:
    """`path` as the manifest names it, relative to `folder` (inputs/ or configs/). It may be absolute, relative to the working
    folder, or relative to `folder` already. An s3:// URL is kept. Raises UserError for a file that lies elsewhere.
    """
    if is_address(path):
        return path
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    inside = relative != ".." and not relative.startswith("../")
    if inside and (os.path.isabs(path) or os.path.lexists(path)):
        return relative
    if os.path.isabs(path) or (os.path.lexists(path) and not os.path.lexists(os.path.join(folder, path))):
        raise UserError(f"{path} is not in {folder}", hint=f"{what} are taken from there: put it there first")
    return path


def one_off(
    name: str,
    datasets: Sequence[str],
    config: str,
    *,
    instance_type: str = "",
    resultpath: str = "",
    overlay: Mapping[str, Any] | None = None,
) -> bytes:
    """The text of a manifest with one job. JSON's scalars are valid YAML, so nothing needs to be escaped by hand."""

    def scalar(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [
        "# Written by `ncaasd submit`. Dropping this file here was the request.",
        "jobs:",
        f"  - name: {scalar(name)}",
    ]
    lines += ["    datasets:", *(f"      - {scalar(dataset)}" for dataset in datasets)]
    lines += [f"    config: {scalar(config)}"]
    lines += [f"    instance_type: {scalar(instance_type)}"] if instance_type else []
    lines += [f"    resultpath: {scalar(resultpath)}"] if resultpath else []
    lines += [f"    set: {scalar(dict(overlay))}"] if overlay else []
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
