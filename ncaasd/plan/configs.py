"""The config that a job gets: its rule's file with `set` laid over it, and the key in S3. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ncaasd.declare.analysis_config import read_analysis_config, render_analysis_config
from ncaasd.errors import DeclarationError
from ncaasd.model import FileRow, FileState, JobSpec
from ncaasd.neurocaas.addresses import is_address
from ncaasd.neurocaas.naming import Layout, config_name, safe_key

CONTENT, KEEP = "content", "keep"  # values of a rule's `config_name`; any other value is the name itself


@dataclass(frozen=True, slots=True)
class Rendered:
    """A key in S3 and the content for it, or the problem. `shared`: other jobs may have another content at that key."""

    key: str = ""
    content: bytes = b""
    problem: str = ""
    shared: bool = False

    @property
    def etag(self) -> str:
        """The ETag that S3 gives this content."""
        return etag_of(self.content)


def etag_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def render(text: bytes, name: str, overlay: str, layout: Layout, as_name: str = CONTENT) -> Rendered:
    """`text`: the file `configs/<name>`; `overlay`: JSON; `as_name`: the rule's `config_name`. Without an overlay the bytes are
    the file's own, unless its name in S3 has another ending: a worker that opens config.json can't read YAML."""
    written = name if as_name in (CONTENT, KEEP) else as_name
    try:
        values = read_analysis_config(text, f"configs/{name}")
        over = json.loads(overlay)
        own = not over and name.rpartition(".")[2] == written.rpartition(".")[2]
        content = text if own else render_analysis_config(values, written, over)
    except DeclarationError as error:
        return Rendered(problem=f"a config that can be used: {error.problems[0]}")
    if as_name == CONTENT:
        return Rendered(layout.config_key("", config_name(name, content)), content)
    return Rendered(layout.config_key("", safe_key(written)), content, shared=True)


@dataclass(frozen=True, slots=True)
class ConfigFact:
    """A job's config: a key, and the content to put there (None: it is there already); or the problem with it.

    `ask`: the key to look for in S3, when no local file is this config and S3 was not asked lately.
    """

    problem: str = ""
    key: str = ""
    content: bytes | None = None
    ask: str = ""
    shared: bool = False  # other jobs may have another content at that key

    @property
    def etag(self) -> str:
        """The ETag that S3 gives its content; "" when that lies there already."""
        return etag_of(self.content) if self.content is not None else ""


def in_another_bucket(spec: JobSpec) -> ConfigFact | None:
    """The config of a job whose config is an s3:// address; None for one below configs/."""
    if not is_address(spec.config):
        return None
    if spec.overlay != "{}":
        return ConfigFact(problem="a config without `set`: nothing can be laid over one in another bucket")
    return ConfigFact(key=spec.config)


def from_text(spec: JobSpec, text: bytes, layout: Layout) -> ConfigFact:
    """The config of a job, made from its file's text."""
    made = render(text, spec.config, spec.overlay, layout, spec.config_name)
    return ConfigFact(made.problem, made.key, None if made.problem else made.content, shared=made.shared)


def local_config(row: FileRow | None, with_key: Callable[[], Iterable[FileRow]]) -> FileRow | None:
    """A job's local config file: the one at its name's place (`row`), else one that has that name's key in S3 (a submit file
    names keys, with `upload.prefix` in them); None when there is none. A local file is preferred to the object in S3."""
    if row is None or row.state is FileState.GONE:
        row = next(iter(with_key()), None)
    return None if row is None or row.state is FileState.GONE else row


def not_yet(config: FileRow, unreadable: str) -> ConfigFact:
    """A config that is here but can't be used yet. `unreadable`: why it could not be read."""
    path = config.place.path
    if config.state is FileState.SETTLING:
        return ConfigFact(f"{path} (still being written: {config.reason or 'not quiet long enough'})")
    if config.state in (FileState.REFUSED, FileState.SKIPPED):
        return ConfigFact(f"{path} ({config.state}: {config.reason})")
    return ConfigFact(f"{path} ({unreadable or 'not read yet'})")


def not_here(name: str, ask: str) -> ConfigFact:
    """A config without a local file. `ask`: the key where it may be in S3; "" once S3 has answered that it isn't."""
    return ConfigFact(f"configs/{name} ({'not here' if ask else 'not here, nor in S3'})", ask=ask)


def turn(key: str, etag: str, others: Iterable[tuple[str, str, bool]]) -> str:
    """Why a job must wait: another one may be reading a different config under the same name. "" when it need not.

    `others`: (the job, for people; its config's ETag; whether it may be reading that) of the jobs with a config at `key`.
    """
    for job, theirs, reading in others:
        if reading and theirs != etag:
            return f"its turn: {job} may be reading another config as {key}"
    return ""
