"""The pool with its real neighbours: the results' folder on a disk, and S3Store on SeaweedFS with a group's permissions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.backends import BUCKET, GROUP, FixedSession
from transfer_rig import MIB, RANGE, Rig, verdicts

from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.s3.store import S3Store
from ncaasd.errors import DiskFull
from ncaasd.sandbox.server import SandboxServer, find_weed

NAME = "process_results/out.bin"


@pytest.fixture
def disk_rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.results = LocalResults(str(tmp_path / "results"), adopt=True)  # type: ignore[assignment]
    return rig


def on_disk(rig: Rig, name: str = NAME) -> Path:
    return Path(rig.results.root) / f"job__{BUCKET}_12" / name


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize("size", [0, 1, RANGE, RANGE + 1, 7 * RANGE + 3])
def test_the_results_folder_every_size(disk_rig: Rig, size: int, parallel: int) -> None:
    body = os.urandom(size)
    (outcome,) = disk_rig.run(disk_rig.download(NAME, body), parallel=parallel)
    assert outcome.verdict.value == "fetched", outcome
    assert Path(disk_rig.results.root, outcome.path).read_bytes() == body


@pytest.mark.parametrize("point", ["download.range", "download.written", "download.renamed"])
def test_F09_F10_the_results_folder_killed(disk_rig: Rig, point: str) -> None:
    body = os.urandom(5 * RANGE)
    assert disk_rig.run_until_killed(disk_rig.download(NAME, body), point, skip=2 if point == "download.range" else 0)
    assert on_disk(disk_rig).exists() == (point == "download.renamed")
    disk_rig.results = LocalResults(str(disk_rig.results.root))  # type: ignore[assignment]
    received = sum(op.received for op in disk_rig.store.ops)
    (outcome,) = disk_rig.run(disk_rig.download(NAME))
    assert outcome.verdict.value == "fetched", outcome
    assert on_disk(disk_rig).read_bytes() == body
    again = sum(op.received for op in disk_rig.store.ops) - received
    assert again == (3 * RANGE if point == "download.range" else 0)


def test_F71_F73_hostile_neighbours_in_the_results_folder(disk_rig: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    on_disk(disk_rig).parent.parent.mkdir(parents=True)
    on_disk(disk_rig).parent.symlink_to(outside)
    outcomes = disk_rig.run(disk_rig.download(NAME, b"x"), disk_rig.download("logs/ok.txt", b"y"))
    assert verdicts(outcomes)[1] == "fetched"
    assert list(outside.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("size", [2 * MIB, 40 * MIB])
def test_F14_a_disk_that_fills_up(tmp_path: Path, small_disk: Path, size: int) -> None:
    """The folder's own check looks at what is free before; here something else takes the space meanwhile."""
    rig = Rig(tmp_path)
    rig.results = LocalResults(str(small_disk / "results"), adopt=True)  # type: ignore[assignment]
    large = rig.download(NAME, bytes(size))
    small = rig.download("process_results/small.txt", b"fits")
    outcomes = rig.run(large, small)
    ends = {outcome.task.key.rpartition("/")[2]: outcome for outcome in outcomes}
    assert ends["out.bin"].verdict.value == "failed"
    assert isinstance(ends["out.bin"].error, DiskFull)
    assert ends["small.txt"].verdict.value == "fetched"
    assert not on_disk(rig).exists()
    assert sum(path.stat().st_size for path in small_disk.rglob("*") if path.is_file()) < 10_000


@pytest.mark.root
def test_F14_space_that_goes_while_a_range_is_written(tmp_path: Path, small_disk: Path) -> None:
    from fakes.memory_store import Fault

    rig = Rig(tmp_path)
    rig.results = LocalResults(str(small_disk / "results"), adopt=True)  # type: ignore[assignment]
    task = rig.download(NAME, os.urandom(10 * RANGE))

    def take_all(_key: str) -> None:
        with open(small_disk / "other", "wb", buffering=0) as other:
            try:
                while other.write(bytes(4096)):
                    pass
            except OSError:
                return

    rig.store.faults.append(Fault("get", skip=4, before=take_all))
    (outcome,) = rig.run(task)
    assert outcome.verdict.value == "failed"
    assert isinstance(outcome.error, DiskFull)
    (small_disk / "other").unlink()
    assert verdicts(rig.run(rig.download(NAME))) == ["fetched"]
    assert on_disk(rig).read_bytes() == rig.store.body(task.key)


FAILING_SYNC = """
import sys
from pathlib import Path
from transfer_rig import RANGE, Rig
from ncaasd.adapters.files.results import LocalResults
rig = Rig(Path(sys.argv[1]))
rig.results = LocalResults(sys.argv[1] + "/results", adopt=True)
(outcome,) = rig.run(rig.download("a.bin", bytes(3 * RANGE)))
print(outcome.verdict.value, type(outcome.error).__name__, rig.log.events, rig.store.count("get"))
"""


def test_F15_a_range_whose_fdatasync_fails_is_not_recorded_and_not_synced_again(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace makes the error, and is not installed")
    here = Path(__file__).parent
    traced = [strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", "trace=fdatasync"]
    done = subprocess.run(
        [*traced, "-e", "inject=fdatasync:error=EIO", sys.executable, "-c", FAILING_SYNC, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), str(here.parent.parent)])},
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.stdout == "failed SyncFailed [] 1\n", done.stderr
    assert (tmp_path / "trace").read_text().count("fdatasync(") == 1


