"""Makes docs/cli.md from the commands: `python -m ncaasd.show.cli.reference > docs/cli.md`. A test compares them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from ncaasd.show.cli.app import app_for

HEAD = """\
# The command line

Made from the commands themselves (`python -m ncaasd.show.cli.reference > docs/cli.md`); `ncaasd COMMAND --help` says the same.

The config is the one that `--config FILE` names; else `$NCAASD_CONFIG`; else `~/.config/ncaasd/config.yaml`; else
`/etc/ncaasd/config.yaml`. Jobs are named by their id; by their number here, while they have none; or by their own name.
What a command answers is on standard output; what it has to say besides, on standard error. `--json` is for scripts: what it
prints has the same keys as `job.json` and the status files.

## Exit codes

| code | what it means | what to do |
|---|---|---|
| 0 | done, and all is well | |
| 1 | done, and something needs a person: see below | read what it said |
| 2 | a mistake: a wrong option, config or manifest, a job that isn't there, a second daemon | mend it; trying again won't help |
| 3 | the surroundings: S3, the network, credentials, a disk, the journal | try again later, or `ncaasd check` |
| 130 | interrupted by Ctrl-C; everything goes on where it was | |

| command | 1 means |
|---|---|
| `once` | a job failed, was refused or timed out in this pass, or is held or lost; a file is held or refused |
| `once --wait` | the same, or a job still waits for files |
| `check` | something is wrong |
| `plan` | a manifest that is here is wrong, or a folder can't be looked at |
| `safe` | not all of it is safe |
| `hold`, `release`, `rerun`, `forget`, `fetch` | no such job, nothing could be done (it said why), or it was answered with no |

`once` ends with 3 when S3 or a disk was in the way, and with 2 when a manifest is wrong, before it looks at jobs.
`run` ends with 0 after SIGTERM and Ctrl-C, with 3 when its journal or an fsync failed: a service manager should start it again.
"""


def reference() -> str:
    """The whole page."""
    commands: dict[str, Any] = typer.main.get_command(app_for()).commands  # type: ignore[attr-defined]  # it is a group
    lines = [HEAD, "## Commands", "", "| command | does |", "|---|---|"]
    lines += [f"| [`ncaasd {name}`](#ncaasd-{name}) | {each.short_help} |" for name, each in commands.items()]
    for name, each in commands.items():
        lines += ["", *_section(name, each)]
    return "\n".join(lines) + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"### ncaasd {name}"
    yield ""
    yield inspect.cleandoc(command.help)
    yield ""
    yield "```console"
    yield f"$ {command.epilog.removeprefix('Example:').strip()}"
    yield "```"
    yield ""
    yield "| option | what it is |"
    yield "|---|---|"
    for parameter in command.params:
        if parameter.name != "help":
            yield f"| {_names(parameter)} | {parameter.help}{_default(parameter)} |"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}{'...' if parameter.nargs == -1 else ''}`"
    flag = "" if parameter.is_flag else f" {parameter.metavar or 'TEXT'}"
    return ", ".join(f"`{option}{flag}`" for option in parameter.opts)


def _default(parameter: Any) -> str:
    return "" if parameter.default in (None, "", False) else f" Without it: `{parameter.default}`."


if __name__ == "__main__":
    print(reference(), end="")
