"""Makes one file of many, in the state folder: a reproducible zip, or what a tool makes.

Equal files give equal zips, byte for byte: sorted names, no times, no modes, and no compression (whose output differs
between versions of zlib; recordings hardly shrink).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat as modes
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Sequence

from ncaasd.adapters.files.durable import sync_path
from ncaasd.adapters.files.links import observed, open_expected
from ncaasd.adapters.files.marked import refused
from ncaasd.errors import DiskFull, FileChanged, LocalError, ToolFailed
from ncaasd.model import Stat
from ncaasd.ports import Packed, PackFile, ToolRunner

KEEP_FREE = 10**9  # bytes: the journal is on this disk too
BLOCK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows
_WORK = ".work-"


class LocalPackages:
    """`ports.PackageBuilder` in a folder of its own."""

    def __init__(self, folder: str, tools: ToolRunner, *, keep_free: int = KEEP_FREE) -> None:
        self._folder = folder
        self._tools = tools
        self._keep_free = keep_free

    def path(self, target: str) -> str:
        return os.path.join(self._folder, target)

    def build(self, target: str, files: Sequence[PackFile], command: Sequence[str] | None) -> Packed:
        final = self.path(target)
        analysis = os.path.join(self._folder, target.partition("/")[0])
        with refused(final):
            os.makedirs(analysis, mode=0o700, exist_ok=True)
            self._check_space(sum(f.expect.size for f in files))
            work = tempfile.mkdtemp(prefix=_WORK, dir=analysis)
            try:
                os.mkdir(os.path.join(work, "out"))
                made = os.path.join(work, "out", os.path.basename(final))
                if command is None:
                    output = ""
                    _zip(made, files)
                else:
                    output = self._run(command, files, made, work)
                os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
                sync_path(made)
                os.replace(made, final)
                sync_path(os.path.dirname(final))
                return Packed(Stat.of(os.stat(final, follow_symlinks=False)), output)  # renaming changes the ctime
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _run(self, command: Sequence[str], files: Sequence[PackFile], made: str, work: str) -> str:
        for file in files:
            os.close(_open(file))
        output = self._tools.run(expanded(command, [f.path for f in files], made), folder=work)
        for file in files:
            os.close(_open(file))  # so the tool has read the files as they were observed
        if os.path.islink(made) or not os.path.isfile(made):
            raise ToolFailed(f"{command[0]} ended well, but made no file at {{out}}", output=output)
        return output

    def _check_space(self, size: int) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize - self._keep_free
        if size > free:
            raise DiskFull(
                f"a package of {size / 1e9:.2f} GB has no room in {self._folder}: {max(free, 0) / 1e9:.2f} GB are free",
                hint="free some space there, or put `state:` on a larger disk; it is tried again by itself",
            )

    def remove(self, target: str) -> None:
        shutil.rmtree(os.path.dirname(self.path(target)), ignore_errors=True)

    def prune(self, keep: Collection[str]) -> None:
        kept = {os.path.dirname(target) for target in keep}
        with contextlib.suppress(FileNotFoundError):
            for analysis in os.listdir(self._folder):
                for name in os.listdir(os.path.join(self._folder, analysis)):
                    if f"{analysis}/{name}" not in kept:
                        shutil.rmtree(os.path.join(self._folder, analysis, name), ignore_errors=True)


def expanded(command: Sequence[str], files: Sequence[str], out: str) -> list[str]:
    """`{files}` alone is one argument for each file; `{out}` is replaced wherever it is."""
    words: list[str] = []
    for word in command:
        words += files if word == "{files}" else [word.replace("{out}", out)]
    return words


def _zip(path: str, files: Sequence[PackFile]) -> None:
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in sorted(files, key=lambda f: f.name.encode("utf-8", "surrogateescape")):
            try:
                file.name.encode()
            except UnicodeEncodeError:
                raise LocalError(
                    f"{file.path!a} has a name that is no text, which a zip can't keep: rename it"
                ) from None
            entry = zipfile.ZipInfo(file.name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = (modes.S_IFREG | 0o644) << 16
            entry.file_size = file.expect.size
            with archive.open(entry, "w") as target:
                for block in _blocks(file):
                    target.write(block)


def _blocks(file: PackFile) -> Iterator[bytes]:
    fd = _open(file)
    try:
        left = file.expect.size
        while left:
            block = os.read(fd, min(BLOCK, left))
            if not block:
                raise FileChanged(f"{file.path} became shorter while it was packed")
            left -= len(block)
            yield block
        if observed(fd, file.path, file.link) != file.expect:
            raise FileChanged(f"{file.path} changed while it was packed")
    finally:
        os.close(fd)


def _open(file: PackFile) -> int:
    """A descriptor of the file as it was observed. Raises FileVanished, FileChanged, FileUnreadable."""
    return open_expected(file.path, file.link, file.expect)
