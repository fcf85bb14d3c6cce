"""Symbolic links to files: which are followed, what is seen of them, and that no trick leads out of the allowed folders."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ncaasd.adapters.files import links as links_module
from ncaasd.adapters.files.links import MOST_LINKS, open_target
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.errors import FileVanished
from ncaasd.model import LinkTarget, ScanDelta, Stat

SECRET = b"not for S3"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for folder in ("tree/inputs/m", "tree/configs", "tree/submissions", "videos/cam1", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tree/inputs/m/a.tif").write_bytes(b"recording")
    (tmp_path / "videos/cam1/v.avi").write_bytes(b"video")
    (tmp_path / "secret/s.txt").write_bytes(SECRET)
    return tmp_path


def tree(base: Path) -> LocalTree:
    return LocalTree(str(base / "tree"), ignore=[".*"], links=[str(base / "videos")])


def scanned(base: Path) -> ScanDelta:
    return tree(base).scan({})


def read(base: Path, where: str) -> bytes:
    target = tree(base).target(where)
    assert target is not None
    fd = open_target(target)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


# -- which are followed


@pytest.mark.parametrize(
    ("at", "to", "where"),
    [
        ("inputs/l", "m/a.tif", "inputs/m/a.tif"),
        ("inputs/m/l", "a.tif", "inputs/m/a.tif"),
        ("inputs/m/l", "../m/a.tif", "inputs/m/a.tif"),
        ("inputs/m/l", "{base}/tree/inputs/m/a.tif", "inputs/m/a.tif"),
        ("inputs/l", "{base}/videos/cam1/v.avi", "{base}/videos/cam1/v.avi"),
        ("inputs/m/l", "../../../videos/cam1/v.avi", "{base}/videos/cam1/v.avi"),
        ("inputs/l", "{base}/secret/../videos//cam1/./v.avi", "{base}/videos/cam1/v.avi"),
    ],
)
def test_a_link_to_a_file_of_its_tree_or_of_links_is_a_file(base: Path, at: str, to: str, where: str) -> None:
    os.symlink(to.format(base=base), base / "tree" / at)
    delta = scanned(base)
    assert delta.skipped == {}
    assert delta.links == {at: where.format(base=base)}
    assert delta.changed[at].size == os.stat(base / "tree" / at).st_size
    assert delta.files == 2
    look = tree(base).look(at)
    assert (look.stat, look.link, look.skipped) == (delta.changed[at], where.format(base=base), "")
    assert read(base, look.link) == (base / "tree" / at).read_bytes()


def test_a_chain_of_links_counts_by_its_end(base: Path) -> None:
    os.symlink(base / "videos/cam1", base / "secret/hop")
    os.symlink(base / "secret/hop/v.avi", base / "tree/inputs/through-outside")
    os.symlink(base / "videos/out", base / "tree/inputs/through-inside")
    os.symlink(base / "secret/s.txt", base / "videos/out")
    delta = scanned(base)
    assert delta.links == {"inputs/through-outside": f"{base}/videos/cam1/v.avi"}
    assert f"a symbolic link to {base}/secret/s.txt, which is outside" in delta.skipped["inputs/through-inside"]


def test_a_link_to_another_link_of_the_tree_leads_to_that(base: Path) -> None:
    """Which is found by itself, whatever it leads to."""
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/v.avi")
    os.symlink("v.avi", base / "tree/inputs/latest.avi")
    os.symlink("../latest.avi", base / "tree/inputs/m/newest.avi")
    os.symlink(base / "videos/cam1", base / "tree/inputs/cam")
    os.symlink("cam/v.avi", base / "tree/inputs/through-a-folder")
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/.hidden")
    os.symlink(".hidden", base / "tree/inputs/through-hidden")
    assert scanned(base).links == {
        "inputs/v.avi": f"{base}/videos/cam1/v.avi",
        "inputs/latest.avi": "inputs/v.avi",
        "inputs/m/newest.avi": "inputs/latest.avi",
        "inputs/through-a-folder": f"{base}/videos/cam1/v.avi",
        "inputs/through-hidden": f"{base}/videos/cam1/v.avi",
    }


def test_roots_that_are_links_themselves_are_looked_through(base: Path) -> None:
    os.rename(base / "videos", base / "disk7")
    os.symlink("disk7", base / "videos")
    os.rename(base / "tree", base / "tree7")
    os.symlink("tree7", base / "tree")
    os.symlink(base / "disk7/cam1/v.avi", base / "tree/inputs/v")
    os.symlink(base / "tree/inputs/m/a.tif", base / "tree/inputs/a")
    delta = scanned(base)
    assert delta.links == {"inputs/v": f"{base}/videos/cam1/v.avi", "inputs/a": "inputs/m/a.tif"}, "as people write it"
    assert read(base, delta.links["inputs/v"]) == b"video"


def test_in_a_source_links_are_followed_below_it(base: Path) -> None:
    os.symlink("../inputs/m/a.tif", base / "tree/configs/a.tif")
    delta = LocalTree(str(base / "tree"), within=()).scan({})
    assert delta.links == {"configs/a.tif": "inputs/m/a.tif"}


def test_a_link_to_a_file_that_no_scan_finds_is_the_only_way_to_it(base: Path) -> None:
    (base / "tree/inputs/.store").mkdir()
    (base / "tree/inputs/.store/x.tif").write_bytes(b"annexed")
    os.symlink(".store/x.tif", base / "tree/inputs/x.tif")
    delta = scanned(base)
    assert delta.links == {"inputs/x.tif": f"{base}/tree/inputs/.store/x.tif"}, "so it is none that is found by itself"
    assert read(base, delta.links["inputs/x.tif"]) == b"annexed"


# -- which are not, and what is said


def said(base: Path, to: str | Path, at: str = "inputs/l") -> str:
    os.symlink(to, base / "tree" / at)
    delta = scanned(base)
    assert at not in delta.changed
    look = tree(base).look(at)
    assert look.stat is None
    assert look.skipped == delta.skipped[at]
    return delta.skipped[at]


def test_F28_a_link_out_of_the_tree_names_its_target_and_the_way_on(base: Path) -> None:
    text = said(base, base / "secret/s.txt")
    assert f"{base}/secret/s.txt" in text
    assert "`links:`" in text


@pytest.mark.parametrize("at", ["configs/c.yaml", "submissions/j.yaml", "manifest.yaml"])
def test_a_manifest_or_a_config_is_the_file_itself(base: Path, at: str) -> None:
    assert "links are not followed" in said(base, "inputs/m/a.tif" if "/" not in at else "../inputs/m/a.tif", at)
    with pytest.raises(FileVanished):
        tree(base).read(at, limit=100)


def test_an_analysiss_other_folders_are_outside_of_inputs(base: Path) -> None:
    (base / "tree/configs/c.yaml").write_bytes(b"a: 1")
    assert "outside of inputs/" in said(base, "../configs/c.yaml")


def test_F28_links_to_folders_loops_and_nothing(base: Path) -> None:
    assert "only links to files are followed" in said(base, "m")
    assert "only links to files are followed" in said(base, base / "videos/cam1", "inputs/cam")
    assert "outside" in said(base, "/", "inputs/root"), "not followed, and not walked"
    assert "a circle" in said(base, "me", "inputs/me")
    assert "is not there: mend the link" in said(base, "m/none.tif", "inputs/broken")
    os.mkfifo(base / "videos/pipe")
    assert "not a file" in said(base, base / "videos/pipe", "inputs/pipe")
    assert "is not there" in said(base, base / "videos/cam1/v.avi/x", "inputs/through-a-file")


def test_a_chain_longer_than_the_kernels_and_a_bomb_of_links_end(base: Path) -> None:
    folder = base / "tree/inputs/m"
    for n in range(MOST_LINKS + 2):
        os.symlink(f"l{n + 1}", folder / f"l{n}")
    os.symlink("a.tif", folder / f"l{MOST_LINKS + 2}")
    os.symlink("/".join(["x/.."] * 800), folder / "names")
    (folder / "x").mkdir()
    for n in range(12):  # each doubles the way
        os.symlink(f"b{n + 1}/../b{n + 1}" if n < 11 else "x", folder / f"b{n}")
    delta = scanned(base)
    assert "a circle, or over too many" in delta.skipped["inputs/m/l0"]
    assert f"inputs/m/l{MOST_LINKS}" in delta.links
    assert all(f"inputs/m/b{n}" in delta.skipped for n in range(12))


def test_a_broken_link_into_links_is_not_gone(base: Path) -> None:
    """The disk with the videos may be away (F26)."""
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/v")
    os.symlink("m/a.tif", base / "tree/inputs/a")
    (base / "tree/inputs/stays.tif").write_bytes(b"x")
    known = scanned(base).changed
    os.rename(base / "videos", base / "away")
    os.unlink(base / "tree/inputs/m/a.tif")
    delta = tree(base).scan(known)
    assert delta.gone == {"inputs/a", "inputs/m/a.tif"}
    assert "is its disk mounted?" in delta.skipped["inputs/v"]
    look = tree(base).look("inputs/v")
    assert look.unseen and look.stat is None


# -- what is seen of one


def stat_of(base: Path) -> Stat:
    stat = tree(base).stat("inputs/v")
    assert stat is not None
    return stat


def times(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_atime_ns, seen.st_mtime_ns


def _rewrite(base: Path) -> None:
    path = base / "videos/cam1/v.avi"
    kept = times(path)
    path.write_bytes(b"VIDEO")
    os.utime(path, ns=kept)


def _point_elsewhere(base: Path) -> None:
    other = base / "videos/cam1/w.avi"
    other.write_bytes(b"other")
    os.utime(other, ns=times(base / "videos/cam1/v.avi"))
    os.symlink(other, base / "tree/inputs/new")
    os.replace(base / "tree/inputs/new", base / "tree/inputs/v")


def _swap_the_folder(base: Path) -> None:
    (base / "videos/cam2").mkdir()
    other = base / "videos/cam2/v.avi"
    other.write_bytes(b"other")
    os.utime(other, ns=times(base / "videos/cam1/v.avi"))
    os.rename(base / "videos/cam1", base / "videos/cam0")
    os.rename(base / "videos/cam2", base / "videos/cam1")


@pytest.mark.parametrize("change", [_rewrite, _point_elsewhere, _swap_the_folder])
def test_F32_other_content_of_equal_size_and_mtime_is_a_change(base: Path, change: Callable[[Path], None]) -> None:
    if change is _swap_the_folder:  # also when the link is the newest of all
        (base / "videos/cam2").mkdir()
        (base / "videos/cam2/v.avi").write_bytes(b"other")
        os.utime(base / "videos/cam2/v.avi", ns=times(base / "videos/cam1/v.avi"))
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/v")
    before = stat_of(base)
    known = scanned(base).changed
    assert tree(base).scan(known).changed == {}
    if change is _swap_the_folder:
        os.rename(base / "videos/cam1", base / "videos/cam0")
        os.rename(base / "videos/cam2", base / "videos/cam1")
    else:
        change(base)
    after = stat_of(base)
    assert (before.size, before.mtime_ns) == (after.size, after.mtime_ns)
    assert before.ctime_ns != after.ctime_ns
    assert set(tree(base).scan(known).changed) == {"inputs/v"}


def test_the_ctime_is_of_the_later_of_both(base: Path) -> None:
    path = base / "tree/inputs/v"
    os.symlink(base / "videos/cam1/v.avi", path)
    assert abs(stat_of(base).ctime_ns - path.lstat().st_ctime_ns) <= 10**6
    (base / "videos/cam1/v.avi").chmod(0o600)
    assert abs(stat_of(base).ctime_ns - path.stat().st_ctime_ns) <= 10**6


def test_F30_a_program_that_has_the_target_open_is_seen(base: Path) -> None:
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/one.avi")
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/two.avi")
    names = ["inputs/one.avi", "inputs/two.avi", "inputs/m/a.tif"]
    code = "import sys; f = open(sys.argv[1], 'ab'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(base / "videos/cam1/v.avi")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"ready\n"
        held = tree(base).held_open(names)
        process.stdin.close()
    assert held == {"inputs/one.avi", "inputs/two.avi"}
    assert tree(base).held_open(names) == set()


# -- no trick leads out


def test_F28_a_folder_that_becomes_a_link_leads_nowhere(base: Path) -> None:
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/v")
    where = scanned(base).links["inputs/v"]
    os.rename(base / "videos/cam1", base / "videos/cam0")
    os.rename(base / "secret/s.txt", base / "secret/v.avi")
    os.symlink(base / "secret", base / "videos/cam1")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        read(base, where)
    os.unlink(base / "videos/cam1")
    os.mkdir(base / "videos/cam1")
    os.symlink(base / "secret/v.avi", base / "videos/cam1/v.avi")
    with pytest.raises(OSError, match="not a file any more"):
        read(base, where)


@pytest.mark.parametrize("step", ["_parent", "open"])
def test_F28_what_is_swapped_while_a_link_is_followed_leads_nowhere(
    base: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between finding out where it leads and looking there, and between looking and opening."""
    os.symlink(base / "videos/cam1/v.avi", base / "tree/inputs/v")
    os.rename(base / "secret/s.txt", base / "secret/v.avi")

    def swap() -> None:
        if not (base / "videos/cam0").exists():
            os.rename(base / "videos/cam1", base / "videos/cam0")
            os.symlink(base / "secret", base / "videos/cam1")

    if step == "_parent":
        real = links_module._parent
        monkeypatch.setattr(links_module, "_parent", lambda target: swap() or real(target))  # type: ignore[func-returns-value]
        delta = scanned(base)
        assert "inputs/v" not in delta.changed
        assert "changing right now" in delta.skipped["inputs/v"]
        return
    target = LinkTarget(str(base / "videos"), "cam1/v.avi")
    real_stat = os.stat

    def stat(name: object, **options: object) -> os.stat_result:
        seen = real_stat(name, **options)  # type: ignore[call-overload]
        if name == "v.avi":
            os.unlink(base / "videos/cam1/v.avi")
            os.symlink(base / "secret/v.avi", base / "videos/cam1/v.avi")
        return seen  # type: ignore[no-any-return]

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        with pytest.raises(OSError, match="Too many levels"):
            open_target(target)


