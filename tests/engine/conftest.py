from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.lab import Lab


@pytest.fixture
def new_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**settings: dict[str, Any]) -> Lab:
        made.append(Lab(tmp_path / f"lab{len(made)}", **settings))
        return made[-1]

    yield make
    for lab in made:
        lab.rig.kill()


@pytest.fixture
def lab(new_lab: Callable[..., Lab]) -> Lab:
    return new_lab()
