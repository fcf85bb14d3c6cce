"""A unit is whole, with all that a worker may read of it, or nothing is paid for."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from declared_rig import DeclaredRig, FileState
from state_machine.inline_rig import BUCKET, GROUP

from ncaasd.engine import commands
from ncaasd.model import JobState, Phase
from ncaasd.show.status import status_report

SETTLE = 1.0  # as the rig is configured; so a unit without a gate is left alone for 10 s
TOGETHER: list[dict[str, Any]] = [{"package": "zip"}, {"job_per": "unit"}, {"package": "zip", "job_per": "unit"}]
UNIT = {"unit": "{animal}/{run}", "datasets": "*.tif"}


def frames(rig: DeclaredRig, cycle: int, count: int = 4, unit: str = "M7/1") -> None:
    for number in range(count):
        rig.write(f"inputs/{unit}/c{cycle}_{number}.tif", f"{cycle} {number}")


def data_of_the_jobs(rig: DeclaredRig) -> list[set[str]]:
    """Of each job, the names of the frames that it was given."""
    found = []
    for body in rig.submits():
        names = [body["dataname"]] if isinstance(body["dataname"], str) else body["dataname"]
        if names[0].endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(b"".join(rig.server.get(names[0])))) as package:
                names = package.namelist()
        found.append({n.rpartition("/")[2] for n in names})
    return found


def every(cycles: int, count: int = 4) -> set[str]:
    return {f"c{cycle}_{number}.tif" for cycle in range(1, cycles + 1) for number in range(count)}


def pass_time(rig: DeclaredRig, seconds: float) -> None:
    until = rig.clock.monotonic() + seconds
    while rig.clock.monotonic() < until:
        rig.turns(1)


# -- pauses (F99)


@pytest.mark.parametrize("together", TOGETHER, ids=str)
def test_F99_an_instrument_that_pauses_between_files_has_one_job_with_all_of_them(
    rig: DeclaredRig, together: dict[str, Any]
) -> None:
    rig.rules({**UNIT, **together})
    for cycle in (1, 2, 3):
        frames(rig, cycle)
        pass_time(rig, 6)  # longer than settle
        assert rig.submits() == []
    assert "whole_after" in rig.job().reason
    rig.until(rig.submits, "the submit")
    pass_time(rig, 20)
    assert data_of_the_jobs(rig) == [every(3)]


def test_F99_a_restart_in_the_pause_is_no_end_of_it(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip"})
    frames(rig, 1)
    pass_time(rig, 4.5)
    rig.restart()
    frames(rig, 2)  # written by the machine's clock, which stands still: 4.5 s ago
    pass_time(rig, 4)
    assert rig.submits() == []
    rig.until(rig.submits, "the submit")
    assert data_of_the_jobs(rig) == [every(2)]


def test_F99_what_came_while_the_daemon_was_down_is_looked_for_first(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip"})
    frames(rig, 1)
    pass_time(rig, 8)
    rig.rig.kill()
    rig.clock.sleep(3600)  # by the journal, the unit has been left alone for an hour
    frames(rig, 2)
    rig.until(rig.submits, "the submit")
    assert data_of_the_jobs(rig) == [every(2)]


@pytest.mark.parametrize("by", [365 * 86400.0, -365 * 86400.0])
def test_F83_a_clock_that_jumps_ends_no_pause(rig: DeclaredRig, by: float) -> None:
    rig.rules({**UNIT, "package": "zip"})
    frames(rig, 1)
    pass_time(rig, 5)
    rig.clock.wall += by
    pass_time(rig, 3)
    assert rig.submits() == []
    frames(rig, 2)
    rig.until(rig.submits, "the submit")
    assert data_of_the_jobs(rig) == [every(2)]


def test_whole_after_says_how_long(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip", "whole_after": "0s"})
    frames(rig, 1)
    rig.until(rig.submits, "the submit, at once", 10)


def test_whole_after_is_waited_for_beside_a_gate_too(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip", "complete_when": "DONE", "whole_after": "20s"})
    frames(rig, 1)
    rig.write("inputs/M7/1/DONE", "x")
    pass_time(rig, 15)
    assert rig.submits() == []
    rig.until(rig.submits, "the submit")


def test_a_gate_alone_is_enough(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip", "complete_when": "DONE"})
    frames(rig, 1)
    rig.write("inputs/M7/1/DONE", "x")
    rig.until(rig.submits, "the submit, at once", 10)


def test_sessions_of_long_ago_wait_for_nothing(rig: DeclaredRig) -> None:
    rig.rules({**UNIT, "package": "zip"})
    frames(rig, 1)
    rig.clock.sleep(3600)
    rig.until(rig.submits, "the submit, at once", 14)


def test_a_rule_that_comes_later_waits_as_well(rig: DeclaredRig) -> None:
    frames(rig, 1)
    pass_time(rig, 4)
    rig.rules({**UNIT, "package": "zip"})
    pass_time(rig, 4)
    frames(rig, 2)
    rig.until(rig.submits, "the submit")
    assert data_of_the_jobs(rig) == [every(2)]


@pytest.mark.parametrize("rule", TOGETHER, ids=str)
def test_F99_a_rule_without_a_gate_is_warned_of(rig: DeclaredRig, rule: dict[str, Any]) -> None:
    rig.rules({**UNIT, **rule})
    rig.turns(10)
    (said,) = rig.events("warning")
    assert "complete_when" in said and "whole_after" in said
    assert rig.status("manifest.status.json")["warnings"] == [said]


@pytest.mark.parametrize(
    "rule",
    [
        {"package": "zip", "complete_when": "DONE"},
        {"job_per": "unit", "whole_after": "1h"},
        {"job_per": "dataset"},
    ],
    ids=str,
)
def test_a_rule_that_says_when_a_unit_is_whole_is_not_warned_of(rig: DeclaredRig, rule: dict[str, Any]) -> None:
    rig.rules({**UNIT, **rule})
    rig.turns(10)
    assert rig.events("warning") == []


# -- what lies beside the data (F98)


def foreign(rig: DeclaredRig, path: str) -> None:
    """Another rig's file has the key of `path`, so that this one stays here until a person decides."""
    rig.server.seed(f"{GROUP}/inputs/{path}", b"of another rig")


