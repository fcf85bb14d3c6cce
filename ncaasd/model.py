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

# `FileRow.retry_at` and `JobRow.next_at` of what waits for an event, or for a person, and not for a time. What is put off for
# good is set to NEVER; whether something is, is asked with EVENTUALLY. It is the lower one, because what is set may come of a
# sum (now + (NEVER - now)) or of a clock's correction, and isn't NEVER to the digit then. No real time is near either of them.
NEVER = 1e15
EVENTUALLY = 1e14


class JobState(StrEnum):
    """The states of a job, as people see them."""

    WAITING = "waiting"  # for files, or for its config
    READY = "ready"  # everything is in S3; the submit file is next
    SUBMITTED = "submitted"  # the submit file is put; nothing heard yet
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
    """What has become of one local file."""

    SETTLING = "settling"  # seen, not quiet long enough
    WHOLE = "whole"  # quiet; wants to be uploaded
    STORED = "stored"  # in S3, verified: this very content
    READ = "read"  # a manifest or submit file that has been read; it is never uploaded itself
    HELD = "held"  # a person must decide; `reason` says why
    REFUSED = "refused"  # it must never go up; `reason` says why
    SKIPPED = "skipped"  # something is there that can't be followed, entered or looked at; `reason` says why
    GONE = "gone"  # no longer there locally; nothing is deleted in S3


ABORTED = "its unit was aborted"  # how the reason of a whole file begins that is never uploaded


class SystemStat(Protocol):
    """What `os.stat` answers, as far as it matters here."""

    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...


class Stat(NamedTuple):
    """One observation of a file: what must be equal for it to count as unchanged.

    A tuple, because a start makes one for each known file: a frozen dataclass takes four times as long to be made.
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
        """Of a symbolic link that is followed, and the file that it leads to.

        The ctime is the later of both, to the millisecond; what is below that is made of both, so that it is another one when
        the link is made anew or leads to another file, also one of equal size and mtime.
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
        """Whether what lies there is made of a unit, and not found on a disk (`plan.expand.package_tree`)."""
        return self.tree.startswith(PACKAGES)

    @property
    def package_of(self) -> str:
        """The rule whose package lies there; "" of what is no package."""
        return self.tree.removeprefix(PACKAGES) if self.is_package else ""

    def __str__(self) -> str:
        return f"{self.analysis}/{self.path}" if not self.tree else f"{self.tree}:{self.path}"


@dataclass(frozen=True, slots=True)
class ScanDelta:
    """What a rescan found different from what was known. Known-unchanged files never leave the scan."""

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
    skipped: str = ""  # something is there that is no file for us; why
    unseen: bool = False  # it could not be looked at: what is known of it stays known


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Where a symbolic link leads that is followed: `path` below the folder `root` (absolute), with no other link on the way."""

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
    """One file to bring to one key. `parts` and `upload_id` are what the journal knows of an earlier attempt."""

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
    order: float = 0.0  # lower goes first: the recording's mtime; manifests and configs before all (negative)
    link: LinkTarget | None = None  # where `path` leads, when it is a link that is followed


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """One object of a job's folder to bring to one place below `results/`."""

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
    """What is at a place and is no file for us, and why."""

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
    """What became of an UploadTask or DownloadTask."""

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
    """What the certificate says of money, in dollars. `remaining` is None when over budget."""

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
    """Why a job is held. What each kind is about, and who ends it: the table in `plan.holds`."""

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
    # Of a symbolic link that is followed, the file that it leads to: below the tree as `Place.path` is, or an absolute path
    # (below the config's `links`). `stat` is then of both (`Stat.of_link`).
    link: str = ""
    crc: str = ""  # CRC64NVME (hexadecimal) of what is stored


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset of a job: `name` as the user wrote it, `key` as NeuroCAAS is told (a key, or an s3:// URL).

    `etag` is what was at the key when the job was submitted; empty before. `place` is the local file that is meant, whether
    it is there or not: two files may come to one key, and a job is never given the other one's bytes (F96). None: none is
    (s3://, jobs started elsewhere, or not known of an old journal's).
    """

    name: str
    key: str
    etag: str = ""
    place: Place | None = None

    def is_of(self, row: FileRow) -> bool:
        """Whether this is what is made of the local file `row`. What an old journal doesn't say is told by the names."""
        if self.place is not None:
            return self.place == row.place
        return self.key == row.key and row.place.path in (self.name, f"inputs/{self.name}")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was declared. A job is known by (analysis, name, unit, version) and its attempt."""

    analysis: str
    name: str  # the rule's, the one-off's, or the hand-written submit's timestamp
    unit: str  # the unit's or dataset's name as the user knows it; one-offs: all of them
    version: str  # "" but where `rerun_on` names data or config: their checksums
    origin: Origin
    declared_in: str  # the manifest or submit file's path
    datasets: tuple[Dataset, ...]
    config: str  # below configs/, a full key, or an s3:// URL
    overlay: str = "{}"  # JSON: laid over the config
    instance_type: str | None = None
    resultpath: str | None = None
    fields: str = "{}"  # JSON: the parts of the unit's name, such as {"animal": "M7"}
    config_name: str = "content"  # its config's name in S3: of its content, its own ("keep"), or this one


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
    config_key: str  # where this job's config is in S3, named by its content
    body: bytes
    verdict: JobState | None  # what NeuroCAAS's own end was, while results are being fetched
    refused_kind: str
    finished: int
    total: int
    cost: CostNote | None
    seen: float  # the server's time of the submit
    size: int  # bytes of its datasets
    rebuilt: bool  # found by a new journal's first scan on a rig that has had one before
    forgotten: bool
    results: str  # the local folder's name below results/
    quiet_looks: int  # listings without a change since the end
    not_before: float  # a retry waits until then
    machines: int = 0  # that it has, or had, as its certificate says; 0: not known yet
    config_etag: str = ""  # of its config as it was when the job was intended, where jobs share the config's name in S3
    machine_verdicts: str = ""  # what machines that share a status file have said so far (neurocaas.machines.Memory)


class JobDetails(TypedDict, total=False):
    """What of a job is set beside its state and its reason: `JobChange`."""

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
    """What the journal's `update_job` sets of a job, by column: all but what a job is known by. `JobRow` and `JobSpec` say
    what each is."""

    state: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class MachinesUsed:
    """Of one analysis, for the spend guards."""

    active: int  # machines of jobs that run now, or may
    day: int  # machines of jobs submitted in the last 24 h


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """What of a job's results is here."""

    files: int
    of: int
    bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True)
class AfterStep:
    """One step of what is done after a job's results are here."""

    state: str  # wanted | done | left
    reason: str
    failures: int  # in a row


@dataclass(frozen=True, slots=True)
class EarlierJobs:
    """What files on the disk tell of jobs that a journal doesn't know, by id."""

    submitted: frozenset[str]  # from here, surely
    seen: frozenset[str]  # all that have a folder or a line, those included
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
    """One line of the append-only log that tells each file's and job's story."""

    at: float
    analysis: str
    subject: str  # `ncaasd.subjects`; empty: the analysis, or all of it
    kind: str
    text: str
