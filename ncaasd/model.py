"""The nouns that all packages share: frozen values and enums. Standard library only.

Conventions: sizes are bytes, durations are seconds (float), points in time are seconds since the epoch, UTC
(float), etags are without quotes, keys are S3 keys as `str`, local paths are `/`-separated and relative to their
tree, decoded with `surrogateescape` so that any byte a file system allows survives the round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, TypedDict

# NEVER is the `FileRow.retry_at` or `JobRow.next_at` of a row that waits for an event or for a person, not for a time. Compare
# with EVENTUALLY, the lower one, to find such rows: a stored value may come from a sum (now + (NEVER - now)) or from a clock's
# correction, and is then not exactly NEVER. No real time is near either of them.
NEVER = 1e15
EVENTUALLY = 1e14


class JobState(StrEnum):
    """The states of a job, as people see them."""

    WAITING = "waiting"  # for files, or for its config
    READY = "ready"  # everything is in S3; the submit file is next
    SUBMITTED = "submitted"  # the submit file is in S3; no answer yet
    STARTING = "starting"
    RUNNING = "running"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"  # over budget or over capacity
    HELD = "held"  # a person must decide
    LOST = "lost"  # no sign of life; watched until its timeout
    TIMED_OUT = "timed out"

    @property
    def ended(self) -> bool:
        return self in _ENDS


_ENDS = frozenset({JobState.DONE, JobState.FAILED, JobState.REFUSED, JobState.TIMED_OUT})


class FileState(StrEnum):
    """The states of one local file."""

    SETTLING = "settling"  # seen, not quiet long enough
    WHOLE = "whole"  # quiet long enough; to be uploaded
    STORED = "stored"  # in S3, verified: this very content
    READ = "read"  # a manifest or submit file that has been read; it is never uploaded itself
    HELD = "held"  # a person must decide; `reason` says why
    REFUSED = "refused"  # it must not be uploaded; `reason` says why
    SKIPPED = "skipped"  # something is there that can't be followed, entered or looked at; `reason` says why
    GONE = "gone"  # no longer there locally; nothing is deleted in S3


ABORTED = "its unit was aborted"  # a whole file whose reason begins so is not uploaded


class SystemStat(Protocol):
    """The fields of `os.stat`'s result that are used here."""

    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...


class Stat(NamedTuple):
    """One observation of a file. `plan.settling.unchanged` compares two of them.

    A tuple, because a start makes one for each known file, and a frozen dataclass takes four times as long to make.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, seen: SystemStat) -> Stat:
        return cls(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)

    @classmethod
    def of_link(cls, link: SystemStat, target: SystemStat) -> Stat:
        """The observation of a symbolic link that is followed, together with its target.

        The ctime is the later of both, to the millisecond. Its lower digits are computed from both, so that it changes when
        the link is made anew or leads to another file, even one of equal size and mtime.
        """
        later = max(link.st_ctime_ns, target.st_ctime_ns)
        both = (31 * link.st_ctime_ns + target.st_ctime_ns) % 999_983  # a prime: every digit of both counts
        return cls(target.st_size, target.st_mtime_ns, later - later % 10**6 + both, target.st_ino)


PACKAGES = "package:"  # how the tree of a rule's packages begins; no source has a colon in its name


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A local file as the user knows it: `tree` is "" for the analysis's own folder, else a source's name.

    `path` begins with `inputs/`, `configs/`, `submissions/` or is `manifest.yaml` in the analysis's own folder; in a
    source it is relative to the source.
    """

    analysis: str
    tree: str
    path: str

    @property
    def is_package(self) -> bool:
        """Whether this is a package, made of a unit and not found on a disk (`plan.expand.package_tree`)."""
        return self.tree.startswith(PACKAGES)

    @property
    def package_of(self) -> str:
        """The rule whose package this is; "" for any other file."""
        return self.tree.removeprefix(PACKAGES) if self.is_package else ""

    def __str__(self) -> str:
        return f"{self.analysis}/{self.path}" if not self.tree else f"{self.tree}:{self.path}"


