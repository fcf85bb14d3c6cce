"""A whole ncaasd in one thread over a store in memory: every step is chosen by the test, and may be the last one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fakes.inline_mailbox import InlineMailbox
from fakes.memory_store import MemoryStore
from support.journal_work import copy_journal

from ncaasd.adapters.files.archive import LocalArchive
from ncaasd.adapters.files.earlier import LocalEarlierJobs
from ncaasd.adapters.files.links import open_target
from ncaasd.adapters.files.packages import LocalPackages
from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.files.rigfile import LocalRigFile
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.statusfiles import LocalStatusFiles
from ncaasd.adapters.tools import LocalTools
from ncaasd.adapters.transfers.pool import TransferPool
from ncaasd.declare.config import load_config
from ncaasd.engine.arriving.uploading import JournaledTransfers
from ncaasd.engine.core.opening import remembered_rig
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.core.schedule import JUMP, Beat, Job
from ncaasd.engine.loop import Engine
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.neurocaas.naming import Layout
from ncaasd.ports import ObjectStore

BUCKET, GROUP = "caiman-web", "lab"


class Killed(BaseException):
    """SIGKILL, in one thread: nothing may catch it."""


class VirtualClock:
    """Time that moves only when told to."""

    def __init__(self, start: float) -> None:
        self.wall, self.mono = start, 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


class ServerClock:
    """The server's, which doesn't jump when ours does."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._start = clock, clock.wall - clock.mono

    def now(self) -> float:
        return self._start + self._clock.mono


class InlineSchedule:
    """The daemon's schedule on a clock that moves when told to: what is due is told before a turn.

    As the real one (`ncaasd.engine.core.schedule.Schedule`), it is made anew when the clock has jumped.
    """

    def __init__(
        self, clock: VirtualClock, jobs: Mapping[str, Job], tell: Callable[[Callable[[], None]], None]
    ) -> None:
        self._clock, self._jobs, self._tell = clock, jobs, tell
        self._make()

    def _make(self) -> None:
        self._offset = self._clock.now() - self._clock.monotonic()
        self._due = {name: self._next(job, None) for name, job in self._jobs.items()}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def _next(self, job: Job, last: datetime | None) -> datetime:
        at: datetime = job.when.get_next_fire_time(last, self._now())
        return at

    def look(self) -> None:
        if abs(self._clock.now() - self._clock.monotonic() - self._offset) >= JUMP:
            self._make()
        for name, job in self._jobs.items():
            if self._now() >= self._due[name]:
                self._tell(job.note)
                self._due[name] = self._next(job, self._due[name])


