"""Clocks that jump, machines that sleep, daylight saving: with a clock of our own, and under libfaketime (F83-F85)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fakes.memory_store import MemoryStore
from state_machine.inline_rig import BUCKET, InlineRig, ServerClock, VirtualClock
from support.rig import Rig, blob, run_command

from ncaasd.engine.core.schedule import Beat, Job, Nightly, Schedule
from ncaasd.model import FileState, Phase

YEAR = 365.25 * 86400
FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)
RESCAN = 300.0


class Lab:
    """One daemon in one thread, on a clock that moves when told to; rescans alone find things."""

    def __init__(self, base: Path, wall: float) -> None:
        self.clock = VirtualClock(wall)
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.folder = base / "root" / BUCKET
        for area in ("inputs", "configs", "submissions", "results"):
            (self.folder / area).mkdir(parents=True)
        (self.folder / "configs/c.yaml").write_text("fr: 30\n")
        (self.folder / "manifest.yaml").write_text("rules: [{name: all, datasets: '*.tif', config: c.yaml}]\n")
        config = f"watch: {{settle: 30s, rescan: {RESCAN:.0f}s, min_free: 0}}\n"
        self.rig = InlineRig("rig", str(base / "root"), str(base), self.server, self.clock, config)

    def drop(self, name: str) -> None:
        (self.folder / "inputs" / name).write_bytes(name.encode())

    def run(self, seconds: float) -> None:
        """Turn for so long as the clock shows, as the daemon would: never longer than five seconds without one."""
        end = self.clock.mono + seconds
        while self.clock.mono < end:
            self.rig.turn()
            assert self.rig.engine is not None
            self.clock.sleep(min(self.rig.engine.wait_for(), end - self.clock.mono + 0.001))

    def submits(self) -> list[int]:
        return [n for key, n in self.server.created_keys().items() if key.endswith("submit.json")]

    def states(self) -> dict[str, FileState]:
        return {f.place.path: f.state for f in self.rig.journal.files(BUCKET, under="inputs/")}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[float], Lab]]:
    made: list[Lab] = []

    def make(wall: float) -> Lab:
        made.append(Lab(tmp_path, wall))
        return made[0]

    yield make
    for each in made:
        each.rig.kill()


@pytest.mark.parametrize("jump", [10 * YEAR, -10 * YEAR, 3600.0, -3600.0, 31.0])
@pytest.mark.parametrize("moment", ["settling", "stored", "submitted"])
def test_F83_a_jump_loses_nothing_and_doubles_nothing(lab: Callable[[float], Lab], jump: float, moment: str) -> None:
    it = lab(time.time())
    it.run(60)
    it.drop("a.tif")
    reached = {
        "settling": lambda: it.states().get("inputs/a.tif") is FileState.SETTLING,
        "stored": lambda: it.states().get("inputs/a.tif") is FileState.STORED,
        "submitted": lambda: any(j.phase is Phase.SUBMITTED for j in it.rig.journal.jobs()),
    }[moment]
    began = it.clock.mono
    while not reached():
        it.run(1)
        assert it.clock.mono - began < RESCAN + 120
    it.clock.wall += jump
    it.drop("b.tif")  # after the jump, and before the next rescan's time
    it.run(RESCAN + 120)
    assert set(it.states().values()) == {FileState.STORED}
    assert it.submits() == [1, 1]
    jobs = {j.spec.unit: j.phase for j in it.rig.journal.jobs()}
    assert jobs == {"a.tif": Phase.SUBMITTED, "b.tif": Phase.SUBMITTED}
    assert any(e.kind == "clock" for e in it.rig.journal.events(limit=1000)), "and it is said"


def test_F83_a_restart_with_the_clock_put_back_ten_years(lab: Callable[[float], Lab]) -> None:
    """What was put off to a time in the old future is due at once."""
    it = lab(time.time() + 10 * YEAR)
    it.drop("a.tif")
    it.run(60)
    it.rig.kill()
    it.clock.wall -= 10 * YEAR
    it.drop("b.tif")
    it.run(120)
    assert set(it.states().values()) == {FileState.STORED} and it.submits() == [1, 1]


def test_F85_eight_hours_of_suspend(lab: Callable[[float], Lab]) -> None:
    """The monotonic clock stands still while the machine sleeps; the wall's goes on. What came meanwhile, on a share, is
    found as soon as it wakes, not at the next rescan."""
    it = lab(time.time())
    it.run(60)
    it.clock.wall += 8 * 3600
    it.drop("a.tif")
    it.run(60)
    assert it.states() == {"inputs/a.tif": FileState.STORED} and it.submits() == [1]


@pytest.mark.parametrize("around", ["2026-03-29T01:59:00", "2026-10-25T02:59:00"], ids=["spring", "autumn"])
def test_F83_daylight_saving_is_nothing_special(
    lab: Callable[[float], Lab], around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        it = lab(datetime.fromisoformat(around).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
        it.drop("a.tif")
        it.run(300)
        it.drop("b.tif")
        it.run(RESCAN + 60)
        assert it.submits() == [1, 1]
        assert not any(e.kind == "clock" for e in it.rig.journal.events(limit=1000))
    finally:
        monkeypatch.undo()
        time.tzset()


# -- the schedule itself, by the real APScheduler


@pytest.fixture
def scheduled() -> Iterator[Callable[..., Schedule]]:
    """Makes a schedule of one job, `rescan`, that calls `note` every so many seconds."""
    made: list[Schedule] = []

    def make(clock: VirtualClock, seconds: float, note: Callable[[], None]) -> Schedule:
        made.append(Schedule(clock, {"rescan": Job(Beat(seconds), note)}, lambda note: note()))
        return made[-1]

    yield make
    for schedule in made:
        schedule.stop()


def until(condition: Callable[[], bool], longest: float = 20.0) -> bool:
    deadline = time.monotonic() + longest
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_F85_a_post_that_takes_long_is_one_at_a_time_and_what_was_missed_is_one(
    scheduled: Callable[..., Schedule],
) -> None:
    inside = threading.Semaphore()
    calls: list[float] = []
    together: list[bool] = []
    hold = threading.Event()

    def note() -> None:
        together.append(not inside.acquire(blocking=False))
        calls.append(time.monotonic())
        hold.wait(
            1.0 if len(calls) == 1 else 0.0
        )  # the first misses ten of its times, and by more than a second's grace
        inside.release()

    scheduled(VirtualClock(time.time()), 0.1, note)
    try:
        assert until(lambda: len(calls) >= 4), "it goes on"
        assert not any(together), "one instance"
        assert calls[2] - calls[1] > 0.03, "the missed ones are one"
    finally:
        hold.set()


@pytest.mark.parametrize("jump", [10 * YEAR, -10 * YEAR])
def test_F83_the_jobs_are_made_anew_when_the_clock_has_jumped(scheduled: Callable[..., Schedule], jump: float) -> None:
    clock = VirtualClock(time.time())
    posted = threading.Event()
    schedule = scheduled(clock, 0.05, posted.set)
    assert not schedule.look()
    clock.wall += jump
    assert schedule.look()
    assert not schedule.look(), "once"
    posted.clear()
    assert posted.wait(10)


def test_F83_ten_years_of_missed_runs_are_one(scheduled: Callable[..., Schedule]) -> None:
    """Nor do they keep the engine from ending the scheduler, or from making it anew."""
    clock = VirtualClock(time.time())
    calls: list[float] = []
    schedule = scheduled(clock, 0.5, lambda: calls.append(time.monotonic()))
    long_ago = datetime.now(tz=UTC) - timedelta(days=3653)  # as its next run looks after the clock's jump
    schedule._scheduler.modify_job("rescan", next_run_time=long_ago)  # nothing else sets APScheduler's clock
    assert until(lambda: bool(calls)), "it posts at once"
    clock.wall += 10 * YEAR
    began = time.monotonic()
    assert schedule.look()
    assert time.monotonic() - began < 5
    assert len(calls) <= 3


def _dies(schedule: Schedule, _clock: VirtualClock) -> None:
    """An error that APScheduler doesn't expect ends its thread."""

    def broken(*_: object) -> None:
        raise SystemExit

    schedule._scheduler._process_jobs = broken
    schedule._scheduler.wakeup()
    schedule._scheduler._thread.join(10)


