"""Is everything as it should be? One `Finding` each, with what to do. Used by `ncaasd check`.

Nothing here is fatal: what can't be found out is a finding, too, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ncaasd.declare.config import Config
from ncaasd.show.check.declared import declared_findings
from ncaasd.show.check.findings import Finding
from ncaasd.show.check.machine import machine_findings
from ncaasd.show.check.store import store_findings


def findings(config: Config, *, offline: bool = False) -> Iterator[Finding]:
    """Everything about a config that could be read: this machine first, then what S3 says of each analysis."""
    yield from machine_findings(config)
    for name, settings in config.analyses.items():
        yield from declared_findings(config, name, settings)
    if offline:
        return
    # Side by side: an endpoint that doesn't answer costs its timeouts once, not once an analysis.
    with ThreadPoolExecutor(max_workers=8) as pool:
        for found in pool.map(lambda item: list(store_findings(config, *item)), config.analyses.items()):
            yield from found
