"""All checks of `ncaasd check`: one `Finding` for each, with what to do.

No failure is fatal: a check that can't be made is a finding, too, and the others are made.
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
    """The findings for a valid config: this machine and the declarations first, then each analysis's bucket in S3."""
    yield from machine_findings(config)
    for name, settings in config.analyses.items():
        yield from declared_findings(config, name, settings)
    if offline:
        return
    # In parallel: an endpoint that doesn't answer costs its timeouts once, not once for each analysis.
    with ThreadPoolExecutor(max_workers=8) as pool:
        for found in pool.map(lambda item: list(store_findings(config, *item)), config.analyses.items()):
            yield from found
