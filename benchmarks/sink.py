"""An S3 server that keeps nothing: where it is the server, the client is the limit.

    python benchmarks/sink.py --folder STATE [--tls CERT KEY] [--serve FILE --crc BASE64]     # prints its port

Every connection is served by a process of its own, so nothing waits for an interpreter lock; bodies are thrown away
(on Linux, without TLS, without even being copied). What is put has the ETag its Content-MD5 says, or always the same
one; a multipart object has the right one, and is listed from then on. `--serve`: every GET and HEAD is answered with
this file. STATE holds what is known of objects, and `received`: the bytes of bodies that have come, of each connection.
Bound to loopback.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import mmap
import os
import re
import signal
import socket
import ssl
import struct
import sys
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

SLOTS = 4096  # connections whose bytes are counted
BLOCK = 1 << 20
ETAG = "d41d8cd98f00b204e9800998ecf8427e"
SERVED_ETAG = "0123456789abcdef0123456789abcdef-2"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
ISO = "2026-01-01T00:00:00.000Z"
DAY = "Thu, 01 Jan 2026 00:00:00 GMT"


def received(folder: str) -> int:
    """Bytes of all bodies that have come so far."""
    with open(os.path.join(folder, "received"), "rb") as file:
        return sum(struct.unpack(f"<{SLOTS}Q", file.read(8 * SLOTS)))


class Connection:
    """One connection, from its first request to its end."""

    def __init__(self, raw: socket.socket, options: argparse.Namespace, counter: memoryview) -> None:
        self._socket = raw
        self._options = options
        self._counter = counter
        self._buffer = memoryview(bytearray(BLOCK))
        self._ahead = b""  # read, not used yet
        self._plain = options.tls is None
        # TCP throws away what is received with MSG_TRUNC, in the kernel (tcp(7)).
        self._discard = socket.MSG_TRUNC if self._plain and sys.platform == "linux" else 0

    def serve(self) -> None:
        while head := self._head():
            self._answer(*head)

    def _head(self) -> tuple[str, str, dict[str, str]] | None:
        while b"\r\n\r\n" not in self._ahead:
            block = self._socket.recv(16 << 10)
            if not block:
                return None
            self._ahead += block
        head, self._ahead = self._ahead.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        return method, target, {name.lower(): value.strip() for name, _, value in pairs}

    # -- bodies

    def _body(self, headers: dict[str, str], *, keep: bool) -> bytes:
        if headers.get("expect"):
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self._take(int(headers.get("content-length", "0")), keep=keep)
        while size := int(self._line().split(b";")[0], 16):
            self._take(size + 2, keep=False)
        while self._line():
            pass
        return b""

    def _take(self, size: int, *, keep: bool) -> bytes:
        kept, self._ahead = self._ahead[:size], self._ahead[size:]
        left = size - len(kept)
        self._counter[0] += len(kept)
        blocks = [kept]
        while left:
            if keep:
                blocks.append(self._socket.recv(min(left, BLOCK)))
                got = len(blocks[-1])
            elif self._plain:
                got = self._socket.recv_into(self._buffer, min(left, BLOCK), self._discard)
            else:
                got = self._socket.recv_into(self._buffer, min(left, BLOCK))
            if not got:
                raise EOFError
            self._counter[0] += got
            left -= got
        return b"".join(blocks) if keep else b""

    def _line(self) -> bytes:
        while b"\r\n" not in self._ahead:
            block = self._socket.recv(16 << 10)
            if not block:
                raise EOFError
            self._ahead += block
        line, self._ahead = self._ahead.split(b"\r\n", 1)
        return line

    # -- answers

    def _answer(self, method: str, target: str, headers: dict[str, str]) -> None:
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        _, bucket, key = (*unquote(url.path).split("/", 2), "")[:3]
        body = self._body(headers, keep=method == "POST")
        if method == "PUT":
            if "uploadId" in query:
                size = headers.get("x-amz-decoded-content-length") or headers["content-length"]
                with open(
                    self._place(bucket, key, query["uploadId"][0]), "a"
                ) as file:  # one small write: processes don't mix
                    file.write(f"{query['partNumber'][0]} {size}\n")
            md5 = headers.get("content-md5")
            etag = base64.b64decode(md5).hex() if md5 else ETAG
            said = {name: headers[name] for name in headers if name.startswith("x-amz-checksum-crc64")}
            self._reply(200, {"etag": f'"{etag}"', **said})
        elif method == "POST" and "uploads" in query:
            self._xml("InitiateMultipartUploadResult", f"<UploadId>{os.urandom(12).hex()}</UploadId>")
        elif method == "POST":
            etags = re.findall(rb"<ETag>(?:\"|&quot;|&#34;)?([0-9a-f]{32})", body)
            digest = hashlib.md5(b"".join(bytes.fromhex(etag.decode()) for etag in etags)).hexdigest()
            etag = f"{digest}-{len(etags)}"
            with open(self._place(bucket, key, query["uploadId"][0])) as file:
                sizes = dict(line.split() for line in file)  # the last of each number, as in S3
            self._note(bucket, key, sum(map(int, sizes.values())), etag)
            self._xml("CompleteMultipartUploadResult", f'<Key>{key}</Key><ETag>"{etag}"</ETag>')
        elif method == "DELETE":
            self._reply(204, {})
        elif method == "GET" and "location" in query:
            self._xml("LocationConstraint", "us-east-1")
        elif method == "GET" and not key:
            self._list(bucket, query.get("prefix", [""])[0])
        else:
            self._get(method, bucket, key, headers)

    def _get(self, method: str, bucket: str, key: str, headers: dict[str, str]) -> None:
        served: str | None = self._options.serve
        if served is None:
            found = self._known(bucket, key)
            if found is None or method != "HEAD":
                self._reply(404, {}, body=b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                self._reply(200, {"etag": f'"{found[1]}"', "last-modified": DAY}, length=int(found[0]))
            return
        size = os.path.getsize(served)
        said = {"etag": f'"{SERVED_ETAG}"', "last-modified": DAY, "accept-ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            start, end = int(match[1]), min(int(match[2] or size), size - 1) + 1
            self._reply(206, {**said, "content-range": f"bytes {start}-{end - 1}/{size}"}, length=end - start)
        else:
            start, end = 0, size
            if headers.get("x-amz-checksum-mode"):
                said |= {"x-amz-checksum-crc64nvme": self._options.crc, "x-amz-checksum-type": "FULL_OBJECT"}
            self._reply(200, said, length=size)
        if method == "GET":
            self._send_file(served, start, end)

    def _send_file(self, path: str, start: int, end: int) -> None:
        with open(path, "rb") as file:
            if self._plain:
                while start < end:
                    start += os.sendfile(self._socket.fileno(), file.fileno(), start, end - start)
                return
            file.seek(start)
            while start < end:
                got = file.readinto(self._buffer[: min(BLOCK, end - start)])
                self._socket.sendall(self._buffer[:got])
                start += got

    def _list(self, bucket: str, prefix: str) -> None:
        found = self._known(bucket, prefix)
        if self._options.serve is not None and prefix:
            found = (str(os.path.getsize(self._options.serve)), SERVED_ETAG)
        text = ""
        if found is not None:
            text = (
                f"<Contents><Key>{prefix}</Key><LastModified>{ISO}</LastModified><ETag>&quot;{found[1]}&quot;</ETag>"
                f"<Size>{found[0]}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        names = f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(text) and 1}</KeyCount>"
        self._xml("ListBucketResult", f"{names}<IsTruncated>false</IsTruncated>{text}")

    def _place(self, *names: str) -> str:
        return os.path.join(self._options.folder, hashlib.sha1("/".join(names).encode()).hexdigest())

    def _note(self, bucket: str, key: str, size: int, etag: str) -> None:
        with open(self._place(bucket, key), "w") as file:
            file.write(f"{size} {etag}")

    def _known(self, bucket: str, key: str) -> tuple[str, str] | None:
        try:
            with open(self._place(bucket, key)) as file:
                size, etag = file.read().split()
        except FileNotFoundError:
            return None
        return size, etag

    def _xml(self, name: str, inside: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NAMESPACE}">{inside}</{name}>'
        self._reply(200, {"content-type": "application/xml"}, body=text.encode())

    def _reply(self, status: int, headers: dict[str, str], *, body: bytes = b"", length: int | None = None) -> None:
        said = {
            "date": formatdate(usegmt=True),
            "server": "AmazonS3",
            "x-amz-request-id": "0123456789ABCDEF",
            **headers,
            "content-length": str(len(body) if length is None else length),
        }
        lines = "\r\n".join(f"{name}: {value}" for name, value in said.items())
        self._socket.sendall(f"HTTP/1.1 {status} -\r\n{lines}\r\n\r\n".encode() + body)


def serve(
    listener: socket.socket, options: argparse.Namespace, tls: ssl.SSLContext | None, counters: memoryview
) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended processes leave nothing behind
    number = 0
    while True:
        accepted, _ = listener.accept()
        number += 1
        if os.fork():
            accepted.close()
            continue
        listener.close()
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw = tls.wrap_socket(accepted, server_side=True) if tls is not None else accepted
            Connection(raw, options, counters[number % SLOTS : number % SLOTS + 1]).serve()
        except (OSError, EOFError):
            pass  # the client hung up, or was killed
        finally:
            os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--serve")
    parser.add_argument("--crc", default="")
    options = parser.parse_args()
    tls = None
    if options.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*options.tls)
    path = os.path.join(options.folder, "received")
    with open(path, "wb") as file:
        file.truncate(8 * SLOTS)
    with open(path, "r+b") as file:
        counters = memoryview(mmap.mmap(file.fileno(), 8 * SLOTS)).cast("Q")
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener, options, tls, counters)


if __name__ == "__main__":
    main()
