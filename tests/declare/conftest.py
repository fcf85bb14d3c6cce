"""What is declared and not built yet is read here as it will be; test_unbuilt.py has the refusals."""

from __future__ import annotations

import pytest

from ncaasd.declare import unbuilt


@pytest.fixture(autouse=True)
def everything_is_built(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.path.name != "test_unbuilt.py":
        monkeypatch.setattr(unbuilt, "KEYS", {})
