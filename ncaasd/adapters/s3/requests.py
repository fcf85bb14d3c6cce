"""The S3 requests that we need, made without the SDK's client: each takes a tenth of its processor time.

For a put of a small file that time is the whole cost, and for a listing most of it (docs/performance.md says how much). Without
the SDK's client, an analysis with a profile of its own also takes 14 MB less memory. The SDK still finds and refreshes
credentials, and finds proxies and certificates. Tests compare these requests to the SDK's own.
Source: Amazon S3 API reference.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

import botocore.session
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

from ncaasd.adapters.s3.answers import Options, Page, Requests, encoded
from ncaasd.adapters.s3.errors import Request, answered, bare, not_s3
from ncaasd.adapters.s3.http import Answer, Pool
from ncaasd.adapters.s3.signing import UNSIGNED, Keys, Signer
from ncaasd.model import ObjectInfo, Part
from ncaasd.ports import Pace

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MAX_ERROR = 64 << 10  # bytes of an error's body
_MAX_PAGE = 8 << 20  # bytes: 1,000 keys of 1,024 bytes, percent-encoded, with what is said of each


class FastRequests(Requests):
    """Requests about one bucket, with one session's credentials.

    Raises StoreError for an error answer, AbandonedError for what a pace raises, and what http.py or botocore raise.
    """

    def __init__(
        self,
        bucket: str,
        session: botocore.session.Session,
        region: str | None,
        options: Options,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._session = None if options.unsigned else session
        region = region or session.get_config_variable("region") or "us-east-1"
        endpoint = urlsplit(options.endpoint_url or _configured_endpoint(session) or _aws_endpoint(region))
        # AWS wants the bucket in the host name, but its certificates allow only one label there; others mostly know only paths.
        in_host = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")) and "." not in bucket
        self._host = f"{bucket}.{endpoint.netloc}" if in_host else endpoint.netloc
        self._base = endpoint.path.rstrip("/") + ("/" if in_host else f"/{bucket}/")
        # The body is not signed where TLS protects it or where it doesn't leave the machine: the server verifies its CRC64NVME
        # in any case. Over plain HTTP only a signature keeps others from changing the body, and is worth the SHA-256.
        self._sign_bodies = endpoint.scheme != "https" and not _loopback(endpoint.hostname or "")
        self._signer = Signer(region)
        self._pool = Pool(
            f"{endpoint.scheme}://{self._host}",
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            idle=options.connections,
            ca_bundle=session.get_config_variable("ca_bundle"),
        )

    def close(self) -> None:
        self._pool.close()

    def list(self, request: Request, *, token: str, count: int, delimiter: str = "") -> Page:
        asked = {"encoding-type": "url", "list-type": "2", "max-keys": str(count), "prefix": request.key}
        if token:
            asked["continuation-token"] = token
        if delimiter:
            asked["delimiter"] = delimiter
        answer = self._send("GET", "", asked, {})
        root = _xml(request, answer, "ListBucketResult", _MAX_PAGE)
        objects = [_listed(found) for found in root.iterfind(f"{{{_NAMESPACE}}}Contents")]
        folders = [_decoded(_text(found, "Prefix")) for found in root.iterfind(f"{{{_NAMESPACE}}}CommonPrefixes")]
        token = _text(root, "NextContinuationToken") if _text(root, "IsTruncated") == "true" else ""
        return Page(answer.headers, _text(root, "Name"), objects, token, folders)

    def put(
        self,
        request: Request,
        body: bytes | memoryview,
        *,
        crc: int,
        only_if_absent: bool,
        part: tuple[str, int] | None,
        pace: Pace | None,
    ) -> Mapping[str, str]:
        headers = {"x-amz-checksum-crc64nvme": encoded(crc)}
        if only_if_absent:
            headers["if-none-match"] = "*"
        query = {"uploadId": part[0], "partNumber": str(part[1])} if part is not None else {}
        answer = self._send("PUT", request.key, query, headers, body, pace)
        if answer.status != 200:
            raise _refusal(request, answer)
        answer.text(_MAX_ERROR)
        return answer.headers

    def get(self, request: Request, *, etag: str | None, span: str | None) -> tuple[Mapping[str, str], Answer]:
        headers = {"range": span} if span is not None else {"x-amz-checksum-mode": "ENABLED"}
        if etag is not None:
            headers["if-match"] = f'"{etag}"'
        answer = self._send("GET", request.key, {}, headers)
        if answer.status not in (200, 206):
            raise _refusal(request, answer)
        return answer.headers, answer

    def head(self, request: Request, *, etag: str) -> Mapping[str, str]:
        headers = {"x-amz-checksum-mode": "ENABLED", "if-match": f'"{etag}"'}
        answer = self._send("HEAD", request.key, {}, headers)
        if answer.status != 200:
            raise bare(request, answer.status)
        return answer.headers

    def create(self, request: Request) -> str:
        headers = {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "FULL_OBJECT"}
        answer = self._send("POST", request.key, {"uploads": ""}, headers)
        return _text(_xml(request, answer, "InitiateMultipartUploadResult", _MAX_ERROR), "UploadId")

    def complete(
        self, request: Request, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> tuple[Mapping[str, str], str]:
        headers = {
            "x-amz-checksum-crc64nvme": encoded(crc),
            "x-amz-checksum-type": "FULL_OBJECT",
            "x-amz-mp-object-size": str(size),
        }
        if only_if_absent:
            headers["if-none-match"] = "*"
        named = "".join(
            f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{part.etag}"</ETag>'
            f"<ChecksumCRC64NVME>{encoded(part.crc)}</ChecksumCRC64NVME></Part>"
            for part in parts
        )
        body = f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{named}</CompleteMultipartUpload>'.encode()
        answer = self._send("POST", request.key, {"uploadId": upload_id}, headers, body)
        return answer.headers, _text(_xml(request, answer, "CompleteMultipartUploadResult", _MAX_ERROR), "ETag")

    def delete(self, request: Request) -> int:
        answer = self._send("DELETE", request.key, {}, {})
        if answer.status >= 300:
            raise _refusal(request, answer)
        answer.text(_MAX_ERROR)
        return answer.status

    def _send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: dict[str, str],
        body: bytes | memoryview = b"",
        pace: Pace | None = None,
    ) -> Answer:
        path = self._base + quote(key, safe="/")
        asked = "&".join(f"{name}={quote(query[name], safe='')}" for name in sorted(query))
        headers["host"] = self._host
        if self._session is not None:
            payload = hashlib.sha256(body).hexdigest() if self._sign_bodies else UNSIGNED
            self._signer.sign(self._keys(self._session), method, path, asked, headers, payload, self._now())
        headers["user-agent"] = "ncaasd"
        return self._pool.request(method, f"{path}?{asked}" if asked else path, headers, body, pace)

    def _keys(self, session: botocore.session.Session) -> Keys:
        try:
            with self._lock:  # the first thread looks them up, so a credential_process is run once
                credentials = session.get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials is not None else None
        except OSError as error:  # a credential_process that cannot be started
            raise CredentialRetrievalError(provider="the profile", error_msg=str(error)) from error
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            raise NoCredentialsError
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _xml(request: Request, answer: Answer, expected: str, limit: int) -> ElementTree.Element:
    """The root of the answer's body, which must be an `expected` element; an answer with status 200 may have an error in it."""
    if answer.status != 200:
        raise _refusal(request, answer)
    try:
        # While S3 works on a long request, it sends spaces to keep the connection open, and then the body.
        root = ElementTree.fromstring(answer.text(limit).strip())
    except ElementTree.ParseError:
        raise not_s3(request, "a body that is not S3's XML") from None
    if _plain(root) == "Error":
        raise _refused(request, 500, root, answer)
    if root.tag != f"{{{_NAMESPACE}}}{expected}":
        raise not_s3(request, f"{root.tag} in place of {expected}")
    return root


