"""The analysis that is shipped, and the recorder whose recordings it is shown with."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ncaasd.sandbox import recorder
from ncaasd.sandbox.analysis import moving_average, thinned, ticks, window_samples
from ncaasd.sandbox.home import DEFAULT_ANALYSIS

RECORDING = "time_s,light,a & b\n0.0,1.0,5\n0.1,2.0,5\n0.2,4.0,5\n0.3,1.0,5\n"
SVG = "{http://www.w3.org/2000/svg}"


def analyse(folder: Path, recording: str, config: str, *, name: str = "c.yaml") -> subprocess.CompletedProcess[str]:
    """Run it as the sandbox's machines do."""
    (folder / "mouse.csv").write_text(recording)
    (folder / name).write_text(config)
    (folder / "results").mkdir(exist_ok=True)
    paths = {"{data}": folder / "mouse.csv", "{config}": folder / name, "{results}": folder / "results"}
    command = [str(paths.get(part, part)) for part in DEFAULT_ANALYSIS]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def summary(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "results" / "mouse_summary.csv", newline="") as file:
        return {row["channel"]: row for row in csv.DictReader(file)}


def test_numbers_and_a_picture(tmp_path: Path) -> None:
    done = analyse(tmp_path, RECORDING, "smoothing_window: 0.2\ntitle: Mouse 7 <left>\n")
    assert done.returncode == 0, done.stderr
    assert "4 samples of 2 channels, 0.3 s" in done.stdout
    light = summary(tmp_path)["light"]
    values = [1.0, 2.0, 4.0, 1.0]
    found = {name: float(light[name]) for name in ("samples", "mean", "sd", "min", "max")}
    assert found == pytest.approx(
        {"samples": 4, "mean": 2.0, "sd": statistics.stdev(values), "min": 1.0, "max": 4.0}, rel=1e-5
    )
    picture = ElementTree.parse(tmp_path / "results" / "mouse_plot.svg").getroot()
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert {"Mouse 7 <left>", "light", "a & b", "time (s)"} <= set(texts)
    assert len([path for path in picture.iter(f"{SVG}path") if path.get("class") == "smooth"]) == 2
    assert sorted(os.listdir(tmp_path / "results")) == ["mouse_plot.svg", "mouse_summary.csv"]


@pytest.mark.parametrize(
    ("config", "channels"),
    [("{}", ["light", "a & b"]), ("channels: [light]", ["light"]), ('{"channels": ["a & b"], "fr": 30}', ["a & b"])],
)
def test_parameters(tmp_path: Path, config: str, channels: list[str]) -> None:
    assert analyse(tmp_path, RECORDING, config, name="c.json").returncode == 0
    assert list(summary(tmp_path)) == channels


@pytest.mark.parametrize(
    ("recording", "config", "sentence"),
    [
        ("", "{}", "the recording is no CSV file with a time and at least one channel"),
        ("time_s,light\n", "{}", "the recording has no samples"),
        ("time_s,light\n0.0,x\n", "{}", "line 2 of the recording is not made of numbers: '0.0,x'"),
        ("time_s,light\n0.0,1.0\n0.1\n", "{}", "line 3 of the recording has not 2 finite numbers"),
        ("time_s,light\n0.0,nan\n", "{}", "line 2 of the recording has not 2 finite numbers"),
        (RECORDING, "channels: [dark]", "the recording has no channel 'dark'; it has light, a & b"),
        (RECORDING, "channels: dark", "channels is a list of names, not 'dark'"),
        (RECORDING, "smoothing_window: soon", "smoothing_window is a number of seconds, not 'soon'"),
        (RECORDING, "- 1", "the config is no mapping"),
        (RECORDING, "a: [", "the config cannot be read"),
    ],
)
def test_bad_input_is_a_sentence_and_a_failure(tmp_path: Path, recording: str, config: str, sentence: str) -> None:
    done = analyse(tmp_path, recording, config)
    assert done.returncode == 1
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "results") == []


@pytest.mark.parametrize(
    "recording", ["t,x\n0,0\n", "t,x\n0,1e12\n1,1e12\n", "t,x\n5,-3\n5,-4\n", "t,x\n0,1e-9\n9,2e-9\n"]
)
def test_flat_short_and_extreme_recordings_are_drawn(tmp_path: Path, recording: str) -> None:
    assert analyse(tmp_path, recording, "{}").returncode == 0
    picture = (tmp_path / "results" / "mouse_plot.svg").read_text()
    ElementTree.fromstring(picture)
    assert "nan" not in picture and "inf" not in picture


@pytest.mark.parametrize(
    ("values", "width", "smooth"),
    [
        ([1.0, 2.0, 6.0], 1, [1.0, 2.0, 6.0]),
        ([1.0, 2.0, 6.0], 3, [1.5, 3.0, 4.0]),
        ([1.0, 2.0, 6.0], 99, [3.0, 3.0, 3.0]),
        ([], 3, []),
    ],
)
def test_moving_average(values: list[float], width: int, smooth: list[float]) -> None:
    assert moving_average(values, width) == pytest.approx(smooth)


@pytest.mark.parametrize(
    ("times", "seconds", "samples"),
    [([0.0, 0.1, 0.2, 0.3], 0.2, 3), ([0.0, 0.1, 0.2, 0.3], 0.0, 1), ([0.0], 5.0, 1), ([0.0, 0.1], 1e9, 3)],
)
def test_window(times: list[float], seconds: float, samples: int) -> None:
    assert window_samples(times, seconds) == samples


def test_thinning_keeps_the_peaks() -> None:
    values = [0.0] * 100_000
    values[54_321] = 9.0
    points = thinned([float(index) for index in range(len(values))], values)
    assert len(points) <= 3_000 and (54_321.0, 9.0) in points


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 100.0, [0, 50, 100]), (0.0, 1.0, [0, 0.5, 1]), (2.17, 2.22, [2.18, 2.2, 2.22]), (-1e6, 1e6, [-1e6, 0, 1e6])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(expected)


# -- the recorder


def test_a_recording_of_this_machine(tmp_path: Path) -> None:
    path, parts = tmp_path / "rec.csv", []
    assert recorder.record(path, seconds=0.5, rate=20.0, progress=parts.append) == 10
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == recorder.COLUMNS and len(rows) == 10
    times = [float(row["time_s"]) for row in rows]
    assert times == sorted(times) and 0.4 < times[-1] < 5.0
    assert all(0.0 <= float(row[name]) <= 100.0 for row in rows for name in ("cpu_percent", "memory_percent"))
    assert parts == pytest.approx([number / 10 for number in range(1, 11)])
    done = analyse(tmp_path, path.read_text(), "{}")
    assert done.returncode == 0 and list(summary(tmp_path)) == list(recorder.COLUMNS[1:])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_busy_processor_and_used_memory_are_seen() -> None:
    sampler = recorder.Sampler()
    deadline = os.times().elapsed + 0.5
    while os.times().elapsed < deadline:
        pass
    cpu, memory, _read, _written = sampler.sample()
    assert cpu > 10.0 and 0.0 < memory < 100.0
    assert recorder.memory_used() > 1 << 20


def test_without_proc_it_still_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another system than Linux."""
    monkeypatch.setattr(recorder, "_PROC", str(tmp_path / "nothing"))
    assert recorder.record(tmp_path / "rec.csv", seconds=0.1, rate=20.0) == 2
    cpu, memory, read, written = recorder.Sampler().sample()
    assert 0.0 <= cpu <= 100.0 and (memory, read, written) == (0.0, 0.0, 0.0)
