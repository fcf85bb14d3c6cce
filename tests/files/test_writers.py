"""Who holds a file open for writing."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.files.writers import held_for_writing

# Python's mmap keeps a descriptor of its own, so the C library's is called.
MAP = (
    "import ctypes, os; g = os.open(p, {flags}); m = ctypes.CDLL(None).mmap; m.restype = ctypes.c_void_p; "
    "assert m(None, ctypes.c_size_t(4096), {protection}, {sharing}, g, ctypes.c_long(0)) not in (None, 2**64 - 1); os.close(g)"
)
HOW = {
    "appends": "f = open(p, 'ab')",
    "reads and writes": "f = open(p, 'r+b')",
    "maps it for writing, and has closed it": MAP.format(flags=os.O_RDWR, protection=3, sharing=mmap.MAP_SHARED),
    "reads": "f = open(p, 'rb')",
    "maps it for reading": MAP.format(flags=os.O_RDONLY, protection=1, sharing=mmap.MAP_SHARED),
    "maps a copy of it": MAP.format(flags=os.O_RDONLY, protection=3, sharing=mmap.MAP_PRIVATE),
    "has it closed": "open(p, 'ab').close()",
}
WRITES = ("appends", "reads and writes", "maps it for writing, and has closed it")


@pytest.mark.parametrize("how", HOW)
def test_F30_writers_of_another_process_are_seen(tree: Path, how: str) -> None:
    path = tree / "inputs" / "a b\n.tif"
    path.write_bytes(bytes(4096))
    (tree / "inputs/other.tif").write_bytes(bytes(10))
    code = f"import sys; p = sys.argv[1]; {HOW[how]}; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"ready\n"
        name = f"inputs/{path.name}"
        held = LocalTree(str(tree)).held_open([name, "inputs/other.tif", "inputs/none.tif"])
        process.stdin.close()
    assert held == ({name} if how in WRITES else set())
    assert LocalTree(str(tree)).held_open([name]) == set()


def test_another_file_of_the_same_name_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for folder in "xy":
        (tmp_path / folder / "a.tif").write_bytes(bytes(4096))
    with open(tmp_path / "x/a.tif", "r+b") as file, mmap.mmap(file.fileno(), 4096):
        tree = LocalTree(str(tmp_path), within=())
        assert tree.held_open(["x/a.tif", "y/a.tif"]) == {"x/a.tif"}


def test_looking_is_bounded_in_time_and_nothing_known_without_proc(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with open(path, "wb"):
        identity = os.stat(path).st_dev, os.stat(path).st_ino
        assert held_for_writing({identity: str(path)}) == {identity}
        assert held_for_writing({identity: str(path)}, look_for=-1) == set()
        assert held_for_writing({identity: str(path)}, proc=str(tmp_path / "none")) == set()
        assert held_for_writing({}) == set()
