"""Where requests go, and what signs them: seen by a proxy that forwards nothing."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator

import pytest
from fakes.backends import WAYS, FixedSession, put

from ncaasd.adapters.s3.store import S3Store
from ncaasd.errors import Unreachable
from ncaasd.sandbox.policy import Credentials


class Listener:
    """A proxy that notes what it is asked for, and hangs up."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                head = b""
                while (line := stream.readline()) not in (b"\r\n", b""):
                    head += line
                self.heads.append(head.decode("latin-1"))

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def listener(monkeypatch) -> Iterator[Listener]:
    found = Listener()
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", found.endpoint)
    monkeypatch.setenv("HTTPS_PROXY", found.endpoint)
    yield found
    found.close()


def store(bucket: str, way: str, **options: object) -> S3Store:
    session = FixedSession(Credentials("AKIDEXAMPLE", "secret"))
    return S3Store(bucket, session, requests=WAYS[way], attempts=1, **options)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("bucket", "options", "environment", "line"),
    [
        ("caiman", {"region": "us-east-1"}, {}, "CONNECT caiman.s3.us-east-1.amazonaws.com:443"),
        ("caiman", {"region": "eu-west-1"}, {}, "CONNECT caiman.s3.eu-west-1.amazonaws.com:443"),
        ("caiman", {"region": "cn-north-1"}, {}, "CONNECT caiman.s3.cn-north-1.amazonaws.com.cn:443"),
        ("dots.in.it", {"region": "us-west-2"}, {}, "CONNECT s3.us-west-2.amazonaws.com:443"),
        ("caiman", {}, {"AWS_DEFAULT_REGION": "eu-west-3"}, "CONNECT caiman.s3.eu-west-3.amazonaws.com:443"),
        ("caiman", {"endpoint_url": "http://s3.lab.example:9000"}, {}, "GET http://s3.lab.example:9000/caiman?"),
        ("caiman", {"endpoint_url": "http://lab.example/s3/"}, {}, "GET http://lab.example/s3/caiman?"),
        ("caiman", {"endpoint_url": "https://s3.lab.example"}, {}, "CONNECT s3.lab.example:443"),
        ("caiman", {}, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.9:9000"}, "GET http://127.0.0.9:9000/caiman?"),
        ("caiman", {}, {"AWS_ENDPOINT_URL": "http://127.0.0.9:9000"}, "GET http://127.0.0.9:9000/caiman?"),
    ],
)
def test_where_requests_go(listener, monkeypatch, bucket, options, environment, line, way):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "region" not in options and "AWS_DEFAULT_REGION" not in environment:
        options = {**options, "region": "us-east-1"}
    with pytest.raises(Unreachable):
        store(bucket, way, **options).list("lab/inputs/")
    # With or without a slash behind the bucket: both are the bucket. The SDK's older name for us-east-1 is the same place.
    seen = listener.heads[0].replace("/?", "?").replace(".s3.amazonaws.com", ".s3.us-east-1.amazonaws.com")
    assert seen.startswith(line)


@pytest.mark.parametrize(
    ("endpoint", "signed"),
    [("http://s3.lab.example:9000", hashlib.sha256(b"body").hexdigest()), ("http://[::1]:9000", "UNSIGNED-PAYLOAD")],
)
def test_a_body_is_signed_where_others_could_change_it(listener, endpoint, signed):
    with pytest.raises(Unreachable):
        put(store("caiman", "fast", endpoint_url=endpoint), "lab/inputs/a", b"body")
    headers = dict(line.split(": ", 1) for line in listener.heads[0].splitlines()[1:])
    assert headers["x-amz-content-sha256"] == signed
    assert "x-amz-checksum-crc64nvme" in headers["authorization"]  # it is what is signed in the body's place


def test_without_credentials_nothing_is_signed(listener):
    with pytest.raises(Unreachable):
        store("public", "fast", endpoint_url="http://s3.lab.example", unsigned=True).list("")
    assert "authorization" not in listener.heads[0].lower()
    assert "x-amz-date" not in listener.heads[0].lower()
