"""What a job's config comes to: the file of its rule, with `set` laid over it, under a name of its content. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ncaasd.declare.analysis_config import read_analysis_config, render_analysis_config
from ncaasd.errors import DeclarationError
from ncaasd.neurocaas.naming import Layout, config_name


@dataclass(frozen=True, slots=True)
class Rendered:
    """A key in S3 and what is to be there; else what is wrong."""

    key: str = ""
    content: bytes = b""
    problem: str = ""


def render(text: bytes, name: str, overlay: str, layout: Layout) -> Rendered:
    """`text`: the file `configs/<name>`; `overlay`: JSON. Without an overlay the bytes are the file's own."""
    try:
        values = read_analysis_config(text, f"configs/{name}")
        over = json.loads(overlay)
        content = render_analysis_config(values, name, over) if over else text
    except DeclarationError as error:
        return Rendered(problem=f"a config that can be used: {error.problems[0]}")
    return Rendered(layout.config_key("", config_name(name, content)), content)
