"""The results' folder: everything stays inside, nothing is half there, nothing goes to an unmounted share."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_help import needs_root

from ncaasd.adapters.files import durable
from ncaasd.adapters.files.localnames import original
from ncaasd.adapters.files.marked import MARKER, PARTIAL
from ncaasd.adapters.files.results import MAX_DEFERRED, LocalResults
from ncaasd.errors import DiskFull, LocalError, RootMissing, SyncFailed, UnsafePath
from ncaasd.ports import ResultsTree

JOB = "job__caiman-ncap-web_123456789012345"


@pytest.fixture
def results(tmp_path: Path) -> LocalResults:
    made = LocalResults(str(tmp_path / "results"), adopt=True)
    made.check()
    return made


def fetch(results: LocalResults, name: str, body: bytes = b"x", *, deferred: bool = False, token: str = "1") -> str:
    partial = results.partial(JOB, name, size=len(body), token=token)
    os.pwrite(partial.fd, body, 0)
    return partial.commit_deferred() if deferred else partial.commit()


def everything(root: Path) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(root):
        found |= {os.path.relpath(os.path.join(folder, name), root) for name in (*folders, *files)}
    return found


def files_in(results: LocalResults) -> dict[str, bytes]:
    root = Path(results.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.glob(f"{JOB}/**/*") if p.is_file()}


# Coming in


@pytest.mark.parametrize("deferred", [False, True])
def test_a_fetched_file_appears_whole_under_its_name(results: LocalResults, deferred: bool) -> None:
    partial = results.partial(JOB, "process_results/a/b.csv", size=5, token="t")
    os.pwrite(partial.fd, b"hello", 0)
    assert files_in(results) == {}
    path = partial.commit_deferred() if deferred else partial.commit()
    results.sync()
    assert path == f"{JOB}/process_results/a/b.csv"
    assert files_in(results) == {path: b"hello"}
    assert results.matches(path, 5)
    assert not results.matches(path, 4)
    assert not results.matches(f"{JOB}/process_results", 5)
    assert not results.matches(f"{JOB}/none/none", 5)
    assert os.listdir(Path(results.root) / PARTIAL) == []


def test_F09_the_same_token_goes_on_and_another_begins_anew(results: LocalResults) -> None:
    first = results.partial(JOB, "a.bin", size=6, token="object-1-etag")
    os.pwrite(first.fd, b"abc", 0)
    first.close()
    again = LocalResults(results.root, expected_id=results.id)  # after a crash
    other = again.partial(JOB, "a.bin", size=6, token="object-1-other")
    assert os.fstat(other.fd).st_size == 0
    other.discard()
    more = again.partial(JOB, "a.bin", size=6, token="object-1-etag")
    assert os.pread(more.fd, 9, 0) == b"abc"
    os.pwrite(more.fd, b"def", 3)
    assert files_in(again) == {}
    more.commit()
    assert files_in(again) == {f"{JOB}/a.bin": b"abcdef"}


def test_a_partial_file_longer_than_the_object_is_anothers(results: LocalResults) -> None:
    first = results.partial(JOB, "a", size=9, token="t")
    os.pwrite(first.fd, b"too long", 0)
    first.close()
    again = results.partial(JOB, "a", size=3, token="t")
    assert os.fstat(again.fd).st_size == 0


def test_discarded_closed_and_committed_partials_leave_nothing_open(results: LocalResults) -> None:
    before = len(os.listdir("/proc/self/fd"))
    results.partial(JOB, "a", size=1, token="a").discard()
    results.partial(JOB, "b", size=1, token="b").close()
    fetch(results, "c")
    fetch(results, "d", deferred=True)
    results.sync()
    results.write(JOB, "job.json", b"{}")
    committed = results.partial(JOB, "e", size=0, token="e")
    committed.commit()
    committed.close()  # as a `finally` would
    committed.discard()
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(Path(results.root) / PARTIAL) == ["b"]
    assert set(files_in(results)) == {f"{JOB}/{name}" for name in ("c", "d", "e", "job.json")}


def test_prune_removes_what_nobody_will_go_on_with(results: LocalResults) -> None:
    for token in ("kept", "stale", "odd/token é"):
        results.partial(JOB, token, size=1, token=token).close()
    in_use = results.partial(JOB, "x", size=1, token="in use")
    assert results.prune(["kept", "odd/token é"]) == 1
    os.pwrite(in_use.fd, b"x", 0)
    assert in_use.commit() == f"{JOB}/x"
    assert results.prune([]) == 2


def test_a_newer_version_takes_the_place_of_the_old_one(results: LocalResults) -> None:
    fetch(results, "log.txt", b"old")
    assert results.write(JOB, "log.txt", b"newer") == f"{JOB}/log.txt"
    assert files_in(results) == {f"{JOB}/log.txt": b"newer"}


def test_open_gives_regular_files_only(results: LocalResults, tmp_path: Path) -> None:
    path = fetch(results, "a.csv", b"1,2")
    fd = results.open(path)
    assert fd is not None
    assert os.read(fd, 9) == b"1,2"
    with pytest.raises(OSError):
        os.write(fd, b"x")
    os.close(fd)
    job = Path(results.root) / JOB
    (job / "link").symlink_to(job / "a.csv")
    (job / "folder").mkdir()
    os.mkfifo(job / "pipe")
    for name in ("link", "folder", "pipe", "none", "none/none", "link/none"):
        assert results.open(f"{JOB}/{name}") is None, name


# F70-F73: names


@pytest.mark.parametrize(
    "key",
    [
        *("../../../escape", "/etc/escape", "a/../../../escape", "..", ".", "", "a//b", "folder/", "nul\0", "x" * 300),
        *("a/" * 500 + "a", "%2e%2e/escape", "..\\..\\escape", "new\nline", "con", "a:b", ".ncaasd-results"),
        *("~", "-rf", " ", "é", "e\u0301"),
    ],
)
def test_F70_whatever_the_key_nothing_is_written_outside_the_jobs_folder(
    results: LocalResults, tmp_path: Path, key: str
) -> None:
    before = everything(tmp_path)
    path = fetch(results, key, b"body")
    assert path.startswith(f"{JOB}/")
    assert files_in(results) == {path: b"body"}
    outside = {name for name in everything(tmp_path) - before if not name.startswith(f"results/{JOB}")}
    assert outside == set()
    assert results.matches(path, 4)
    assert results.local_name(key) == path.removeprefix(f"{JOB}/")
    if len(key) != 300:
        assert original(results.local_name(key)) == key


@pytest.mark.parametrize("folder", ["", ".", "..", "a/b", "/", "/etc", PARTIAL, MARKER, "../results"])
def test_F70_a_jobs_folder_is_one_plain_name(results: LocalResults, folder: str) -> None:
    with pytest.raises(UnsafePath):
        results.partial(folder, "a", size=1, token="t")
    with pytest.raises(UnsafePath):
        results.write(folder, "a", b"")


def swap(job: Path, outside: Path, what: str) -> None:
    if what == "a folder on the way":
        shutil.rmtree(job / "process_results")
        (job / "process_results").symlink_to(outside)
    elif what == "the job's folder":
        shutil.rmtree(job)
        job.symlink_to(outside)
    elif what == "the file":
        (job / "process_results/a.csv").unlink()
        (job / "process_results/a.csv").symlink_to(outside / "victim")
    elif what == "a link to nowhere":
        (job / "process_results/a.csv").unlink()
        (job / "process_results/a.csv").symlink_to(outside / "new")
    elif what == "a pipe":
        (job / "process_results/a.csv").unlink()
        os.mkfifo(job / "process_results/a.csv")
    else:
        raise AssertionError(what)


@pytest.mark.parametrize("what", ["a folder on the way", "the job's folder", "the file", "a link to nowhere", "a pipe"])
def test_F71_what_was_swapped_in_is_refused_and_not_followed(results: LocalResults, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("precious")
    fetch(results, "process_results/a.csv", b"old")
    partial = results.partial(JOB, "process_results/a.csv", size=3, token="t")
    os.pwrite(partial.fd, b"new", 0)
    swap(Path(results.root) / JOB, outside, what)
    with pytest.raises(UnsafePath, match="symbolic link"):
        partial.commit()
    with pytest.raises(UnsafePath):
        results.write(JOB, "process_results/a.csv", b"new")
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"victim": "precious"}
    assert not results.matches(f"{JOB}/process_results/a.csv", 8)
    assert os.listdir(Path(results.root) / PARTIAL) == []


def test_F71_links_among_the_partial_files_are_not_written_through(results: LocalResults, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    partials = Path(results.root) / PARTIAL
    (partials / "link").symlink_to(victim)
    os.link(victim, partials / "hard")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(partials)
        try:
            bound.bind("socket")
        finally:
            os.chdir(here)
    for token in ("link", "hard", "socket"):
        fetch(results, f"{token}.csv", b"new", token=token)
    assert victim.read_text() == "precious"
    assert set(files_in(results)) == {f"{JOB}/{token}.csv" for token in ("link", "hard", "socket")}
    partial = results.partial(JOB, "late.csv", size=1, token="late")
    (partials / "late").unlink()
    (partials / "late").symlink_to(victim)
    with pytest.raises(UnsafePath, match="replaced"):
        partial.commit()
    shutil.rmtree(partials)
    partials.symlink_to(tmp_path)
    with pytest.raises(UnsafePath):
        fetch(results, "b.csv")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("keys", [["out", "out/a", "out/b"], ["out/a", "out", "out/b"], ["a/out/x/y", "a/out/x"]])
def test_F73_a_file_and_a_folder_of_one_name_are_both_kept(results: LocalResults, keys: list[str]) -> None:
    paths = [fetch(results, key, key.encode(), deferred=True) for key in keys]
    results.sync()
    assert files_in(results) == {path: key.encode() for path, key in zip(paths, keys, strict=True)}
    again = [fetch(results, key, b"2 " + key.encode()) for key in keys]  # by another process, in any order
    assert again == paths


def test_F73_keys_that_differ_by_case_or_unicode_form_are_both_kept(results: LocalResults) -> None:
    keys = ["Fig.png", "fig.png", "FIG.png", "caf\u00e9", "cafe\u0301", "Out/a", "out/a"]
    paths = [fetch(results, key, key.encode()) for key in keys]
    assert files_in(results) == {path: key.encode() for path, key in zip(paths, keys, strict=True)}


# F90: the share


def test_F90_only_the_first_time_makes_a_folder_and_its_marker(tmp_path: Path) -> None:
    root = tmp_path / "results"
    with pytest.raises(RootMissing):
        LocalResults(str(root)).check()
    assert not root.exists()
    root.mkdir()
    for known in (None, "0" * 32):
        with pytest.raises(RootMissing, match=MARKER):
            LocalResults(str(root), expected_id=known).check()
    assert everything(root) == set()
    first = LocalResults(str(root), adopt=True)
    assert first.id is None
    first.check()
    assert first.id
    for expected, adopt in ((first.id, False), (None, False), (None, True), (first.id, True)):
        again = LocalResults(str(root), expected_id=expected, adopt=adopt)
        again.check()
        assert again.id == first.id
    with pytest.raises(RootMissing, match="another id"):
        LocalResults(str(root), expected_id="0" * 32, adopt=True).check()


def test_F90_without_the_folder_above_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(RootMissing):
        LocalResults(str(tmp_path / "none" / "results"), adopt=True).check()
    assert everything(tmp_path) == set()


@needs_root
def test_F90_nothing_is_written_into_the_empty_mount_point_of_a_share(
    tmp_path: Path, mount: Callable[..., None]
) -> None:
    share, point = tmp_path / "share", tmp_path / "results"
    share.mkdir()
    point.mkdir()

    def bind() -> None:
        subprocess.run(["mount", "--bind", str(share), str(point)], check=True)

    mount(share, "8m")
    bind()
    try:
        results = LocalResults(str(point), adopt=True)
        fetch(results, "a", b"1")
        under_way = results.partial(JOB, "b", size=1, token="b")
        deferred = fetch(results, "c", b"3", deferred=True)
        subprocess.run(["umount", "-l", str(point)], check=True)
        os.pwrite(under_way.fd, b"2", 0)
        for act in (
            results.check,
            results.sync,
            under_way.commit,
            lambda: results.partial(JOB, "d", size=1, token="d"),
            lambda: results.write(JOB, "job.json", b"{}"),
            lambda: results.matches(f"{JOB}/a", 1),
            lambda: results.open(f"{JOB}/a"),
            results.free_bytes,
            lambda: results.prune([]),
        ):
            with pytest.raises(RootMissing):
                act()
        assert list(point.iterdir()) == []
        restarted = LocalResults(str(point), expected_id=results.id)
        with pytest.raises(RootMissing):
            restarted.check()
        bind()
        for tree in (results, restarted):  # both go on when it is back
            tree.check()
            assert tree.matches(f"{JOB}/a", 1)
            assert tree.matches(deferred, 1)
        assert fetch(results, "d", b"4") == f"{JOB}/d"
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)


def test_F90_another_inode_alone_is_no_change(results: LocalResults) -> None:
    root = Path(results.root)
    shutil.copytree(root, root.with_suffix(".copy"))
    shutil.rmtree(root)
    root.with_suffix(".copy").rename(root)
    results.check()
    fetch(results, "a")


@needs_root
def test_F19_a_read_only_folder_is_said_to_be_so(tmp_path: Path, mount: Callable[..., None]) -> None:
    mount(tmp_path / "results")
    results = LocalResults(str(tmp_path / "results"), adopt=True)
    results.check()
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "results")], check=True)
    with pytest.raises(LocalError, match="read-only"):
        results.check()
    with pytest.raises(LocalError, match="read-only"):
        fetch(results, "a")


# F14, F76: space


@needs_root
def test_F14_a_full_disk_leaves_no_temporary_file_and_others_go_on(tmp_path: Path, mount: Callable[..., None]) -> None:
    mount(tmp_path / "results", "1m")
    results = LocalResults(str(tmp_path / "results"), adopt=True)
    fetch(results, "before", bytes(1000))
    partial = results.partial(JOB, "big", size=900_000, token="big")
    (tmp_path / "results/somebody-elses").write_bytes(bytes(600_000))
    with pytest.raises(OSError) as raised:
        for offset in range(0, 900_000, 100_000):
            os.pwrite(partial.fd, bytes(100_000), offset)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(DiskFull):
        results.write(JOB, "log.txt", bytes(200_000))
    partial.discard()
    assert os.listdir(tmp_path / "results" / PARTIAL) == []
    assert results.write(JOB, "log.txt", bytes(200_000)) == f"{JOB}/log.txt"  # by itself, when there is space
    assert set(files_in(results)) == {f"{JOB}/before", f"{JOB}/log.txt"}


@needs_root
def test_F76_what_does_not_fit_is_refused_before_it_is_fetched(tmp_path: Path, mount: Callable[..., None]) -> None:
    mount(tmp_path / "results", "1m")
    results = LocalResults(str(tmp_path / "results"), adopt=True, min_free=100_000)
    results.check()
    first = results.partial(JOB, "a", size=600_000, token="a")
    with pytest.raises(DiskFull, match="kept free"):  # together they don't fit, though nothing is written yet
        results.partial(JOB, "b", size=600_000, token="b")
    os.pwrite(first.fd, bytes(600_000), 0)
    results.partial(JOB, "c", size=300_000, token="c").discard()
    first.discard()
    results.partial(JOB, "b", size=600_000, token="b").discard()
    (tmp_path / "results/somebody-elses").write_bytes(bytes(950_000))
    with pytest.raises(DiskFull):
        results.check()


# Durability


def test_F17_bytes_are_synced_before_the_rename_and_the_folders_after(
    results: LocalResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    def noting(name: str) -> None:
        real = getattr(os, name)

        def call(fd: int | str, *args: object, **kwargs: object) -> object:
            calls.append((name, os.readlink(f"/proc/self/fd/{fd}") if isinstance(fd, int) else fd))
            return real(fd, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("fdatasync", "fsync", "rename"):
        noting(name)
    root, temporary = results.root, f"{results.root}/{PARTIAL}/1"
    fetch(results, "p/a", b"x")
    assert calls[:2] == [("fdatasync", temporary), ("rename", "1")]
    assert {*calls[2:]} == {("fsync", path) for path in (root, f"{root}/{JOB}", f"{root}/{JOB}/p")}
    calls.clear()
    fetch(results, "p/b", b"x", deferred=True)
    fetch(results, "p/c", b"x", deferred=True)
    assert calls == [("rename", "1"), ("rename", "1")]
    calls.clear()
    results.sync()
    assert calls[:2] == [("fdatasync", f"{root}/{JOB}/p/b"), ("fdatasync", f"{root}/{JOB}/p/c")]
    assert {*calls[2:]} == {("fsync", path) for path in (root, f"{root}/{JOB}", f"{root}/{JOB}/p")}
    calls.clear()
    results.sync()
    assert calls == []


def test_deferred_commits_do_not_use_up_the_descriptors(results: LocalResults) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(MAX_DEFERRED + 20):
        fetch(results, f"{number}", deferred=True, token=str(number))
    assert len(os.listdir("/proc/self/fd")) - before <= MAX_DEFERRED
    results.sync()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(files_in(results)) == MAX_DEFERRED + 20


@pytest.mark.parametrize("how", ["at once", "deferred, alone", "deferred, with many"])
def test_F15_after_a_failed_sync_the_file_is_not_there(
    results: LocalResults, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The system's error, once: a second fsync would succeed, and prove nothing."""
    real, failing = os.fdatasync, [True]

    def fails_once(fd: int) -> None:
        if failing and failing.pop():
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fails_once)
    monkeypatch.setattr(durable, "_syncfs", lambda fd: -1)
    fetched = []
    with pytest.raises(SyncFailed):
        for number in range(20 if how == "deferred, with many" else 1):
            fetched.append(fetch(results, f"{number}", deferred=how != "at once", token=str(number)))
        results.sync()
    assert set(files_in(results)) == set(fetched[1:])
    assert os.listdir(Path(results.root) / PARTIAL) == []
    assert fetch(results, "0") == f"{JOB}/0"


def test_many_threads_make_the_same_folders_at_once(results: LocalResults) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            start.wait(10)
            for n in range(30):
                fetch(results, f"f{n}/g{n}/{number}", deferred=n % 2 == 0, token=f"{number}-{n}")
            results.sync()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(files_in(results)) == 240


def test_it_is_what_the_port_promises(results: LocalResults) -> None:
    promised: ResultsTree = results
    assert {name for name in vars(ResultsTree) if not name.startswith("_")} <= set(dir(promised))
