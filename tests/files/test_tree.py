"""A watched tree: what a scan finds, what it must not conclude, and reading one small file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_help import needs_root
from hypothesis import given, settings
from hypothesis import strategies as st

from ncaasd.adapters.files.tree import FEW, LocalTree
from ncaasd.errors import FileChanged, FileVanished, LocalError, RootMissing, UnsafePath
from ncaasd.model import Stat

IGNORE = ["*.tmp", "*.part", "~*", ".*", "Thumbs.db", "desktop.ini"]


def put(root: Path, *paths: str, body: str = "x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(body)


def known_after(tree: LocalTree) -> dict[str, Stat]:
    return dict(tree.scan({}).changed)


# What is found


def test_a_scan_finds_what_is_to_be_uploaded_and_nothing_else(tree: Path) -> None:
    put(
        tree,
        *("inputs/a.tif", "inputs/m7/b.tif", "configs/c.yaml", "submissions/j.yaml", "manifest.yaml"),
        *(
            "results/job__b_1/r.csv",
            "notes.txt",
            "elsewhere/d.tif",
            "inputs/x.tif.part",
            "inputs/.git/e",
            "inputs/~w.tif",
        ),
        *("submissions/j.status.json", "submissions/status/rule/unit.json", "manifest.status.json"),
    )
    local = LocalTree(str(tree), ignore=IGNORE)
    delta = local.scan({})
    wanted = {"inputs/a.tif", "inputs/m7/b.tif", "configs/c.yaml", "submissions/j.yaml", "manifest.yaml"}
    assert set(delta.changed) == wanted
    assert (delta.gone, delta.skipped, delta.files) == (frozenset(), {}, 5)
    everything = [str(path.relative_to(tree)) for path in tree.rglob("*")]
    assert len(everything) > 20
    assert {path for path in everything if local.stat(path) is not None} == wanted  # a hint may name any of them


def test_a_source_is_scanned_whole(tmp_path: Path) -> None:
    put(tmp_path, "a.tif", "results/b.tif", "m/n/c.tif", "m/Thumbs.db")
    delta = LocalTree(str(tmp_path), ignore=IGNORE, within=()).scan({})
    assert set(delta.changed) == {"a.tif", "results/b.tif", "m/n/c.tif"}
    put(tmp_path, "submissions/x.status.json")
    assert set(LocalTree(str(tmp_path), within=()).scan(delta.changed).changed) == {
        "submissions/x.status.json",
        "m/Thumbs.db",
    }


WHOLE_PATHS = ["raw/old", "scratch/*", "inputs/b", "/c/", "configs/old", "**/deep/x.tif"]


def test_patterns_of_whole_paths_hold_for_a_scan_and_for_a_hint(tree: Path) -> None:
    wanted = {
        "inputs/M7/raw/old/a.tif",
        "inputs/scratch.tif",
        "inputs/raw/new.tif",
        "configs/c.yaml",
        "inputs/deep.tif",
        "inputs/M7/c/a.tif",
    }
    put(tree, *wanted)
    put(tree, "inputs/raw/old/a.tif", "inputs/raw/old/x/a.tif", "inputs/scratch/a.tif", "inputs/scratch/x/a.tif")
    put(tree, "inputs/b/a.tif", "inputs/c/a.tif", "configs/old/c.yaml", "inputs/M7/deep/x.tif")
    local = LocalTree(str(tree), ignore=WHOLE_PATHS)
    assert set(local.scan({}).changed) == wanted
    everything = [str(path.relative_to(tree)) for path in tree.rglob("*")]
    assert {path for path in everything if local.stat(path) is not None} == wanted


def test_a_folder_that_is_ignored_is_not_entered(tree: Path) -> None:
    put(tree, "inputs/raw/old/a.tif", "inputs/a.tif")
    (tree / "inputs/raw/old").chmod(0)  # else it would be said that it can't be opened, unless root looks
    delta = LocalTree(str(tree), ignore=["raw/old"]).scan({"inputs/raw/old/a.tif": Stat(1, 1, 1, 1)})
    (tree / "inputs/raw/old").chmod(0o755)
    assert (set(delta.changed), delta.gone, delta.skipped) == ({"inputs/a.tif"}, {"inputs/raw/old/a.tif"}, {})


def test_patterns_of_a_source_are_below_it(tmp_path: Path) -> None:
    put(tmp_path, "raw/old/a.tif", "M7/raw/old/a.tif", "inputs/raw/old/a.tif")
    found = LocalTree(str(tmp_path), ignore=["raw/old"], within=()).scan({}).changed
    assert set(found) == {"M7/raw/old/a.tif", "inputs/raw/old/a.tif"}


def test_that_all_is_ignored_now_is_no_missing_disk(tree: Path) -> None:
    """A new pattern may mean all that was known; nothing was deleted, and no disk is away (F26)."""
    put(tree, *(f"inputs/raw/{n}.tif" for n in range(FEW + 1)))
    known = known_after(LocalTree(str(tree)))
    delta = LocalTree(str(tree), ignore=["raw/*"]).scan(known)
    assert delta.gone == known.keys()


def test_F27_only_differences_leave_a_rescan(tree: Path) -> None:
    put(tree, "inputs/same.tif", "inputs/grown.tif", "inputs/deleted.tif", "inputs/m/moved.tif")
    local = LocalTree(str(tree))
    known = known_after(local)
    assert local.scan(known).changed == {}
    put(tree, "inputs/new.tif")
    put(tree, "inputs/grown.tif", body="more than before")
    (tree / "inputs/deleted.tif").unlink()
    (tree / "inputs/m").rename(tree / "inputs/n")
    delta = LocalTree(str(tree)).scan(known)  # after a restart
    assert set(delta.changed) == {"inputs/new.tif", "inputs/grown.tif", "inputs/n/moved.tif"}
    assert delta.gone == {"inputs/deleted.tif", "inputs/m/moved.tif"}
    assert delta.files == 4
    assert delta.changed["inputs/grown.tif"] == local.stat("inputs/grown.tif")


def test_F32_a_rewrite_with_the_same_size_and_mtime_is_found(tree: Path) -> None:
    put(tree, "inputs/a.tif", "inputs/b.tif", body="one")
    local = LocalTree(str(tree))
    known = known_after(local)
    for name, write in (("a.tif", Path.write_text), ("b.tif", lambda p, t: (p.unlink(), p.write_text(t)))):
        path = tree / "inputs" / name
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        write(path, "two")
        os.utime(path, ns=times)
        before, now = known[f"inputs/{name}"], local.stat(f"inputs/{name}")
        assert now is not None
        assert (before.size, before.mtime_ns) == (now.size, now.mtime_ns)
    assert set(local.scan(known).changed) == {"inputs/a.tif", "inputs/b.tif"}


def test_another_inode_alone_is_no_change(tree: Path) -> None:
    """A share invents other inode numbers after each mount."""
    put(tree, "inputs/a.tif")
    local = LocalTree(str(tree))
    known = {path: Stat(s.size, s.mtime_ns, s.ctime_ns, s.inode + 1) for path, s in known_after(local).items()}
    assert local.scan(known).changed == {}


def test_names_of_any_bytes_and_of_255_bytes_survive(tree: Path) -> None:
    odd = [b"caf\xe9.tif", b"new\nline", b"\xff\xfe", b"n" * 255, "中".encode() * 85]
    for name in odd:
        (tree / "inputs" / os.fsdecode(name)).write_text("x")
    local = LocalTree(str(tree))
    found = known_after(local)
    assert {os.fsencode(path) for path in found} == {b"inputs/" + name for name in odd}
    assert local.scan(found).changed == {}
    assert all(local.stat(path) == seen for path, seen in found.items())
    assert local.read("inputs/" + os.fsdecode(odd[0]), limit=9)[0] == b"x"


def test_trees_deeper_than_PATH_MAX_are_walked(tree: Path) -> None:
    fd, depth, name = os.open(tree / "inputs", os.O_RDONLY), 100, "d" * 100
    for _ in range(depth):  # 10,100 bytes: no system call takes that as one path
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("f.tif", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    local = LocalTree(str(tree))
    known = known_after(local)
    assert list(known) == ["inputs/" + f"{name}/" * depth + "f.tif"]
    assert local.stat(next(iter(known))) == next(iter(known.values()))
    assert not local.scan(known).changed


def test_nesting_without_end_is_said_and_nothing_below_it_is_gone(tree: Path) -> None:
    fd = os.open(tree / "inputs", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    put(tree, "inputs/a.tif")
    below = "inputs/" + "d/" * 590 + "f.tif"
    delta = LocalTree(str(tree)).scan({below: Stat(1, 1, 1, 1)})
    assert set(delta.changed) == {"inputs/a.tif"}
    assert delta.gone == frozenset()
    assert len(delta.skipped) == 1
    assert "too deep" in next(iter(delta.skipped.values()))


def test_a_scan_leaves_no_descriptor_open(tree: Path) -> None:
    put(tree, *(f"inputs/{n}/{m}/f" for n in range(5) for m in range(5)))
    local = LocalTree(str(tree))
    before = len(os.listdir("/proc/self/fd"))
    known = known_after(local)
    local.scan(known)
    local.read("inputs/0/0/f", limit=5)
    with pytest.raises(FileVanished):
        local.read("inputs/0/none", limit=5)
    assert len(os.listdir("/proc/self/fd")) == before


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "delete", "rename", "touch"]), st.sampled_from("abc"), st.sampled_from("abc")),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(STEPS, min_size=1, max_size=4))
def test_rescans_agree_with_looking_at_everything(rounds: list[list[tuple[str, str, str]]]) -> None:
    """Applied one after the other, what rescans say is different is always the whole tree as it is."""
    with tempfile.TemporaryDirectory() as root:
        local = LocalTree(root, within=())
        known: dict[str, Stat] = {}
        for steps in rounds:
            for what, one, other in steps:
                path, target = Path(root, one, f"{other}.tif"), Path(root, other)
                with contextlib.suppress(OSError):
                    if what == "write":
                        put(Path(root), f"{one}/{other}.tif", body=one * (1 + len(known)))
                    elif what == "delete":
                        path.unlink()
                    elif what == "rename":
                        Path(root, one).rename(target)
                    else:
                        os.utime(path)
            delta = local.scan(known)
            known = {path: seen for path, seen in known.items() if path not in delta.gone} | delta.changed
            there = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
            assert known == {os.path.relpath(path, root): local.stat(os.path.relpath(path, root)) for path in there}
            assert delta.files == len(there)
            assert local.scan(known).changed == {}


# What is not a file


def test_F28_no_link_leads_out_or_round_and_each_name_is_one_file(tree: Path, tmp_path: Path) -> None:
    put(tmp_path, "outside/secret.tif")
    put(tree, "inputs/a.tif", "inputs/m/b.tif")
    os.link(tree / "inputs/a.tif", tree / "inputs/hard.tif")
    links = {
        "inputs/loop": tree / "inputs",
        "inputs/m/up": Path(".."),
        "inputs/in.tif": tree / "inputs/a.tif",
        "inputs/out.tif": tmp_path / "outside/secret.tif",
        "inputs/outdir": tmp_path / "outside",
        "inputs/dangling": Path("nowhere"),
    }
    for name, target in links.items():
        (tree / name).symlink_to(target)
    local = LocalTree(str(tree))
    delta = local.scan({})
    assert set(delta.changed) == {"inputs/a.tif", "inputs/hard.tif", "inputs/m/b.tif", "inputs/in.tif"}
    assert delta.links == {"inputs/in.tif": "inputs/a.tif"}, "the one that leads to a file of the same tree"
    assert set(delta.skipped) == set(links) - {"inputs/in.tif"}
    assert all("symbolic link" in why for why in delta.skipped.values())
    assert local.stat("inputs/out.tif") is None
    assert local.stat("inputs/outdir/secret.tif") is None
    with pytest.raises(FileVanished):
        local.read("inputs/outdir/secret.tif", limit=9)
    with pytest.raises(FileVanished):
        local.read("inputs/out.tif", limit=9)


def test_F28_a_top_folder_that_is_a_link_is_skipped_and_said(tree: Path, tmp_path: Path) -> None:
    put(tmp_path, "big/a.tif")
    (tree / "inputs").rmdir()
    (tree / "inputs").symlink_to(tmp_path / "big")
    delta = LocalTree(str(tree)).scan({})
    assert delta.changed == {}
    assert "symbolic link" in delta.skipped["inputs"]


@pytest.mark.timeout(20)
def test_F74_pipes_sockets_and_devices_are_skipped_and_said(tree: Path) -> None:
    os.mkfifo(tree / "inputs/pipe.tif")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(tree / "inputs")
        try:
            bound.bind("socket.tif")
        finally:
            os.chdir(here)
    put(tree, "inputs/a.tif")
    local = LocalTree(str(tree))
    delta = local.scan({})
    assert set(delta.changed) == {"inputs/a.tif"}
    assert delta.skipped == {"inputs/pipe.tif": "a named pipe, not a file", "inputs/socket.tif": "a socket, not a file"}
    assert local.stat("inputs/pipe.tif") is None
    with pytest.raises(FileVanished):
        local.read("inputs/pipe.tif", limit=9)  # and does not wait for somebody to write to it


@needs_root
def test_F74_a_device_is_skipped_and_said(tree: Path) -> None:
    try:
        os.mknod(tree / "inputs/null", 0o020666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    assert LocalTree(str(tree)).scan({}).skipped == {"inputs/null": "a device, not a file"}


def test_what_cannot_be_looked_at_is_not_gone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "inputs/m7/a.tif", "inputs/m7/deep/b.tif", "inputs/m70/c.tif", "inputs/d.tif")
    local = LocalTree(str(tree))
    known = known_after(local)
    (tree / "inputs/d.tif").unlink()
    real = os.open

    def refused(path: str, *args: object, **kwargs: object) -> int:
        if path == "m7":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]  # handed through as they come

    monkeypatch.setattr(os, "open", refused)  # the system's refusal, which root can't have by rights
    delta = local.scan(known)
    assert delta.gone == {"inputs/d.tif"}
    assert delta.skipped == {"inputs/m7/": "cannot be opened: Too many open files"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights_is_skipped(tree: Path) -> None:
    put(tree, "inputs/m7/a.tif")
    local = LocalTree(str(tree))
    known = known_after(local)
    (tree / "inputs/m7").chmod(0)
    try:
        delta = local.scan(known)
    finally:
        (tree / "inputs/m7").chmod(0o700)
    assert delta.gone == frozenset()
    assert "inputs/m7/" in delta.skipped


# F26: missing, or emptied?

MANY = [f"inputs/m{n}/a.tif" for n in range(FEW + 1)]


def lose(tree: Path, what: str) -> None:
    if what == "root removed":
        shutil.rmtree(tree)
    elif what == "root replaced by an empty folder":
        shutil.move(tree, tree.with_suffix(".away"))
        tree.mkdir()
    elif what == "root is a file":
        shutil.rmtree(tree)
        tree.write_text("")
    elif what == "inputs removed":
        shutil.rmtree(tree / "inputs")
    elif what == "inputs replaced by an empty folder":
        shutil.move(tree / "inputs", tree / "away")
        (tree / "inputs").mkdir()
    elif what == "all recordings deleted":
        for below in (tree / "inputs").iterdir():
            shutil.rmtree(below)
    elif what == "all but one deleted":
        for below in list((tree / "inputs").iterdir())[1:]:
            shutil.rmtree(below)
    elif what == "the config deleted":
        (tree / "configs/c.yaml").unlink()
    elif what == "the manifest deleted":
        (tree / "manifest.yaml").unlink()
    else:
        raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "running", "restarted"),
    [  # what a scan says while the daemon runs, and after a restart
        ("root removed", "missing", "missing"),
        ("root replaced by an empty folder", "missing", "missing"),
        ("root is a file", "missing", "missing"),
        ("inputs removed", "missing", "missing"),
        ("inputs replaced by an empty folder", "missing", "missing"),
        ("all recordings deleted", "gone", "missing"),
        ("all but one deleted", "gone", "gone"),
        ("the config deleted", "gone", "gone"),
        ("the manifest deleted", "gone", "gone"),
    ],
)
def test_F26_missing_or_emptied(tree: Path, what: str, running: str, restarted: str) -> None:
    put(tree, *MANY, "configs/c.yaml", "manifest.yaml")
    local = LocalTree(str(tree))
    known = known_after(local)
    lose(tree, what)
    for scanner, expected in ((local, running), (LocalTree(str(tree)), restarted)):
        if expected == "missing":
            with pytest.raises(RootMissing) as raised:
                scanner.scan(known)
            assert str(tree) in str(raised.value)
            assert raised.value.hint
        else:
            assert scanner.scan(known).gone


@pytest.mark.parametrize("known", [1, FEW + 1])
def test_F26_a_source_found_empty_at_a_start_is_missing(tmp_path: Path, known: int) -> None:
    with pytest.raises(RootMissing, match=f"{known} files were known"):
        LocalTree(str(tmp_path), within=()).scan({f"{n}.tif": Stat(1, 1, 1, 1) for n in range(known)})


def test_F26_a_source_emptied_by_hand_is_believed(tmp_path: Path) -> None:
    put(tmp_path, *(f"{n}.tif" for n in range(20)))
    local = LocalTree(str(tmp_path), within=())
    known = known_after(local)
    for n in range(20):
        (tmp_path / f"{n}.tif").unlink()
    assert local.scan(known).gone == set(known)
    local.check()


def test_F26_any_file_in_it_ends_the_doubt(tree: Path) -> None:
    put(tree, *MANY)
    known = known_after(LocalTree(str(tree)))
    lose(tree, "all recordings deleted")
    restarted = LocalTree(str(tree))
    with pytest.raises(RootMissing):
        restarted.scan(known)
    put(tree, "inputs/here.txt")
    assert restarted.scan(known).gone == set(known)


def test_F26_a_replaced_root_is_seen_by_check_too(tree: Path) -> None:
    put(tree, *MANY)
    local = LocalTree(str(tree))
    local.check()
    local.scan({})
    local.check()
    lose(tree, "root replaced by an empty folder")
    with pytest.raises(RootMissing):
        local.check()


@needs_root
@pytest.mark.parametrize("where", ["", "inputs"])
def test_F26_an_unmounted_disk_and_its_return(tree: Path, mount: Callable[..., None], where: str) -> None:
    put(tree, "configs/c.yaml")
    point = tree / where
    before = {p.name for p in tree.iterdir()}
    mount(point)
    put(tree, "configs/c.yaml", *MANY)
    (tree / "inputs").mkdir(exist_ok=True)
    local = LocalTree(str(tree))
    known = known_after(local)
    stats = {path: (tree / path).stat() for path in MANY}
    subprocess.run(["umount", str(point)], check=True)
    assert {p.name for p in tree.iterdir()} == before
    for scanner in (local, LocalTree(str(tree))):
        with pytest.raises(RootMissing):
            scanner.scan(known)
    mount(point)  # comes back with another device number, and other inodes
    put(tree, "configs/c.yaml", *MANY)
    for path, seen in stats.items():
        os.utime(tree / path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    delta = local.scan(known)
    assert delta.gone == frozenset()
    local.check()


@needs_root
def test_F26_another_disk_in_its_place(tree: Path, mount: Callable[..., None]) -> None:
    put(tree, *MANY)
    local = LocalTree(str(tree))
    known = known_after(local)
    mount(tree)
    put(tree, "inputs/quite/other.tif")
    with pytest.raises(RootMissing, match="another file system"):
        local.scan(known)


def test_F89_a_scan_that_hangs_is_abandoned_and_the_tree_goes_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the scanner's seam; with a real file system that hangs: test_hanging.py."""
    put(tree, "inputs/a.tif")
    local = LocalTree(str(tree))
    answer, real, hanging = threading.Event(), os.scandir, threading.Event()

    def hangs(fd: int) -> object:
        hanging.set()
        answer.wait(30)
        return real(fd)

    monkeypatch.setattr(os, "scandir", hangs)
    abandoned = threading.Thread(target=lambda: local.scan({}), daemon=True)
    abandoned.start()
    assert hanging.wait(10)
    monkeypatch.setattr(os, "scandir", real)
    assert set(local.scan({}).changed) == {"inputs/a.tif"}
    answer.set()
    abandoned.join(10)
    assert not abandoned.is_alive()


