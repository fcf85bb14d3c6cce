"""Reaching and making folders below an open one, without following a link, and choosing a free name there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as modes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from ncaasd.adapters.files.localnames import told_apart
from ncaasd.errors import UnsafePath

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def reach(root: int, folders: Sequence[str], opened: ExitStack) -> int:
    """The descriptor of a folder below `root`; closed with `opened`. Raises FileNotFoundError, UnsafePath."""
    fd = root
    for name in folders:
        fd = _reach_one(fd, name)
        opened.callback(os.close, fd)
    return fd


def make_way(root: int, folders: Sequence[str], *, folds: bool, opened: ExitStack) -> tuple[int, list[str], list[int]]:
    """Reach a folder, making what isn't there. Returns its descriptor, its names as they are, and the descriptors of
    the folders in which one was made (to be synced). `folds`: the file system takes names that differ by case as one.
    """
    fd, names, changed = root, [], []
    for wanted in folders:
        child, name, made = _enter(fd, wanted, folds)
        opened.callback(os.close, child)
        if made:
            changed.append(fd)
        names.append(name)
        fd = child
    return fd, names, changed


def _enter(parent: int, wanted: str, folds: bool) -> tuple[int, str, bool]:
    if not folds:
        with contextlib.suppress(OSError):  # it isn't there, or is no folder: seen below
            return os.open(wanted, FOLDER, dir_fd=parent), wanted, False
    for name in _names(wanted):
        mode = _mode(parent, name)
        made = mode is None
        if mode is None:
            os.mkdir(name, dir_fd=parent)
        elif modes.S_ISREG(mode) or (folds and not _is_listed(parent, name)):
            continue  # a file's name, or another folder's whose name differs by case only
        elif not modes.S_ISDIR(mode):
            break
        # A link that is swapped in between is not followed either: O_NOFOLLOW.
        return _reach_one(parent, name), name, made
    raise _unsafe(wanted)


def _reach_one(parent: int, name: str) -> int:
    try:
        return os.open(name, FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise _unsafe(name) from error
        raise


def choose(parent: int, wanted: str, *, folds: bool) -> str:
    """The name in `parent` that the file `wanted` gets: its own, unless another key's file or folder has it."""
    for name in _names(wanted):
        mode = _mode(parent, name)
        if mode is None or (modes.S_ISREG(mode) and not (folds and not _is_listed(parent, name))):
            return name
        if not modes.S_ISREG(mode) and not modes.S_ISDIR(mode):
            break
    raise _unsafe(wanted)


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    yield told_apart(wanted)


def _mode(parent: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _is_listed(parent: int, name: str) -> bool:
    """Whether the folder lists exactly `name`, and not only a name that differs by case."""
    return name in os.listdir(parent)


def _unsafe(name: str) -> UnsafePath:
    return UnsafePath(
        f"{name!r} in the results' folder is a symbolic link, or something else that ncaasd did not put there",
        hint="move it away: links are not followed",
    )
