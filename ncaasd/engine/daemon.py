"""The composition root: it alone knows which adapters there are, and puts the house together from a config."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import platformdirs

from ncaasd.adapters.credentials import StoreFactory
from ncaasd.adapters.files.archive import LocalArchive
from ncaasd.adapters.files.mounts import MountPoints, events_from, filesystem_of, is_network
from ncaasd.adapters.files.names import IgnoredNames
from ncaasd.adapters.files.packages import LocalPackages
from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.lock import Locked
from ncaasd.adapters.public import SignedOrPublic
from ncaasd.adapters.statusfiles import LocalStatusFiles
from ncaasd.adapters.tools import LocalTools
from ncaasd.adapters.transfers import partial_token
from ncaasd.adapters.transfers.pool import TransferPool
from ncaasd.adapters.watcher import Hint, Watcher
from ncaasd.declare.config import Analysis, Config, bandwidth_limit
from ncaasd.engine.clock import SystemClock
from ncaasd.engine.desk import ThreadDesk
from ncaasd.engine.engine import Engine
from ncaasd.engine.house import Context, House
from ncaasd.engine.scheduler import Waker
from ncaasd.engine.uploading import JournaledTransfers
from ncaasd.errors import JournalError, LocalError, StateError
from ncaasd.model import DownloadTask, Progress, UploadTask
from ncaasd.neurocaas.evidence import Patience
from ncaasd.neurocaas.naming import Layout
from ncaasd.ports import CrashPoint, ObjectStore, no_crash

AREAS = ("inputs", "configs", "submissions", "results")
LANES = {"look": 4, "ask": 2}


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


def journal_path(folder: str) -> str:
    return os.path.join(folder, "journal.sqlite")


def rig_name(config: Config) -> str:
    return config.rig or socket.gethostname().partition(".")[0] or "rig"


@dataclass
class Running:
    """A house with its threads."""

    engine: Engine
    pool: TransferPool
    watcher: Watcher
    waker: Waker
    journal: Journal
    config: Config

    def progress(self) -> list[Progress]:
        return self.pool.progress()


@contextlib.contextmanager
def running(
    config: Config, *, crash: CrashPoint = no_crash, watch: bool = True, patience: Patience | None = None
) -> Iterator[Running]:
    """Put the house together, locked, and take it down again: resumable, within seconds.

    `patience`: how long to wait for NeuroCAAS's signs of life, where it is not NeuroCAAS (a sandbox that runs faster).

    Raises StateError when another daemon has the state or the root, or the journal can't be used.
    """
    state = state_folder(config)
    prepare_state(state)
    with contextlib.ExitStack() as stack:
        stack.callback(Locked(state, config.root).close)
        journal = open_journal(journal_path(state), crash=crash)
        stack.callback(journal.close)
        clock = SystemClock()
        desk = ThreadDesk(journal, lanes=LANES)
        contexts = {name: make_context(config, name, settings, journal) for name, settings in config.analyses.items()}
        tools = LocalTools(os.path.join(state, "tools"))
        stack.callback(tools.stop)
        house = House(
            journal=journal,
            desk=desk,
            clock=clock,
            contexts=contexts,
            rig=rig_name(config),
            crash=crash,
            patience=patience or Patience(),
            spread=random.random,
            packer=LocalPackages(os.path.join(state, "packages"), tools),
            tools=tools,
            archive=LocalArchive(),
        )
        engine = Engine(house, root=config.root, sources=config.sources, tools=config.tools)

        def limit_now() -> int | None:
            local = time.localtime(clock.now())
            return bandwidth_limit(config.upload.bandwidth, local.tm_hour * 60 + local.tm_min)

        house.transfers = pool = TransferPool(
            lambda analysis, bucket: contexts[analysis].store_for(bucket or analysis),
            lambda analysis: contexts[analysis].results,
            JournaledTransfers(house),
            engine.sink,
            clock,
            parallel=config.upload.parallel,
            limit=limit_now,
            crash=crash,
            disk_of=disk_of(contexts),
        )
        stack.callback(desk.close)
        stack.callback(_stop, pool, desk)
        watcher = Watcher(
            lambda hint: desk.tell(lambda: _pass_on(engine, hint)),
            events_from=events_from,
            ignored=IgnoredNames(config.watch.ignore),
        )
        stack.callback(watcher.stop, timeout=2.0)
        if watch:
            for name, context in contexts.items():
                for tree_name, tree in context.trees.items():
                    within = () if tree_name else AREAS[:3]
                    watcher.watch(f"{name}:{tree_name}", tree.root, mode=context.settings.watch.mode, within=within)
        # The scheduler only wakes; the engine's own monotonic deadlines find the same, whatever the clock does.
        wakes = {f"rescan {name}": context.settings.watch.rescan for name, context in contexts.items()}
        waker = Waker(clock, wakes, lambda _name: desk.tell(lambda: None))
        stack.callback(waker.stop)
        yield Running(engine, pool, watcher, waker, journal, config)


def disk_of(contexts: Mapping[str, Context]) -> Callable[[UploadTask | DownloadTask], str]:
    """Names the mount that a transfer's local file is on."""
    mounts = MountPoints()

    def name(task: UploadTask | DownloadTask) -> str:
        if isinstance(task, UploadTask):
            return mounts.of(os.path.dirname(task.path))
        return mounts.of(contexts[task.analysis].results.root)

    return name


