"""docs/jobs.md says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ncaasd.model import JobState
from ncaasd.neurocaas.job_state_doc import MEANINGS, states, table

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


@pytest.mark.parametrize(("name", "printed"), [("states", states()), ("table", table())])
def test_the_page_has_what_the_code_prints(name: str, printed: str) -> None:
    part = re.search(rf"<!-- {name}: .*? -->\n\n(.*?)\n\n<!-- end of {name} -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert part is not None
    assert part[1] == printed, "docs/jobs.md has drifted: paste what `python -m ncaasd.neurocaas.job_state_doc` prints"


def test_every_state_has_a_meaning() -> None:
    assert set(MEANINGS) == set(JobState)


def test_the_module_prints_both() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ncaasd.neurocaas.job_state_doc"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"{states()}\n\n{table()}\n"
