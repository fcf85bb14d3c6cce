"""F67: whatever a file does, reading it ends in less than a second and 50 MB, with a line number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGE_BOMB = "a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}\n" + "x: {<<: *a0}\n" * 20

# name -> (text, whether a line is named)
FILES = {
    "bomb": (BOMB, True),
    "merge-bomb": (MERGE_BOMB, True),
    "deep-lists": ("[" * 1_000_000, True),
    "deep-keys": ("{a: " * 250_000, True),
    "deep-dashes": ("- " * 500_000, True),
    "deep-question-marks": ("? " * 500_000, True),
    "duplicate-keys": ("a: 1\n" * 200_000, True),
    "many-keys": ("".join(f"k{n}: 1\n" for n in range(80_000)), True),
    "many-wrong-jobs": ("jobs: [" + "1, " * 19_000 + "]", True),
    "many-wrong-rules": ("rules:\n" + "- {nme: x}\n" * 6_000, True),
    "many-nans": (
        "jobs: [{name: a, datasets: b, config: c.yaml, set: {" + ", ".join(f"k{n}: .nan" for n in range(9_000)) + "}}]", True,
    ),
    "many-equal-names": ("jobs: [{name: a, datasets: [" + "x/b, " * 19_000 + "], config: c.yaml}]", True),
    "many-analyses": ("analyses:\n" + "".join(f"  bucket-{n}: {{}}\n" for n in range(9_000)) + "watch: {settle: x}", True),
    "long-sections-in-many-analyses": (
        "analyses:\n" + "".join(f"  b-{n}: {{}}\n" for n in range(4_000)) + "watch: {ignore: [" + "a, " * 9_000 + "]}", True,
    ),
    "many-parts": (
        "rules: [{name: a, datasets: b, config: c.yaml, unit: '{a}', set: {x: '" + "{b}" * 300_000 + "'}}]", False,
    ),
    "many-sources": ("sources:\n" + "".join(f"  s{n}: /{'x/' * 40}{n}\n" for n in range(9_000)), True),
    "open-quote": ("a: '" + "x" * 1_000_000, True),
    "escapes": ('a: "' + "\\" * 900_000, True),
    "long-key": ("k" * 1_000_000 + ": 1", True),
    "anchors": ("&a " * 300_000, True),
    "nan": ("jobs:\n- {name: a, datasets: b, config: c.yaml, set: {x: .nan}}", True),
    "100-mb": (None, False),  # refused unread: there is no line to name
}  # fmt: skip

PROBE = """
import json, resource, sys, time
from ncaasd.declare.analysis_config import read_analysis_config
from ncaasd.declare.config import load_config
from ncaasd.declare.manifest import parse_manifest
from ncaasd.declare.yamlio import MAX_BYTES
from ncaasd.errors import DeclarationError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
readers = {
    "config": lambda data: load_config(data, "x.yaml"),
    "rules": lambda data: parse_manifest(data, "x.yaml", standing=True, sources=[], tools=[]),
    "jobs": lambda data: parse_manifest(data, "x.yaml", standing=False, sources=[], tools=[]),
    "analysis config": lambda data: read_analysis_config(data, "x.yaml"),
}
found = {}
with open(sys.argv[1], "rb") as file:
    data = file.read(MAX_BYTES + 1)
for name, read in readers.items():
    begin = time.process_time()  # reading waits for nothing; a busy machine's wall clock would measure the others
    try:
        read(data)
        lines = None
    except DeclarationError as error:
        lines = [p.line for p in error.problems]
    found[name] = [time.process_time() - begin, lines]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"kilobytes": after - before, "total": after, "found": found}))
"""


@pytest.mark.parametrize("name", FILES)
def test_f67_reading_is_bounded(name: str, tmp_path: Path) -> None:
    text, line_named = FILES[name]
    path = tmp_path / "x.yaml"
    if text is None:
        with path.open("wb") as file:
            file.truncate(100 * 2**20)
    else:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    seen = json.loads(done.stdout)
    assert max(seconds for seconds, _ in seen["found"].values()) < 1.0
    assert seen["kilobytes"] < 50_000
    for reader in ("config", "rules", "jobs"):
        lines = seen["found"][reader][1]
        assert lines, f"{reader} took it"
        assert any(lines) or not line_named
        assert len(lines) <= 101