def release(rig: DeclaredRig, path: str) -> None:
    assert commands.release_files(rig.rig.journal, [path], rig.clock.now())


@pytest.mark.parametrize("rule", [{"job_per": "unit"}, {"job_per": "dataset"}, {"package": "zip"}], ids=str)
def test_F98_all_of_a_unit_is_in_s3_before_its_job(rig: DeclaredRig, rule: dict[str, Any]) -> None:
    foreign(rig, "M7/1/stim.csv")
    rig.write("inputs/M7/1/a.tif", "a")
    rig.write("inputs/M7/1/stim.csv", "when the light went on")
    rig.rules({**UNIT, **rule, "whole_after": "0s"})
    rig.until(lambda: rig.state("M7/1/stim.csv") is FileState.HELD, "the hold of the file")
    pass_time(rig, 10)
    assert (rig.submits(), rig.job().state) == ([], JobState.WAITING)
    assert "M7/1/stim.csv (held: " in rig.job().reason
    release(rig, "inputs/M7/1/stim.csv")
    rig.until(rig.submits, "the submit")
    assert rig.body("M7/1/stim.csv") == b"when the light went on"


def test_F98_with_names_what_a_job_needs_and_nothing_else_is_waited_for(rig: DeclaredRig) -> None:
    foreign(rig, "M7/1/notes.txt")
    for name in ("a.tif", "notes.txt"):
        rig.write(f"inputs/M7/1/{name}", name)
    rig.rules({**UNIT, "whole_after": "0s", "with": ["stim/*.csv"]})
    rig.turns(20)
    assert rig.jobs() == [], "what is named must be there"
    rig.write("inputs/M7/1/stim/1.csv", "s")
    rig.until(rig.submits, "the submit")
    assert rig.state("M7/1/notes.txt") is FileState.HELD


def test_with_nothing_waits_for_nothing(rig: DeclaredRig) -> None:
    foreign(rig, "M7/1/notes.txt")
    for name in ("a.tif", "notes.txt"):
        rig.write(f"inputs/M7/1/{name}", name)
    rig.rules({**UNIT, "whole_after": "0s", "with": []})
    rig.until(rig.submits, "the submit")


