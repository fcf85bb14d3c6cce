"""Submit exactly once: the steps, in the order that makes them safe. docs/exactly-once.md argues why.

Runs on a worker, never in the engine thread, which makes each commit that must precede the next step.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from awscrt.checksums import crc64nvme

from ncaasd.engine.arriving.declaring import CONFIG_LIMIT
from ncaasd.errors import Busy, Denied, Exists, NcaasdError, NoSuchBucket, StoreError, Throttled, Unreachable
from ncaasd.model import Dataset, Hold, JobRow, ObjectInfo
from ncaasd.neurocaas import addresses, naming
from ncaasd.plan.configs import etag_of
from ncaasd.plan.submitting import Decision, Found, Step, body_of, decide, identity
from ncaasd.ports import Clock, CrashPoint, ObjectStore, no_crash

TRIES = 4  # rounds of list-and-put in one call; after that the engine tries again later
ATTEMPTS_SEARCHED = 1000
MARK = b"The name of this object says how many jobs a journal of ncaasd has begun to submit. ncaasd needs it: leave it here.\n"


class Ending(StrEnum):
    SUBMITTED = "submitted"
    ADOPTED = "adopted"
    HELD = "held"
    WAITS = "waits"  # something it needs is not in S3 after all
    UNSURE = "unsure"  # no usable answer: the engine asks again later
    FAILED = "failed"  # an error that must be shown


@dataclass(frozen=True, slots=True)
class Report:
    ending: Ending
    kind: Hold | None = None  # HELD
    reason: str = ""
    error: Exception | None = None
    missing: str = ""  # WAITS: the key that is not in S3


@dataclass(frozen=True, slots=True)
class Order:
    """One job to submit. `config`: the content to put for it; None when it is in S3 already (bypass, or named in full)."""

    job: JobRow
    layout: naming.Layout
    config_key: str
    config: bytes | None
    etags: dict[str, str]  # key -> the ETag stored there, by the journal; datasets not of this machine are absent
    others: frozenset[str] = frozenset()  # ids of jobs of other local files that had these keys before
    doubt: str = ""  # why the journal may not know that the job was submitted
    shared: bool = False  # the config's name in S3 is one that jobs share
    configs: frozenset[str] = frozenset()  # ETags of what this rig has put at that name


@dataclass(frozen=True, slots=True)
class Mark:
    """The object whose key tells how many submits this journal has begun. `older`: the keys of the marks that it replaces."""

    key: str
    older: tuple[str, ...] = ()


class SameJob(NcaasdError):
    """Another declaration has the same name and datasets: it is the same job, which exists already."""


class SubmitLog(Protocol):
    """The commits that a submit needs. Every call returns after its commit."""

    def intend(
        self,
        job_id: str,
        attempt: int,
        key: str,
        body: bytes,
        config_key: str,
        config_etag: str,
        datasets: Sequence[Dataset],
    ) -> JobRow:
        """Commit the intent. Raises SameJob, or another NcaasdError when the job must wait again, such as when its files have
        changed.

        config_etag: the config's ETag when jobs share its name; else empty.
        """

    def configured(self, config_etag: str) -> None:
        """Commit the ETag of another config content for an intended job, under a name that jobs share. Raises NcaasdError
        when it is not the job's turn any more."""

    def count(self) -> Mark:
        """Commit that one more submit begins, and return its mark for S3."""

    def attempt(self) -> None:
        """Commit that a PUT may be sent from now on."""

    def submitted(self, *, at: float, adopted: bool, reason: str) -> None:
        """Commit that the submit file is in S3. `at` is the server's time of it."""


def submit_once(
    order: Order,
    store: ObjectStore,
    log: SubmitLog,
    clock: Clock,
    *,
    crash: CrashPoint = no_crash,
    foreign: Callable[[str], ObjectStore] | None = None,
) -> Report:
    """Put one job's submit file into S3 once, ever, or report why not. Never raises StoreError.

    `foreign(bucket)` gives the store of another bucket, for storage bypass.
    """
    try:
        job = order.job
        datasets = job.spec.datasets
        if not job.job_id:
            # 2: everything the job needs is in S3, as recorded.
            by_config = (
                _foreign_config(order, _config_there(order, store)) if order.shared else _put_config(order, store)
            )
            missing = by_config or _unverified(order, store, foreign, config=order.config is None)
            if missing:
                return missing
            # 1 and 3: the id, then the intent.
            job_id, attempt = _choose(order, store)
            problem = _fits(order.layout.bucket, job_id)
            if problem:
                return Report(Ending.FAILED, reason=problem)
            body = body_of(job.spec, order.config_key, job_id).render()
            crash("submit.before_intent")
            key = order.layout.submit_key(job_id)
            etag = etag_of(order.config) if order.shared and order.config is not None else ""
            job = log.intend(job_id, attempt, key, body, order.config_key, etag, _with_etags(datasets, order.etags))
            crash("submit.intended")
        return _list_and_put(order, job, store, log, clock, crash, foreign)
    except StoreError as error:
        unsure = isinstance(error, Unreachable | Throttled | Busy)
        return Report(Ending.UNSURE if unsure else Ending.FAILED, error=error, reason=str(error))
    except SameJob as error:
        return Report(Ending.HELD, kind=Hold.SAME, reason=str(error))
    except NcaasdError as error:
        return Report(Ending.WAITS, reason=str(error))


