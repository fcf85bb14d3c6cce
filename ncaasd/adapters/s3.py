"""One bucket of S3, as the ObjectStore port promises it.

Only what NeuroCAAS's policy allows a user's key is used: put, multipart create/part/complete, list, delete; get and
head on results and configs. No request of ours needs HEAD or GET on inputs, ListParts or Abort (NeuroCAAS protocol,
docs/neurocaas.md).

Errors leave as `errors.StoreError` (s3_errors.py). Tries and waits are decided here, and only here: the SDK's own
retries are off, so that `retry=False` is one request, and so that both ways of sending behave the same.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import botocore.config
import botocore.handlers
import botocore.session
from awscrt import checksums
from botocore import UNSIGNED

from ncaasd.adapters.s3_errors import DELETE, GET, LIST, PUT, Request, not_s3, server_time, translate
from ncaasd.errors import Absent, BadCredentials, Busy, Corrupted, Denied, StoreError
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.ports import Pace

T = TypeVar("T")
Client = Any  # botocore makes its clients' classes at run time

BLOCK = 1 << 20  # bytes: what `get` gives at a time; smaller blocks cost Python more than the network does
PACED = 128 << 10  # bytes: the most that goes to the socket between two calls of a pace
CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 45.0  # seconds; with the connect timeout, a half-open socket is given up within 60 s
FIRST_WAIT, LONGEST_WAIT = 0.3, 5.0  # seconds between tries; who waits longer is the caller's business

# A whole object's etag is 32 hexadecimal digits, a multipart one's has the count of parts behind. What looks otherwise
# is not S3: web servers, captive portals' included, send etags of their own.
_ETAG = re.compile(r'^"?([0-9a-f]{32}(?:-\d{1,5})?)"?$')


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

    `endpoint_url`: another S3 than AWS's; addressed path-style. `unsigned`: a public bucket, read without credentials.
    `attempts`: tries of one request, retry=False aside.
    """

    def __init__(
        self,
        bucket: str,
        sessions: Sessions,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        unsigned: bool = False,
        connections: int = 16,
        attempts: int = 3,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = bucket
        self._sessions = sessions
        self._endpoint_url = endpoint_url
        self._label = "no credentials" if unsigned else sessions.label
        self._attempts = attempts
        self._sleep = sleep
        self._config = botocore.config.Config(
            region_name=region,
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
        self._made: tuple[botocore.session.Session, Client] | None = None

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
        headers = {"ChecksumCRC64NVME": encoded(crc), **({"IfNoneMatch": "*"} if only_if_absent else {})}

        def send(client: Client) -> ObjectInfo:
            with _Body(body, pace) as file:
                answer = client.put_object(Bucket=self._bucket, Key=key, Body=file, **headers)
            return ObjectInfo(key, len(body), _etag(answer, request), _date(answer, request))

        return self._tried(request, send, attempts=self._attempts if retry else 1)

    def create_multipart(self, key: str) -> str:
        request = self._request(PUT, key)

        def send(client: Client) -> str:
            answer = client.create_multipart_upload(
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

        def send(client: Client) -> Part:
            with _Body(body, pace) as file:
                answer = client.upload_part(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=file,
                    ChecksumCRC64NVME=encoded(crc),
                )
            return Part(number, len(body), _etag(answer, request), crc)

        return self._tried(request, send)

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        request = self._request(PUT, key)
        named = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"', "ChecksumCRC64NVME": encoded(part.crc)}
            for part in parts
        ]

        def send(client: Client) -> ObjectInfo:
            answer = client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": named},
                ChecksumCRC64NVME=encoded(crc),
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=size,
                **({"IfNoneMatch": "*"} if only_if_absent else {}),
            )
            etag = _etag(answer, request)
            if etag != multipart_etag(parts):
                raise Corrupted(f"{self._bucket}/{key} was put together from other parts than were sent ({etag})")
            return ObjectInfo(key, size, etag, _date(answer, request))

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

        def send(client: Client) -> int | None:
            answer = client.head_object(Bucket=self._bucket, Key=key, IfMatch=f'"{etag}"', ChecksumMode="ENABLED")
            _etag(answer, request)
            return _full_crc(answer)

        return self._tried(request, send)

    def delete(self, key: str) -> None:
        request = self._request(DELETE, key)

        def send(client: Client) -> None:
            status = client.delete_object(Bucket=self._bucket, Key=key)["ResponseMetadata"]["HTTPStatusCode"]
            if status != 204:
                raise not_s3(request, f"HTTP {status} for a delete")

        self._tried(request, send)

    # -- inside

    def _request(self, permission: str, key: str) -> Request:
        return Request(permission, self._bucket, key, self._label)

    def _page(self, prefix: str, token: str, count: int) -> _Page:
        request = self._request(LIST, prefix)

        def send(client: Client) -> _Page:
            more = {"ContinuationToken": token} if token else {}
            answer = client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=count, **more)
            # A portal's page may well be XML: read as a listing it would say that nothing is there.
            if answer.get("Name") != self._bucket:
                raise not_s3(request, "a listing of nothing")
            page = [
                ObjectInfo(found["Key"], found["Size"], found["ETag"].strip('"'), found["LastModified"].timestamp())
                for found in answer.get("Contents", ())
            ]
            truncated = bool(answer.get("IsTruncated"))
            return page, _date(answer, request), answer.get("NextContinuationToken", "") if truncated else ""

        return self._tried(request, send)

    def _opened(self, key: str, etag: str | None, start: int, length: int | None) -> tuple[_Blocks, ObjectInfo]:
        request = self._request(GET, key)
        ranged = start > 0 or length is not None
        asked: dict[str, Any] = {"IfMatch": f'"{etag}"'} if etag is not None else {}
        if ranged:
            asked["Range"] = f"bytes={start}-" + (str(start + length - 1) if length is not None else "")
        else:
            asked["ChecksumMode"] = "ENABLED"

        def send(client: Client) -> tuple[_Blocks, ObjectInfo]:
            answer = client.get_object(Bucket=self._bucket, Key=key, **asked)
            size = int(answer["ContentLength"])
            try:
                found = _etag(answer, request)
                if etag is not None and found != etag:
                    raise not_s3(request, "another object than was asked for")
                if ranged and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
                    raise not_s3(request, "another range than was asked for")
                if length is not None and size != length:
                    raise Corrupted(f"{self._bucket}/{key} has {size} bytes from {start} on, not {length}")
            except StoreError:
                answer["Body"].close()
                raise
            info = ObjectInfo(key, size, found, answer["LastModified"].timestamp())
            return _Blocks(answer["Body"], request, size, None if ranged else _full_crc(answer)), info

        try:
            return self._tried(request, send)
        except Denied:
            # For a key that is not there, AWS answers 403 to who may not list the bucket's top.
            if self.find(key) is None:
                raise Absent(f"{self._bucket}/{key} is not there") from None
            raise

    def _client(self) -> tuple[botocore.session.Session, Client]:
        with self._lock:
            session = self._sessions.session()
            if self._made is None or self._made[0] is not session:
                client = session.create_client("s3", config=self._config, endpoint_url=self._endpoint_url)
                # Bodies are file-like so that they go in blocks; that alone would cost an "Expect:" round trip each.
                client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
                self._made = (session, client)
            return self._made

    def _tried(self, request: Request, send: Callable[[Client], T], *, attempts: int | None = None) -> T:
        """Send, translating what goes wrong; again when that may help, `attempts` times in all."""
        left = self._attempts if attempts is None else attempts
        once = left == 1
        renewed = False
        wait = FIRST_WAIT
        while True:
            left -= 1
            session = None
            try:
                session, client = self._client()
                return send(client)
            except _AbandonedError as abandoned:
                raise abandoned.reason from None
            except Exception as raised:
                error = translate(request, raised)
                if error is not raised:
                    error.__cause__ = raised
            if isinstance(error, BadCredentials) and session is not None and not renewed:
                renewed = self._sessions.renew(session)
                if renewed and not once:
                    left += 1
                    continue
            # Busy is for the caller, who looks again at what is there before anything is sent again.
            if left <= 0 or not error.transient or isinstance(error, Busy):
                raise error
            self._sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 3, LONGEST_WAIT)


