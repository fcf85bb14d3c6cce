"""The composition root: creates the adapters and assembles a daemon from a config."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import platformdirs

from ncaasd.adapters.files.archive import LocalArchive
from ncaasd.adapters.files.earlier import LocalEarlierJobs
from ncaasd.adapters.files.links import open_target
from ncaasd.adapters.files.mounts import MountPoints, events_from, filesystem_of, is_network
from ncaasd.adapters.files.names import Ignoring
from ncaasd.adapters.files.packages import LocalPackages
from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.files.rigfile import LocalRigFile
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.lock import Locked
from ncaasd.adapters.s3.credentials import StoreFactory
from ncaasd.adapters.s3.public import SignedOrPublic
from ncaasd.adapters.statusfiles import LocalStatusFiles
from ncaasd.adapters.tools import LocalTools
from ncaasd.adapters.transfers import partial_token
from ncaasd.adapters.transfers.pool import TransferPool
from ncaasd.adapters.watcher import Hint, Watcher
from ncaasd.declare.config import Analysis, Config, bandwidth_limit, inside
from ncaasd.engine.arriving.uploading import JournaledTransfers
from ncaasd.engine.core.clock import SystemClock
from ncaasd.engine.core.mailbox import Result, ThreadMailbox
from ncaasd.engine.core.nightly import Nightly
from ncaasd.engine.core.opening import remembered_rig
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.loop import Engine
from ncaasd.errors import JournalError, LocalError, StateError
from ncaasd.model import DownloadTask, Progress, UploadTask
from ncaasd.neurocaas.evidence import Patience
from ncaasd.neurocaas.naming import Layout
from ncaasd.ports import CrashPoint, ObjectStore, no_crash

AREAS = ("inputs", "configs", "submissions", "results")
WORKERS = {"look": 4, "ask": 2}
MOST_LEFT_FREE = 10**9  # bytes
START_WAIT = 10.0  # seconds to wait at start for an analysis's folders; one that hangs is taken up when it answers


def state_folder(config: Config) -> str:
    """Where the journal and the lock live: the config's, systemd's, or the user's state folder."""
    systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return config.state or systemd or os.path.join(platformdirs.user_state_dir("ncaasd"), config.group)


