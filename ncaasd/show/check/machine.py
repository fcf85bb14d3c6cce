"""The checks of this machine for `ncaasd check`: folders, disks, the state folder, inotify's limits."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator

from ncaasd.adapters.files.mounts import events_from, filesystem_of, is_network
from ncaasd.adapters.files.rigfile import LocalRigFile
from ncaasd.adapters.journal import backups, open_reader
from ncaasd.adapters.lock import running
from ncaasd.declare import ignored
from ncaasd.declare.config import Config, inside
from ncaasd.errors import NcaasdError, RootMissing
from ncaasd.show import words
from ncaasd.show.check.findings import Finding, Level
from ncaasd.show.places import journal_of, state_of

INOTIFY = "/proc/sys/fs/inotify"
COUNT_FOR = 5.0  # seconds; then the folders counted so far are reported as a part
AREAS = ("inputs", "configs", "submissions")
OLD_BACKUP = 2 * 86400.0  # seconds
RESERVE = 1.25  # other programs on this machine watch folders, too


def machine_findings(config: Config) -> Iterator[Finding]:
    yield from _root(config)
    yield from _overlaps(config)
    for name in config.analyses:
        yield from _folder(config, name)
    for name, path in config.sources.items():
        readable = os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)
        if readable:
            yield Finding("source", Level.GOOD, f"{name}: {path}")
        else:
            yield Finding("source", Level.BAD, f"{name}: {path} is not there, or can't be read", "is it mounted?")
    yield _ignored(config)
    yield from _links(config)
    yield from _state(config)
    yield _rig(config)
    yield from _disks(config)
    yield from _inotify(config)


def _ignored(config: Config) -> Finding:
    """The names and paths that are ignored, unless an analysis sets others."""
    own = ", ".join(config.watch.ignore)
    if not config.watch.ignore_defaults:
        text = f"only {own}" if own else "nothing: recycle bins and half copies are taken for recordings, too"
        return Finding("ignored", Level.NOTE, text, "watch.ignore_defaults: true adds the built-in list")
    text = f"{', '.join(ignored.names())}" + (f"; and by watch.ignore: {own}" if own else "")
    return Finding("ignored", Level.GOOD, text)


def _root(config: Config) -> Iterator[Finding]:
    if not os.path.isdir(config.root):
        fix = f"mount it, or make it: mkdir -p {config.root}"
        yield Finding("root", Level.BAD, f"{config.root} is not there", fix)
        return
    mount = filesystem_of(config.root)
    yield Finding("root", Level.GOOD, f"{config.root}" + (f" ({mount.fstype})" if mount.fstype else ""))


def _links(config: Config) -> Iterator[Finding]:
    """The folders that symbolic links may lead to."""
    state = os.path.realpath(state_of(config))
    for path in config.links:
        real = os.path.realpath(path)
        if inside(state, real) or inside(real, state):
            text = f"{path} overlaps the state folder ({state}): a link could have the journal uploaded"
            yield Finding("links", Level.BAD, text, "name a folder in `links:` that has recordings only")
        elif not os.path.isdir(path):
            yield Finding(
                "links", Level.BAD, f"{path} is not there: links to files in it are not followed", "is it mounted?"
            )
        elif not os.access(path, os.X_OK):
            fix = f"let this user ({_user()}) enter it"
            yield Finding("links", Level.BAD, f"{path} can't be entered: links to files in it are not followed", fix)
        else:
            yield Finding("links", Level.GOOD, f"symbolic links may lead to {path}")


def _overlaps(config: Config) -> Iterator[Finding]:
    """Trees that overlap through symbolic links (F69). The config's paths have been compared as text already."""
    trees = {"root": config.root, "the state folder": state_of(config)}
    trees |= {f"source {name}": path for name, path in config.sources.items()}
    real = {name: os.path.realpath(path) for name, path in trees.items()}
    names = list(real)
    for number, one in enumerate(names):
        for other in names[:number]:
            if inside(real[one], real[other]) or inside(real[other], real[one]):
                text = f"{one} ({real[one]}) and {other} ({real[other]}) overlap"
                yield Finding("folders", Level.BAD, text, "each needs a place of its own")


