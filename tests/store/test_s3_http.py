"""What may come back on a connection, as bytes: no answer is misread, and no connection is kept that is not clean."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from ncaasd.adapters.s3.http import Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Script:
    """A server that takes connections one after the other and answers each request with the next of its answers.

    An answer None closes the connection without one.
    """

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while self.answers:
                head = b""
                while (line := stream.readline()) not in (b"\r\n", b""):
                    head += line
                if not head:
                    return
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                self.requests.append(head + b"\r\n" + stream.read(length))
                answer = self.answers.pop(0)
                if answer is None:
                    return
                connection.sendall(answer)
                if b"onnection: close" in answer or b"HTTP/1.0" in answer:
                    return


@pytest.fixture
def serve() -> Iterator[Callable[..., Script]]:
    made: list[Script] = []

    def serve(*answers: bytes | None) -> Script:
        made.append(Script(list(answers)))
        return made[-1]

    yield serve
    for script in made:
        script.close()


def pool(endpoint: str, **options: object) -> Pool:
    return Pool(endpoint, connect_timeout=5, read_timeout=2, idle=4, ca_bundle=None, **options)  # type: ignore[arg-type]  # test


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok", b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_bodies_are_read_whole_and_the_connection_is_kept(serve, answer, body):
    server = serve(answer, OK)
    connections = pool(server.endpoint)
    assert connections.request("GET", "/", {}).text(100) == body
    assert connections.request("GET", "/", {}).text(100) == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
    ],
)
def test_a_connection_that_ends_is_not_used_again(serve, answer, body):
    server = serve(answer, OK)
    connections = pool(server.endpoint)
    assert connections.request("GET", "/", {}).text(100) == body
    assert connections.request("GET", "/", {}).text(100) == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (None, ConnectionResetError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", http.client.BadStatusLine),
        (b"HTTP/1.1 200 OK\r\nContent-Le", http.client.HTTPException),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", http.client.HTTPException),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfour", http.client.IncompleteRead),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            http.client.IncompleteRead,
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            http.client.IncompleteRead,
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            http.client.IncompleteRead,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx", http.client.HTTPException),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nxxxxx", http.client.HTTPException),
    ],
)
def test_a_broken_answer_is_an_error(serve, answer, raised):
    server = serve(answer if answer is None or b"close" in answer else answer.replace(b"200", b"200", 1), OK)
    if answer is not None and b"close" not in answer:
        server.answers[0] = answer
        threading.Timer(0.3, server.close).start()
    connections = pool(server.endpoint)
    with pytest.raises((raised, TimeoutError) if raised is http.client.HTTPException else raised):
        connections.request("GET", "/", {}).text(100)


def test_an_answer_that_was_left_half_read_takes_its_connection_with_it(serve):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour", OK)
    connections = pool(server.endpoint)
    answer = connections.request("GET", "/", {})
    assert answer.read(2) == b"fo"
    answer.close()
    assert connections.request("GET", "/", {}).text(10) == b"ok"
    assert server.connections == 2


def test_the_request_on_the_wire(serve):
    server = serve(OK, OK, OK)
    connections = pool(server.endpoint)
    connections.request("PUT", "/b/k?x=1", {"host": "h", "etag": "e"}, b"body").text(10)
    connections.request("PUT", "/b/k", {"host": "h"}, b"").text(10)
    connections.request("GET", "/b/k", {"host": "h"}).text(10)
    assert server.requests == [
        b"PUT /b/k?x=1 HTTP/1.1\r\nhost: h\r\netag: e\r\ncontent-length: 4\r\n\r\nbody",
        b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
        b"GET /b/k HTTP/1.1\r\nhost: h\r\n\r\n",
    ]


def test_what_s3_says_before_it_hangs_up_is_heard():
    """It may refuse a large body before it has read it: the answer counts, not the reset."""
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listening.accept()
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # what is on its way, so that no reset overtakes the answer
            pass

    threading.Thread(target=refuse, daemon=True).start()
    connections = pool(f"http://127.0.0.1:{listening.getsockname()[1]}")
    answer = connections.request("PUT", "/", {}, bytes(8 << 20))
    assert (answer.status, answer.text(10)) == (403, b"no")
    listening.close()


# -- through a proxy, as the SDK finds it


def test_through_a_proxy(serve, monkeypatch):
    proxy = serve(OK)
    monkeypatch.setenv("HTTP_PROXY", proxy.endpoint.replace("http://", "http://user:word@"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert pool("http://s3.lab.example:9000").request("GET", "/b/k", {"host": "s3.lab.example:9000"}).text(10) == b"ok"
    line, rest = proxy.requests[0].split(b"\r\n", 1)
    assert line == b"GET http://s3.lab.example:9000/b/k HTTP/1.1"
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in rest


def test_not_through_a_proxy(serve, monkeypatch):
    server = serve(OK)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert pool(server.endpoint).request("GET", "/", {}).text(10) == b"ok"


def test_a_tunnel_through_a_proxy(serve, monkeypatch, certificate):
    """CONNECT, and TLS inside it with the server, not with the proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def tunnel() -> None:
        connection, _ = listening.accept()
        seen.append(connection.recv(10_000))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as inside:
            seen.append(inside.recv(10_000))
            inside.sendall(OK)

    threading.Thread(target=tunnel, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    connections = Pool("https://localhost:9443", connect_timeout=5, read_timeout=5, idle=1, ca_bundle=certificate[0])
    assert connections.request("GET", "/b/k", {"host": "localhost:9443"}).text(10) == b"ok"
    assert seen[0].startswith(b"CONNECT localhost:9443 HTTP/1.")
    assert seen[1].startswith(b"GET /b/k HTTP/1.1\r\n")
    listening.close()


def test_a_ca_bundle_that_is_not_there(serve, monkeypatch):
    server = serve(OK)
    endpoint = server.endpoint.replace("http:", "https:")
    connections = Pool(endpoint, connect_timeout=5, read_timeout=5, idle=1, ca_bundle="/nonexistent/ca.pem")
    with pytest.raises(ssl.SSLError, match=r"/nonexistent/ca\.pem"):
        connections.request("GET", "/", {})
