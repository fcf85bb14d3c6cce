"""Wait for the root before a daemon is assembled: it may be on a mount that hangs (F89)."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from ncaasd.errors import DiskSilent

log = logging.getLogger("ncaasd")

ROOT_WAIT = 20.0  # seconds


def root_answers(root: str, stop: Callable[[], bool], *, tell: Callable[..., None], forever: bool = True) -> bool:
    """Wait until `root` can be opened or gives an error: a later access to a mount that hangs would block silently.

    False when stopped before. After ROOT_WAIT the hang is reported to the log and to systemd (`tell`), together with READY,
    because a restart wouldn't help. Raises DiskSilent at that point unless `forever`.
    """
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            os.close(os.open(root, os.O_RDONLY | os.O_CLOEXEC))
        answered.set()

    threading.Thread(target=ask, name="root", daemon=True).start()
    said, began = False, time.monotonic()
    while not answered.wait(0.2):
        if stop():
            return False
        tell("WATCHDOG=1")
        if not said and time.monotonic() - began > ROOT_WAIT:
            said = True
            error = DiskSilent(
                f"the root {root} does not answer: its mount hangs", hint="nothing can be done before it does"
            )
            if not forever:
                raise error
            log.error("%s", error)
            tell("READY=1", f"STATUS={error}")
    return True
