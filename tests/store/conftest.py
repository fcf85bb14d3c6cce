"""The servers that the store's tests run against: memory, moto, and the real SeaweedFS with NeuroCAAS's policy."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from fakes.backends import BUCKET, GROUP, MOTO_CANNOT, WEED_CANNOT, Backend, admin_client, memory_backend, s3_backend

from ncaasd.ports import ObjectStore
from ncaasd.sandbox.policy import Credentials
from ncaasd.sandbox.server import SandboxServer, find_weed


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS for this platform (extra `sandbox`)")
    with SandboxServer(tmp_path_factory.mktemp("weed"), buckets=[BUCKET], group=GROUP, engine="seaweedfs") as server:
        yield server


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = admin_client(endpoint, Credentials("admin", "admin"))
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def moto_backend(moto_endpoint: str) -> Backend:
    who = Credentials("lab", "lab")
    return s3_backend("moto", moto_endpoint, who, who, MOTO_CANNOT)


@pytest.fixture(scope="session")
def weed_backend(weed: SandboxServer) -> Backend:
    return s3_backend("weed", weed.endpoint, weed.lab_credentials, weed.admin_credentials, WEED_CANNOT)


@pytest.fixture(params=["memory", "moto", pytest.param("weed", marks=pytest.mark.weed)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        return memory_backend()
    found: Backend = request.getfixturevalue(f"{request.param}_backend")
    return found


@pytest.fixture
def store(backend: Backend) -> ObjectStore:
    return backend.make()


@pytest.fixture
def unique() -> str:
    """A part of a key that no other test has."""
    return uuid.uuid4().hex[:12]
