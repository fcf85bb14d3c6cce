"""What every ObjectStore does, over memory, moto and SeaweedFS: what the rest of ncaasd is built on."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from awscrt.checksums import crc64nvme
from fakes.backends import put

from ncaasd.adapters.s3.answers import multipart_etag
from ncaasd.adapters.s3.probe import honours_if_none_match
from ncaasd.errors import Absent, Busy, Corrupted, Denied, Exists, NoSuchUpload, StoreError
from ncaasd.model import Part
from ncaasd.ports import ObjectStore

PART = 5 << 20  # bytes: the smallest that S3 takes for a part that is not the last
MIXED = random.Random(1).randbytes(2 * PART + 12_345)


def parts_of(store: ObjectStore, key: str, upload_id: str, body: bytes) -> list[Part]:
    cut = [body[at : at + PART] for at in range(0, len(body), PART)]
    return [store.put_part(key, upload_id, n, part, crc=crc64nvme(part)) for n, part in enumerate(cut, 1)]


def complete(store: ObjectStore, key: str, upload_id: str, parts: list[Part], body: bytes, **how: bool) -> object:
    how = {"only_if_absent": True, **how}
    return store.complete_multipart(key, upload_id, parts, crc=crc64nvme(body), size=len(body), **how)


# -- put


@pytest.mark.parametrize("body", [b"", b"x", MIXED[: 16 << 10], MIXED[: 3 << 20]], ids=["empty", "1", "16k", "3M"])
def test_what_is_put_is_listed_with_its_size_and_etag(store, unique, body):
    key = f"lab/configs/{unique}.yaml"
    info = put(store, key, body)
    assert (info.key, info.size, info.etag) == (key, len(body), hashlib.md5(body).hexdigest())
    assert abs(info.modified - time.time()) < 60
    found = store.find(key)
    assert found is not None and (found.key, found.size, found.etag) == (key, len(body), info.etag)
    assert abs(found.modified - info.modified) <= 5
    assert b"".join(store.get(key)) == body


def test_a_slice_of_a_buffer_can_be_put(store, unique):
    body = memoryview(bytearray(MIXED))[100 : 100 + 70_000]
    store.put(f"lab/configs/{unique}", body, crc=crc64nvme(body), only_if_absent=True)
    assert store.read(f"lab/configs/{unique}", limit=100_000)[0] == bytes(body)


def test_F41_a_put_whose_bytes_are_not_what_was_announced_is_refused(backend, store, unique):
    backend.must("checksums")
    with pytest.raises(Corrupted):
        store.put(f"lab/inputs/{unique}", b"hello", crc=crc64nvme(b"hellO"), only_if_absent=True)
    assert store.find(f"lab/inputs/{unique}") is None
    assert backend.created(f"lab/inputs/{unique}") == 0


def test_only_if_absent_puts_once(backend, store, unique):
    key = f"lab/configs/{unique}.json"
    put(store, key, b"first", only_if_absent=True)
    for retry in (True, False):
        with pytest.raises(Exists):
            put(store, key, b"second", only_if_absent=True, retry=retry)
    assert store.read(key, limit=10)[0] == b"first"
    assert backend.created(key) == 1


def test_a_put_without_condition_replaces(backend, store, unique):
    key = f"lab/configs/{unique}.json"
    put(store, key, b"first")
    put(store, key, b"second")
    assert store.read(key, limit=10)[0] == b"second"
    assert backend.created(key) == 2


def test_of_many_who_put_only_if_absent_one_wins(backend, unique):
    backend.must("atomic conditions")
    key = f"lab/submissions/{unique}-submit.json"
    stores = [backend.make() for _ in range(8)]

    def attempt(number: int) -> bool:
        try:
            put(stores[number], key, b"%d" % number, only_if_absent=True, retry=False)
        except (Exists, Busy):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    assert backend.created(key) == 1


def test_F51_the_probe_finds_that_if_none_match_is_honoured(store, unique):
    assert honours_if_none_match(store, f"lab/submissions/.ncaasd/{unique}")
    assert honours_if_none_match(store, f"lab/submissions/.ncaasd/{unique}")  # also where it was made before


# -- pace


def test_the_pace_is_asked_before_each_block(store, unique):
    blocks: list[int] = []
    body = MIXED[: 1 << 20]
    store.put(f"lab/inputs/{unique}", body, crc=crc64nvme(body), only_if_absent=True, pace=blocks.append)
    assert sum(blocks) == len(body)
    assert max(blocks) <= 512 << 10


def test_a_pace_that_waits_is_asked_for_little_at_a_time(store, unique):
    blocks: list[int] = []

    def pace(count: int) -> None:
        blocks.append(count)
        time.sleep(0.02)

    body = MIXED[: 1 << 20]
    store.put(f"lab/inputs/{unique}", body, crc=crc64nvme(body), only_if_absent=True, pace=pace)
    assert sum(blocks) == len(body)
    assert max(blocks) <= 128 << 10


def test_what_the_pace_raises_abandons_the_request_and_passes_through(backend, store, unique):
    class Stopped(Exception):
        pass

    def pace(count: int, budget: list[int] = [4]) -> None:  # noqa: B006 - the counter
        budget[0] -= 1
        if not budget[0]:
            raise Stopped

    body = MIXED[:PART]
    with pytest.raises(Stopped):
        store.put(f"lab/inputs/{unique}", body, crc=crc64nvme(body), only_if_absent=True, pace=pace)
    assert backend.created(f"lab/inputs/{unique}") == 0
    put(store, f"lab/inputs/{unique}", b"the store is as good as before")


# -- list and find


def test_an_absent_prefix_is_an_empty_listing_with_the_servers_time(store, unique):
    listing = store.list(f"lab/inputs/{unique}/")
    assert listing.objects == ()
    assert abs(listing.at - time.time()) < 60


def test_folders_are_those_directly_below(backend, store, unique):
    prefix = f"lab/results/{unique}/"
    for name in ("a", "b/1", "b/2", "c c+d/é/deep", "c/", "d/e/f/g"):
        backend.seed(prefix + name, b".")
    assert sorted(store.folders(prefix)) == [prefix + name for name in ("b/", "c c+d/", "c/", "d/")]
    assert list(store.folders(f"{prefix}b/")) == []
    assert list(store.folders(f"lab/results/{unique}-absent/")) == []


def test_F50_more_than_a_thousand_folders_are_listed_in_pages(weed_backend, unique):
    prefix = f"lab/results/{unique}/"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: weed_backend.seed(f"{prefix}job_{n:05}/logs/c.txt", b"."), range(1003)))
    assert sorted(weed_backend.make().folders(prefix)) == [f"{prefix}job_{n:05}/" for n in range(1003)]


def test_find_means_exactly_that_key(store, unique):
    for name in ("job_12", "job_12x", "job_123/a", "job_11"):
        put(store, f"lab/inputs/{unique}/{name}", name.encode())
    found = {name: store.find(f"lab/inputs/{unique}/{name}") for name in ("job_1", "job_12", "job_123", "job_123/a")}
    assert {name: info.size if info else None for name, info in found.items()} == {
        "job_1": None,
        "job_12": 6,
        "job_123": None,
        "job_123/a": 9,
    }


NAMES = [
    "DATASET_NAME:a.tif_STATUS.txt",
    "a b+c&d<e>.txt",
    "ünï/çødé.txt",
    "100%.txt",
    "%41.txt",
    "x=y?z#.txt",
    "~.txt",
]


def test_whatever_a_key_is_named_it_is_listed_and_read(backend, store, unique):
    prefix = f"lab/results/{unique}/"
    for name in NAMES:
        backend.seed(prefix + name, name.encode())
    assert {info.key for info in store.list(prefix).objects} == {prefix + name for name in NAMES}
    for name in NAMES:
        assert store.read(prefix + name, limit=100)[0] == name.encode()
        assert store.find(prefix + name) is not None


def test_F50_more_than_a_thousand_keys_are_listed_in_pages(backend, backends, store, unique):
    keys = [f"lab/inputs/{unique}/{n:05}" for n in range(1003)]
    quick = backends(backend.name.replace("sdk", "fast")).make() if backend.name != "memory" else store
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put(quick, key, b"."), keys))
    listing = store.list(f"lab/inputs/{unique}/")
    assert [info.key for info in listing.objects] == keys
    assert {info.size for info in listing.objects} == {1}


# -- multipart


def test_an_upload_goes_on_in_another_process_and_ends_whole(backend, unique):
    key = f"lab/configs/{unique}.bin"
    first, second = backend.make(), backend.make()
    upload_id = first.create_multipart(key)
    parts = parts_of(first, key, upload_id, MIXED)[:2]
    last = memoryview(MIXED)[2 * PART :]
    parts.append(second.put_part(key, upload_id, 3, last, crc=crc64nvme(last)))
    assert [part.size for part in parts] == [PART, PART, 12_345]
    assert parts[0].etag == hashlib.md5(MIXED[:PART]).hexdigest()
    assert second.find(key) is None
    info = complete(second, key, upload_id, parts, MIXED)
    assert (info.key, info.size, info.etag) == (key, len(MIXED), multipart_etag(parts))
    found = second.find(key)
    assert (found.size, found.etag) == (len(MIXED), info.etag)
    assert b"".join(second.get(key)) == MIXED
    assert backend.created(key) == 1


def test_S3_keeps_the_checksum_of_the_whole(backend, store, unique):
    backend.must("kept checksums")
    key = f"lab/configs/{unique}.bin"
    upload_id = store.create_multipart(key)
    info = complete(store, key, upload_id, parts_of(store, key, upload_id, MIXED), MIXED)
    assert store.checksum(key, etag=info.etag) == crc64nvme(MIXED)
    with pytest.raises(Exists):
        store.checksum(key, etag="0" * 32)
    with pytest.raises(Absent):
        store.checksum(key + "2", etag=info.etag)


def test_a_part_sent_twice_counts_as_its_last(store, unique):
    key = f"lab/configs/{unique}.bin"
    upload_id = store.create_multipart(key)
    store.put_part(key, upload_id, 1, b"first", crc=crc64nvme(b"first"))
    part = store.put_part(key, upload_id, 1, b"second", crc=crc64nvme(b"second"))
    complete(store, key, upload_id, [part], b"second")
    assert store.read(key, limit=10)[0] == b"second"


def test_F41_a_part_whose_bytes_are_not_what_was_announced_is_refused(backend, store, unique):
    backend.must("checksums")
    upload_id = store.create_multipart(f"lab/inputs/{unique}")
    with pytest.raises(Corrupted):
        store.put_part(f"lab/inputs/{unique}", upload_id, 1, b"hello", crc=crc64nvme(b"hellO"))


def test_F41_an_object_whose_whole_is_not_what_was_announced_is_refused(backend, store, unique):
    backend.must("full-object checksums")
    key = f"lab/inputs/{unique}"
    upload_id = store.create_multipart(key)
    parts = parts_of(store, key, upload_id, MIXED)
    with pytest.raises(Corrupted):
        store.complete_multipart(key, upload_id, parts, crc=1, size=len(MIXED), only_if_absent=True)
    assert store.find(key) is None


def test_completing_only_if_absent_replaces_nothing(backend, store, unique):
    key = f"lab/configs/{unique}"
    upload_id = store.create_multipart(key)
    parts = parts_of(store, key, upload_id, b"mine")
    put(store, key, b"theirs")
    with pytest.raises(Exists):
        complete(store, key, upload_id, parts, b"mine")
    assert store.read(key, limit=10)[0] == b"theirs"
    assert backend.created(key) == 1


def _part_of_no_upload(store: ObjectStore, key: str) -> None:
    store.put_part(key, "no-such-upload", 1, b"x", crc=crc64nvme(b"x"))


def _complete_no_upload(store: ObjectStore, key: str) -> None:
    complete(store, key, "no-such-upload", [Part(1, 1, hashlib.md5(b"x").hexdigest(), crc64nvme(b"x"))], b"x")


def _complete_twice(store: ObjectStore, key: str) -> None:
    upload_id = store.create_multipart(key)
    parts = parts_of(store, key, upload_id, b"x")
    complete(store, key, upload_id, parts, b"x")
    store.delete(key)
    complete(store, key, upload_id, parts, b"x")


def _complete_with_a_part_never_sent(store: ObjectStore, key: str) -> None:
    upload_id = store.create_multipart(key)
    sent = parts_of(store, key, upload_id, MIXED[:PART])
    never = Part(2, 1, hashlib.md5(b"x").hexdigest(), crc64nvme(b"x"))
    complete(store, key, upload_id, [*sent, never], MIXED[:PART] + b"x")


@pytest.mark.parametrize(
    "act", [_part_of_no_upload, _complete_no_upload, _complete_twice, _complete_with_a_part_never_sent]
)
def test_F48_an_upload_that_cannot_be_gone_on_with(backend, store, unique, act: Callable[[ObjectStore, str], None]):
    backend.must("multipart errors")
    with pytest.raises(NoSuchUpload):
        act(store, f"lab/inputs/{unique}")
    assert store.find(f"lab/inputs/{unique}") is None


# -- get, read, delete


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, None), (0, 1), (5, 10), (0, 3 << 20), ((3 << 20) - 1, 1), ((3 << 20) - 5, None), (7, 0)],
)
def test_ranges(backend, store, unique, start, length):
    key = f"lab/results/{unique}"
    body = MIXED[: 3 << 20]
    backend.seed(key, body)
    etag = hashlib.md5(body).hexdigest()
    blocks = list(store.get(key, etag=etag, start=start, length=length))
    assert b"".join(blocks) == (body[start:] if length is None else body[start : start + length])
    assert all(0 < len(block) <= 1 << 20 for block in blocks)


@pytest.mark.parametrize(("start", "length"), [(3, 10), (10, 1)])
def test_a_range_beyond_the_end_is_no_success(backend, store, unique, start, length):
    backend.seed(f"lab/results/{unique}", b"hello")
    with pytest.raises(Corrupted):
        list(store.get(f"lab/results/{unique}", start=start, length=length))


def test_an_object_that_was_replaced_is_not_read(backend, store, unique):
    backend.seed(f"lab/results/{unique}", b"new")
    with pytest.raises(Exists):
        list(store.get(f"lab/results/{unique}", etag=hashlib.md5(b"old").hexdigest()))


def test_reading_stops_early_without_harm(backend, store, unique):
    backend.seed(f"lab/results/{unique}", MIXED)
    for _ in range(20):  # more than there are connections
        blocks = store.get(f"lab/results/{unique}")
        next(blocks)
        blocks.close()
    assert b"".join(store.get(f"lab/results/{unique}")) == MIXED


def test_what_is_not_there_is_absent(store, unique):
    with pytest.raises(Absent):
        list(store.get(f"lab/results/{unique}"))
    with pytest.raises(Absent):
        store.read(f"lab/configs/{unique}", limit=1)


def test_read_gives_small_objects_only(backend, store, unique):
    backend.seed(f"lab/results/{unique}", b"hello")
    body, info = store.read(f"lab/results/{unique}", limit=5)
    assert (body, info.key, info.size, info.etag) == (
        b"hello",
        f"lab/results/{unique}",
        5,
        hashlib.md5(b"hello").hexdigest(),
    )
    with pytest.raises(Corrupted):
        store.read(f"lab/results/{unique}", limit=4)


def test_delete(store, unique):
    put(store, f"lab/inputs/{unique}", b"x")
    store.delete(f"lab/inputs/{unique}")
    assert store.find(f"lab/inputs/{unique}") is None
    store.delete(f"lab/inputs/{unique}")  # also when it is not there


# -- permissions


@pytest.mark.parametrize(
    ("permission", "act"),
    [
        ("s3:GetObject on caiman-ncap-web/lab/inputs/there", lambda store: list(store.get("lab/inputs/there"))),
        ("s3:PutObject on caiman-ncap-web/lab/results/x", lambda store: put(store, "lab/results/x", b"")),
        ("s3:PutObject on caiman-ncap-web/lab/results/x", lambda store: store.create_multipart("lab/results/x")),
        ("s3:PutObject on caiman-ncap-web/other/inputs/x", lambda store: put(store, "other/inputs/x", b"")),
        ("s3:ListBucket on caiman-ncap-web/other/inputs/", lambda store: store.list("other/inputs/")),
    ],
)
def test_F55_what_is_denied_says_which_permission(backend, store, permission, act):
    backend.must("policy")
    put(store, "lab/inputs/there", b"x")
    with pytest.raises(Denied) as raised:
        act(store)
    if backend.name != "memory":
        assert str(raised.value).startswith(f"{permission} is denied")
    assert not raised.value.transient


def test_only_store_errors_leave(store):
    with pytest.raises(StoreError):
        store.get("lab/inputs/" + "x" * 2000)
