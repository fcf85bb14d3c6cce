"""What a job's config comes to: the file of its rule, with `set` laid over it, under a name in S3. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ncaasd.declare.analysis_config import read_analysis_config, render_analysis_config
from ncaasd.errors import DeclarationError
from ncaasd.neurocaas.naming import Layout, config_name, safe_key

CONTENT, KEEP = "content", "keep"  # of a rule's `config_name`; else the name itself


@dataclass(frozen=True, slots=True)
class Rendered:
    """A key in S3 and what is to be there; else what is wrong. `shared`: other jobs may have another content at that key."""

    key: str = ""
    content: bytes = b""
    problem: str = ""
    shared: bool = False

    @property
    def etag(self) -> str:
        """The ETag that S3 gives such a content."""
        return etag_of(self.content)


def etag_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def render(text: bytes, name: str, overlay: str, layout: Layout, as_name: str = CONTENT) -> Rendered:
    """`text`: the file `configs/<name>`; `overlay`: JSON; `as_name`: the rule's `config_name`. Without an overlay the bytes are
    the file's own, unless it gets the other kind of name: a worker that opens config.json reads no YAML."""
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


def turn(key: str, etag: str, others: Iterable[tuple[str, str, bool]]) -> str:
    """Why a job has to wait for its turn: another one may be reading another config under the same name. "" when it may go.

    `others`: (the job, for people; the config's ETag; whether the job may be reading it) of those that had theirs at `key`.
    """
    for job, theirs, reading in others:
        if reading and theirs != etag:
            return f"its turn: {job} may be reading another config as {key}"
    return ""
