"""The journal's schema, as numbered migrations. A released migration is never edited: add the next one.

Paths and names made of them are BLOBs (the file system's own bytes), points in time REAL seconds since the epoch,
checksums hexadecimal.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    # 1: the first release
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        analysis TEXT NOT NULL, tree TEXT NOT NULL, path BLOB NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', since REAL NOT NULL,
        key TEXT NOT NULL DEFAULT '',
        stored_size INTEGER, stored_mtime_ns INTEGER, stored_ctime_ns INTEGER, stored_inode INTEGER,
        etag TEXT NOT NULL DEFAULT '', crc TEXT NOT NULL DEFAULT '', ours INTEGER NOT NULL DEFAULT 0,
        retry_at REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        UNIQUE (analysis, tree, path)
    );
    CREATE INDEX file_key ON file (analysis, key) WHERE key <> '';
    CREATE INDEX file_pending ON file (state, retry_at) WHERE state IN ('whole', 'held');

    -- What a multipart upload needs to go on after a crash, without ListParts: its id and each part as answered.
    CREATE TABLE upload (
        file_id INTEGER PRIMARY KEY REFERENCES file (id) ON DELETE CASCADE,
        key TEXT NOT NULL, part_size INTEGER NOT NULL, upload_id TEXT,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        started REAL NOT NULL
    );
    CREATE TABLE part (
        file_id INTEGER NOT NULL REFERENCES upload (file_id) ON DELETE CASCADE,
        number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, crc TEXT NOT NULL,
        PRIMARY KEY (file_id, number)
    ) WITHOUT ROWID;

    CREATE TABLE job (
        id INTEGER PRIMARY KEY,
        analysis TEXT NOT NULL, name TEXT NOT NULL, unit BLOB NOT NULL, version TEXT NOT NULL DEFAULT '',
        attempt INTEGER NOT NULL,
        origin TEXT NOT NULL, declared_in BLOB NOT NULL,
        config TEXT NOT NULL, overlay TEXT NOT NULL DEFAULT '{}', instance_type TEXT, resultpath TEXT,
        job_id TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        hold TEXT NOT NULL DEFAULT '', released TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL, intended REAL NOT NULL DEFAULT 0, attempted REAL NOT NULL DEFAULT 0,
        submitted REAL NOT NULL DEFAULT 0, ended REAL NOT NULL DEFAULT 0,
        next_at REAL NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        submit_key TEXT NOT NULL DEFAULT '', config_key TEXT NOT NULL DEFAULT '', body BLOB NOT NULL DEFAULT x'',
        verdict TEXT, refused_kind TEXT NOT NULL DEFAULT '',
        finished INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
        cost_projected REAL, cost_remaining REAL, cost_over TEXT NOT NULL DEFAULT '',
        seen REAL NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0,
        rebuilt INTEGER NOT NULL DEFAULT 0, forgotten INTEGER NOT NULL DEFAULT 0,
        results TEXT NOT NULL DEFAULT '', quiet_looks INTEGER NOT NULL DEFAULT 0,
        UNIQUE (analysis, name, unit, version, attempt)
    );
    CREATE UNIQUE INDEX job_id ON job (analysis, job_id) WHERE job_id <> '';
    CREATE INDEX job_due ON job (next_at) WHERE phase <> 'ended';
    CREATE TABLE job_dataset (
        job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        position INTEGER NOT NULL, name BLOB NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (job, position)
    ) WITHOUT ROWID;
    CREATE INDEX job_dataset_key ON job_dataset (key);

    CREATE TABLE artefact (
        id INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        name TEXT NOT NULL, bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        state TEXT NOT NULL, path TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
        retry_at REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        UNIQUE (job, name)
    );
    CREATE INDEX artefact_wanted ON artefact (job) WHERE state = 'wanted';
    CREATE TABLE fetched_range (
        artefact INTEGER NOT NULL REFERENCES artefact (id) ON DELETE CASCADE,
        start INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY (artefact, start)
    ) WITHOUT ROWID;

    -- The last text of each manifest that was right: in force until a better one is read.
    CREATE TABLE manifest (
        analysis TEXT NOT NULL, path BLOB NOT NULL,
        good BLOB, problems TEXT NOT NULL DEFAULT '', read_at REAL NOT NULL,
        PRIMARY KEY (analysis, path)
    ) WITHOUT ROWID;

    -- What was in S3 when this journal was new: recognised instead of sent again.
    CREATE TABLE inventory (
        analysis TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        PRIMARY KEY (analysis, key)
    ) WITHOUT ROWID;

    CREATE TABLE event (
        id INTEGER PRIMARY KEY, at REAL NOT NULL,
        analysis TEXT NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
    );
    CREATE INDEX event_subject ON event (analysis, subject);
    CREATE TRIGGER event_append_only_u BEFORE UPDATE ON event BEGIN SELECT raise(ABORT, 'append only'); END;
    CREATE TRIGGER event_append_only_d BEFORE DELETE ON event BEGIN SELECT raise(ABORT, 'append only'); END;
    """,
    # 2: the parts of a unit's name, packages, what was done after the results
    """
    ALTER TABLE job ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';

    -- One file made of a unit. `inputs` is the fingerprint of what it was made of.
    CREATE TABLE package (
        file_id INTEGER PRIMARY KEY REFERENCES file (id) ON DELETE CASCADE,
        analysis TEXT NOT NULL, rule TEXT NOT NULL, unit BLOB NOT NULL,
        inputs TEXT NOT NULL, built REAL NOT NULL DEFAULT 0,
        retry_at REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, output TEXT NOT NULL DEFAULT '',
        UNIQUE (analysis, rule, unit)
    );

    -- What `after_results` has still to do, or has done, for a job that is done.
    CREATE TABLE aftercare (
        job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        step TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        retry_at REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job, step)
    ) WITHOUT ROWID;
    CREATE INDEX aftercare_due ON aftercare (retry_at) WHERE state = 'wanted';
    """,
    # 3: what is under way is found among all that is not, in the order of upload; counting reads an index
    """
    DROP INDEX file_pending;
    CREATE INDEX file_open ON file (analysis, state, retry_at, mtime_ns)
        WHERE state IN ('settling', 'whole', 'held', 'refused');
    CREATE INDEX file_count ON file (analysis, state, size) WHERE key <> '';
    """,
    # 4: what was found by use
    """
    -- Where a link leads that is followed; what is skipped is found among all that is not.
    ALTER TABLE file ADD COLUMN link BLOB NOT NULL DEFAULT x'';
    CREATE INDEX file_skipped ON file (analysis, tree) WHERE state = 'skipped';
    CREATE INDEX file_link ON file (analysis, link) WHERE link <> x'';

    -- A dataset is a local file; two may have one key.
    ALTER TABLE job_dataset ADD COLUMN tree TEXT;
    ALTER TABLE job_dataset ADD COLUMN path BLOB;
    CREATE INDEX job_dataset_path ON job_dataset (path) WHERE path IS NOT NULL;
    -- Of jobs that are known: the one file with the key; of several, the one of the dataset's name.
    UPDATE job_dataset SET (tree, path) = (
        SELECT f.tree, f.path FROM job AS j CROSS JOIN file AS f INDEXED BY file_key
        WHERE j.id=job_dataset.job AND f.analysis=j.analysis AND f.key=job_dataset.key AND f.key<>'')
    WHERE 1 = (
        SELECT count(*) FROM job AS j CROSS JOIN file AS f INDEXED BY file_key
        WHERE j.id=job_dataset.job AND f.analysis=j.analysis AND f.key=job_dataset.key AND f.key<>'');
    UPDATE job_dataset SET (tree, path) = (
        SELECT f.tree, f.path FROM job AS j CROSS JOIN file AS f INDEXED BY file_key
        WHERE j.id=job_dataset.job AND f.analysis=j.analysis AND f.key=job_dataset.key AND f.key<>''
        AND f.path IN (job_dataset.name, CAST('inputs/' || job_dataset.name AS BLOB)))
    WHERE path IS NULL AND 1 = (
        SELECT count(*) FROM job AS j CROSS JOIN file AS f INDEXED BY file_key
        WHERE j.id=job_dataset.job AND f.analysis=j.analysis AND f.key=job_dataset.key AND f.key<>''
        AND f.path IN (job_dataset.name, CAST('inputs/' || job_dataset.name AS BLOB)));

    -- How many machines a job has, where it is not one a dataset; 0 is "not known": of earlier journals, as before.
    ALTER TABLE job ADD COLUMN machines INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN machine_verdicts TEXT NOT NULL DEFAULT '';
    CREATE INDEX job_machines ON job (analysis, name, id) WHERE machines > 0;
    CREATE INDEX job_machines_newest ON job (analysis, id) WHERE machines > 0;

    -- A config may have a name in S3 that jobs share.
    ALTER TABLE job ADD COLUMN config_name TEXT NOT NULL DEFAULT 'content';
    ALTER TABLE job ADD COLUMN config_etag TEXT NOT NULL DEFAULT '';
    CREATE INDEX job_config ON job (analysis, config_key) WHERE config_etag <> '';

    -- What was only renamed is recognised by its size, time and checksum, or by the ETag that its job was given.
    CREATE INDEX file_gone ON file (analysis, size, mtime_ns, crc) WHERE state = 'gone';
    CREATE INDEX job_dataset_etag ON job_dataset (etag) WHERE etag <> '';
    """,
    # 5: events that are older than those kept may go; nothing else of them can be changed
    """
    DROP TRIGGER event_append_only_d;
    CREATE TRIGGER event_append_only_d BEFORE DELETE ON event
        WHEN old.at >= coalesce((SELECT CAST(value AS REAL) FROM meta WHERE key = 'events kept from'), old.at)
        BEGIN SELECT raise(ABORT, 'append only'); END;
    """,
)

VERSION = len(MIGRATIONS)