def _folder(config: Config, name: str) -> Iterator[Finding]:
    folder = os.path.join(config.root, name)
    if not os.path.isdir(folder):
        if os.path.isdir(config.root):
            can = os.access(config.root, os.W_OK | os.X_OK)
            fix = "" if can else f"make it, or let this user write to {config.root}"
            text = "is not there yet: `ncaasd run` makes it" if can else "is not there, and can't be made"
            yield Finding("folder", Level.GOOD if can else Level.BAD, text, fix, name)
        return
    for area, why in (("results", "results go there"), ("submissions", "status files go there")):
        path = os.path.join(folder, area)
        trouble = _writing(path if os.path.isdir(path) else folder, really=area == "results")
        if trouble:
            fix = f"let this user ({_user()}) write there: {why}"
            yield Finding("folder", Level.BAD, f"{path} can't be written: {trouble}", fix, name)
        else:
            yield Finding("folder", Level.GOOD, f"{path} can be written", analysis=name)
    unreadable = [
        a for a in AREAS if os.path.isdir(p := os.path.join(folder, a)) and not os.access(p, os.R_OK | os.X_OK)
    ]
    for area in unreadable:
        fix = f"let this user ({_user()}) read it"
        yield Finding("folder", Level.BAD, f"{os.path.join(folder, area)} can't be read", fix, name)
    sends, fstype = events_from(folder)
    if not sends:
        text = f"{folder} is on {fstype or 'an unknown file system'}, which sends no events: it is polled"
        yield Finding("watching", Level.NOTE, text, analysis=name)