def _stop(pool: TransferPool, desk: ThreadDesk) -> None:
    """Stop the pool while its last records are still taken: a worker may be waiting for a commit."""
    stopper = threading.Thread(target=pool.stop, kwargs={"timeout": 10.0}, name="stop-pool", daemon=True)
    stopper.start()
    with contextlib.suppress(JournalError):
        while stopper.is_alive():
            desk.read(0.02)
        desk.read(0.0)


def _pass_on(engine: Engine, hint: Hint) -> None:
    analysis, _, tree = hint.root.partition(":")
    engine.observer.hint(analysis, tree, hint.path, published=hint.published)


def make_context(config: Config, name: str, settings: Analysis, journal: Journal) -> Context:
    folder = os.path.join(config.root, name)
    _make_folders(config.root, folder, known=journal.get_meta(f"first scan:{name}") is not None)
    factory = StoreFactory()
    others: dict[str, ObjectStore] = {}

    def store_for(bucket: str) -> ObjectStore:
        signed = factory.store(bucket, settings.aws)
        if bucket == name:
            return signed
        return others.setdefault(bucket, SignedOrPublic(signed, factory.store(bucket, settings.aws, unsigned=True)))

    key = f"results id:{name}"
    expected = journal.get_meta(key)
    results = LocalResults(
        os.path.join(folder, "results"), min_free=settings.watch.min_free, expected_id=expected, adopt=expected is None
    )
    trouble = ""
    try:
        results.check()
        results.prune(_partials(journal, name))
    except LocalError as error:
        trouble = str(error)
    if expected is None and results.id is not None:
        with journal.transaction():
            journal.set_meta(key, results.id)
    trees = {"": LocalTree(folder, ignore=settings.watch.ignore)}
    for source, path in config.sources.items():
        trees[source] = LocalTree(path, ignore=settings.watch.ignore, within=())
    sends, _why = events_from(folder)
    polled = settings.watch.mode == "polling" or (settings.watch.mode == "auto" and not sends)
    return Context(
        name=name,
        settings=settings,
        layout=Layout(name, config.group),
        trees=dict(trees),
        results=results,
        status=LocalStatusFiles(folder),
        store_for=store_for,
        settle=settings.watch.settle_for(polled),
        polled=polled,
        prefix=settings.upload.prefix,
        results_trouble=trouble,
    )


def _partials(journal: Journal, analysis: str) -> set[str]:
    """The temporary files that a download will go on with; those that earlier kills left behind are not among them."""
    jobs = [job for row in journal.jobs_to_fetch() if (job := journal.job(row)) and job.spec.analysis == analysis]
    wanted = [a for job in jobs for a in journal.artefacts(job.row, wanted=True)]
    return {partial_token(a.bucket, a.key, a.etag, a.size) for a in wanted}


def _make_folders(root: str, folder: str, *, known: bool) -> None:
    """Make an analysis's folders the first time. A root that isn't there, or a known folder that is gone or empty, is an
    unmounted disk: nothing is made in its place."""
    if known or not os.path.isdir(root):
        return
    for area in AREAS:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.join(folder, area), exist_ok=True)
