"""The servers that the store's tests run against: memory, moto, and the real SeaweedFS with NeuroCAAS's policy."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator

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
def backends(request: pytest.FixtureRequest) -> Callable[[str], Backend]:
    """Backends by name, each made when it is first asked for."""

    @functools.cache
    def backend(name: str) -> Backend:
        server, _, way = name.partition("-")
        if server == "memory":
            return memory_backend()
        if server == "moto":
            who = Credentials("lab", "lab")
            return s3_backend(name, request.getfixturevalue("moto_endpoint"), who, who, way, MOTO_CANNOT)
        weed: SandboxServer = request.getfixturevalue("weed")
        return s3_backend(name, weed.endpoint, weed.lab_credentials, weed.admin_credentials, way, WEED_CANNOT)

    return backend


@pytest.fixture(
    params=[
        "memory",
        "moto-fast",
        "moto-sdk",
        "weed-fast",
        "weed-sdk",
    ]
)
def backend(request: pytest.FixtureRequest, backends: Callable[[str], Backend]) -> Backend:
    return backends(request.param)


@pytest.fixture
def weed_backend(backends: Callable[[str], Backend]) -> Backend:
    return backends("weed-fast")


@pytest.fixture
def store(backend: Backend) -> ObjectStore:
    return backend.make()


@pytest.fixture
def unique() -> str:
    """A part of a key that no other test has."""
    return uuid.uuid4().hex[:12]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """A certificate for localhost that nobody trusts, and its key; paths of PEM files."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, bare))
    return str(folder / "cert.pem"), str(folder / "key.pem")