def _writing(folder: str, *, really: bool) -> str:
    """Why `folder` can't be written to; "" when it can. `really`: try it with a file, which is done in results folders only."""
    if not really:
        if not os.access(folder, os.W_OK | os.X_OK):
            return "permission denied"
        return "it is mounted read-only" if os.statvfs(folder).f_flag & os.ST_RDONLY else ""
    try:
        with tempfile.NamedTemporaryFile(prefix=".ncaasd-check-", suffix=".tmp", dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _rig(config: Config) -> Finding:
    """The name by which this rig is known in S3."""
    if config.rig:
        return Finding("rig", Level.GOOD, f"{config.rig}, as the config names it")
    remembered: str | None = None
    with contextlib.suppress(NcaasdError), contextlib.closing(open_reader(journal_of(config))) as journal:
        remembered = journal.get_meta("rig")
    root = LocalRigFile(config.root)
    try:
        named = root.read()
    except RootMissing:
        named = None  # the finding about the root reports it
    except NcaasdError as error:
        return Finding("rig", Level.BAD, error.message, error.hint)
    if named and remembered and named != remembered:
        text = f"the state is of rig {remembered}, and the root is of rig {named} ({root.path})"
        fix = "put the state folder back that belongs to this root; else the root's name counts, and what is there is asked about"
        return Finding("rig", Level.BAD, text, fix)
    name = named or remembered
    if name is None:
        return Finding("rig", Level.GOOD, f"it gets a name at its first start, kept in {root.path}")
    return Finding("rig", Level.GOOD, f"{name}, kept in {root.path if named else 'the state folder'}")


def _state(config: Config) -> Iterator[Finding]:
    state = state_of(config)
    mount = filesystem_of(state)
    if is_network(mount.fstype):
        text = f"{state} is on a network file system ({mount.fstype}), which can't keep a journal safe"
        yield Finding("state", Level.BAD, text, "set `state:` to a folder on a local disk")
        return
    nearest = _above(state)
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding(
            "state", Level.BAD, f"{state} can't be written by this user ({_user()})", "set `state:`, or chown it"
        )
        return
    pid = running(state)
    yield Finding("state", Level.GOOD, f"{state}" + (f" ({mount.fstype})" if mount.fstype else ""))
    yield Finding("daemon", Level.GOOD, f"runs, pid {pid}" if pid is not None else "does not run")
    path = journal_of(config)
    if not os.path.exists(path):
        yield Finding("journal", Level.GOOD, "none yet: this is a first start")
        return
    try:
        open_reader(path).close()
    except NcaasdError as error:
        yield Finding("journal", Level.BAD, error.message, error.hint)
    else:
        yield Finding("journal", Level.GOOD, f"{words.size(os.path.getsize(path))}, can be read")
    yield _backup(path)


def _backup(journal: str) -> Finding:
    """How old the newest backup of the journal is, and whether it can be used."""
    try:
        there = backups.backups_of(journal)
    except NcaasdError as error:
        return Finding("backup", Level.BAD, error.message, error.hint)
    if not there:
        text = "there is no backup of the journal yet"
        return Finding("backup", Level.NOTE, text, "`ncaasd run` makes one soon after its start, and then each night")
    now = time.time()
    newest = max(there, key=lambda b: (b.made <= now, b.made))  # a wrong clock may have made one of the future
    text = f"{newest.path}, made {words.ago(newest.made, now)} ({words.moment(newest.made)})"
    trouble = backups.check_backup(newest)
    if trouble:
        fix = "delete it: another one is made by `ncaasd run`"
        return Finding("backup", Level.BAD, f"{text}, can't be used: {trouble}", fix)
    if now - newest.made > OLD_BACKUP:
        fix = "let `ncaasd run` run: it makes one each night, and `ncaasd status` says what is in its way"
        return Finding("backup", Level.NOTE, f"the newest backup of the journal is old: {text}", fix)
    return Finding("backup", Level.GOOD, f"{text}, can be used")


def _disks(config: Config) -> Iterator[Finding]:
    """The free space on the disks of the results and the journal, each disk once."""
    least = max(a.watch.min_free for a in config.analyses.values())
    seen: set[int] = set()
    for what, path, wanted in (("results", config.root, least), ("the journal", state_of(config), 100 * 10**6)):
        nearest = _above(path)
        device = os.stat(nearest).st_dev
        if device in seen or (what == "results" and not os.path.isdir(path)):
            continue
        seen.add(device)
        found = os.statvfs(nearest)
        free = found.f_bavail * found.f_frsize
        if free < wanted:
            fix = "free some, or lower watch.min_free: below it no new recording counts as whole"
            yield Finding("disk", Level.BAD, f"{words.size(free)} free for {what}, less than {words.size(wanted)}", fix)
        else:
            yield Finding("disk", Level.GOOD, f"{words.size(free)} free for {what}")


def _inotify(config: Config) -> Iterator[Finding]:
    """Whether the limit of inotify watches is enough: each watched folder needs one (F22)."""
    limit = _number("max_user_watches")
    if limit is None:
        return  # no inotify here
    trees = [os.path.join(config.root, name, area) for name in config.analyses for area in AREAS]
    trees += config.sources.values()
    native = [tree for tree in trees if os.path.isdir(tree) and events_from(tree)[0]]
    folders, all_of_them = _count_folders(native)
    text = f"{'' if all_of_them else 'more than '}{words.count(folders, 'folder')} to watch, {limit:,} are allowed"
    if folders * RESERVE > limit:
        fix = f"sudo sysctl fs.inotify.max_user_watches={max(524288, 2 * folders)} (and in /etc/sysctl.d/); else they are polled"
        yield Finding("inotify", Level.BAD, text, fix)
    else:
        yield Finding("inotify", Level.GOOD, text)


def _number(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open(f"{INOTIFY}/{name}", encoding="ascii") as file:
        return int(file.read())
    return None


def _count_folders(trees: list[str]) -> tuple[int, bool]:
    """(folders in these trees, whether that is all of them)"""
    until, count = time.monotonic() + COUNT_FOR, 0
    for tree in trees:
        for _parent, _folders, _files in os.walk(tree):
            count += 1
            if time.monotonic() > until:
                return count, False
    return count, True


def _user() -> str:
    return f"uid {os.geteuid()}"


def _above(path: str) -> str:
    """The nearest folder at or above `path` that is there."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
