"""How S3 is reached, what its answers must look like to be accepted, and the bytes that come with them.

Headers are mappings with names in lower case. An answer that is not accepted is raised as `Unreachable`: the request may or may
not have been carried out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from awscrt import checksums

from ncaasd.adapters.s3.errors import Request, not_s3, translate
from ncaasd.errors import Corrupted
from ncaasd.model import ObjectInfo, Part
from ncaasd.ports import Pace

# Bytes: what `get` gives at a time. A block is decrypted, checksummed and written while it is in the processor's cache;
# smaller ones cost Python more than that saves.
BLOCK = 256 << 10

# A whole object's etag is 32 hexadecimal digits; a multipart object's ends in the count of its parts. Other etags are not
# S3's: web servers, captive portals' included, send etags of their own.
_ETAG = re.compile(r'^"?([0-9a-f]{32}(?:-\d{1,5})?)"?$')


@dataclass(frozen=True, slots=True)
class Options:
    """How requests are made. Timeouts are seconds of silence; `connections`: how many are kept between requests."""

    endpoint_url: str | None
    unsigned: bool
    connections: int
    connect_timeout: float
    read_timeout: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing. `token` is the next page's, or ""; `bucket` is the one that the answer names.

    `folders`: with a delimiter, the common prefixes, which end in it; `objects` are then the objects below none of them.
    """

    headers: Mapping[str, str]
    bucket: str
    objects: list[ObjectInfo]
    token: str
    folders: list[str]


class Body(Protocol):
    """The body of an answer, to be read to its end or closed."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class Requests(Protocol):
    """Makes the requests about one bucket, with one session's credentials. Raises refusals and failures untranslated."""

    def list(self, request: Request, *, token: str, count: int, delimiter: str = "") -> Page:
        """One page of the keys that begin with the request's key."""

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
        """Put an object, or `part` (UploadId, number) of one. Returns the answer's headers."""

    def get(self, request: Request, *, etag: str | None, span: str | None) -> tuple[Mapping[str, str], Body]:
        """The answer's headers, and its body to be read. span: the value of Range."""

    def head(self, request: Request, *, etag: str) -> Mapping[str, str]:
        """The answer's headers."""

    def create(self, request: Request) -> str:
        """A new UploadId; "" when the answer has none."""

    def complete(
        self, request: Request, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> tuple[Mapping[str, str], str]:
        """The answer's headers, and the new object's etag from its body."""

    def delete(self, request: Request) -> int:
        """The answer's status."""

    def close(self) -> None: ...


class Blocks:
    """A body in blocks; its size is checked, and its CRC64NVME when the stored one is known."""

    def __init__(self, body: Body, request: Request, size: int, crc: int | None) -> None:
        self._body = body
        self._request = request
        self._left = size
        self._wanted = crc
        self._crc = 0

    def __iter__(self) -> Blocks:
        return self

    def __next__(self) -> bytes:
        where = f"{self._request.bucket}/{self._request.key}"
        if self._left == 0:
            self.close()
            if self._wanted is not None and self._wanted != self._crc:
                raise Corrupted(f"{where} arrived changed: its checksum is another", hint="tried again")
            raise StopIteration
        try:
            block = self._body.read(min(BLOCK, self._left))
        except Exception as raised:
            self.close()
            raise translate(self._request, raised) from raised
        if not block:
            self.close()
            raise Corrupted(f"{where} ended {self._left} bytes early", hint="tried again")
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


def etag_of(headers: Mapping[str, str], request: Request) -> str:
    match = _ETAG.match(headers.get("etag", ""))
    if match is None:
        raise not_s3(request, "an answer without an object's etag")
    return match[1]


def number_of(headers: Mapping[str, str], name: str, request: Request) -> int:
    value = headers.get(name, "")
    if not value.isdigit():
        raise not_s3(request, f"an answer without {name}")
    return int(value)


def full_crc(headers: Mapping[str, str]) -> int | None:
    # A composite checksum (of the parts' checksums) says nothing about the bytes as a whole.
    value = headers.get("x-amz-checksum-crc64nvme")
    if value is None or headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    return int.from_bytes(base64.b64decode(value), "big")
