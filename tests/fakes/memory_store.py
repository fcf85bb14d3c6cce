"""A bucket in memory that keeps the ObjectStore port's promises, and breaks them when it is told to.

It is the *server*: it outlives the clients under test, so open multipart uploads and their parts survive their
"restarts". The contract suite (tests/store/test_store_contract.py) runs over it and over real S3 servers alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from awscrt import checksums

from ncaasd.errors import (
    Absent,
    Corrupted,
    Denied,
    Exists,
    NoSuchUpload,
    StoreError,
    Unreachable,
)
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.ports import Pace

BLOCK = 1 << 20  # bytes per block of `get`
PACED = 128 << 10  # bytes per call of `pace`
T = TypeVar("T")


class Now(Protocol):
    def now(self) -> float: ...


@dataclass(slots=True)
class Op:
    """One operation that reached the server. `name` is the port's method."""

    name: str
    key: str  # the prefix, for `list`
    sent: int = 0  # bytes of body, client to server
    received: int = 0  # bytes of body, server to client
    part: int = 0
    error: str = ""  # the class of the error the client saw; "" when it was told of success


@dataclass(slots=True)
class Fault:
    """What happens to the next operations that match, instead of what they asked for.

    op: a method of the port, several in a set, or "*". key: a predicate, or None for all. `skip` matches pass first;
    then `times` of them (None: all, until the rule is removed) meet exactly one of:
    - error: raised (an instance, or something to call for one); the operation is not applied
    - lost: applied, then Unreachable: the answer was lost
    - late: Unreachable now; applied only when so many more operations have come in
    - twice: applied twice (a proxy or an SDK that retried); the client sees the first answer
    - cut: `get` and `read` deliver so many bytes, and then the connection is gone (Unreachable)
    - flip: `get` and `read` deliver the byte at this offset changed; put and put_part arrive changed (Corrupted)
    - before: called with the key, and then the operation goes on (a hook: to change a file, to kill, to wait)
    """

    op: str | set[str]
    key: Callable[[str], bool] | None = None
    times: int | None = 1
    skip: int = 0
    error: StoreError | Callable[[], StoreError] | None = None
    lost: bool = False
    late: int | None = None
    twice: bool = False
    cut: int | None = None
    flip: int | None = None
    before: Callable[[str], None] | None = None

    def matches(self, op: str, key: str) -> bool:
        if self.op != "*" and op != self.op and not (isinstance(self.op, set) and op in self.op):
            return False
        return self.key is None or self.key(key)


@dataclass(slots=True)
class _Version:
    body: bytes
    etag: str
    modified: float


