"""A daemon that says sooner that a mount hangs: a test doesn't wait a minute for it."""

from __future__ import annotations

from support.work import daemon as patient

from ncaasd.adapters.transfers import disks
from ncaasd.engine import daemon as building
from ncaasd.engine import root as waiting
from ncaasd.engine.arriving import observing
from ncaasd.engine.following import fetching


def daemon(config: str) -> None:
    observing.HANGS_AFTER = fetching.HANGS_AFTER = disks.HANGS_AFTER = disks.SYNC_HANGS_AFTER = 2.0
    building.START_WAIT = waiting.ROOT_WAIT = 2.0
    patient(config)
