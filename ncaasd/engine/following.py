"""Look at one job in S3: one listing a folder, and GETs of what has changed. Runs on a lane; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ncaasd.errors import Absent, Exists, StoreError
from ncaasd.model import JobRow, ObjectInfo
from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, parse_certificate, parse_status, status_basename
from ncaasd.neurocaas.evidence import Evidence
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import ArtefactPlaces, S3Place, SubmitBody, artefacts, basename
from ncaasd.ports import ObjectStore

LOG_LIMIT = 64 * 2**20  # a certificate or status file above this is not a log any more
PLAIN_RESULTS = ("end.txt", "update.txt")  # markers, not results


@dataclass(frozen=True, slots=True)
class Seen:
    """One object of a job's folder. `name` is its path below the job's folder, `place` where it lies."""

    name: str
    place: S3Place
    info: ObjectInfo


@dataclass(frozen=True, slots=True)
class Text:
    """A log that was read, and the etag it had."""

    etag: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sighting:
    """All that one look showed."""

    at: float  # the server's time
    objects: tuple[Seen, ...]
    logs: Mapping[str, Text]  # by name below the job's folder: all logs known, read now or before
    fresh: frozenset[str]  # names of those read now
    evidence: Evidence

    @property
    def signature(self) -> frozenset[tuple[str, str]]:
        return frozenset((o.name, o.info.etag) for o in self.objects)


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


def look(
    job: JobRow, layout: Layout, store_for: Callable[[str], ObjectStore], known: Mapping[str, Text], *, timeout: float
) -> Sighting:
    """One look at `job`. `known` are the logs read before, so that only changed ones are read again.

    Raises StoreError when its folder can't be listed.
    """
    places = places_of(job, layout)
    objects, at = _list(places, store_for)
    logs: dict[str, Text] = {}
    fresh = set()
    for seen in objects:
        if not seen.name.startswith("logs/"):
            continue
        before = known.get(seen.name)
        if before is not None and before.etag == seen.info.etag:
            logs[seen.name] = before
            continue
        text = _read(seen, store_for)
        if text is not None:
            logs[seen.name] = text
            fresh.add(seen.name)
        elif before is not None:
            logs[seen.name] = before
    marker = _marker(places, objects, store_for)
    certificate = logs.get("logs/certificate.txt")
    statuses = _statuses(logs)
    started = job.seen or job.submitted or job.created  # the server's time of the submit, where it is known
    changed = max((s.info.modified for s in objects), default=started)
    evidence = Evidence(
        certificate=_certificate(certificate),
        expected=tuple(basename(d.key) for d in job.spec.datasets),
        statuses=statuses,
        end_marker=marker,
        quiet=max(0.0, at - max(changed, started)),
        age=max(0.0, at - started),
        timeout=timeout,
        blind=places.blind,
        results=_results(objects),
    )
    return Sighting(at, tuple(objects), logs, frozenset(fresh), evidence)


def _results(objects: list[Seen]) -> int:
    return sum(o.name.startswith("process_results/") and basename(o.name) not in PLAIN_RESULTS for o in objects)


def _certificate(text: Text | None) -> Certificate | None:
    return None if text is None else parse_certificate(text.data.decode("utf-8", "replace"))


def _statuses(logs: Mapping[str, Text]) -> dict[str, DatasetStatus | None]:
    found: dict[str, DatasetStatus | None] = {}
    for name, text in logs.items():
        base = status_basename(basename(name))
        if base is not None:
            found[base] = parse_status(text.data, name)
    return found


def _list(places: ArtefactPlaces, store_for: Callable[[str], ObjectStore]) -> tuple[list[Seen], float]:
    """Every object of the job's folders, by its name below them; the certificate's own place wins over the stub's."""
    found: dict[str, Seen] = {}
    at = 0.0
    for folder in places.folders:
        listing = store_for(folder.bucket).list(folder.key)
        at = max(at, listing.at)
        for info in listing.objects:
            name = info.key[len(folder.key) :]
            if name and not name.endswith("/") and name not in found:
                found[name] = Seen(name, S3Place(folder.bucket, info.key), info)
    return sorted(found.values(), key=lambda s: s.name), at


def _read(seen: Seen, store_for: Callable[[str], ObjectStore]) -> Text | None:
    try:
        data, info = store_for(seen.place.bucket).read(seen.place.key, limit=LOG_LIMIT)
    except (Absent, Exists):
        return None  # deleted or replaced since the listing: the next look tells
    return Text(info.etag, data)


def _marker(places: ArtefactPlaces, objects: list[Seen], store_for: Callable[[str], ObjectStore]) -> str | None:
    """The end marker's body; where it can't be read, its presence says less: as if it were a worker's own."""
    if places.end_marker is None:
        return None
    for seen in objects:
        if seen.place == places.end_marker:
            text = _read(seen, store_for)
            return None if text is None else text.data.decode("utf-8", "replace")
    if places.end_marker_readable or places.results.bucket == places.end_marker.bucket:
        return None
    try:
        data, _ = store_for(places.end_marker.bucket).read(places.end_marker.key, limit=4096)
    except StoreError:
        return None
    return data.decode("utf-8", "replace")
