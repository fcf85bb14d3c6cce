"""When a file is whole: tables of what was seen and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.model import Stat
from ncaasd.plan.settling import (
    ASK_AGAIN,
    SECOND_LOOK,
    Observation,
    Settled,
    Sign,
    Wait,
    long_untouched,
    observe,
    settle,
    unchanged,
)

SETTLE = 30.0
BIG = Stat(size=100, mtime_ns=5_000_000_000, ctime_ns=5_000_000_000, inode=7)


def grown(stat: Stat, by: int = 1) -> Stat:
    return Stat(stat.size + by, stat.mtime_ns + by, stat.ctime_ns + by, stat.inode)


def whole_at(looks: list[tuple[float, Stat]], *, sign: Sign = Sign.NONE) -> float | None:
    """At which look (its time) the file counts as whole, if at any."""
    seen: Observation | None = None
    for now, stat in looks:
        seen = observe(seen, stat, now, sign if seen is None else Sign.NONE)
        if isinstance(settle(seen, now, SETTLE), Settled):
            return now
    return None


@pytest.mark.parametrize(
    ("what", "looks", "whole"),
    [
        ("one look is never enough", [(1000.0, BIG)], None),
        ("two looks at one time are one look", [(1000.0, BIG), (1000.0, BIG)], None),
        ("quiet for less than settle", [(0.0, BIG), (29.9, BIG)], None),
        ("quiet for settle", [(0.0, BIG), (30.0, BIG)], 30.0),
        ("looked at rarely", [(0.0, BIG), (300.0, BIG)], 300.0),
        ("F29: a slow writer", [(20.0 * n, grown(BIG, n)) for n in range(50)], None),
        ("F29: then it stops", [(0.0, BIG), (20.0, grown(BIG)), (40.0, grown(BIG)), (50.0, grown(BIG))], 50.0),
        ("empty files wait like others", [(0.0, Stat(0, 1, 1, 1)), (10.0, Stat(0, 1, 1, 1))], None),
        ("an mtime in the year 2100", [(0.0, Stat(1, 2**62, 2**62, 1)), (30.0, Stat(1, 2**62, 2**62, 1))], 30.0),
        ("an mtime before 1970", [(0.0, Stat(1, -5, -5, 1)), (29.0, Stat(1, -5, -5, 1))], None),
        ("F30: filled in place, same size", [(0.0, BIG), (30.0, Stat(100, 6_000_000_000, 6_000_000_000, 7))], None),
        ("F32: same size and mtime, another ctime", [(0.0, BIG), (30.0, Stat(100, BIG.mtime_ns, 9, 7))], None),
        ("another inode alone (a share)", [(0.0, BIG), (30.0, Stat(100, BIG.mtime_ns, BIG.ctime_ns, 8))], 30.0),
        ("a truncated one", [(0.0, BIG), (30.0, Stat(50, 6_000_000_000, 6_000_000_000, 7))], None),
        ("F83: the monotonic clock of another boot", [(9000.0, BIG), (5.0, BIG), (20.0, BIG)], None),
        ("F83: and then quiet", [(9000.0, BIG), (5.0, BIG), (35.0, BIG)], 35.0),
    ],
)
def test_quiet_time(what: str, looks: list[tuple[float, Stat]], whole: float | None) -> None:
    assert whole_at(looks) == whole, what


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (BIG, True),
        (BIG._replace(inode=8), True),  # shares invent other ones
        (BIG._replace(size=101), False),
        (BIG._replace(mtime_ns=BIG.mtime_ns + 1), False),
        (BIG._replace(ctime_ns=BIG.ctime_ns + 1), False),
    ],
)
def test_what_two_looks_take_for_a_change(after: Stat, same: bool) -> None:
    assert unchanged(BIG, after) is unchanged(after, BIG) is same


@pytest.mark.parametrize("sign", [Sign.PUBLISHED, Sign.OLD])
@pytest.mark.parametrize(
    ("what", "looks", "whole"),
    [
        ("one look is not enough", [(0.0, BIG)], None),
        ("the second look", [(0.0, BIG), (SECOND_LOOK, BIG)], SECOND_LOOK),
        ("a writer at work after all", [(0.0, BIG), (3.0, grown(BIG)), (6.0, grown(BIG))], None),
        ("a change takes the sign back", [(0.0, BIG), (3.0, grown(BIG)), (33.0, grown(BIG))], 33.0),
    ],
)
def test_signs_shorten_the_wait_but_need_a_second_look(
    sign: Sign, what: str, looks: list[tuple[float, Stat]], whole: float | None
) -> None:
    assert whole_at(looks, sign=sign) == whole, what


def test_a_sign_may_come_after_the_first_look() -> None:
    seen = observe(None, BIG, 0.0)
    seen = observe(seen, BIG, 3.0, Sign.PUBLISHED)
    assert settle(seen, 3.0, SETTLE) == Settled(BIG)


def test_a_short_settle_is_never_made_longer_by_a_sign() -> None:
    assert isinstance(settle(observe(observe(None, BIG, 0.0, Sign.OLD), BIG, 1.0), 1.0, 1.0), Settled)


def test_F30_a_writer_that_holds_the_file_open_outweighs_quiet_time_and_signs() -> None:
    seen = observe(observe(None, BIG, 0.0, Sign.PUBLISHED), BIG, 4000.0)
    waiting = settle(seen, 4000.0, SETTLE, held_open=True)
    assert isinstance(waiting, Wait)
    assert waiting.until == 4000.0 + ASK_AGAIN
    assert "open for writing" in waiting.why


def test_one_look_is_not_enough_however_short_settle_is() -> None:
    assert isinstance(settle(observe(None, BIG, 7.0), 7.0, 0.0), Wait)


def test_a_third_look_at_the_time_of_the_second_begins_nothing_anew() -> None:
    seen = observe(observe(None, BIG, 0.0), BIG, 30.0)
    assert observe(seen, BIG, 30.0) == seen


@pytest.mark.parametrize(
    ("sign", "until", "why"),
    [
        (Sign.NONE, SETTLE, "nothing must change it for 30 s"),
        (Sign.PUBLISHED, SECOND_LOOK, "it was renamed into place; a second look will tell"),
        (Sign.OLD, SECOND_LOOK, "it was untouched for long; a second look will tell"),
    ],
)
def test_what_is_waited_for(sign: Sign, until: float, why: str) -> None:
    assert settle(observe(None, BIG, 0.0, sign), 0.0, SETTLE) == Wait(until, why)


def test_while_a_program_has_it_open_it_is_asked_again_no_sooner_than_it_could_be_whole() -> None:
    waiting = settle(observe(None, BIG, 1.0), 1.0, SETTLE, held_open=True)
    assert isinstance(waiting, Wait) and waiting.until == 1.0 + SETTLE


def test_F83_a_look_by_the_clock_of_another_boot_begins_again() -> None:
    seen = observe(observe(None, BIG, 5000.0), BIG, 9000.0)
    waiting = settle(seen, 5.0, SETTLE)
    assert waiting == Wait(5.0 + SETTLE, "this machine was restarted; a second look will tell")


def test_F91_nothing_counts_as_whole_below_min_free() -> None:
    seen = observe(observe(None, BIG, 0.0), BIG, 4000.0)
    waiting = settle(seen, 4000.0, SETTLE, short_of_space=True)
    assert isinstance(waiting, Wait)
    assert "almost full" in waiting.why
    assert waiting.until == 4000.0 + ASK_AGAIN
    assert isinstance(settle(seen, 4005.0, SETTLE), Settled)


@pytest.mark.parametrize(
    ("wall", "touched", "old"),
    [
        (1_000_000.0, (999_000.0, 999_000.0), True),
        (1_000_000.0, (999_970.0, 999_970.0), True),  # for `settle` exactly
        (1_000_000.0, (999_971.0, 999_970.0), False),
        (1_000_000.0, (999_000.0, 999_990.0), False),  # copied just now with its old mtime: ctime tells
        (1_000_000.0, (999_990.0, 999_000.0), False),
        (1_000_000.0, (2_000_000.0, 2_000_000.0), False),  # from the future
        (999.0, (1_000_000.0, 1_000_000.0), False),  # F83: our clock went back to 1970
    ],
)
def test_F83_what_counts_as_long_untouched_at_a_start(wall: float, touched: tuple[float, float], old: bool) -> None:
    stat = Stat(1, int(touched[0] * 1e9), int(touched[1] * 1e9), 1)
    assert long_untouched(stat, wall, SETTLE) is old


STATS = st.builds(
    Stat, size=st.integers(0, 3), mtime_ns=st.integers(0, 3), ctime_ns=st.integers(0, 3), inode=st.integers(0, 1)
)


@given(
    looks=st.lists(st.tuples(st.floats(0, 40), STATS), min_size=1, max_size=12),
    settle_seconds=st.floats(0.5, 60),
    sign=st.sampled_from(Sign),
)
def test_whole_means_that_nothing_was_seen_to_change_for_long_enough(
    looks: list[tuple[float, Stat]], settle_seconds: float, sign: Sign
) -> None:
    now, seen, history = 0.0, None, []
    for step, stat in looks:
        now += step
        seen = observe(seen, stat, now, sign if not history else Sign.NONE)
        history.append((now, stat))
        verdict = settle(seen, now, settle_seconds)
        needed = settle_seconds if sign is Sign.NONE else min(settle_seconds, SECOND_LOOK)
        if isinstance(verdict, Wait):
            assert verdict.until >= now
            assert verdict.until - now <= settle_seconds + 1e-6
        else:
            quiet = [history[n][0] for n in range(len(history)) if all(unchanged(p, stat) for _, p in history[n:])]
            assert len(set(quiet)) >= 2
            assert now - min(quiet) >= needed - 1e-6


@given(stat=STATS, start=st.floats(0, 1e9), settle_seconds=st.floats(0.1, 3600), sign=st.sampled_from(Sign))
def test_looking_when_told_to_ends_after_two_looks(stat: Stat, start: float, settle_seconds: float, sign: Sign) -> None:
    seen = observe(None, stat, start, sign)
    waiting = settle(seen, start, settle_seconds)
    assert isinstance(waiting, Wait)
    later = waiting.until
    assert isinstance(settle(observe(seen, stat, later), later, settle_seconds), Settled)
