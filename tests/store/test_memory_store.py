"""The memory store breaks as it is told to: what other tests rely on."""

from __future__ import annotations

import pytest
from awscrt.checksums import crc64nvme
from fakes.backends import put
from fakes.memory_store import Fault, MemoryStore

from ncaasd.errors import Corrupted, Denied, Exists, NoSuchUpload, Throttled, Unreachable


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("bucket")


def told(store: MemoryStore, key: str = "k", body: bytes = b"body", **how: bool) -> str:
    try:
        put(store, key, body, **how)
    except Exception as error:
        return type(error).__name__
    return "stored"


@pytest.mark.parametrize(
    ("fault", "what", "was_told", "created"),
    [
        (Fault("put", error=Throttled("slow down")), {}, "Throttled", 0),
        (Fault("put", error=lambda: Denied("no")), {}, "Denied", 0),
        (Fault("put", lost=True), {}, "Unreachable", 1),
        (Fault("put", lost=True), {"only_if_absent": True}, "Unreachable", 1),
        (Fault("put", late=1), {}, "Unreachable", 0),
        (Fault("put", twice=True), {}, "stored", 2),
        (Fault("put", twice=True), {"only_if_absent": True}, "stored", 1),
        (Fault("put", flip=2), {}, "Corrupted", 0),
        (Fault("put", key=lambda key: key == "other", error=Throttled("")), {}, "stored", 1),
        (Fault("get", error=Throttled("")), {}, "stored", 1),
        (Fault({"get", "put"}, error=Throttled("")), {}, "Throttled", 0),
        (Fault("*", error=Throttled("")), {}, "Throttled", 0),
        (Fault("put", skip=1, error=Throttled("")), {}, "stored", 1),
    ],
)
def test_a_fault_meets_one_put(store, fault, what, was_told, created):
    store.faults.append(fault)
    assert told(store, **what) == was_told
    assert store.created("k") == created


def test_faults_are_used_up(store):
    store.faults.append(Fault("put", times=2, error=Throttled("")))
    assert [told(store) for _ in range(3)] == ["Throttled", "Throttled", "stored"]
    store.faults.append(Fault("put", times=None, error=Throttled("")))
    assert {told(store) for _ in range(9)} == {"Throttled"}
    store.faults.clear()
    assert told(store) == "stored"


def test_a_late_put_is_applied_when_others_have_come_in(store):
    store.faults.append(Fault("put", late=2))
    assert told(store, only_if_absent=True) == "Unreachable"
    assert [store.find("k") is not None for _ in range(3)] == [False, False, True]
    assert (store.created("k"), store.body("k")) == (1, b"body")


def test_a_late_put_loses_to_what_is_there_by_then(store):
    store.faults.append(Fault("put", late=9))
    assert told(store, only_if_absent=True) == "Unreachable"
    assert told(store, body=b"second", only_if_absent=True) == "stored"
    store.flush_late()
    assert (store.created("k"), store.body("k")) == (1, b"second")


def test_downloads_break(store):
    store.seed("k", b"0123456789")
    store.faults.append(Fault("get", cut=4))
    blocks = store.get("k")
    assert next(blocks) == b"0123"
    with pytest.raises(Unreachable):
        next(blocks)
    store.faults.append(Fault("get", flip=0))
    assert b"".join(store.get("k")) == b"1123456789"
    assert b"".join(store.get("k")) == b"0123456789"


def test_a_hook_runs_before_and_may_use_the_store(store):
    store.faults.append(Fault("put", before=lambda key: store.seed(key, b"theirs") and None))
    assert told(store, only_if_absent=True) == "Exists"
    assert store.body("k") == b"theirs"


def test_permissions(store):
    rule = store.deny("get", lambda key: key.startswith("inputs/"))
    store.seed("inputs/a", b"")
    store.seed("results/a", b"")
    with pytest.raises(Denied):
        store.get("inputs/a")
    assert list(store.get("results/a")) == []
    store.faults.remove(rule)
    store.get("inputs/a")


def test_what_was_asked_is_recorded(store):
    told(store, body=bytes(300_000))
    store.faults.append(Fault("put_part", error=Throttled("")))
    upload_id = store.create_multipart("m")
    with pytest.raises(Throttled):
        store.put_part("m", upload_id, 1, b"12345", crc=crc64nvme(b"12345"))
    store.put_part("m", upload_id, 1, b"12345", crc=crc64nvme(b"12345"))
    assert [(op.name, op.key, op.sent, op.error) for op in store.ops] == [
        ("put", "k", 300_000, ""),
        ("create_multipart", "m", 0, ""),
        ("put_part", "m", 5, "Throttled"),
        ("put_part", "m", 5, ""),
    ]
    assert (store.sent("put_part"), store.count("put_part")) == (10, 2)


def test_uploads_outlive_their_clients_until_they_are_forgotten(store):
    upload_id = store.create_multipart("m")
    part = store.put_part("m", upload_id, 1, b"x", crc=crc64nvme(b"x"))
    assert store.open_uploads() == {upload_id: {1: part}}
    store.forget_uploads()
    with pytest.raises(NoSuchUpload):
        store.put_part("m", upload_id, 2, b"x", crc=crc64nvme(b"x"))


def test_the_whole_is_verified(store):
    upload_id = store.create_multipart("m")
    part = store.put_part("m", upload_id, 1, b"x", crc=crc64nvme(b"x"))
    for crc, size in ((crc64nvme(b"y"), 1), (crc64nvme(b"x"), 2)):
        with pytest.raises(Corrupted):
            store.complete_multipart("m", upload_id, [part], crc=crc, size=size, only_if_absent=True)
    store.seed("m", b"theirs")
    with pytest.raises(Exists):
        store.complete_multipart("m", upload_id, [part], crc=crc64nvme(b"x"), size=1, only_if_absent=True)
