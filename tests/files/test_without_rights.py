"""What an ordinary user may not read, really refused by the system: root's tests go on as nobody in a child."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ncaasd.adapters.files.links import open_expected, open_target
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.transfers.disks import Disks
from ncaasd.adapters.transfers.source import Source
from ncaasd.engine.core.clock import SystemClock
from ncaasd.errors import NcaasdError

NOBODY = 65534


@pytest.fixture
def base() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="ncaasd-rights-"))  # pytest's own folder is closed to others
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def as_nobody(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it answers in a forked child that has given root's rights away. (A new process could not even read a Python that
    lies in root's home.)"""
    answer, question = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            text = json.dumps(what())
        except BaseException:
            text = json.dumps({"failed": traceback.format_exc()})
        os.write(question, text.encode())
        os._exit(0)
    os.close(question)
    with os.fdopen(answer) as file:
        found: dict[str, Any] = json.loads(file.read())
    os.waitpid(child, 0)
    assert "failed" not in found, found.get("failed")
    return found


def look(root: str, links: str) -> dict[str, Any]:
    tree = LocalTree(root, within=(), links=[links])
    delta = tree.scan({})
    said: dict[str, Any] = {"changed": sorted(delta.changed), "skipped": delta.skipped, "links": delta.links}
    for folder in ("open/", "closed/", "unlisted/", "none/", "open/a.tif/"):
        found = tree.look(folder)
        said[f"look {folder}"] = [found.skipped, found.unseen]
    for name, stat in sorted(delta.changed.items()):
        path = f"{root}/{name}"
        target = tree.target(delta.links[name]) if name in delta.links else None
        try:
            Source(path, stat, Disks(SystemClock(), lambda _task: ""), target, open_target).close()
            os.close(open_expected(path, target, stat))
        except NcaasdError as error:
            said[name] = [type(error).__name__, str(error)]
    return said


def test_F97_without_rights(base: Path) -> None:
    for folder in ("tree/open", "tree/closed", "tree/unlisted", "videos/hidden"):
        (base / folder).mkdir(parents=True)
    for name in (
        "tree/open/a.tif",
        "tree/open/bad.tif",
        "tree/closed/b.tif",
        "tree/unlisted/c.tif",
        "videos/hidden/v.avi",
    ):
        (base / name).write_bytes(b"x")
    (base / "videos/bad.avi").write_bytes(b"x")
    os.symlink(base / "videos/hidden/v.avi", base / "tree/v.avi")
    os.symlink(base / "videos/bad.avi", base / "tree/w.avi")
    (base / "tree/open/bad.tif").chmod(0)
    (base / "videos/bad.avi").chmod(0)
    (base / "tree/closed").chmod(0)
    (base / "tree/unlisted").chmod(0o311)
    (base / "videos/hidden").chmod(0o311)  # may be passed through, not listed
    try:
        said = as_nobody(lambda: look(str(base / "tree"), str(base / "videos")))
    finally:
        for folder in ("tree/closed", "tree/unlisted", "videos/hidden"):
            (base / folder).chmod(0o755)
    assert said["changed"] == ["open/a.tif", "open/bad.tif", "v.avi", "w.avi"]
    assert set(said["skipped"]) == {"closed/", "unlisted/"}
    assert all("cannot be opened: Permission denied" in why and "chmod a+rx" in why for why in said["skipped"].values())
    for folder in ("closed/", "unlisted/"):
        assert said[f"look {folder}"] == [said["skipped"][folder], True], "at once, where its making was hinted"
    for folder in ("open/", "none/", "open/a.tif/"):
        assert said[f"look {folder}"] == ["", False]
    assert said["links"] == {"v.avi": f"{base}/videos/hidden/v.avi", "w.avi": f"{base}/videos/bad.avi"}
    for name in ("open/bad.tif", "w.avi"):
        kind, text = said[name]
        assert kind == "FileUnreadable"
        assert "cannot be read: Permission denied (EACCES)" in text
        assert "chmod a+r" in text
    assert not {"open/a.tif", "v.avi"} & set(said)
