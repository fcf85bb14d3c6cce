"""Submit once: what is done about a job, by what is in S3, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from builders import NOW, cases

from ncaasd.plan.submitting import UNSURE_AFTER, Decision, Found, Step, decide

NOTHING = Found(submit_etag=None, folder=False)
OURS = Found(submit_etag="our md5", folder=False)
FOREIGN = Found(submit_etag="another md5", folder=False)
FOLDER = Found(submit_etag=None, folder=True)
DAY = 24 * 3600.0


def decided(found: Found, **more: Any) -> Decision:
    told: dict[str, Any] = {"attempted": 0.0, "rebuilt": False, "released": frozenset(), "now": NOW}
    return decide(found, our_etag="our md5", **(told | more))


@pytest.mark.parametrize(
    ("found", "more", "step", "kind"),
    cases(
        ("nothing is there: put", NOTHING, {}, Step.PUT, None),
        ("our submit file is there: adopt", OURS, {}, Step.ADOPT, None),
        ("its folder is there, the submit file was cleaned away: adopt", FOLDER, {}, Step.ADOPT, None),
        ("both are there: adopt", Found("our md5", True), {}, Step.ADOPT, None),
        ("its folder, and another submit file: it has run", Found("another md5", True), {}, Step.ADOPT, None),
        ("another's submit file: hold", FOREIGN, {}, Step.HOLD, "foreign"),
        ("a submit file whose ETag is empty is another's", Found("", False), {}, Step.HOLD, "foreign"),
        ("another's is never put over, whatever is released", FOREIGN,
         {"released": frozenset({"foreign", "rebuilt", "unsure"})}, Step.HOLD, "foreign"),
        # a journal that may know less than was done
        ("a doubtful journal, nothing there: hold", NOTHING, {"rebuilt": True}, Step.HOLD, "rebuilt"),
        ("a doubtful journal, released: put", NOTHING, {"rebuilt": True, "released": frozenset({"rebuilt"})}, Step.PUT, None),
        ("a doubtful journal, released from something else: hold", NOTHING,
         {"rebuilt": True, "released": frozenset({"unsure", "backlog"})}, Step.HOLD, "rebuilt"),
        ("a doubtful journal, our submit file: adopt", OURS, {"rebuilt": True}, Step.ADOPT, None),
        ("a doubtful journal, its folder: adopt", FOLDER, {"rebuilt": True}, Step.ADOPT, None),
        ("a doubtful journal, another's submit file: foreign", FOREIGN, {"rebuilt": True}, Step.HOLD, "foreign"),
        # a PUT that may have been sent
        ("attempted a minute ago: put once more", NOTHING, {"attempted": NOW - 60}, Step.PUT, None),
        ("attempted a day ago exactly: put once more", NOTHING, {"attempted": NOW - DAY}, Step.PUT, None),
        ("attempted more than a day ago: hold", NOTHING, {"attempted": NOW - DAY - 1}, Step.HOLD, "unsure"),
        ("attempted long ago, released: put", NOTHING,
         {"attempted": NOW - 9 * DAY, "released": frozenset({"unsure"})}, Step.PUT, None),
        ("attempted long ago, released from something else: hold", NOTHING,
         {"attempted": NOW - 9 * DAY, "released": frozenset({"rebuilt"})}, Step.HOLD, "unsure"),
        ("attempted long ago, our submit file: adopt", OURS, {"attempted": NOW - 9 * DAY}, Step.ADOPT, None),
        ("attempted long ago, its folder: adopt", FOLDER, {"attempted": NOW - 9 * DAY}, Step.ADOPT, None),
        ("attempted long ago, another's submit file: foreign", FOREIGN, {"attempted": NOW - 9 * DAY}, Step.HOLD, "foreign"),
        ("never attempted, though the epoch is long ago: put", NOTHING, {"attempted": 0.0, "now": 9 * DAY}, Step.PUT, None),
        # both doubts
        ("both doubts: the journal's first", NOTHING,
         {"attempted": NOW - 9 * DAY, "rebuilt": True}, Step.HOLD, "rebuilt"),
        ("both doubts, the journal's released: the other", NOTHING,
         {"attempted": NOW - 9 * DAY, "rebuilt": True, "released": frozenset({"rebuilt"})}, Step.HOLD, "unsure"),
        ("both doubts, both released: put", NOTHING,
         {"attempted": NOW - 9 * DAY, "rebuilt": True, "released": frozenset({"rebuilt", "unsure"})}, Step.PUT, None),
    ),
)  # fmt: skip
def test_what_is_done(found: Found, more: dict[str, Any], step: Step, kind: str | None) -> None:
    made = decided(found, **more)
    assert (made.step, made.kind) == (step, kind)
    assert bool(made.reason) is (step is not Step.PUT), "what is adopted or held says why"


@pytest.mark.parametrize(
    ("found", "more", "reason"),
    cases(
        ("our submit file", OURS, {}, "its submit file is in S3 already"),
        ("its folder", FOLDER, {}, "its job folder is in S3 already"),
        ("another's submit file", FOREIGN, {},
         "another submit file has this job's name in S3: another rig or another version of ncaasd put it"),
        ("a doubtful journal", NOTHING, {"rebuilt": True},
         ("S3 shows no trace of it, and it may have been run and cleaned away: this rig has submitted jobs that its journal"
         " does not know")),
        ("a doubtful journal, and how that was found out", NOTHING, {"rebuilt": True, "doubt": "this journal is new"},
         "S3 shows no trace of it, and it may have been run and cleaned away: this journal is new"),
        ("a PUT of long ago", NOTHING, {"attempted": NOW - 9 * DAY},
         "its submit file may have been sent more than 24 h ago, and S3 shows neither it nor a job folder"),
    ),
)  # fmt: skip
def test_what_is_said(found: Found, more: dict[str, Any], reason: str) -> None:
    assert decided(found, **more).reason == reason


def test_a_person_decides_after_the_24_hours_that_the_docs_promise() -> None:
    assert UNSURE_AFTER == DAY
