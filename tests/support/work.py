"""What spawned processes do (see support.spawner), each by its name."""

from __future__ import annotations

import logging

from ncaasd.adapters.journal import open_journal
from ncaasd.engine.crash import armed
from ncaasd.engine.daemon import running
from ncaasd.engine.service import read_config, serve
from ncaasd.errors import StateError


def daemon(config: str) -> None:
    """What `ncaasd run` does, without its command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    serve(config)


def journal_opened(path: str) -> None:
    """Open a journal, migrating as needed, and close it."""
    open_journal(path, crash=armed()).close()


def refused(config: str) -> None:
    """A daemon that may not start; says why. Fails when it may."""
    try:
        with running(read_config(config)):
            pass
    except StateError as error:
        print(error)
        return
    raise AssertionError("nobody refused it")
