"""A rig whose daemon is a real process, on a real S3 server: start it, kill it, drop files, and look at what is left.

All rigs of a test file share one sandbox and one bucket; each has its own name, root, state and key prefix, so that
they see nothing of one another. The analysis copies its input, so a result's bytes are those of the recording.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from fakes.fault_proxy import FaultProxy
from support.spawner import Process, Spawner

from ncaasd.adapters import control
from ncaasd.adapters.journal import Journal, open_journal, open_reader
from ncaasd.engine.core.crash import VARIABLE
from ncaasd.errors import JournalError, StateError
from ncaasd.model import Event, FileRow, FileState, JobRow, JobState, Origin, Phase
from ncaasd.sandbox.home import Sandbox
from ncaasd.sandbox.server import LAB_PROFILE

BUCKET = "demo-analysis"
GROUP = "lab"
COPY = ("/bin/cp", "{data}", "{results}/")  # the analysis: results are the recording itself
MIB = 1 << 20
CONFIG = "config.yaml"


@dataclass(frozen=True)
class Bench:
    """What all rigs share."""

    sandbox: Sandbox
    spawner: Spawner

    @property
    def admin(self) -> Any:
        return self.sandbox.server.client(self.sandbox.server.admin_credentials)

    def versions(self, prefix: str) -> dict[str, int]:
        """Key -> how many ObjectCreated events there were for it, of all keys below `prefix` (within the group)."""
        found: dict[str, int] = {}
        pages = self.admin.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=f"{GROUP}/{prefix}")
        for page in pages:
            for version in page.get("Versions", ()):
                found[version["Key"]] = found.get(version["Key"], 0) + 1
        return found

    def objects(self, prefix: str) -> dict[str, int]:
        """Key -> size of what is there now below `prefix` (within the group)."""
        pages = self.admin.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{GROUP}/{prefix}")
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}

    def body(self, key: str) -> bytes:
        body: bytes = self.admin.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self.admin.put_object(Bucket=BUCKET, Key=f"{GROUP}/{key}", Body=body)

    def delete(self, key: str) -> None:
        self.admin.delete_object(Bucket=BUCKET, Key=f"{GROUP}/{key}")


@contextlib.contextmanager
def bench(folder: str) -> Iterator[Bench]:
    """A quick sandbox with money and machines for everything, and a spawner."""
    sandbox = Sandbox(
        folder,
        analyses=(BUCKET,),
        group=GROUP,
        analysis_command=COPY,
        pace=0.05,
        tick=0.2,
        budget=1e9,
        machines=100_000,
    )
    with Spawner() as spawner, sandbox:
        yield Bench(sandbox, spawner)


def run_command(config: str) -> list[str]:
    """The daemon as people start it."""
    return [sys.executable, "-m", "ncaasd", "run", "--config", config]


class Rig:
    """One rig. `changes` are laid over its config; with `proxy`, its daemon meets S3 through a FaultProxy."""

    def __init__(
        self,
        bench: Bench,
        folder: str,
        *,
        name: str = "",
        proxy: bool = False,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.bench = bench
        self.folder = os.path.abspath(folder)
        self.name = name or f"rig-{uuid.uuid4().hex[:10]}"
        self.root = os.path.join(self.folder, "root")
        self.state = os.path.join(self.folder, "state")
        self.home = os.path.join(self.root, BUCKET)
        self.log = os.path.join(self.folder, "log")
        self.config = os.path.join(self.folder, "ncaasd.yaml")
        self.process: Process | None = None
        self.proxy = FaultProxy(bench.sandbox.server.endpoint) if proxy else None
        if self.proxy:
            self.proxy.__enter__()
        for area in ("inputs", "configs", "submissions", "results"):
            os.makedirs(os.path.join(self.home, area))
        self.configure(changes or {})

    # -- what is wanted

    def configure(self, changes: Mapping[str, Any]) -> None:
        self.logs = changes.get("results", {}).get("logs") != "never"
        endpoint = self.proxy.endpoint if self.proxy else self.bench.sandbox.server.endpoint
        wanted: dict[str, Any] = {
            "rig": self.name,
            "state": self.state,
            "group": GROUP,
            "root": self.root,
            "analyses": {BUCKET: {}},
            "aws": {"profile": LAB_PROFILE, "endpoint_url": endpoint},
            "watch": {"settle": "200ms", "rescan": "2s", "min_free": "1 MB"},
            "upload": {"prefix": f"{self.name}/"},
            "jobs": {
                "max_active": 10_000,
                "max_per_day": 1_000_000,
                "ask_above": 1_000_000,
                "poll": {"min": "200ms", "max": "1s"},
            },
            "web": "off",
        }
        with open(self.config + ".new", "w", encoding="utf-8") as file:
            yaml.safe_dump(_laid_over(wanted, changes), file)
        os.replace(self.config + ".new", self.config)

    def drop(self, path: str, body: bytes | str) -> str:
        """Bring a file into the analysis's folder as good software does: whole, by a rename. Returns its path."""
        staging = os.path.join(self.root, "staging", uuid.uuid4().hex)
        target = os.path.join(self.home, path)
        os.makedirs(os.path.dirname(staging), exist_ok=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(staging, "wb") as file:
            file.write(body.encode() if isinstance(body, str) else body)
        os.replace(staging, target)
        return target

    def drop_config(self, **values: Any) -> None:
        self.drop(f"configs/{CONFIG}", yaml.safe_dump({"window": 3, **values}))

    def drop_rule(self, datasets: str = "**/*.bin", name: str = "all", **more: Any) -> None:
        rule = {"name": name, "datasets": datasets, "config": CONFIG, **more}
        self.drop("manifest.yaml", yaml.safe_dump({"rules": [rule]}))

    def drop_job(self, name: str, *datasets: str, **more: Any) -> None:
        job = {"name": name, "datasets": list(datasets), "config": CONFIG, **more}
        self.drop(f"submissions/{name}.yaml", yaml.safe_dump({"jobs": [job]}))

    # -- its daemon

    def start(self, crash: str = "", *, command: bool = True, files: int = 0, host: str = "") -> Process:
        """Start the daemon; `crash` arms a crash point ("name:count"). Without `command` it is forked, not executed,
        which spares it a second of imports. `host`: the machine's name, as it is told."""
        assert self.process is None or not self.process.running(), "it runs already"
        env = {**self.bench.sandbox.environment(), VARIABLE: crash}
        if host:
            log = self.log
            self.process = self.bench.spawner.call("support.work:daemon_on_host", self.config, host, log=log, env=env)
        elif command:
            self.process = self.bench.spawner.run(run_command(self.config), log=self.log, env=env, files=files)
        else:
            self.process = self.bench.spawner.call("support.work:daemon", self.config, log=self.log, env=env)
        return self.process

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def stop(self, timeout: float = 30.0) -> float:
        """SIGTERM; the seconds it took. Fails when it took longer than `timeout`, or ended otherwise."""
        assert self.process is not None
        if self.process.running():
            self.wait_for(
                self.live, "the daemon to answer", timeout=20
            )  # before it has a handler, SIGTERM just ends it
        began = time.monotonic()
        self.process.signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        assert code == 0, f"after SIGTERM: {'still running' if code is None else f'exit code {code}'}\n{self.tail()}"
        return time.monotonic() - began

    def dies(self, timeout: float = 60.0) -> int:
        """Wait for the daemon's end; its exit code."""
        assert self.process is not None
        code = self.process.wait(timeout)
        assert code is not None, f"it did not end within {timeout} s\n{self.tail()}"
        return code

    def crashes(self, timeout: float = 60.0) -> None:
        """Wait until the armed crash point was passed."""
        code = self.dies(timeout)
        assert code == -signal.SIGKILL, f"the crash point was not passed: exit code {code}\n{self.tail()}"

    def close(self) -> None:
        self.kill()
        if self.proxy:
            self.proxy.__exit__()

    def live(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None when none answers."""
        answer = control.ask(self.state, {"do": "live"}, timeout=10)
        return None if answer is None else answer["live"]

    def said(self) -> str:
        with contextlib.suppress(FileNotFoundError), open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.said().splitlines()[-lines:])

    def wait_for(self, condition: Callable[[], Any], what: str, *, timeout: float = 60.0) -> float:
        """Wait until it is so, while the daemon runs; the seconds it took."""
        began = time.monotonic()
        while not condition():
            if self.process is not None and not self.process.running():
                raise AssertionError(f"the daemon ended ({self.process.wait(0)}) before {what}\n{self.tail()}")
            if time.monotonic() - began > timeout:
                jobs = "\n".join(f"{j.spec.name} {j.spec.unit}: {j.phase} {j.state} {j.reason}" for j in self.jobs())
                files = "\n".join(f"{f.place.path}: {f.state} {f.reason}" for f in self.files())
                raise AssertionError(f"{timeout:.0f} s in vain for {what}\n{jobs}\n{files}\n{self.tail()}")
            time.sleep(0.05)
        return time.monotonic() - began

    # -- what it knows

    @property
    def journal_path(self) -> str:
        return os.path.join(self.state, "journal.sqlite")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Journal]:
        with contextlib.closing(open_reader(self.journal_path)) as journal:
            yield journal

    @contextlib.contextmanager
    def writing(self) -> Iterator[Journal]:
        """Only while no daemon runs."""
        with contextlib.closing(open_journal(self.journal_path)) as journal:
            yield journal

    def jobs(self) -> list[JobRow]:
        """The oldest first; none when there is no journal yet."""
        with contextlib.suppress(StateError, JournalError), self.reading() as journal:
            return journal.jobs()[::-1]
        return []

    def own_jobs(self) -> list[JobRow]:
        """Without those that were found in S3, started by others."""
        return [job for job in self.jobs() if job.spec.origin is not Origin.ELSEWHERE]

    def job(self, name: str = "", attempt: int = 0) -> JobRow:
        found = [j for j in self.jobs() if j.attempt == attempt and name in ("", j.spec.name, j.spec.unit)]
        assert len(found) == 1, f"{len(found)} jobs are named {name!r}"
        return found[0]

    def files(self) -> list[FileRow]:
        with contextlib.suppress(StateError, JournalError), self.reading() as journal:
            return list(journal.files(BUCKET))
        return []

    def events(self, kind: str = "") -> list[Event]:
        with self.reading() as journal:
            return [e for e in journal.events(limit=100_000) if kind in ("", e.kind)]

    def stored(self, *paths: str) -> bool:
        """Whether these inputs (all, when none is named) are in S3, verified, as the journal says."""
        states = {f.place.path.removeprefix("inputs/"): f.state for f in self.files() if f.place.path[:7] == "inputs/"}
        wanted = paths or tuple(states)
        return bool(states) and all(states.get(path) is FileState.STORED for path in wanted)

    def done(self, count: int, name: str = "") -> bool:
        """Whether there are so many jobs (of a name), and all are done."""
        jobs = [job for job in self.jobs() if name in ("", job.spec.name)]
        return len(jobs) == count and all(j.phase is Phase.ENDED and j.state is JobState.DONE for j in jobs)

    def wait_done(self, count: int, name: str = "", *, timeout: float = 90.0) -> float:
        return self.wait_for(lambda: self.done(count, name), f"{count} jobs to be done", timeout=timeout)

    # -- what must be true in the end

    def inputs(self) -> dict[str, str]:
        """Key -> local path of everything below inputs/."""
        found = {}
        top = os.path.join(self.home, "inputs")
        for parent, _folders, names in os.walk(top):
            for name in names:
                path = os.path.join(parent, name)
                found[f"{GROUP}/inputs/{self.name}/{os.path.relpath(path, top)}"] = path
        return found

    def submits(self) -> dict[str, int]:
        """Submit key -> ObjectCreated events, of this rig's jobs only: those whose datasets have its prefix."""
        mine = f"/inputs/{self.name}/".encode()
        known = {job.submit_key for job in self.own_jobs()}
        every = self.bench.versions("submissions/")
        return {
            key: count
            for key, count in every.items()
            if key.endswith("submit.json") and (key in known or mine in self._submit_body(key))
        }

    def _submit_body(self, key: str) -> bytes:
        """Its first version, so that a deleted one is found too."""
        admin = self.bench.admin
        versions = admin.list_object_versions(Bucket=BUCKET, Prefix=key).get("Versions", ())
        version = next(v["VersionId"] for v in versions if v["Key"] == key)
        body: bytes = admin.get_object(Bucket=BUCKET, Key=key, VersionId=version)["Body"].read()
        return body

    def check(self, jobs: int, *, raced: tuple[str, ...] = ()) -> None:
        """Everything dropped is in S3 once with its bytes; `jobs` jobs were submitted once each, and are done; their
        results are here with their bytes, and nothing else is. `raced`: see check_inputs."""
        self.check_inputs(raced)
        self.check_submits(jobs)
        assert self.done(jobs), [(j.spec.name, j.spec.unit, j.state, j.reason) for j in self.jobs()]
        self.check_results()

    def check_inputs(self, raced: tuple[str, ...] = ()) -> None:
        """`raced`: the ends of keys that two daemons may have completed in the same moment. SeaweedFS asks If-None-Match of
        a Complete and then completes, not as one step, so it may keep a version of each, where S3 refuses the second."""
        inputs = self.inputs()
        versions = self.bench.versions(f"inputs/{self.name}/")
        most = {key: 2 if key.endswith(raced) else 1 for key in inputs}
        assert versions.keys() == inputs.keys(), "each file is stored, and nothing else is"
        assert {k: n for k, n in versions.items() if n > most[k]} == {}, "each file is stored once"
        for key, path in inputs.items():
            assert self.bench.body(key) == _read(path), f"{key} has the bytes of {path}"

    def check_submits(self, jobs: int) -> None:
        keys = [job.submit_key for job in self.own_jobs()]
        assert len(set(keys)) == len(keys) == jobs
        assert self.submits() == dict.fromkeys(keys, 1), "each job is submitted once"

    def check_results(self) -> None:
        """Whatever has a final name is an object of S3 with its bytes; of every job that has ended, all is here."""
        results = os.path.join(self.home, "results")
        here = {os.path.relpath(os.path.join(p, n), results) for p, _folders, names in os.walk(results) for n in names}
        left_over = {n for n in here if n.startswith((".ncaasd-results", ".ncaasd-partial"))}
        wanted = set()
        with self.reading() as journal:
            for job in journal.jobs():
                for artefact in journal.artefacts(job.row):
                    if artefact.path:
                        wanted.add(artefact.path)
                        assert _read(os.path.join(results, artefact.path)) == self.bench.body(artefact.key)
                if job.phase is Phase.ENDED and job.submit_key:
                    objects = self.bench.objects(f"results/{job.results}/")
                    there = {key.removeprefix(f"{GROUP}/results/{job.results}/") for key in objects} - {""}
                    names = {a.name for a in journal.artefacts(job.row)}
                    assert {n for n in there - names if not n.startswith("logs/") or self.logs} == set()
                    wanted.add(f"{job.results}/job.json")
                    document = json.loads(_read(os.path.join(results, job.results, "job.json")))
                    assert (document["id"], document["state"]) == (job.job_id, str(job.state))
        assert here - left_over == wanted, "nothing else has a name below results/"
        assert not [n for n in left_over if n.startswith(".ncaasd-partial")], "no temporary file is left behind"

    def statuses(self) -> dict[str, Any]:
        """Path -> content of every status file."""
        found = {}
        for parent, _folders, names in os.walk(self.home):
            for name in names:
                path = os.path.join(parent, name)
                below = os.path.relpath(path, self.home)
                if name.endswith(".status.json") or (
                    name.endswith(".json") and below.startswith("submissions/status/")
                ):
                    found[below] = json.loads(_read(path))
        return found


def blob(size: int, seed: int) -> bytes:
    """A recording: random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
