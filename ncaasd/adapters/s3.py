"""One bucket of S3, as the ObjectStore port promises it.

Only what NeuroCAAS's policy allows a user's key is used: put, multipart create/part/complete, list, delete; get and
head on results and configs. No request of ours needs HEAD or GET on inputs, ListParts or Abort (NeuroCAAS protocol,
docs/neurocaas.md).

Errors leave as `errors.StoreError` (s3_errors.py). Tries and waits are decided here, and only here: the SDK's own
retries are off, so that `retry=False` is one request, and so that both ways of sending behave the same.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import botocore.config
import botocore.session
from botocore import UNSIGNED

from ncaasd.adapters.s3_answers import Blocks, encoded, etag_of, full_crc, multipart_etag, number_of
from ncaasd.adapters.s3_errors import (
    DELETE,
    GET,
    LIST,
    PUT,
    AbandonedError,
    Request,
    WrongRegionError,
    not_s3,
    server_time,
    translate,
)
from ncaasd.adapters.s3_fast import FastBytes
from ncaasd.adapters.s3_sdk import SdkBytes, alone
from ncaasd.errors import Absent, BadCredentials, Busy, Corrupted, Denied, StoreError
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.ports import Pace

T = TypeVar("T")
Client = Any  # botocore makes its clients' classes at run time

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 45.0  # seconds; with the connect timeout, a half-open socket is given up within 60 s
FIRST_WAIT, LONGEST_WAIT = 0.3, 5.0  # seconds between tries; who waits longer is the caller's business


class Sessions(Protocol):
    """Where credentials come from. `credentials.CredentialSource` is the real one."""

    @property
    def label(self) -> str:
        """For sentences: "the profile dlc"."""

    def session(self) -> botocore.session.Session:
        """The session to use now: another one as soon as the files it was read from have changed."""

    def renew(self, used: botocore.session.Session) -> bool:
        """`used` was refused: read everything again. True when there is something new to try with."""


# The objects, the server's time, and the token of the next page or "".
_Page = tuple[list[ObjectInfo], float, str]


class S3Store:
    """One bucket, with one key's permissions. Safe to use from many threads.

    `endpoint_url`: another S3 than AWS's, addressed path-style. `unsigned`: a public bucket, read without credentials.
    `fast`: bodies by s3_fast.py, else by the SDK. `attempts`: tries of one request, retry=False aside.
    """

    def __init__(
        self,
        bucket: str,
        sessions: Sessions,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        unsigned: bool = False,
        fast: bool = True,
        connections: int = 16,
        attempts: int = 3,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = bucket
        self._sessions = sessions
        self._region = region
        self._timeouts = {"connect_timeout": connect_timeout, "read_timeout": read_timeout}
        self._connections = connections
        self._endpoint_url = endpoint_url
        self._unsigned = unsigned
        self._fast = fast
        self._label = "no credentials" if unsigned else sessions.label
        self._attempts = attempts
        self._sleep = sleep
        self._config = botocore.config.Config(
            signature_version=UNSIGNED if unsigned else "s3v4",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=connections,
            tcp_keepalive=True,
            retries={"total_max_attempts": 1, "mode": "standard"},
            # Our checksums are made once, where the file is read, and sent as headers; the SDK's would be a second pass.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint_url else "auto", "payload_signing_enabled": False},
            user_agent_extra="ncaasd",
        )
        self._lock = threading.Lock()
        self._made: _Made | None = None

    @property
    def bucket(self) -> str:
        return self._bucket

    def list(self, prefix: str) -> Listing:
        objects: tuple[ObjectInfo, ...] = ()
        at: float | None = None
        token = ""
        while True:
            page, page_at, next_token = self._page(prefix, token, 1000)
            objects += tuple(page)
            # The first page's time: what changed while later pages came must not look older than it is.
            at = page_at if at is None else at
            if not next_token:
                return Listing(objects, at)
            if next_token == token:
                raise not_s3(self._request(LIST, prefix), "a listing that never ends")
            token = next_token

    def find(self, key: str) -> ObjectInfo | None:
        # Of all keys that begin with `key`, itself is the first: no more than a few need to be listed.
        page, _at, _token = self._page(key, "", 5)
        return next((info for info in page if info.key == key), None)

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        crc: int,
        only_if_absent: bool,
        retry: bool = True,
        pace: Pace | None = None,
    ) -> ObjectInfo:
        request = self._request(PUT, key)

        def send(to: _Made) -> ObjectInfo:
            headers = to.bytes.put(request, body, crc=encoded(crc), only_if_absent=only_if_absent, part=None, pace=pace)
            return ObjectInfo(key, len(body), etag_of(headers, request), server_time(headers, request))

        return self._tried(request, send, attempts=self._attempts if retry else 1)

    def create_multipart(self, key: str) -> str:
        request = self._request(PUT, key)

        def send(to: _Made) -> str:
            answer = to.client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
            )
            upload_id = answer.get("UploadId")
            if not upload_id:
                raise not_s3(request, "an answer without an UploadId")
            return str(upload_id)

        return self._tried(request, send)

    def put_part(
        self, key: str, upload_id: str, number: int, body: bytes | memoryview, *, crc: int, pace: Pace | None = None
    ) -> Part:
        request = self._request(PUT, key)

        def send(to: _Made) -> Part:
            headers = to.bytes.put(
                request, body, crc=encoded(crc), only_if_absent=False, part=(upload_id, number), pace=pace
            )
            return Part(number, len(body), etag_of(headers, request), crc)

        return self._tried(request, send)

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        request = self._request(PUT, key)
        named = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"', "ChecksumCRC64NVME": encoded(part.crc)}
            for part in parts
        ]

        def send(to: _Made) -> ObjectInfo:
            answer = to.client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": named},
                ChecksumCRC64NVME=encoded(crc),
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=size,
                **({"IfNoneMatch": "*"} if only_if_absent else {}),
            )
            etag = etag_of({"etag": answer.get("ETag", "")}, request)
            if etag != multipart_etag(parts):
                raise Corrupted(f"{self._bucket}/{key} was put together from other parts than were sent ({etag})")
            return ObjectInfo(key, size, etag, server_time(_headers(answer), request))

        return self._tried(request, send)

    def get(self, key: str, *, etag: str | None = None, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See the port. The request is sent at once; the iterator has a `close()` for who stops before its end.

        A whole object is checked against the CRC64NVME that S3 keeps for it, where it keeps one.
        """
        if length == 0:
            return iter(())
        return self._opened(key, etag, start, length)[0]

    def read(self, key: str, *, limit: int) -> tuple[bytes, ObjectInfo]:
        blocks, info = self._opened(key, None, 0, None)
        if info.size > limit:
            blocks.close()
            raise Corrupted(f"{self._bucket}/{key} has {info.size} bytes, and {limit} at most are expected")
        return b"".join(blocks), info

    def checksum(self, key: str, *, etag: str) -> int | None:
        request = self._request(GET, key)

        def send(to: _Made) -> int | None:
            answer = to.client.head_object(Bucket=self._bucket, Key=key, IfMatch=f'"{etag}"', ChecksumMode="ENABLED")
            headers = _headers(answer)
            etag_of(headers, request)
            return full_crc(headers)

        return self._tried(request, send)

    def delete(self, key: str) -> None:
        request = self._request(DELETE, key)

        def send(to: _Made) -> None:
            status = to.client.delete_object(Bucket=self._bucket, Key=key)["ResponseMetadata"]["HTTPStatusCode"]
            if status != 204:
                raise not_s3(request, f"HTTP {status} for a delete")

        self._tried(request, send)

    def close(self) -> None:
        """Give the kept connections back. The store can be used again after it."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.bytes.close()
            made.client.close()

    # -- inside

    def _request(self, permission: str, key: str) -> Request:
        return Request(permission, self._bucket, key, self._label)

    def _page(self, prefix: str, token: str, count: int) -> _Page:
        request = self._request(LIST, prefix)

        def send(to: _Made) -> _Page:
            more = {"ContinuationToken": token} if token else {}
            answer = to.client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=count, **more)
            # A portal's page may well be XML: read as a listing it would say that nothing is there.
            if answer.get("Name") != self._bucket:
                raise not_s3(request, "a listing of nothing")
            page = [
                ObjectInfo(found["Key"], found["Size"], found["ETag"].strip('"'), found["LastModified"].timestamp())
                for found in answer.get("Contents", ())
            ]
            truncated = bool(answer.get("IsTruncated"))
            return (
                page,
                server_time(_headers(answer), request),
                answer.get("NextContinuationToken", "") if truncated else "",
            )

        return self._tried(request, send)

    def _opened(self, key: str, etag: str | None, start: int, length: int | None) -> tuple[Blocks, ObjectInfo]:
        request = self._request(GET, key)
        ranged = start > 0 or length is not None
        span = f"bytes={start}-" + ("" if length is None else str(start + length - 1)) if ranged else None

        def send(to: _Made) -> tuple[Blocks, ObjectInfo]:
            headers, body = to.bytes.get(request, etag=etag, span=span)
            try:
                found = etag_of(headers, request)
                if etag is not None and found != etag:
                    raise not_s3(request, "another object than was asked for")
                if ranged and not headers.get("content-range", "").startswith(f"bytes {start}-"):
                    raise not_s3(request, "another range than was asked for")
                size = number_of(headers, "content-length", request)
                if length is not None and size != length:
                    raise Corrupted(f"{self._bucket}/{key} has {size} bytes from {start} on, not {length}")
                info = ObjectInfo(key, size, found, server_time(headers, request, "last-modified"))
            except StoreError:
                body.close()
                raise
            return Blocks(body, request, size, None if ranged else full_crc(headers)), info

        try:
            return self._tried(request, send)
        except Denied:
            # For a key that is not there, AWS answers 403 to who may not list the bucket's top.
            if self.find(key) is None:
                raise Absent(f"{self._bucket}/{key} is not there") from None
            raise

    def _current(self) -> _Made:
        """What sends, for the credentials and the region as they are now."""
        with self._lock:
            session = self._sessions.session()
            made = self._made
            if made is None or made.session is not session or made.region != self._region:
                client = alone(
                    session.create_client(
                        "s3", region_name=self._region, config=self._config, endpoint_url=self._endpoint_url
                    )
                )
                sender: SdkBytes | FastBytes = SdkBytes(self._bucket, client)
                if self._fast:
                    sender = FastBytes(
                        self._bucket,
                        None if self._unsigned else session,
                        client,
                        ca_bundle=session.get_config_variable("ca_bundle"),
                        connections=self._connections,
                        **self._timeouts,
                    )
                self._made = made = _Made(session, self._region, client, sender)
            return made

    def _mended(self, error: StoreError, made: _Made) -> bool:
        """Whether what was refused has a cause that we could do something about: worth one more try."""
        if isinstance(error, BadCredentials):
            return self._sessions.renew(made.session)
        if isinstance(error, WrongRegionError) and error.region not in ("", made.region):
            with self._lock:
                self._region = error.region
            return True
        return False

    def _tried(self, request: Request, send: Callable[[_Made], T], *, attempts: int | None = None) -> T:
        """Send, translating what goes wrong; again when that may help, `attempts` times in all."""
        left = self._attempts if attempts is None else attempts
        once = left == 1
        mended = False
        wait = FIRST_WAIT
        while True:
            left -= 1
            made = None
            try:
                made = self._current()
                return send(made)
            except AbandonedError as abandoned:
                raise abandoned.reason from None
            except Exception as raised:
                error = translate(request, raised)
                if error is not raised:
                    error.__cause__ = raised
            if made is not None and not mended and self._mended(error, made):
                mended = True
                if not once:
                    left += 1
                    continue
            # Busy is for the caller, who looks again at what is there before anything is sent again.
            if left <= 0 or not error.transient or isinstance(error, Busy):
                raise error
            self._sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 3, LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class _Made:
    """What sends: `client` for all that is small and rare, `bytes` for objects' bodies."""

    session: botocore.session.Session
    region: str | None
    client: Client
    bytes: SdkBytes | FastBytes


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]  # names in lower case
    return found
