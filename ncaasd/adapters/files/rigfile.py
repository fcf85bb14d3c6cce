"""The file in the root that names its rig, so that the rig keeps its name when its state is lost or its host is renamed."""

from __future__ import annotations

import contextlib
import os
import uuid

from ncaasd.adapters.files.marked import NEW, translated
from ncaasd.errors import LocalError, RootMissing
from ncaasd.plan.journals import is_rig_name

NAME = ".ncaasd-rig"
_LIMIT = 4096
_TEXT = """\
# The name that ncaasd has given to the rig whose recordings are in this folder. By it ncaasd knows what was submitted before,
# when its journal is lost or the computer gets another name. Keep this file; don't copy it to another rig's folder.
rig: {}
"""


class LocalRigFile:
    """`ports.RigFile`: `.ncaasd-rig` in the root."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.path = os.path.join(root, NAME)

    def read(self) -> str | None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.isdir(self._root):
                raise RootMissing(f"the root {self._root} is not there", hint="mount it") from None
            return None
        except OSError as error:
            raise LocalError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            text = os.read(fd, _LIMIT).decode(errors="replace")
        except OSError as error:
            raise LocalError(f"{self.path} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        for line in text.splitlines():
            if line.startswith("rig:") and is_rig_name(name := line.removeprefix("rig:").strip()):
                return name
        raise LocalError(
            f"{self.path} names no rig", hint="write `rig: NAME` into it if you know the name, else delete the file"
        )

    def write(self, rig: str) -> str:
        temporary = f"{self.path}.{uuid.uuid4().hex}"
        try:
            fd = os.open(temporary, NEW, 0o644)
            try:
                os.write(fd, _TEXT.format(rig).encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            try:
                os.link(temporary, self.path)  # fails where a rename would replace
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not os.path.lexists(self.path):
                    os.rename(temporary, self.path)
        except OSError as error:
            raise translated(error, self.path) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return self.read() or rig
