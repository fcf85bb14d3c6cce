"""Real inotify: every change is hinted, and what the kernel drops comes back as a hint for the whole root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from disk_help import needs_root
from support.cputime import cpu_of

from ncaasd.adapters import watcher as module
from ncaasd.adapters.files.mounts import events_from
from ncaasd.adapters.files.names import Ignoring
from ncaasd.adapters.watcher import Hint, Mode, Watcher

WITHIN = ("inputs", "configs", "submissions")
Setting = Callable[[str, int], AbstractContextManager[None]]


class Hints:
    """Collects hints, and waits for them."""

    def __init__(self) -> None:
        self._all: list[Hint] = []
        self._news = threading.Condition()

    def __call__(self, hint: Hint) -> None:
        with self._news:
            self._all.append(hint)
            self._news.notify_all()

    def clear(self) -> None:
        with self._news:
            self._all.clear()

    def paths(self) -> set[str | None]:
        with self._news:
            return {hint.path for hint in self._all}

    def wait(self, *paths: str | None, timeout: float = 10.0) -> None:
        """Until every one of `paths` was hinted."""
        with self._news:
            if not self._news.wait_for(lambda: set(paths) <= {hint.path for hint in self._all}, timeout):
                raise AssertionError(f"{set(paths) - {h.path for h in self._all}} not hinted in {timeout} s")

    def quiet(self, seconds: float = 3.0, timeout: float = 90.0) -> None:
        """Until nothing more was hinted for so long."""
        deadline = time.monotonic() + timeout
        with self._news:
            while self._news.wait(seconds):
                assert time.monotonic() < deadline, "hints without end"

    def of(self, path: str) -> Hint:
        """The last one for a path."""
        with self._news:
            return [hint for hint in self._all if hint.path == path][-1]


def eventually(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{timeout:.0f} s in vain for {what}"
        time.sleep(0.1)


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
def watcher(hints: Hints) -> Iterator[Watcher]:
    ignored = Ignoring(["*.tmp", "*.part", "~*", ".*"], areas=WITHIN)
    made = Watcher(hints, events_from=lambda path: (True, "ext4"), ignored=ignored)
    yield made
    made.stop()


def mode_of(watcher: Watcher, name: str, wanted: str, timeout: float = 20.0) -> Mode:
    deadline = time.monotonic() + timeout
    while watcher.modes()[name].mode != wanted:
        assert time.monotonic() < deadline, watcher.modes()
        time.sleep(0.01)
    return watcher.modes()[name]


@pytest.fixture
def watched(watcher: Watcher, hints: Hints, tree: Path) -> Path:
    watcher.watch("a", str(tree), within=WITHIN)
    mode_of(watcher, "a", "native")
    hints.wait(None)
    hints.clear()
    return tree


def write(path: Path, body: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)


def rename_editor(tree: Path) -> None:
    write(tree / "inputs/.a.tif.swp")
    (tree / "inputs/.a.tif.swp").rename(tree / "inputs/a.tif")


def rename_rsync(tree: Path) -> None:
    write(tree / "inputs/.a.tif.Ab12Cd")
    (tree / "inputs/.a.tif.Ab12Cd").rename(tree / "inputs/a.tif")


def rename_then_write(tree: Path) -> None:
    rename_rsync(tree)
    append_slowly(tree)


def download(tree: Path) -> None:
    write(tree / "inputs/a.tif.part")
    (tree / "inputs/a.tif.part").rename(tree / "inputs/a.tif")


def append_slowly(tree: Path) -> None:
    with open(tree / "inputs/a.tif", "ab", buffering=0) as file:
        for _ in range(3):
            file.write(b"x")
            time.sleep(0.02)


def fill_from_the_end(tree: Path) -> None:
    with open(tree / "inputs/a.tif", "wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 8192)
        for offset in (4096, 0):
            os.pwrite(file.fileno(), b"x" * 4096, offset)


def move_in(tree: Path) -> None:
    write(tree.parent / "staging/a.tif")
    (tree.parent / "staging/a.tif").rename(tree / "inputs/a.tif")


def move_folder_in(tree: Path) -> None:
    write(tree.parent / "staging/m7/deep/a.tif")
    (tree.parent / "staging/m7").rename(tree / "inputs/m7")


def new_folders_at_once(tree: Path) -> None:
    write(tree / "inputs/x/y/z/a.tif")


def truncate(tree: Path) -> None:
    write(tree / "inputs/a.tif")
    os.truncate(tree / "inputs/a.tif", 0)


@pytest.mark.parametrize(
    ("change", "path", "published"),
    [
        (lambda tree: write(tree / "inputs/a.tif"), "inputs/a.tif", False),
        (lambda tree: write(tree / "configs/c.yaml"), "configs/c.yaml", False),
        (lambda tree: write(tree / "submissions/j.yaml"), "submissions/j.yaml", False),
        (lambda tree: write(tree / "manifest.yaml"), "manifest.yaml", False),
        (lambda tree: write(tree / "inputs" / os.fsdecode(b"caf\xe9")), "inputs/" + os.fsdecode(b"caf\xe9"), False),
        (append_slowly, "inputs/a.tif", False),
        (fill_from_the_end, "inputs/a.tif", False),
        (truncate, "inputs/a.tif", False),
        (rename_editor, "inputs/a.tif", True),
        (rename_rsync, "inputs/a.tif", True),
        (rename_then_write, "inputs/a.tif", False),
        (download, "inputs/a.tif", True),
        (move_in, "inputs/a.tif", True),
        (move_folder_in, "inputs/m7/deep/a.tif", False),
        (new_folders_at_once, "inputs/x/y/z/a.tif", False),
    ],
)
def test_F25_F29_F30_every_way_to_make_a_file_is_hinted(
    watched: Path, hints: Hints, change: Callable[[Path], None], path: str, published: bool
) -> None:
    change(watched)
    hints.wait(path)
    time.sleep(4 * module.GATHER)
    assert hints.of(path) == Hint("a", path, published)
    assert all(hint is None or not any(part.startswith(".") for part in hint.split("/")) for hint in hints.paths())


def test_F25_renames_within_and_out_of_the_tree_are_hinted(watched: Path, hints: Hints) -> None:
    write(watched / "inputs/m7/a.tif")
    write(watched / "inputs/b.tif")
    hints.wait("inputs/m7/a.tif", "inputs/b.tif")
    hints.clear()
    (watched / "inputs/b.tif").rename(watched.parent / "b.tif")
    (watched / "inputs/m7").rename(watched / "inputs/m8")
    hints.wait("inputs/b.tif", "inputs/m7/a.tif", "inputs/m8/a.tif")
    write(watched / "inputs/m8/late.tif")  # under its new name
    hints.wait("inputs/m8/late.tif")
    hints.clear()
    (watched / "inputs/m8").rename(watched.parent / "m8")
    hints.wait(None)
    write(watched / "inputs/after.tif")
    hints.wait("inputs/after.tif")


def test_results_and_what_lies_beside_are_not_watched(watched: Path, hints: Hints) -> None:
    write(watched / "results/job__b_1/r.csv")
    write(watched / "other/x.tif")
    write(watched / "inputs/last.tif")
    hints.wait("inputs/last.tif")
    assert hints.paths() == {"inputs/last.tif"}


def test_a_new_folder_is_hinted_for_it_may_be_closed(watched: Path, hints: Hints) -> None:
    """What happens in a folder that can't be entered is not told."""
    (watched / "inputs/M7/.hidden").mkdir(parents=True)
    (watched / "inputs/M7/s1").mkdir()
    (watched / "inputs/M7/s1").rename(watched / "inputs/M7/s2")
    hints.wait("inputs/M7/", "inputs/M7/s2/")
    assert hints.paths() <= {"inputs/M7/", "inputs/M7/s1/", "inputs/M7/s2/"}


