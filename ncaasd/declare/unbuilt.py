"""Keys that are declared and have no effect yet: refused in plain words, never silently ignored."""

from __future__ import annotations

from collections.abc import Iterator

from ncaasd.declare.reading import Loc
from ncaasd.declare.sections import Notify, Sections

KEYS = frozenset({"urls", "heartbeat"})


def say(key: str) -> str:
    return f"not built yet: {key}; leave it out"


def of_sections(sections: Sections) -> Iterator[tuple[Loc, str]]:
    """What of an analysis's sections would be ignored."""
    after = sections.after_results
    used = {
        ("after_results", "local_inputs"): after.local_inputs != "keep",
        ("after_results", "remote_inputs"): after.remote_inputs != "keep",
        ("after_results", "run"): after.run is not None,
        ("results", "fetch"): sections.results.fetch == "all",
    }
    yield from ((loc, say(".".join(loc))) for loc, is_used in used.items() if is_used and loc[-1] in KEYS)


def of_notify(notify: Notify) -> Iterator[tuple[Loc, str]]:
    if notify.urls and "urls" in KEYS:
        yield ("notify", "urls"), say("notify.urls")
    if notify.heartbeat and "heartbeat" in KEYS:
        yield ("notify", "heartbeat"), say("notify.heartbeat")
