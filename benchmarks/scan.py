"""How long a full rescan takes, against `find -printf '%s %T@ %p'` over the same tree (BENCH goal 7).

    python benchmarks/scan.py                              # 200,000 files in 10,000 folders, all known, warm
    python benchmarks/scan.py --files 1000 --folders 50    # any other size

The tree is built once below `--where` and used again. Each repetition runs find and then the rescan; the rescan runs in
a process of its own that holds what is known, as the daemon does, and says how much memory that takes in all.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ncaasd.adapters.files.tree import LocalTree
from ncaasd.declare import ignored

IGNORE = ignored.names()  # the config's default
GOAL_RATIO, GOAL_MIB = 3.0, 250


def build(root: Path, files: int, folders: int) -> None:
    done = root / ".built"
    if done.exists():
        return
    for number in range(folders):
        folder = root / "inputs" / f"animal{number % 100:02}" / f"2025-06-{number // 100 % 30 + 1:02}_run{number:05}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in range(number, files, folders):
            (folder / f"two_photon_stack_{file:06}.tif").touch()
    done.touch()


def rescans(root: str) -> None:
    """The other process: scans once for each line of its input, and answers with seconds (wall, CPU) and MiB."""
    tree = LocalTree(root, ignore=IGNORE)
    known = dict(tree.scan({}).changed)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        delta = tree.scan(known)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert not delta.changed and not delta.gone and delta.files == len(known), "the tree changed meanwhile"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(wall, cpu, peak, delta.files, flush=True)


def find(root: str) -> tuple[float, float]:
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["find", root, "-printf", "%s %T@ %p\n"], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--where", default="/var/tmp/ncaasd-scan-benchmark")
    parser.add_argument("--rescans", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rescans:
        rescans(options.rescans)
        return 0
    root = Path(options.where) / f"{options.files}-{options.folders}"
    build(root, options.files, options.folders)
    command = [sys.executable, __file__, "--rescans", os.fspath(root)]
    peers, ours, peak = [], [], 0.0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin and process.stdout
        for _ in range(options.repeats + 1):
            peer = find(os.fspath(root))
            process.stdin.write("again\n")
            wall, cpu, peak, _files = map(float, process.stdout.readline().split())
            peers.append(peer)
            ours.append((wall, cpu))
        process.stdin.close()
    peers, ours = peers[1:], ours[1:]  # the first of each warmed the cache
    ratios = [a[0] / b[0] for a, b in zip(ours, peers, strict=True)]
    for name, runs in (("find", peers), ("rescan", ours)):
        walls = [wall for wall, _ in runs]
        cpu = statistics.median(cpu for _, cpu in runs)
        print(f"{name:7} wall {statistics.median(walls):.3f} s ({min(walls):.3f}-{max(walls):.3f}), CPU {cpu:.3f} s")
    ratio = statistics.median(ratios)
    print(f"ratio   {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}), goal {GOAL_RATIO}")
    print(f"memory  {peak:.0f} MiB at most, in all, goal {GOAL_MIB}")
    return 0 if ratio <= GOAL_RATIO and peak <= GOAL_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
