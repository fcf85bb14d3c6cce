from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from declared_rig import DeclaredRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeclaredRig]:
    made = DeclaredRig(tmp_path)
    yield made
    made.rig.kill()
