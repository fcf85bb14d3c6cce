"""One bucket of S3, as the ObjectStore port promises it.

Only what NeuroCAAS's policy allows a user's key is used: put, multipart create/part/complete, list, delete; get and
head on results and configs. No request of ours needs HEAD or GET on inputs, ListParts or Abort (NeuroCAAS protocol,
docs/neurocaas.md).

This module decides which answers are accepted, and what is tried again; requests.py makes the requests, and errors are
raised as `ncaasd.errors.StoreError` (by errors.py).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import botocore.session

from ncaasd.adapters.s3.answers import Blocks, Options, Page, Requests, etag_of, full_crc, multipart_etag, number_of
from ncaasd.adapters.s3.errors import (
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
from ncaasd.adapters.s3.requests import FastRequests
from ncaasd.errors import Absent, BadCredentials, Busy, Corrupted, Denied, StoreError
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.plan.retry import backoff
from ncaasd.ports import Pace

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 45.0  # seconds of silence; with the connect timeout, a half-open socket is given up within 60 s
FIRST_WAIT, LONGEST_WAIT = 0.3, 5.0  # seconds between tries; longer waits are left to the caller
PAGE = 1000  # keys: the most that S3 lists at once


class Sessions(Protocol):
    """Where credentials come from. `credentials.CredentialSource` is the real one."""

    @property
    def label(self) -> str:
        """For sentences: "the AWS profile dlc"."""

    def session(self) -> botocore.session.Session:
        """The session to use now: a new one once the files that it was read from have changed."""

    def renew(self, used: botocore.session.Session) -> bool:
        """The credentials of `used` were refused: read them again. True when there are new ones to try."""


class S3Store:
    """One bucket, with one key's permissions. Safe to use from many threads.

    `endpoint_url`: another S3 than AWS's, addressed path-style; else what the environment or the profile says.
    `unsigned`: a public bucket, read without credentials. `requests`: the class that makes the requests.
    `attempts`: tries of one request, unless retry=False.
    """

    def __init__(
        self,
        bucket: str,
        sessions: Sessions,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        unsigned: bool = False,
        requests: Callable[..., Requests] = FastRequests,
        connections: int = 16,
        attempts: int = 3,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._bucket = bucket
        self._sessions = sessions
        self._region = region
        self._label = "no credentials" if unsigned else sessions.label
        self._attempts = attempts
        self._sleep = sleep

        def connect(session: botocore.session.Session, region: str | None) -> Requests:
            options = Options(endpoint_url, unsigned, connections, connect_timeout, read_timeout)
            return requests(bucket, session, region, options, now=now)

        self._connect = connect
        self._lock = threading.Lock()
        self._line: _Line | None = None

    @property
    def bucket(self) -> str:
        return self._bucket

    def list(self, prefix: str) -> Listing:
        request = self._request(LIST, prefix)
        pages = list(self._pages(request))
        # The first page's time: what changed while later pages came must not look older than it is.
        at = server_time(pages[0].headers, request)
        return Listing(tuple(found for page in pages for found in page.objects), at)

    def folders(self, prefix: str) -> Sequence[str]:
        return [found for page in self._pages(self._request(LIST, prefix), "/") for found in page.folders]

    def find(self, key: str) -> ObjectInfo | None:
        # Of all keys that begin with `key`, `key` itself is the first, so listing a few is enough.
        page = self._page(self._request(LIST, key), "", 5)
        return next((info for info in page.objects if info.key == key), None)

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

        def send(to: Requests) -> ObjectInfo:
            headers = to.put(request, body, crc=crc, only_if_absent=only_if_absent, part=None, pace=pace)
            return ObjectInfo(key, len(body), etag_of(headers, request), server_time(headers, request))

        return self._tried(request, send, attempts=self._attempts if retry else 1)

    def create_multipart(self, key: str) -> str:
        request = self._request(PUT, key)

        def send(to: Requests) -> str:
            upload_id = to.create(request)
            if not upload_id:
                raise not_s3(request, "an answer without an UploadId")
            return upload_id

        return self._tried(request, send)

    def put_part(
        self, key: str, upload_id: str, number: int, body: bytes | memoryview, *, crc: int, pace: Pace | None = None
    ) -> Part:
        request = self._request(PUT, key)

        def send(to: Requests) -> Part:
            headers = to.put(request, body, crc=crc, only_if_absent=False, part=(upload_id, number), pace=pace)
            return Part(number, len(body), etag_of(headers, request), crc)

        return self._tried(request, send)

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        request = self._request(PUT, key)

        def send(to: Requests) -> ObjectInfo:
            headers, said = to.complete(request, upload_id, parts, crc=crc, size=size, only_if_absent=only_if_absent)
            etag = etag_of({"etag": said}, request)
            if etag != multipart_etag(parts):
                raise Corrupted(f"{self._bucket}/{key} was put together from other parts than were sent ({etag})")
            return ObjectInfo(key, size, etag, server_time(headers, request))

        return self._tried(request, send)

    def get(self, key: str, *, etag: str | None = None, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See the port. The request is sent at once; call the iterator's `close()` to stop before its end.

        A whole object is checked against the CRC64NVME that S3 has of it, if any; a range cannot be checked.
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

        def send(to: Requests) -> int | None:
            headers = to.head(request, etag=etag)
            etag_of(headers, request)
            return full_crc(headers)

        return self._tried(request, send)

    def delete(self, key: str) -> None:
        request = self._request(DELETE, key)

        def send(to: Requests) -> None:
            status = to.delete(request)
            if status != 204:
                raise not_s3(request, f"HTTP {status} for a delete")

        self._tried(request, send)

    def close(self) -> None:
        """Close the kept connections. The store can be used again afterwards."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.requests.close()

    # -- inside

    def _request(self, permission: str, key: str) -> Request:
        return Request(permission, self._bucket, key, self._label)

    def _pages(self, request: Request, delimiter: str = "") -> Iterator[Page]:
        token = ""
        while True:
            page = self._page(request, token, PAGE, delimiter)
            yield page
            if not page.token:
                return
            if page.token == token:
                raise not_s3(request, "a listing that never ends")
            token = page.token

    def _page(self, request: Request, token: str, count: int, delimiter: str = "") -> Page:
        def send(to: Requests) -> Page:
            page = to.list(request, token=token, count=count, delimiter=delimiter)
            # A captive portal's page may be XML too: read as a listing it would mean that there are no objects.
            if page.bucket != self._bucket:
                raise not_s3(request, "a listing of nothing")
            return page

        return self._tried(request, send)

    def _opened(self, key: str, etag: str | None, start: int, length: int | None) -> tuple[Blocks, ObjectInfo]:
        request = self._request(GET, key)
        ranged = start > 0 or length is not None
        span = f"bytes={start}-" + ("" if length is None else str(start + length - 1)) if ranged else None

        def send(to: Requests) -> tuple[Blocks, ObjectInfo]:
            headers, body = to.get(request, etag=etag, span=span)
            try:
                info = _believed(headers, request, etag, start if ranged else None, length)
            except StoreError:
                body.close()
                raise
            return Blocks(body, request, info.size, None if ranged else full_crc(headers)), info

        try:
            return self._tried(request, send)
        except Denied as denied:
            # For a key that is not there, AWS answers 403 to users who may not list the whole bucket.
            try:
                there = self.find(key)
            except StoreError:
                raise denied from None
            if there is None:
                raise Absent(f"{self._bucket}/{key} is not there") from None
            raise

    def _current(self) -> _Line:
        """The line for the present credentials and region."""
        with self._lock:
            session = self._sessions.session()
            line = self._line
            if line is None or line.session is not session or line.region != self._region:
                if line is not None:
                    line.requests.close()  # requests under way on it may still end
                line = self._line = _Line(session, self._region, self._connect(session, self._region))
            return line

    def _mended(self, error: StoreError, line: _Line) -> bool:
        """Whether the cause of the error was removed, by new credentials or the right region, so that a retry makes sense."""
        if isinstance(error, BadCredentials):
            return self._sessions.renew(line.session)
        if isinstance(error, WrongRegionError) and error.region not in ("", line.region):
            with self._lock:
                self._region = error.region
            return True
        return False

    def _tried(self, request: Request, send: Callable[[Requests], T], *, attempts: int | None = None) -> T:
        """Send with errors translated, and retry where that may help, `attempts` times in all."""
        left = self._attempts if attempts is None else attempts
        once = left == 1
        mended = False
        tries = 0
        while True:
            left -= 1
            line = None
            try:
                line = self._current()
                return send(line.requests)
            except AbandonedError as abandoned:
                raise abandoned.reason from None
            except Exception as raised:
                error = translate(request, raised)
                if error is not raised:
                    error.__cause__ = raised
            if line is not None and not mended and self._mended(error, line):
                mended = True
                if not once:
                    left += 1
                    continue
            # Busy is left to the caller, which looks at what is at the key before it sends again.
            if left <= 0 or not error.transient or isinstance(error, Busy):
                raise error
            tries += 1
            self._sleep(backoff(tries, first=FIRST_WAIT, most=LONGEST_WAIT, spread=random.random(), factor=3))


@dataclass(frozen=True, slots=True)
class _Line:
    """What makes the requests, with the session and the region it was made for."""

    session: botocore.session.Session
    region: str | None
    requests: Requests


def _believed(
    headers: Mapping[str, str], request: Request, etag: str | None, start: int | None, length: int | None
) -> ObjectInfo:
    """The object by a GET's headers (size: of the body that comes). Raises StoreError when it is not what was requested."""
    found = etag_of(headers, request)
    if etag is not None and found != etag:
        raise not_s3(request, "another object than was asked for")
    if start is not None and not headers.get("content-range", "").startswith(f"bytes {start}-"):
        raise not_s3(request, "another range than was asked for")
    size = number_of(headers, "content-length", request)
    if length is not None and size != length:
        raise Corrupted(f"{request.bucket}/{request.key} has {size} bytes from {start or 0} on, not {length}")
    return ObjectInfo(request.key, size, found, server_time(headers, request, "last-modified"))
