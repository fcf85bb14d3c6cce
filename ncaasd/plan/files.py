"""What a local file means, and whether its content may go up now. Pure."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ncaasd.errors import FileUnreadable
from ncaasd.model import FileRow, JobRow, Phase, Place
from ncaasd.neurocaas.naming import Layout, key_problems, needs_mapping, safe_key


class Role(StrEnum):
    """What a file below an analysis's folder is for."""

    INPUT = "input"
    CONFIG = "config"
    MANIFEST = "manifest"  # standing rules
    ONE_OFF = "one-off"  # a manifest in submissions/
    SUBMIT = "submit"  # a hand-written submit file
    NONE = "none"  # nothing of ours


def role_of(path: str) -> Role:
    """By its place: `inputs/…`, `configs/…`, `manifest.yaml`, `submissions/*.yaml`, `submissions/*submit.json`."""
    top, _, rest = path.partition("/")
    if top == "inputs":
        return Role.INPUT
    if top == "configs":
        return Role.CONFIG
    if path == "manifest.yaml":
        return Role.MANIFEST
    if top == "submissions" and rest and "/" not in rest:
        if rest.endswith((".yaml", ".yml")):
            return Role.ONE_OFF
        # The platform's rule is case-sensitive: any key that ends in submit.json starts a job.
        if rest.endswith("submit.json"):
            return Role.SUBMIT
    return Role.NONE


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where a file goes in S3; `refused` says why it must not go up at all."""

    key: str
    refused: str = ""


def map_file(path: str, layout: Layout, *, prefix: str, names: str) -> Mapped:
    """The key of `inputs/…` or `configs/…`; `names` is the config's `upload.names`: sanitize or refuse."""
    role = role_of(path)
    below = path.partition("/")[2]
    safe = safe_key(below)
    key = layout.input_key(prefix, safe) if role is Role.INPUT else layout.config_key(prefix, safe)
    if names == "refuse" and needs_mapping(below):
        return Mapped(key, "its name has characters that NeuroCAAS puts unquoted into a shell line: rename it")
    if role is Role.CONFIG and below.endswith(".yml"):
        return Mapped(key, "NeuroCAAS reads .yaml and .json only: rename it to .yaml")
    problems = key_problems(key)
    return Mapped(key, "; ".join(problems))


def collision(place: Place, others: Sequence[FileRow]) -> str:
    """Why this file can't have its key when `others` map to the same one; "" when it can."""
    for other in others:
        if other.place != place and other.state not in ("gone", "refused"):
            return f"{other.place.path} maps to the same key in S3 already ({other.key}): rename one of them"
    return ""


def found_by_itself(row: FileRow) -> bool:
    """Whether a file is a link to another one that the same scan finds: `latest.tif -> run5.tif`."""
    return bool(row.link) and not row.link.startswith("/")


def unreadable(path: str, error: OSError, uid: int) -> FileUnreadable:
    """What is said of a file that is there and can't be read. `uid`: the daemon's user."""
    code = errno.errorcode.get(error.errno or 0, "")
    if error.errno in (errno.EACCES, errno.EPERM):
        shown = path.encode("utf-8", "backslashreplace").decode()
        hint = (
            f"let the daemon's user (uid {uid}) read it, such as with `chmod a+r {shlex.quote(shown)}`: it goes up then"
        )
    else:
        hint = "check its disk, or copy the file here once more; it is tried again every hour"
    return FileUnreadable(f"{path} cannot be read: {error.strerror} ({code})", hint=hint)


def in_use(row: FileRow, jobs: Sequence[JobRow]) -> JobRow | None:
    """The submitted job that may still be reading the version in S3: the new one must wait for its end (F86)."""
    if row.stored is None:
        return None
    for job in jobs:
        if job.phase in (Phase.INTENT, Phase.ATTEMPTED, Phase.SUBMITTED) and job.verdict is None:
            return job
    return None
