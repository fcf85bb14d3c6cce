"""Rigs whose watching is looked at: slow enough to settle for a measurable time, or hasty about hanging mounts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def bind() -> Iterator[Callable[[Path, Path], Callable[[], None]]]:
    """Mounts one folder on another; returns what unmounts it again."""
    with contextlib.ExitStack() as stack:

        def mount(source: Path, target: Path) -> Callable[[], None]:
            command = ["mount", "--bind", str(source), str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"this machine refuses to mount: {done.stderr.strip()}")

            def unmount() -> None:
                subprocess.run(["umount", "-l", str(target)], capture_output=True, check=False)

            stack.callback(unmount)
            return unmount

        yield mount
