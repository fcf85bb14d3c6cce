"""HTTP/1.1 requests on kept connections, with as little processor time as possible.

For thousands of small files the client's own processor time is the whole cost: a put takes 2–3 ms of it by botocore, 0.5 by
urllib3, 0.28 by http.client, and 0.12 here (docs/performance.md). http.client connects, through a proxy too; ssl does TLS;
the trusted certificates and the proxy are those that the SDK finds.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import SplitResult, urlsplit

import botocore.httpsession
import botocore.utils

from ncaasd.adapters.s3.errors import AbandonedError
from ncaasd.ports import Pace

PACED = 128 << 10  # bytes that are sent between two calls of a pace, at first
# Blocks that are sent quickly are doubled up to this size in bytes, so that a worker waits for the GIL less often.
PACED_MOST = 512 << 10
QUICKLY = 0.01  # seconds for a block: where the budget or the network takes longer, blocks stay small
_BUFFER = 64 << 10  # bytes
_MAX_HEADERS = 100
_MAX_INTERIM = 8
_MAX_LINE = 16 << 10  # bytes


class Pool:
    """Connections to one endpoint. Safe to use from many threads; there are as many connections as requests at once.

    At most `idle` are kept between requests. Timeouts are seconds of silence, not of the request as a whole.
    """

    def __init__(
        self, endpoint: str, *, connect_timeout: float, read_timeout: float, idle: int, ca_bundle: str | None
    ) -> None:
        self._endpoint = urlsplit(endpoint)
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._keep = idle
        self._ca_bundle = ca_bundle
        self._tls: ssl.SSLContext | None = None
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        known = botocore.httpsession.ProxyConfiguration(proxies=botocore.utils.get_environ_proxies(endpoint))
        url = known.proxy_url_for(endpoint)
        self._proxy: SplitResult | None = urlsplit(url) if url else None
        self._proxy_headers: dict[str, str] = known.proxy_headers_for(url) if url else {}

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | memoryview = b"",
        pace: Pace | None = None,
    ) -> Answer:
        """Send one request, once. target: the path and query, as they were signed.

        Raises OSError, ssl.SSLError or http.client.HTTPException; AbandonedError with what `pace` raised.
        """
        if self._proxy is not None and self._endpoint.scheme == "http":
            target = f"http://{self._endpoint.netloc}{target}"
            headers = {**headers, **self._proxy_headers}
        lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
        if body or method in ("PUT", "POST"):
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        if head.count("\n") != len(lines) + 1:
            raise ValueError("a header with a line end in it")
        connection = self._kept() or self._new()
        try:
            _send(connection.socket, head.encode("latin-1"), memoryview(body), pace)
            return Answer(self, connection, method)
        except (BrokenPipeError, ConnectionResetError) as error:
            # S3 may refuse before it has read the whole body, and close: its answer is worth more than the reset.
            try:
                return Answer(self, connection, method)
            except (OSError, http.client.HTTPException):
                connection.close()
                raise error from None
        except BaseException:
            connection.close()
            raise

    def put_back(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < self._keep:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _kept(self) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not connection.ended():
                return connection
            connection.close()

    def _new(self) -> _Connection:
        host, port = _address(self._endpoint)
        if self._proxy is None:
            plain = http.client.HTTPConnection(host, port, timeout=self._connect_timeout)
        else:
            kind = http.client.HTTPSConnection if self._proxy.scheme == "https" else http.client.HTTPConnection
            plain = kind(*_address(self._proxy), timeout=self._connect_timeout)
            if self._endpoint.scheme == "https":
                plain.set_tunnel(host, port, self._proxy_headers)
        plain.connect()
        connected = cast(socket.socket, plain.sock)
        try:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._endpoint.scheme == "https":
                connected = self._trusting().wrap_socket(connected, server_hostname=host)
            connected.settimeout(self._read_timeout)
        except BaseException:
            connected.close()
            raise
        return _Connection(connected)

    def _trusting(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                context: ssl.SSLContext = botocore.httpsession.create_urllib3_context()
                context.verify_mode = ssl.CERT_REQUIRED
                context.check_hostname = True
                path = self._ca_bundle or botocore.httpsession.get_cert_path(True)
                try:
                    context.load_verify_locations(path)
                except OSError as error:
                    raise ssl.SSLError(f"the CA bundle {path} cannot be used: {error}") from error
                self._tls = context
            return self._tls


class _Connection:
    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.reader: io.BufferedReader = io.BufferedReader(_Received(connected), _BUFFER)

    def ended(self) -> bool:
        """Whether the server has closed it meanwhile: between requests nothing else makes it readable."""
        poll = select.poll()  # unlike select.select, for any number of open files
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


class _Received(io.RawIOBase):
    """The bytes that arrive on a socket. `socket.makefile` needs three more calls for each TLS record of 16 KiB, all of them
    under the GIL."""

    def __init__(self, connected: socket.socket) -> None:
        self._into: Callable[[int, memoryview], int]
        if isinstance(connected, ssl.SSLSocket):
            self._into = connected.read  # type: ignore[assignment]  # with a buffer it returns a number
        else:
            self._into = lambda size, buffer: connected.recv_into(buffer, size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # all that BufferedReader gives
        return self._into(len(buffer), buffer)


class Answer:
    """An answer whose headers have been read. Read it to its end, or close it, which closes the connection too."""

    def __init__(self, pool: Pool, connection: _Connection, method: str) -> None:
        self._pool = pool
        self._connection: _Connection | None = connection
        self._reader = connection.reader
        self.status, headers, kept = _head(self._reader)
        self.headers = headers
        self._keep = kept and "close" not in headers.get("connection", "").lower()
        self._chunked = False
        self._left: int | None  # bytes of the body, or of the chunk; None: until the connection ends
        if method == "HEAD" or self.status in (204, 304):
            self._left = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunked, self._left = True, 0
        else:
            self._left = _announced(headers)
        if self._left == 0 and not self._chunked:
            self._end(whole=True)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of a chunk or of the body, b"" after it. Raises IncompleteRead when it ends
        early."""
        if self._connection is None:
            return b""
        if self._chunked and self._left == 0 and not self._next_chunk():
            return b""
        block = self._reader.read(size if self._left is None else min(size, self._left))
        if self._left is not None:
            self._left -= len(block)
        if not block:
            early = self._left is not None
            self._end(whole=False)
            if early:
                raise http.client.IncompleteRead(b"", self._left)
        elif self._left == 0 and not self._chunked:
            self._end(whole=True)
        elif self._left == 0:
            self._reader.readline(_MAX_LINE)  # what ends a chunk
        return block

    def text(self, limit: int) -> bytes:
        """The whole body, or its first `limit` bytes; closes."""
        blocks: list[bytes] = []
        try:
            while limit > 0 and (block := self.read(limit)):
                blocks.append(block)
                limit -= len(block)
        finally:
            self.close()
        return b"".join(blocks)

    def close(self) -> None:
        if self._connection is not None:
            self._end(whole=False)

    def _next_chunk(self) -> bool:
        line = self._reader.readline(_MAX_LINE)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            self._end(whole=False)
            raise http.client.IncompleteRead(b"") from None
        if self._left:
            return True
        for _ in range(_MAX_HEADERS):
            if self._reader.readline(_MAX_LINE) in (b"\r\n", b"\n", b""):
                break
        self._end(whole=True)
        return False

    def _end(self, *, whole: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if whole and self._keep:
            self._pool.put_back(connection)
        else:
            connection.close()


def _send(connection: socket.socket, head: bytes, body: memoryview, pace: Pace | None) -> None:
    # The head is sent with the first block: one packet for a small file. The socket's timeout is for each sendall.
    at, size = 0, PACED
    while at < len(body) or head:
        began, block = time.monotonic(), body[at : at + size]
        if pace is not None and block:
            try:
                pace(len(block))
            except BaseException as reason:
                raise AbandonedError(reason) from None
        connection.sendall(head + block if head else block)
        head, at = b"", at + len(block)
        size = min(2 * size, PACED_MOST) if time.monotonic() - began < QUICKLY else PACED


def _head(reader: io.BufferedReader) -> tuple[int, dict[str, str], bool]:
    """The status, the headers, and whether the connection is kept unless they say otherwise."""
    for _ in range(_MAX_INTERIM):
        line = reader.readline(_MAX_LINE)
        if not line:
            raise ConnectionResetError("the connection was closed without an answer")
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise http.client.BadStatusLine(repr(line[:80]))
        headers = _headers(reader)
        status = int(words[1])
        if status >= 200:  # below: interim answers
            return status, headers, words[0] != b"HTTP/1.0"
    raise http.client.HTTPException("interim answers without end")


def _headers(reader: io.BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = reader.readline(_MAX_LINE)
        if line in (b"\r\n", b"\n"):
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise http.client.HTTPException("the connection was closed in the middle of an answer")
        headers[name.lower()] = value.strip()
    raise http.client.HTTPException(f"more than {_MAX_HEADERS} headers")


def _announced(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length")
    if value is not None and not (value.isascii() and value.isdigit()):
        raise http.client.HTTPException(f"an answer of {value} bytes")
    return int(value) if value is not None else None


def _address(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
