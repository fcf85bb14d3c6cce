"""The schedule in a whole daemon, by the real APScheduler and a real tree: rescans come, and what a night has missed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ncaasd.adapters.journal import backups
from ncaasd.declare.config import Config, load_config
from ncaasd.engine import service
from ncaasd.engine.core.schedule import Schedule
from ncaasd.engine.daemon import Running, running
from ncaasd.engine.service import live, run_pass, scheduled

ANALYSIS = "demo-analysis"


class Place:
    """A config and its folders; S3 does not answer."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.inputs = base / "data" / ANALYSIS / "inputs"
        self.inputs.mkdir(parents=True)

    def config(self, **changes: Any) -> Config:
        wanted: dict[str, Any] = {
            "group": "lab",
            "root": str(self.base / "data"),
            "state": str(self.base / "state"),
            "analyses": {ANALYSIS: {}},
            "aws": {"endpoint_url": "http://127.0.0.1:9"},
            "watch": {"settle": "100ms", "min_free": 0, "rescan": "1h", "mode": "polling", **changes.pop("watch", {})},
            "web": "off",
        }
        (self.base / "c.yaml").write_text(json.dumps(wanted | changes))
        return load_config((self.base / "c.yaml").read_bytes(), "c.yaml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "for-nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-nothing")
    monkeypatch.setattr(service, "SOON", 3600.0)
    return Place(tmp_path)


class Runtime:
    """A daemon whose turns the test makes."""

    def __init__(self, runtime: Running, schedule: Schedule) -> None:
        self.running, self.schedule = runtime, schedule
        self.journal = runtime.journal

    def until(self, condition: Callable[[], object], longest: float = 20.0) -> bool:
        deadline = time.monotonic() + longest
        while not condition() and time.monotonic() < deadline:
            self.running.engine.turn(0.05)
            self.schedule.look()
        return bool(condition())

    def scans(self) -> int:
        return self.running.engine.observer.trees[ANALYSIS, ""].scans

    def sees(self, name: str) -> bool:
        return any(f.place.path == f"inputs/{name}" for f in self.journal.files(ANALYSIS))

    def events(self, kind: str) -> list[str]:
        return [e.text for e in self.journal.events(limit=1000) if e.kind == kind]


@contextlib.contextmanager
def house_of(config: Config) -> Iterator[Runtime]:
    with running(config) as runtime:
        schedule = scheduled(runtime)
        try:
            yield Runtime(runtime, schedule)
        finally:
            schedule.stop()


def test_what_no_event_told_of_is_found_by_the_schedule(place: Place) -> None:
    with house_of(place.config(watch={"rescan": "300ms"})) as runtime:
        assert runtime.until(lambda: runtime.scans() >= 1)
        (place.inputs / "unheard.tif").write_bytes(b"x")
        assert runtime.until(lambda: runtime.sees("unheard.tif"))
        seen = runtime.scans()
        assert runtime.until(lambda: runtime.scans() > seen + 1), "and they go on"


def test_nothing_but_the_schedule_asks_for_a_rescan(place: Place) -> None:
    with house_of(place.config(watch={"rescan": "100ms"})) as runtime:
        assert runtime.until(lambda: runtime.scans() >= 1)
        runtime.schedule.stop()

        def turns() -> None:
            for _ in range(10):
                runtime.running.engine.turn(0.05)

        turns()  # what was posted already
        seen = runtime.scans()
        (place.inputs / "unheard.tif").write_bytes(b"x")
        turns()
        assert runtime.scans() == seen and not runtime.sees("unheard.tif")


def test_rescans_go_on_when_the_scheduler_has_died(place: Place) -> None:
    with house_of(place.config(watch={"rescan": "300ms"})) as runtime:
        assert runtime.until(lambda: runtime.scans() >= 1)
        runtime.schedule._scheduler.shutdown(wait=False)  # its thread is gone, without a word
        (place.inputs / "unheard.tif").write_bytes(b"x")
        assert runtime.until(lambda: runtime.sees("unheard.tif"))
        seen = runtime.scans()
        assert runtime.until(lambda: runtime.scans() > seen + 1), "and they go on"


@pytest.mark.parametrize("jump", [10 * 365 * 86400.0, -10 * 365 * 86400.0])
def test_F83_rescans_go_on_after_a_jump_of_the_clock(
    place: Place, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    with house_of(place.config(watch={"rescan": "300ms"})) as runtime:
        assert runtime.until(lambda: runtime.scans() >= 1)
        clock = runtime.running.engine.runtime.clock
        monkeypatch.setattr(clock, "now", lambda: time.time() + jump)
        (place.inputs / "unheard.tif").write_bytes(b"x")
        assert runtime.until(lambda: runtime.sees("unheard.tif"))
        seen = runtime.scans()
        assert runtime.until(lambda: runtime.scans() > seen + 1), "and they go on"


def test_a_missing_folder_is_tried_again_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the schedule: the next rescan may be hours away."""
    monkeypatch.setattr("ncaasd.engine.arriving.observing.RETRY_MISSING", 0.2)
    with house_of(place.config()) as runtime:
        assert runtime.until(lambda: runtime.scans() >= 1)
        place.inputs.parent.rename(place.base / "away")
        runtime.running.engine.observer.rescan_all()
        assert runtime.until(lambda: runtime.events("root missing"))
        (place.base / "away").rename(place.inputs.parent)
        assert runtime.until(lambda: runtime.events("root back"))


def test_the_backup_that_a_night_missed_is_made_soon_after_the_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SOON", 0.2)
    with house_of(place.config()) as runtime:
        assert runtime.until(lambda: runtime.events("backup"))
        (backup,) = backups.backups_of(runtime.journal.path)
        assert backups.check_backup(backup) == "" and os.stat(backup.path).st_mode & 0o777 == 0o600
    with house_of(place.config()) as runtime:  # a restart on the same day
        runtime.until(lambda: False, 1.0)
        assert len(runtime.events("backup")) == 1


def test_a_backup_that_has_no_room_is_a_trouble_until_one_succeeds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SOON", 0.2)
    monkeypatch.setattr(service, "LOOK_AT_NIGHT", 0.3)
    monkeypatch.setattr("ncaasd.engine.daemon.MOST_LEFT_FREE", 2**62)
    with house_of(place.config(watch={"min_free": "1000000 TB"})) as runtime:
        assert runtime.until(lambda: runtime.events("backup failed"))
        assert any("no room for a backup of the journal" in text for text in live(runtime.running)["troubles"])
        runtime.until(lambda: False, 1.0)  # it is tried again meanwhile
        assert len(runtime.events("backup failed")) == 1
    with house_of(place.config()) as runtime:
        assert any("no room" in text for text in live(runtime.running)["troubles"])
        assert runtime.until(lambda: runtime.events("backup"))
        assert not any("no room" in text for text in live(runtime.running)["troubles"])


def test_a_pass_that_goes_on_for_long_has_rescans(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LASTS", 0.2)
    found: list[bool] = []
    began = time.monotonic()

    def each(runtime: Running) -> None:
        if runtime.engine.observer.scanned() and not (place.inputs / "unheard.tif").exists():
            (place.inputs / "unheard.tif").write_bytes(b"x")
            (place.inputs / "settles.tif").write_bytes(b"y")
        if any(f.place.path == "inputs/unheard.tif" for f in runtime.journal.files(ANALYSIS)):
            found.append(True)

    (place.inputs / "settles.tif").write_bytes(b"x")  # the pass waits for it
    config = place.config(watch={"rescan": "300ms", "settle": "30s"})
    run_pass(config, each=each, stop=lambda: bool(found) or time.monotonic() > began + 20)
    assert found
    assert "APScheduler" not in {thread.name for thread in threading.enumerate()}


def test_a_pass_with_nothing_to_wait_for_does_not_import_apscheduler(place: Place) -> None:
    place.config()
    code = (
        "import sys\nfrom ncaasd.engine import service\nfrom ncaasd.engine.service import read_config, run_pass\n"
        "service.LASTS = 60.0  # however busy this machine is\n"
        f"result = run_pass(read_config({str(place.base / 'c.yaml')!r}), wait=True)\n"
        "assert result.finished\nassert 'apscheduler' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
