"""The nightly work of the engine, by a clock that is moved: the backup of the journal, and the pruning of its event log."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest
from engine.lab import HOUR, Lab
from state_machine.inline_rig import BUCKET, InlineSchedule

from ncaasd.adapters.journal import backups
from ncaasd.engine import service
from ncaasd.engine.core import nightly
from ncaasd.engine.core.nightly import Nightly
from ncaasd.engine.core.schedule import Beat, Job
from ncaasd.engine.core.schedule import Nightly as Night
from ncaasd.model import JobState, Phase

DAY = 86400.0
YEAR = 365.25 * DAY


class Rig(Lab):
    """A lab with nights, of an analysis in which nothing happens."""

    keep: float | None = 90 * DAY
    keep_free = 0

    def begin(self) -> None:
        """As at a start of the daemon, with the schedule's other jobs beside the rescans."""
        self.rig.kill()
        self.turn()
        engine = self.rig.engine
        assert engine is not None
        self.nightly = Nightly(engine.runtime, keep=self.keep, keep_free=self.keep_free)
        jobs = {
            "night": Job(Night(600.0), self.nightly.night),
            "missed night": Job(Beat(service.LOOK_AT_NIGHT, first=service.SOON), self.nightly.look),
        }
        self.rig.schedule = InlineSchedule(self.clock, jobs, engine.runtime.mailbox.tell)

    def at(self, when: str) -> None:
        """Let time pass until this local time."""
        self.pass_time(datetime.fromisoformat(when).timestamp() - self.clock.now(), step=600.0)

    def backups(self) -> list[date]:
        return [b.day for b in backups.backups_of(self.rig.journal_path)]

    def old(self, count: int, ago: float = 100 * DAY) -> None:
        with self.rig.journal.transaction():
            for number in range(count):
                self.rig.journal.event(self.clock.now() - ago, BUCKET, f"file old/{number}", "stored", "")

    def left(self) -> int:
        return sum(e.subject.startswith("file old/") for e in self.rig.journal.events(limit=1_000_000))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    rig = Rig(tmp_path, watch={"rescan": "1h"})
    rig.clock.wall = datetime.fromisoformat("2026-11-28T12:00").timestamp()
    yield rig
    rig.rig.kill()
    monkeypatch.undo()
    time.tzset()


def days(*numbers: int) -> list[date]:
    return [date(2026, 12, n) if n < 28 else date(2026, 11, n) for n in numbers]


def dated(rig: Rig) -> None:
    """The file system's clock is the real one: give each backup the time of its night."""
    for backup in backups.backups_of(rig.rig.journal_path):
        night = datetime.combine(backup.day, datetime.min.time()).timestamp() + 3 * HOUR
        os.utime(backup.path, (night, night))


def test_a_backup_is_made_soon_after_the_start_and_then_each_night(made: Rig) -> None:
    made.begin()
    made.at("2026-11-28T12:01")
    assert made.backups() == []
    made.at("2026-11-28T12:03")
    assert made.backups() == days(28)
    (said,) = made.events("backup")
    assert "journal-2026-11-28.sqlite is a checked copy of it" in said.text
    os.utime(backups.backups_of(made.rig.journal_path)[0].path, (made.clock.now(),) * 2)
    made.at("2026-11-29T03:05")
    assert made.backups() == days(28), "not before it is its time"
    made.at("2026-11-29T03:15")
    assert made.backups() == days(29, 28)
    assert len(made.events("backup")) == 2
    dated(made)
    made.at("2026-11-29T23:55")
    assert len(made.events("backup")) == 2, "once a night"


def test_a_rig_that_is_off_at_night_makes_it_up_in_the_morning(made: Rig) -> None:
    made.begin()
    made.at("2026-11-28T13:00")
    dated(made)
    made.rig.kill()
    for morning in ("2026-11-29T08:00", "2026-11-30T08:00"):
        made.clock.sleep(datetime.fromisoformat(morning).timestamp() - made.clock.now())
        made.begin()
        made.pass_time(300, step=60)
        dated(made)
        made.rig.kill()
    assert made.backups() == days(30, 29, 28)


def test_a_machine_that_sleeps_at_night_makes_it_up_when_it_wakes(made: Rig) -> None:
    """The monotonic clock stands still meanwhile; it was no start."""
    made.begin()
    made.at("2026-11-28T13:00")
    dated(made)
    made.clock.wall += 30 * HOUR
    made.pass_time(300, step=60)
    assert made.backups() == days(29, 28)


def test_a_failure_is_said_once_shown_over_a_restart_and_over_when_one_succeeds(made: Rig) -> None:
    made.keep_free = 2**62
    made.begin()
    made.at("2026-11-28T18:00")
    assert made.backups() == []
    (said,) = made.events("backup failed")
    assert said.text.startswith("there is no room for a backup of the journal")
    made.begin()
    assert made.nightly.trouble.startswith("there is no room for a backup of the journal")
    made.keep_free = 0
    made.begin()
    made.pass_time(300, step=60)
    assert made.nightly.trouble == "" and made.backups() == days(28)
    made.begin()
    assert made.nightly.trouble == ""
    assert len(made.events("backup failed")) == 1


