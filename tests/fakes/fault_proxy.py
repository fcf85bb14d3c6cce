"""A small HTTP proxy on loopback that breaks what it is told to break, between a client and an S3 server.

It forwards headers as they came, Host included, so that signatures verify behind it. One rule is used per request, the
first that matches. Everything ends: rules after `times` requests, waits after LIMIT seconds or when the proxy is closed.
"""

from __future__ import annotations

import http.client
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, cast
from urllib.parse import urlsplit

LIMIT = 90.0  # seconds: no request is held longer
_BLOCK = 16 << 10


@dataclass(slots=True)
class Rule:
    """Which requests (`method`, `path` and `query` are regular expressions to search for), and what happens to them.

    `skip` matches pass first; then `times` meet the fault (None: all of them). Of the faults, one or several:
    """

    method: str = ""
    path: str = ""
    query: str = ""
    times: int | None = 1
    skip: int = 0

    status: int | None = None  # answered with this status and `body`; nothing is forwarded
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it is forwarded or answered
    hang: bool = False  # read, and never answered: a half-open connection
    stall_after: int | None = None  # so many bytes of the body are read, and then nothing more, nor anything answered
    cut_request: int | None = None  # reset after so many bytes of the body
    lose_answer: bool = False  # forwarded, applied, and reset instead of answered
    cut_response: int | None = None  # so many bytes of the answer's body, then the connection is closed
    reset_response: int | None = None  # so many bytes of the answer's body, then the connection is reset
    throttle: float | None = None  # bytes per second, request and answer
    drop_header: str = ""  # a header (its name in lower case) that is not forwarded
    flip_request: int | None = None  # the byte at this offset of the body is forwarded changed
    flip_response: int | None = None  # the byte at this offset of the answer's body is changed
    edit_response: Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]] | None = None

    def matches(self, seen: Seen) -> bool:
        return bool(
            re.search(self.method, seen.method)
            and re.search(self.path, seen.path)
            and re.search(self.query, seen.query)
        )


@dataclass(slots=True)
class Seen:
    """One request that came in."""

    method: str
    path: str
    query: str
    headers: dict[str, str]  # names in lower case
    received: int = 0  # bytes of its body that came from the client
    status: int = 0  # what the client was answered; 0: nothing
    applied: bool = False  # it was forwarded, and answered by the server
    faulted: bool = False


