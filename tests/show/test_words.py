"""Numbers and times as people write them."""

from __future__ import annotations

import pytest

from ncaasd.show import words

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_300_000_000, "12.3 GB"),
        (123_400_000_000, "123 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.6, "1 min"),
        (180, "3 min"),
        (3599, "1 h 00 min"),
        (2 * HOUR + 5 * MINUTE, "2 h 05 min"),
        (3 * DAY + 4 * HOUR, "3 d 4 h"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0, ""),
        (1000.0, "now"),
        (955.0, "45 s ago"),
        (1000.0 - 3 * MINUTE, "3 min ago"),
        (1020.0, "in 20 s"),
    ],
)
def test_points_in_time(at: float, said: str) -> None:
    assert words.ago(at, 1000.0) == said


@pytest.mark.parametrize(
    ("text", "width", "said"),
    [
        ("short", 10, "short"),
        ("a-long-name.tif", 8, "a-long-…"),
        ("lab/inputs/mouse7/a.tif", 13, "…mouse7/a.tif"),  # of a path, the end tells more
    ],
)
def test_names_that_are_too_long(text: str, width: int, said: str) -> None:
    assert words.cut(text, width) == said


@pytest.mark.parametrize(("value", "said"), [(3.072, "$3.07"), (300, "$300.00"), (0.0042, "$0.0042"), (0, "$0.00")])
def test_dollars(value: float, said: str) -> None:
    assert words.dollars(value) == said


@pytest.mark.parametrize(
    ("done", "whole", "rate", "left"), [(50, 100, 10.0, 5.0), (0, 100, 0.0, None), (100, 100, 1.0, 0.0)]
)
def test_time_left(done: int, whole: int, rate: float, left: float | None) -> None:
    assert words.left(done, whole, rate) == left
