"""What a submit file asks for, read as NeuroCAAS's job manager reads it.

Rules: NeuroCAAS protocol, docs/neurocaas.md, "Names" and "Storage bypass".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ncaasd.neurocaas.addresses import is_address, split
from ncaasd.sandbox.cloud import Place


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit file that could be read. `key` is its own; `body` is a mapping with at least a timestamp."""

    bucket: str
    key: str
    body: Mapping[str, Any]

    @property
    def group(self) -> str:
        return self.key.partition("/submissions")[0]

    @property
    def job_name(self) -> str:
        return f"job__{self.bucket}_{self.body['timestamp']}"

    @property
    def home(self) -> Place:
        return Place(self.bucket, f"{self.group}/results/{self.job_name}")


@dataclass(frozen=True, slots=True)
class Request:
    """Where a job's data, config, logs and end marker are. `notes` are the certificate's lines about that."""

    source: str  # the bucket of data and config
    names: list[Any]  # the datasets' keys, unchecked: any values that the submit file has in its list
    config: Any  # key
    logs: Place
    end: Place | None  # None: no end marker ever comes
    notes: tuple[str, ...]


def read_submission(bucket: str, key: str, raw: bytes) -> Submission:
    """Read a submit file. Raises ValueError where the platform's job manager would die before it has a certificate."""
    if not re.match(r".+?(?=/submissions)", key):
        raise ValueError("it is in no group's submissions/")
    try:
        body = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"it is not JSON in UTF-8 without BOM: {error}") from error
    if not isinstance(body, dict) or "timestamp" not in body:
        raise ValueError("it is no JSON object with a timestamp")
    return Submission(bucket, key, body)


def resolve(submission: Submission, data: str | list[Any], config: Any) -> Request:
    """Resolve storage bypass. Raises ValueError or LookupError where the platform dies of the request."""
    names = [data] if isinstance(data, str) else data
    source, notes = submission.bucket, []
    asked: dict[str, Any] = {"bucket": None, "datapath": None, "configpath": None}
    if all(isinstance(name, str) and is_address(name) for name in [*names, config]):
        source, config = split(config)
        if split(names[0])[0] != source:
            raise ValueError("data and config are in different buckets")
        names = [split(name)[1] for name in names]  # the other datasets' buckets are ignored
        notes.append(f"Storage Bypass initiated from bucket: s3://{source}")
        paths = names[0] if isinstance(data, str) else names
        asked = {"bucket": source, "datapath": paths, "configpath": config}
    logs = submission.home
    end: Place | None = logs
    target = submission.body.get("resultpath")
    to: dict[str, str | None] = {"bucket": None, "resultpath": None}
    if isinstance(target, str) and is_address(target):
        bucket, path = split(target)
        notes.append(f"Storage Bypass initiated to bucket: s3://{bucket}")
        to = {"bucket": bucket, "resultpath": path}
        logs = Place(bucket, f"{path.strip('/')}/{submission.job_name}".lstrip("/"))
        # The marker is put into the analysis's own bucket, at that path; without a path, nowhere.
        end = Place(submission.bucket, logs.prefix) if path else None
    notes.append(f"Full bypass info: {{'input': {asked}, 'output': {to}}}")
    if not names or "/inputs/" not in str(names[0]):
        end = None
    return Request(source, names, config, logs, end, tuple(notes))


def results_place(submission: Submission, request: Request, name: str) -> Place:
    """Where a dataset's worker puts its results. The worker takes the group from the dataset's own name."""
    if request.logs != submission.home:
        return request.logs
    folder = f"results/{submission.job_name}"
    if request.source != submission.bucket:
        return Place(request.source, f"{name.partition('/')[0]}/{folder}")
    group, found, _rest = name.rpartition("/inputs")
    return Place(request.source, f"{group if found else submission.group}/{folder}")


def load_config(name: str, raw: bytes) -> Any:
    """Read a config. Raises what Python raises at NeuroCAAS for an invalid one."""
    if name.endswith(".json"):
        passed_config = json.loads(raw.decode("utf-8"))
    elif name.endswith(".yaml"):
        passed_config = yaml.safe_load(raw)
    return passed_config  # any other extension: the very UnboundLocalError that people find in their certificates