# -- real S3


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS for this platform (extra `sandbox`)")
    with SandboxServer(tmp_path_factory.mktemp("weed"), buckets=[BUCKET], group=GROUP, engine="seaweedfs") as server:
        yield server


class Counting:
    """A store whose requests are counted by bytes, as they leave."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self.sent = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put_part(
        self, key: str, upload_id: str, number: int, body: memoryview, **more: Callable[[int], None]
    ) -> object:
        pace = more.pop("pace")

        def count(size: int) -> None:
            self.sent += size
            pace(size)

        return self._store.put_part(key, upload_id, number, body, pace=count, **more)  # type: ignore[arg-type]


@pytest.fixture
def weed_rig(tmp_path: Path, weed: SandboxServer) -> Rig:
    rig = Rig(tmp_path)
    store = S3Store(BUCKET, FixedSession(weed.lab_credentials), endpoint_url=weed.endpoint, attempts=1)
    rig.stores[BUCKET] = Counting(store)  # type: ignore[assignment]
    return rig


def content(weed: SandboxServer, key: str) -> bytes:
    client = (
        FixedSession(weed.admin_credentials).session().create_client("s3", endpoint_url=weed.endpoint, region_name="x")
    )
    body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


PART = 5 * MIB


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 4 * PART + 11])
def test_F37_seaweedfs_every_size(weed_rig: Rig, weed: SandboxServer, size: int) -> None:
    body = os.urandom(size)
    task = weed_rig.upload(weed_rig.file(f"size-{size}.tif", body), part_size=PART)
    (outcome,) = weed_rig.run(task, parallel=4)
    assert outcome.verdict.value == "stored", outcome
    assert content(weed, task.key) == body
    weed_rig.log.uploads.clear()
    again = weed_rig.upload(weed_rig.folder / f"size-{size}.tif", part_size=PART, look_first=True)
    (outcome,) = weed_rig.run(again, parallel=4)
    assert outcome.stored is not None and outcome.stored.adopted, outcome


@pytest.mark.parametrize(
    ("point", "skip", "again"),
    [
        ("upload.created", 0, 0),
        ("upload.part", 2, 1),
        ("upload.parts_done", 0, 0),
        ("upload.completed", 0, 0),
    ],
)
def test_F05_F06_F07_F08_seaweedfs(weed_rig: Rig, weed: SandboxServer, point: str, skip: int, again: int) -> None:
    body = os.urandom(5 * PART + 1)
    path = weed_rig.file(f"{point}.tif", body)
    assert weed_rig.run_until_killed(weed_rig.upload(path, part_size=PART), point, skip=skip, parallel=2)
    (outcome,) = weed_rig.run(weed_rig.upload(path, part_size=PART), parallel=2)
    assert outcome.verdict.value == "stored", outcome
    assert content(weed, f"lab/inputs/{path.name}") == body
    assert weed_rig.stores[BUCKET].sent <= len(body) + again * 2 * PART  # type: ignore[operator]


def test_F95_seaweedfs_foreign(weed_rig: Rig, weed: SandboxServer) -> None:
    for size in (100, 3 * PART):
        name = f"foreign-{size}.tif"
        client = (
            FixedSession(weed.admin_credentials)
            .session()
            .create_client("s3", endpoint_url=weed.endpoint, region_name="x")
        )
        client.put_object(Bucket=BUCKET, Key=f"lab/inputs/{name}", Body=b"theirs")
        task = weed_rig.upload(weed_rig.file(name, os.urandom(size)), part_size=PART)
        assert verdicts(weed_rig.run(task)) == ["foreign"]
        assert content(weed, task.key) == b"theirs"


def test_seaweedfs_stop_in_mid_part_and_resume(weed_rig: Rig, weed: SandboxServer) -> None:
    """The pace's exception goes through the SDK as it is: the request ends, and the part is sent again later."""
    import time

    body = os.urandom(6 * PART)
    path = weed_rig.file("stopped.tif", body)
    weed_rig.rate = 4 * MIB
    pool = weed_rig.life(parallel=3)
    pool.start(weed_rig.upload(path, part_size=PART))
    time.sleep(3)
    began = time.monotonic()
    pool.stop(timeout=10)
    assert time.monotonic() - began < 2
    assert verdicts(weed_rig.outcomes) == ["stopped"]
    weed_rig.rate = None
    task = weed_rig.upload(path, part_size=PART)
    assert task.upload_id is not None
    assert verdicts(weed_rig.run(task, parallel=3)) == ["stored"]
    assert content(weed, task.key) == body


@pytest.mark.parametrize("size", [0, 1000, 20 * MIB])
def test_seaweedfs_downloads(weed_rig: Rig, weed: SandboxServer, size: int) -> None:
    body = os.urandom(size)
    client = (
        FixedSession(weed.admin_credentials).session().create_client("s3", endpoint_url=weed.endpoint, region_name="x")
    )
    client.put_object(Bucket=BUCKET, Key=f"lab/results/job__{BUCKET}_12/r-{size}", Body=body)
    task = weed_rig.download(f"r-{size}")
    (outcome,) = weed_rig.run(task, parallel=4)
    assert outcome.verdict.value == "fetched", outcome
    assert weed_rig.fetched(task) == body