@dataclass(frozen=True, slots=True)
class ScanDelta:
    """The differences that a rescan found. Files that are known and unchanged are not in it."""

    changed: dict[str, Stat]  # new or different
    gone: frozenset[str]
    # path -> why (a FIFO, a link out of the tree, what cannot be read). A folder that can't be entered or listed ends in "/".
    skipped: dict[str, str]
    files: int  # how many regular files there are in all
    seconds: float
    links: dict[str, str] = field(default_factory=dict)  # of `changed`, the links that are followed: where each leads
    passed_over: Mapping[str, int] = field(default_factory=dict)  # folders of storage and systems: name -> how many


@dataclass(frozen=True, slots=True)
class Look:
    """What one path is. `stat` is None when no file is there, or none that can be looked at."""

    stat: Stat | None
    link: str = ""  # where it leads, when it is a link that is followed: see `FileRow.link`
    skipped: str = ""  # why what is there can't be taken as a file
    unseen: bool = False  # it could not be looked at: what is known of it stays


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """The target of a symbolic link that is followed: `path` below the folder `root` (absolute), without another link on it."""

    root: str
    path: str

    def __str__(self) -> str:
        return f"{self.root}/{self.path}"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing. `modified` is the server's."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects below a prefix, in key order; `at` is the server's own time of the answer."""

    objects: tuple[ObjectInfo, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart upload, as S3 answered it. `crc` is the part's CRC64NVME."""

    number: int  # from 1
    size: int
    etag: str
    crc: int


@dataclass(frozen=True, slots=True)
class Stored:
    """S3's answer to a completed put. `crc` is the CRC64NVME of the whole object; `md5` is empty for multipart."""

    key: str
    size: int
    etag: str
    crc: int
    adopted: bool = False  # it was there already, equal


@dataclass(frozen=True, slots=True)
class UploadTask:
    """One file to upload to one key. `parts` and `upload_id` are what the journal has of an earlier attempt."""

    file_id: int
    analysis: str
    path: str  # absolute
    expect: Stat  # what was observed when the file was called whole
    key: str
    part_size: int
    upload_id: str | None = None
    parts: tuple[Part, ...] = ()
    ours: bool = False  # the journal put this key before: overwriting our own older version is allowed
    look_first: bool = False  # a listing showed something at the key: find and compare before any byte is sent
    order: float = 0.0  # lower is sent first: the recording's mtime; manifests and configs before all (negative)
    link: LinkTarget | None = None  # where `path` leads, when it is a link that is followed


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """One object of a job's folder to download to one place below `results/`."""

    object_id: int
    analysis: str
    bucket: str
    key: str
    size: int
    etag: str
    folder: str  # the job's folder below results/: job__<bucket>_<id>
    name: str  # the key below the job folder, not yet made safe for the file system
    done: tuple[tuple[int, int], ...] = ()  # byte ranges [start, end) that are fetched and fsynced already
    order: float = 0.0