class FaultProxy:
    """Use as a context manager. `endpoint` is where clients go; `rules` and `seen` may be changed at any time."""

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None, rules: list[Rule] | None = None) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None and parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self._tls = tls
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.rules = rules if rules is not None else []
        self.seen: list[Seen] = []
        self.closed = threading.Event()

    @property
    def endpoint(self) -> str:
        port = self._server.server_address[1]
        return f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def received(self, method: str = "", query: str = "") -> int:
        """Bytes of body that clients sent in all requests of that kind."""
        return sum(s.received for s in self.seen if re.search(method, s.method) and re.search(query, s.query))

    def count(self, method: str = "", query: str = "") -> int:
        return sum(1 for s in self.seen if re.search(method, s.method) and re.search(query, s.query))

    def taken(self, seen: Seen) -> Rule | None:
        """The rule for a request, which is thereby used."""
        with self._lock:
            self.seen.append(seen)
            for rule in self.rules:
                if not rule.matches(seen):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self.rules.remove(rule)
                seen.faulted = True
                return rule
            return None

    def wrapped(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection

    def wait(self, seconds: float) -> None:
        self.closed.wait(min(seconds, LIMIT))

    def forward(self, seen: Seen, target: str, headers: list[tuple[str, str]], body: bytes) -> _Answer:
        upstream = http.client.HTTPConnection(*self._upstream, timeout=LIMIT)
        try:
            upstream.putrequest(seen.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            content = answer.read()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in ("transfer-encoding", "connection")}
            if seen.method != "HEAD" and answer.status not in (204, 304):
                kept = {n: v for n, v in kept.items() if n.lower() != "content-length"}
                kept["Content-Length"] = str(len(content))
            seen.applied = True
            return _Answer(answer.status, kept, content)
        finally:
            upstream.close()


@dataclass(slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class _Reset(Exception):
    """The connection to the client ends now, without a word"""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up, or does not trust our certificate, is what the tests are about


class _Connection(socketserver.BaseRequestHandler):
    """One client connection, kept alive for many requests."""

    def handle(self) -> None:
        proxy = cast(_Server, self.server).proxy
        connection: socket.socket = self.request
        connection.settimeout(LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = proxy.wrapped(connection)
        stream = cast(BinaryIO, connection.makefile("rb", buffering=_BLOCK))
        try:
            while not proxy.closed.is_set() and _one_request(proxy, connection, stream):
                pass
        except _Reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        finally:
            stream.close()
            connection.close()


def _one_request(proxy: FaultProxy, connection: socket.socket, stream: BinaryIO) -> bool:

    line = stream.readline(65536).decode("latin-1").split()
    if len(line) != 3 or not line[2].startswith("HTTP/"):
        return False
    method, target, _version = line
    headers: list[tuple[str, str]] = []
    while text := stream.readline(65536).decode("latin-1").strip():
        name, _, value = text.partition(":")
        headers.append((name, value.strip()))
    path, _, query = target.partition("?")
    seen = Seen(method, path, query, {name.lower(): value for name, value in headers})
    rule = proxy.taken(seen) or Rule()
    body = _received(proxy, seen, rule, stream.read)
    if rule.delay:
        proxy.wait(rule.delay)
    if rule.hang:
        proxy.wait(LIMIT)
        raise _Reset
    if rule.status is not None:
        answer = _Answer(rule.status, {"Content-Length": str(len(rule.body)), **rule.headers}, rule.body)
    else:
        kept = [pair for pair in headers if pair[0].lower() != rule.drop_header]
        answer = proxy.forward(seen, target, kept, _flipped(body, rule.flip_request))
    if rule.lose_answer:
        raise _Reset
    _answer(proxy, connection, seen, rule, answer)
    return True


def _received(proxy: FaultProxy, seen: Seen, rule: Rule, read: Callable[[int], bytes]) -> bytes:
    announced = int(seen.headers.get("content-length", "0"))
    blocks: list[bytes] = []
    while seen.received < announced:
        for limit in (rule.cut_request, rule.stall_after):
            if limit is not None and seen.received >= limit:
                if rule.stall_after is not None:
                    proxy.wait(LIMIT)
                raise _Reset
        stop = min(n for n in (announced, rule.cut_request, rule.stall_after) if n is not None)
        block = read(min(_BLOCK, stop - seen.received))
        if not block:
            raise _Reset
        blocks.append(block)
        seen.received += len(block)
        if rule.throttle:
            time.sleep(len(block) / rule.throttle)
    if rule.cut_request is not None and seen.received >= rule.cut_request:
        raise _Reset
    return b"".join(blocks)


def _answer(proxy: FaultProxy, connection: socket.socket, seen: Seen, rule: Rule, answer: _Answer) -> None:
    headers, body = answer.headers, _flipped(answer.body, rule.flip_response)
    if rule.edit_response is not None:
        headers, body = rule.edit_response(dict(headers), body)
    seen.status = answer.status
    head = [f"HTTP/1.1 {answer.status} x", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
    cut = rule.cut_response if rule.cut_response is not None else rule.reset_response
    for at in range(0, len(body), _BLOCK):
        block = body[at : at + _BLOCK] if cut is None else body[at : min(cut, at + _BLOCK)]
        if block:
            connection.sendall(block)
        if rule.throttle:
            time.sleep(len(block) / rule.throttle)
    if rule.reset_response is not None:
        time.sleep(0.05)  # a reset overtakes what was sent right before it
        raise _Reset
    if rule.cut_response is not None:
        connection.shutdown(socket.SHUT_WR)
        raise OSError("cut")


def _flipped(body: bytes, at: int | None) -> bytes:
    if at is None or not body:
        return body
    changed = bytearray(body)
    changed[at % len(changed)] ^= 0x01
    return bytes(changed)