def test_a_top_folder_that_appears_later_is_watched(watched: Path, hints: Hints) -> None:
    shutil.rmtree(watched / "configs")
    hints.wait(None)
    hints.clear()
    (watched / "configs").mkdir()
    hints.wait(None)
    write(watched / "configs/c.yaml")
    hints.wait("configs/c.yaml")


@pytest.mark.timeout(120)
def test_F23_files_in_folders_created_a_moment_ago_are_hinted(watched: Path, hints: Hints) -> None:
    """Another process makes folders and files as fast as it can, while their watches are being set."""
    code = """
import os, sys
for n in range(300):
    folder = f"{sys.argv[1]}/inputs/d{n}/e/f"
    os.makedirs(folder)
    for name in ("a", "b"):
        open(f"{folder}/{name}.tif", "w").close()
"""
    subprocess.run([sys.executable, "-c", code, str(watched)], check=True, timeout=60)
    wanted = {f"inputs/d{n}/e/f/{name}.tif" for n in range(300) for name in "ab"}
    deadline = time.monotonic() + 30
    while not wanted <= hints.paths() and None not in hints.paths():
        assert time.monotonic() < deadline, f"{len(wanted - hints.paths())} of {len(wanted)} missed"
        time.sleep(0.05)


@pytest.mark.alone
@needs_root
@pytest.mark.timeout(120)
def test_F21_an_overflow_becomes_a_hint_for_the_whole_root(
    watcher: Watcher, hints: Hints, tree: Path, kernel_setting: Setting
) -> None:
    with kernel_setting("fs.inotify.max_queued_events", 8):
        watcher.watch("a", str(tree), within=WITHIN)
        mode_of(watcher, "a", "native")
        hints.wait(None)
        hints.clear()
        deadline = time.monotonic() + 60
        while None not in hints.paths():
            assert time.monotonic() < deadline, "the queue of 8 did not overflow, or nobody said so"
            for n in range(500):
                (tree / f"inputs/{n}.tif").touch()
            time.sleep(0.1)
    mode_of(watcher, "a", "native")
    hints.clear()
    write(tree / "inputs/after.tif")
    hints.wait("inputs/after.tif", timeout=20)
    assert watcher.alive()


