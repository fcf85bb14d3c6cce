"""F79: a journal that an earlier version left in the middle of its work is opened, and its work goes on.

The journals are those of real runs that were killed (support/keep_journal.py). The world around them is made again: the
same recordings, the same objects in S3, the same submit files, for which the sandbox runs the same jobs.
"""

from __future__ import annotations

import glob
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from support.keep_journal import FIXTURES, KILLED, NAME, RECORDINGS, configs_of, content
from support.rig import BUCKET, GROUP, MIB, Rig

from ncaasd.adapters.files.results import LocalResults
from ncaasd.adapters.journal import schema
from ncaasd.adapters.s3.credentials import StoreFactory
from ncaasd.engine.service import read_config
from ncaasd.model import EVENTUALLY, JobState, Phase

KEPT = sorted(glob.glob(os.path.join(FIXTURES, "journal-*.sql")))
PART = 8 * MIB
TIMES = ("created", "intended", "attempted", "submitted", "ended", "next_at", "not_before", "seen")


class World:
    """What the killed daemon left around its journal."""

    def __init__(self, rig: Rig, fixture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        for name, value in rig.bench.sandbox.environment().items():
            monkeypatch.setenv(name, value)
        os.makedirs(rig.state)
        with open(fixture, encoding="utf-8") as file, closing(sqlite3.connect(rig.journal_path)) as db:
            db.executescript(file.read())
            self._files(db)
            self._objects(db, fixture)
            self._upload(db)
            self._results(db, fixture)
            db.commit()

    def _files(self, db: sqlite3.Connection) -> None:
        """The local files, and in the journal what this disk says of them: they were moved to another one."""
        for path in RECORDINGS:
            self.rig.drop(f"inputs/{path}", content(path))
        self.rig.drop_config()
        for path, good in db.execute("SELECT path, good FROM manifest").fetchall():
            self.rig.drop(os.fsdecode(path), good)
        for row, path in db.execute("SELECT id, path FROM file").fetchall():
            found = os.stat(os.path.join(self.rig.home, os.fsdecode(path)))
            stat = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            db.execute("UPDATE file SET size=?, mtime_ns=?, ctime_ns=?, inode=? WHERE id=?", (*stat, row))
            db.execute("UPDATE upload SET size=?, mtime_ns=?, ctime_ns=?, inode=? WHERE file_id=?", (*stat, row))
            stored = "stored_size=?, stored_mtime_ns=?, stored_ctime_ns=?, stored_inode=?"
            db.execute(f"UPDATE file SET {stored} WHERE id=? AND stored_size IS NOT NULL", (*stat, row))

    def _objects(self, db: sqlite3.Connection, fixture: str) -> None:
        store = self.store()
        with open(configs_of(fixture), encoding="utf-8") as file:
            configs = {key: text.encode() for key, text in json.load(file).items()}
        for key, body in configs.items():
            if store.find(key) is None:
                store.put(key, body, crc=crc64nvme(body), only_if_absent=True)
        for path, key, etag in db.execute("SELECT path, key, etag FROM file WHERE etag<>''").fetchall():
            with open(os.path.join(self.rig.home, os.fsdecode(path)), "rb") as file:
                body = file.read()
            assert self._put(store, key, body) == etag, "the object is the same as then"
        sent = db.execute("SELECT submit_key, body FROM job WHERE phase='submitted'").fetchall()
        assert len(sent) == 2
        for key, body in sent:
            store.put(key, body, crc=crc64nvme(body), only_if_absent=True)

    def _put(self, store: Any, key: str, body: bytes) -> str:
        """As it was put then: in parts when it is large. Its ETag."""
        if len(body) <= PART:
            return str(store.put(key, body, crc=crc64nvme(body), only_if_absent=True).etag)
        upload_id = store.create_multipart(key)
        parts = [store.put_part(key, upload_id, n, piece, crc=crc64nvme(piece)) for n, piece in pieces(body)]
        crc = crc64nvme(body)
        done = store.complete_multipart(key, upload_id, parts, crc=crc, size=len(body), only_if_absent=True)
        return str(done.etag)

    def _upload(self, db: sqlite3.Connection) -> None:
        """The upload that is half done: begun again, with the parts that the journal knows."""
        store = self.store()
        key, row = db.execute("SELECT key, file_id FROM upload").fetchone()
        known = dict(db.execute("SELECT number, etag FROM part WHERE file_id=?", (row,)).fetchall())
        assert sorted(known) == [1, 2]
        upload_id = store.create_multipart(key)
        for number, piece in pieces(content("m7/big.bin")):
            if number in known:
                part = store.put_part(key, upload_id, number, piece, crc=crc64nvme(piece))
                assert part.etag == known[number], "the part is the same as then"
        db.execute("UPDATE upload SET upload_id=?", (upload_id,))

    def _results(self, db: sqlite3.Connection, fixture: str) -> None:
        """The results that were fetched are still there; the temporary file of the large one is not. Logs are another
        job's now, as the sandbox runs them again."""
        tree = LocalResults(os.path.join(self.rig.home, "results"), adopt=True)
        tree.check()
        bodies = {"end.txt": b"end of analysis marker", "update.txt": b""}
        with open(configs_of(fixture), encoding="utf-8") as file:
            bodies |= {key.rpartition("/")[2]: text.encode() for key, text in json.load(file).items()}
        sql = "SELECT path FROM artefact WHERE state='fetched' AND name LIKE 'process_results/%'"
        for (path,) in db.execute(sql).fetchall():
            folder, _, name = path.partition("/")
            tree.write(folder, name, bodies[name.rpartition("/")[2]])
        db.execute("UPDATE meta SET value=? WHERE key=?", (tree.id, f"results id:{BUCKET}"))

    def store(self) -> Any:
        return StoreFactory().store(BUCKET, read_config(self.rig.config).analyses[BUCKET].aws)

    def killed(self, ago: float) -> None:
        """Move all points in time, as if the kill had been so many seconds ago."""
        with closing(sqlite3.connect(self.rig.journal_path)) as db:
            killed = float(db.execute("SELECT value FROM meta WHERE key=?", (KILLED,)).fetchone()[0])
            later = time.time() - ago - killed
            for name in TIMES:
                db.execute(f"UPDATE job SET {name}={name}+? WHERE {name} BETWEEN 1 AND ?", (later, EVENTUALLY))
            db.commit()


def pieces(body: bytes) -> list[tuple[int, bytes]]:
    return [(1 + at // PART, body[at : at + PART]) for at in range(0, len(body), PART)]


@pytest.fixture(params=KEPT, ids=os.path.basename)
def world(request: pytest.FixtureRequest, new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> World:
    prefix = {"upload": {"prefix": f"{NAME}/"}}
    rig = new_rig(name=NAME, proxy=True, changes=prefix)
    for area in ("inputs", "configs", "submissions", "results"):  # an earlier test's, of the same names
        _wipe(rig, f"{area}/")
    return World(rig, request.param, monkeypatch)


def _wipe(rig: Rig, area: str) -> None:
    """Remove every version of what an earlier kept journal was played with."""
    pages = rig.bench.admin.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=f"{GROUP}/{area}")
    known = [v for page in pages for v in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
    mine = [v for v in known if NAME in v["Key"] or any(i in v["Key"] for i in _ids())]
    for version in mine:
        rig.bench.admin.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


def _ids() -> set[str]:
    found: set[str] = set()
    for path in KEPT:
        with open(path, encoding="utf-8") as file:
            found |= set(re.findall(r"submissions/(\d{15})-submit", file.read()))
    return found


def test_there_is_one_of_this_schema() -> None:
    assert os.path.join(FIXTURES, f"journal-{schema.VERSION}.sql") in KEPT, "python -m support.keep_journal makes one"


def test_F79_a_kept_journal_goes_on(world: World) -> None:
    rig = world.rig
    assert rig.proxy is not None
    world.killed(ago=5.0)
    since = len(rig.proxy.seen)
    rig.start(command=False)
    rig.wait_done(4)
    rig.stop()
    rig.check(4)
    sent = [s for s in rig.proxy.seen[since:] if s.method == "PUT" and "partNumber=" in s.query]
    assert [re.findall(r"partNumber=(\d+)", s.query) for s in sent] == [["3"]], "only the part that was missing"
    assert {e.subject for e in rig.events("submitted")} >= {"job attempted attempted.bin"}


def test_F79_a_kept_journal_that_is_started_long_after(world: World) -> None:
    """What may have been sent so long ago is a person's to judge; everything else goes on."""
    rig = world.rig
    world.killed(ago=30 * 3600.0)
    rig.start(command=False)
    rig.wait_for(lambda: _states(rig) == {"done": 3, "held": 1}, "all but the doubtful one to be done")
    held = next(j for j in rig.jobs() if j.state is JobState.HELD)
    assert (held.spec.name, held.hold, held.phase) == ("attempted", "unsure", Phase.ATTEMPTED)
    rig.stop()
    assert held.submit_key not in rig.submits()


def _states(rig: Rig) -> dict[str, int]:
    states = [str(j.state) for j in rig.jobs() if j.phase is Phase.ENDED or j.hold]
    return {state: states.count(state) for state in set(states)}