@dataclass(frozen=True, slots=True)
class SkippedThing:
    """Something in a tree that can't be taken as a file, and why."""

    place: Place
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many things are skipped in the trees of an analysis, and the first of them."""

    count: int = 0
    first: tuple[SkippedThing, ...] = ()


class Verdict(StrEnum):
    """How a transfer ended."""

    STORED = "stored"  # upload: in S3, verified
    FETCHED = "fetched"  # download: in place, verified, fsynced
    CHANGED = "changed"  # upload: the file is not what was observed; it settles again
    VANISHED = "vanished"  # upload: the file is gone
    FOREIGN = "foreign"  # upload: something else that we did not put is at the key
    REPLACED = "replaced"  # download: the object is not the one that was listed any more
    UNSAFE = "unsafe"  # download: the name cannot be kept inside the job's folder
    FAILED = "failed"  # `error` says why; transient errors were retried for a while already
    STOPPED = "stopped"  # the pool was asked to stop; everything resumable


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an UploadTask or DownloadTask."""

    task: UploadTask | DownloadTask
    verdict: Verdict
    stored: Stored | None = None  # STORED
    path: str = ""  # FETCHED: the local path below results/
    error: Exception | None = None  # FAILED, UNSAFE
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Live counters of one transfer."""

    analysis: str
    name: str  # key
    upload: bool
    done: int  # bytes
    size: int  # bytes
    rate: float  # bytes per second, over the last seconds


@dataclass(frozen=True, slots=True)
class CostNote:
    """The costs that the certificate tells, in dollars. `remaining` is None when over budget."""

    projected: float
    remaining: float | None
    over_by: str = ""


class Origin(StrEnum):
    """Who asked for a job."""

    RULE = "rule"  # a standing rule of manifest.yaml
    MANIFEST = "manifest"  # a one-off job of a manifest in submissions/
    SUBMIT = "submit"  # a hand-written *submit.json
    ELSEWHERE = "elsewhere"  # started on the website or by another rig; followed and fetched, never submitted


class Hold(StrEnum):
    """Why a job is held. The table in `plan.holds` says what each kind is about and what ends it."""

    PERSON = "person"  # `ncaasd hold`
    BACKLOG = "backlog"
    BUDGET = "budget"
    FAILURES = "failures"
    CANARY = "canary"
    DAY = "day"
    ACTIVE = "active"
    PART = "part"
    RENAMED = "renamed"
    COPY = "copy"
    ZEROS = "zeros"
    FOREIGN = "foreign"
    REPLACED = "replaced"
    CONFIG = "config"
    UNSEEN = "unseen"
    SAME = "same"
    REBUILT = "rebuilt"
    UNSURE = "unsure"


class Phase(StrEnum):
    """How far the submit of a job has come. Only ever moves down this list."""

    OPEN = "open"  # not yet decided: may still be cancelled
    INTENT = "intent"  # id, key and exact body are committed
    ATTEMPTED = "attempted"  # a PUT may have been sent
    SUBMITTED = "submitted"  # the submit file is in S3, or the job's folder is
    ENDED = "ended"  # nothing more is expected of NeuroCAAS, and what it left is here


@dataclass(frozen=True, slots=True)
class FileRow:
    """One local file as the journal knows it. `stored` is the observation whose content is in S3 at `key`."""

    id: int
    place: Place
    stat: Stat
    state: FileState
    reason: str
    since: float
    key: str  # empty for manifests and submit files, which are never uploaded as they are
    stored: Stat | None
    etag: str
    retry_at: float
    failures: int
    ours: bool = False  # this rig put what is at the key, or a person allowed it to be overwritten
    # The target of a symbolic link that is followed: relative to the tree as `Place.path` is, or an absolute path (below the
    # config's `links`). `stat` is then of both (`Stat.of_link`).
    link: str = ""
    crc: str = ""  # CRC64NVME (hexadecimal) of what is stored


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset of a job: `name` as the user wrote it, `key` as in the submit file (a key, or an s3:// URL).

    `etag` is the ETag at the key when the job was submitted; empty before. `place` is the local file that is meant, whether
    it exists or not: two files may map to one key, and a job never gets the other one's bytes (F96). `place` is None for
    s3:// URLs, for jobs started elsewhere, and where an old journal doesn't tell.
    """

    name: str
    key: str
    etag: str = ""
    place: Place | None = None

    def is_of(self, row: FileRow) -> bool:
        """Whether `row` is this dataset's local file; judged by key and name where an old journal has no `place`."""
        if self.place is not None:
            return self.place == row.place
        return self.key == row.key and row.place.path in (self.name, f"inputs/{self.name}")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as declared. It is identified by (analysis, name, unit, version) and its attempt."""

    analysis: str
    name: str  # the rule's, the one-off's, or the hand-written submit's timestamp
    unit: str  # the unit's or dataset's name as the user knows it; one-offs: all of them
    version: str  # a hash of the data's or config's checksums where `rerun_on` names them; else ""
    origin: Origin
    declared_in: str  # the manifest or submit file's path
    datasets: tuple[Dataset, ...]
    config: str  # below configs/, a full key, or an s3:// URL
    overlay: str = "{}"  # JSON: laid over the config
    instance_type: str | None = None
    resultpath: str | None = None
    fields: str = "{}"  # JSON: the parts of the unit's name, such as {"animal": "M7"}
    config_name: str = "content"  # its config's name in S3: by its content ("content"), its own ("keep"), or this one


@dataclass(frozen=True, slots=True)
class JobRow:
    """One attempt of one job as the journal knows it."""

    row: int
    spec: JobSpec
    attempt: int
    job_id: str  # empty until the submit is intended
    phase: Phase
    state: JobState
    reason: str
    hold: Hold | None  # a person must decide, or mend something
    released: frozenset[str]  # kinds of hold that a person has released it from; and `plan.holds.OWN_CONFIG`
    created: float
    intended: float
    attempted: float
    submitted: float
    ended: float
    next_at: float  # when it is to be looked at again
    failures: int  # of looking or submitting, in a row
    submit_key: str
    config_key: str  # where this job's config is in S3
    body: bytes
    verdict: JobState | None  # how the job ended at NeuroCAAS; None before
    refused_kind: str
    finished: int
    total: int
    cost: CostNote | None
    seen: float  # the server's time of the submit
    size: int  # bytes of its datasets
    rebuilt: bool  # it may have been submitted without this journal's knowing it (`plan.journals`)
    forgotten: bool
    results: str  # the local folder's name below results/
    quiet_looks: int  # listings without a change since the end
    not_before: float  # a retry waits until then
    machines: int = 0  # that it has, or had, as its certificate says; 0: not known yet
    config_etag: str = ""  # of its config as it was when the job was intended, where jobs share the config's name in S3
    machine_verdicts: str = ""  # verdicts so far of machines that share a status file (neurocaas.machines.Memory)


class JobDetails(TypedDict, total=False):
    """The columns of a job that can be set, without its state and reason: see `JobChange`."""

    attempt: int
    job_id: str
    phase: Phase
    hold: Hold | None
    released: frozenset[str]
    intended: float
    attempted: float
    submitted: float
    ended: float
    next_at: float
    not_before: float
    failures: int
    submit_key: str
    config_key: str
    body: bytes
    verdict: JobState | None
    refused_kind: str
    finished: int
    total: int
    cost: CostNote
    seen: float
    size: int
    rebuilt: bool
    forgotten: bool
    results: str
    quiet_looks: int
    config: str
    overlay: str
    instance_type: str | None
    resultpath: str | None
    declared_in: str
    fields: str
    machines: int
    machine_verdicts: str
    config_name: str
    config_etag: str


class JobChange(JobDetails, total=False):
    """The columns of a job that the journal's `update_job` can set. `JobRow` and `JobSpec` say what each is."""

    state: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class MachinesUsed:
    """The machines of one analysis, as the spend guards count them."""

    active: int  # machines of jobs that run now, or may
    day: int  # machines of jobs submitted in the last 24 h


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How much of a job's results is fetched."""

    files: int
    of: int
    bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True)
class AfterStep:
    """One step of `after_results` for one job."""

    state: str  # wanted | done | left
    reason: str
    failures: int  # in a row


@dataclass(frozen=True, slots=True)
class EarlierJobs:
    """The ids of jobs that files on the disk name and a journal doesn't know."""

    submitted: frozenset[str]  # certainly submitted from here
    seen: frozenset[str]  # all that have a folder or a line, `submitted` included
    complete: bool  # False: there was more than could be looked at


class ArtefactState(StrEnum):
    WANTED = "wanted"
    FETCHED = "fetched"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One object of a job's folder. `path` is where it is below results/, once fetched."""

    id: int
    job: int
    name: str
    bucket: str
    key: str
    size: int
    etag: str
    state: ArtefactState
    path: str
    reason: str
    ranges: tuple[tuple[int, int], ...]
    retry_at: float
    failures: int


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only event log."""

    at: float
    analysis: str
    subject: str  # `ncaasd.subjects`; empty: the analysis, or all of it
    kind: str
    text: str
