"""What many small files cost at least on SeaweedFS: bare puts with `If-None-Match: *` and without, bare gets, and nothing else.

    python benchmarks/floor.py --s5cmd /tmp/peers/bin/s5cmd

An input that this rig never put is put with `If-None-Match: *`, because what another rig put there must not be overwritten.
The peers don't ask that of the server. Here a few threads put the same files by ncaasd's own requests, without a journal, a
daemon or a look at the file before and after; the server's processor time for each put stands beside. Gets are written and
renamed, compared with their ETag, and followed by `sync -f`, as the peer's are. Interleaved.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from awscrt.checksums import crc64nvme

from ncaasd.adapters.s3.credentials import StoreFactory
from ncaasd.declare.config import load_config
from ncaasd.ports import ObjectStore

TICK = os.sysconf("SC_CLK_TCK")
UP, DOWN, GETS = "s5cmd, 32 workers, up", "s5cmd, 32 workers, down", "bare gets"


def cpu_of(folder: str) -> float:
    """CPU seconds of the server that works in `folder`."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / TICK
        except OSError:
            continue
    return total


def in_threads(numbers: Iterable[int], threads: int, do: Callable[[int], None]) -> None:
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        todo.put(number)

    def work() -> None:
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            do(number)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def name_of(number: int) -> str:
    return f"{number // 100}/{number}.bin"


def put_all(store: ObjectStore, prefix: str, files: int, size: int, threads: int, *, if_none_match: bool) -> None:
    body = os.urandom(size)
    crc = crc64nvme(body)

    def put(number: int) -> None:
        store.put(f"{prefix}/{name_of(number)}", body, crc=crc, only_if_absent=if_none_match)

    in_threads(range(files), threads, put)


def get_all(store: ObjectStore, prefix: str, files: int, threads: int, folder: Path) -> None:
    etags = {found.key: found.etag for found in store.list(prefix + "/").objects}
    for number in range(0, files, 100):
        (folder / str(number // 100)).mkdir(parents=True)

    def get(number: int) -> None:
        key, path = f"{prefix}/{name_of(number)}", folder / name_of(number)
        body = b"".join(store.get(key, etag=etags[key]))
        assert hashlib.md5(body, usedforsecurity=False).hexdigest() == etags[key]
        fd = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, body)
        os.close(fd)
        os.rename(f"{path}.part", path)

    in_threads(range(files), threads, get)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--size", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--bucket", default="bench", help="`analysis` keeps versions, as the one of `watching.py flood` does"
    )
    parser.add_argument("--s5cmd", default="s5cmd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        served = os.path.join(folder, "s3")
        weed = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("weed.py")), served],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert weed.stdout is not None and weed.stdin is not None
        try:
            said = json.loads(weed.stdout.readline())
            keys = {"AWS_ACCESS_KEY_ID": said["access_key"], "AWS_SECRET_ACCESS_KEY": said["secret_key"]}
            os.environ.update(keys, AWS_REGION="us-east-1")
            bucket = options.bucket
            settings = f"group: lab\nroot: {folder}\nanalyses: {{{bucket}: {{}}}}\naws: {{endpoint_url: '{said['endpoint']}'}}\n"
            store = StoreFactory().store(bucket, load_config(settings.encode(), "floor").analyses[bucket].aws)
            tree = Path(folder, "tree")
            for number in range(options.files):
                path = tree / name_of(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(os.urandom(options.size))
            s5cmd = [options.s5cmd, "--endpoint-url", said["endpoint"], "--numworkers", "32", "--log", "error", "cp"]
            files, threads = options.files, options.threads

            def peer(source: str, target: str) -> None:
                subprocess.run([*s5cmd, source, target], check=True, stdout=subprocess.DEVNULL)

            def bare(prefix: str, *, if_none_match: bool) -> None:
                put_all(store, prefix, files, options.size, threads, if_none_match=if_none_match)

            def fetched(prefix: str, get: Callable[[Path], None]) -> None:
                place = Path(folder, "fetched", prefix)
                place.mkdir(parents=True)
                get(place)
                subprocess.run(["sync", "-f", place], check=True)

            ways: dict[str, Callable[[str], None]] = {
                "bare puts": lambda prefix: bare(prefix, if_none_match=False),
                "bare puts, If-None-Match": lambda prefix: bare(prefix, if_none_match=True),
                UP: lambda prefix: peer(f"{tree}/", f"s3://{bucket}/{prefix}/"),
                GETS: lambda prefix: fetched(prefix, lambda to: get_all(store, "warm", files, threads, to)),
                DOWN: lambda prefix: fetched(prefix, lambda to: peer(f"s3://{bucket}/warm/*", f"{to}/")),
            }
            walls: dict[str, list[float]] = {name: [] for name in ways}
            servers: dict[str, list[float]] = {name: [] for name in ways}
            bare("warm", if_none_match=False)
            for repetition in range(options.repeats):
                for number, (name, way) in enumerate(ways.items()):
                    before, began = cpu_of(served), time.perf_counter()
                    way(f"run{repetition}-{number}")
                    walls[name].append(time.perf_counter() - began)
                    servers[name].append((cpu_of(served) - before) / options.files * 1000)
        finally:
            weed.stdin.close()
            weed.wait(30)
    print(f"{options.files} files of {options.size} bytes, load {os.getloadavg()[0]:.1f}\n")
    print("| | s | ÷ s5cmd | the server's CPU, ms a file |\n|---|---|---|---|")
    for name in ways:
        peer_name = DOWN if name in (GETS, DOWN) else UP
        ratios = [a / b for a, b in zip(walls[name], walls[peer_name], strict=True)]
        cells = [
            f"{statistics.median(v):.2f} ({min(v):.2f}–{max(v):.2f})" for v in (walls[name], ratios, servers[name])
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
