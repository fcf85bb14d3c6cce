"""Files: what is on the disk, what is stored of it, the uploads under way, and what was in S3 when the journal was new."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ncaasd.adapters.journal.base import ENCODING, ERRORS, Base, below, column, only, path_in, path_out
from ncaasd.adapters.journal.rows import FILE, BegunUpload, FileCount, InventoryObject, LeftCount, file_row
from ncaasd.model import (
    ABORTED,
    EVENTUALLY,
    Dataset,
    FileRow,
    FileState,
    ObjectInfo,
    Part,
    Place,
    Skipped,
    SkippedThing,
    Stat,
    Stored,
)

_SET_FILE = (
    "UPDATE file SET since=CASE WHEN state=?1 THEN since ELSE ?3 END, state=?1, reason=?2, retry_at=?4, failures=?5"
    " WHERE id=?6"
)
# Word for word the condition of the index file_open: SQLite uses it only where it reads that.
OPEN_FILE = "state IN ('settling', 'whole', 'held', 'refused')"
_OPEN_STATES = frozenset({FileState.SETTLING, FileState.WHOLE, FileState.HELD, FileState.REFUSED})


class Files(Base):
    def known(self, analysis: str, tree: str) -> dict[str, Stat]:
        """What the next scan is compared with: the stat of every file that is neither gone nor skipped, by path."""
        where = "WHERE analysis=? AND tree=?"
        of_tree = only(self._run(f"SELECT count(*) FROM file {where}", analysis, tree))
        # An index leads to scattered rows: when a good part of the table is wanted, reading it in its order is faster.
        how = "NOT INDEXED" if 4 * of_tree > self.last_file_id() else ""
        rows = self._run(
            f"SELECT path, size, mtime_ns, ctime_ns, inode FROM file {how} {where} AND state NOT IN ('gone', 'skipped')",
            analysis,
            tree,
        )
        # By position, with `path_in` and `Stat` inlined: this is done for every known file before the first scan begins.
        stat, encoding, errors = Stat._make, ENCODING, ERRORS
        return {p.decode(encoding, errors): stat((size, mtime, ctime, ino)) for p, size, mtime, ctime, ino in rows}

    def see_file(
        self, place: Place, stat: Stat, key: str, state: FileState, reason: str, now: float, *, link: str = ""
    ) -> int:
        """Record an observation of a new or changed file; returns its id. What is stored of it stays known.

        link: see `FileRow.link`.
        """
        row = self._run(
            "INSERT INTO file (analysis, tree, path, size, mtime_ns, ctime_ns, inode, state, reason, since, key, link)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (analysis, tree, path) DO UPDATE SET size=excluded.size,"
            " mtime_ns=excluded.mtime_ns, ctime_ns=excluded.ctime_ns, inode=excluded.inode, state=excluded.state,"
            " reason=excluded.reason, since=excluded.since, retry_at=0, failures=0, link=excluded.link,"
            " key=CASE WHEN file.key='' THEN excluded.key ELSE file.key END RETURNING id",
            place.analysis, place.tree, path_out(place.path), stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode,
            state, reason, now, key, path_out(link),
        ).fetchone()  # fmt: skip
        (file_id,) = row
        self._note_changed((file_id,))
        return int(file_id)

    def skip_file(self, place: Place, key: str, reason: str, now: float) -> FileRow:
        """Record that what is at a place is not a file for us. Returns the row.

        `key`: that of a file at this place. If a file was there before, its key and what is stored stay known, but they are
        not used until it is a file again.
        """
        row = self._run(
            "INSERT INTO file (analysis, tree, path, size, mtime_ns, ctime_ns, inode, state, reason, since, key)"
            " VALUES (?1,?2,?3,0,0,0,0,'skipped',?4,?5,?6) ON CONFLICT (analysis, tree, path) DO UPDATE SET size=0, mtime_ns=0,"
            " ctime_ns=0, inode=0, reason=excluded.reason, retry_at=0, failures=0, link=x'',"
            " since=CASE WHEN file.state='skipped' THEN file.since ELSE excluded.since END, state='skipped',"
            " key=CASE WHEN file.key='' THEN excluded.key ELSE file.key END"
            f" RETURNING {FILE}",
            place.analysis, place.tree, path_out(place.path), reason, now, key,
        ).fetchone()  # fmt: skip
        found = file_row(row)
        self._note_changed((found.id,))
        return found

    def skipped(self, analysis: str, tree: str) -> dict[str, str]:
        """path -> why, of all that is skipped in a tree."""
        rows = self._named(
            "SELECT path, reason FROM file INDEXED BY file_skipped WHERE state='skipped' AND analysis=? AND tree=?",
            analysis,
            tree,
        )
        return {path_in(r["path"]): r["reason"] for r in rows}

    def first_skipped(self, analysis: str, limit: int) -> Skipped:
        """How many things are skipped in the trees of an analysis, and the first `limit` of them."""
        where = "FROM file INDEXED BY file_skipped WHERE state='skipped' AND analysis=?"
        count = int(only(self._run(f"SELECT count(*) {where}", analysis)))
        rows = self._named(f"SELECT tree, path, reason {where} ORDER BY tree, path LIMIT ?", analysis, limit)
        first = (SkippedThing(Place(analysis, r["tree"], path_in(r["path"])), r["reason"]) for r in rows)
        return Skipped(count, tuple(first))

    def link_to(self, place: Place) -> FileRow | None:
        """A link of the same tree that leads to this file, and is followed; None when there is none."""
        row = self._run(
            f"SELECT {FILE} FROM file INDEXED BY file_link WHERE link<>x'' AND analysis=? AND link=? AND tree=?"
            " AND state NOT IN ('gone', 'skipped') LIMIT 1",
            place.analysis,
            path_out(place.path),
            place.tree,
        ).fetchone()
        return None if row is None else file_row(row)

    def last_file_id(self) -> int:
        return int(only(self._run("SELECT coalesce(max(id), 0) FROM file")))

    def file(self, file_id: int) -> FileRow | None:
        row = self._run(f"SELECT {FILE} FROM file WHERE id=?", file_id).fetchone()
        return None if row is None else file_row(row)

    def crc_of(self, file_id: int) -> str:
        """The CRC64NVME (hexadecimal) of what is stored of a file."""
        return only(self._run("SELECT crc FROM file WHERE id=?", file_id)) or ""

    def file_at(self, place: Place) -> FileRow | None:
        row = self._run(
            f"SELECT {FILE} FROM file WHERE analysis=? AND tree=? AND path=?",
            place.analysis,
            place.tree,
            path_out(place.path),
        ).fetchone()
        return None if row is None else file_row(row)

    def files_with_key(self, analysis: str, key: str) -> list[FileRow]:
        """Every local file that maps to `key`, those that are there first; not what is skipped now."""
        rows = self._run(
            f"SELECT {FILE} FROM file WHERE analysis=? AND key=? AND key<>'' AND state<>'skipped'"
            " ORDER BY state='gone', state='refused', id",
            analysis,
            key,
        )
        return [file_row(r) for r in rows]

    def file_of(self, dataset: Dataset) -> FileRow | None:
        """The local file that a job's dataset is; None when it was never seen."""
        return None if dataset.place is None else self.file_at(dataset.place)

    def gone_like(self, analysis: str, stat: Stat, crc: str, within: int) -> list[FileRow]:
        """Files that are gone and had this size, a modification time within `within` ns of this one and, unless `crc` is "",
        this checksum. At most a thousand, those of the nearest times first."""
        rows = self._run(
            f"SELECT {FILE} FROM file INDEXED BY file_gone WHERE state='gone' AND analysis=?1 AND size=?2"
            " AND mtime_ns>?3-?4 AND mtime_ns<?3+?4 AND (?5='' OR crc=?5) ORDER BY abs(mtime_ns-?3) LIMIT 1000",
            analysis, stat.size, stat.mtime_ns, within, crc,
        )  # fmt: skip
        return [file_row(r) for r in rows]

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
            f"SELECT {FILE} FROM file"
            + (f" INDEXED BY file_open WHERE {OPEN_FILE} AND" if few else " WHERE")
            + " analysis=?"
        )
        values: list[Any] = [analysis]
        if tree is not None:
            sql += " AND tree=?"
            values.append(tree)
        if under:
            sql += " AND path>=? AND path<?"
            values += below(under)
        if states:
            sql += f" AND state IN ({','.join('?' * len(states))})"
            values += states
        for row in self._run(sql + " ORDER BY tree, path LIMIT ?", *values, limit).fetchall():
            yield file_row(row)

    def pending_files(self, analysis: str, now: float, limit: int) -> list[FileRow]:
        """Whole files that are due for their upload, and held ones that are due for another look at what is in S3;
        configs and then the oldest recording first."""
        # The index has the files that were never put off in this order, so at most `limit` of their rows are read.
        due = f"SELECT id FROM file WHERE {OPEN_FILE} AND key<>'' AND analysis=?1"
        configs = "tree='' AND path>=?4 AND path<?5"
        rows = self._run(
            f"SELECT {FILE} FROM file WHERE id IN ("
            f"SELECT id FROM ({due} AND state='whole' AND retry_at=0 ORDER BY mtime_ns LIMIT ?3)"
            f" UNION ALL {due} AND state='whole' AND retry_at>0 AND retry_at<=?2"
            f" UNION ALL {due} AND state='held' AND retry_at<=?2"
            f" UNION ALL {due} AND state IN ('whole', 'held') AND retry_at<=?2 AND {configs}"
            f") ORDER BY {configs} DESC, mtime_ns LIMIT ?3",
            analysis, now, limit, *below("configs/"),
        )  # fmt: skip
        return [file_row(r) for r in rows]

    def files_waiting(self, analysis: str) -> list[FileRow]:
        """Inputs that are not stored, and may be: those that settle, and whole ones that wait for others."""
        rows = self._run(
            f"SELECT {FILE} FROM file INDEXED BY file_open WHERE {OPEN_FILE} AND analysis=? AND key<>''"
            " AND (state='settling' OR (state='whole' AND retry_at<?)) ORDER BY tree, path",
            analysis,
            EVENTUALLY,
        )
        return [file_row(r) for r in rows]

    def put_off_file(self, file_id: int, retry_at: float, reason: str) -> None:
        self._run("UPDATE file SET retry_at=?, reason=? WHERE id=?", retry_at, reason, file_id)

    def retry_files(self, analysis: str) -> None:
        """Make every whole or held file due again: at start, or when what they wait for may have changed."""
        self._run(
            f"UPDATE file SET retry_at=0 WHERE {OPEN_FILE} AND analysis=? AND state IN ('whole', 'held') AND retry_at<>0",
            analysis,
        )

    def retry_unit(self, analysis: str, tree: str, under: str) -> None:
        """Make the whole files below a folder due now, if they wait only for other files."""
        low, high = path_out(under), path_out(under[:-1] + chr(ord(under[-1]) + 1))
        self._run(
            f"UPDATE file SET retry_at=0 WHERE {OPEN_FILE} AND analysis=? AND tree=? AND path>=? AND path<?"
            " AND state='whole' AND failures=0 AND retry_at>0 AND retry_at<?",
            analysis, tree, low, high, EVENTUALLY,
        )  # fmt: skip

    def next_upload(self, analysis: str) -> float | None:
        """When the next whole or held file of an analysis is due."""
        first = f"SELECT min(retry_at) AS at FROM file WHERE {OPEN_FILE} AND analysis=?1 AND key<>'' AND state"
        at = only(self._run(f"SELECT min(at) FROM ({first}='whole' UNION ALL {first}='held')", analysis))
        return None if at is None else float(at)

    def set_file(
        self, file_id: int, state: FileState, reason: str, now: float, *, retry_at: float = 0, failures: int = 0
    ) -> None:
        self._run(_SET_FILE, state, reason, now, retry_at, failures, file_id)
        self._note_changed((file_id,))

    def file_whole(self, file_id: int, now: float) -> FileRow | None:
        """A file has become whole. Returns its row as it is now."""
        row = self._run(f"{_SET_FILE} RETURNING {FILE}", FileState.WHOLE, "", now, 0.0, 0, file_id).fetchone()
        self._note_changed((file_id,))
        return None if row is None else file_row(row)

    def file_stored(self, file_id: int, stat: Stat, stored: Stored, now: float) -> FileRow | None:
        """Record that the content observed as `stat` is in S3, verified, and delete its upload's rows. Returns the file's new
        row, whose state is stored unless the file was seen to change meanwhile; None when it is not known any more."""
        self._run("DELETE FROM upload WHERE file_id=?", file_id)
        same = "state<>'gone' AND size=?2 AND mtime_ns=?3 AND ctime_ns=?4 AND inode=?5"
        row = self._run(
            "UPDATE file SET stored_size=?2, stored_mtime_ns=?3, stored_ctime_ns=?4, stored_inode=?5, etag=?6, crc=?7,"
            f" key=?8, ours=1, failures=0, retry_at=0, state=CASE WHEN {same} THEN 'stored' ELSE state END,"
            f" reason=CASE WHEN {same} THEN '' ELSE reason END, since=CASE WHEN {same} THEN ?9 ELSE since END"
            f" WHERE id=?1 RETURNING {FILE}",
            file_id, stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, stored.etag, f"{stored.crc:016x}", stored.key, now,
        ).fetchone()  # fmt: skip
        self._note_changed((file_id,))
        return None if row is None else file_row(row)

    def own_file(self, file_id: int, now: float) -> None:
        """A person allows what is at the key to be overwritten: the file is uploaded again."""
        self._run("UPDATE file SET ours=1, state='whole', reason='', retry_at=0, since=? WHERE id=?", now, file_id)
        self._note_changed((file_id,))

    def give_key(self, file_id: int, key: str) -> None:
        """Give another key to a file and to its jobs that are not submitted. Nothing counts as stored at the new key."""
        self._run(
            "UPDATE job_dataset SET key=?2 WHERE EXISTS (SELECT 1 FROM file AS f JOIN job AS j ON j.analysis=f.analysis"
            " WHERE f.id=?1 AND j.id=job_dataset.job AND j.phase='open' AND job_dataset.tree=f.tree"
            " AND job_dataset.path=f.path) AND path=(SELECT path FROM file WHERE id=?1)",
            file_id,
            key,
        )
        self._run("UPDATE file SET key=?, stored_size=NULL, etag='', crc='', ours=0 WHERE id=?", key, file_id)
        self._run("DELETE FROM upload WHERE file_id=?", file_id)
        self._note_changed((file_id,))

    def take_key(self, row: FileRow) -> None:
        """Allow a file to overwrite what this rig has put at its key for another file, which is not there any more."""
        answer = self._run(
            "UPDATE file SET stored_size=NULL, etag='', crc='', ours=0 WHERE analysis=? AND key=? AND key<>'' AND id<>?"
            " AND stored_size IS NOT NULL RETURNING id",
            row.place.analysis,
            row.key,
            row.id,
        )
        others = column(answer)
        self._run("UPDATE file SET ours=1 WHERE id=?", row.id)
        self._note_changed([*others, row.id])

    def upload_begun(self, file_id: int) -> bool:
        """Whether bytes of a file may be on their way, or in S3 without our knowing."""
        return self._run("SELECT 1 FROM upload WHERE file_id=?", file_id).fetchone() is not None

    def unstore_file(self, file_id: int, now: float) -> None:
        """What was stored of a file is not in S3 any more: it is to be uploaded again, as if for the first time."""
        self._run(
            "UPDATE file SET state='whole', stored_size=NULL, etag='', crc='', ours=0, retry_at=0, since=? WHERE id=?",
            now,
            file_id,
        )
        self._note_changed((file_id,))

    def count_files(self) -> list[FileCount]:
        """Everything known below inputs and configs, by analysis and state."""
        rows = self._named(
            "SELECT analysis, state, count(*) AS files, sum(size) AS bytes FROM file WHERE key<>'' AND state<>'skipped'"
            " GROUP BY analysis, state"
        )
        return [FileCount(r["analysis"], FileState(r["state"]), r["files"], r["bytes"]) for r in rows]

    def count_left(self) -> list[LeftCount]:
        """The whole files that will not be uploaded, by analysis and reason; `count_files` counts them too."""
        rows = self._named(
            "SELECT analysis, CASE WHEN reason LIKE ?1 || '%' THEN ?1 ELSE reason END AS why, count(*) AS files,"
            f" sum(size) AS bytes FROM file INDEXED BY file_open WHERE {OPEN_FILE} AND state='whole' AND key<>''"
            " AND (reason LIKE ?1 || '%' OR (reason<>'' AND retry_at>=?2))"
            " GROUP BY analysis, why",
            ABORTED,
            EVENTUALLY,
        )
        return [LeftCount(**r) for r in rows]

    # -- uploads under way -------------------------------------------------------------------------------------------

    def begin_upload(self, file_id: int, key: str, stat: Stat, part_size: int, now: float) -> BegunUpload:
        """The begun upload to resume when it has this key, content and part size, else a new one."""
        this = {"key": key, "part_size": part_size, **stat._asdict()}  # by the names of the columns
        names = ", ".join(this)
        row = self._named(f"SELECT upload_id, {names} FROM upload WHERE file_id=?", file_id).fetchone()
        if row is not None and all(row[name] == value for name, value in this.items()):
            parts = self._named("SELECT number, size, etag, crc FROM part WHERE file_id=? ORDER BY number", file_id)
            found = (Part(p["number"], p["size"], p["etag"], int(p["crc"], 16)) for p in parts)
            return BegunUpload(row["upload_id"], tuple(found))
        if row is not None:
            self._run("DELETE FROM upload WHERE file_id=?", file_id)
        self._run(
            f"INSERT INTO upload (file_id, {names}, started) VALUES (?,{'?,' * len(this)}?)",
            file_id,
            *this.values(),
            now,
        )
        return BegunUpload(None)

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

    # -- what was in S3 when the journal was new ---------------------------------------------------------------------

    def add_inventory(self, analysis: str, objects: Iterable[ObjectInfo]) -> None:
        self._many(
            "INSERT OR REPLACE INTO inventory (analysis, key, size, etag) VALUES (?,?,?,?)",
            ((analysis, o.key, o.size, o.etag) for o in objects),
        )

    def inventory(self, analysis: str, key: str) -> InventoryObject | None:
        row = self._named("SELECT size, etag FROM inventory WHERE analysis=? AND key=?", analysis, key).fetchone()
        return None if row is None else InventoryObject(**row)
