"""The command line as people have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.rig import Rig


def installed() -> list[str]:
    """The console script of this environment; the module where the package isn't installed in it."""
    script = Path(sys.executable).with_name("ncaasd")
    return [str(script)] if script.exists() else [sys.executable, "-m", "ncaasd"]


def command(rig: Rig, *words: str, timeout: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ncaasd WORDS --config …`, with the sandbox's credentials and nobody to answer its questions."""
    env = os.environ | rig.bench.sandbox.environment() | {"COLUMNS": "100", "NO_COLOR": "1"} | environment
    return subprocess.run(
        [*installed(), *words, "--config", rig.config],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