def test_what_is_excluded_is_not_waited_for(rig: DeclaredRig) -> None:
    foreign(rig, "M7/1/notes.txt")
    for name in ("a.tif", "notes.txt"):
        rig.write(f"inputs/M7/1/{name}", name)
    rig.rules({**UNIT, "whole_after": "0s", "exclude": "*.txt"})
    rig.until(rig.submits, "the submit")


def test_F98_of_a_source_what_is_named_goes_up_first(rig: DeclaredRig) -> None:
    foreign(rig, "M7/1/stim.csv")
    for name in ("a.tif", "stim.csv", "raw.bin"):
        rig.record(f"M7/1/{name}")
    rig.rules({**UNIT, "source": "share", "whole_after": "0s", "with": "stim.csv"})
    rig.until(lambda: rig.state("M7/1/stim.csv") is FileState.HELD, "the hold of the file")
    pass_time(rig, 10)
    assert rig.submits() == []
    release(rig, "M7/1/stim.csv")
    rig.until(rig.submits, "the submit")
    assert rig.uploaded() == ["M7/1/a.tif", "M7/1/stim.csv"]


def test_F98_a_rule_without_units_may_name_files_too(rig: DeclaredRig) -> None:
    foreign(rig, "shared/mask.npy")
    rig.write("inputs/a.tif", "a")
    rig.write("inputs/shared/mask.npy", "mask")
    rig.rules({"datasets": "*.tif", "with": "shared/*.npy"})
    rig.until(lambda: rig.state("shared/mask.npy") is FileState.HELD, "the hold of the file")
    pass_time(rig, 10)
    assert (rig.submits(), "shared/mask.npy (held: " in rig.job().reason) == ([], True)
    release(rig, "inputs/shared/mask.npy")
    rig.until(rig.submits, "the submit")


def test_F98_a_file_that_comes_while_the_job_queues_is_waited_for(rig: DeclaredRig) -> None:
    rig.configure(jobs={"max_active": 1})
    rig.rules({**UNIT, "whole_after": "0s"})
    rig.write("inputs/M7/1/a.tif", "a")
    rig.until(lambda: rig.submitted(1), "the first")
    rig.write("inputs/M8/1/b.tif", "b")
    rig.until(lambda: any(j.spec.unit == "M8/1/b.tif" and j.state is JobState.READY for j in rig.jobs()), "the queue")
    foreign(rig, "M8/1/late.csv")
    rig.write("inputs/M8/1/late.csv", "late")
    rig.until(lambda: rig.state("M8/1/late.csv") is FileState.HELD, "the hold of the file")
    rig.run_jobs()
    pass_time(rig, 60)
    (queued,) = [j for j in rig.jobs() if j.spec.unit == "M8/1/b.tif"]
    assert (queued.phase, queued.state) == (Phase.OPEN, JobState.WAITING)


# -- what can't be taken (F97)


def attention(rig: DeclaredRig) -> list[tuple[str, str, str]]:
    report = status_report(rig.rig.journal, None, root=rig.rig.root, analyses=[BUCKET], pid=None, now=rig.clock.now())
    return [(a.kind, a.why, a.command) for a in report.attention if a.kind == "held"]


@pytest.mark.parametrize(
    "rule",
    [{"package": "zip", "job_per": "unit"}, {"job_per": "unit"}, {"job_per": "dataset"}],
    ids=str,
)
@pytest.mark.parametrize("gate", [{"complete_when": "DONE"}, {"whole_after": "0s"}], ids=str)
def test_F97_a_unit_with_a_part_that_cannot_be_taken_is_held_with_its_name(
    rig: DeclaredRig, rule: dict[str, Any], gate: dict[str, Any]
) -> None:
    elsewhere = rig.base / "elsewhere.tif"
    elsewhere.write_bytes(b"on another disk")
    rig.write("inputs/M7/1/a.tif", "a")
    rig.write("inputs/M7/1/DONE", "x")
    link = rig.home / "inputs/M7/1/b.tif"
    link.symlink_to(elsewhere)
    rig.rules({**UNIT, **rule, **gate})
    pass_time(rig, 20)
    assert rig.submits() == []
    for job in rig.jobs():
        assert (job.state, job.hold) == (JobState.HELD, "part")
        assert "M7/1/b.tif can't be taken: a symbolic link" in job.reason and "`exclude`" in job.reason
    said = attention(rig)
    assert said and all("M7/1/b.tif" in why and command == "" for _kind, why, command in said)
    unit = rig.jobs()[0].spec.unit
    (told,) = rig.status(f"submissions/status/r/{unit}.json")["jobs"]
    assert (told["state"], "M7/1/b.tif" in told["reason"]) == ("held", True)
    refused = commands.apply(rig.rig.journal, "release", commands.Selection(), rig.clock.now())
    assert not any(effect.done for effect in refused), "there is nothing to release: it must be mended"
    link.unlink()
    link.write_bytes(b"the recording itself")
    rig.until(lambda: len(rig.submits()) == len(rig.jobs()), "the submits")
    assert attention(rig) == []