class _AbandonedError(Exception):
    """The pace raised: what it raised passes through everything, as it is."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason


class _Body(io.BytesIO):
    """A body as a file, so that it is sent in blocks (a socket's timeout is for one sendall), at the allowed pace."""

    def __init__(self, body: bytes | memoryview, pace: Pace | None) -> None:
        super().__init__(body)
        self._pace = pace
        self._raised: BaseException | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        # Larger blocks are the signer's, who hashes the body before anything is sent where there is no TLS.
        if self._pace is not None and 0 < len(block) <= PACED and size is not None and size <= PACED:
            try:
                self._pace(len(block))
            except BaseException as raised:
                self._raised = raised
                raise
        return block

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        super().__exit__(None, None, None)
        if self._raised is not None:
            raise _AbandonedError(self._raised)


class _Blocks:
    """The body of an answer, in blocks; counted, and checked against the stored CRC64NVME when that is known."""

    def __init__(self, body: Any, request: Request, size: int, crc: int | None) -> None:
        self._body = body
        self._request = request
        self._left = size
        self._wanted = crc
        self._crc = 0

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            self.close()
            if self._wanted is not None and self._wanted != self._crc:
                raise Corrupted(f"{self._request.bucket}/{self._request.key} arrived changed: its checksum is another")
            raise StopIteration
        try:
            block: bytes = self._body.read(min(BLOCK, self._left))
        except Exception as raised:
            self.close()
            raise translate(self._request, raised) from raised
        if not block:
            self.close()
            raise Corrupted(f"{self._request.bucket}/{self._request.key} ended {self._left} bytes early")
        self._left -= len(block)
        if self._wanted is not None:
            self._crc = checksums.crc64nvme(block, self._crc)
        return block

    def close(self) -> None:
        self._body.close()


def encoded(crc: int) -> str:
    """A CRC64NVME as S3's headers have it: base64 of its 8 bytes, big-endian."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode("ascii")


def multipart_etag(parts: Sequence[Part]) -> str:
    """The etag S3 gives to an object put together from `parts`: the MD5 of their MD5s, and their count."""
    digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(parts)}"


def _etag(answer: Mapping[str, Any], request: Request) -> str:
    match = _ETAG.match(str(answer.get("ETag", "")))
    if match is None:
        raise not_s3(request, "an answer without an object's etag")
    return match[1]


def _date(answer: Mapping[str, Any], request: Request) -> float:
    return server_time(answer["ResponseMetadata"]["HTTPHeaders"], request)


def _full_crc(answer: Mapping[str, Any]) -> int | None:
    # A composite checksum (of the parts' checksums) says nothing about the bytes as a whole.
    value = answer.get("ChecksumCRC64NVME")
    if value is None or answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    return int.from_bytes(base64.b64decode(value), "big")
