"""Objects' bytes to and from S3 by requests of our own: 20 to 30 times less work for a small file than by the SDK.

What the SDK is good at stays its: finding credentials and refreshing them, the endpoint, proxies and certificates.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import botocore.session
from botocore.exceptions import NoCredentialsError

from ncaasd.adapters.s3_errors import Request, answered
from ncaasd.adapters.s3_http import Answer, Pool
from ncaasd.adapters.s3_sign import UNSIGNED, Keys, Signer
from ncaasd.ports import Pace

_MAX_ERROR = 64 << 10  # bytes of an error's body


class FastBytes:
    """Puts and gets of one bucket, with one session's credentials (None: unsigned)."""

    def __init__(
        self,
        bucket: str,
        session: botocore.session.Session | None,
        client: Any,
        *,
        ca_bundle: str | None,
        connect_timeout: float,
        read_timeout: float,
        connections: int,
    ) -> None:
        self._session = session
        endpoint = urlsplit(client.meta.endpoint_url)
        # AWS wants the bucket in the host, but its certificates are for one label there; others mostly know only paths.
        in_host = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")) and "." not in bucket
        self._host = f"{bucket}.{endpoint.netloc}" if in_host else endpoint.netloc
        self._base = endpoint.path.rstrip("/") + ("/" if in_host else f"/{bucket}/")
        # The body is unsigned where TLS, or the machine itself, keeps others off it: the server verifies its CRC64NVME
        # in any case. On a plain network the signature is what a body cannot be changed under, and worth its SHA-256.
        self._sign_bodies = endpoint.scheme != "https" and not _loopback(endpoint.hostname or "")
        region = client.meta.region_name
        self._signer = Signer("us-east-1" if region in (None, "aws-global") else region)
        self._pool = Pool(
            f"{endpoint.scheme}://{self._host}",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            idle=connections,
            ca_bundle=ca_bundle,
        )

    def put(
        self,
        request: Request,
        body: bytes | memoryview,
        *,
        crc: str,
        only_if_absent: bool,
        part: tuple[str, int] | None,
        pace: Pace | None,
    ) -> Mapping[str, str]:
        """Put an object, or `part` (UploadId, number) of one; the answer's headers, their names in lower case.

        Raises StoreError for what S3 answers, else what s3_http raises.
        """
        headers = {"x-amz-checksum-crc64nvme": crc}
        if only_if_absent:
            headers["if-none-match"] = "*"
        query = f"partNumber={part[1]}&uploadId={quote(part[0], safe='')}" if part is not None else ""
        answer = self._send("PUT", request.key, query, headers, body, pace)
        if answer.status != 200:
            raise _refusal(request, answer)
        answer.text(_MAX_ERROR)
        return answer.headers

    def get(self, request: Request, *, etag: str | None, span: str | None) -> tuple[Mapping[str, str], Answer]:
        """The answer's headers, and its body to be read. span: the value of Range."""
        headers = {"range": span} if span is not None else {"x-amz-checksum-mode": "ENABLED"}
        if etag is not None:
            headers["if-match"] = f'"{etag}"'
        answer = self._send("GET", request.key, "", headers, b"", None)
        if answer.status not in (200, 206):
            raise _refusal(request, answer)
        return answer.headers, answer

    def close(self) -> None:
        self._pool.close()

    def _send(
        self, method: str, key: str, query: str, headers: dict[str, str], body: bytes | memoryview, pace: Pace | None
    ) -> Answer:
        path = self._base + quote(key, safe="/")
        headers["host"] = self._host
        if self._session is not None:
            payload = hashlib.sha256(body).hexdigest() if self._sign_bodies else UNSIGNED
            self._signer.sign(_keys(self._session), method, path, query, headers, payload, time.time())
        headers["user-agent"] = "ncaasd"
        return self._pool.request(method, f"{path}?{query}" if query else path, headers, body, pace)


def _refusal(request: Request, answer: Answer) -> Exception:
    """What S3 (or somebody in its place) says instead of doing it."""
    detail: dict[str, str] = {}
    try:
        root = ElementTree.fromstring(answer.text(_MAX_ERROR))
        if root.tag == "Error":
            detail = {child.tag: child.text or "" for child in root}
    except ElementTree.ParseError:
        pass
    return answered(request, answer.status, detail.get("Code", ""), detail, answer.headers)


def _keys(session: botocore.session.Session) -> Keys:
    credentials = session.get_credentials()
    frozen = credentials.get_frozen_credentials() if credentials is not None else None
    if frozen is None or not frozen.access_key or not frozen.secret_key:
        raise NoCredentialsError
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
