"""A rig on which no daemon runs, and the command line, called as the console script is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from show_machine import Answer, Call, Machine

from ncaasd.adapters.journal import Journal
from ncaasd.show.cli import main


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, tmp_path / "ncaasd.yaml")
    for area in ("inputs", "configs", "submissions", "results"):
        (made.home / area).mkdir(parents=True)
    made.configure()
    monkeypatch.setenv("NCAASD_CONFIG", str(made.config_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "for-nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-nothing")
    return made


@pytest.fixture
def ncaasd(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls `main` with arguments, as the console script does."""

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def journal(machine: Machine) -> Iterator[Journal]:
    opened = machine.journal()
    yield opened
    opened.close()
