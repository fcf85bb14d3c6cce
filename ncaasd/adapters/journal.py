"""The journal: what we did, in SQLite. The only SQL of the house, and one thread (the engine) writes it.

WAL with synchronous=FULL, both read back: a committed row survives a power cut (with NORMAL it may not). Every write
happens inside `with journal.transaction():`; transactions nest by joining the outer one, so that the engine can commit
many records at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import ncaasd
from ncaasd.adapters import schema
from ncaasd.errors import JournalBroken, JournalError, StateError
from ncaasd.model import (
    ABORTED,
    Artefact,
    ArtefactState,
    CostNote,
    Dataset,
    Event,
    FileRow,
    FileState,
    JobRow,
    JobSpec,
    JobState,
    Origin,
    Part,
    Phase,
    Place,
    Stat,
    Stored,
)
from ncaasd.ports import CrashPoint, no_crash

EVENTUALLY = 1e14  # points in time beyond this mean "when something happens"
LONGEST_DELAY = 6 * 3600.0
DAY = 86400.0

_FILE = (
    "id, analysis, tree, path, size, mtime_ns, ctime_ns, inode, state, reason, since, key,"
    " stored_size, stored_mtime_ns, stored_ctime_ns, stored_inode, etag, retry_at, failures, ours"
)
_JOB = (
    "id, analysis, name, unit, version, attempt, origin, declared_in, config, overlay, instance_type, resultpath,"
    " job_id, phase, state, reason, hold, released, created, intended, attempted, submitted, ended, next_at, failures,"
    " submit_key, config_key, body, verdict, refused_kind, finished, total, cost_projected, cost_remaining, cost_over, seen,"
    " size, rebuilt, forgotten, results, quiet_looks, not_before, fields"
)
_SET_FILE = (
    "UPDATE file SET since=CASE WHEN state=?1 THEN since ELSE ?3 END, state=?1, reason=?2, retry_at=?4, failures=?5"
    " WHERE id=?6"
)
# Word for word the condition of the index file_open: SQLite uses it only where it reads that.
_OPEN_FILE = "state IN ('settling', 'whole', 'held', 'refused')"
_OPEN_STATES = frozenset({FileState.SETTLING, FileState.WHOLE, FileState.HELD, FileState.REFUSED})
_NEWEST_JOB = (
    "NOT EXISTS (SELECT 1 FROM job AS later WHERE later.analysis=job.analysis AND later.name=job.name"
    " AND later.unit=job.unit AND later.version=job.version AND later.attempt>job.attempt)"
)
_ARTEFACT = "id, job, name, bucket, key, size, etag, state, path, reason, retry_at, failures"

_JOB_FIELDS = frozenset(
    {
        "attempt",
        "job_id",
        "phase",
        "state",
        "reason",
        "hold",
        "released",
        "intended",
        "attempted",
        "submitted",
        "ended",
        "next_at",
        "not_before",
        "failures",
        "submit_key",
        "config_key",
        "body",
        "verdict",
        "refused_kind",
        "finished",
        "total",
        "seen",
        "size",
        "rebuilt",
        "forgotten",
        "results",
        "quiet_looks",
        "config",
        "overlay",
        "instance_type",
        "resultpath",
        "declared_in",
        "fields",
    }
)


def open_journal(path: str, *, crash: CrashPoint = no_crash) -> Journal:
    """Open for writing, creating or migrating as needed.

    Raises StateError when the schema is newer than this version, JournalError when the pragmas can't be set or the disk is
    full, JournalBroken when the file is not a sound database.
    """
    with _translated():
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            _make_safe(db, path)
            _migrate(db, path, crash)
        except BaseException:
            db.close()
            raise
    return Journal(db, path)


def _make_safe(db: sqlite3.Connection, path: str) -> None:
    db.execute("PRAGMA busy_timeout=5000")
    mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    full = db.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or full != 2:
        raise JournalError(
            f"the journal {path} cannot be made safe: journal_mode is {mode}, synchronous is {full}",
            hint="put `state:` on a local disk (ext4, xfs, btrfs, zfs), not on a network share",
        )
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalBroken(f"the journal {path} is corrupt: {' '.join(found.split())}", hint=_REBUILD)


def open_reader(path: str) -> Journal:
    """Open for reading beside a running daemon, or when there is none. Raises StateError when there is no journal."""
    if not os.path.exists(path):
        raise StateError(
            f"there is no journal at {path}", hint="has `ncaasd run` or `ncaasd once` ever run with this config?"
        )
    uri = f"file:{_quoted(path)}?mode=ro"
    # Who doesn't own the folder can't make the -shm file that WAL reading needs; with no -wal there is nothing to miss.
    if not os.access(os.path.dirname(path) or ".", os.W_OK) and not os.path.exists(path + "-wal"):
        uri += "&immutable=1"
    with _translated():
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            version = _version(db)
            _refuse_newer(db, version, path)
            if version < schema.VERSION:
                what = f"is of an older ncaasd (schema {version})" if version else "is only being made"
                raise StateError(
                    f"the journal {path} {what}", hint="`ncaasd run` or `ncaasd once` brings it up to date"
                )
        except BaseException:
            db.close()
            raise
    return Journal(db, path)


_MADE_BY = "schema made by"  # in meta: the version of ncaasd that brought the journal to its schema
_REBUILD = "move it aside; ncaasd then rebuilds it from what is in S3, and holds what it can't match"


def _migrate(db: sqlite3.Connection, path: str, crash: CrashPoint) -> None:
    version = _version(db)
    _refuse_newer(db, version, path)
    for number in range(version + 1, schema.VERSION + 1):
        # One transaction each, the version within it: a crash leaves the old schema or the new one, never between.
        db.execute("BEGIN IMMEDIATE")
        for statement in _statements(schema.MIGRATIONS[number - 1]):
            db.execute(statement)
            crash("migration.statement")
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MADE_BY, ncaasd.__version__))
        db.execute(f"PRAGMA user_version={number}")
        crash("migration.before_commit")
        db.execute("COMMIT")
        crash("migration.committed")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(db: sqlite3.Connection, version: int, path: str) -> None:
    if version > schema.VERSION:
        made_by = db.execute("SELECT value FROM meta WHERE key=?", (_MADE_BY,)).fetchone()
        raise StateError(
            f"the journal {path} was written by a newer ncaasd (schema {version}; this one knows {schema.VERSION})",
            hint=f"install ncaasd {made_by[0] if made_by else 'in that version'} or later; this one would not understand"
            " what it did",
        )


def _statements(script: str) -> Iterator[str]:
    """SQLite's own splitter, so that a trigger's inner semicolons don't cut it."""
    pending = ""
    for line in script.splitlines():
        if not line.strip() or line.strip().startswith("--"):
            continue
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.path.abspath(path))


