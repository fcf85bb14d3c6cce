"""Which credentials each analysis uses, and the stores that are made with them.

Credentials are found as the AWS SDK finds them, and are never written or shown:
1. `aws.profile` of the analysis, when given: that profile only, as `aws --profile` would;
2. else AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; AWS_PROFILE; the default profile; a container's
   or a machine's role.
A profile may hold keys, a session token, a `credential_process`, a role to assume, or a single sign-on.

Under systemd, `LoadCredential=aws-credentials:/etc/ncaasd/aws-credentials` (or LoadCredentialEncrypted=) hands the
service a file that only it can read, as $CREDENTIALS_DIRECTORY/aws-credentials. It has the form of
`~/.aws/credentials`, profiles included, and takes its place. systemd copies it when the service starts: after a
rotation, restart the service, which is always safe. All other files are noticed when they change.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

import botocore.session
from botocore.exceptions import BotoCoreError

from ncaasd.adapters.s3.store import S3Store

LOAD_CREDENTIAL = "aws-credentials"  # the name in systemd's LoadCredential=
RENEW_EVERY = 10.0  # seconds: refused credentials are read again at most so often (a credential_process costs)


class AwsSettings(Protocol):
    """The config's `aws` section."""

    @property
    def profile(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def endpoint_url(self) -> str | None: ...


class CredentialSource:
    """The credentials of one profile (None: the default chain), read again when their files change."""

    def __init__(self, profile: str | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._profile = profile
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._session: botocore.session.Session | None = None
        self._marks: list[tuple[str, tuple[int, int, int] | None]] = []
        self._renewed = float("-inf")

    @property
    def label(self) -> str:
        return f"the AWS profile {self._profile}" if self._profile else "the default AWS credentials"

    def session(self) -> botocore.session.Session:
        """The session to use now. The SDK reads a file once and keeps it, so a changed file makes a new session."""
        with self._lock:
            if self._session is None or any(_mark(path) != mark for path, mark in self._marks):
                self._session = self._new()
            return self._session

    def renew(self, used: botocore.session.Session) -> bool:
        """S3 refused the credentials of `used` (expired, revoked): read them again, a credential_process included.

        True when they are different now, or when another thread has renewed the session already.
        """
        with self._lock:
            if self._session is not used:
                return True
            now = self._monotonic()
            if now - self._renewed < RENEW_EVERY:
                return False
            self._renewed = now
            fresh = self._new()
            try:
                if _keys(fresh) in (None, _keys(used)):
                    return False
            except (BotoCoreError, OSError):
                return False  # S3's refusal of the old ones is reported
            self._session = fresh
            return True

    def _new(self) -> botocore.session.Session:
        session = botocore.session.Session(profile=self._profile)
        directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
        loaded = os.path.join(directory, LOAD_CREDENTIAL)
        if directory and os.path.isfile(loaded):
            session.set_config_variable("credentials_file", loaded)
        files = [session.get_config_variable("credentials_file"), session.get_config_variable("config_file")]
        # Marked before they are read, so that a change in between is noticed.
        self._marks = [(path, _mark(path)) for path in (os.path.expanduser(file) for file in files if file)]
        return session


def _keys(session: botocore.session.Session) -> tuple[str | None, str | None, str | None] | None:
    credentials = session.get_credentials()
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def _mark(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class StoreFactory:
    """Makes the store of each bucket, once per bucket and `aws` section; analyses with equal sections share credentials."""

    def __init__(self, *, connections: int = 16) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._sources: dict[str | None, CredentialSource] = {}
        self._stores: dict[tuple[str, str | None, str | None, str | None, bool], S3Store] = {}

    def store(self, bucket: str, aws: AwsSettings, *, unsigned: bool = False) -> S3Store:
        """The store of `bucket`. `unsigned`: a public bucket (storage bypass), read without any credentials.

        Makes no request; wrong credentials are found when the store is used.
        """
        key = (bucket, aws.profile, aws.region, aws.endpoint_url, unsigned)
        with self._lock:
            found = self._stores.get(key)
            if found is None:
                source = self._sources.setdefault(aws.profile, CredentialSource(aws.profile))
                found = self._stores[key] = S3Store(
                    bucket,
                    source,
                    region=aws.region,
                    endpoint_url=aws.endpoint_url,
                    unsigned=unsigned,
                    connections=self._connections,
                )
            return found
