from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.spawner import Spawner


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a journal is to be."""
    return str(tmp_path / "journal.sqlite")


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    with Spawner() as running:
        yield running
