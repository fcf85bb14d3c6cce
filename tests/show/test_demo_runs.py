"""`ncaasd demo`, as a newcomer types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("weed_binary")


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "ncaasd", "demo", "--seconds", "1.5", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_running(tmp_path: Path) -> list[str]:
    """Processes that still work in the demo's folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(tmp_path).encode() in command and int(pid) != os.getpid():
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left_behind(tmp_path: Path) -> list[str]:
    """What is still in the temporary folder; SeaweedFS's own log files aside, which are the server's."""
    return [name for name in os.listdir(tmp_path / "tmp") if not name.startswith("weed.")]


STEPS = [
    "recording 1.5 seconds",
    "a sandbox of it is up at http://127.0.0.1:",
    "dropped into inputs/",
    "inputs/recording.csv: uploaded and verified",
    "job: submitted as job ",
    "job: NeuroCAAS sets it up",
    "status     done",
    "The results, in data/demo-analysis/results/job__demo-analysis_",
    "process_results/recording_plot.svg",
    "channel,samples,mean,sd,min,max",
    "  cpu_percent,15,",
    "The plot: ",
]


def test_the_whole_loop_in_order_and_nothing_is_left(tmp_path: Path) -> None:
    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    at = -1
    for step in STEPS:
        at = out.find(step, at + 1)
        assert at >= 0, f"{step!r} is not said, or not in order:\n{out}"
    assert left_behind(tmp_path) == []
    assert left_running(tmp_path) == []


def test_kept(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    process = start(tmp_path, "--keep", str(folder))
    out, _err = process.communicate(timeout=120)
    assert process.returncode == 0, out
    found = re.search(r"^The plot: (.*)$", out, re.MULTILINE)
    assert found is not None
    assert Path(found[1]).read_text().startswith("<svg")
    assert (folder / "data" / "demo-analysis" / "inputs" / "recording.csv").exists()
    again = start(tmp_path / "tmp", "--keep", str(folder))
    _out, err = again.communicate(timeout=60)
    assert (again.returncode, "is there already" in err) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["recording", "dropped into inputs/"])
def test_interrupted_it_cleans_up(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(number)
    began = time.monotonic()
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert time.monotonic() - began < 30
    assert left_behind(tmp_path) == []
    assert left_running(tmp_path) == []