@dataclass(slots=True)
class _Upload:
    key: str
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryStore:
    """One bucket. `faults` is a deque of Fault; `ops` is what came in; `created(key)` counts ObjectCreated events."""

    def __init__(self, bucket: str, *, clock: Now | None = None, min_part_size: int = 1) -> None:
        self._bucket = bucket
        self._now = clock.now if clock is not None else time.time
        self._min_part_size = min_part_size
        self._lock = threading.RLock()
        self._live: dict[str, _Version] = {}
        self._versions: dict[str, list[_Version]] = {}
        self._uploads: dict[str, _Upload] = {}
        self._upload_count = 0
        self._late: list[tuple[int, Callable[[], object]]] = []  # (apply when ops are that many, what)
        self.faults: deque[Fault] = deque()
        self.ops: list[Op] = []
        self.encrypted = False  # by KMS: ETags look like MD5s, and are none

    # -- what tests ask and arrange; never goes through the faults, never counted in `ops`

    def created(self, key: str) -> int:
        """How many ObjectCreated events there were for the key, ever."""
        with self._lock:
            return len(self._versions.get(key, ()))

    def created_keys(self) -> dict[str, int]:
        with self._lock:
            return {key: len(versions) for key, versions in self._versions.items()}

    def first_body(self, key: str) -> bytes:
        """What was first put there, whatever became of it."""
        with self._lock:
            return self._versions[key][0].body

    def body(self, key: str) -> bytes:
        """The object's bytes; KeyError when it is not there."""
        with self._lock:
            return self._live[key].body

    def keys(self) -> list[str]:
        with self._lock:
            return sorted(self._live)

    def seed(self, key: str, body: bytes) -> ObjectInfo:
        """Somebody else (the platform, the website, another rig) puts an object."""
        with self._lock:
            return self._store(key, body, hashlib.md5(body).hexdigest())

    def remove(self, key: str) -> None:
        """Somebody else deletes an object."""
        with self._lock:
            self._live.pop(key, None)

    def open_uploads(self) -> dict[str, dict[int, Part]]:
        """UploadId -> number -> part of the multipart uploads that are neither completed nor lost."""
        with self._lock:
            return {uid: {n: part for n, (part, _) in up.parts.items()} for uid, up in self._uploads.items()}

    def forget_uploads(self) -> None:
        """A lifecycle rule aborts all open uploads: NoSuchUpload from now on."""
        with self._lock:
            self._uploads.clear()

    def deny(self, op: str | set[str], where: Callable[[str], bool] | None = None) -> Fault:
        """Forbid an operation until the returned rule is removed from `faults`."""
        rule = Fault(op, where, times=None, error=lambda: Denied(f"the policy of {self._bucket} denies {op}"))
        self.faults.append(rule)
        return rule

    def sent(self, name: str) -> int:
        """Bytes of body that arrived in all operations of that name."""
        with self._lock:
            return sum(op.sent for op in self.ops if op.name == name)

    def count(self, name: str) -> int:
        with self._lock:
            return sum(op.name == name for op in self.ops)

    def flush_late(self) -> None:
        """Apply everything that is still on its way."""
        with self._lock:
            late, self._late = self._late, []
            for _, apply in late:
                _quietly(apply)

    # -- the port

    @property
    def bucket(self) -> str:
        return self._bucket

    def list(self, prefix: str) -> Listing:
        def apply() -> Listing:
            keys = sorted((key for key in self._live if key.startswith(prefix)), key=lambda key: key.encode())
            return Listing(tuple(self._info(key) for key in keys), float(int(self._now())))

        return self._run(Op("list", prefix), apply)

    def folders(self, prefix: str) -> Sequence[str]:
        def apply() -> Sequence[str]:
            below = (key[len(prefix) :] for key in self._live if key.startswith(prefix))
            found = {f"{prefix}{name.partition('/')[0]}/" for name in below if "/" in name}
            return sorted(found, key=lambda folder: folder.encode())

        return self._run(Op("folders", prefix), apply)

    def find(self, key: str) -> ObjectInfo | None:
        return self._run(Op("find", key), lambda: self._info(key) if key in self._live else None)

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
        data = bytes(body)

        def apply(data: bytes = data) -> ObjectInfo:
            self._verify(key, data, crc)
            if only_if_absent and key in self._live:
                raise Exists(f"{key} is in {self._bucket} already")
            return self._store(key, data, hashlib.md5(data).hexdigest())

        op = Op("put", key)
        return self._run(op, apply, corrupted=lambda at: apply(_flipped(data, at)), body=data, pace=pace)

    def create_multipart(self, key: str) -> str:
        def apply() -> str:
            self._upload_count += 1
            upload_id = f"upload-{self._upload_count}"
            self._uploads[upload_id] = _Upload(key)
            return upload_id

        return self._run(Op("create_multipart", key), apply)

    def put_part(
        self, key: str, upload_id: str, number: int, body: bytes | memoryview, *, crc: int, pace: Pace | None = None
    ) -> Part:
        data = bytes(body)

        def apply(data: bytes = data) -> Part:
            upload = self._upload(key, upload_id)
            self._verify(key, data, crc)
            part = Part(number, len(data), hashlib.md5(data).hexdigest(), crc)
            upload.parts[number] = (part, data)
            return part

        op = Op("put_part", key, part=number)
        return self._run(op, apply, corrupted=lambda at: apply(_flipped(data, at)), body=data, pace=pace)

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        def apply() -> ObjectInfo:
            upload = self._upload(key, upload_id)
            body = self._assembled(upload, parts)
            if len(body) != size:
                raise Corrupted(f"{key}: its parts are {len(body)} bytes, not {size}")
            self._verify(key, body, crc)
            if only_if_absent and key in self._live:
                raise Exists(f"{key} is in {self._bucket} already")
            digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts)).hexdigest()
            del self._uploads[upload_id]
            return self._store(key, body, f"{digest}-{len(parts)}")

        return self._run(Op("complete_multipart", key), apply)

    def get(self, key: str, *, etag: str | None = None, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return _Blocks(self._fetch("get", key, etag, start, length)[0])

    def read(self, key: str, *, limit: int) -> tuple[bytes, ObjectInfo]:
        (body, fault), info = self._fetch("read", key, None, 0, None)
        if len(body) > limit:
            raise Corrupted(f"{key} is larger than {limit} bytes")
        return b"".join(_Blocks((body, fault))), info

    def checksum(self, key: str, *, etag: str) -> int | None:
        def apply() -> int:
            version = self._current(key, etag)
            return int(checksums.crc64nvme(version.body))

        return self._run(Op("checksum", key), apply)

    def delete(self, key: str) -> None:
        self._run(Op("delete", key), lambda: self._live.pop(key, None))

    # -- inside

    def _fetch(
        self, name: str, key: str, etag: str | None, start: int, length: int | None
    ) -> tuple[tuple[bytes, Fault | None], ObjectInfo]:
        op = Op(name, key)

        def apply() -> tuple[bytes, ObjectInfo]:
            version = self._current(key, etag)
            body = version.body[start:] if length is None else version.body[start : start + length]
            if length is not None and len(body) != length:
                raise Corrupted(f"{key} has no {length} bytes from {start} on")
            op.received = len(body)
            return body, self._info(key)

        with self._lock:
            fault = self._next_fault(name, key, peek=lambda f: f.cut is not None or f.flip is not None)
            body, info = self._run(op, apply)
            if fault is not None and fault.cut is not None:
                op.received = min(len(body), fault.cut)
            return (body, fault), info

    def _run(
        self,
        op: Op,
        apply: Callable[[], T],
        *,
        corrupted: Callable[[int], T] | None = None,
        body: bytes = b"",
        pace: Pace | None = None,
    ) -> T:
        with self._lock:
            self.ops.append(op)
            self._apply_due()
            fault = self._next_fault(
                op.name, op.key, peek=lambda f: f.cut is None and (f.flip is None or corrupted is not None)
            )
        try:
            if fault is not None and fault.before is not None:
                fault.before(op.key)  # without the lock: a hook may use the store
            for at in range(0, len(body), PACED):
                if pace is not None:
                    pace(min(PACED, len(body) - at))
                op.sent = min(len(body), at + PACED)
            with self._lock:
                return self._meet(fault, apply, corrupted)
        except Exception as error:
            op.error = type(error).__name__
            raise

    def _meet(self, fault: Fault | None, apply: Callable[[], T], corrupted: Callable[[int], T] | None) -> T:
        if fault is None:
            return apply()
        if fault.error is not None:
            raise fault.error if isinstance(fault.error, StoreError) else fault.error()
        if fault.flip is not None and corrupted is not None:
            return corrupted(fault.flip)
        if fault.late is not None:
            self._late.append((len(self.ops) + fault.late, apply))
            raise Unreachable("the request is still on its way")
        if fault.lost:
            _quietly(apply)
            raise Unreachable("the answer was lost")
        answer = apply()
        if fault.twice:
            _quietly(apply)
        return answer

    def _next_fault(self, op: str, key: str, *, peek: Callable[[Fault], bool]) -> Fault | None:
        for fault in self.faults:
            if not fault.matches(op, key) or not peek(fault):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
            return fault
        return None

    def _apply_due(self) -> None:
        due = [apply for at, apply in self._late if at < len(self.ops)]
        self._late = [(at, apply) for at, apply in self._late if at >= len(self.ops)]
        for apply in due:
            _quietly(apply)

    def _verify(self, key: str, body: bytes, crc: int) -> None:
        if checksums.crc64nvme(body) != crc:
            raise Corrupted(f"{key}: the checksum of what arrived is not the announced one")

    def _current(self, key: str, etag: str | None) -> _Version:
        version = self._live.get(key)
        if version is None:
            raise Absent(f"{key} is not in {self._bucket}")
        if etag is not None and etag != version.etag:
            raise Exists(f"{key} is not the one that was listed any more")
        return version

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise NoSuchUpload(f"the upload of {key} is not in {self._bucket} any more")
        return upload

    def _assembled(self, upload: _Upload, parts: Sequence[Part]) -> bytes:
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise StoreError(f"{upload.key}: its parts are not in order")
        for index, part in enumerate(parts):
            have = upload.parts.get(part.number)
            if have is None or have[0].etag != part.etag:
                raise NoSuchUpload(f"part {part.number} of {upload.key} is not there any more")
            if index < len(parts) - 1 and have[0].size < self._min_part_size:
                raise StoreError(f"part {part.number} of {upload.key} is smaller than S3 allows")
        return b"".join(upload.parts[number][1] for number in numbers)

    def _store(self, key: str, body: bytes, etag: str) -> ObjectInfo:
        if self.encrypted:
            etag = hashlib.md5(b"some key" + body).hexdigest()
        # S3's listings give whole seconds.
        self._live[key] = _Version(body, etag, float(int(self._now())))
        self._versions.setdefault(key, []).append(self._live[key])
        return self._info(key)

    def _info(self, key: str) -> ObjectInfo:
        version = self._live[key]
        return ObjectInfo(key, len(version.body), version.etag, version.modified)


class _Blocks:
    """The blocks of one answer; cut or changed as the fault says."""

    def __init__(self, answer: tuple[bytes, Fault | None]) -> None:
        body, fault = answer
        self._cut = fault is not None and fault.cut is not None and fault.cut < len(body)
        if fault is not None and fault.flip is not None:
            body = _flipped(body, fault.flip)
        if fault is not None and fault.cut is not None:
            body = body[: fault.cut]
        self._blocks: Iterable[bytes] = iter([body[at : at + BLOCK] for at in range(0, len(body), BLOCK)])

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        for block in self._blocks:
            return block
        if self._cut:
            raise Unreachable("the connection was reset in the middle of the answer")
        raise StopIteration

    def close(self) -> None:
        self._blocks = iter(())
        self._cut = False


def _flipped(body: bytes, at: int) -> bytes:
    changed = bytearray(body)
    if changed:
        changed[at % len(changed)] ^= 0x01
    return bytes(changed)


def _quietly(apply: Callable[[], object]) -> None:
    """Apply something whose answer nobody hears."""
    with contextlib.suppress(StoreError):
        apply()