# One file


def test_read_returns_the_bytes_and_the_observation(tree: Path) -> None:
    put(tree, "configs/c.yaml", body="fr: 30")
    local = LocalTree(str(tree))
    body, seen = local.read("configs/c.yaml", limit=6)
    assert (body, seen) == (b"fr: 30", local.stat("configs/c.yaml"))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("configs/none.yaml", FileVanished),
        ("none/none/c.yaml", FileVanished),
        ("configs/c.yaml/x", FileVanished),
        ("configs", FileVanished),
        ("configs/big.yaml", LocalError),
        ("../outside", UnsafePath),
        ("configs/../../outside", UnsafePath),
        ("/etc/passwd", UnsafePath),
        ("configs/", UnsafePath),
        ("", UnsafePath),
        ("configs/a\0b", UnsafePath),
    ],
)
def test_read_refuses(tree: Path, path: str, error: type[LocalError]) -> None:
    put(tree, "configs/c.yaml", "../outside")
    put(tree, "configs/big.yaml", body="x" * 7)
    with pytest.raises(error) as raised:
        LocalTree(str(tree)).read(path, limit=6)
    assert type(raised.value) is error


def test_F35_a_file_that_changes_while_it_is_read_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "manifest.yaml", body="rules: []")
    real = os.read

    def meanwhile(fd: int, size: int) -> bytes:
        block = real(fd, size)
        if not block:
            put(tree, "manifest.yaml", body="rules: [1]")
        return block

    monkeypatch.setattr(os, "read", meanwhile)
    with pytest.raises(FileChanged):
        LocalTree(str(tree)).read("manifest.yaml", limit=100)


def test_stat_of_a_missing_root_is_RootMissing_not_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RootMissing):
        LocalTree(str(tmp_path / "none")).stat("inputs/a.tif")


def test_F91_free_bytes_are_those_of_the_watched_disk(tree: Path) -> None:
    disk = shutil.disk_usage(tree)
    assert abs(LocalTree(str(tree)).free_bytes() - disk.free) < 2**30


@needs_root
def test_F91_free_bytes_fall_as_the_disk_fills(tree: Path, mount: Callable[..., None]) -> None:
    mount(tree / "inputs", "1m")
    local = LocalTree(str(tree / "inputs"), within=())
    before = local.free_bytes()
    (tree / "inputs/a.tif").write_bytes(bytes(512 * 1024))
    assert before <= 2**20
    assert before - local.free_bytes() >= 512 * 1024
