"""The analysis that the sandbox ships: a summary of a recording, as numbers and as a picture.

`python analysis.py DATA CONFIG RESULTS`: DATA is a CSV file whose first column is time in seconds and whose others are
channels; CONFIG is YAML or JSON; into the folder RESULTS go `<name>_summary.csv` (mean, standard deviation, least and
greatest of each channel) and `<name>_plot.svg` (each channel, raw and smoothed). Config parameters, all optional:

smoothing_window   seconds of the moving average drawn over the raw trace (0.5)
channels           a list of the channels wanted (all)
title              above the plot (the recording's name)

Standard library and PyYAML only; it runs as a file, on machines that have no ncaasd.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import yaml


@dataclass(frozen=True)
class Channel:
    name: str
    values: list[float]
    smooth: list[float]

    def summary(self) -> tuple[float, float, float, float]:
        """Mean, standard deviation (of the sample), least, greatest."""
        spread = statistics.stdev(self.values) if len(self.values) > 1 else 0.0
        return statistics.fmean(self.values), spread, min(self.values), max(self.values)


class BadInput(Exception):
    """The data or the config can't be used; the message is a sentence for the log."""


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 3:
        print("usage: analysis.py DATA CONFIG RESULTS", file=sys.stderr)
        return 2
    data, config_path, results = arguments
    name = os.path.splitext(os.path.basename(data))[0]
    try:
        settings = read_config(config_path)
        times, columns = read_recording(data)
        wanted = settings["channels"] or list(columns)
        missing = [channel for channel in wanted if channel not in columns]
        if missing:
            raise BadInput(f"the recording has no channel {missing[0]!r}; it has {', '.join(columns)}")
        print(
            f"{os.path.basename(data)}: {len(times)} samples of {len(columns)} channels, {times[-1] - times[0]:.1f} s"
        )
        width = window_samples(times, settings["smoothing_window"])
        channels = []
        for number, channel in enumerate(wanted, start=1):
            values = columns[channel]
            channels.append(Channel(channel, values, moving_average(values, width)))
            mean, spread, _least, _greatest = channels[-1].summary()
            print(f"channel {number} of {len(wanted)}: {channel}: {mean:.4g} ± {spread:.4g}")
    except (BadInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_summary(os.path.join(results, f"{name}_summary.csv"), channels)
    picture = plot(settings["title"] or name, times, channels)
    with open(os.path.join(results, f"{name}_plot.svg"), "w", encoding="utf-8") as file:
        file.write(picture)
    print(f"wrote {name}_summary.csv and {name}_plot.svg")
    return 0


# -- reading


def read_config(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8-sig") as file:
        try:
            given = yaml.safe_load(file)  # JSON is YAML
        except yaml.YAMLError as error:
            raise BadInput(f"the config cannot be read: {error}") from error
    settings: dict[str, Any] = {"smoothing_window": 0.5, "channels": None, "title": None}
    if not isinstance(given, dict):
        raise BadInput("the config is no mapping of parameters to values")
    settings.update((key, value) for key, value in given.items() if key in settings)
    window, channels = settings["smoothing_window"], settings["channels"]
    if isinstance(window, bool) or not isinstance(window, int | float) or not 0 <= window < math.inf:
        raise BadInput(f"smoothing_window is a number of seconds, not {window!r}")
    if channels is not None and not (isinstance(channels, list) and all(isinstance(name, str) for name in channels)):
        raise BadInput(f"channels is a list of names, not {channels!r}")
    return settings


def read_recording(path: str) -> tuple[list[float], dict[str, list[float]]]:
    """Times, and each channel's values by its name."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if len(header) < 2:
            raise BadInput("the recording is no CSV file with a time and at least one channel")
        samples = []
        for number, row in enumerate(rows, start=2):
            try:
                samples.append([float(cell) for cell in row])
            except ValueError:
                raise BadInput(
                    f"line {number} of the recording is not made of numbers: {','.join(row)[:60]!r}"
                ) from None
            if len(row) != len(header) or not all(map(math.isfinite, samples[-1])):
                raise BadInput(f"line {number} of the recording has not {len(header)} finite numbers")
    if not samples:
        raise BadInput("the recording has no samples")
    columns = [list(column) for column in zip(*samples, strict=True)]
    return columns[0], dict(zip(header[1:], columns[1:], strict=True))


def window_samples(times: list[float], seconds: float) -> int:
    """The number of samples in `seconds`, at the recording's own rate; odd, so that the middle is one of them."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 1
    rate = (len(times) - 1) / (times[-1] - times[0])
    half = round(min(seconds * rate, len(times)) / 2)
    return 2 * half + 1


def moving_average(values: list[float], width: int) -> list[float]:
    """For each sample, the mean of the `width` samples around it; of fewer at the ends."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half, last = width // 2, len(values)
    edges = [(max(0, middle - half), min(last, middle + half + 1)) for middle in range(last)]
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]


# -- writing


def write_summary(path: str, channels: list[Channel]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["channel", "samples", "mean", "sd", "min", "max"])
        for channel in channels:
            rows.writerow([channel.name, len(channel.values), *(f"{value:.6g}" for value in channel.summary())])


WIDTH, LEFT, RIGHT, TOP, PANEL, GAP, BOTTOM = 860, 92, 24, 82, 110, 36, 52
COLOURS = ("#2563eb", "#db6c1c", "#0f9d6b", "#9333ea", "#c81e4a", "#0e8fa8")
STYLE = (
    "text{font:12px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#475569}"
    ".title{font-size:19px;font-weight:600;fill:#0f172a}.name{font-size:13px;font-weight:600;fill:#1e293b}"
    ".grid{stroke:#e2e8f0;stroke-width:1}.raw{fill:none;stroke-width:1;opacity:.5}"
    ".smooth{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}.area{opacity:.08}"
)


def plot(title: str, times: list[float], channels: list[Channel]) -> str:
    """An SVG picture: one panel per channel over a common time axis."""
    height = TOP + len(channels) * (PANEL + GAP) - GAP + BOTTOM
    start, end = times[0], times[-1] if times[-1] > times[0] else times[0] + 1.0
    inner = WIDTH - LEFT - RIGHT

    def x(moment: float) -> float:
        return LEFT + (moment - start) / (end - start) * inner

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text class="title" x="{LEFT}" y="34">{escape(str(title))}</text>',
        f'<text x="{WIDTH - RIGHT}" y="34" text-anchor="end">{len(times)} samples, {end - start:.1f} s</text>',
    ]
    floor = height - BOTTOM
    for tick in ticks(start, end, 8):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{floor + 20}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{LEFT + inner / 2:.1f}" y="{floor + 40}" text-anchor="middle">time (s)</text>')
    for number, channel in enumerate(channels):
        top = TOP + number * (PANEL + GAP)
        parts += panel(channel, COLOURS[number % len(COLOURS)], top, [x(moment) for moment in times])
    return "\n".join([*parts, "</svg>\n"])


def panel(channel: Channel, colour: str, top: float, across: list[float]) -> list[str]:
    """The lines of one channel: its name and mean above, its scale at the left, the raw trace pale, the smoothed one over it."""
    mean, spread, least, greatest = channel.summary()
    low, high = (least, greatest) if greatest > least else (least - 1.0, greatest + 1.0)
    low = 0.0 if 0 <= low < 0.5 * high else low  # begin the scale at 0 where that costs little space

    def y(value: float) -> float:
        return top + PANEL - (value - low) / (high - low) * PANEL

    right = WIDTH - RIGHT
    lines = [
        f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(channel.name.replace("_", " "))}</text>',
        f'<text x="{right}" y="{top - 8}" text-anchor="end">mean {short(mean)} ± {short(spread)}</text>',
    ]
    for value in ticks(low, high, 3):
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        lines.append(f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end">{short(value)}</text>')

    def path(values: list[float]) -> str:
        return "M" + "L".join(f"{left:.1f},{y(value):.1f}" for left, value in thinned(across, values))

    smooth = path(channel.smooth)
    area = f"{smooth}L{across[-1]:.1f},{top + PANEL}L{across[0]:.1f},{top + PANEL}Z"
    lines.append(f'<path class="area" fill="{colour}" d="{area}"/>')
    lines.append(f'<path class="raw" stroke="{colour}" d="{path(channel.values)}"/>')
    lines.append(f'<path class="smooth" stroke="{colour}" d="{smooth}"/>')
    return lines


def thinned(across: list[float], values: list[float]) -> list[tuple[float, float]]:
    """At most some thousand points: the least and the greatest of each section, in order, so that no peak is lost."""
    size = max(1, math.ceil(len(values) / 1500))
    if size == 1:
        return list(zip(across, values, strict=True))
    points = []
    for first in range(0, len(values), size):
        stretch = range(first, min(first + size, len(values)))
        for index in sorted({min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}):
            points.append((across[index], values[index]))
    return points


def ticks(low: float, high: float, about: int) -> list[float]:
    """About `about` round numbers between `low` and `high`."""
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 12.3, 4.5M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
