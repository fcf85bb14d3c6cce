"""What spawned processes do (see support.spawner), each by its name."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from datetime import date

from ncaasd.adapters.journal import backups, open_journal, open_reader, schema
from ncaasd.engine import service
from ncaasd.engine.core.crash import armed
from ncaasd.engine.daemon import running
from ncaasd.engine.service import read_config, serve
from ncaasd.errors import StateError


def daemon(config: str) -> None:
    """What `ncaasd run` does, without its command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    serve(config)


def daemon_on_host(config: str, host: str) -> None:
    """The same on a machine of that name."""
    socket.gethostname = lambda: host  # type: ignore[assignment]  # of this process, which was forked for it
    daemon(config)


def daemon_soon(config: str) -> None:
    """A daemon that looks for missed nightly work at once, not after two minutes."""
    service.SOON = 0.2  # of this process, which was forked for it
    daemon(config)


def journal_backed_up(path: str) -> None:
    """Make today's backup of a journal."""
    backups.make_backup(path, date.fromtimestamp(time.time()), keep_free=0, crash=armed())  # noqa: DTZ012  # local


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


def journal_migrated(path: str, more: str) -> None:
    """Open a journal with a version of ncaasd that has one migration more."""
    schema.MIGRATIONS = (*schema.MIGRATIONS, more)
    schema.VERSION = len(schema.MIGRATIONS)
    open_journal(path, crash=armed()).close()


def journal_held(path: str, ready: str) -> None:
    """Hold a journal open for writing, with a row that is not committed, until killed; make the file `ready` then."""
    journal = open_journal(path)
    with journal.transaction():
        journal.set_meta("committed", "yes")
    with journal.transaction():
        journal.set_meta("committed", "not yet")
        open(ready, "w").close()
        time.sleep(60)


def journal_read_as_nobody(path: str) -> None:
    """Read a journal without any right to write."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    assert not os.access(os.path.dirname(path), os.W_OK)
    with contextlib.closing(open_reader(path)) as journal:
        print("read:", journal.get_meta("committed"), len(journal.events()))
