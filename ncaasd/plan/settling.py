"""When a file is whole. Pure: observations and the time in, a verdict out.

A file is whole when our own clock has seen nothing change it for `settle` seconds. What the file's own timestamps say
is not used for that, because they come from another machine's clock on a network share, are set at will by copying
programs, and lie in the future after a clock was put right.

Two looks are needed, always: the first finds the file, and a later one, `settle` after the last change seen, finds it
unchanged. There are two shorter ways (`Sign`), still with a second look. A file that a writer holds open is never whole;
that a writer has closed it shortens nothing, because many writers close and open the file again for each frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ncaasd.model import Stat

# Between the two looks of the shorter ways: longer than the coarsest timestamps in use (FAT's 2 s), so that a writer
# at work cannot look idle.
SECOND_LOOK = 2.5
# How often to ask again while a writer holds the file open, or while the disk is full.
ASK_AGAIN = 5.0


class Sign(Enum):
    """What says, beside quiet time, that a writer has finished."""

    NONE = "none"
    PUBLISHED = "renamed into place"  # from a name that is ignored: `x.tif.part`, rsync's `.x.tif.Ab12Cd`
    OLD = "untouched for long"  # when the daemon started, on a disk of this machine: `long_untouched`


@dataclass(frozen=True, slots=True)
class Observation:
    """What we have seen of one file that is not whole yet. Times are `Clock.monotonic` seconds."""

    stat: Stat
    since: float  # when it was first seen as it is
    seen: float  # when it was last seen so
    sign: Sign = Sign.NONE


@dataclass(frozen=True, slots=True)
class Settled:
    """The file is whole, as `stat` says."""

    stat: Stat


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at `until` (monotonic seconds); `why` is for people."""

    until: float
    why: str


def unchanged(before: Stat, after: Stat) -> bool:
    """Whether two looks saw the same content, as far as a look can tell.

    The inode alone is no change: shares and FUSE invent other inode numbers after each mount. A file that was
    rewritten or replaced has another ctime, which nobody can set (POSIX write, rename, utimensat).
    """
    return before.size == after.size and before.mtime_ns == after.mtime_ns and before.ctime_ns == after.ctime_ns


def long_untouched(stat: Stat, wall: float, settle_seconds: float) -> bool:
    """Whether the file was not changed for `settle_seconds`, by wall-clock time (`Clock.now`).

    To be asked once, when the daemon starts, so that a restart over years of recordings doesn't wait; later a clock
    that jumps would make a file at work look old (F83). Not to be asked of network shares: another machine's clock.
    """
    return wall - max(stat.mtime_ns, stat.ctime_ns) / 1e9 >= settle_seconds


def observe(before: Observation | None, stat: Stat, now: float, sign: Sign = Sign.NONE) -> Observation:
    """The next observation: `stat` was seen at `now` (monotonic seconds), after `before`.

    sign: what is known to say that its writer has finished with it as it is now. Any later change takes it back.
    """
    # A monotonic clock that went back means another boot: observations before it don't count.
    if before is None or now < before.seen or not unchanged(before.stat, stat):
        return Observation(stat, now, now, sign)
    return replace(before, stat=stat, seen=now, sign=before.sign if sign is Sign.NONE else sign)


def settle(
    observation: Observation,
    now: float,
    settle_seconds: float,
    *,
    held_open: bool = False,
    short_of_space: bool = False,
) -> Settled | Wait:
    """Whether the file is whole.

    now: `Clock.monotonic`. settle_seconds: `watch.settle`. held_open: a process of this machine has it open for
    writing. short_of_space: its disk has less than `watch.min_free`.
    """
    if short_of_space:
        # A recording that ends because the disk is full looks exactly like one that ends (F91).
        return Wait(now + ASK_AGAIN, "its disk is almost full, and the recording may be cut short")
    needed = settle_seconds if observation.sign is Sign.NONE else min(settle_seconds, SECOND_LOOK)
    if now < observation.seen:  # another boot's clock: begin again
        return Wait(now + needed, "this machine was restarted; a second look will tell")
    if held_open:
        return Wait(max(now + ASK_AGAIN, observation.since + needed), "a program still has it open for writing")
    # Computed as `until` is, so that a look at exactly that time is late enough in spite of rounding.
    if observation.since < observation.seen >= observation.since + needed:
        return Settled(observation.stat)
    if observation.sign is not Sign.NONE:
        why = f"it was {observation.sign.value}; a second look will tell"
    else:
        why = f"nothing must change it for {settle_seconds:g} s"
    # When it is time already, only the second look is missing, and that may be made at once.
    return Wait(max(now, observation.since + needed), why)