class Fuse:
    """Counts down at every crash point, before and after every request; kills when it comes to nothing."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self, _name: str = "") -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise Killed


class Client:
    """The store as one daemon sees it: it may be killed before a request leaves, or before its answer is read."""

    def __init__(self, server: MemoryStore, fuse: Fuse) -> None:
        self._server, self._fuse = server, fuse
        self.bucket = server.bucket

    def _call(self, what: Callable[[], Any]) -> Any:
        self._fuse.burn()
        answer = what()
        self._fuse.burn()
        return answer

    def list(self, prefix: str) -> Listing:
        return self._call(lambda: self._server.list(prefix))  # type: ignore[no-any-return]

    def folders(self, prefix: str) -> Sequence[str]:
        return self._call(lambda: self._server.folders(prefix))  # type: ignore[no-any-return]

    def find(self, key: str) -> ObjectInfo | None:
        return self._call(lambda: self._server.find(key))  # type: ignore[no-any-return]

    def put(self, key: str, body: Any, **options: Any) -> ObjectInfo:
        return self._call(lambda: self._server.put(key, body, **options))  # type: ignore[no-any-return]

    def create_multipart(self, key: str) -> str:
        return self._call(lambda: self._server.create_multipart(key))  # type: ignore[no-any-return]

    def put_part(self, key: str, upload_id: str, number: int, body: Any, **options: Any) -> Part:
        return self._call(lambda: self._server.put_part(key, upload_id, number, body, **options))  # type: ignore[no-any-return]

    def complete_multipart(self, key: str, upload_id: str, parts: Sequence[Part], **options: Any) -> ObjectInfo:
        return self._call(lambda: self._server.complete_multipart(key, upload_id, parts, **options))  # type: ignore[no-any-return]

    def get(self, key: str, **options: Any) -> Iterator[bytes]:
        return self._call(lambda: self._server.get(key, **options))  # type: ignore[no-any-return]

    def read(self, key: str, *, limit: int) -> tuple[bytes, ObjectInfo]:
        return self._call(lambda: self._server.read(key, limit=limit))  # type: ignore[no-any-return]

    def checksum(self, key: str, *, etag: str) -> int | None:
        return self._call(lambda: self._server.checksum(key, etag=etag))  # type: ignore[no-any-return]

    def delete(self, key: str) -> None:
        self._call(lambda: self._server.delete(key))


class QuietTree(LocalTree):
    """No other process writes here, so /proc need not be searched for one: that would be most of the time."""

    def held_open(self, paths: Iterable[str]) -> set[str]:
        return set()


class InlineRig:
    """One daemon: a root it may share with others, and a journal of its own."""

    def __init__(
        self,
        name: str,
        root: str,
        state: str,
        server: MemoryStore,
        clock: VirtualClock,
        config: str,
        *,
        host: str = "",
    ) -> None:
        """`host`: the config gives the rig no name, and the machine is called so."""
        self.host = host
        self.name, self.root, self.server, self.clock = name, root, server, clock
        self.journal_path = os.path.join(state, f"{name}.sqlite")
        self.backup_path = os.path.join(state, f"{name}.backup")
        self.config = load_config(
            f"group: {GROUP}\nroot: {root}\nanalyses: {{{BUCKET}: {{}}}}\n{config}".encode(), "c.yaml"
        )
        self.fuse = Fuse()
        self.engine: Engine | None = None
        self.schedule: InlineSchedule | None = None
        self._journal: Journal | None = None

    def start(self) -> None:
        fuse = self.fuse
        journal = self._journal = open_journal(self.journal_path, crash=fuse.burn)
        settings = self.config.analyses[BUCKET]
        folder = os.path.join(self.root, BUCKET)
        expected = journal.get_meta(f"results id:{BUCKET}")
        results = LocalResults(os.path.join(folder, "results"), expected_id=expected, adopt=True)
        if os.path.isdir(folder):
            results.check()
        with journal.transaction():
            journal.set_meta(f"results id:{BUCKET}", results.id or "")
        client: ObjectStore = Client(self.server, fuse)
        context = Context(
            name=BUCKET,
            settings=settings,
            layout=Layout(BUCKET, GROUP),
            trees={
                "": QuietTree(folder, ignore=settings.watch.ignored, links=self.config.links),
                **{
                    n: QuietTree(p, ignore=settings.watch.ignored, within=(), links=self.config.links)
                    for n, p in self.config.sources.items()
                },
            },
            results=results,
            status=LocalStatusFiles(folder),
            earlier=LocalEarlierJobs(folder, submissions=Layout(BUCKET, GROUP).submissions),
            prefix=settings.upload.prefix,
            store_for=lambda _bucket: client,
            settle=settings.watch.settle_for(False),
        )
        tools = LocalTools(os.path.join(os.path.dirname(self.journal_path), "tools"), timeout=20)
        runtime = Runtime(
            journal=journal,
            clock=self.clock,
            contexts={BUCKET: context},
            rig="" if self.host else self.name,
            rig_file=LocalRigFile(self.root) if self.host else None,
            host=self.host,
            crash=fuse.burn,
            packer=LocalPackages(os.path.join(os.path.dirname(self.journal_path), "packages"), tools, keep_free=0),
            tools=tools,
            archive=LocalArchive(),
        )
        runtime.mailbox = InlineMailbox(runtime)
        runtime.rig = runtime.rig or remembered_rig(runtime)
        engine = Engine(runtime, root=self.root, sources=self.config.sources, tools=self.config.tools)
        runtime.transfers = TransferPool(
            lambda _analysis, _bucket: client,
            lambda _analysis: results,
            JournaledTransfers(runtime),
            engine.sink,
            self.clock,
            parallel=0,
            limit=lambda: None,
            crash=fuse.burn,
            jitter=lambda: 0.5,
            open_link=open_target,
        )
        self.engine = engine
        rescan = Job(Beat(settings.watch.rescan), partial(engine.observer.rescan, BUCKET))
        self.schedule = InlineSchedule(self.clock, {"rescan": rescan}, runtime.mailbox.tell)

    def kill(self) -> None:
        """What is not committed is gone, and so is all that was in memory."""
        self.engine = None
        if self._journal is not None:
            with contextlib.suppress(Exception):
                self._journal.close()
            self._journal = None

    def turn(self) -> bool:
        """One turn of the loop, starting first when it isn't running; False when it was killed in it."""
        try:
            if self.engine is None:
                self.start()
            assert self.engine is not None and self.schedule is not None
            self.schedule.look()
            self.engine.turn(0.0)
        except Killed:
            self.kill()
            return False
        return True

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            self.start()
        assert self._journal is not None
        return self._journal

    def backup(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.backup_path)
        copy_journal(self.journal, self.backup_path)

    def lose_journal(self, *, restore: bool) -> None:
        """The disk with the state is gone; perhaps an old copy of it is put back."""
        self.kill()
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.journal_path + end)
        if restore and os.path.exists(self.backup_path):
            os.rename(self.backup_path, self.journal_path)
