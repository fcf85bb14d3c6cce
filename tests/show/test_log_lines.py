"""The daemon's log: for people, for systemd's journal, for collectors."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from ncaasd.show.logs import JournalLines, JsonLines, TextLines, set_up, under_systemd


def record(message: str = "file a.tif: stored", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("ncaasd", level, "x.py", 1, message, None, None)
    made.created = 1_800_000_000.25
    made.__dict__ |= extra
    return made


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (logging.INFO, "file a.tif: stored"),
        (logging.WARNING, "WARNING file a.tif: stored"),
        (logging.ERROR, "ERROR file a.tif: stored"),
    ],
)
def test_for_people(level: int, line: str) -> None:
    text = TextLines().format(record(level=level))
    assert text[20:] == line
    assert text[4] == text[7] == "-"


@pytest.mark.parametrize(
    ("level", "mark"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>")],
)
def test_for_systemd_each_line_has_its_priority_and_no_time(level: int, mark: str) -> None:
    assert JournalLines().format(record("one\ntwo", level)) == f"{mark}one\n{mark}two"


def test_for_collectors_one_object_a_line() -> None:
    event = {"analysis": "a", "subject": "file x", "kind": "stored"}
    line = JsonLines().format(record("one\ntwo", logging.ERROR, **event))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "error",
        "message": "one\ntwo",
        **event,
    }


def test_a_trace_is_kept() -> None:
    made = record()
    try:
        raise ValueError("boom")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: boom" in json.loads(JsonLines().format(made))["trace"]
    assert TextLines().format(made).endswith("ValueError: boom")


def test_the_journal_is_known_by_its_very_stream() -> None:
    read, write = os.pipe()
    try:
        seen = os.fstat(write)
        assert under_systemd({"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino}"}, write)
        assert not under_systemd({"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino + 1}"}, write)
        assert not under_systemd({}, write)
    finally:
        os.close(read)
        os.close(write)


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("ncaasd")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", ["debug", "info", "warning"]), ("info", ["info", "warning"]), ("error", [])],
)
def test_levels_and_others_only_from_warning_on(level: str, said: list[str]) -> None:
    out = io.StringIO()
    set_up(level=level, json_lines=True, handler=logging.StreamHandler(out))
    for name in ("debug", "info", "warning"):
        getattr(logging.getLogger("ncaasd"), name)(name)
    logging.getLogger("botocore").info("chatter")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == said
