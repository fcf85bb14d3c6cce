"""Keys that this version declares and does nothing with: refused in plain words, never silently ignored."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from ncaasd.declare.reading import Loc

MARK = "Not built yet in this version: refused."  # in the description of each
KEYS = {
    "notify.urls": "this version sends no messages",
    "notify.heartbeat": "this version calls no URL while all is well",
    "web.listen": "this version has no status page",
}
INSTEAD = "`ncaasd status` and the status files tell how things are"


def say(key: str) -> str:
    return f"not built yet: {KEYS[key]}; leave it out ({INSTEAD})"


def of_config(config: BaseModel) -> Iterator[tuple[Loc, str]]:
    """The keys that would be ignored. A key at its default may stay."""
    for key in KEYS:
        name, _, field = key.partition(".")
        section = getattr(config, name)
        if section is not None and getattr(section, field) != type(section).model_fields[field].default:
            yield (name, field), say(key)