def _list_and_put(
    order: Order,
    job: JobRow,
    store: ObjectStore,
    log: SubmitLog,
    clock: Clock,
    crash: CrashPoint,
    foreign: Callable[[str], ObjectStore] | None,
) -> Report:
    attempted = job.attempted
    marked: list[str] = []
    for _ in range(TRIES):
        # 4: what is there decides, not what we remember.
        decision, at = _decide(order, job, store, attempted, clock.now())
        if decision.step is Step.ADOPT:
            log.submitted(at=at, adopted=True, reason=decision.reason)
            return Report(Ending.ADOPTED, reason=decision.reason)
        if decision.step is Step.HOLD:
            return Report(Ending.HELD, kind=decision.kind, reason=decision.reason)
        # F52: a dataset replaced or deleted in S3 since: no submit.
        missing = _unverified(order, store, foreign, config=not order.shared)
        if missing is None and order.shared and not attempted:
            missing = _put_shared_config(order, job, store, log)
        if missing:
            return missing
        # 5: counted here and in S3 before anything is sent, so that an old copy of the journal is known for one (F100).
        mark = log.count()
        crash("submit.counted")
        store.put(mark.key, MARK, crc=crc64nvme(MARK), only_if_absent=False)
        crash("submit.marked")
        # 6: from here on a PUT may be under way, whatever happens to this process.
        log.attempt()
        attempted = attempted or clock.now()
        crash("submit.attempted")
        try:
            put = store.put(job.submit_key, job.body, crc=crc64nvme(job.body), only_if_absent=True, retry=False)
        except (Exists, Busy, Unreachable, Throttled):
            marked.append(mark.key)
            continue  # 7: back to 4
        crash("submit.put")
        log.submitted(at=put.modified, adopted=False, reason="")
        for older in (*mark.older, *marked):
            with contextlib.suppress(StoreError):  # a mark that is left does no harm: the highest one counts
                store.delete(older)
        return Report(Ending.SUBMITTED)
    return Report(Ending.UNSURE, reason="S3 gave no clear answer to the submit; it is looked at again")


def _decide(order: Order, job: JobRow, store: ObjectStore, attempted: float, now: float) -> tuple[Decision, float]:
    """The decision, and the server's time of the submit where there was one."""
    found = store.find(job.submit_key)
    listing = store.list(order.layout.job_folder(job.job_id))
    folder = listing.objects
    at = found.modified if found else min((o.modified for o in folder), default=listing.at)
    # KMS-encrypted buckets answer ETags that are no MD5s: then the body's size is all there is to compare, and a
    # submit file of our name and size, named by a 15-digit hash, is ours.
    ours = hashlib.md5(job.body, usedforsecurity=False).hexdigest()
    seen = None if found is None else found.etag
    if found is not None and seen != ours and not _is_md5(found.etag) and found.size == len(job.body):
        seen = ours
    decision = decide(
        Found(seen, bool(folder)),
        our_etag=ours,
        attempted=attempted,
        rebuilt=job.rebuilt,
        released=job.released,
        now=now,
        doubt=order.doubt,
    )
    return decision, at


def _is_md5(etag: str) -> bool:
    return len(etag) == 32 and all(c in "0123456789abcdef" for c in etag)


def _choose(order: Order, store: ObjectStore) -> tuple[str, int]:
    """The job's id and attempt.

    A first attempt takes the last number in a row that S3 shows, to adopt it (the journal was lost); a rerun takes the first
    one, from the journal's on, of which S3 shows nothing (F82).
    """
    job, layout = order.job, order.layout
    taken: tuple[str, int] | None = None
    for attempt in range(job.attempt, job.attempt + ATTEMPTS_SEARCHED):
        job_id = identity(job, layout, attempt)
        if job_id in order.others:
            continue  # the id of another file's job, which had this key before: its results are not this job's (F96)
        there = store.find(layout.submit_key(job_id)) is not None or bool(store.list(layout.job_folder(job_id)).objects)
        if job.attempt > 0 and not there:
            return job_id, attempt
        if job.attempt == 0 and not there:
            return taken or (job_id, attempt)
        taken = (job_id, attempt)
    raise NcaasdError(f"{job.spec.name} {job.spec.unit} has more than {ATTEMPTS_SEARCHED} attempts in S3")


def _fits(bucket: str, job_id: str) -> str:
    if naming.id_fits(bucket, job_id):
        return ""
    return (
        f"the bucket name {bucket} and the job id {job_id} are together longer than {naming.ID_LIMIT} characters: NeuroCAAS"
        " would fail after machines were started"
    )


