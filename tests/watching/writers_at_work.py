"""The ways in which programs bring a recording into a folder, each as a function of its path and its bytes.

Each is done when it returns. What it writes until then is not the recording yet: only the final bytes may be stored.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Bystanders:
    """What lies beside the recordings, and must not be uploaded."""

    unlike: list[str] = field(default_factory=list)  # parts of key names that must not be in S3
    skipped: dict[str, str] = field(default_factory=dict)  # path below the analysis -> a word of the reason


@dataclass(frozen=True)
class Writer:
    """`write(path, body)`; with `pauses`, its pauses are shorter than `settle`: it was stored once, unless this machine
    made one longer (`longest`)."""

    name: str
    write: Callable[[str, bytes], float]
    size: int = 64 * 1024
    base: bytes = b""  # another base name than "<name>.bin"


def whole(path: str, body: bytes) -> float:
    with open(path, "wb") as file:
        file.write(body)
    return 0.0


def editor(path: str, body: bytes) -> float:
    """As vim saves: a backup, a probe, the new text under a name of its own, a rename over the old one."""
    folder, name = os.path.split(path)
    whole(path, b"the text before")
    with open(os.path.join(folder, f".{name}.swp"), "wb") as swap:
        swap.write(b"b0VIM")
        whole(os.path.join(folder, "4913"), b"")
        os.unlink(os.path.join(folder, "4913"))
        os.rename(path, path + "~")
        whole(path, body)
        os.unlink(path + "~")
    os.unlink(os.path.join(folder, f".{name}.swp"))
    return 0.0


def rsync(path: str, body: bytes) -> float:
    """A temporary name with a dot, the sender's old mtime, a rename into place."""
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, f".{name}.Ab12Cd")
    _slowly(hidden, body, pause=0.4)
    os.utime(hidden, (1_600_000_000, 1_600_000_000))
    os.rename(hidden, path)
    return 0.0


def part(path: str, body: bytes) -> float:
    """A browser's or a copy program's `.part`."""
    _slowly(path + ".part", body, pause=0.4)
    os.rename(path + ".part", path)
    return 0.0


def appends(path: str, body: bytes) -> float:
    """Opened and closed again for each frame: that a writer has closed it means nothing (F29)."""
    return _slowly(path, body, pause=0.25, pieces=12)


def held_open(path: str, body: bytes) -> float:
    """One writer that holds it open, and pauses for longer than `settle`."""
    with open(path, "wb") as file:
        file.write(body[:100])
        file.flush()
        time.sleep(5)
        file.write(body[100:])
    return 0.0


def from_the_end(path: str, body: bytes) -> float:
    """Preallocated at its full size, then filled from the end (F30): its size never changes."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(body))
    longest, last = 0.0, time.monotonic()
    step = len(body) // 8
    for start in range(len(body) - step, -1, -step):
        time.sleep(0.25)
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(body[start : start + step])
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


def mapped(path: str, body: bytes) -> float:
    """Written through a mapping whose descriptor is closed, with pauses longer than `settle`."""
    with open(path, "w+b") as file:
        file.truncate(len(body))
        view = mmap.mmap(file.fileno(), len(body))
    half = len(body) // 2
    view[:half] = body[:half]
    time.sleep(5)
    view[half:] = body[half:]
    view.flush()
    view.close()
    return 0.0


def renamed_while_new(path: str, body: bytes) -> float:
    """Written under a working name and renamed before anybody saw it whole: one recording, of one name."""
    whole(path + ".working.bin", body)
    time.sleep(0.3)
    os.rename(path + ".working.bin", path)
    return 0.0


def sparse(path: str, body: bytes) -> float:
    with open(path, "wb") as file:
        file.seek(len(body) - 1)
        file.write(body[-1:])
    return 0.0


def _slowly(path: str, body: bytes, *, pause: float, pieces: int = 6) -> float:
    """Appends with pauses; the longest time between two of them, as this machine had it."""
    longest, last = 0.0, time.monotonic()
    step = -(-len(body) // pieces)
    for start in range(0, len(body), step):
        with open(path, "ab") as file:
            file.write(body[start : start + step])
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        time.sleep(pause)
    return longest


WRITERS = (
    Writer("whole", whole),
    Writer("empty", whole, size=0),
    Writer("editor", editor),
    Writer("rsync", rsync),
    Writer("part", part),
    Writer("F29-appends", appends),
    Writer("F30-held-open", held_open),
    Writer("F30-from-the-end", from_the_end),
    Writer("F30-mapped", mapped),
    Writer("F25-renamed-while-new", renamed_while_new),
    Writer("F37-sparse", sparse, size=5 * 1024 * 1024),
    Writer("no-text", whole, base=b"caf\xe9 \xff.bin"),
    # As long as a file's name may be, less what SeaweedFS needs: it answers 500 to a conditional put of a name above 247.
    Writer("245-bytes", whole, base=b"n" * 241 + b".bin"),
    Writer("multibyte", whole, base="Fliege µ 蠅.bin".encode()),
)


def bystanders(home: str, outside: str) -> Bystanders:
    """Links, pipes and sockets, in and out of the tree (F28, F74)."""
    inputs = os.path.join(home, "inputs")
    whole(os.path.join(outside, "secret.bin"), b"not dropped here")
    os.symlink(os.path.join(outside, "secret.bin"), os.path.join(inputs, "link-out.bin"))
    os.symlink(outside, os.path.join(inputs, "folder-out"))
    os.symlink(".", os.path.join(inputs, "loop"))
    os.symlink("nowhere", os.path.join(inputs, "dangling.bin"))
    os.mkfifo(os.path.join(inputs, "pipe.bin"))
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(inputs, os.O_PATH)
        try:
            bound.bind(f"/proc/self/fd/{here}/socket.bin")
        finally:
            os.close(here)
    for name in ("notes.tmp", "~lock", ".hidden.bin", "Thumbs.db"):
        whole(os.path.join(inputs, name), b"ignored")
    return Bystanders(
        unlike=[
            "secret",
            "link-out",
            "folder-out",
            "loop",
            "dangling",
            "pipe",
            "socket",
            "tmp",
            "~",
            "hidden",
            "Thumbs",
        ],
        skipped={
            "inputs/link-out.bin": "symbolic link",
            "inputs/folder-out": "symbolic link",
            "inputs/loop": "symbolic link",
            "inputs/dangling.bin": "symbolic link",
            "inputs/pipe.bin": "named pipe",
            "inputs/socket.bin": "socket",
        },
    )
