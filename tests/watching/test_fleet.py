"""Several daemons on one group (docs/fleet.md): rigs kept apart by `upload.prefix`, a server that only fetches, and two
that share one folder by mistake."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from files.tiny_fuse import mounted
from support.rig import BUCKET, GROUP, Rig, blob, run_command

from ncaasd.model import JobState, Phase

Bind = Callable[[Path, Path], Callable[[], None]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def results(rig: Rig) -> dict[str, bytes]:
    """Job folder -> the result that is the recording itself."""
    top = Path(rig.home, "results")
    return {p.parts[len(top.parts)]: p.read_bytes() for p in top.glob("job__*/process_results/*.bin")}


def test_two_rigs_and_a_server_that_only_fetches(new_rig: Callable[..., Rig]) -> None:
    """Equal names on both rigs: neither sees the other's; the server has the results of both, and starts nothing."""
    rigs = [new_rig(), new_rig()]
    server = new_rig(changes={"results": {"fetch": "all"}})
    for rig in (*rigs, server):
        rig.start(command=False)
    for seed, rig in enumerate(rigs):
        rig.drop_config()
        rig.drop_rule(name="all")
        for name in ("m1/a.bin", "m2/a.bin"):
            rig.drop(f"inputs/{name}", blob(2000 + len(name), seed))
    for rig in rigs:
        rig.wait_done(2)
        rig.check(2)
    a, b = (results(rig) for rig in rigs)
    assert len(a) == len(b) == 2 and not a.keys() & b.keys(), "jobs of equal names never share an id"
    assert not set(a.values()) & set(b.values())
    server.wait_for(lambda: (a | b).items() <= results(server).items(), "the results of both, on the server")
    for rig in rigs:
        assert results(rig) == (a if rig is rigs[0] else b), "the rigs themselves fetch theirs only"
    assert not server.bench.versions(f"inputs/{server.name}/") and not server.submits()
    for rig in rigs:
        assert list(rig.submits().values()) == [1, 1]
    for rig in (*rigs, server):
        rig.stop()


@needs_root
def test_F77_the_same_folder_by_another_name_is_refused(
    new_rig: Callable[..., Rig], tmp_path: Path, bind: Bind
) -> None:
    """A bind mount, or a symbolic link, and a state of its own: the lock is on the folder itself."""
    first = new_rig()
    first.start(command=False)
    first.wait_for(first.live, "the first daemon")
    (tmp_path / "bound").mkdir()
    bind(Path(first.root), tmp_path / "bound")
    (tmp_path / "link").symlink_to(first.root)
    for name in ("bound", "link"):
        second = new_rig()
        second.configure({"root": str(tmp_path / name)})
        done = subprocess.run(
            run_command(second.config),
            env=os.environ | second.bench.sandbox.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0 and "another ncaasd" in done.stderr, done
        assert "Traceback" not in done.stderr
    first.stop()


@needs_root
def test_F77_two_hosts_on_one_share_submit_once(new_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Two mounts of one folder, each a file system of its own, as two hosts have it: neither sees the other's lock, and no
    events come. What keeps each job single is S3's conditional write."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse here")
    first = new_rig()
    share = Path(first.root)
    with contextlib.ExitStack() as stack:
        hosts = []
        for name in ("host-a", "host-b"):
            try:
                stack.enter_context(mounted(share, tmp_path / name))
            except OSError as error:
                pytest.skip(f"FUSE cannot be mounted here: {error}")
            rig = new_rig()
            rig.root, rig.home = str(tmp_path / name), str(tmp_path / name / BUCKET)
            rig.configure({"root": rig.root, "upload": {"prefix": f"{first.name}/"}, "watch": {"rescan": "500ms"}})
            hosts.append(rig)
        try:
            for rig in hosts:
                rig.start(command=False)
            first.drop_config()
            first.drop_rule()
            for number in range(4):
                first.drop(f"inputs/{number}.bin", blob(3000, number))
            for rig in hosts:
                rig.wait_for(lambda rig=rig: _all_done(rig, 4), "all four, by each of the two", timeout=120)
            assert {j.job_id for j in hosts[0].jobs()} == {j.job_id for j in hosts[1].jobs()}
            versions = first.bench.versions("submissions/")
            assert [versions[j.submit_key] for j in hosts[0].jobs()] == [1] * 4, "each was started once"
            inputs = first.bench.versions(f"inputs/{first.name}/")
            assert inputs == {f"{GROUP}/inputs/{first.name}/{n}.bin": 1 for n in range(4)}
            watching = (hosts[0].live() or {})["watching"][f"{BUCKET}:"]
            assert watching["mode"] == "polling" and "fuse.tiny" in watching["why"]
            for rig in hosts:
                rig.stop()
        finally:
            for rig in hosts:
                rig.kill()


def _all_done(rig: Rig, count: int) -> bool:
    jobs = rig.jobs()
    return len(jobs) == count and all(j.phase is Phase.ENDED and j.state is JobState.DONE for j in jobs)
