"""Another bucket than the analysis's own (storage bypass): read with the access key or, where that isn't allowed, unsigned.

The access key of a NeuroCAAS group has no rights on other buckets, and S3 refuses requests signed with it even where anybody
may read (the key's own account must allow it, too). So public buckets are read without a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ncaasd.errors import BadCredentials, Denied
from ncaasd.model import Listing, ObjectInfo, Part
from ncaasd.ports import ObjectStore, Pace

T = TypeVar("T")


class SignedOrPublic:
    """An ObjectStore. Reads are tried signed first, then unsigned; the store that worked last is tried first next time."""

    def __init__(self, signed: ObjectStore, unsigned: ObjectStore) -> None:
        self._signed = signed
        self._ways = (signed, unsigned)

    @property
    def bucket(self) -> str:
        return self._signed.bucket

    def _read(self, ask: Callable[[ObjectStore], T]) -> T:
        first, second = self._ways
        try:
            return ask(first)
        except (Denied, BadCredentials) as error:
            try:
                answer = ask(second)
            except (Denied, BadCredentials) as also:
                # The error of the signed request is raised: a person can do something about a key's rights.
                raise (error if first is self._signed else also) from None
        self._ways = (second, first)
        return answer

    def list(self, prefix: str) -> Listing:
        return self._read(lambda store: store.list(prefix))

    def folders(self, prefix: str) -> Sequence[str]:
        return self._read(lambda store: store.folders(prefix))

    def find(self, key: str) -> ObjectInfo | None:
        return self._read(lambda store: store.find(key))

    def get(self, key: str, *, etag: str | None = None, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._read(lambda store: store.get(key, etag=etag, start=start, length=length))

    def read(self, key: str, *, limit: int) -> tuple[bytes, ObjectInfo]:
        return self._read(lambda store: store.read(key, limit=limit))

    def checksum(self, key: str, *, etag: str) -> int | None:
        return self._read(lambda store: store.checksum(key, etag=etag))

    # -- what writes is always signed

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
        return self._signed.put(key, body, crc=crc, only_if_absent=only_if_absent, retry=retry, pace=pace)

    def create_multipart(self, key: str) -> str:
        return self._signed.create_multipart(key)

    def put_part(
        self, key: str, upload_id: str, number: int, body: bytes | memoryview, *, crc: int, pace: Pace | None = None
    ) -> Part:
        return self._signed.put_part(key, upload_id, number, body, crc=crc, pace=pace)

    def complete_multipart(
        self, key: str, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> ObjectInfo:
        return self._signed.complete_multipart(key, upload_id, parts, crc=crc, size=size, only_if_absent=only_if_absent)

    def delete(self, key: str) -> None:
        self._signed.delete(key)
