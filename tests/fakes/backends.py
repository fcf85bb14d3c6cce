"""Clients of the servers that the store's tests run against, and how the tests look behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import botocore.session
import pytest
from awscrt.checksums import crc64nvme
from fakes.memory_store import MemoryStore
from fakes.sdk_requests import SdkRequests

from ncaasd.adapters.s3.answers import Requests
from ncaasd.adapters.s3.requests import FastRequests
from ncaasd.adapters.s3.store import S3Store
from ncaasd.model import ObjectInfo
from ncaasd.ports import ObjectStore
from ncaasd.sandbox.policy import Credentials

BUCKET = "caiman-ncap-web"
GROUP = "lab"
WAYS: dict[str, Callable[..., Requests]] = {"fast": FastRequests, "sdk": SdkRequests}


class FixedSession:
    """One key, never renewed."""

    def __init__(self, who: Credentials) -> None:
        self.label = "the test's key"
        self._session = botocore.session.Session()
        self._session.set_credentials(who.access_key, who.secret_key)

    def session(self) -> botocore.session.Session:
        return self._session

    def renew(self, used: botocore.session.Session) -> bool:
        return False


@dataclass
class Backend:
    """A server under test. `cannot` names what it does not honour; rows that need it skip there, and say so."""

    name: str
    make: Callable[[], ObjectStore]  # another client of the same bucket, as after a restart
    seed: Callable[[str, bytes], None]  # the platform puts an object
    created: Callable[[str], int]  # ObjectCreated events of a key
    cannot: dict[str, str] = field(default_factory=dict)

    def must(self, promise: str) -> None:
        if promise in self.cannot:
            pytest.skip(f"{self.name}: {self.cannot[promise]}")


MOTO_CANNOT = {
    "checksums": "accepts wrong checksums",
    "full-object checksums": "accepts wrong checksums",
    "policy": "enforces no policy",
    "multipart errors": "answers 500 where S3 says NoSuchUpload",
}
WEED_CANNOT: dict[str, str] = {}


def admin_client(endpoint: str, who: Credentials) -> Any:
    return FixedSession(who).session().create_client("s3", region_name="us-east-1", endpoint_url=endpoint)


def s3_backend(
    name: str, endpoint: str, lab: Credentials, admin: Credentials, way: str, cannot: dict[str, str]
) -> Backend:
    """way: one of WAYS."""
    client = admin_client(endpoint, admin)
    session = FixedSession(lab)

    def created(key: str) -> int:
        pages = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=key)
        return sum(version["Key"] == key for page in pages for version in page.get("Versions", ()))

    def make() -> ObjectStore:
        return S3Store(
            BUCKET, session, region="us-east-1", endpoint_url=endpoint, requests=WAYS[way], sleep=lambda _: None
        )

    def seed(key: str, body: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=key, Body=body)

    return Backend(name, make, seed, created, cannot)


def memory_backend() -> Backend:
    store = MemoryStore(BUCKET)
    store.deny("get", lambda key: "/inputs/" in key or "/submissions/" in key)
    store.deny({"put", "create_multipart"}, lambda key: "/results/" in key or not key.startswith(f"{GROUP}/"))
    store.deny({"list", "find"}, lambda key: not key.startswith(f"{GROUP}/"))
    return Backend("memory", lambda: store, lambda key, body: store.seed(key, body) and None, store.created)


def put(store: ObjectStore, key: str, body: bytes, *, only_if_absent: bool = False, retry: bool = True) -> ObjectInfo:
    return store.put(key, body, crc=crc64nvme(body), only_if_absent=only_if_absent, retry=retry)
