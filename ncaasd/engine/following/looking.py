"""Look at one job in S3: one listing per folder, and GETs of what has changed. Runs on a worker; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ncaasd.errors import Absent, Denied, Exists, NoSuchBucket, StoreError
from ncaasd.model import JobRow, ObjectInfo, Origin
from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, parse_certificate, parse_status, status_basename
from ncaasd.neurocaas.evidence import Evidence
from ncaasd.neurocaas.machines import machine_number, remembered
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import ArtefactPlaces, S3Place, SubmitBody, artefacts, basename, is_result
from ncaasd.ports import ObjectStore

CERTIFICATE = "logs/certificate.txt"
LOG_LIMIT = 64 * 2**20  # bytes; a larger certificate or status file is not read
CLOSED = (Denied, NoSuchBucket)  # the errors with which another bucket refuses access

StoreFor = Callable[[str], ObjectStore]


@dataclass(frozen=True, slots=True)
class Seen:
    """One object of a job's folder. `name`: its path below the job's folder; `place`: its bucket and key."""

    name: str
    place: S3Place
    info: ObjectInfo


@dataclass(frozen=True, slots=True)
class Text:
    """A log or end marker that was read: its ETag, its bytes, and what they mean."""

    etag: str
    data: bytes
    says: Certificate | DatasetStatus | str | None  # the parsed content; None: half-written

    def read_before(self) -> Text:
        """The form that is kept until the next look: without the bytes."""
        return replace(self, data=b"")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one look showed."""

    at: float  # the server's time
    born: float  # the server's time of the oldest thing in the job's folders; 0 while there is none
    objects: tuple[Seen, ...]
    texts: Mapping[str, Text]  # by name below the job's folder: all that are known, read now or before
    fresh: frozenset[str]  # names of the logs that were read now
    evidence: Evidence
    unseen: str  # why part of the job can't be seen: another bucket refuses access

    def known(self) -> dict[str, Text]:
        """The texts that the next look need not read again."""
        return {name: text.read_before() for name, text in self.texts.items()}

    @property
    def certificate(self) -> Certificate | None:
        return self.evidence.certificate


def places_of(job: JobRow, layout: Layout) -> ArtefactPlaces:
    spec = job.spec
    body = SubmitBody(
        tuple(d.key for d in spec.datasets),
        job.config_key or spec.config,
        job.job_id,
        spec.instance_type,
        spec.resultpath,
    )
    return artefacts(body, layout)


def look(job: JobRow, layout: Layout, store_for: StoreFor, known: Mapping[str, Text], *, timeout: float) -> Snapshot:
    """Look at `job` once. `known`: what earlier looks have read, so that only changed objects are read again.

    Raises StoreError when its folder in the analysis's own bucket can't be listed; another bucket that refuses access is
    named in `unseen`.
    """
    return _Look(layout, store_for, known).at(job, timeout)


