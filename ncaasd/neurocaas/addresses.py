"""S3 addresses: `s3://bucket/key`. They name data and configs outside the analysis's own folders (storage bypass).

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Storage bypass").
"""

from __future__ import annotations

import re

_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_address(text: str) -> bool:
    """Whether a name begins with s3://. Whether the rest of the address is valid is not checked."""
    return text.startswith(_SCHEME)


def split(address: str) -> tuple[str, str]:
    """(bucket, key) of an address (`is_address`), as written; the key may be empty. Raises ValueError for any other text."""
    if not is_address(address):
        raise ValueError(f"{address} is no s3:// address")
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    return bucket, key


def split_checked(text: str) -> tuple[str, str] | None:
    """(bucket, key); None when `text` is no address, or its bucket's name is not valid. The key may be empty."""
    if not is_address(text):
        return None
    bucket, key = split(text)
    return (bucket, key) if _BUCKET.fullmatch(bucket) else None


def address_of(bucket: str, key: str) -> str:
    return f"{_SCHEME}{bucket}/{key}"