def _as_ours(error: sqlite3.DatabaseError) -> Exception:
    """An error of SQLite's as ours: what may pass (a full disk, a lock) and what must end the process."""
    name = getattr(error, "sqlite_errorname", "") or ""
    corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    text = f"the journal is corrupt: {error}" if corrupt else f"the journal can't be written: {error}"
    if name.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        hint = "free some space on the disk that holds `state:`" if name.startswith("SQLITE_FULL") else ""
        return JournalError(text, hint=hint)
    if name.startswith(("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM")):
        # Nothing was taken for written; and what is in the -shm file is made anew from the others (a full disk, too).
        return JournalError(text)
    if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
        # A failed fsync may have lost earlier writes; a later success proves nothing (F15).
        return JournalBroken(text, hint=_REBUILD if corrupt else "check that disk")
    return error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        ours = _as_ours(error)
        if ours is error:
            raise
        raise ours from error


def _shown(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # what os.fsdecode asks at each call


def _path_out(path: str) -> bytes:
    return path.encode(_ENCODING, _ERRORS)


def _path_in(path: bytes) -> str:
    return path.decode(_ENCODING, _ERRORS)


def _below(folder: str) -> tuple[bytes, bytes]:
    """From where to where the paths below `folder` (which ends in /) lie, when sorted."""
    return _path_out(folder), _path_out(folder[:-1] + chr(ord(folder[-1]) + 1))


def _file(r: Sequence[Any]) -> FileRow:
    return FileRow(
        id=r[0],
        place=Place(r[1], r[2], _path_in(r[3])),
        stat=Stat(r[4], r[5], r[6], r[7]),
        state=FileState(r[8]),
        reason=r[9],
        since=r[10],
        key=r[11],
        stored=None if r[12] is None else Stat(r[12], r[13], r[14], r[15]),
        etag=r[16],
        retry_at=r[17],
        failures=r[18],
        ours=bool(r[19]),
    )


class Journal:
    """Rows in, values out. Reads are of the latest commit and of the open transaction."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._depth = 0
        self.path = path
        # Told the id of each file that becomes another, or is in another state: not of appointments.
        self.on_file: Callable[[int], None] = lambda _file_id: None
        # Called within each transaction, last: for what is done once for many rows.
        self.before_commit: Callable[[], None] = lambda: None

    # -- transactions ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit on leaving the outermost block, roll back on any exception."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self.before_commit()
        except BaseException:
            self._depth = 0
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._depth = 0
        try:
            with _translated():
                self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()

    def backup(self, path: str) -> None:
        """A consistent copy of the journal as it is now."""
        with contextlib.closing(sqlite3.connect(path)) as target:
            self._db.backup(target)

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # Not `with _translated()`: this is called several times for each file, and that costs as much as the statement.
        try:
            return self._db.execute(sql, values)
        except UnicodeEncodeError:
            # A reason that names a file whose name is no text: it is for reading, so it is shown escaped.
            with _translated():
                return self._db.execute(sql, [_shown(v) for v in values])
        except sqlite3.DatabaseError as error:
            ours = _as_ours(error)
            if ours is error:
                raise
            raise ours from error

    def _many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with _translated():
            self._db.executemany(sql, rows)

    # -- meta and events ---------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> str | None:
        row = self._run("SELECT value FROM meta WHERE key=?", key).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._run("INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", key, value)

    def event(self, at: float, analysis: str, subject: str, kind: str, text: str) -> None:
        # Subjects may hold a file's name in any bytes; the log is for reading, so what isn't text is shown escaped.
        subject, text = (s.encode("utf-8", "backslashreplace").decode() for s in (subject, text))
        self._run(
            "INSERT INTO event (at, analysis, subject, kind, text) VALUES (?,?,?,?,?)",
            at,
            analysis,
            subject,
            kind,
            text,
        )

    def events(self, analysis: str = "", subject: str = "", limit: int = 200) -> list[Event]:
        """The newest `limit` events, oldest first; of one analysis and one subject where given."""
        rows = self._run(
            "SELECT at, analysis, subject, kind, text FROM event WHERE (?1='' OR analysis=?1) AND (?2='' OR subject=?2)"
            " ORDER BY id DESC LIMIT ?3",
            analysis,
            subject,
            limit,
        ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def stored_since(self, analysis: str, at: float) -> list[str]:
        """The subjects of the files that came to be in S3 since then, as the event log tells it."""
        rows = self._run(
            "SELECT subject FROM event WHERE +analysis=? AND kind='stored' AND at>=? ORDER BY id", analysis, at
        )
        return [r[0] for r in rows]

    # -- files -------------------------------------------------------------------------------------------------------

    def known(self, analysis: str, tree: str) -> dict[str, Stat]:
        """What the next scan is compared with: every file that is thought to be there."""
        where = "WHERE analysis=? AND tree=?"
        of_tree = self._run(f"SELECT count(*) FROM file {where}", analysis, tree).fetchone()[0]
        # An index leads to one row after another, each elsewhere: a good part of the table is read faster as it lies.
        how = "NOT INDEXED" if 4 * of_tree > self.last_file_id() else ""
        rows = self._run(
            f"SELECT path, size, mtime_ns, ctime_ns, inode FROM file {how} {where} AND state<>'gone'", analysis, tree
        )
        # `_path_in` and `Stat` written out: this is done for each file there is before the first scan begins.
        stat, encoding, errors = Stat._make, _ENCODING, _ERRORS
        return {p.decode(encoding, errors): stat((size, mtime, ctime, ino)) for p, size, mtime, ctime, ino in rows}

    def see_file(self, place: Place, stat: Stat, key: str, state: FileState, reason: str, now: float) -> int:
        """Record an observation of a new or changed file; returns its id. What is stored of it stays known."""
        row = self._run(
            "INSERT INTO file (analysis, tree, path, size, mtime_ns, ctime_ns, inode, state, reason, since, key)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (analysis, tree, path) DO UPDATE SET size=excluded.size,"
            " mtime_ns=excluded.mtime_ns, ctime_ns=excluded.ctime_ns, inode=excluded.inode, state=excluded.state,"
            " reason=excluded.reason, since=excluded.since, retry_at=0, failures=0,"
            " key=CASE WHEN file.key='' THEN excluded.key ELSE file.key END RETURNING id",
            place.analysis, place.tree, _path_out(place.path), stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode,
            state, reason, now, key,
        ).fetchone()  # fmt: skip
        self.on_file(int(row[0]))
        return int(row[0])

    def last_file_id(self) -> int:
        return int(self._run("SELECT coalesce(max(id), 0) FROM file").fetchone()[0])

    def file(self, file_id: int) -> FileRow | None:
        row = self._run(f"SELECT {_FILE} FROM file WHERE id=?", file_id).fetchone()
        return None if row is None else _file(row)

    def crc_of(self, file_id: int) -> str:
        """The CRC64NVME (hexadecimal) of what is stored of a file."""
        row = self._run("SELECT crc FROM file WHERE id=?", file_id).fetchone()
        return str(row[0]) if row else ""

    def file_at(self, place: Place) -> FileRow | None:
        row = self._run(
            f"SELECT {_FILE} FROM file WHERE analysis=? AND tree=? AND path=?",
            place.analysis,
            place.tree,
            _path_out(place.path),
        ).fetchone()
        return None if row is None else _file(row)

    def files_with_key(self, analysis: str, key: str) -> list[FileRow]:
        """Every local file that maps to `key`, those that are there first."""
        rows = self._run(
            f"SELECT {_FILE} FROM file WHERE analysis=? AND key=? AND key<>'' ORDER BY state='gone', state='refused', id",
            analysis,
            key,
        )
        return [_file(r) for r in rows]

    def files(
        self,
        analysis: str,
        *,
        tree: str | None = None,
        under: str = "",
        states: Collection[FileState] = (),
        limit: int = -1,
    ) -> Iterator[FileRow]:
        """The files of an analysis, in path order; of one tree, below a folder, in given states."""
        few = bool(states) and _OPEN_STATES.issuperset(states)
        sql = (
            f"SELECT {_FILE} FROM file"
            + (f" INDEXED BY file_open WHERE {_OPEN_FILE} AND" if few else " WHERE")
            + " analysis=?"
        )
        values: list[Any] = [analysis]
        if tree is not None:
            sql += " AND tree=?"
            values.append(tree)
        if under:
            sql += " AND path>=? AND path<?"
            values += _below(under)
        if states:
            sql += f" AND state IN ({','.join('?' * len(states))})"
            values += states
        for row in self._run(sql + " ORDER BY tree, path LIMIT ?", *values, limit).fetchall():
            yield _file(row)

    def pending_files(self, analysis: str, now: float, limit: int) -> list[FileRow]:
        """Whole files that are due for their upload, and held ones that are due for another look at what is in S3;
        configs and then the oldest recording first."""
        # What was never put off lies in its order in the index, so however much there is, `limit` rows are read of it.
        due = f"SELECT id FROM file WHERE {_OPEN_FILE} AND key<>'' AND analysis=?1"
        configs = "tree='' AND path>=?4 AND path<?5"
        rows = self._run(
            f"SELECT {_FILE} FROM file WHERE id IN ("
            f"SELECT id FROM ({due} AND state='whole' AND retry_at=0 ORDER BY mtime_ns LIMIT ?3)"
            f" UNION ALL {due} AND state='whole' AND retry_at>0 AND retry_at<=?2"
            f" UNION ALL {due} AND state='held' AND retry_at<=?2"
            f" UNION ALL {due} AND state IN ('whole', 'held') AND retry_at<=?2 AND {configs}"
            f") ORDER BY {configs} DESC, mtime_ns LIMIT ?3",
            analysis, now, limit, *_below("configs/"),
        )  # fmt: skip
        return [_file(r) for r in rows]

    def files_waiting(self, analysis: str) -> list[FileRow]:
        """Inputs that are not stored, and may be: those that settle, and whole ones that wait for others."""
        rows = self._run(
            f"SELECT {_FILE} FROM file INDEXED BY file_open WHERE {_OPEN_FILE} AND analysis=? AND key<>''"
            " AND (state='settling' OR (state='whole' AND retry_at<?)) ORDER BY tree, path",
            analysis,
            EVENTUALLY,
        )
        return [_file(r) for r in rows]

    def put_off_file(self, file_id: int, retry_at: float, reason: str) -> None:
        self._run("UPDATE file SET retry_at=?, reason=? WHERE id=?", retry_at, reason, file_id)

    def retry_files(self, analysis: str) -> None:
        """Every whole file is due again: at start, or when what they wait for may have changed."""
        self._run(
            f"UPDATE file SET retry_at=0 WHERE {_OPEN_FILE} AND analysis=? AND state IN ('whole', 'held') AND retry_at<>0",
            analysis,
        )

    def retry_unit(self, analysis: str, tree: str, under: str) -> None:
        """The whole files below a folder that wait for others, and for nothing else, are due now."""
        low, high = _path_out(under), _path_out(under[:-1] + chr(ord(under[-1]) + 1))
        self._run(
            f"UPDATE file SET retry_at=0 WHERE {_OPEN_FILE} AND analysis=? AND tree=? AND path>=? AND path<?"
            " AND state='whole' AND failures=0 AND retry_at>0 AND retry_at<?",
            analysis, tree, low, high, EVENTUALLY,
        )  # fmt: skip

    def next_upload(self, analysis: str) -> float | None:
        """When the next whole file of an analysis is due."""
        first = f"SELECT min(retry_at) AS at FROM file WHERE {_OPEN_FILE} AND analysis=?1 AND key<>'' AND state"
        row = self._run(f"SELECT min(at) FROM ({first}='whole' UNION ALL {first}='held')", analysis).fetchone()
        return None if row[0] is None else float(row[0])

    def set_file(
        self, file_id: int, state: FileState, reason: str, now: float, *, retry_at: float = 0, failures: int = 0
    ) -> None:
        self._run(_SET_FILE, state, reason, now, retry_at, failures, file_id)
        self.on_file(file_id)

    def file_whole(self, file_id: int, now: float) -> FileRow | None:
        """A file has become whole. Returns its row as it is now."""
        row = self._run(f"{_SET_FILE} RETURNING {_FILE}", FileState.WHOLE, "", now, 0.0, 0, file_id).fetchone()
        self.on_file(file_id)
        return None if row is None else _file(row)

    def file_stored(self, file_id: int, stat: Stat, stored: Stored, now: float) -> FileRow | None:
        """The content observed as `stat` is in S3, verified. Its upload's rows are done with. Returns its row as it is now,
        which is stored unless it has been seen to change meanwhile; None when it is not known any more."""
        self._run("DELETE FROM upload WHERE file_id=?", file_id)
        same = "size=?2 AND mtime_ns=?3 AND ctime_ns=?4 AND inode=?5"
        row = self._run(
            "UPDATE file SET stored_size=?2, stored_mtime_ns=?3, stored_ctime_ns=?4, stored_inode=?5, etag=?6, crc=?7,"
            f" key=?8, ours=1, failures=0, retry_at=0, state=CASE WHEN {same} THEN 'stored' ELSE state END,"
            f" reason=CASE WHEN {same} THEN '' ELSE reason END, since=CASE WHEN {same} THEN ?9 ELSE since END"
            f" WHERE id=?1 RETURNING {_FILE}",
            file_id, stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, stored.etag, f"{stored.crc:016x}", stored.key, now,
        ).fetchone()  # fmt: skip
        self.on_file(file_id)
        return None if row is None else _file(row)

    def own_file(self, file_id: int, now: float) -> None:
        """A person allows what is at the key to be overwritten: the file is uploaded again."""
        self._run("UPDATE file SET ours=1, state='whole', reason='', retry_at=0, since=? WHERE id=?", now, file_id)
        self.on_file(file_id)

    def unstore_file(self, file_id: int, now: float) -> None:
        """What was stored of a file is not in S3 any more: it is to be uploaded again, as if never put."""
        self._run(
            "UPDATE file SET state='whole', stored_size=NULL, etag='', crc='', retry_at=0, since=? WHERE id=?",
            now,
            file_id,
        )
        self.on_file(file_id)

    def count_files(self) -> list[tuple[str, str, int, int]]:
        """(analysis, state, files, bytes) of everything known below inputs and configs."""
        rows = self._run("SELECT analysis, state, count(*), sum(size) FROM file WHERE key<>'' GROUP BY analysis, state")
        return [(r[0], r[1], r[2], r[3]) for r in rows]

    def count_left(self) -> list[tuple[str, str, int, int]]:
        """(analysis, why, files, bytes) of the whole files that `count_files` has too, and that will not be uploaded."""
        rows = self._run(
            "SELECT analysis, CASE WHEN reason LIKE ?1 || '%' THEN ?1 ELSE reason END AS why, count(*), sum(size) FROM file"
            f" INDEXED BY file_open WHERE {_OPEN_FILE} AND state='whole' AND key<>''"
            " AND (reason LIKE ?1 || '%' OR (reason<>'' AND retry_at>=?2))"
            " GROUP BY analysis, why",
            ABORTED,
            EVENTUALLY,
        )
        return [(r[0], r[1], r[2], r[3]) for r in rows]

    # -- uploads under way -------------------------------------------------------------------------------------------

    def begin_upload(
        self, file_id: int, key: str, stat: Stat, part_size: int, now: float
    ) -> tuple[str | None, list[Part]]:
        """The upload to go on with when it is of this very content, else a new one. Returns (upload id, parts)."""
        this = (key, part_size, stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode)
        row = self._run(
            "SELECT upload_id, key, part_size, size, mtime_ns, ctime_ns, inode FROM upload WHERE file_id=?", file_id
        ).fetchone()
        if row is not None and row[1:] == this:
            parts = self._run("SELECT number, size, etag, crc FROM part WHERE file_id=? ORDER BY number", file_id)
            return row[0], [Part(p[0], p[1], p[2], int(p[3], 16)) for p in parts]
        if row is not None:
            self._run("DELETE FROM upload WHERE file_id=?", file_id)
        self._run(
            "INSERT INTO upload (file_id, key, part_size, size, mtime_ns, ctime_ns, inode, started) VALUES (?,?,?,?,?,?,?,?)",
            file_id, *this, now,
        )  # fmt: skip
        return None, []

    def upload_created(self, file_id: int, upload_id: str) -> None:
        self._run("DELETE FROM part WHERE file_id=?", file_id)
        self._run("UPDATE upload SET upload_id=? WHERE file_id=?", upload_id, file_id)

    def part_stored(self, file_id: int, part: Part) -> None:
        self._run(
            "INSERT OR REPLACE INTO part SELECT ?,?,?,?,? WHERE EXISTS (SELECT 1 FROM upload WHERE file_id=?)",
            file_id, part.number, part.size, part.etag, f"{part.crc:016x}", file_id,
        )  # fmt: skip

    def forget_upload(self, file_id: int) -> None:
        self._run("DELETE FROM part WHERE file_id=?", file_id)
        self._run("UPDATE upload SET upload_id=NULL WHERE file_id=?", file_id)

    def upload_progress(self) -> dict[int, int]:
        """file id -> bytes in S3 already, of the uploads under way."""
        return dict(self._run("SELECT file_id, sum(size) FROM part GROUP BY file_id").fetchall())

    # -- what was in S3 when the journal was new ---------------------------------------------------------------------

    def add_inventory(self, analysis: str, objects: Iterable[tuple[str, int, str]]) -> None:
        self._many("INSERT OR REPLACE INTO inventory VALUES (?,?,?,?)", ((analysis, *o) for o in objects))

    def inventory(self, analysis: str, key: str) -> tuple[int, str] | None:
        row = self._run("SELECT size, etag FROM inventory WHERE analysis=? AND key=?", analysis, key).fetchone()
        return None if row is None else (row[0], row[1])

    # -- manifests ---------------------------------------------------------------------------------------------------

    def set_manifest(self, analysis: str, path: str, good: bytes | None, problems: str, now: float) -> None:
        """A right text replaces the old one; a wrong one is noted and leaves the old in force."""
        self._run(
            "INSERT INTO manifest VALUES (?,?,?,?,?) ON CONFLICT (analysis, path) DO UPDATE SET"
            " good=coalesce(excluded.good, good), problems=excluded.problems, read_at=excluded.read_at",
            analysis,
            _path_out(path),
            good,
            problems,
            now,
        )

    def drop_manifest(self, analysis: str, path: str) -> None:
        self._run("DELETE FROM manifest WHERE analysis=? AND path=?", analysis, _path_out(path))

    def manifests(self, analysis: str) -> list[tuple[str, bytes | None, str, float]]:
        """(path, the last right text, problems of the newest, when read)"""
        rows = self._run("SELECT path, good, problems, read_at FROM manifest WHERE analysis=? ORDER BY path", analysis)
        return [(_path_in(r[0]), r[1], r[2], r[3]) for r in rows]

    # -- packages ----------------------------------------------------------------------------------------------------

    def package(self, analysis: str, rule: str, unit: str) -> tuple[int, str, float, int, str] | None:
        """(file id, fingerprint of what it was made of, when to try again, failures in a row, its tool's output)"""
        row = self._run(
            "SELECT file_id, inputs, retry_at, failures, output FROM package WHERE analysis=? AND rule=? AND unit=?",
            analysis, rule, _path_out(unit),
        ).fetchone()  # fmt: skip
        return None if row is None else (row[0], row[1], row[2], row[3], row[4])

    def set_package(
        self,
        file_id: int,
        analysis: str,
        rule: str,
        unit: str,
        inputs: str,
        *,
        built: float = 0,
        retry_at: float = 0,
        failures: int = 0,
        output: str = "",
    ) -> None:
        self._run(
            "INSERT OR REPLACE INTO package (file_id, analysis, rule, unit, inputs, built, retry_at, failures, output)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            file_id, analysis, rule, _path_out(unit), inputs, built, retry_at, failures, output,
        )  # fmt: skip

    def packages(self, analysis: str) -> list[tuple[str, str, int]]:
        """(rule, unit, file id) of every package that was wanted."""
        rows = self._run("SELECT rule, unit, file_id FROM package WHERE analysis=? ORDER BY file_id", analysis)
        return [(r[0], _path_in(r[1]), r[2]) for r in rows]

    # -- after the results -------------------------------------------------------------------------------------------

    def want_aftercare(self, job: int, step: str) -> None:
        """What is to be done after a job's results are here; what was done already stays done."""
        self._run("INSERT OR IGNORE INTO aftercare (job, step, state) VALUES (?,?,'wanted')", job, step)

    def due_aftercare(self, now: float, limit: int) -> list[int]:
        """The jobs of which something is due."""
        rows = self._run(
            "SELECT DISTINCT job FROM aftercare WHERE state='wanted' AND retry_at<=? ORDER BY job LIMIT ?", now, limit
        )
        return [r[0] for r in rows]

    def set_aftercare(
        self, job: int, step: str, state: str, reason: str, *, retry_at: float = 0, failures: int = 0
    ) -> None:
        self._run(
            "UPDATE aftercare SET state=?, reason=?, retry_at=?, failures=? WHERE job=? AND step=?",
            state, reason, retry_at, failures, job, step,
        )  # fmt: skip

    def aftercare(self, job: int) -> dict[str, tuple[str, str, int]]:
        """step -> (wanted | done | left, why, failures in a row)"""
        rows = self._run("SELECT step, state, reason, failures FROM aftercare WHERE job=?", job)
        return {r[0]: (r[1], r[2], r[3]) for r in rows}

    # -- jobs --------------------------------------------------------------------------------------------------------

    def add_job(self, spec: JobSpec, attempt: int, now: float, *, rebuilt: bool = False, size: int = 0) -> int:
        """A new attempt of a job; returns its row. The caller has made sure there is none."""
        row = self._run(
            "INSERT INTO job (analysis, name, unit, version, attempt, origin, declared_in, config, overlay, instance_type,"
            " resultpath, phase, state, created, next_at, rebuilt, total, size, fields)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,'open','waiting',?,0,?,?,?,?) RETURNING id",
            spec.analysis, spec.name, _path_out(spec.unit), spec.version, attempt, spec.origin, _path_out(spec.declared_in),
            spec.config, spec.overlay, spec.instance_type, spec.resultpath, now, int(rebuilt), len(spec.datasets), size,
            spec.fields,
        ).fetchone()  # fmt: skip
        self._set_datasets(row[0], spec.datasets)
        return int(row[0])

    def _set_datasets(self, job: int, datasets: Iterable[Dataset]) -> None:
        self._run("DELETE FROM job_dataset WHERE job=?", job)
        self._many(
            "INSERT INTO job_dataset VALUES (?,?,?,?,?)",
            ((job, i, _path_out(d.name), d.key, d.etag) for i, d in enumerate(datasets)),
        )

    def update_job(self, row: int, **fields: Any) -> None:
        """Set columns by name; `cost` takes a CostNote."""
        cost = fields.pop("cost", None)
        if cost is not None:
            self._run(
                "UPDATE job SET cost_projected=?, cost_remaining=?, cost_over=? WHERE id=?",
                cost.projected, cost.remaining, cost.over_by, row,
            )  # fmt: skip
        if not fields:
            return
        unknown = fields.keys() - _JOB_FIELDS
        if unknown:
            raise ValueError(f"no such column of job: {sorted(unknown)}")
        if "released" in fields:
            fields["released"] = ",".join(sorted(fields["released"]))
        names = ", ".join(f"{name}=?" for name in fields)
        values = [int(v) if isinstance(v, bool) else v for v in fields.values()]
        self._run(f"UPDATE job SET {names} WHERE id=?", *values, row)

    def respec_job(self, row: int, spec: JobSpec) -> None:
        """An open job follows its declaration: config, overlay, datasets. Its identity stays."""
        self.update_job(
            row,
            config=spec.config,
            overlay=spec.overlay,
            instance_type=spec.instance_type,
            resultpath=spec.resultpath,
            declared_in=_path_out(spec.declared_in),
            total=len(spec.datasets),
            fields=spec.fields,
        )
        self._set_datasets(row, spec.datasets)

    def datasets_submitted(self, row: int, datasets: Iterable[Dataset]) -> None:
        """Note what was at each dataset's key when the job was intended."""
        self._set_datasets(row, datasets)

    def drop_job(self, row: int) -> None:
        """Only of a job in phase open: nothing of it exists outside this journal."""
        self._run("DELETE FROM job WHERE id=? AND phase='open'", row)

    def job(self, row: int) -> JobRow | None:
        found = self._jobs("WHERE id=?", row)
        return found[0] if found else None

    def job_by_id(self, analysis: str, job_id: str) -> JobRow | None:
        found = self._jobs("WHERE analysis=? AND job_id=? AND job_id<>''", analysis, job_id)
        return found[0] if found else None

    def job_ids(self, analysis: str) -> set[str]:
        """The ids of every job of an analysis that was ever known."""
        return {r[0] for r in self._run("SELECT job_id FROM job WHERE analysis=? AND job_id<>''", analysis)}

    def take_over(self, row: int, found: int) -> None:
        """Job `found`, which was thought to be started elsewhere, is job `row`: what was fetched of it is kept."""
        self._run("UPDATE artefact SET job=? WHERE job=?", row, found)
        self._run("DELETE FROM job WHERE id=? AND origin='elsewhere'", found)

    def attempts(self, analysis: str, name: str, unit: str, version: str) -> list[JobRow]:
        """Every attempt of one job, the newest last."""
        return self._jobs(
            "WHERE analysis=? AND name=? AND unit=? AND version=? ORDER BY attempt",
            analysis,
            name,
            _path_out(unit),
            version,
        )

    def due_jobs(self, now: float, limit: int) -> list[JobRow]:
        return self._jobs(
            "WHERE phase<>'ended' AND next_at<=? ORDER BY phase='open', next_at, created LIMIT ?", now, limit
        )

    def next_due(self, under_way: Sequence[int] = ()) -> float | None:
        """When the next unfinished job, beside those `under_way`, is to be looked at."""
        marks = ",".join(str(int(row)) for row in under_way)
        row = self._run(f"SELECT min(next_at) FROM job WHERE phase<>'ended' AND id NOT IN ({marks})").fetchone()
        return None if row[0] is None else float(row[0])

    def jobs(
        self,
        analysis: str = "",
        *,
        unfinished: bool = False,
        newest: bool = False,
        since: float = 0.0,
        states: Collection[str] = (),
        limit: int = -1,
    ) -> list[JobRow]:
        """All jobs, the newest first. `newest`: of each job only its last attempt. `since`: what is not over, and what was
        declared or has ended since then."""
        where = "WHERE (?1='' OR analysis=?1)" + (" AND phase<>'ended'" if unfinished else "")
        where += f" AND {_NEWEST_JOB}" if newest else ""
        where += " AND (?3=0 OR phase<>'ended' OR ended>=?3 OR created>=?3)"
        where += f" AND state IN ({','.join(f'?{4 + i}' for i in range(len(states)))})" if states else ""
        return self._jobs(where + " ORDER BY created DESC, id DESC LIMIT ?2", analysis, limit, since, *states)

    def jobs_called(self, name: str, analysis: str = "") -> list[JobRow]:
        """The jobs with this id or number (`12`, `#12`), every attempt; and the last attempts of those of this name or unit."""
        number = name.removeprefix("#")
        return self._jobs(
            f"WHERE (?1='' OR analysis=?1) AND (job_id=?2 OR id=?3 OR ((name=?2 OR unit=?4) AND {_NEWEST_JOB}))"
            " ORDER BY created DESC, id DESC",
            analysis, name, int(number) if number.isdecimal() and str(int(number)) == number else None, _path_out(name),
        )  # fmt: skip

    def count_jobs(
        self, analysis: str = "", *, newest: bool = True, forgotten: bool = True
    ) -> list[tuple[str, str, int]]:
        """(analysis, state, jobs), counting last attempts, or all; with or without those that were forgotten."""
        rows = self._run(
            f"SELECT analysis, state, count(*) FROM job WHERE (?1='' OR analysis=?1) AND (?2 OR NOT forgotten)"
            f" AND (?3 OR {_NEWEST_JOB}) GROUP BY analysis, state",
            analysis, forgotten, not newest,
        )  # fmt: skip
        return [(r[0], r[1], r[2]) for r in rows]

    def held_jobs(self, analysis: str) -> list[tuple[JobRow, int, int, int]]:
        """What waits for a person, by name and kind of hold: (the newest job, jobs, datasets, bytes), the newest first."""
        found = self._run(
            "SELECT max(id), count(*), sum(total), sum(size) FROM job WHERE phase<>'ended' AND +analysis=? AND NOT forgotten"
            f" AND hold<>'' AND instr(',' || released || ',', ',' || hold || ',')=0 AND {_NEWEST_JOB}"
            " GROUP BY name, hold ORDER BY max(id) DESC",
            analysis,
        ).fetchall()
        rows = {
            job.row: job
            for start in range(0, len(found), 500)
            for job in self._jobs_at([r[0] for r in found[start : start + 500]])
        }
        return [(rows[r[0]], r[1], r[2], r[3]) for r in found]

    def jobs_with_news(self, analysis: str, limit: int) -> list[JobRow]:
        """Of the newest `limit` submitted jobs, those whose data may not be what they were given any more."""
        newest = (
            "SELECT id FROM job WHERE +analysis=?1 AND submitted>0 AND hold='' AND NOT forgotten"
            f" AND {_NEWEST_JOB} ORDER BY id DESC LIMIT ?2"
        )
        # CROSS JOIN: SQLite keeps this order, and so looks each dataset's key up.
        changed = (
            "SELECT 1 FROM job_dataset AS d CROSS JOIN file AS f INDEXED BY file_key ON f.analysis=?1 AND f.key=d.key"
            " AND f.key<>'' WHERE d.job=job.id AND d.etag<>'' AND f.stored_size IS NOT NULL"
            " AND f.state NOT IN ('gone', 'refused') AND (f.etag<>d.etag OR f.state IN ('settling', 'whole'))"
        )
        return self._jobs(f"WHERE id IN ({newest}) AND EXISTS ({changed}) ORDER BY id DESC", analysis, limit)

    def jobs_of_rule(self, analysis: str, name: str) -> list[JobRow]:
        return self._jobs("WHERE analysis=? AND name=? AND forgotten=0", analysis, name)

    def unit_sent(self, analysis: str, name: str, unit: str) -> bool:
        """Whether a job of a rule that is about a unit, or about a dataset in it, was submitted, or may have been."""
        low = _path_out(unit) + b"/"
        found = self._run(
            "SELECT 1 FROM job WHERE analysis=? AND name=? AND (unit=? OR (unit>=? AND unit<?)) AND phase<>'open' LIMIT 1",
            analysis, name, _path_out(unit), low, low[:-1] + b"0",
        )  # fmt: skip
        return found.fetchone() is not None

    def jobs_declared_in(self, analysis: str, declared_in: str) -> list[JobRow]:
        return self._jobs("WHERE analysis=? AND declared_in=? ORDER BY id", analysis, _path_out(declared_in))

    def jobs_using(self, analysis: str, key: str) -> list[JobRow]:
        # The + keeps SQLite from going through every job of the analysis.
        return self._jobs("WHERE +analysis=? AND id IN (SELECT job FROM job_dataset WHERE key=?)", analysis, key)

    def wake_jobs_using(self, analysis: str, key: str) -> None:
        self._run(
            "UPDATE job SET next_at=0 WHERE phase='open' AND +analysis=? AND id IN (SELECT job FROM job_dataset WHERE key=?)",
            analysis,
            key,
        )

    def wake_open_jobs(self, analysis: str, name: str = "") -> None:
        """What is not submitted yet is due again, a submit that was cut short included."""
        self._run(
            "UPDATE job SET next_at=0 WHERE phase<>'ended' AND phase IN ('open', 'intent', 'attempted') AND +analysis=?1"
            " AND (?2='' OR name=?2)",
            analysis,
            name,
        )

    def wake_unended_jobs(self, analysis: str) -> None:
        """At start nothing is under way, so everything is due: also the submit that a crash has left in the middle."""
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND +analysis=?", analysis)

    def wake_ready_jobs(self, analysis: str, limit: int) -> None:
        """A machine is free: the oldest jobs that queue are due again."""
        self._run(
            "UPDATE job SET next_at=0 WHERE id IN (SELECT id FROM job WHERE phase<>'ended' AND phase='open' AND +analysis=?"
            " AND hold='' AND state IN ('ready', 'held') ORDER BY created, id LIMIT ?)",
            analysis,
            limit,
        )

    def _jobs(self, where: str, *values: Any) -> list[JobRow]:
        rows = self._run(f"SELECT {_JOB} FROM job {where}", *values).fetchall()
        ids = [r[0] for r in rows]
        datasets: dict[int, list[Dataset]] = {i: [] for i in ids}
        for start in range(0, len(ids), 500):
            chunk = ids[start : start + 500]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT job, name, key, etag FROM job_dataset WHERE job IN ({marks}) ORDER BY job, position"
            for job, name, key, etag in self._run(sql, *chunk):
                datasets[job].append(Dataset(_path_in(name), key, etag))
        return [_job(r, tuple(datasets[r[0]])) for r in rows]

    def _jobs_at(self, rows: Sequence[int]) -> list[JobRow]:
        return self._jobs(f"WHERE id IN ({','.join('?' * len(rows))})", *rows)

    def usage(self, analysis: str, now: float) -> tuple[int, int]:
        """(datasets of jobs that run now, datasets of jobs submitted in the 24 h before `now`), for the spend guards.

        A submit that may have been sent counts as sent; one that is held before it was counts as none. What lies more than a
        day ahead was written by a wrong clock.
        """
        unsent = "phase='intent' AND hold<>''"
        active = self._run(
            "SELECT coalesce(sum(total), 0) FROM job WHERE analysis=? AND origin<>'elsewhere' AND verdict IS NULL"
            f" AND phase IN ('intent', 'attempted', 'submitted') AND NOT ({unsent})",
            analysis,
        ).fetchone()[0]
        recent = self._run(
            "SELECT coalesce(sum(total), 0) FROM job WHERE analysis=? AND origin<>'elsewhere' AND phase<>'open'"
            f" AND max(submitted, attempted, intended) BETWEEN ? AND ? AND NOT ({unsent})",
            analysis,
            now - DAY,
            now + DAY,
        ).fetchone()[0]
        return int(active), int(recent)

    def forget_appointments(self, now: float) -> None:
        """Everything that was put off to a point in time is due now; what waits for an event goes on waiting for it.

        Points in time are wall time, so this is for a clock that has jumped, or may have while we were down.
        """
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND next_at<?", EVENTUALLY)
        # A retry's delay is kept, as far as it can have been meant.
        self._run(
            "UPDATE job SET not_before=min(not_before, ?) WHERE phase<>'ended' AND phase='open'", now + LONGEST_DELAY
        )
        self._run(f"UPDATE file SET retry_at=0 WHERE {_OPEN_FILE} AND state IN ('whole', 'held')")
        self._run("UPDATE artefact SET retry_at=0 WHERE state='wanted'")

    # -- what jobs left in S3 ----------------------------------------------------------------------------------------

    def want_artefact(self, job: int, name: str, bucket: str, key: str, size: int, etag: str) -> bool:
        """Note an object of a job's folder; True when it is new or changed, and so is to be fetched."""
        row = self._run("SELECT size, etag FROM artefact WHERE job=? AND name=?", job, name).fetchone()
        if row is not None and row[0] == size and row[1] == etag:
            return False
        self._run(
            "INSERT INTO artefact (job, name, bucket, key, size, etag, state) VALUES (?,?,?,?,?,?,'wanted')"
            " ON CONFLICT (job, name) DO UPDATE SET bucket=excluded.bucket, key=excluded.key, size=excluded.size,"
            " etag=excluded.etag, state='wanted', reason='', retry_at=0, failures=0",
            job, name, bucket, key, size, etag,
        )  # fmt: skip
        self._run(
            "DELETE FROM fetched_range WHERE artefact=(SELECT id FROM artefact WHERE job=? AND name=?)", job, name
        )
        return True

    def artefacts(self, job: int, *, wanted: bool = False) -> list[Artefact]:
        return self._artefacts("job=?" + (" AND state='wanted'" if wanted else ""), job)

    def due_artefacts(self, job: int, now: float, limit: int, under_way: Sequence[int] = ()) -> list[Artefact]:
        """What is wanted of a job and is due, beside those `under_way`."""
        marks = ",".join(str(int(i)) for i in under_way)
        return self._artefacts(
            f"job=? AND state='wanted' AND retry_at<=? AND id NOT IN ({marks})", job, now, limit=limit
        )

    def artefact(self, artefact: int) -> Artefact | None:
        return next(iter(self._artefacts("id=?", artefact)), None)

    def artefact_named(self, job: int, name: str) -> Artefact | None:
        return next(iter(self._artefacts("job=? AND name=?", job, name)), None)

    def _artefacts(self, where: str, *values: Any, limit: int = -1) -> list[Artefact]:
        which = f"FROM artefact WHERE {where} ORDER BY id LIMIT {int(limit)}"
        ranges: dict[int, list[tuple[int, int]]] = {}
        sql = f"SELECT artefact, start, stop FROM fetched_range WHERE artefact IN (SELECT id {which}) ORDER BY start"
        for artefact, start, stop in self._run(sql, *values):
            ranges.setdefault(artefact, []).append((start, stop))
        return [
            Artefact(
                id=r[0],
                job=r[1],
                name=r[2],
                bucket=r[3],
                key=r[4],
                size=r[5],
                etag=r[6],
                state=ArtefactState(r[7]),
                path=r[8],
                reason=r[9],
                ranges=tuple(ranges.get(r[0], ())),
                retry_at=r[10],
                failures=r[11],
            )
            for r in self._run(f"SELECT {_ARTEFACT} {which}", *values)
        ]

    def wants_any(self, job: int) -> bool:
        """Whether something of a job is still to be fetched."""
        return self._run("SELECT 1 FROM artefact WHERE job=? AND state='wanted' LIMIT 1", job).fetchone() is not None

    def bytes_wanted(self, job: int) -> int:
        """How many bytes of a job are still to be fetched."""
        row = self._run(
            "SELECT coalesce(sum(size), 0) - coalesce((SELECT sum(stop - start) FROM fetched_range WHERE artefact IN"
            " (SELECT id FROM artefact WHERE job=?1 AND state='wanted')), 0) FROM artefact WHERE job=?1 AND state='wanted'",
            job,
        ).fetchone()
        return int(row[0])

    def artefact_done(self, artefact: int, path: str) -> None:
        self._run("UPDATE artefact SET state='fetched', path=?, reason='', failures=0 WHERE id=?", path, artefact)
        self._run("DELETE FROM fetched_range WHERE artefact=?", artefact)

    def artefact_failed(
        self, artefact: int, reason: str, *, retry_at: float, failures: int, final: bool = False
    ) -> None:
        self._run(
            "UPDATE artefact SET state=?, reason=?, retry_at=?, failures=? WHERE id=?",
            ArtefactState.REFUSED if final else ArtefactState.WANTED, reason, retry_at, failures, artefact,
        )  # fmt: skip

    def drop_ranges(self, artefact: int) -> None:
        self._run("DELETE FROM fetched_range WHERE artefact=?", artefact)

    def drop_artefact(self, artefact: int) -> None:
        self._run("DELETE FROM artefact WHERE id=?", artefact)

    def refetch(self, job: int) -> None:
        """Everything of a job is wanted again (`ncaasd fetch`)."""
        self._run("UPDATE artefact SET state='wanted', retry_at=0, failures=0 WHERE job=?", job)

    def range_fetched(self, artefact: int, start: int, end: int) -> None:
        self._run(
            "INSERT OR REPLACE INTO fetched_range SELECT ?,?,? WHERE EXISTS (SELECT 1 FROM artefact WHERE id=?)",
            artefact, start, end, artefact,
        )  # fmt: skip

    def jobs_to_fetch(self) -> list[int]:
        """Rows of the jobs of which something is still wanted."""
        return [r[0] for r in self._run("SELECT DISTINCT job FROM artefact WHERE state='wanted'")]

    def fetch_progress(self, job: int) -> tuple[int, int, int, int]:
        """(objects here, objects in all, bytes here, bytes in all)"""
        row = self._run(
            "SELECT coalesce(sum(state<>'wanted'), 0), count(*), coalesce(sum(CASE WHEN state<>'wanted' THEN size"
            " ELSE 0 END), 0), coalesce(sum(size), 0) FROM artefact WHERE job=?",
            job,
        ).fetchone()
        return row[0], row[1], row[2], row[3]


def _job(r: Sequence[Any], datasets: tuple[Dataset, ...]) -> JobRow:
    spec = JobSpec(
        analysis=r[1],
        name=r[2],
        unit=_path_in(r[3]),
        version=r[4],
        origin=Origin(r[6]),
        declared_in=_path_in(r[7]),
        datasets=datasets,
        config=r[8],
        overlay=r[9],
        instance_type=r[10],
        resultpath=r[11],
        fields=r[42],
    )
    return JobRow(
        row=r[0],
        spec=spec,
        attempt=r[5],
        job_id=r[12],
        phase=Phase(r[13]),
        state=JobState(r[14]),
        reason=r[15],
        hold=r[16],
        released=frozenset(k for k in r[17].split(",") if k),
        created=r[18],
        intended=r[19],
        attempted=r[20],
        submitted=r[21],
        ended=r[22],
        next_at=r[23],
        failures=r[24],
        submit_key=r[25],
        config_key=r[26],
        body=r[27],
        verdict=None if r[28] is None else JobState(r[28]),
        refused_kind=r[29],
        finished=r[30],
        total=r[31],
        cost=None if r[32] is None else CostNote(r[32], r[33], r[34]),
        seen=r[35],
        size=r[36],
        rebuilt=bool(r[37]),
        forgotten=bool(r[38]),
        results=r[39],
        quiet_looks=r[40],
        not_before=r[41],
    )