class _Look:
    """The state of one look."""

    def __init__(self, layout: Layout, store_for: StoreFor, known: Mapping[str, Text]) -> None:
        self._home = layout.bucket
        self._layout = layout
        self._store_for = store_for
        self._known = known
        self._texts: dict[str, Text] = {}
        self._fresh: set[str] = set()
        self._unseen: dict[str, str] = {}
        self._time = 0.0
        self._born = 0.0

    def at(self, job: JobRow, timeout: float) -> Snapshot:
        places = places_of(job, self._layout)
        objects = self._list(places)
        for seen in objects:
            if seen.name.startswith("logs/") and self._text(seen):
                self._fresh.add(seen.name)
        marker = self._marker(places, objects)
        certificate = self._says(CERTIFICATE)
        started = self._started(job)
        changed = max((s.info.modified for s in objects), default=started)
        evidence = Evidence(
            certificate=certificate if isinstance(certificate, Certificate) else None,
            expected=tuple(basename(d.key) for d in job.spec.datasets),
            statuses=self._statuses(),
            end_marker=marker,
            quiet=max(0.0, self._time - max(changed, started)),
            age=max(0.0, self._time - started),
            timeout=timeout,
            blind=places.blind,
            results=sum(is_result(seen.name, job.config_key or job.spec.config) for seen in objects),
            numbers=frozenset(number for seen in objects if (number := machine_number(seen.name))),
            memory=remembered(job.machine_verdicts),
        )
        unseen = "; ".join(f"s3://{bucket} can't be looked into: {why}" for bucket, why in self._unseen.items())
        return Snapshot(self._time, self._born, tuple(objects), self._texts, frozenset(self._fresh), evidence, unseen)

    def _started(self, job: JobRow) -> float:
        """The server's time of the submit; for a job started elsewhere, that of the oldest object in its folder."""
        if job.spec.origin is Origin.ELSEWHERE:
            return self._born or job.created
        return job.seen or job.submitted or job.created

    def _list(self, places: ArtefactPlaces) -> list[Seen]:
        """Every object of the job's folders, by its name below them; the certificate's own place wins over the stub's."""
        found: dict[str, Seen] = {}
        for folder in places.folders:
            try:
                listing = self._store_for(folder.bucket).list(folder.key)
            except CLOSED as error:
                self._closed(folder.bucket, error)
                continue
            self._time = max(self._time, listing.at)
            for info in listing.objects:
                self._born = min(self._born or info.modified, info.modified)
                name = info.key[len(folder.key) :]
                if name and not name.endswith("/") and name not in found:
                    found[name] = Seen(name, S3Place(folder.bucket, info.key), info)
        return sorted(found.values(), key=lambda s: s.name)

    def _closed(self, bucket: str, error: StoreError) -> None:
        """Raise a refusal by the analysis's own bucket, since it concerns the whole analysis; note one by another bucket,
        for this job only."""
        if bucket == self._home:
            raise error
        self._unseen[bucket] = error.message

    def _text(self, seen: Seen) -> bool:
        """Get an object's text; True when it was read now. If it can't be read now, the text of an earlier look stays."""
        before = self._known.get(seen.name)
        if before is not None:
            self._texts[seen.name] = before
            if before.etag == seen.info.etag:
                return False
        if seen.info.size > LOG_LIMIT:
            return False
        try:
            data, info = self._store_for(seen.place.bucket).read(seen.place.key, limit=LOG_LIMIT)
        except (Absent, Exists):
            return False  # deleted or replaced since the listing: the next look finds out
        except CLOSED as error:
            self._closed(seen.place.bucket, error)
            return False
        self._texts[seen.name] = Text(info.etag, data, _meaning(seen.name, data))
        return True

    def _says(self, name: str) -> Certificate | DatasetStatus | str | None:
        text = self._texts.get(name)
        return None if text is None else text.says

    def _statuses(self) -> dict[str, DatasetStatus | None]:
        found: dict[str, DatasetStatus | None] = {}
        for name, text in self._texts.items():
            base = status_basename(basename(name))
            if base is not None:
                found[base] = text.says if isinstance(text.says, DatasetStatus) else None
        return found

    def _marker(self, places: ArtefactPlaces, objects: list[Seen]) -> str | None:
        """The end marker's body; None while it doesn't exist, or where the group may not read it."""
        place = places.end_marker
        if place is None:
            return None
        seen = next((s for s in objects if s.place == place), None)
        if seen is None and places.end_marker_readable and not any(_is_in(place, f) for f in places.folders):
            info = self._store_for(place.bucket).find(place.key)
            seen = Seen("process_results/end.txt", place, info) if info else None
        if seen is None:
            return None
        self._text(seen)
        said = self._says(seen.name)
        return said if isinstance(said, str) else None


def _meaning(name: str, data: bytes) -> Certificate | DatasetStatus | str | None:
    if name == CERTIFICATE:
        return parse_certificate(data.decode("utf-8", "replace"))
    if status_basename(basename(name)) is not None:
        return parse_status(data, name)
    return data.decode("utf-8", "replace")


def _is_in(place: S3Place, folder: S3Place) -> bool:
    return place.bucket == folder.bucket and place.key.startswith(folder.key)
