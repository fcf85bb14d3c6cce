"""Status files: what a share refuses is written when it can be, and a stop leaves them saying what is so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from state_machine.test_steps import Setting

from ncaasd.engine.telling import reporting
from ncaasd.errors import LocalError

PATH = "submissions/one.status.json"


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.rig.kill()


def state(setting: Setting) -> Any:
    path = setting.folder / PATH
    return json.loads(path.read_text())["jobs"][0]["state"] if path.exists() else None


def test_F19_a_status_file_that_was_refused_is_written_later(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.ask("one", "a.tif")
    setting.until(lambda: state(setting) == "submitted", "the submit to be shown")
    assert setting.rig.engine is not None
    (context,) = setting.rig.engine.runtime.contexts.values()
    refused = []

    def refuse(path: str, _body: bytes) -> None:
        refused.append(path)
        raise LocalError(f"the status file {path} can't be written: Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(context.status, "write", refuse)
        setting.finish(setting.job())
        setting.turns(20)
    assert refused and state(setting) == "submitted"
    setting.clock.sleep(reporting.RETRY)
    setting.turns(3)
    assert state(setting) == "done"
    assert setting.rig.engine is not None, "it did not take a restart"


def test_nothing_is_written_that_says_the_same(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.ask("one", "a.tif")
    setting.until(lambda: state(setting) == "submitted", "the submit to be shown")
    before = (setting.folder / PATH).stat().st_mtime_ns
    assert setting.rig.engine is not None
    setting.rig.engine.declarer.changed.add((setting.rig.journal.jobs()[0].spec.analysis, "submissions/one.yaml"))
    setting.clock.sleep(5)
    setting.turns(3)
    assert (setting.folder / PATH).stat().st_mtime_ns == before
