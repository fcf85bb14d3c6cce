"""The checks of S3 for `ncaasd check`: the endpoint, the access key, each permission, the clock.

The objects that they put have a key of their own (`…/.ncaasd/check-RIG`), which starts no job, and are deleted again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

from awscrt.checksums import crc64nvme

from ncaasd.adapters.s3.credentials import CredentialSource, StoreFactory
from ncaasd.adapters.s3.probe import honours_if_none_match
from ncaasd.declare.config import Analysis, Config
from ncaasd.errors import Absent, Corrupted, Denied, StoreError
from ncaasd.neurocaas.naming import ID_DIGITS, ID_LIMIT, Layout
from ncaasd.ports import ObjectStore
from ncaasd.show import words
from ncaasd.show.check.findings import Finding, Level

BODY = b"ncaasd check puts this here for a moment. It may be deleted.\n"
SKEW_NOTED, SKEW_BAD = 30.0, 300.0  # seconds; AWS refuses requests that are 15 minutes off
BLOCKED = "nothing is submitted to an endpoint that would start a job twice"


def store_findings(config: Config, name: str, settings: Analysis) -> Iterator[Finding]:
    """The findings about one analysis's bucket. If it doesn't answer at all, that is the only one."""
    layout = Layout(name, config.group)
    if len(name) + ID_DIGITS > ID_LIMIT:
        most = ID_LIMIT - ID_DIGITS
        text = f"its name has {len(name)} characters; NeuroCAAS can't follow a job in a bucket of more than {most}"
        yield Finding("bucket", Level.BAD, text, "is it the analysis's real bucket?", name)
    store = StoreFactory().store(name, settings.aws)
    endpoint = settings.aws.endpoint_url or f"AWS, {settings.aws.region}"
    try:
        store.find(layout.inputs)
    except Denied:
        pass  # it answers, and knows the access key; the missing permission is found below
    except StoreError as error:
        yield Finding("S3", Level.BAD, f"{endpoint}: {error.message}; nothing more of it was tried", error.hint, name)
        return
    yield Finding("S3", Level.GOOD, f"{endpoint} answers", analysis=name)
    yield Finding("credentials", Level.GOOD, _who(settings.aws.profile), analysis=name)
    rig = config.rig or socket.gethostname().partition(".")[0] or "rig"
    for what, attempt in _attempts(store, layout, f".ncaasd/check-{rig}"):
        yield _tried(name, what, attempt)
    yield _clock(store, layout, name)


Attempt = Callable[[], str]  # makes the attempt; returns the finding's text; raises StoreError


def _attempts(store: ObjectStore, layout: Layout, check: str) -> Iterator[tuple[str, Attempt]]:
    areas = {
        "inputs": layout.inputs,
        "configs": layout.configs,
        "submissions": layout.submissions,
        "results": layout.results,
    }

    def listing(prefix: str) -> Attempt:
        def attempt() -> str:
            store.find(prefix)
            return f"s3://{layout.bucket}/{prefix}"

        return attempt

    def putting(prefix: str) -> Attempt:
        def attempt() -> str:
            store.put(prefix + check, BODY, crc=crc64nvme(BODY), only_if_absent=False)
            store.delete(prefix + check)
            return f"s3://{layout.bucket}/{prefix}"

        return attempt

    def reading() -> str:
        key = layout.configs + check
        store.put(key, BODY, crc=crc64nvme(BODY), only_if_absent=False)
        data, _info = store.read(key, limit=len(BODY))
        store.delete(key)
        if data != BODY:
            raise Corrupted(f"{key} came back as something else than was put")
        return f"s3://{layout.bucket}/{layout.configs}"

    def multipart() -> str:
        key = layout.inputs + check
        upload = store.create_multipart(key)
        part = store.put_part(key, upload, 1, BODY, crc=crc64nvme(BODY))
        store.complete_multipart(key, upload, [part], crc=crc64nvme(BODY), size=len(BODY), only_if_absent=False)
        store.delete(key)
        return "one of one part, as large recordings go up"

    def conditional() -> str:
        key = layout.submissions + check
        honoured = honours_if_none_match(store, key)
        store.delete(key)
        if not honoured:
            raise StoreError("this endpoint overwrites what is there in spite of If-None-Match", hint=BLOCKED)
        return "honoured: no job can be started twice"

    for area, prefix in areas.items():
        yield f"list {area}", listing(prefix)
    for area in ("inputs", "configs", "submissions"):
        yield f"put and delete in {area}", putting(areas[area])
    yield "read configs", reading
    yield "multipart upload", multipart
    yield "If-None-Match", conditional


def _tried(name: str, what: str, attempt: Attempt) -> Finding:
    try:
        return Finding(what, Level.GOOD, attempt(), analysis=name)
    except Absent as error:
        return Finding(what, Level.BAD, f"what was just put is not there: {error.message}", error.hint, name)
    except StoreError as error:
        return Finding(what, Level.BAD, error.message, error.hint, name)


def _who(profile: str | None) -> str:
    """Where the access key was found, and its last letters; nothing secret."""
    source = CredentialSource(profile)
    credentials = source.session().get_credentials()
    if credentials is None:  # S3 has just accepted them; they may have been removed meanwhile
        return source.label
    return f"{source.label}, from {credentials.method}, key …{credentials.access_key[-4:]}"


def _clock(store: ObjectStore, layout: Layout, name: str) -> Finding:
    before = time.time()
    try:
        there = store.list(f"{layout.submissions}.ncaasd/").at
    except StoreError as error:
        return Finding("clock", Level.BAD, f"the server's time could not be read: {error.message}", error.hint, name)
    off = (before + time.time()) / 2 - there
    text = f"{words.span(abs(off))} {'ahead of' if off > 0 else 'behind'} the server's"
    fix = "set it by NTP: timedatectl set-ntp true"
    if abs(off) > SKEW_BAD:
        return Finding("clock", Level.BAD, text, fix, name)
    if abs(off) > SKEW_NOTED:
        return Finding("clock", Level.NOTE, text, fix, name)
    return Finding("clock", Level.GOOD, "agrees with the server's", analysis=name)
