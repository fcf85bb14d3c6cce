"""A file that doesn't hold still is never completed as a mix: it settles again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from transfer_rig import KIB, Killed, Rig, eventually, verdicts

PART = 4 * KIB
SIZE = 5 * PART + 7


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite_with_the_same_size_and_time(path: Path) -> None:
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(PART)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(os.urandom(SIZE))
    os.utime(other, ns=(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))
    os.replace(other, path)


def delete(path: Path) -> None:
    path.unlink()


def delete_its_folder(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"a file now")


def swap_its_folder(path: Path) -> None:
    """The open file doesn't notice: nothing about it changes."""
    path.parent.rename(path.parent.with_name("before"))
    path.parent.mkdir()
    path.write_bytes(os.urandom(SIZE))


def symlink(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has 108 bytes at most
        server.bind(path.name)
        os.chdir(here)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


# mutation -> verdict
MUTATIONS: dict[Callable[[Path], None], str] = {
    append: "changed",
    truncate: "changed",
    empty: "changed",
    rewrite_with_the_same_size_and_time: "changed",
    replace_by_rename: "changed",
    delete: "vanished",
    delete_its_folder: "vanished",
    swap_its_folder: "changed",
    symlink: "changed",
    fifo: "changed",
    unix_socket: "changed",
    directory: "changed",
}
POINTS = ["before", "upload.created", "upload.logged", "upload.part 0", "upload.part 3", "upload.part 5"]
POINTS += ["upload.parts_done", "upload.completed"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_F31_F32_F33_a_large_file_that_changes(rig: Rig, mutate: Callable[[Path], None], point: str) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    task = rig.upload(path, part_size=PART)
    name, _, skip = point.partition(" ")
    left = [int(skip or 0)]

    def reached(passed: str) -> None:
        if passed == name:
            if left[0] == 0:
                mutate(path)
            left[0] -= 1

    if point == "before":
        mutate(path)
    pool = rig.life(crash=reached)
    pool.start(task)
    (outcome,) = rig.outcomes
    assert outcome.verdict.value == MUTATIONS[mutate], outcome
    assert pool.active() == 0
    # Whole and of one version, or nothing at all.
    if point == "upload.completed":
        assert rig.store.body(task.key) == body
        assert outcome.stored is not None  # the key is ours now
    else:
        assert rig.store.keys() == []
        assert outcome.stored is None
    if name == "upload.part" and mutate is not swap_its_folder:
        assert rig.store.count("put_part") == int(skip) + 1  # nothing more of it is sent


@pytest.mark.parametrize("point", ["before", "upload.put"])
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_F31_F32_F33_a_small_file_that_changes(rig: Rig, mutate: Callable[[Path], None], point: str) -> None:
    body = os.urandom(SIZE)
    path = rig.file("a.tif", body)
    task = rig.upload(path, part_size=2 * SIZE)
    if point == "before":
        mutate(path)
    pool = rig.life(crash=lambda passed: mutate(path) if passed == point else None)
    pool.start(task)
    (outcome,) = rig.outcomes
    assert outcome.verdict.value == MUTATIONS[mutate], outcome
    assert rig.store.keys() == ([] if point == "before" else [task.key])
    assert (outcome.stored is None) == (point == "before")


def test_F31_changed_and_then_uploaded_again_when_quiet(rig: Rig) -> None:
    path = rig.file("a.tif", os.urandom(SIZE))
    task = rig.upload(path, part_size=PART)
    pool = rig.life(crash=lambda point: append(path) if point == "upload.completed" else None)
    pool.start(task)
    (outcome,) = rig.outcomes
    rig.log.uploads.clear()
    assert outcome.stored is not None
    assert verdicts(rig.run(rig.upload(path, part_size=PART, ours=True))) == ["stored"]
    assert rig.store.body(task.key) == path.read_bytes()


def test_F31_a_writer_that_never_stops_is_never_completed(rig: Rig) -> None:
    """Four workers, and a file that is appended to all the time."""
    path = rig.file("a.tif", os.urandom(40 * PART))
    task = rig.upload(path, part_size=PART)
    pool = rig.life(parallel=4, crash=lambda point: append(path) if point == "upload.part" else None)
    pool.start(task)
    eventually(lambda: not pool.active())
    assert verdicts(rig.outcomes) == ["changed"]
    assert rig.store.keys() == []
    pool.stop(timeout=5)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_F33_nothing_stays_open(rig: Rig, mutate: Callable[[Path], None]) -> None:
    path = rig.file("a.tif", os.urandom(SIZE))
    before = os.listdir("/proc/self/fd")
    pool = rig.life(crash=lambda point: mutate(path) if point == "upload.part" else None)
    pool.start(rig.upload(path, part_size=PART))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_an_unreadable_file_fails_with_a_sentence(rig: Rig) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = rig.file("a.tif", b"x")
    path.chmod(0)
    (outcome,) = rig.run(rig.upload(path))
    assert outcome.verdict.value == "failed"
    assert "cannot be read" in outcome.detail


def test_a_kill_is_a_kill() -> None:
    assert not issubclass(Killed, Exception)  # else the pool would take it for a failure
