"""Configs and manifests that could not be read when they were to be: nothing waits for ever for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine.lab import Lab
from state_machine.inline_rig import BUCKET

from ncaasd.engine.arriving.declaring import Declarer
from ncaasd.model import FileState, Place

CONFIG = Place(BUCKET, "", "configs/c.yaml")


@pytest.fixture
def lab(new_lab: Callable[..., Lab]) -> Lab:
    """With a prefix, so that S3 has no config of this name to fall back to."""
    return new_lab(upload={"prefix": "rig-a/"})


def begun(lab: Lab) -> None:
    lab.drop_inputs("a.tif")
    lab.drop_rule()
    lab.until(lambda: len(lab.submits()) == 1, "the first job", step=2)
    lab.rig.kill()


def goes_on(lab: Lab) -> None:
    lab.drop_inputs("b.tif")
    lab.until(lambda: len(lab.submits()) == 2, "the second job", step=2, longest=120)


def test_F26_a_folder_that_was_away_while_we_started_and_for_no_longer(lab: Lab) -> None:
    """It is back before the first scan, so nobody has missed it."""
    begun(lab)
    configs, away = lab.folder / "configs", lab.folder / ".away"
    configs.rename(away)
    lab.rig.start()
    away.rename(configs)
    goes_on(lab)
    assert lab.events("root missing") == []


def test_F90_another_inode_after_a_remount_is_no_other_config(lab: Lab) -> None:
    begun(lab)
    row = lab.rig.journal.file_at(CONFIG)
    assert row is not None and row.state is FileState.STORED
    with lab.rig.journal.transaction():  # as a share numbered it before this machine was started again
        before = row.stat._replace(inode=row.stat.inode + 1)
        lab.rig.journal.see_file(CONFIG, before, row.key, row.state, "", lab.clock.now())
    lab.rig.kill()
    goes_on(lab)


def test_a_config_that_can_not_be_read_is_said_once_and_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays what it is, in S3; a disk's error is not taken for a bad config, now and after a restart."""
    begun(lab)
    monkeypatch.setattr("ncaasd.engine.arriving.declaring.CONFIG_LIMIT", 1)
    lab.drop_inputs("b.tif")
    lab.pass_time(60, step=2)
    assert len(lab.submits()) == 1
    assert len(lab.events("not read")) == 1
    assert lab.job("b.tif").reason.startswith(
        "waits for configs/c.yaml (configs/c.yaml has 7 bytes; at most 1 are read"
    )
    row = lab.rig.journal.file_at(CONFIG)
    assert row is not None and row.state is FileState.STORED
    monkeypatch.undo()
    lab.until(lambda: len(lab.submits()) == 2, "the second job", step=2, longest=120)


def test_what_was_deleted_or_changed_meanwhile_is_not_read_again(lab: Lab) -> None:
    begun(lab)
    (lab.folder / "configs/c.yaml").unlink()
    lab.rig.start()
    lab.pass_time(60, step=2)
    assert lab.rig.engine is not None
    declarer: Declarer = lab.rig.engine.declarer
    assert declarer.due() is None


@pytest.mark.parametrize("prefix", ["", "rig-a/"])
def test_a_config_at_work_is_waited_for_and_its_old_version_in_s3_is_not_taken(
    new_lab: Callable[..., Lab], prefix: str
) -> None:
    """A job that comes while its config is being edited runs with what was meant."""
    lab = new_lab(upload={"prefix": prefix}, watch={"settle": "60s"})
    lab.drop_inputs("a.tif")
    lab.drop_rule()
    lab.until(lambda: len(lab.submits()) == 1, "the first job", step=2)
    lab.drop_inputs("b.tif")
    lab.pass_time(58)
    lab.drop("configs/c.yaml", "fr: 31\n")
    lab.until(lambda: len(lab.jobs()) == 2, "the second job to be declared")
    lab.pass_time(30)
    assert "waits for configs/c.yaml (still being written" in lab.job("b.tif").reason
    lab.until(lambda: len(lab.submits()) == 2, "the second submit", step=2)
    assert lab.server.body(lab.job("b.tif").config_key) == b"fr: 31\n"