@pytest.mark.parametrize("path", ["../secret/s.txt", "cam1/../../secret/s.txt", "..", ""])
def test_F28_a_target_with_dots_is_none(base: Path, path: str) -> None:
    with pytest.raises(OSError):
        open_target(LinkTarget(str(base / "videos"), path))


def test_F28_what_a_process_says_of_itself_is_no_way(base: Path) -> None:
    """/proc/…/root and /proc/…/fd lead past every folder's name."""
    fd = os.open(base / "secret/s.txt", os.O_RDONLY)
    try:
        os.symlink(f"/proc/{os.getpid()}/fd/{fd}", base / "tree/inputs/fd")
        os.symlink(f"/proc/{os.getpid()}/root{base}/secret/s.txt", base / "tree/inputs/root")
        os.symlink(f"/proc/{os.getpid()}/root{base}/videos/cam1/v.avi", base / "tree/inputs/allowed")
        delta = scanned(base)
    finally:
        os.close(fd)
    assert set(delta.links) <= {"inputs/allowed"}
    assert {"inputs/fd", "inputs/root"} <= set(delta.skipped)


@pytest.mark.timeout(20)
def test_F74_nothing_but_a_file_is_opened(base: Path) -> None:
    os.mkfifo(base / "videos/pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(base / "videos")
        bound.bind("socket")
        for name in ("pipe", "socket", "cam1"):
            with pytest.raises(OSError):
                open_target(LinkTarget(str(base / "videos"), name))


def test_a_link_whose_folder_the_config_names_no_more_leads_nowhere(base: Path) -> None:
    assert LocalTree(str(base / "tree")).target(f"{base}/videos/cam1/v.avi") is None
    assert tree(base).target(f"{base}/videos2/v.avi") is None
    assert tree(base).target("inputs/m/a.tif") == LinkTarget(str(base / "tree"), "inputs/m/a.tif")


def test_no_descriptor_is_left_open(base: Path) -> None:
    for n, to in enumerate(("m/a.tif", base / "videos/cam1/v.avi", "none", "/etc", base / "videos/none", "m")):
        os.symlink(to, base / f"tree/inputs/{n}")
    scanned(base)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        scanned(base)
        [tree(base).look(f"inputs/{n}") for n in range(6)]
    assert len(os.listdir("/proc/self/fd")) == before
