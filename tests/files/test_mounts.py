"""Which file systems send events, and what a path is on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_help import needs_root

from ncaasd.adapters.files.mounts import MountInfo, MountPoints, events_from, filesystem_of, is_network, sends_events

TABLE = """\
25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:27 / /mnt rw - tmpfs none rw
40 30 0:45 / /mnt/rig1 rw,relatime shared:3 master:1 - cifs //rig1/data rw,vers=3.0
41 30 0:46 / /mnt/rig\\0401 rw - nfs4 nas:/export/rig\\0401 rw
42 40 0:47 / /mnt/rig1/deep rw - xfs /dev/sdb1 rw
43 30 0:48 / /mnt/stack rw - ext4 /dev/sdc1 rw
44 43 0:49 / /mnt/stack rw - fuse.sshfs host:/x rw
not a line of a mount table
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return str(path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", MountInfo("ext4", "/", "/dev/vda")),
        ("/home/x", MountInfo("ext4", "/", "/dev/vda")),
        ("/mnt", MountInfo("tmpfs", "/mnt", "none")),
        ("/mnt/rig1", MountInfo("cifs", "/mnt/rig1", "//rig1/data")),
        ("/mnt/rig1/2025/run", MountInfo("cifs", "/mnt/rig1", "//rig1/data")),
        ("/mnt/rig10", MountInfo("tmpfs", "/mnt", "none")),
        ("/mnt/rig 1/x", MountInfo("nfs4", "/mnt/rig 1", "nas:/export/rig 1")),
        ("/mnt/rig1/deep/x", MountInfo("xfs", "/mnt/rig1/deep", "/dev/sdb1")),
        ("/mnt/stack/x", MountInfo("fuse.sshfs", "/mnt/stack", "host:/x")),
        ("/mnt/rig1/../x", MountInfo("tmpfs", "/mnt", "none")),
    ],
)
def test_the_deepest_and_topmost_mount_counts(table: str, path: str, found: MountInfo) -> None:
    assert filesystem_of(path, table=table) == found


def test_without_a_mount_table_nothing_is_promised(tmp_path: Path) -> None:
    info = filesystem_of("/", table=str(tmp_path / "none"))
    assert info.fstype == ""
    assert not sends_events(info.fstype)


def test_this_machine_agrees_with_the_kernel() -> None:
    for path in ("/", "/proc/self", "/dev"):
        info = filesystem_of(path)
        assert os.stat(info.mountpoint).st_dev == os.stat(os.path.realpath(path)).st_dev
    assert filesystem_of("/proc/self").fstype == "proc"


def test_links_are_resolved_and_missing_paths_belong_to_what_is_above(tmp_path: Path) -> None:
    (tmp_path / "to-proc").symlink_to("/proc")
    assert filesystem_of(str(tmp_path / "to-proc")).fstype == "proc"
    assert filesystem_of(str(tmp_path / "not" / "yet")) == filesystem_of(str(tmp_path))


@pytest.mark.parametrize(
    ("fstypes", "events", "network"),
    [
        ("ext4 xfs btrfs zfs tmpfs overlay f2fs ntfs3 vfat exfat fuseblk ext3", True, False),
        ("nfs nfs4 cifs smb3 9p vboxsf ceph lustre afs virtiofs gpfs ocfs2", False, True),
        ("fuse.sshfs fuse.rclone fuse.s3fs fuse.glusterfs", False, True),
        ("fuse fuse.mergerfs fuse.anything autofs", False, False),
    ],
)
def test_F24_what_sends_events(fstypes: str, events: bool, network: bool) -> None:
    for fstype in fstypes.split():
        assert (sends_events(fstype), is_network(fstype)) == (events, network), fstype


@needs_root
def test_F24_a_real_mount_is_recognised(tmp_path: Path, mount: Callable[..., None]) -> None:
    mount(tmp_path / "with space")
    assert events_from(str(tmp_path / "with space" / "inputs")) == (True, "tmpfs")


def test_F89_a_mount_is_found_without_asking_it(table: str, tmp_path: Path) -> None:
    """Links on local disks lead to it; on the mount itself nothing is looked up (here: there is none of these)."""
    (tmp_path / "rig").symlink_to("/mnt/rig1/data")
    (tmp_path / "up").symlink_to("../" * 20 + "mnt/rig 1")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "folder").mkdir()
    found = {
        "/": "/",
        "/home/x": "/",
        "/mnt/rig1/2025/run": "/mnt/rig1",
        "/mnt/rig10": "/mnt",
        "/mnt/rig 1/x": "/mnt/rig 1",
        "/mnt/rig1/deep/x": "/mnt/rig1/deep",
        f"{tmp_path}/folder/none": "/",
        f"{tmp_path}/rig": "/mnt/rig1",
        f"{tmp_path}/rig/2025": "/mnt/rig1",
        f"{tmp_path}/up/x": "/mnt/rig 1",
        f"{tmp_path}/circle/x": "/",
    }
    mounts = MountPoints(table=table)
    assert {folder: mounts.of(folder) for folder in found} == found
    assert MountPoints(table=f"{table}.none").of("/mnt/rig1/x") == "/"


def test_F89_a_mount_that_comes_is_found(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    mounts = MountPoints(table=table)
    assert mounts.of("/srv/share/x") == "/"
    with open(table, "a", encoding="utf-8") as file:
        file.write("50 25 0:60 / /srv/share rw - nfs4 nas:/x rw\n")
    now[0] += 2
    assert mounts.of("/srv/share/x") == "/srv/share"
