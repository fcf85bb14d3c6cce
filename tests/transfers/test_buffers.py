"""Memory that is lent: of whole pages, reused, and no more kept than is worth it."""

from __future__ import annotations

import ctypes
import mmap

from ncaasd.adapters.transfers import buffers
from ncaasd.adapters.transfers.buffers import Buffers


def address(lent: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(lent))


def test_what_is_lent_begins_with_a_page() -> None:
    """Else the kernel's copy of a file into it takes up to four times as long."""
    room = Buffers()
    for size in (1, 16 << 10, 8 << 20, (8 << 20) + 1):
        with room.lend(size) as lent:
            assert len(lent) == size
            assert address(lent) % mmap.PAGESIZE == 0


def test_what_was_given_back_is_lent_again_and_never_to_two() -> None:
    room = Buffers()
    with room.lend(1000) as first, room.lend(1000) as second:
        assert address(first) != address(second)
        mine = {address(first), address(second)}
    with room.lend(500) as first, room.lend(500) as second:
        assert {address(first), address(second)} == mine


def test_the_smallest_that_fits_is_lent() -> None:
    room = Buffers()
    with room.lend(8 << 20), room.lend(1 << 20) as small:
        wanted = address(small)
    with room.lend(1000) as lent:
        assert address(lent) == wanted


def test_no_more_is_kept_than_worth_it() -> None:
    room = Buffers()
    with room.lend(buffers.KEEP // 2 + 1), room.lend(buffers.KEEP // 2 + 1):
        pass
    assert sum(map(len, room._free)) <= buffers.KEEP