def prepare_state(folder: str) -> None:
    """Make the state folder. Raises StateError on a network file system: SQLite's WAL needs shared memory."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StateError(f"the state folder {folder} can't be made: {error.strerror}", hint="set `state:`") from error
    mount = filesystem_of(folder)
    if is_network(mount.fstype):
        raise StateError(
            f"the state folder {folder} is on a network file system ({mount.fstype}), which can't keep a journal safe",
            hint="set `state:` to a folder on a local disk",
        )


def refuse_links_to(state: str, links: Iterable[str]) -> None:
    """Raise StateError when a symbolic link could lead to the journal. The folders of `links` are not touched: one may be
    on a mount that hangs. (`ncaasd check` also resolves symbolic links in their paths.)"""
    real = os.path.realpath(state)
    for path in links:
        if any(inside(one, path) or inside(path, one) for one in (state, real)):
            raise StateError(
                f"`links:` of the config names {path}, which overlaps the state folder {state}: a link could have the journal"
                " uploaded",
                hint="name a folder in `links:` that has recordings only, or put `state:` elsewhere",
            )


def journal_path(folder: str) -> str:
    return os.path.join(folder, "journal.sqlite")


def host_name() -> str:
    return socket.gethostname().partition(".")[0] or "rig"


@dataclass
class Running:
    """An engine with its threads."""

    engine: Engine
    pool: TransferPool
    watcher: Watcher
    journal: Journal
    config: Config
    nightly: Nightly

    def progress(self) -> list[Progress]:
        return self.pool.progress()


@contextlib.contextmanager
def running(
    config: Config, *, crash: CrashPoint = no_crash, watch: bool = True, patience: Patience | None = None
) -> Iterator[Running]:
    """Assemble a daemon, holding its lock; on leaving, shut it down within seconds. Everything is resumable.

    `patience`: how long to wait for the platform's signs of life, where it is a faster sandbox instead of NeuroCAAS.

    Raises StateError when another daemon has the state or the root, or the journal can't be used.
    """
    state = state_folder(config)
    prepare_state(state)
    refuse_links_to(state, config.links)
    with contextlib.ExitStack() as stack:
        stack.callback(Locked(state, config.root).close)
        journal = open_journal(journal_path(state), crash=crash)
        stack.callback(journal.close)
        clock = SystemClock()
        contexts = {name: make_context(config, name, settings, journal) for name, settings in config.analyses.items()}
        tools = LocalTools(os.path.join(state, "tools"))
        stack.callback(tools.stop)
        runtime = Runtime(
            journal=journal,
            clock=clock,
            contexts=contexts,
            rig=config.rig or "",
            rig_file=None if config.rig else LocalRigFile(config.root),
            host=host_name(),
            crash=crash,
            patience=patience or Patience(),
            spread=random.random,
            packer=LocalPackages(os.path.join(state, "packages"), tools),
            tools=tools,
            archive=LocalArchive(),
        )
        runtime.mailbox = mailbox = ThreadMailbox(runtime, workers=WORKERS)
        runtime.rig = runtime.rig or remembered_rig(runtime)
        stack.callback(mailbox.close)
        _take_up(config, runtime)
        engine = Engine(runtime, root=config.root, sources=config.sources, tools=config.tools)

        def limit_now() -> int | None:
            local = time.localtime(clock.now())
            return bandwidth_limit(config.upload.bandwidth, local.tm_hour * 60 + local.tm_min)

        runtime.transfers = pool = TransferPool(
            lambda analysis, bucket: contexts[analysis].store_for(bucket or analysis),
            lambda analysis: contexts[analysis].results,
            JournaledTransfers(runtime),
            engine.sink,
            clock,
            parallel=config.upload.parallel,
            limit=limit_now,
            crash=crash,
            disk_of=disk_of(contexts),
            open_link=open_target,
        )
        stack.callback(_stop, pool, mailbox)
        watcher = Watcher(
            lambda hint: mailbox.tell(lambda: _pass_on(engine, hint)),
            events_from=events_from,
        )
        stack.callback(watcher.stop, timeout=2.0)
        if watch:
            for name, context in contexts.items():
                for tree_name, tree in context.trees.items():
                    within, wanted = () if tree_name else AREAS[:3], context.settings.watch
                    ignored = Ignoring(wanted.ignored, areas=within)
                    watcher.watch(f"{name}:{tree_name}", tree.root, mode=wanted.mode, within=within, ignored=ignored)
        nightly = Nightly(runtime, keep=config.log.keep, keep_free=left_free(config))
        yield Running(engine, pool, watcher, journal, config, nightly)


def left_free(config: Config) -> int:
    """Bytes that a backup of the journal leaves free on the state folder's disk, which may be a small one of its own."""
    return min(MOST_LEFT_FREE, max(a.watch.min_free for a in config.analyses.values()))


def disk_of(contexts: Mapping[str, Context]) -> Callable[[UploadTask | DownloadTask], str]:
    """Returns a function that names the mount of a transfer's local file."""
    mounts = MountPoints()

    def name(task: UploadTask | DownloadTask) -> str:
        if isinstance(task, UploadTask):
            return mounts.of(os.path.dirname(str(task.link or task.path)))
        return mounts.of(contexts[task.analysis].results.root)

    return name


def _stop(pool: TransferPool, mailbox: ThreadMailbox) -> None:
    """Stop the pool while the mailbox is still read: a pool worker may be waiting for a commit."""
    stopper = threading.Thread(target=pool.stop, kwargs={"timeout": 10.0}, name="stop-pool", daemon=True)
    stopper.start()
    with contextlib.suppress(JournalError):
        while stopper.is_alive():
            mailbox.read(0.02)
        mailbox.read(0.0)


def _pass_on(engine: Engine, hint: Hint) -> None:
    analysis, _, tree = hint.root.partition(":")
    engine.observer.hint(analysis, tree, hint.path, published=hint.published)