@pytest.mark.alone
@needs_root
@pytest.mark.parametrize("when", ["at the start", "later"])
def test_F22_at_the_watch_limit_it_polls_and_names_the_sysctl(
    watcher: Watcher, tree: Path, kernel_setting: Setting, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_AGAIN", 0.5)

    def many() -> None:
        for n in range(50):
            (tree / f"inputs/{n}").mkdir()

    if when == "later":
        watcher.watch("a", str(tree), within=WITHIN)
        mode_of(watcher, "a", "native")
    else:
        many()
    with kernel_setting("fs.inotify.max_user_watches", 20):
        if when == "later":
            many()
        else:
            watcher.watch("a", str(tree), within=WITHIN)
        mode = mode_of(watcher, "a", "polling")
        assert "sudo sysctl fs.inotify.max_user_watches=" in mode.why
        assert watcher.alive()
    mode_of(watcher, "a", "native")  # by itself, when the limit was raised


@pytest.mark.alone
@needs_root
def test_F22_at_the_instance_limit_it_polls_and_names_the_sysctl(
    watcher: Watcher, tree: Path, kernel_setting: Setting
) -> None:
    with kernel_setting("fs.inotify.max_user_instances", 0):
        watcher.watch("a", str(tree), within=WITHIN)
        mode = mode_of(watcher, "a", "polling")
    assert "sudo sysctl fs.inotify.max_user_instances=" in mode.why


@pytest.mark.parametrize(
    ("wanted", "sends", "fstype", "mode", "why"),
    [
        ("auto", True, "ext4", "native", "ext4"),
        ("auto", False, "nfs4", "polling", "nfs4"),
        ("auto", False, "", "polling", "file system"),
        ("native", False, "nfs4", "native", "configured"),
        ("polling", True, "ext4", "polling", "configured"),
    ],
)
def test_F24_how_a_root_is_watched_and_why(
    hints: Hints, tree: Path, wanted: str, sends: bool, fstype: str, mode: str, why: str
) -> None:
    watcher = Watcher(hints, events_from=lambda path: (sends, fstype))
    watcher.watch("a", str(tree), mode=wanted, within=WITHIN)
    try:
        assert why in mode_of(watcher, "a", mode).why
        assert watcher.alive()
    finally:
        watcher.stop()


def test_F24_a_share_mounted_on_one_of_its_folders_makes_the_root_polled(hints: Hints, tree: Path) -> None:
    watcher = Watcher(hints, events_from=lambda path: (False, "cifs") if path.endswith("inputs") else (True, "ext4"))
    watcher.watch("a", str(tree), within=WITHIN)
    try:
        assert "cifs" in mode_of(watcher, "a", "polling").why
    finally:
        watcher.stop()


def test_F24_both_ways_in_one_process(hints: Hints, tmp_path: Path) -> None:
    for name in ("local", "share"):
        (tmp_path / name).mkdir()
    watcher = Watcher(hints, events_from=lambda path: (False, "cifs") if path.endswith("share") else events_from(path))
    for name in ("local", "share"):
        watcher.watch(name, str(tmp_path / name))
    try:
        mode_of(watcher, "local", "native")
        mode_of(watcher, "share", "polling")
        hints.wait(None)
        write(tmp_path / "share/a.tif")
        write(tmp_path / "local/a.tif")
        hints.wait("a.tif")
        assert hints.of("a.tif").root == "local"
    finally:
        watcher.stop()


def test_F26_a_root_that_goes_and_comes_is_watched_again(
    watched: Path, watcher: Watcher, hints: Hints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.2)
    watched.rename(watched.with_suffix(".away"))
    assert "No such file" in mode_of(watcher, "a", "polling").why
    hints.clear()
    (watched / "inputs").mkdir(parents=True)
    mode_of(watcher, "a", "native")
    hints.wait(None)
    write(watched / "inputs/a.tif")
    hints.wait("inputs/a.tif")


def test_F89_a_root_that_hangs_stops_nothing_but_itself(hints: Hints, tmp_path: Path) -> None:
    """At the seam; with a real file system that hangs: test_hanging.py."""
    answer = threading.Event()

    def asked(path: str) -> tuple[bool, str]:
        if path.endswith("hangs"):
            answer.wait(30)
        return True, "ext4"

    watcher = Watcher(hints, events_from=asked)
    (tmp_path / "good").mkdir()
    began = time.monotonic()
    watcher.watch("hangs", str(tmp_path / "hangs"))
    watcher.watch("good", str(tmp_path / "good"))
    assert time.monotonic() - began < 1
    mode_of(watcher, "good", "native")
    assert watcher.modes()["hangs"].mode == "starting"
    watcher.stop(timeout=0.2)
    assert time.monotonic() - began < 5
    answer.set()


def test_a_burst_of_hints_becomes_one_for_the_whole_root(
    watched: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HINTS", 10)
    monkeypatch.setattr(module, "GATHER", 1.0)
    write(watched / "inputs/first.tif")
    for n in range(50):
        write(watched / f"inputs/{n}.tif")
    hints.wait(None)


def test_watching_again_under_a_name_replaces_it(watched: Path, watcher: Watcher, hints: Hints, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    watcher.watch("a", str(tmp_path / "other"))
    mode_of(watcher, "a", "native")
    hints.wait(None)
    write(tmp_path / "other/new.tif")
    hints.wait("new.tif")
    assert set(watcher.modes()) == {"a"}


def descriptors() -> tuple[int, int]:
    """How many are open, and how many of them are inotify's."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return len(targets), sum("inotify" in target for target in targets)


def test_stop_ends_every_thread_and_closes_every_descriptor(hints: Hints, tree: Path) -> None:
    threads, (opened, inotify) = set(threading.enumerate()), descriptors()
    watcher = Watcher(hints, events_from=events_from)
    for name in "abc":
        watcher.watch(name, str(tree), mode="native", within=WITHIN)
    for name in "abc":
        mode_of(watcher, name, "native")
    assert set(threading.enumerate()) - threads and descriptors()[1] == inotify + 3
    began = time.monotonic()
    watcher.stop()
    assert time.monotonic() - began < 3
    eventually(lambda: not set(threading.enumerate()) - threads, "its threads to end", timeout=10)
    # What earlier tests in this process left behind may be closed meanwhile.
    eventually(
        lambda: descriptors()[0] <= opened and descriptors()[1] <= inotify, "its descriptors to close", timeout=10
    )


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_F21_alive_with_20000_folders_also_after_a_real_overflow(watcher: Watcher, hints: Hints, tree: Path) -> None:
    """Above 16,384 folders watchdog 7.1 alone goes round for ever once its queue has overflowed."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    if limit < 25_000:
        pytest.skip(f"fs.inotify.max_user_watches is {limit} here")
    for n in range(20_000):
        (tree / f"inputs/{n % 100}/{n}").mkdir(parents=True)
    others = set(threading.enumerate())
    watcher.watch("a", str(tree), within=WITHIN)
    mode_of(watcher, "a", "native", timeout=60)
    hints.wait(None)
    hints.clear()
    began = time.monotonic()
    write(tree / "inputs/5/5/a.tif")
    hints.wait("inputs/5/5/a.tif")
    assert time.monotonic() - began < 5  # 0.05 s, on an idle machine
    code = "import sys\nfor n in range(40000): open(f'{sys.argv[1]}/inputs/1/1/{n}', 'w').close()"
    subprocess.run([sys.executable, "-c", code, str(tree)], check=True, timeout=120)
    wanted = {f"inputs/1/1/{n}" for n in range(40_000)}
    eventually(lambda: None in hints.paths() or wanted <= hints.paths(), "every file, or the whole root, to be hinted")
    # While the flood is being passed on, a file may be hinted as part of the root; in the quiet after it, by its name.
    for n in range(10):
        hints.quiet()
        mode_of(watcher, "a", "native", timeout=60)
        hints.clear()
        write(tree / f"inputs/7/7/{n}.tif")
        eventually(hints.paths, "any hint")
        if f"inputs/7/7/{n}.tif" in hints.paths():
            break
        assert hints.paths() == {None}
    else:
        raise AssertionError("the root is hinted without end, and no file by its name")
    assert watcher.alive()
    time.sleep(3)
    busy = cpu_of(lambda thread: thread not in others)
    time.sleep(2)
    assert cpu_of(lambda thread: thread not in others) - busy < 0.5  # a loop that overflows itself takes a whole core
