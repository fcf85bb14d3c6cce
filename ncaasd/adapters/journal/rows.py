"""Rows by name: the columns of a file, a job and a dataset, and the small rows that the journal returns.

Rows that are read often are NamedTuples, from whose fields the SELECT list is made; the others are read through `Base._named`,
by column name. So no list of columns has to be written twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ncaasd.adapters.journal.base import path_in
from ncaasd.model import (
    CostNote,
    Dataset,
    FileRow,
    FileState,
    Hold,
    JobRow,
    JobSpec,
    JobState,
    Origin,
    Part,
    Phase,
    Place,
    Stat,
)

# -- what is read often ----------------------------------------------------------------------------------------------


class _File(NamedTuple):
    id: int
    analysis: str
    tree: str
    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    state: str
    reason: str
    since: float
    key: str
    stored_size: int | None  # None, like the next three, when nothing of it is stored
    stored_mtime_ns: int
    stored_ctime_ns: int
    stored_inode: int
    etag: str
    retry_at: float
    failures: int
    ours: int
    link: bytes
    crc: str


FILE = ", ".join(_File._fields)  # the SELECT list of what `file_row` reads
_STATES = {
    str(state): state for state in FileState
}  # calling the enum would cost as much as reading all columns of a row


def file_row(row: tuple[Any, ...]) -> FileRow:
    r = _File._make(row)
    stored = r.stored_size
    return FileRow(
        id=r.id,
        place=Place(r.analysis, r.tree, path_in(r.path)),
        stat=Stat(r.size, r.mtime_ns, r.ctime_ns, r.inode),
        state=_STATES[r.state],
        reason=r.reason,
        since=r.since,
        key=r.key,
        stored=None if stored is None else Stat(stored, r.stored_mtime_ns, r.stored_ctime_ns, r.stored_inode),
        etag=r.etag,
        retry_at=r.retry_at,
        failures=r.failures,
        ours=bool(r.ours),
        link=path_in(r.link) if r.link else "",
        crc=r.crc,
    )


class JobColumns(NamedTuple):
    id: int
    analysis: str
    name: str
    unit: bytes
    version: str
    attempt: int
    origin: str
    declared_in: bytes
    config: str
    overlay: str
    instance_type: str | None
    resultpath: str | None
    job_id: str
    phase: str
    state: str
    reason: str
    hold: str
    released: str  # kinds of hold, with commas between
    created: float
    intended: float
    attempted: float
    submitted: float
    ended: float
    next_at: float
    failures: int
    submit_key: str
    config_key: str
    body: bytes
    verdict: str | None
    refused_kind: str
    finished: int
    total: int
    cost_projected: float | None
    cost_remaining: float | None
    cost_over: str
    seen: float
    size: int
    rebuilt: int
    forgotten: int
    results: str
    quiet_looks: int
    not_before: float
    fields: str
    machines: int
    machine_verdicts: str
    config_name: str
    config_etag: str


JOB = ", ".join(JobColumns._fields)  # the SELECT list of what `job_row` is given


def job_row(r: JobColumns, datasets: tuple[Dataset, ...]) -> JobRow:
    spec = JobSpec(
        analysis=r.analysis,
        name=r.name,
        unit=path_in(r.unit),
        version=r.version,
        origin=Origin(r.origin),
        declared_in=path_in(r.declared_in),
        datasets=datasets,
        config=r.config,
        overlay=r.overlay,
        instance_type=r.instance_type,
        resultpath=r.resultpath,
        fields=r.fields,
        config_name=r.config_name,
    )
    cost = r.cost_projected
    return JobRow(
        row=r.id,
        spec=spec,
        attempt=r.attempt,
        job_id=r.job_id,
        phase=Phase(r.phase),
        state=JobState(r.state),
        reason=r.reason,
        hold=Hold(r.hold) if r.hold else None,
        released=released_in(r.released),
        created=r.created,
        intended=r.intended,
        attempted=r.attempted,
        submitted=r.submitted,
        ended=r.ended,
        next_at=r.next_at,
        failures=r.failures,
        submit_key=r.submit_key,
        config_key=r.config_key,
        body=r.body,
        verdict=None if r.verdict is None else JobState(r.verdict),
        refused_kind=r.refused_kind,
        finished=r.finished,
        total=r.total,
        cost=None if cost is None else CostNote(cost, r.cost_remaining, r.cost_over),
        seen=r.seen,
        size=r.size,
        rebuilt=bool(r.rebuilt),
        forgotten=bool(r.forgotten),
        results=r.results,
        quiet_looks=r.quiet_looks,
        not_before=r.not_before,
        machines=r.machines,
        machine_verdicts=r.machine_verdicts,
        config_etag=r.config_etag,
    )


def released_in(text: str) -> frozenset[str]:
    return frozenset(kind for kind in text.split(",") if kind)


def released_out(kinds: frozenset[str]) -> str:
    return ",".join(sorted(kinds))


class DatasetColumns(NamedTuple):
    job: int
    name: bytes
    key: str
    etag: str
    tree: str  # None where `path` is
    path: bytes | None


DATASET = ", ".join(DatasetColumns._fields)  # the SELECT list of what `dataset_of` is given


def dataset_of(r: DatasetColumns, analysis: str) -> Dataset:
    """`analysis`: that of its job."""
    place = None if r.path is None else Place(analysis, r.tree, path_in(r.path))
    return Dataset(path_in(r.name), r.key, r.etag, place)


# -- what the journal answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ManifestRow:
    path: str
    good: bytes | None  # the last valid text, which is in force
    problems: str  # of the newest text, a line each; empty when it is valid
    read_at: float


@dataclass(frozen=True, slots=True)
class PackageRow:
    """The state of making one unit's package."""

    file_id: int
    inputs: str  # the fingerprint of what it was made of; empty while it is wanted
    retry_at: float
    failures: int  # in a row
    output: str  # its tool's


@dataclass(frozen=True, slots=True)
class WantedPackage:
    """The rule and the unit that a package is of."""

    rule: str
    unit: str
    file_id: int


@dataclass(frozen=True, slots=True)
class FileCount:
    analysis: str
    state: FileState
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LeftCount:
    """A count of whole files that will not be uploaded."""

    analysis: str
    why: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class InventoryObject:
    """What was at a key when the journal was new."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class BegunUpload:
    """`upload_id`: None until S3 has given one. `parts`: those that are in S3."""

    upload_id: str | None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class JobCount:
    analysis: str
    state: JobState
    jobs: int


@dataclass(frozen=True, slots=True)
class HeldJobs:
    """Jobs of one name that are held for one reason: the newest of them, and the totals of all."""

    newest: JobRow
    jobs: int
    machines: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ConfigAt:
    """A job that had its config at a key. `reading`: whether it may still be reading it."""

    job_id: str
    etag: str
    reading: bool
