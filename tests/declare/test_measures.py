"""Durations, sizes, rates and hours as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.declare import measures


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("30 s", 30),
        ("5m", 300),
        ("5 min", 300),
        ("48h", 172800),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1.5h", 5400),
        ("2 days", 172800),
        ("1w", 604800),
        ("500ms", 0.5),
        ("30S", 30),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert measures.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-30s", "30 parsecs", "1e3s", "30s!", "h5", "99999d", "nan", "inf s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        measures.duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5 GB", 5 * 10**9),
        ("5gb", 5 * 10**9),
        ("8 MiB", 8 * 2**20),
        ("1.5TB", 15 * 10**11),
        ("512 B", 512),
        ("10K", 10**4),
        ("7 bytes", 7),
        ("1 byte", 1),
        ("0", 0),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert measures.size(text) == count


@pytest.mark.parametrize("text", ["", "5", "GB", "-5 GB", "5 GBit", "5 XB", "5 GB/s", "nan GB", "99999999 TB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more than there is"):
        measures.size(text)


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("10 MB/s", 10**7),
        ("10MB/sec", 10**7),
        ("10 MBps", 10**7),
        ("80 Mbit/s", 10**7),
        ("80 Mbps", 10**7),
        ("1 MiB/s", 2**20),
        ("300 B/s", 300),
        ("0", 0),
        ("none", None),
        ("unlimited", None),
    ],
)
def test_rates(text: str, per_second: int | None) -> None:
    assert measures.rate(text) == per_second


@pytest.mark.parametrize(("text", "words"), [("10", "a rate"), ("10 MB", "a rate"), ("-1 B/s", "a rate")])
def test_no_rates(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measures.rate(text)


@pytest.mark.parametrize("text", ["10 Mb/s", "10 mb/s", "5 kb/s"])
def test_a_rate_that_may_mean_bits_or_bytes_is_asked_back(text: str) -> None:
    with pytest.raises(ValueError, match=r"bytes or bits"):
        measures.rate(text)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("08:00-19:00", (480, 1140)),
        ("8:00 - 19:30", (480, 1170)),
        ("22:00-06:00", (1320, 360)),
        ("00:00-24:00", (0, 1440)),
    ],
)
def test_hours(text: str, band: tuple[int, int]) -> None:
    assert measures.hours(text) == band


@pytest.mark.parametrize("text", ["", "8-19", "08:00", "08:60-09:00", "24:00-25:00", "24:00-01:00", "08:00-08:00"])
def test_no_hours(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|whole day"):
        measures.hours(text)


@given(st.integers(0, 10**8))
def test_what_is_said_is_read_again(number: int) -> None:
    assert measures.duration(measures.say_duration(float(number))) == number
    assert measures.size(measures.say_size(number)) == number
    assert measures.rate(measures.say_rate(number)) == number
