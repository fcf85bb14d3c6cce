"""Run the runtime: unattended (`serve`, for `ncaasd run`), or for one pass (`run_pass`, for `ncaasd once`)."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ncaasd import subjects
from ncaasd.adapters.control import ControlServer
from ncaasd.adapters.systemd import notify
from ncaasd.declare.config import Config, load_config
from ncaasd.engine import commands
from ncaasd.engine.core.crash import armed
from ncaasd.engine.core.documents import job_document
from ncaasd.engine.core.part import Waits
from ncaasd.engine.daemon import Running, running, state_folder
from ncaasd.engine.following.elsewhere import every_job, those_there
from ncaasd.engine.loop import Engine, silence
from ncaasd.engine.root import root_answers
from ncaasd.errors import JournalBroken, JournalError, NcaasdError, UserError
from ncaasd.model import JobRow, Phase
from ncaasd.neurocaas.evidence import Patience
from ncaasd.ports import CrashPoint

if TYPE_CHECKING:
    from ncaasd.engine.core.schedule import Schedule

log = logging.getLogger("ncaasd")

CONFIG_LIMIT = 16 * 2**20  # bytes read at most; the parser's own limit is lower, with a clear error
LOOK_AT_CONFIG = 5.0
JOURNAL_AGAIN = 5.0
LAST_WORDS = 3.0  # seconds at most for writing the last status files, maybe to a slow share
LOOK_FOR_GARBAGE = (700, 10, 10)  # Python's default thresholds; the command line starts with higher ones
SOON = 120.0  # seconds after the start: missed nightly work is looked for, then every LOOK_AT_NIGHT
LOOK_AT_NIGHT = 3600.0
SPREAD = 45 * 60.0  # seconds of the night over which many rigs do it
LASTS = 5.0  # seconds after which a pass starts the schedule
GRACE = 3.0  # seconds that `once` waits beyond `settle` for the files it has found


def read_config(path: str) -> Config:
    """Raises UserError when it can't be read, DeclarationError with all its problems."""
    try:
        with open(path, "rb") as file:
            data = file.read(CONFIG_LIMIT)
    except OSError as error:
        raise UserError(
            f"the config {path} can't be read: {error.strerror}",
            hint="`ncaasd init` writes one, or name it with --config",
        ) from error
    return load_config(data, path)


@dataclass
class _Signals:
    """Handlers set flags and nothing else."""

    stop: bool = False
    reload: bool = False

    def install(self) -> None:
        def on_stop(_number: int, _frame: object) -> None:
            self.stop = True

        def on_reload(_number: int, _frame: object) -> None:
            self.reload = True

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, on_stop)
            signal.signal(signal.SIGHUP, on_reload)