def _with_etags(datasets: Sequence[Dataset], etags: dict[str, str]) -> list[Dataset]:
    return [replace(d, etag=etags.get(d.key, "")) for d in datasets]


def _put_config(order: Order, store: ObjectStore) -> Report | None:
    """Put the job's config under the key made from its content; an object of the same size already there is the same
    config."""
    if order.config is None:
        return None
    found = store.find(order.config_key)
    if found is None:
        try:
            store.put(order.config_key, order.config, crc=crc64nvme(order.config), only_if_absent=True)
        except Exists:
            found = store.find(order.config_key)
    if found is not None and found.size != len(order.config):
        return Report(
            Ending.HELD, kind=Hold.FOREIGN, reason=f"{order.config_key} in S3 is another config than this job's"
        )
    return None


def _foreign_config(order: Order, there: str) -> Report | None:
    """Under a name that jobs share, overwrite only a config that this rig has put; otherwise hold the job for a person."""
    if (
        order.config is None
        or Hold.CONFIG in order.job.released
        or there in {"", etag_of(order.config), *order.configs}
    ):
        return None
    text = (
        f"{order.config_key} in S3 is another config than this job's, and not this rig's: other jobs may be reading it"
    )
    return Report(Ending.HELD, kind=Hold.CONFIG, reason=text)


def _put_shared_config(order: Order, job: JobRow, store: ObjectStore, log: SubmitLog) -> Report | None:
    """Put the job's config under the name that jobs share; it is this job's turn since its intent."""
    there = _config_there(order, store)
    if order.config is None:
        if there == job.config_etag:
            return None
        return Report(Ending.WAITS, reason=f"its config configs/{job.spec.config} is not here any more")
    foreign = _foreign_config(order, there)
    if foreign is not None:
        return foreign
    etag = etag_of(order.config)
    if etag != job.config_etag:
        log.configured(etag)
    if there != etag:
        store.put(order.config_key, order.config, crc=crc64nvme(order.config), only_if_absent=False)
    return None


def _config_there(order: Order, store: ObjectStore) -> str:
    """The MD5 of the object at the config's key, "" when there is none. Usually this is its ETag. An unknown ETag is not
    trusted, because those of KMS-encrypted buckets look like MD5s and are none: the object is read, unless it is too large
    for a config."""
    found = store.find(order.config_key)
    if found is None:
        return ""
    known = {*order.configs, order.job.config_etag, etag_of(order.config) if order.config is not None else ""}
    if found.etag in known or found.size > CONFIG_LIMIT:
        return found.etag
    return etag_of(store.read(order.config_key, limit=CONFIG_LIMIT)[0])


def _unverified(
    order: Order, store: ObjectStore, foreign: Callable[[str], ObjectStore] | None, *, config: bool = False
) -> Report | None:
    """Why the job can't start: a dataset or the config that S3 doesn't show as recorded. None when all is there."""
    for dataset in order.job.spec.datasets:
        found = _look_for(order, store, foreign, dataset.key)
        if isinstance(found, Report):
            return found
        if found is None:
            # NeuroCAAS checks existence by prefix ("data" passes when only "data2" is there), so the exact key is checked
            # here.
            return Report(Ending.WAITS, reason=f"{dataset.name} is not in S3 ({dataset.key})", missing=dataset.key)
        recorded = order.etags.get(dataset.key)
        if recorded and found != _UNSEEN and found.etag != recorded:
            return Report(
                Ending.HELD,
                kind=Hold.REPLACED,
                reason=f"{dataset.name} in S3 is not what this machine put there: somebody replaced it",
            )
    if config and order.config_key:
        found = _look_for(order, store, foreign, order.config_key)
        if isinstance(found, Report):
            return found
        if found is None and order.config is not None:
            return _put_config(order, store)
        if found is None:
            missing = f"its config {order.config_key} is not in S3"
            return Report(Ending.WAITS, reason=missing, missing=order.config_key)
    return None


_UNSEEN = ObjectInfo("", 0, "", 0.0)  # stands for an object that can't be seen, and that a person has confirmed


def _look_for(
    order: Order, store: ObjectStore, foreign: Callable[[str], ObjectStore] | None, name: str
) -> ObjectInfo | Report | None:
    """The object at a key, or at an s3:// address. A bucket that refuses our access key may be open to NeuroCAAS: a person
    must confirm that."""
    bucket, key = _where(name, store.bucket)
    if bucket == store.bucket or foreign is None:
        return store.find(key)
    try:
        return foreign(bucket).find(key)
    except NoSuchBucket as error:
        return Report(Ending.WAITS, reason=error.message)
    except Denied as error:
        if Hold.UNSEEN in order.job.released:
            return _UNSEEN
        return Report(Ending.HELD, kind=Hold.UNSEEN, reason=f"{name} can't be looked for: {error.message}")


def _where(key: str, home: str) -> tuple[str, str]:
    return addresses.split(key) if addresses.is_address(key) else (home, key)
