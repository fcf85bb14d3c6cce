"""What is waited for before a daemon is put together: a root on a mount that hangs (F89)."""

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
    """Wait until `root` answers, if only that it isn't there: whoever asks it without looking may hang without a word.

    False when it was time to stop before. A mount that hangs is said after ROOT_WAIT, to the log and to systemd (`tell`),
    which is told that we are well: a restart wouldn't help. Raises DiskSilent when it isn't to be waited for `forever`.
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
