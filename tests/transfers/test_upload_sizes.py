"""Files of every size arrive whole, checked, and once."""

from __future__ import annotations

import os

import pytest
from transfer_rig import KIB, MIB, Rig, verdicts

from ncaasd.adapters.transfers.checksums import crc64

PART = 64 * KIB


@pytest.mark.parametrize("parallel", [0, 4])
@pytest.mark.parametrize(
    ("size", "puts", "parts"),
    [
        (0, 1, 0),
        (1, 1, 0),
        (PART - 1, 1, 0),
        (PART, 1, 0),
        (PART + 1, 0, 2),
        (2 * PART, 0, 2),
        (37 * PART + 5, 0, 38),
    ],
)
def test_F37_every_size(rig: Rig, size: int, puts: int, parts: int, parallel: int) -> None:
    body = os.urandom(size)
    task = rig.upload(rig.file("a.tif", body), part_size=PART)
    (outcome,) = rig.run(task, parallel=parallel)
    assert outcome.verdict.value == "stored"
    assert rig.store.body(task.key) == body
    assert rig.store.created(task.key) == 1
    assert (rig.store.count("put"), rig.store.count("put_part")) == (puts, parts)
    assert rig.store.sent("put") + rig.store.sent("put_part") == size
    assert outcome.stored is not None
    found = rig.store.find(task.key)
    assert found is not None
    assert (outcome.stored.size, outcome.stored.etag) == (found.size, found.etag)
    assert outcome.stored.crc == crc64(body)
    assert not outcome.stored.adopted
    assert rig.store.open_uploads() == {}


def test_F37_a_sparse_file_arrives_with_its_holes_as_zeros(rig: Rig) -> None:
    path = rig.folder / "sparse.bin"
    with open(path, "wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
    task = rig.upload(path, part_size=MIB)
    assert verdicts(rig.run(task)) == ["stored"]
    assert rig.store.body(task.key) == bytes(3 * MIB) + b"end"


def test_F37_ten_thousand_parts(rig: Rig) -> None:
    body = os.urandom(10_000)
    task = rig.upload(rig.file("many.bin", body), part_size=1)
    assert verdicts(rig.run(task)) == ["stored"]
    assert rig.store.body(task.key) == body
    assert rig.store.count("put_part") == 10_000


def test_no_part_is_sent_before_the_upload_id_is_recorded(rig: Rig) -> None:
    task = rig.upload(rig.file("a.tif", os.urandom(3 * KIB)), part_size=KIB)
    rig.run(task)
    assert rig.log.events == ["created upload-1", "part 1", "part 2", "part 3"]
