"""A real file system (FUSE) that hangs, and ones with other rules for names."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_help import needs_root
from tiny_fuse import TinyFuse, mounted

from ncaasd.adapters.files.localnames import original
from ncaasd.adapters.files.mounts import events_from
from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.watcher import Watcher

pytestmark = [needs_root, pytest.mark.timeout(60)]
JOB = "job__caiman-ncap-web_123456789012345"
WINDOWS = ':*?"<>|\\'

Mount = Callable[..., TinyFuse]


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Mount]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse here")
    with contextlib.ExitStack() as stack:

        def mount(**rules: object) -> TinyFuse:
            try:
                return stack.enter_context(mounted(tmp_path / "backing", tmp_path / "point", **rules))  # type: ignore[arg-type]  # handed through
            except OSError as error:
                pytest.skip(f"FUSE cannot be mounted here: {error}")

        yield mount


def test_F89_a_hanging_mount_keeps_its_own_thread_and_nobody_elses(fuse: Mount, tmp_path: Path) -> None:
    mount = fuse()
    (mount.backing / "run").mkdir()
    (mount.backing / "run/a.tif").write_text("x")
    (tmp_path / "local").mkdir()
    (tmp_path / "local/b.tif").write_text("x")
    share, local = LocalTree(str(mount.point), within=()), LocalTree(str(tmp_path / "local"), within=())
    known = dict(share.scan({}).changed)
    assert set(known) == {"run/a.tif"}

    mount.hang()
    answers: list[object] = []
    hung = [
        threading.Thread(target=lambda act=act: answers.append(act()), daemon=True)
        for act in (lambda: share.scan(known), lambda: share.stat("run/a.tif"), share.free_bytes, share.check)
    ]
    for thread in hung:
        thread.start()
    began = time.monotonic()
    assert set(local.scan({}).changed) == {"b.tif"}
    assert local.held_open(["b.tif"]) == set()
    watcher = Watcher(lambda hint: None, events_from=events_from)
    for name, root in (("share", mount.point), ("local", tmp_path / "local")):
        watcher.watch(name, str(root))
    while watcher.modes()["local"].mode != "native":
        assert time.monotonic() - began < 20
        time.sleep(0.01)
    watcher.stop(timeout=0.1)
    assert time.monotonic() - began < 20
    time.sleep(0.2)
    assert answers == []

    mount.answer()
    for thread in hung:
        thread.join(20)
        assert not thread.is_alive()
    assert len(answers) == 4
    assert share.scan(known).changed == {}
    assert share.scan(known).gone == frozenset()


def test_F89_looking_for_writers_does_not_touch_a_hanging_mount(fuse: Mount, tmp_path: Path) -> None:
    """A writer on the hanging mount, of a file of another name."""
    mount = fuse()
    path = tmp_path / "mine.tif"
    with open(mount.point / "theirs.tif", "w"), open(path, "w"):
        mount.hang()
        began = time.monotonic()
        assert LocalTree(str(tmp_path), within=()).held_open(["mine.tif"]) == {"mine.tif"}
        assert time.monotonic() - began < 5
        mount.answer()


def test_F24_a_FUSE_mount_is_polled(fuse: Mount) -> None:
    assert events_from(str(fuse().point / "inputs")) == (False, "fuse.tiny")


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"refuses": WINDOWS},
        {"folds": True},
        {"folds": True, "refuses": WINDOWS},
        {"folds": True, "normalizes": True},
    ],
    ids=["Linux", "names of Windows", "no case", "Windows", "old Mac"],
)
def test_F72_F73_every_key_is_kept_on_every_file_system(fuse: Mount, rules: dict[str, object]) -> None:
    mount = fuse(**rules)
    keys = [
        *("a:b.txt", "a%3Ab.txt", "what?.png", "back\\slash", "dot.", "NUL.txt", "../up", "/abs", "d/"),
        *("Fig.png", "fig.png", "FIG.PNG", "out", "out/a", "OUT/a", "Out/A", "caf\u00e9", "cafe\u0301", "CAF\u00c9"),
        *("x" * 300, "logs/DATASET_NAME:b.tif_STATUS.txt"),
    ]
    results = LocalResults(str(mount.point), adopt=True)
    results.check()

    def fetch(tree: LocalResults, key: str) -> str:
        partial = tree.partial(JOB, key, size=len(key.encode()), token="t")
        os.pwrite(partial.fd, key.encode(), 0)
        return partial.commit()

    paths = {key: fetch(results, key) for key in keys}
    assert len(set(paths.values())) == len(keys)
    for key, path in paths.items():
        assert (mount.backing / path).read_bytes() == key.encode(), key
        assert results.matches(path, len(key.encode()))
    told_apart = [key for key in keys if paths[key] != f"{JOB}/{results.local_name(key)}"]
    for key in set(keys) - set(told_apart) - {"x" * 300}:
        assert original(results.local_name(key)) == key
    assert bool(told_apart)  # `out` and `out/a`, at the least
    again = LocalResults(str(mount.point), expected_id=results.id)
    assert {key: fetch(again, key) for key in reversed(keys)} == paths