def make_context(config: Config, name: str, settings: Analysis, journal: Journal) -> Context:
    """An analysis's context. Its folders are not touched yet: see `_take_up`."""
    folder = os.path.join(config.root, name)
    factory = StoreFactory()
    others: dict[str, ObjectStore] = {}

    def store_for(bucket: str) -> ObjectStore:
        signed = factory.store(bucket, settings.aws)
        if bucket == name:
            return signed
        return others.setdefault(bucket, SignedOrPublic(signed, factory.store(bucket, settings.aws, unsigned=True)))

    expected = journal.get_meta(_results_id(name))
    results = LocalResults(
        os.path.join(folder, "results"), min_free=settings.watch.min_free, expected_id=expected, adopt=expected is None
    )
    trees = {"": LocalTree(folder, ignore=settings.watch.ignored, links=config.links)}
    for source, path in config.sources.items():
        trees[source] = LocalTree(path, ignore=settings.watch.ignored, within=(), links=config.links)
    return Context(
        name=name,
        settings=settings,
        layout=Layout(name, config.group),
        trees=dict(trees),
        results=results,
        status=LocalStatusFiles(folder),
        earlier=LocalEarlierJobs(folder, submissions=Layout(name, config.group).submissions),
        store_for=store_for,
        settle=settings.watch.settle_for(True),
        settle_links=settings.watch.settle_for(True),
        polled=True,
        prefix=settings.upload.prefix,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look at an analysis's folders has found."""

    sends_events: bool
    results_id: str | None
    trouble: str


def _take_up(config: Config, runtime: Runtime) -> None:
    """Look at every analysis's folders, each on its own worker: one that hangs is reported, and delays the start by no
    more than START_WAIT (F89)."""
    waiting = set(runtime.contexts)
    started = False

    def look(context: Context, *, known: bool, partials: set[str]) -> _Found:
        folder, results, trouble = context.trees[""].root, context.results, ""
        assert isinstance(results, LocalResults)  # of `make_context`
        _make_folders(config.root, folder, known=known)
        try:
            results.check()
            results.prune(partials)
        except LocalError as error:
            trouble = str(error)
        return _Found(events_from(folder)[0], results.id, trouble)

    def looked(context: Context, result: Result[_Found]) -> None:
        found, watch, journal = result.get(), context.settings.watch, runtime.journal
        waiting.discard(context.name)
        context.polled = watch.mode == "polling" or (watch.mode == "auto" and not found.sends_events)
        context.settle = watch.settle_for(context.polled)
        context.results_trouble, context.results_retry = found.trouble, 0.0
        if found.results_id is not None and journal.get_meta(_results_id(context.name)) is None:
            journal.set_meta(_results_id(context.name), found.results_id)
        if started:
            runtime.event(context.name, "", "disk back", f"{context.trees[''].root} answers")

    def looked_at_links(context: Context, result: Result[bool]) -> None:
        context.settle_links = context.settings.watch.settle_for(not result.get())

    for name, context in runtime.contexts.items():
        sends = partial(_all_send_events, config.links)
        runtime.mailbox.do(f"links:{name}", sends, partial(looked_at_links, context))  # not waited for: one may hang
        known = runtime.journal.get_meta(f"first scan:{name}") is not None
        work = partial(look, context, known=known, partials=_partials(runtime.journal, name))
        runtime.mailbox.do(f"results:{name}", work, partial(looked, context))
    until = runtime.clock.monotonic() + START_WAIT
    while waiting and runtime.clock.monotonic() < until:
        runtime.mailbox.read(0.1)
    started = True
    for name in sorted(waiting):
        context = runtime.contexts[name]
        context.results_trouble = f"{context.trees[''].root} does not answer: its mount hangs"
        with runtime.transaction():
            runtime.event(
                name, "", "hanging", f"{context.results_trouble}; everything else goes on", level=logging.ERROR
            )


def _all_send_events(folders: Iterable[str]) -> bool:
    return all(events_from(folder)[0] for folder in folders)


def _results_id(analysis: str) -> str:
    return f"results id:{analysis}"


def _partials(journal: Journal, analysis: str) -> set[str]:
    """The tokens of the temporary files that downloads will resume; files left behind by earlier kills are not among them."""
    jobs = [job for row in journal.jobs_to_fetch() if (job := journal.job(row)) and job.spec.analysis == analysis]
    wanted = [a for job in jobs for a in journal.artefacts(job.row, wanted=True)]
    return {partial_token(a.bucket, a.key, a.etag, a.size) for a in wanted}


def _make_folders(root: str, folder: str, *, known: bool) -> None:
    """Make an analysis's folders the first time. A missing root, or a known folder that is missing or empty, means an
    unmounted disk: nothing is made in its place."""
    if known or not os.path.isdir(root):
        return
    for area in AREAS:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.join(folder, area), exist_ok=True)
