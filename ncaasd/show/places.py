"""Where the config, the state folder and the journal are. Light: heavy modules are imported when they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ncaasd.errors import DeclarationError, UserError

if TYPE_CHECKING:
    from ncaasd.adapters.journal import Journal
    from ncaasd.declare.config import Config

SYSTEM_CONFIG = "/etc/ncaasd/config.yaml"


def user_config() -> str:
    """Where this user's config is, or would be."""
    import platformdirs

    return os.path.join(platformdirs.user_config_dir("ncaasd"), "config.yaml")


def config_path(given: str | None) -> str:
    """The config to use: `given`, else $NCAASD_CONFIG, else the user's where there is one, else the system's, else where
    the user's would be."""
    named = given or os.environ.get("NCAASD_CONFIG", "")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    mine = user_config()
    return SYSTEM_CONFIG if not os.path.exists(mine) and os.path.exists(SYSTEM_CONFIG) else mine


def read_config(given: str | None) -> Config:
    """The config. Raises UserError when it can't be read, DeclarationError with all its problems when it is invalid."""
    from ncaasd.declare.config import load_config

    path = config_path(given)
    return load_config(_read(path), path)


def read_config_to_look(given: str | None) -> tuple[Config, str]:
    """(the config, ""); of an invalid one, with which the daemon keeps using the last valid one, (its paths only, its problems).
    Raises UserError, and DeclarationError when it is invalid and has no usable paths, or there is no journal yet."""
    from ncaasd.declare.config import load_config, places_only

    path = config_path(given)
    data = _read(path)
    try:
        return load_config(data, path), ""
    except DeclarationError as error:
        try:
            places = places_only(data, path)
        except DeclarationError:
            raise error from None  # the first error has all problems
        if not os.path.exists(journal_of(places)):
            raise  # there is nothing else to show
        return places, str(error)


def _read(path: str) -> bytes:
    from ncaasd.declare.yamlio import MAX_BYTES

    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"the config {path} can't be read: {error.strerror}",
            hint="`ncaasd init` writes one; or name yours with --config FILE or $NCAASD_CONFIG",
        ) from error


def state_of(config: Config) -> str:
    """The state folder, as `engine.daemon.state_folder` gives it (which takes a second to import; a test compares them)."""
    import platformdirs

    systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return config.state or systemd or os.path.join(platformdirs.user_state_dir("ncaasd"), config.group)


def journal_of(config: Config) -> str:
    return os.path.join(state_of(config), "journal.sqlite")


@contextmanager
def reader(config: Config) -> Iterator[Journal]:
    """The journal, opened for reading. Raises StateError when there is none."""
    from ncaasd.adapters.journal import open_reader

    journal = open_reader(journal_of(config))
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def reader_if_any(config: Config) -> Iterator[Journal | None]:
    """The journal, opened for reading; None when there is none yet."""
    if not os.path.exists(journal_of(config)):
        yield None
        return
    with reader(config) as journal:
        yield journal