def test_another_failure_is_said_too(made: Rig) -> None:
    made.keep_free = 2**62
    made.begin()
    made.at("2026-11-28T13:00")
    made.keep_free = 0
    folder = Path(backups.folder_of(made.rig.journal_path))
    folder.rmdir()
    folder.write_text("no folder")
    made.begin()
    made.at("2026-11-28T14:00")
    assert [e.text.partition(":")[0] for e in made.events("backup failed")][1:] == [
        "the backups of the journal can't be read"
    ]


# -- the event log


def test_old_events_go_each_night_and_that_is_said(made: Rig) -> None:
    made.begin()
    made.old(5)
    made.old(3, ago=80 * DAY)
    made.at("2026-11-29T03:05")
    assert made.left() == 8
    made.at("2026-11-29T03:15")
    assert made.left() == 3
    (said,) = made.events("pruned")
    assert said.text == "5 events of before 2026-08-31 are deleted (log.keep)"
    made.at("2026-12-09T03:15")
    assert made.left() == 0
    assert len(made.events("pruned")) == 2, "what there is nothing to say of"


@pytest.mark.parametrize(("keep", "left"), [(None, 5), (99 * DAY, 0), (102 * DAY, 5)])
def test_how_long_they_are_kept(made: Rig, keep: float | None, left: int) -> None:
    made.keep = keep
    made.begin()
    made.old(5)
    made.at("2026-11-29T03:15")
    assert made.left() == left


def test_no_turn_deletes_many(made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "FOUND", 500)
    made.begin()
    made.old(1234)
    made.at("2026-11-29T03:05")
    made.clock.sleep(HOUR)
    went = []
    left = made.left()
    while left:
        assert made.rig.turn()
        went.append(left - made.left())
        left = made.left()
    assert max(went) == nightly.DELETED and sum(went) == 1234
    made.turn()
    assert [e.text.partition(" of ")[0] for e in made.events("pruned")] == ["1,234 events"]


def test_a_kill_in_the_midst_of_pruning_loses_nothing_else_and_the_rest_goes_the_next_night(made: Rig) -> None:
    made.begin()
    made.old(1000)
    made.old(10, ago=DAY)
    made.at("2026-11-29T03:05")
    made.clock.sleep(HOUR)
    for _ in range(3):
        made.rig.turn()
    assert 10 < made.left() < 1010
    made.begin()
    made.at("2026-11-30T04:00")
    assert made.left() == 10


def test_a_rig_that_is_off_at_night_prunes_in_the_morning(made: Rig) -> None:
    made.begin()
    made.old(5)
    made.rig.kill()
    made.clock.sleep(2 * DAY)
    made.begin()
    made.pass_time(300, step=60)
    assert made.left() == 0


@pytest.mark.parametrize("started", [False, True], ids=["while-it-runs", "from-its-start"])
def test_F83_a_clock_that_is_ahead_by_years_takes_no_years_of_events(made: Rig, started: bool) -> None:
    """A week of the oldest at most, however often it is looked; backups neither."""
    made.begin()
    made.at("2026-11-28T13:00")
    made.old(5, ago=DAY)
    made.old(3, ago=60 * DAY)
    made.clock.wall += 10 * YEAR
    if started:
        made.begin()
    made.pass_time(DAY, step=600)
    assert made.left() == 8
    made.clock.wall -= 10 * YEAR
    if started:
        made.begin()
    made.pass_time(DAY, step=600)
    assert made.left() == 8
    assert set(days(28, 30)) < set(made.backups())


def test_the_story_of_a_job_that_has_not_ended_is_kept(made: Rig) -> None:
    made.drop_rule()
    made.drop_inputs("a.tif")
    made.until(lambda: made.states() == [JobState.SUBMITTED], "the submit")
    story = [e.kind for e in made.rig.journal.events(BUCKET, "job all a.tif")]
    assert "submitted" in story
    with made.rig.journal.transaction():  # its platform never says a word
        made.rig.journal.update_job(made.job().row, next_at=made.clock.now() + YEAR)
    made.clock.sleep(200 * DAY)
    made.begin()
    with made.rig.journal.transaction():
        made.rig.journal.update_job(made.job().row, next_at=made.clock.now() + YEAR)
    for _ in range(40):  # the time that is believed comes up by a week a night
        made.nightly.night()
        made.turn()
    assert made.job().phase is Phase.SUBMITTED
    assert [e.kind for e in made.rig.journal.events(BUCKET, "job all a.tif")][: len(story)] == story
    assert made.rig.journal.events(BUCKET, "file inputs/a.tif") == [], "what it is about went"
