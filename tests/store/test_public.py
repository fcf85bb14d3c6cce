"""Data in another bucket: read with the key, and else without a signature, as anybody may."""

from __future__ import annotations

import pytest
from fakes.memory_store import MemoryStore

from ncaasd.adapters.s3.public import SignedOrPublic
from ncaasd.errors import Denied


def public(*, key: bool, anybody: bool) -> tuple[SignedOrPublic, MemoryStore, MemoryStore]:
    signed, unsigned = MemoryStore("open-data"), MemoryStore("open-data")
    for store, allowed in ((signed, key), (unsigned, anybody)):
        store.seed("d/a.tif", b"data")
        if not allowed:
            store.deny({"list", "find", "get", "read", "folders", "checksum"}, lambda _key: True)
    return SignedOrPublic(signed, unsigned), signed, unsigned


@pytest.mark.parametrize(
    ("key", "anybody", "asked"), [(True, False, (3, 0)), (True, True, (3, 0)), (False, True, (1, 3))]
)
def test_a_bucket_is_read_signed_and_else_unsigned_and_that_is_remembered(
    key: bool, anybody: bool, asked: tuple[int, int]
) -> None:
    store, signed, unsigned = public(key=key, anybody=anybody)
    assert [o.key for o in store.list("d/").objects] == ["d/a.tif"]
    assert b"".join(store.get("d/a.tif")) == b"data"
    assert store.find("d/a.tif") is not None
    assert (len(signed.ops), len(unsigned.ops)) == asked


def test_a_bucket_that_is_closed_to_all_says_what_the_key_lacks() -> None:
    store, signed, unsigned = public(key=False, anybody=False)
    for _ in range(2):
        with pytest.raises(Denied):
            store.list("d/")
    assert (len(signed.ops), len(unsigned.ops)) == (2, 2)


def test_nothing_is_ever_written_without_a_signature() -> None:
    store, signed, unsigned = public(key=False, anybody=True)
    store.list("d/")
    store.delete("d/a.tif")
    assert [op.name for op in signed.ops] == ["list", "delete"]
    assert [op.name for op in unsigned.ops] == ["list"]