def _hangs(schedule: Schedule, clock: VirtualClock) -> None:
    """Its thread lives, and nothing comes: it doesn't even end when it is told to."""
    schedule._scheduler._process_jobs = lambda: time.sleep(10)
    schedule._scheduler.wakeup()
    clock.sleep(61 + 0.2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("end", [_dies, _hangs])
def test_a_scheduler_that_works_no_more_is_noticed_and_made_anew(
    scheduled: Callable[..., Schedule], end: Callable[[Schedule, VirtualClock], None]
) -> None:
    clock = VirtualClock(time.time())
    posted: list[float] = []
    schedule = scheduled(clock, 0.2, lambda: posted.append(time.monotonic()))
    assert not schedule.look()
    end(schedule, clock)
    posted.clear()
    began = time.monotonic()
    assert schedule.look()
    assert time.monotonic() - began < 5, "the engine doesn't wait for one that hangs"
    assert len(posted) == 1, "what it did not post is posted"
    assert until(lambda: len(posted) >= 3), "and it goes on"
    assert not schedule.look()


@pytest.mark.parametrize(
    ("now", "spread", "expected"),
    [
        ("2026-07-01T12:00:00", 0.0, "2026-07-02T03:00:00"),
        ("2026-07-01T02:59:59", 0.0, "2026-07-01T03:00:00"),
        ("2026-07-01T03:00:00", 0.0, "2026-07-02T03:00:00"),
        ("2026-07-01T03:00:00", 1200.0, "2026-07-01T03:20:00"),
        ("2026-03-28T12:00:00", 0.0, "2026-03-29T03:00:00"),  # an hour shorter
        ("2026-10-24T12:00:00", 0.0, "2026-10-25T03:00:00"),  # an hour longer
        ("2036-10-24T12:00:00", 0.0, "2036-10-25T03:00:00"),
    ],
)
def test_the_night_is_of_local_time(now: str, spread: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = ZoneInfo("Europe/Berlin")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        at = datetime.fromisoformat(now).replace(tzinfo=zone).astimezone(UTC)
        for previous in (None, at - timedelta(days=400)):  # what was missed is over
            night = Nightly(spread).get_next_fire_time(previous, at)
            assert night.astimezone(zone).replace(tzinfo=None).isoformat() == expected
    finally:
        monkeypatch.undo()
        time.tzset()


# -- the whole daemon, under libfaketime


def faketime() -> str:
    found = next((path for path in FAKETIME if os.path.exists(path)), "")
    if not found:
        pytest.skip("libfaketime is not installed (Debian's package faketime)")
    return found


def test_F83_F84_F85_the_real_daemon_under_libfaketime(rig: Rig) -> None:
    """Its wall clock jumps, its monotonic one doesn't: by minutes, which S3 accepts, and by ten years, which it refuses."""
    library, offset = faketime(), Path(rig.folder, "offset")
    environment = {
        **rig.bench.sandbox.environment(),
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def jump(to: str) -> None:
        Path(rig.folder, "offset.new").write_text(f"{to}\n")
        os.replace(Path(rig.folder, "offset.new"), offset)

    jump("+0")
    _check_it_works(environment)
    rig.drop_config()
    rig.drop_rule()
    rig.process = rig.bench.spawner.run(run_command(rig.config), log=rig.log, env=environment)
    rig.drop("inputs/0.bin", blob(500, 0))
    rig.wait_done(1)
    for number, to in enumerate(("-5m", "+8m", "+0"), 1):
        jump(to)
        rig.drop(f"inputs/{number}.bin", blob(500, number))
        rig.wait_done(number + 1)
    jump("+10y")
    rig.drop("inputs/4.bin", blob(500, 4))
    rig.wait_for(lambda: _skew_said(rig), "the wrong clock to be said in plain words (F84)")
    jump("-10y")
    rig.drop("inputs/5.bin", blob(500, 5))
    rig.wait_for(lambda: any("5.bin" in f.place.path for f in rig.files()), "the file to be seen all the same")
    jump("+0")
    rig.wait_done(6)
    rig.check(6)
    assert len(rig.events("clock")) >= 6
    rig.stop()


def _skew_said(rig: Rig) -> bool:
    troubles = "\n".join((rig.live() or {}).get("troubles", ()))
    return "clock" in troubles


def _check_it_works(environment: dict[str, str]) -> None:
    """That the library is loaded, and that a changed offset shows in a running process."""
    probe = "import time; print(time.time())"
    fake = {**os.environ, **environment, "FAKETIME_TIMESTAMP_FILE": "/dev/null", "FAKETIME": "+30d"}
    seen = subprocess.run([sys.executable, "-c", probe], env=fake, capture_output=True, text=True, check=False)
    if seen.returncode or abs(float(seen.stdout) - time.time() - 30 * 86400) > 3600:
        pytest.skip(f"libfaketime does not work with this Python: {seen.stdout}{seen.stderr}")