def serve(
    path: str,
    *,
    crash: CrashPoint | None = None,
    stop: Callable[[], bool] = lambda: False,
    taken: Callable[[Config], None] = lambda _config: None,
    patience: Patience | None = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT. A changed config is applied without a restart; an invalid one is reported,
    and the old one stays in force (F78). `taken` is called with each config that comes into force, to set the log's level
    and format."""
    crash = crash or armed()
    config = read_config(path)
    signals = _Signals()
    signals.install()
    while not (signals.stop or stop()):
        taken(config)
        try:
            if root_answers(config.root, lambda: signals.stop or stop(), tell=notify):
                config = _serve_one(path, config, signals, crash, stop, patience)
        except JournalBroken:
            raise
        except JournalError as error:
            _wait_for_journal(config, error, lambda: signals.stop or stop())
    notify("STOPPING=1")
    log.info("stopped; everything goes on where it was")


def _wait_for_journal(config: Config, error: JournalError, stop: Callable[[], bool]) -> None:
    """The journal can't be written, so the engine is down: wait before the next try, and report why to `ncaasd status` and
    systemd (F13)."""
    log.error("%s; tried again in %.0f s", error, JOURNAL_AGAIN)
    notify(f"STATUS={error}")
    answer = {"live": {"pid": os.getpid(), "rig": "", "transfers": [], "troubles": [str(error)], "watching": {}}}
    try:
        control = ControlServer(state_folder(config), lambda _request: answer)
    except OSError:
        control = None  # a disk too full even for a socket
    until = time.monotonic() + JOURNAL_AGAIN
    while time.monotonic() < until and not stop():
        notify("WATCHDOG=1")
        time.sleep(0.2)
    if control is not None:
        control.close()


def _serve_one(
    path: str,
    config: Config,
    signals: _Signals,
    crash: CrashPoint,
    stop: Callable[[], bool],
    patience: Patience | None,
) -> Config:
    """Serve with one config until stopped, or until there is a changed one; returns the config to go on with."""
    taken = _mark(path)
    with _put_up(config, crash, patience) as runtime:
        schedule = scheduled(runtime)
        control = ControlServer(state_folder(config), lambda request: handle(runtime, request))
        notify("READY=1", "STATUS=watching " + ", ".join(config.analyses))
        log.info("watching %s for %s", config.root, ", ".join(config.analyses))
        try:
            wait, looked = 0.0, time.monotonic()
            while not (signals.stop or stop()):
                runtime.engine.turn(min(wait, 0.5))  # a signal's flag is seen soon
                notify("WATCHDOG=1")
                schedule.look()
                wait = runtime.engine.wait_for()
                runtime.pool.look()
                due = time.monotonic() - looked > LOOK_AT_CONFIG
                if signals.reload or (due and _mark(path) != taken):
                    signals.reload, taken = False, _mark(path)
                    better = _reload(path, runtime)
                    if better is not None:
                        config = better
                        break
                if due:
                    looked = time.monotonic()
            _last_words(runtime)
        finally:
            control.close()
            schedule.stop()
    return config


def scheduled(runtime: Running) -> Schedule:
    """Start the wall-clock schedule of rescans and nightly work. It posts its notes to the engine until it is stopped."""
    # APScheduler takes longer to be imported than a pass of `once` that has nothing to do.
    from ncaasd.engine.core.schedule import Beat, Job, Nightly, Schedule

    engine, known = runtime.engine, runtime.engine.runtime
    jobs = {
        f"rescan {name}": Job(Beat(context.settings.watch.rescan), partial(engine.observer.rescan, name))
        for name, context in known.contexts.items()
    }
    jobs["night"] = Job(Nightly(known.spread() * SPREAD), runtime.nightly.night)
    jobs["missed night"] = Job(Beat(LOOK_AT_NIGHT, first=SOON), runtime.nightly.look)
    return Schedule(known.clock, jobs, known.mailbox.tell)


@contextlib.contextmanager
def _put_up(config: Config, crash: CrashPoint, patience: Patience | None) -> Iterator[Running]:
    """A running daemon whose long-lived objects, made at its start, are excluded from garbage collection: with hundreds of
    thousands of known files, each full collection would take noticeable time."""
    gc.disable()
    try:
        with running(config, crash=crash, patience=patience) as runtime:
            gc.freeze()
            gc.set_threshold(*LOOK_FOR_GARBAGE)
            gc.enable()
            yield runtime
    finally:
        gc.unfreeze()
        gc.enable()


def _mark(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reload(path: str, runtime: Running) -> Config | None:
    engine = runtime.engine
    try:
        config = read_config(path)
    except NcaasdError as error:
        engine.config_trouble = f"the config has changed and is wrong, so the one before it stays in force: {error}"
        with engine.runtime.transaction():
            engine.runtime.event(
                "", subjects.CONFIG, "bad config", f"the old config stays in force: {error}", level=logging.ERROR
            )
        return None
    engine.config_trouble = ""
    if config == runtime.config:
        return None
    with engine.runtime.transaction():
        engine.runtime.event("", subjects.CONFIG, "reloaded", f"{path} has changed and is in force")
    return config


def handle(runtime: Running, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request of the command line. Runs in one of the control socket's threads; changes are made in the engine
    thread."""
    mailbox = runtime.engine.runtime.mailbox
    match request.get("do"):
        case "live":
            return {"live": live(runtime)}
        case "hold" | "release" | "rerun" | "forget" as action:
            selection = selection_of(request)
            config = str(request.get("config", ""))
            return {"effects": mailbox.ask(lambda: effects(runtime.engine, str(action), selection, config))}
        case "release files":
            names = [str(name) for name in request.get("names", ())]
            journal, now = runtime.journal, runtime.engine.runtime.clock.now()
            return {"files": mailbox.ask(lambda: [str(r.place) for r in commands.release_files(journal, names, now)])}
        case "fetch":
            selection = selection_of(request)
            found = find_elsewhere(runtime.engine, selection, every=bool(request.get("all")))
            return {"effects": mailbox.ask(lambda: fetch(runtime.engine, selection, found))}
        case "rescan":
            mailbox.ask(runtime.engine.observer.rescan_all)
            return {}
        case other:
            raise UserError(
                f"the daemon does not know the request {other!r}", hint="is it of an older version? restart it"
            )


def selection_of(request: Mapping[str, Any]) -> commands.Selection:
    return commands.Selection(
        ids=tuple(request.get("ids", ())),
        analysis=str(request.get("analysis", "")),
        rule=str(request.get("rule", "")),
        where=tuple((str(a), str(b)) for a, b in request.get("where", ())),
        since=float(request.get("since", 0.0)),
    )


def effects(engine: Engine, action: str, selection: commands.Selection, config: str = "") -> list[dict[str, Any]]:
    runtime = engine.runtime
    done = commands.apply(runtime.journal, action, selection, runtime.clock.now(), config=config)
    for effect in done:
        engine.declarer.changed.add((effect.job.spec.analysis, effect.job.spec.declared_in))
        if effect.done and action == "rerun":
            engine.declarer.redeclare(effect.job)
    return [{"job": job_document(e.job, engine.root), "row": e.job.row, "done": e.done, "text": e.text} for e in done]


Found = Mapping[str, Sequence[str]]  # analysis -> ids of jobs in S3


def find_elsewhere(engine: Engine, selection: commands.Selection, *, every: bool = False) -> Found:
    """The selected jobs that exist in S3: those of `selection.ids`, or every job of the group. Sends requests to S3, so it
    must not run in a daemon's engine thread. Raises StoreError."""
    contexts = [c for c in engine.runtime.contexts.values() if selection.analysis in ("", c.name)]
    ids = [i for i in selection.ids if not i.startswith("#")]
    if every:
        return {c.name: every_job(c.store, c.layout) for c in contexts}
    return {c.name: those_there(c.store, c.layout, ids) for c in contexts} if ids else {}


def fetch(engine: Engine, selection: commands.Selection, found: Found | None = None) -> list[dict[str, Any]]:
    """Fetch the results of the selected jobs again, also those that were deleted here. Jobs started elsewhere that were
    `found` in S3 are followed and fetched from now on."""
    runtime = engine.runtime
    answers = []
    new: set[str] = set()
    for name, ids in (found or {}).items():
        for job in engine.jobs.elsewhere.follow(runtime.contexts[name], ids):
            new.add(job.job_id)
            answers.append(_answer(engine, job, True, "found in S3, started elsewhere: followed and fetched"))
    left = tuple(i for i in selection.ids if i not in new)
    named = left or (not selection.ids and not found)
    for job in commands.select(runtime.journal, replace(selection, ids=left)) if named else ():
        if job.job_id in new:
            continue
        if job.phase is Phase.ENDED and job.job_id:
            engine.jobs.judging.again(runtime.contexts[job.spec.analysis], job)
            answers.append(_answer(engine, job, True, "being fetched"))
        else:
            text = f"it is {job.state}: its results come by themselves when it has ended"
            answers.append(_answer(engine, job, False, text))
    return answers


def _answer(engine: Engine, job: JobRow, done: bool, text: str) -> dict[str, Any]:
    return {"job": job_document(job, engine.root), "row": job.row, "done": done, "text": text}


def live(runtime: Running) -> dict[str, Any]:
    """What only the running daemon knows: transfers under way, current troubles, and how each tree is watched."""
    engine = runtime.engine
    contexts = engine.runtime.contexts.values()
    modes = runtime.watcher.modes()
    return {
        "pid": os.getpid(),
        "rig": engine.runtime.rig,
        "transfers": [
            {
                "analysis": p.analysis,
                "name": p.name,
                "direction": "up" if p.upload else "down",
                "done": p.done,
                "size": p.size,
                "rate": p.rate,
            }
            for p in runtime.progress()
        ],
        "troubles": [
            *([engine.config_trouble] if engine.config_trouble else []),
            *([runtime.nightly.trouble] if runtime.nightly.trouble else []),
            *(silence(disk) for disk in sorted(engine.silent)),
            *(f"{c.name}: {t}" for c in contexts for t in (c.paused, c.submits_blocked, c.results_trouble) if t),
            *(f"{c.name}: {t}" for c in contexts for t in c.tree_trouble.values()),
        ],
        "watching": {name: {"mode": mode.mode, "why": mode.why} for name, mode in modes.items()},
    }


@dataclass(frozen=True, slots=True)
class PassResult:
    """How a pass ended. `troubles` are of the environment (S3, disks), not of jobs."""

    finished: bool  # False: interrupted
    troubles: tuple[str, ...]


def run_pass(
    config: Config,
    *,
    wait: bool = False,
    each: Callable[[Running], None] = lambda _runtime: None,
    stop: Callable[[], bool] = lambda: False,
    crash: CrashPoint | None = None,
    patience: Patience | None = None,
) -> PassResult:
    """One pass: wait at most `settle` for what is found, upload what is whole, submit what is ready, look at every
    unfinished job once, fetch what has ended. With `wait`, until every job has ended or needs a person.

    `each` is called after every turn, for progress bars.
    """
    if not root_answers(config.root, stop, tell=notify, forever=False):
        return PassResult(False, ())
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(_put_up(config, crash or armed(), patience))
        engine = runtime.engine
        schedule: Schedule | None = None
        began = time.monotonic()
        with engine.runtime.transaction():
            for job in runtime.journal.jobs(unfinished=True):
                if job.phase is Phase.SUBMITTED:
                    runtime.journal.update_job(job.row, next_at=0.0)
        settle = max((c.settle for c in engine.runtime.contexts.values()), default=0.0)
        deadline: float | None = None
        pause = 0.0
        while not stop():
            engine.turn(min(pause, 0.2))
            runtime.pool.look()
            if schedule is not None:
                schedule.look()
            elif time.monotonic() - began > LASTS:
                schedule = scheduled(runtime)
                stack.callback(schedule.stop)
            each(runtime)
            pause = engine.wait_for()
            if deadline is None and engine.observer.scanned():
                deadline = time.monotonic() + settle + GRACE
            patient = deadline is None or time.monotonic() < deadline
            if engine.quiet(Waits(settling=patient or wait, unended=wait)):
                finished = True
                break
        else:
            finished = False
        _last_words(runtime)
        return PassResult(finished, tuple(live(runtime)["troubles"]))


def _last_words(runtime: Running) -> None:
    """Write the status files that are older than the journal's state. Those not written in time are written at the next
    start."""
    mailbox, names = runtime.engine.runtime.mailbox, list(runtime.engine.runtime.contexts)
    until = time.monotonic() + LAST_WORDS

    def finished(worker: str) -> None:
        while any(mailbox.busy(f"{worker}:{name}") for name in names) and time.monotonic() < until:
            mailbox.read(0.05)
        mailbox.read(0.0)  # the last result may have arrived after the last read

    runtime.engine.opener.look()  # stopped right after its start: existing files are read before they are overwritten
    finished("earlier")
    runtime.engine.reporter.turn(now=True)
    finished("status")
