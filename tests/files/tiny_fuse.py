"""A FUSE file system in a thread, for tests: a folder seen through another's rules. It can hang, and it can treat names
as Windows or an old Mac does. Speaks the kernel's protocol (linux/fuse.h, 7.31) itself, so it needs root and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

_IN = struct.Struct("<IIQQIIIHH")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")


class Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class TinyFuse:
    """`backing` seen at `point`. refuses: characters no name may have. folds: case doesn't count, but is kept.
    normalizes: names come back decomposed (HFS+)."""

    def __init__(
        self, backing: Path, point: Path, *, refuses: str = "", folds: bool = False, normalizes: bool = False
    ) -> None:
        self.backing, self.point = backing, point
        self._refuses, self._folds, self._normalizes = refuses, folds, normalizes
        self._paths: dict[int, str] = {1: os.fspath(backing)}
        self._ids: dict[str, int] = {os.fspath(backing): 1}
        self._listings: dict[int, list[tuple[str, int]]] = {}
        self.takes = 0.0  # seconds that each answer takes at least
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"tiny", os.fspath(point).encode(), b"fuse.tiny", 0, options) != 0:
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "FUSE cannot be mounted")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def hang(self) -> None:
        """Answer nothing from now on."""
        self._may_answer.clear()

    def answer(self) -> None:
        self._may_answer.set()

    def close(self) -> None:
        self.answer()
        subprocess.run(["umount", "-l", os.fspath(self.point)], capture_output=True, check=False)
        self._thread.join(5)
        os.close(self._device)

    # The protocol

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            body = request[_IN.size :]
            if opcode in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET want no answer
                continue
            self._may_answer.wait(60)
            if self.takes:
                time.sleep(self.takes)
            code, answer = 0, b""
            try:
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise Refused(errno.ENOSYS)
                answer = handler(self, node, body)
            except Refused as refused:
                code = refused.code
            except OSError as error:
                code = error.errno or errno.EIO
            with contextlib.suppress(OSError):  # the asker may have been killed
                os.write(self._device, struct.pack("<IiQ", 16 + len(answer), -code, unique) + answer)

    def _init(self, node: int, body: bytes) -> bytes:
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0)

    # Names

    def _child(self, node: int, raw: bytes) -> str:
        """The backing path that a name in a folder means."""
        name = os.fsdecode(raw)
        if set(name) & set(self._refuses) or (self._refuses and name[-1] in ". " and name not in (".", "..")):
            raise Refused(errno.EINVAL)
        folder = self._paths[node]
        if self._normalizes:
            name = unicodedata.normalize("NFD", name)
        if self._folds and not os.path.lexists(os.path.join(folder, name)):
            for other in os.listdir(folder):
                if other.casefold() == name.casefold():
                    name = other
        return os.path.join(folder, name)

    def _entry(self, path: str) -> bytes:
        attributes = self._attributes(path)
        node = self._ids.setdefault(path, len(self._paths) + 1)
        self._paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + attributes

    def _attributes(self, path: str) -> bytes:
        seen = os.lstat(path)
        times = [seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns]
        return struct.pack(
            "<QQQQQQIIIIIIIIII",
            *(seen.st_ino, seen.st_size, seen.st_blocks, *(t // 10**9 for t in times), *(t % 10**9 for t in times)),
            *(seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, 0, 4096, 0),
        )

    def _attributes_out(self, node: int) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._paths[node])

    # What can be asked

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._child(node, body.rstrip(b"\0")))

    def _getattr(self, node: int, body: bytes) -> bytes:
        return self._attributes_out(node)

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, *_ = _SETATTR.unpack_from(body)
        path = self._paths[node]
        if valid & 8:
            os.truncate(path, size)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 48 == 48 and not valid & 384:
            os.utime(path, ns=(atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns))
        return self._attributes_out(node)

    def _mkdir(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body[8:].rstrip(b"\0"))
        os.mkdir(path)
        return self._entry(path)

    def _create(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body[16:].rstrip(b"\0"))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
        return self._entry(path) + bytes(16)

    def _unlink(self, node: int, body: bytes) -> bytes:
        self._forget(path := self._child(node, body.rstrip(b"\0")))
        os.unlink(path)
        return b""

    def _rmdir(self, node: int, body: bytes) -> bytes:
        self._forget(path := self._child(node, body.rstrip(b"\0")))
        os.rmdir(path)
        return b""

    def _rename(self, node: int, body: bytes) -> bytes:
        (target_node,) = struct.unpack_from("<Q", body)
        return self._move(node, target_node, body[8:])

    def _rename2(self, node: int, body: bytes) -> bytes:
        (target_node,) = struct.unpack_from("<Q", body)
        return self._move(node, target_node, body[16:])

    def _move(self, node: int, target_node: int, names: bytes) -> bytes:
        old, new, _ = names.split(b"\0", 2)
        source, target = self._child(node, old), self._child(target_node, new)
        os.rename(source, target)
        self._forget(target)
        moved = self._ids.pop(source, None)
        if moved is not None:
            self._ids[target], self._paths[moved] = moved, target
        return b""

    def _forget(self, path: str) -> None:
        self._ids.pop(path, None)

    def _open(self, node: int, body: bytes) -> bytes:
        return bytes(16)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        with open(self._paths[node], "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        fd = os.open(self._paths[node], os.O_WRONLY)
        try:
            return struct.pack("<II", os.pwrite(fd, body[40 : 40 + size], offset), 0)
        finally:
            os.close(fd)

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        if offset == 0:
            with os.scandir(self._paths[node]) as entries:
                self._listings[node] = [(entry.name, 4 if entry.is_dir() else 8) for entry in entries]
        out = b""
        for number, (name, kind) in enumerate(self._listings[node][offset:], offset + 1):
            raw = os.fsencode(name)
            record = struct.pack("<QQII", number, number, len(raw), kind) + raw
            record += bytes(-len(record) % 8)
            if len(out) + len(record) > size:
                break
            out += record
        return out

    def _statfs(self, node: int, body: bytes) -> bytes:
        disk = os.statvfs(self.backing)
        counts = disk.f_blocks, disk.f_bfree, disk.f_bavail, disk.f_files, disk.f_ffree
        return struct.pack("<QQQQQIIII24x", *counts, disk.f_bsize, 255, disk.f_frsize, 0)

    def _nothing(self, node: int, body: bytes) -> bytes:
        return b""


_HANDLERS: dict[int, Callable[[TinyFuse, int, bytes], bytes]] = {
    1: TinyFuse._lookup,
    3: TinyFuse._getattr,
    4: TinyFuse._setattr,
    9: TinyFuse._mkdir,
    10: TinyFuse._unlink,
    11: TinyFuse._rmdir,
    12: TinyFuse._rename,
    14: TinyFuse._open,
    15: TinyFuse._read,
    16: TinyFuse._write,
    17: TinyFuse._statfs,
    18: TinyFuse._nothing,  # RELEASE
    20: TinyFuse._nothing,  # FSYNC
    25: TinyFuse._nothing,  # FLUSH
    26: TinyFuse._init,
    27: TinyFuse._open,  # OPENDIR
    28: TinyFuse._readdir,
    29: TinyFuse._nothing,  # RELEASEDIR
    30: TinyFuse._nothing,  # FSYNCDIR
    35: TinyFuse._create,
    38: TinyFuse._nothing,  # DESTROY
    45: TinyFuse._rename2,
}


@contextlib.contextmanager
def mounted(
    backing: Path, point: Path, *, refuses: str = "", folds: bool = False, normalizes: bool = False
) -> Iterator[TinyFuse]:
    for folder in (backing, point):
        folder.mkdir(parents=True, exist_ok=True)
    fuse = TinyFuse(backing, point, refuses=refuses, folds=folds, normalizes=normalizes)
    try:
        yield fuse
    finally:
        fuse.close()
