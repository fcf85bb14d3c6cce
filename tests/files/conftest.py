"""Fixtures of the disk's tests: real trees, real mounts where this user may make them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An analysis's folder, empty."""
    root = tmp_path / "caiman-ncap-web"
    for name in ("inputs", "configs", "submissions", "results"):
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts a small tmpfs on a folder; everything mounted is unmounted at the end."""
    mounted: list[Path] = []

    def tmpfs(where: Path, size: str = "1m") -> None:
        where.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this machine refuses to mount: {done.stderr.strip()}")
        mounted.append(where)

    yield tmpfs
    for where in reversed(mounted):
        subprocess.run(["umount", "-l", str(where)], capture_output=True, check=False)


@contextlib.contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    """Another value for a kernel setting, put back afterwards."""
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        before = path.read_text()
        path.write_text(str(value))
    except OSError as error:
        pytest.skip(f"{name} cannot be set here: {error}")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture
def kernel_setting() -> Callable[[str, int], contextlib.AbstractContextManager[None]]:
    return sysctl