def test_F97_what_is_excluded_may_be_lacking(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/1/a.tif", "a")
    (rig.home / "inputs/M7/1/latest.lnk").symlink_to("/nowhere")
    rig.rules({**UNIT, "job_per": "unit", "whole_after": "0s"})
    pass_time(rig, 10)
    assert "latest.lnk" in rig.job().reason
    rig.rules({**UNIT, "job_per": "unit", "whole_after": "0s", "exclude": "*.lnk"})
    rig.until(rig.submits, "the submit")


def test_F97_a_part_that_is_taken_away_is_lacking_no_more(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/1/a.tif", "a")
    link = rig.home / "inputs/M7/1/b.tif"
    link.symlink_to("/nowhere")
    rig.rules({**UNIT, "package": "zip", "whole_after": "0s"})
    pass_time(rig, 10)
    assert rig.submits() == []
    link.unlink()
    rig.until(rig.submits, "the submit")


def test_F97_what_comes_to_be_skipped_before_the_submit_holds_the_job(rig: DeclaredRig) -> None:
    rig.configure(jobs={"max_active": 1})
    rig.rules({**UNIT, "whole_after": "0s"})
    for unit in ("M7/1", "M8/1"):
        rig.write(f"inputs/{unit}/a.tif", unit)
    rig.until(lambda: rig.submitted(1), "the first")
    (queued,) = [j for j in rig.jobs() if j.phase is Phase.OPEN]
    (rig.home / f"inputs/{queued.spec.unit}").with_name("link.tif").symlink_to("/nowhere")
    rig.turns(5)
    rig.run_jobs()
    pass_time(rig, 40)
    assert len(rig.submits()) == 1
    assert "link.tif can't be taken" in rig.job(queued.spec.unit).reason


def test_F97_of_a_source_only_what_the_rule_names_is_lacking(rig: DeclaredRig) -> None:
    rig.record("M7/1/a.tif")
    (rig.source / "M7/1/notes.lnk").symlink_to("/nowhere")
    rig.rules({**UNIT, "source": "share", "whole_after": "0s"})
    rig.until(rig.submits, "the submit")


def test_F97_a_rule_without_units_that_names_what_is_skipped_has_a_job_that_says_so(rig: DeclaredRig) -> None:
    link = rig.home / "inputs/a.tif"
    link.symlink_to("/nowhere")
    (rig.home / "inputs/other.bin").symlink_to("/nowhere")
    rig.rules({"datasets": "*.tif"})
    rig.until(rig.jobs, "the job")
    pass_time(rig, 10)
    assert (rig.job().state, "a.tif can't be taken" in rig.job().reason) == (JobState.HELD, True)
    assert len(attention(rig)) == 1
    link.unlink()
    rig.until(lambda: not rig.jobs(), "its end")
    link.write_bytes(b"a recording")
    rig.until(rig.submits, "the submit")


def test_F97_each_unit_that_lacks_a_part_is_in_status_with_its_part(rig: DeclaredRig) -> None:
    for unit in ("M7/1", "M8/1"):
        rig.write(f"inputs/{unit}/a.tif", "a")
        (rig.home / f"inputs/{unit}/{unit[:2]}.lnk").symlink_to("/nowhere")
    rig.rules({**UNIT, "job_per": "unit", "whole_after": "0s"})
    rig.until(lambda: len(attention(rig)) == 2, "both in status")
    assert sorted(why.partition(" ")[0] for _kind, why, _command in attention(rig)) == ["M7/1/M7.lnk", "M8/1/M8.lnk"]
