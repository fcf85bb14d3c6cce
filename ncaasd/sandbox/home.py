"""A whole sandbox: the S3 server and the job manager together, and a config of ncaasd that uses them."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from ncaasd.errors import NcaasdError
from ncaasd.sandbox import analysis
from ncaasd.sandbox.cloud import Say
from ncaasd.sandbox.job_manager import JobManager
from ncaasd.sandbox.server import LAB_PROFILE, REGION, Engine, SandboxServer

# The analysis that is shipped, as a command; -P keeps this folder's modules out of its imports.
DEFAULT_ANALYSIS = (sys.executable, "-P", os.path.abspath(analysis.__file__), "{data}", "{config}", "{results}")


class Sandbox:
    """A NeuroCAAS in `folder`, as a context manager. What was stored there is kept for the next start.

    `analyses` are its buckets, `group` the user's prefix in them; `analysis_command` is run for every dataset, with
    {data}, {config} and {results} in it (None: the analysis that is shipped); `pace` is the seconds between two steps
    of a job; `scenario` is the course of jobs (see `scenarios.SCENARIOS`) whose config names no other. `lab_buckets` and
    `public_buckets` are for storage bypass. `say` is called with a sentence for everything that happens.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        analyses: Sequence[str] = ("demo-analysis",),
        group: str = "lab",
        analysis_command: str | Sequence[str] | None = None,
        pace: float = 0.5,
        tick: float | None = None,
        scenario: str | None = None,
        port: int | None = None,
        lab_buckets: Sequence[str] = (),
        public_buckets: Sequence[str] = (),
        budget: float = 300.0,
        machines: int = 100,
        engine: Engine = "auto",
        say: Say = lambda _sentence: None,
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.analyses = tuple(analyses)
        self.group = group
        self.server = SandboxServer(
            os.path.join(self.folder, "s3"),
            buckets=analyses,
            group=group,
            port=port,
            extra_buckets=lab_buckets,
            public_buckets=public_buckets,
            engine=engine,
        )
        self._settings: dict[str, Any] = {
            "buckets": analyses,
            "group": group,
            "analysis": DEFAULT_ANALYSIS if analysis_command is None else analysis_command,
            "pace": pace,
            "tick": tick,
            "scenario": scenario or "normal",
            "budget": budget,
            "machines": machines,
            "say": say,
        }
        self._manager: JobManager | None = None

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def manager(self) -> JobManager:
        """The job manager of a started sandbox."""
        if self._manager is None:
            raise NcaasdError("the sandbox is not running")
        return self._manager

    def start(self) -> None:
        """Raises UserError (a folder, port, command or scenario that can't be used), NcaasdError (no server)."""
        self.server.start()
        try:
            admin = self.server.client(self.server.admin_credentials)
            manager = JobManager(os.path.join(self.folder, "platform"), admin, **self._settings)
            if self.server.engine == "moto":
                manager.forget_everything()  # as moto's server has forgotten its objects
            manager.start()
            self._manager = manager
        except BaseException:
            self.server.stop()
            raise

    def stop(self) -> None:
        """Stop all jobs and the server. Running jobs lose their machines; what was stored is kept (not with moto's server)."""
        if self._manager is not None:
            self._manager.stop()
            self._manager = None
        self.server.stop()

    # -- for people and their programs

    def environment(self) -> dict[str, str]:
        """The environment that an ncaasd with a config of `write_config` needs: where its access key is."""
        return {"AWS_SHARED_CREDENTIALS_FILE": self.server.credentials_file}

    def exports(self) -> list[str]:
        """The same, as lines for a shell."""
        return [f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()]

    def write_config(self, path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
        """Write a config for ncaasd, and the folders below `root`; returns the config's path. An old one is replaced."""
        root, path = os.path.abspath(root), os.path.abspath(path)
        for name in self.analyses:
            for part in ("inputs", "configs", "submissions", "results"):
                os.makedirs(os.path.join(root, name, part), exist_ok=True)
        config = {
            "group": self.group,
            "root": root,
            "state": os.path.join(self.folder, "state"),
            "analyses": {name: {} for name in self.analyses},
            "aws": {"profile": LAB_PROFILE, "region": REGION, "endpoint_url": self.server.endpoint},
            "watch": {"settle": "1s", "rescan": "5s", "min_free": "100 MB"},
            "jobs": {"poll": {"min": "1s", "max": "5s"}},
            "web": "off",
        }
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"# For the sandbox in {self.folder}. Its key is in another file:\n")
            file.write("".join(f"#   {line}\n" for line in self.exports()) + text)
        return path


def run_sandbox(
    folder: str | os.PathLike[str],
    *,
    echo: Callable[[str], None],
    stop: threading.Event,
    analyses: Sequence[str] = ("demo-analysis",),
    group: str = "lab",
    analysis_command: str | Sequence[str] | None = None,
    pace: float = 0.5,
    scenario: str | None = None,
    port: int | None = None,
    lab_buckets: Sequence[str] = (),
    public_buckets: Sequence[str] = (),
    engine: Engine = "auto",
) -> None:
    """`ncaasd sandbox`: start a sandbox in `folder`, print how to use it, and keep it until `stop` is set.

    Raises UserError and NcaasdError, as `Sandbox.start`.
    """
    folder = os.path.abspath(folder)
    sandbox = Sandbox(
        folder,
        analyses=analyses,
        group=group,
        analysis_command=analysis_command,
        pace=pace,
        scenario=scenario,
        port=port,
        lab_buckets=lab_buckets,
        public_buckets=public_buckets,
        engine=engine,
        say=echo,
    )
    with sandbox:
        config = sandbox.write_config(os.path.join(folder, "ncaasd.yaml"), os.path.join(folder, "data"))
        for line in how_to_use(sandbox, config):
            echo(line)
        while not stop.wait(1.0):
            if not sandbox.server.pid:
                raise NcaasdError("the sandbox's S3 server is gone", hint=f"its log is {sandbox.server.log_file}")


def how_to_use(sandbox: Sandbox, config: str) -> list[str]:
    """The lines that tell a person how to use a sandbox that was just started."""
    lines = [f"A NeuroCAAS on this machine: {sandbox.server.endpoint}, group {sandbox.group}"]
    lines += [f"It does not enforce {sentence}." for sentence in sandbox.server.unenforced]
    first = os.path.join(os.path.dirname(config), "data", sandbox.analyses[0])
    return [
        *lines,
        f"Drop recordings into  {os.path.join(first, 'inputs')}",
        f"configs into          {os.path.join(first, 'configs')}",
        f"and manifests into    {os.path.join(first, 'submissions')}",
        "with, in another terminal:",
        *(f"  {line}" for line in sandbox.exports()),
        f"  ncaasd run --config {shlex.quote(config)}",
        "Ctrl-C stops the sandbox; what is in it stays.",
    ]
