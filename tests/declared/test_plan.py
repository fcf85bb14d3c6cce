"""`plan` says what then happens: what it foresees is compared with what the engine does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from declared_rig import DeclaredRig, FileState, tree
from state_machine.inline_rig import BUCKET

from ncaasd.adapters.journal import Journal, open_reader
from ncaasd.show.foresight import Foresight, foresee, foresee_manifest

Change = Callable[[DeclaredRig], None]


@contextlib.contextmanager
def reading(rig: DeclaredRig) -> Iterator[Journal | None]:
    if not Path(rig.rig.journal_path).exists():
        yield None
        return
    with contextlib.closing(open_reader(rig.rig.journal_path)) as journal:
        yield journal


def foreseen(rig: DeclaredRig) -> Foresight:
    with reading(rig) as journal:
        return foresee(rig.rig.config, journal, [BUCKET], rig.clock.now())


def keys(seen: Foresight) -> list[str]:
    return sorted(u.key for p in seen.previews for u in p.uploads if not u.kept_back)


def plans(seen: Foresight) -> dict[str, str]:
    return {j.spec.unit: j.plan for p in seen.previews for j in p.jobs}


def _plain(rig: DeclaredRig) -> None:
    rig.write("inputs/M 7/a.tif", "a")
    rig.write("inputs/b.tif", "b")
    rig.write("inputs/notes.txt", "c")
    rig.rules({"set": {"fr": 15}, "instance_type": "p3.2xlarge"})


def _units(rig: DeclaredRig) -> None:
    for unit in ("M7/1", "M7/2", "M8/1"):
        rig.record(f"{unit}/a.tif")
        rig.record(f"{unit}/b.tif")
        rig.record(f"{unit}/raw.bin")
    for unit in ("M7/1", "M8/1"):
        rig.record(f"{unit}/DONE", "x")
    rig.record("M8/1/ABORTED", "x")
    rig.write("configs/M7.yaml", "who: nobody\n")
    rig.rules(
        {
            "source": "share",
            "unit": "{animal}/{run}",
            "datasets": "*.tif",
            "complete_when": "DONE",
            "abort_when": "ABORTED",
            "job_per": "unit",
            "config": "{animal}.yaml",
            "set": {"who": "{animal}-{run}"},
        }
    )


def _packages(rig: DeclaredRig) -> None:
    rig.record("M7/1/a.tif")
    rig.record("M7/1/b.tif")
    rig.rules({"source": "share", "unit": "{animal}/{run}", "datasets": "*.tif", "package": "zip"})


def _one_offs(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.write("inputs/b.tif", "b")
    rig.ask("both", "a.tif", "b.tif", set={"fr": 1})
    rig.ask("later", "a.tif", "nowhere.tif")
    body = {"dataname": "lab/inputs/a.tif", "configname": "lab/configs/c.yaml", "timestamp": "mine"}
    rig.write("submissions/mine-submit.json", json.dumps(body))


@pytest.mark.parametrize("write", [_plain, _units, _packages, _one_offs])
@pytest.mark.parametrize("known", [False, True], ids=["before the first start", "while it runs"])
def test_what_is_foreseen_happens(rig: DeclaredRig, write: Change, known: bool) -> None:
    if known:
        rig.turns(5)
    write(rig)
    before = tree(rig.base / "root") | tree(rig.source)
    seen = foreseen(rig)
    assert tree(rig.base / "root") | tree(rig.source) == before
    assert seen.troubles == ()
    bodies = [json.loads(j.body) for p in seen.previews for j in p.jobs if j.plan == "submit"]
    rig.until(lambda: len(rig.submits()) == len(bodies), "the submits")
    rig.turns(10)
    by_name = sorted(bodies, key=str)
    assert sorted(rig.submits(), key=str) == by_name
    put = {k for k in rig.server.created_keys() if "/inputs/" in k or k.startswith("lab/configs/")}
    named_by_content = {b["configname"] for b in bodies}
    assert put - named_by_content - set(keys(seen)) == set()
    assert set(keys(seen)) <= put
    after = foreseen(rig)
    assert keys(after) == []
    assert {u: p for u, p in plans(after).items() if p == "submit"} == {}


@pytest.mark.parametrize(
    ("jobs", "expected", "guards"),
    [
        ({"ask_above": 2}, {"hold": 3}, {"backlog"}),
        ({"max_per_day": 2}, {"submit": 2, "hold": 1}, {None, "day"}),
        ({"max_active": 1}, {"submit": 1, "queue": 2}, {None, "active"}),
        ({}, {"submit": 3}, {None}),
    ],
)
def test_what_is_held_is_said_with_its_guard(
    rig: DeclaredRig, jobs: dict[str, Any], expected: dict[str, int], guards: set[str | None]
) -> None:
    rig.configure(jobs=jobs)
    for name in "abc":
        rig.write(f"inputs/{name}.tif", name)
    rig.rules({})
    made = [j for p in foreseen(rig).previews for j in p.jobs]
    assert {plan: sum(j.plan == plan for j in made) for plan in {j.plan for j in made}} == expected
    assert {j.guard for j in made} == guards
    rig.turns(20)
    assert len(rig.submits()) == expected.get("submit", 0)


@pytest.mark.parametrize("packed", [False, True])
def test_F100_what_is_held_where_s3_shows_no_trace_is_said(rig: DeclaredRig, packed: bool) -> None:
    """The journal is new on a rig that has had one; its config is missing, so nothing of it is submitted yet."""
    rule = {"datasets": "*.tif", "unit": "{animal}", "package": "zip"} if packed else {}
    rig.write("inputs/M7/a.tif", "a")
    rig.rules({"config": "later.yaml", **rule})
    rig.rig.server.seed("lab/submissions/.ncaasd/rig-a", b"rig")
    rig.turns(20)
    rig.write("inputs/M8/b.tif", "b")
    rig.turns(6)
    rig.write("configs/later.yaml", "fr: 30\n")
    made = {j.spec.unit: j for p in foreseen(rig).previews for j in p.jobs}
    old, new = sorted(made)
    assert [made[u].plan for u in (old, new)] == ["submit", "submit"]
    assert "held if S3 shows no trace of it" in made[old].why and "held" not in made[new].why
    rig.turns(30)
    assert {j.spec.unit: (j.hold, bool(j.submitted)) for j in rig.jobs()} == {
        old: ("rebuilt", False),
        new: (None, True),
    }


def test_F18_another_recording_of_a_name_whose_job_files_here_tell_of_is_held(rig: DeclaredRig) -> None:
    """The journal is lost, S3 is tidied, the recording is gone; then one of its name comes. With the journal it would be the same
    job, which is not run again by itself."""
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.turns(4)
    rig.rig.lose_journal(restore=False)
    (rig.home / "inputs/a.tif").unlink()
    for found in rig.server.list("lab/").objects:
        if ".ncaasd" not in found.key:
            rig.server.remove(found.key)
    rig.turns(12)
    rig.write("inputs/a.tif", "another")
    rig.turns(4)
    (planned,) = foreseen(rig).previews[0].jobs
    assert planned.plan == "submit"
    rig.turns(20)
    assert "held if S3 shows no trace of it" in planned.why
    assert rig.job().hold == "rebuilt"
    assert [n for k, n in rig.server.created_keys().items() if k.endswith("submit.json")] == [1]


def test_a_canary_goes_first(rig: DeclaredRig) -> None:
    for name in "abc":
        rig.write(f"inputs/{name}.tif", name)
    rig.rules({"canary": 1})
    assert sorted(plans(foreseen(rig)).values()) == ["hold", "hold", "submit"]
    rig.turns(20)
    assert len(rig.submits()) == 1


def test_a_unit_says_what_it_waits_for(rig: DeclaredRig) -> None:
    _units(rig)
    (preview,) = foreseen(rig).previews
    kept = {u.what: u.kept_back for u in preview.uploads if u.kept_back}
    assert kept["share:M7/2/a.tif"] == "waits for DONE in M7/2"
    assert kept["share:M8/1/a.tif"] == "its unit was aborted: ABORTED is in M8/1"
    assert plans(foreseen(rig)) == {"M7/1": "submit"}


def _with_siblings(rig: DeclaredRig) -> None:
    for name in ("a.tif", "stim.csv", "raw.bin"):
        rig.record(f"M7/1/{name}")
    rig.write("inputs/M8/1/b.tif", "b")
    rig.write("inputs/M8/1/notes.txt", "n")
    unit = {"unit": "{animal}/{run}", "datasets": "*.tif"}
    rig.rules({**unit, "source": "share", "with": "stim.csv"}, {**unit, "name": "s"})


def _with_a_link(rig: DeclaredRig) -> None:
    for unit in ("M7/1", "M8/1"):
        rig.write(f"inputs/{unit}/a.tif", unit)
    elsewhere = rig.base / "elsewhere.tif"
    elsewhere.write_bytes(b"on another disk")
    (rig.home / "inputs/M8/1/b.tif").symlink_to(elsewhere)
    rig.rules({"unit": "{animal}/{run}", "datasets": "*.tif", "package": "zip"})


@pytest.mark.parametrize("write", [_with_siblings, _with_a_link])
def test_what_keeps_a_unit_back_is_foreseen(rig: DeclaredRig, write: Change) -> None:
    test_what_is_foreseen_happens(rig, write, known=False)


def test_F97_a_part_that_cannot_be_taken_holds_its_unit_in_the_plan_too(rig: DeclaredRig) -> None:
    _with_a_link(rig)
    seen = foreseen(rig)
    assert plans(seen) == {"M7/1": "submit", "M8/1": "hold"}
    (held,) = [j for p in seen.previews for j in p.jobs if j.plan == "hold"]
    rig.turns(20)
    assert (held.guard, held.why) == ("part", rig.job("M8/1").reason)


def test_F98_a_sibling_that_is_held_keeps_its_job_back_in_the_plan_too(rig: DeclaredRig) -> None:
    rig.server.seed("lab/inputs/M8/1/notes.txt", b"of another rig")
    _with_siblings(rig)
    rig.until(lambda: rig.state("M8/1/notes.txt") is FileState.HELD, "the hold of the file")
    rig.turns(20)
    (planned,) = [j for p in foreseen(rig).previews for j in p.jobs if j.spec.name == "s"]
    assert planned.plan == "wait" and planned.why == rig.job("M8/1/b.tif").reason


def test_F99_a_rule_without_a_gate_is_warned_of_in_the_plan(rig: DeclaredRig) -> None:
    _packages(rig)
    (warning,) = foreseen(rig).document("/")["warnings"]
    assert "complete_when" in warning


def test_a_manifest_that_is_not_dropped_yet(rig: DeclaredRig, tmp_path: Path) -> None:
    rig.write("inputs/a.tif", "a")
    rig.write("inputs/b.tif", "b")
    rig.ask("today", "b.tif")
    text = b"rules:\n  - {name: r, datasets: a.tif, config: c.yaml}\n"
    with reading(rig) as journal:
        seen = foresee_manifest(rig.rig.config, journal, BUCKET, text, "new-rules.yaml", rig.clock.now())
    assert plans(seen) == {"a.tif": "submit"}
    assert keys(seen) == ["lab/inputs/a.tif"], "only what its jobs need"
    assert seen.document("/")["totals"]["jobs"] == 1


def test_what_was_made_is_not_made_again(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    seen = foreseen(rig)
    assert plans(seen) == {"a.tif": "known"}
    assert [j.job_id for j in seen.previews[0].followed] == [rig.job().job_id]
    rig.run_jobs()
    rig.write("configs/c.yaml", "fr: 2\n")  # F36: an edit makes no new job
    assert plans(foreseen(rig)) == {"a.tif": "known"}


def test_a_rerun_is_foreseen_with_its_own_id(rig: DeclaredRig) -> None:
    from ncaasd.engine import commands

    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    commands.apply(rig.rig.journal, "rerun", commands.Selection(rule="r"), rig.clock.now())
    (job,) = foreseen(rig).previews[0].jobs
    rig.until(lambda: len(rig.submits()) == 2, "the second submit")
    assert (job.plan, json.loads(job.body)) == ("submit", rig.submits()[1])


def test_F67_a_wrong_manifest_is_said_and_the_old_one_planned(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.write("inputs/b.tif", "b")
    rig.write("manifest.yaml", "rules: [{name: r, datsets: '*'}]")
    seen = foreseen(rig)
    assert any("datasets meant?" in t for t in seen.troubles)
    assert plans(seen) == {"a.tif": "known", "b.tif": "submit"}


def test_a_share_that_is_not_mounted_is_said(rig: DeclaredRig) -> None:
    _units(rig)
    rig.turns(10)
    rig.source.rename(rig.source.with_name("unmounted"))
    seen = foreseen(rig)
    assert any("cannot be opened" in t for t in seen.troubles)
    assert plans(seen)["M7/1"] in ("submit", "known"), "what is known of it stays known"


# -- what comes back, and what goes then ---------------------------------------------------------------------------------


def fetches(seen: Foresight) -> list[tuple[str, str, int | None]]:
    return [(f.spec.unit, f.when, f.files) for p in seen.previews for f in p.fetches]


def removals(seen: Foresight) -> dict[str, str]:
    """What goes -> what must be true first, or why it stays."""
    return {r.what: r.condition or f"stays: {r.kept}" for p in seen.previews for r in p.removals}


def test_results_that_will_be_fetched(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    assert fetches(foreseen(rig)) == [("a.tif", "when it has ended", None)]
    rig.until(lambda: rig.submitted(1), "the submit")
    (planned,) = foreseen(rig).document("/data")["fetches"]
    assert planned["id"] == rig.job().job_id
    assert planned["to"] == f"/data/{BUCKET}/results/job__{BUCKET}_{rig.job().job_id}"
    rig.run_jobs()
    assert fetches(foreseen(rig)) == []
    with rig.rig.journal.transaction():
        rig.rig.journal.refetch(rig.job().row)
    ((unit, when, files),) = fetches(foreseen(rig))
    assert (unit, when) == ("a.tif", "now") and files


def test_nothing_goes_by_default(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    assert removals(foreseen(rig)) == {}


def _plain_one(rig: DeclaredRig) -> set[str]:
    rig.write("inputs/M 7/a.tif", "a")
    rig.rules({})
    return {"inputs/M 7/a.tif"}


def _packed_one(rig: DeclaredRig) -> set[str]:
    rig.write("inputs/M7/1/a.tif", "a")
    rig.write("inputs/M7/1/b.tif", "b")
    rig.rules({"unit": "{animal}/{run}", "package": "zip"})
    return {"inputs/M7/1/a.tif", "inputs/M7/1/b.tif"}


@pytest.mark.parametrize("write", [_plain_one, _packed_one])
@pytest.mark.parametrize("moves", [True, False], ids=["move", "delete"])
def test_what_is_said_to_go_goes(rig: DeclaredRig, write: Callable[[DeclaredRig], set[str]], moves: bool) -> None:
    where = f"{rig.archive}/{{path}}"
    policy: dict[str, Any] = {"move": where} if moves else {"delete": {"copy_at": where}}
    rig.configure(after_results={"local_inputs": policy, "remote_inputs": "delete"})
    here = write(rig)
    seen = foreseen(rig)
    (job,) = seen.previews[0].jobs
    (key,) = [d.key for d in job.spec.datasets]
    planned = removals(seen)
    assert set(planned) == {*here, key}
    done = f"when job {job.job_id} is done and its results are here"
    for path in here:
        copy = f"{rig.archive}/{path.removeprefix('inputs/')}"
        assert planned[path] == (done if moves else f"{done}; when {copy} has the same bytes")
    assert planned[key] == f"{done}; after the local inputs"
    assert {d["moved_to"] is not None for d in seen.document("/")["deletions"] if d["where"] == "here"} == {moves}
    for path in here if not moves else ():
        copy = rig.archive / path.removeprefix("inputs/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((rig.home / path).read_bytes())
    rig.archive.mkdir(exist_ok=True)
    rig.until(lambda: rig.submitted(1), "the submit")
    assert removals(foreseen(rig)) == planned
    rig.run_jobs()
    rig.turns(10)
    assert not [p for p in here if (rig.home / p).exists()] and rig.uploaded() == []
    assert removals(foreseen(rig)) == {}


def test_what_does_not_go_yet_and_what_stays(rig: DeclaredRig) -> None:
    rig.configure(after_results={"local_inputs": {"delete": {"copy_at": f"{rig.archive}/{{path}}"}}})
    rig.record("s.tif", "s")
    for name in "abc":
        rig.write(f"inputs/{name}.tif", name)
    rig.ask("waits", "b.tif", "nowhere.tif")
    rig.rules({}, {"name": "of-the-share", "source": "share"})
    rig.until(lambda: rig.submitted(4), "the submits")
    rig.run_jobs()
    rig.turns(5)
    rig.write("inputs/c.tif", "another")
    rig.turns(3)
    planned = removals(foreseen(rig))
    assert planned["inputs/a.tif"] == f"when {rig.archive}/a.tif has the same bytes"
    assert planned["inputs/b.tif"].startswith("job waits (b.tif, nowhere.tif) is waiting and names it; when ")
    assert planned["inputs/c.tif"].startswith("stays: it is not, or not any more")
    assert planned.get("share:s.tif", "stays: it lies in share, which is only read").endswith("which is only read")
    assert foreseen(rig).document("/")["totals"]["deletions"] == 2


def test_of_a_manifest_not_dropped_yet_what_comes_and_goes_too(rig: DeclaredRig) -> None:
    rig.configure(after_results={"remote_inputs": "delete"})
    rig.write("inputs/a.tif", "a")
    rig.write("inputs/b.tif", "b")
    rig.ask("other", "b.tif")
    text = b"rules:\n  - {name: r, datasets: a.tif, config: c.yaml}\n"
    with reading(rig) as journal:
        seen = foresee_manifest(rig.rig.config, journal, BUCKET, text, "new-rules.yaml", rig.clock.now())
    assert fetches(seen) == [("a.tif", "when it has ended", None)]
    assert list(removals(seen)) == ["lab/inputs/a.tif"]


def test_of_a_package_that_is_not_made_yet_the_size_is_known(rig: DeclaredRig) -> None:
    _packages(rig)
    (job,) = foreseen(rig).previews[0].jobs
    files = sum(path.stat().st_size for path in rig.source.rglob("*.tif"))
    assert (job.size, job.plan, job.why) == (files, "submit", "its package first to be made and uploaded")
