"""Whether an endpoint honours If-None-Match, which "a job is never paid for twice" depends on."""

from __future__ import annotations

from awscrt import checksums

from ncaasd.errors import Exists
from ncaasd.ports import ObjectStore

_BODY = b"ncaasd asks here whether this S3 honours If-None-Match. It may be deleted.\n"


def honours_if_none_match(store: ObjectStore, key: str) -> bool:
    """Put a tiny object at `key` (one of ours, that starts no job), then again only if absent: that must be refused.

    False: the endpoint overwrites what is there, so no submit may be sent to it. Raises StoreError when the probe
    itself could not be made.
    """
    crc = checksums.crc64nvme(_BODY)
    store.put(key, _BODY, crc=crc, only_if_absent=False)
    try:
        store.put(key, _BODY, crc=crc, only_if_absent=True, retry=False)
    except Exists:
        return True
    return False
