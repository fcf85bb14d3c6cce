"""Writes status files beside manifests, atomically, so that a rig's software never reads half a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ncaasd.errors import LocalError, UnsafePath


class LocalStatusFiles:
    """ports.StatusWriter below one analysis's folder. Folders are opened one by one, without following symlinks."""

    def __init__(self, root: str) -> None:
        self._root = root

    def write(self, path: str, body: bytes) -> None:
        *folders, name = path.split("/")
        try:
            with self._folder(folders, create=True) as folder:
                temporary = f".{name}.ncaasd-tmp"[:255]
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
                fd = os.open(temporary, flags, 0o644, dir_fd=folder)
                try:
                    with os.fdopen(fd, "wb") as file:
                        file.write(body)
                    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
        except OSError as error:
            raise LocalError(f"the status file {self._root}/{path} can't be written: {error.strerror}") from error

    def remove(self, path: str) -> None:
        *folders, name = path.split("/")
        with contextlib.suppress(OSError), self._folder(folders, create=False) as folder:
            os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _folder(self, names: list[str], *, create: bool) -> Iterator[int]:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                if name in ("", ".", ".."):
                    raise UnsafePath(f"{'/'.join(names)} is no folder for a status file")
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)
