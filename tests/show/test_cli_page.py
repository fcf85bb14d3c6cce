"""What must not drift: the help, the page made of it, the exit codes; and what a call costs before it does anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from show_machine import Call, Machine

import ncaasd as package
from ncaasd.engine.daemon import journal_path, state_folder
from ncaasd.show import places
from ncaasd.show.cli import app as gathered
from ncaasd.show.cli.reference import reference

COMMANDS: dict[str, Any] = typer.main.get_command(gathered.app_for()).commands  # type: ignore[attr-defined]  # it is a group
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
PROMISED = [
    "init",
    "check",
    "plan",
    "safe",
    "run",
    "once",
    "status",
    "jobs",
    "job",
    "logs",
    "submit",
    "rerun",
    "hold",
    "release",
    "forget",
    "fetch",
    "sandbox",
    "demo",
]
HEAVY = {"boto3", "botocore", "awscrt", "pydantic", "yaml", "rich", "sqlite3", "apscheduler", "watchdog"}


def test_the_page_is_made_from_the_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m ncaasd.show.cli.reference > docs/cli.md"


def test_every_command_that_was_promised_is_there() -> None:
    assert sorted(COMMANDS) == sorted(PROMISED)


@pytest.mark.parametrize(("module", "names"), gathered.COMMANDS.items())
def test_a_call_that_names_a_command_has_it(module: str, names: tuple[str, ...]) -> None:
    for name in names:
        found: Any = typer.main.get_command(gathered.app_for([name, "--json"]))
        assert tuple(found.commands) == names, module


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_says_what_each_option_is(ncaasd: Call, name: str) -> None:
    answer = ncaasd(name, "--help")
    assert answer.code == 0
    assert f"Example:  ncaasd {name}" in answer.out
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("sandbox", "demo")])
def test_every_command_takes_a_config(name: str) -> None:
    assert any("--config" in p.opts for p in COMMANDS[name].params)


@pytest.mark.parametrize(
    "name", ["status", "jobs", "job", "logs", "check", "plan", "once", "hold", "release", "rerun", "fetch"]
)
def test_what_a_script_may_read_has_json(name: str) -> None:
    assert any("--json" in p.opts for p in COMMANDS[name].params)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ncaasd.show.cli.app as gathered; gathered.app_for(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY & {name.partition(".")[0] for name in loaded} == set()


def test_reading_the_journal_needs_no_s3() -> None:
    code = "import sys, ncaasd.show.status, ncaasd.show.terminal, ncaasd.engine.commands; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"boto3", "botocore", "awscrt"} & {name.partition(".")[0] for name in loaded} == set()


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["--help"], 0), (["--version"], 0), (["nono"], 2), (["jobs", "--nono"], 2)]
)
def test_usage(arguments: list[str], code: int) -> None:
    run = subprocess.run([sys.executable, "-m", "ncaasd", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert "Traceback" not in run.stderr
    if arguments == ["--version"]:
        assert run.stdout == f"ncaasd {package.__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_trouble() -> None:
    command = f"{sys.executable} -m ncaasd sandbox --list-scenarios | head -1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert run.stdout.startswith("normal")
    assert "Traceback" not in run.stderr


# -- which config


@pytest.fixture
def places_of_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.delenv("NCAASD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "SYSTEM_CONFIG", str(tmp_path / "etc.yaml"))
    return {"user": str(tmp_path / "home" / "ncaasd" / "config.yaml"), "system": str(tmp_path / "etc.yaml")}


@pytest.mark.skipif(sys.platform != "linux", reason="the user's folder is elsewhere")
@pytest.mark.parametrize(
    ("there", "expected"),
    [((), "user"), (("user",), "user"), (("system",), "system"), (("user", "system"), "user")],
)
def test_the_users_config_goes_before_the_systems(
    places_of_configs: dict[str, str], there: tuple[str, ...], expected: str
) -> None:
    for name in there:
        path = Path(places_of_configs[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert places.config_path(None) == places_of_configs[expected]


def test_a_config_that_is_named_goes_before_all(
    places_of_configs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCAASD_CONFIG", "/named/in/environment")
    assert places.config_path(None) == "/named/in/environment"
    assert places.config_path("/named/here") == "/named/here"


@pytest.mark.parametrize("state", ["config", "systemd", "user"])
def test_the_state_folder_is_the_engines(machine: Machine, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    if state != "config":
        machine.configure(state=None)
    if state == "systemd":
        monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ncaasd:/var/lib/other")
    config = machine.config
    assert places.state_of(config) == state_folder(config)
    assert places.journal_of(config) == journal_path(state_folder(config))