def _refusal(request: Request, answer: Answer) -> Exception:
    """The error for an answer in which S3, or a server in its place, refuses the request."""
    with contextlib.suppress(ElementTree.ParseError):
        root = ElementTree.fromstring(answer.text(_MAX_ERROR))
        if _plain(root) == "Error":
            return _refused(request, answer.status, root, answer)
    return answered(request, answer.status, "", {}, answer.headers)


def _refused(request: Request, status: int, root: ElementTree.Element, answer: Answer) -> Exception:
    detail = {_plain(child): child.text or "" for child in root}
    return answered(request, status, detail.get("Code", ""), detail, answer.headers)


def _plain(element: ElementTree.Element) -> str:
    """The tag without its namespace, which not every server gives to errors."""
    return element.tag.rpartition("}")[2]


def _text(root: ElementTree.Element, name: str) -> str:
    return root.findtext(f"{{{_NAMESPACE}}}{name}", "")


def _listed(found: ElementTree.Element) -> ObjectInfo:
    said = {_plain(child): child.text or "" for child in found}
    return ObjectInfo(
        _decoded(said["Key"]),
        int(said["Size"]),
        said["ETag"].strip('"'),
        datetime.fromisoformat(said["LastModified"]).timestamp(),
    )


def _decoded(key: str) -> str:
    return unquote_plus(key) if "%" in key or "+" in key else key


def _configured_endpoint(session: botocore.session.Session) -> str | None:
    """The endpoint of the environment or the profile, as the AWS CLI finds it."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name]
    found: str | None = session.get_scoped_config().get("endpoint_url")
    return found


def _aws_endpoint(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
