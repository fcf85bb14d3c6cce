"""What one request costs the client, by ncaasd's own requests and by the SDK: CPU for a put, a listing and a signature.

    python benchmarks/client.py

Against sink.py without TLS, in one thread, in turn. Counted is Python's work for a request, and the kernel's for sending it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import botocore.auth
import botocore.session
from awscrt.checksums import crc64nvme
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fakes.sdk_requests import SdkRequests

from ncaasd.adapters.s3.signing import UNSIGNED, Keys, Signer
from ncaasd.adapters.s3.store import S3Store

KEY, SECRET, REGION = "AKIDEXAMPLE", "secret", "us-east-1"
SIZE = 16 * 1024
REQUESTS, ROUNDS = 1000, 5


class OneKey:
    """`s3.Sessions` of a key that never changes."""

    label = "the benchmark's key"

    def __init__(self) -> None:
        self._session = botocore.session.Session()
        self._session.set_credentials(KEY, SECRET)

    def session(self) -> botocore.session.Session:
        return self._session

    def renew(self, used: botocore.session.Session) -> bool:
        return False


def cpu_ms(do: Callable[[int], object]) -> float:
    """Milliseconds of this process's CPU for one `do`."""
    began = time.process_time()
    for number in range(REQUESTS):
        do(number)
    return (time.process_time() - began) * 1000 / REQUESTS


def puts(store: S3Store) -> Callable[[int], object]:
    body = os.urandom(SIZE)
    crc = crc64nvme(body)
    return lambda n: store.put(f"lab/inputs/{n}.bin", body, crc=crc, only_if_absent=True)


def lists(store: S3Store) -> Callable[[int], object]:
    return lambda n: store.find(f"lab/results/{n}")


def our_signature(n: int) -> None:
    headers = {"host": "127.0.0.1", "if-none-match": "*", "content-length": str(SIZE)}
    SIGNER.sign(Keys(KEY, SECRET, None), "PUT", f"/bucket/lab/inputs/{n}.bin", "", headers, UNSIGNED, time.time())


def sdk_signature(n: int) -> None:
    headers = {"host": "127.0.0.1", "if-none-match": "*", "content-length": str(SIZE)}
    request = AWSRequest(method="PUT", url=f"https://127.0.0.1/bucket/lab/inputs/{n}.bin", headers=headers)
    request.context["payload_signing_enabled"] = False
    botocore.auth.S3SigV4Auth(CREDENTIALS, "s3", REGION).add_auth(request)


SIGNER, CREDENTIALS = Signer(REGION), Credentials(KEY, SECRET)


def main() -> None:
    sink = Path(__file__).with_name("sink.py")
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, str(sink), "--folder", folder], stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        ours = S3Store("bucket", OneKey(), region=REGION, endpoint_url=endpoint)
        sdk = S3Store("bucket", OneKey(), region=REGION, endpoint_url=endpoint, requests=SdkRequests)
        rows = {
            "a put of 16 KiB": (puts(ours), puts(sdk)),
            "a listing": (lists(ours), lists(sdk)),
            "a signature": (our_signature, sdk_signature),
        }
        print(f"{time.strftime('%Y-%m-%d')}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n")
        print("| CPU of the client, ms | ncaasd | SDK |\n|---|---|---|")
        for name, ways in rows.items():
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for times, way in zip(taken, ways, strict=True):
                    times.append(cpu_ms(way))
            cells = [f"{statistics.median(t):.2f} ({min(t):.2f}–{max(t):.2f})" for t in taken]
            print(f"| {name} | {' | '.join(cells)} |")
        server.terminate()


if __name__ == "__main__":
    main()
