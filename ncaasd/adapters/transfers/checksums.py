"""Checksums, which S3 verifies, and ETags, by which a stored object is recognised."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from awscrt import checksums as crt

from ncaasd.model import Part

BLOCK = 1 << 20  # bytes read at a time
# Part sizes of other clients: the AWS CLI and boto3 (8 MiB), the website's browser SDK and rclone (5 MiB).
OTHERS = (8 << 20, 5 << 20)


def crc64(data: bytes | memoryview, previous: int = 0) -> int:
    """CRC64NVME, in C and without the GIL."""
    return int(crt.crc64nvme(data, previous))


def combined_crc(parts: Sequence[Part]) -> int:
    """The CRC64NVME of the whole object, computed from those of its parts in order, without reading it again."""
    crc = 0
    for part in parts:
        crc = int(crt.combine_crc64nvme(crc, part.crc, part.size))
    return crc


def multipart_etag(etags: Sequence[str]) -> str:
    """The ETag of an object that was put in parts with these ETags (each the part's MD5).

    Source: Amazon S3's behaviour for multipart objects; "" when a part's ETag is no MD5 (SSE-KMS).
    """
    try:
        digests = b"".join(bytes.fromhex(etag) for etag in etags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def is_multipart(etag: str) -> bool:
    return "-" in etag


@dataclass(frozen=True, slots=True)
class Digest:
    """The result of reading a file once: its CRC64NVME, and its ETag for each likely part size."""

    crc: int
    etags: frozenset[str]


def digest_as(fd: int, size: int, etag: str, part_size: int, checkpoint: Callable[[], None]) -> Digest | None:
    """Read a file once to compare it to an object with `etag`; None when no likely part size gives its count of parts.

    `part_size`: the one that we would use. `checkpoint` is called at each block and may raise. Raises EOFError when the
    file is shorter than `size`.
    """
    if not is_multipart(etag):
        cuts = [_Cut(max(size, 1), multipart=False)]
    else:
        count = etag.rpartition("-")[2]
        sizes = {cut for cut in (part_size, *OTHERS) if str(max(1, -(-size // cut))) == count}
        cuts = [_Cut(cut, multipart=True) for cut in sorted(sizes)]
    if not cuts:
        return None
    crc, at = 0, 0
    block = memoryview(bytearray(BLOCK))
    while at < size:
        checkpoint()
        got = os.preadv(fd, [block[: size - at]], at)
        if not got:
            raise EOFError(at)
        crc = crc64(block[:got], crc)
        for cut in cuts:
            cut.add(block[:got])
        at += got
    return Digest(crc, frozenset(cut.etag() for cut in cuts))


def crc_of(fd: int, size: int, known: Mapping[int, tuple[int, int]], checkpoint: Callable[[], None]) -> int:
    """The CRC64NVME of a file. `known`: the CRCs of ranges, which are then not read: start -> (end, CRC).

    Raises EOFError when the file is shorter than `size`.
    """
    crc, at = 0, 0
    block = memoryview(bytearray(BLOCK))
    starts = sorted(known)
    while at < size:
        checkpoint()
        if at in known:
            end, of_range = known[at]
            crc = int(crt.combine_crc64nvme(crc, of_range, end - at))
            at = end
            continue
        following = starts[bisect.bisect_right(starts, at)] if starts and starts[-1] > at else size
        got = os.preadv(fd, [block[: following - at]], at)
        if not got:
            raise EOFError(at)
        crc = crc64(block[:got], crc)
        at += got
    return crc


class _Cut:
    """The ETag of a stream that is cut into parts of `part_size` bytes."""

    def __init__(self, part_size: int, *, multipart: bool) -> None:
        self._part_size = part_size
        self._multipart = multipart
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left = part_size
        self._digests: list[str] = []

    def add(self, data: memoryview) -> None:
        while len(data):
            now, data = data[: self._left], data[self._left :]
            self._md5.update(now)
            self._left -= len(now)
            if not self._left:
                self._end_part()

    def _end_part(self) -> None:
        self._digests.append(self._md5.hexdigest())
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left = self._part_size

    def etag(self) -> str:
        if self._left < self._part_size or not self._digests:
            self._end_part()
        return multipart_etag(self._digests) if self._multipart else self._digests[0]
