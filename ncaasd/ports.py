"""What adapters promise, as Protocols. Beside `model`; standard library only.

An adapter never imports another: it is given the ones that it needs, as these Protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ncaasd.model import (
    DownloadTask,
    EarlierJobs,
    LinkTarget,
    Listing,
    Look,
    ObjectInfo,
    Outcome,
    Part,
    Progress,
    ScanDelta,
    Stat,
    UploadTask,
)


class Clock(Protocol):
    """Time as an argument, so that tests can set it."""

    def now(self) -> float:
        """Wall time: seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float) -> None: ...


# Called before each block of a request's body (at most 128 KiB, or 512 KiB where a block is sent within milliseconds) with the
# block's number of bytes: it counts them, and waits until the bandwidth budget allows them. An exception from it abandons the
# request, and is passed on.
Pace = Callable[[int], None]


class ObjectStore(Protocol):
    """One bucket, with one key's permissions. Raises only `errors.StoreError` and its children.

    NeuroCAAS's policy allows a user's key no HEAD and no GET on inputs and submissions, no ListParts and no
    AbortMultipartUpload, so existence is always checked with `find`, by listing.
    """

    @property
    def bucket(self) -> str: ...

    def list(self, prefix: str) -> Listing:
        """Every object whose key begins with `prefix`, all pages. An absent prefix is an empty listing."""

    def folders(self, prefix: str) -> Sequence[str]:
        """The folders directly below `prefix` (which ends in /), all pages, in any order: each whole, with its last /."""

    def find(self, key: str) -> ObjectInfo | None:
        """The object of exactly this key, by listing."""

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        crc: int,
        only_if_absent: bool,
        retry: bool = True,
        pace: Pace | None = None,
    ) -> ObjectInfo:
        """Put a whole object with its CRC64NVME, which the server verifies. `only_if_absent` sends If-None-Match: *.

        retry=False sends exactly one request, ever. Raises Exists on 412, Busy on 409. `pace`: see `Pace`.
        """

    def create_multipart(self, key: str) -> str:
        """A new UploadId, with a full-object CRC64NVME announced."""

    def put_part(
        self, key: str, upload_id: str, number: int, body: bytes | memoryview, *, crc: int, pace: Pace | None = None
    ) -> Part: ...

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        """Complete; a 200 that carries an error is an error. The answered etag is checked against the parts' etags."""

    def get(self, key: str, *, etag: str | None = None, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of an object, or of a range of it, in blocks; with `etag`, If-Match. Raises Exists when replaced.

        The iterator raises Corrupted when fewer or more bytes come than were announced.
        """

    def read(self, key: str, *, limit: int) -> tuple[bytes, ObjectInfo]:
        """A small object whole; raises Corrupted above `limit` bytes."""

    def checksum(self, key: str, *, etag: str) -> int | None:
        """The CRC64NVME that S3 keeps for the whole object, or None where it keeps none. Raises Exists when replaced.

        It takes a HEAD, so only for results and configs. S3 makes one itself where the uploader sent none.
        """

    def delete(self, key: str) -> None: ...


class PartialFile(Protocol):
    """A temporary file in the results' file system; it has no final name until `commit`."""

    @property
    def fd(self) -> int: ...

    def commit(self) -> str:
        """fsync, rename into place without following symlinks, fsync the folder. Returns the path below results/."""

    def commit_deferred(self) -> str:
        """Rename into place; the fsyncs are done by the next `ResultsTree.sync` (small files, in batches)."""

    def discard(self) -> None: ...

    def close(self) -> None:
        """Leave the temporary file where it is, to be continued later."""


class ResultsTree(Protocol):
    """The `results/` folder of one analysis. Nothing outside a job's own folder is written, whatever a key says."""

    @property
    def root(self) -> str: ...

    def check(self) -> None:
        """Raises RootMissing when the file system is not the one it was (an unmounted share), DiskFull when full."""

    def partial(self, folder: str, name: str, *, size: int, token: str) -> PartialFile:
        """Open (or continue) the temporary file for object `name` of job folder `folder`.

        `token` names the attempt: the same token finds the same temporary file again, untouched; a new one has no
        bytes yet (its size is 0, whatever `size` announces). It never has more than `size` bytes. Raises UnsafePath.
        """

    def open(self, path: str) -> int | None:
        """A read-only descriptor of what is kept under `path` (below results/), which the caller closes.

        None when it is not there or not a regular file; symlinks are not followed.
        """

    def sync(self) -> None:
        """Make every deferred commit durable."""

    def write(self, folder: str, name: str, body: bytes) -> str:
        """Write a small file atomically and durably (job.json, logs). Returns the path below results/."""

    def matches(self, path: str, size: int) -> bool:
        """Whether a fetched file is still there with that size, as a regular file."""

    def free_bytes(self) -> int:
        """What may still be written here: the disk's free bytes less what is kept free."""

    def local_name(self, name: str) -> str:
        """The path below the job's folder that `name` is kept under. Raises UnsafePath."""


class FileTree(Protocol):
    """One watched tree: an analysis's folder or a source. Never written to, but for status files."""

    @property
    def root(self) -> str: ...

    @property
    def progress(self) -> int:
        """Changes whenever a scan under way gets an answer: this tells a slow tree from one that hangs."""

    def check(self) -> None:
        """Raises RootMissing when the tree is not there, or is suddenly another (unmounted)."""

    def scan(self, known: Mapping[str, Stat]) -> ScanDelta:
        """Compare the tree to what is known. Raises RootMissing."""

    def stat(self, path: str) -> Stat | None:
        """None when it is not there, or is not a regular file."""

    def look(self, path: str) -> Look:
        """As `stat`, and why the path is no file; for a path that ends in "/", why that folder can't be entered. Raises
        RootMissing; an error that concerns `path` alone is in the answer."""

    def target(self, link: str) -> LinkTarget | None:
        """The target of a link that was followed (`FileRow.link`); None when the config does not allow it any more. Reads
        nothing from the disk."""

    def read(self, path: str, *, limit: int) -> tuple[bytes, Stat]:
        """A small file whole, and the observation it was read at. Raises FileChanged, FileVanished, LocalError."""

    def held_open(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that a process on this machine holds open for writing, where the platform can tell."""

    def free_bytes(self) -> int: ...


class StatusWriter(Protocol):
    """Writes the status files beside manifests: the only things ever written into a watched folder."""

    def write(self, path: str, body: bytes) -> None:
        """Write `path` (relative to the analysis's folder) atomically, creating its folder. Raises LocalError."""

    def remove(self, path: str) -> None:
        """Remove a status file that this writer once wrote; nothing happens when it is not there."""


class RigFile(Protocol):
    """The file in the root that names the rig whose root it is."""

    @property
    def path(self) -> str: ...

    def read(self) -> str | None:
        """The name; None when there is no such file. Raises RootMissing, LocalError when it can't be read or names none."""

    def write(self, rig: str) -> str:
        """Create the file unless it exists. Returns the name that it then has in it. Raises LocalError."""


class EarlierWork(Protocol):
    """Finds submitted jobs by the files of an analysis's folder."""

    def jobs(self, known: Collection[str]) -> EarlierJobs:
        """Those that are not `known`, by id. Never raises for what is in the files; takes seconds at most, unless a mount
        hangs."""


class TransferLog(Protocol):
    """Where a transfer records what must survive a crash. Called from pool threads."""

    def upload_created(self, file_id: int, upload_id: str) -> None:
        """Returns when it is committed: no part is sent before."""

    def part_stored(self, file_id: int, part: Part) -> None:
        """Returns when it is committed: the worker sends no other part before, so a kill loses only what is in flight."""

    def flush(self) -> None:
        """Returns when everything that was recorded before is committed."""

    def upload_lost(self, file_id: int) -> None:
        """The upload is not there any more (NoSuchUpload): its parts are forgotten. Returns when committed."""

    def range_fetched(self, object_id: int, start: int, end: int) -> None:
        """Bytes [start, end) are in the temporary file and fsynced. May return before it is committed."""

    def download_lost(self, object_id: int) -> None:
        """The temporary file is not there any more, or is not to be trusted: its ranges are forgotten.

        Returns when committed: nothing is written to a new temporary file before.
        """


class Transfers(Protocol):
    """The pool that moves bytes. Outcomes go to the callback it was made with, from pool threads."""

    def start(self, task: UploadTask | DownloadTask) -> None: ...

    def active(self) -> int: ...

    def progress(self) -> list[Progress]: ...

    def hanging(self) -> Collection[str]:
        """The disks (mount points) that do not answer. A task on one of them FAILS at once, with DiskSilent."""

    def hangs(self, task: UploadTask | DownloadTask) -> bool:
        """Whether the task's local file is on such a disk: a task under way may not end before the disk answers."""

    def stop(self, *, timeout: float) -> None:
        """Ask all transfers to stop soon, so that they can be resumed; returns when the threads have ended or after `timeout`."""


@dataclass(frozen=True, slots=True)
class PackFile:
    """One file of a package: its name there, its local path (absolute), and the observation that must still hold."""

    name: str
    path: str
    expect: Stat
    link: LinkTarget | None = None  # where `path` leads, when it is a link that is followed


@dataclass(frozen=True, slots=True)
class Packed:
    """A package that was built: its observation, and the last lines of the tool's output."""

    stat: Stat
    output: str = ""


class PackageBuilder(Protocol):
    """Makes one file of many, in a folder of the daemon's own. `target` names it: `<analysis>/<number>/<file name>`."""

    def path(self, target: str) -> str:
        """Where it is, or will be."""

    def build(self, target: str, files: Sequence[PackFile], command: Sequence[str] | None) -> Packed:
        """A reproducible zip, or what `command` makes of `{files}` at `{out}`. It gets its name once it is whole and durable.

        Raises DiskFull before anything is written, FileChanged or FileVanished when a file isn't what it was, ToolFailed,
        LocalError.
        """

    def remove(self, target: str) -> None: ...

    def prune(self, keep: Collection[str]) -> None:
        """Remove everything but these targets: what a crash has left behind."""


class ToolRunner(Protocol):
    """Runs the commands of the config's `tools`: no shell, no standard input, no secrets in the environment."""

    def run(self, command: Sequence[str], *, folder: str | None = None) -> str:
        """Run `command` to its end in `folder` (else in a temporary one). Returns the last lines of its output; raises
        ToolFailed, with them."""


class Archive(Protocol):
    """The user's archive, and the recordings that are proved to be in it. Paths are absolute."""

    def same(self, path: str, expect: Stat, copy: str) -> bool:
        """Whether `copy` is there with the bytes of `path`, which must be what `expect` says. Raises FileChanged, FileVanished,
        LocalError."""

    def copy(self, path: str, expect: Stat, copy: str) -> None:
        """Make a verified, durable copy; one that is there with equal bytes will do. Raises LocalError when something else
        is there, DiskFull, FileChanged, FileVanished."""

    def delete(self, path: str, expect: Stat) -> None:
        """Delete the recording if it still is what `expect` says. Raises FileChanged; does nothing when it is gone."""


# Opens the target of a link for reading and returns the descriptor: only a regular file, and no other link is followed on the
# way. Raises OSError.
OpenLink = Callable[[LinkTarget], int]
OutcomeSink = Callable[[Outcome], None]
CrashPoint = Callable[[str], None]


def no_crash(_name: str) -> None:
    """The crash points of production: none."""
