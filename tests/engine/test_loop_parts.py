"""What each part says of each kind of work: when it is due, whether it is under way, and whether a pass goes on for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import pytest
from engine.lab import Lab
from state_machine.inline_rig import BUCKET, GROUP

from ncaasd.engine import loop
from ncaasd.engine.arriving.packaging import _Order
from ncaasd.engine.arriving.uploading import QUEUED
from ncaasd.engine.core.part import Part, Waits
from ncaasd.engine.core.runtime import Context
from ncaasd.engine.loop import Engine
from ncaasd.model import (
    DownloadTask,
    FileRow,
    FileState,
    JobSpec,
    JobState,
    Origin,
    Phase,
    Place,
    Stat,
    UploadTask,
)

SETTLE, RESCAN, REST, HOUR = 10.0, 7200.0, 60.0, 3600.0
NOW = -1.0  # 0 or less
EVERY_WAIT = [Waits(settling, unended) for settling, unended in product((False, True), repeat=2)]
RULE = b'{"rules": [{"name": "units", "unit": "{animal}", "datasets": "*.tif", "config": "c.yaml", "package": "zip"}]}'
UPLOAD = UploadTask(0, BUCKET, "/nowhere", Stat(1, 1, 1, 1), f"{GROUP}/inputs/x.tif", 1 << 23)
DOWNLOAD = DownloadTask(0, BUCKET, BUCKET, f"{GROUP}/results/x", 1, "etag", "job__x", "x")


@dataclass
class Setting:
    """A lab at rest, whose parts are looked at one by one: no turn of the loop comes between."""

    lab: Lab

    @property
    def engine(self) -> Engine:
        assert self.lab.rig.engine is not None
        return self.lab.rig.engine

    @property
    def context(self) -> Context:
        return self.engine.runtime.contexts[BUCKET]

    @property
    def now(self) -> float:
        return self.lab.clock.now()

    @property
    def monotonic(self) -> float:
        return self.lab.clock.monotonic()

    def config(self) -> FileRow:
        row = self.lab.rig.journal.file_at(Place(BUCKET, "", "configs/c.yaml"))
        assert row is not None
        return row

    def file(self, retry: float = 0.0) -> None:
        """A whole file that is to be uploaded; tried again in so many seconds."""
        with self.engine.runtime.transaction():
            journal, retry_at = self.lab.rig.journal, self.now + retry if retry else 0.0
            journal.set_file(self.config().id, FileState.WHOLE, "", self.now, retry_at=retry_at)

    def job(self, phase: Phase, state: JobState, *, seconds: float = 60.0, **fields: object) -> int:
        """A job that is looked at in so many seconds."""
        spec = JobSpec(
            analysis=BUCKET,
            name="job",
            unit="a.tif",
            version="",
            origin=Origin.MANIFEST,
            declared_in="submissions/job.yaml",
            datasets=(),
            config="c.yaml",
        )
        journal = self.lab.rig.journal
        with self.engine.runtime.transaction():
            row = journal.add_job(spec, 0, self.now)
            journal.update_job(row, phase=phase, state=state, next_at=self.now + seconds, **fields)
        return row

    def pause_analysis(self, seconds: float) -> None:
        self.context.paused, self.context.paused_until = "S3 says no", self.now + seconds

    def settling(self) -> None:
        self.lab.drop_inputs("new.tif")
        self.engine.observer.hint(BUCKET, "", "inputs/new.tif")
        self.engine.observer.turn()
        self.engine.runtime.mailbox.read(0.0)

    def rule(self) -> None:
        self.context.rules["manifest.yaml"] = self.engine.declarer.parse(self.context, "manifest.yaml", RULE).rules

    def package(self, seconds: float, *, building: bool = False) -> None:
        self.rule()
        (matcher,) = self.context.rules["manifest.yaml"]
        self.engine.packager._orders[7] = _Order(self.context, matcher, "M7", self.now + seconds)
        if building:
            self.engine.packager._building.add(7)

    def fetch_all(self) -> None:
        settings = self.context.settings
        results = settings.results.model_copy(update={"fetch": "all"})
        self.context.settings = settings.model_copy(update={"results": results})

    def afterwards(self, seconds: float = 0.0) -> int:
        row = self.job(Phase.ENDED, JobState.DONE, verdict=JobState.DONE)
        with self.engine.runtime.transaction():
            self.lab.rig.journal.want_after_step(row, "local inputs")
            self.lab.rig.journal.set_after_step(row, "local inputs", "wanted", "", retry_at=self.now + seconds)
        return row


@pytest.fixture
def setting(new_lab: Callable[..., Lab]) -> Setting:
    lab = new_lab(watch={"settle": f"{SETTLE:.0f}s", "rescan": f"{RESCAN:.0f}s"})
    lab.pass_time(REST)
    made = Setting(lab)
    assert made.engine.quiet(Waits(settling=True, unended=True)), (
        "the first config is in S3, and nothing else is wanted"
    )
    return made


# -- how each kind of work comes about


def scan_is_due(s: Setting) -> None:
    s.engine.observer.rescan_all()


def not_scanned(s: Setting) -> None:
    s.engine.observer.trees[BUCKET, ""].scans = 0


def scanning(s: Setting) -> None:
    s.engine.observer.rescan_all()
    s.engine.observer.turn()


def found(s: Setting) -> None:
    s.engine.observer.trees[BUCKET, ""].news = iter(())


def hinted(s: Setting) -> None:
    s.engine.observer.hint(BUCKET, "", "inputs/new.tif")


def settling_where_nothing_answers(s: Setting) -> None:
    s.settling()
    s.context.tree_trouble[""] = "its mount hangs"


def reading(s: Setting) -> None:
    with s.engine.runtime.transaction():
        s.engine.declarer.whole(s.context, s.config())


def unread(s: Setting) -> None:
    s.engine.declarer._read_later((BUCKET, "configs/c.yaml"))


def pausing(s: Setting) -> None:
    """Of a rule without a gate: `whole_after` is ten times `settle`, and a file that is whole has been quiet for once."""
    s.rule()
    s.engine.pauses.changed(s.context, replace(s.config(), place=Place(BUCKET, "", "inputs/M7/a.tif")))


def not_open(s: Setting) -> None:
    s.context.opened = False


def opening(s: Setting) -> None:
    not_open(s)
    s.engine.opener._opening.add(BUCKET)


def refused_to_open(s: Setting) -> None:
    not_open(s)
    s.pause_analysis(60)


def opening_again(s: Setting) -> None:
    refused_to_open(s)
    opening(s)


def file_of_a_paused_analysis(s: Setting) -> None:
    s.file()
    s.pause_analysis(60)


def uploading(s: Setting) -> None:
    s.file()
    s.engine.uploader.turn()


def uploads(s: Setting, count: int) -> None:
    """So many under way, and one more that is due."""
    s.file()
    s.engine.uploader._under_way.update(dict.fromkeys(range(1000, 1000 + count), UPLOAD))
    s.engine.uploader._next = s.monotonic + 0.15


def job_of_a_paused_analysis(s: Setting) -> None:
    s.job(Phase.SUBMITTED, JobState.RUNNING, seconds=-1)
    s.pause_analysis(60)


def job_under_way(s: Setting) -> None:
    s.engine.jobs._busy.add(s.job(Phase.SUBMITTED, JobState.RUNNING))


def ended(s: Setting, verdict: JobState, ago: float, trouble: str = "") -> None:
    state = JobState.FETCHING if verdict is JobState.DONE else verdict
    s.job(Phase.SUBMITTED, state, verdict=verdict, ended=s.now - ago)
    s.context.results_trouble = trouble


def listed(s: Setting) -> None:
    s.fetch_all()
    s.engine.jobs.elsewhere._next[BUCKET] = s.monotonic + 40


def listing(s: Setting) -> None:
    s.fetch_all()
    s.engine.jobs.elsewhere.turn()


def downloading(s: Setting) -> None:
    s.engine.fetcher._under_way[7] = DOWNLOAD


def checking(s: Setting, since: float = 0.0) -> None:
    s.engine.fetcher._checking[7] = BUCKET
    s.engine.fetcher._asked[BUCKET] = s.monotonic - since


def finishing(s: Setting) -> None:
    s.engine.fetcher._finishing[7] = BUCKET


def afterwards_under_way(s: Setting) -> None:
    s.engine.afterwards._busy.add(s.afterwards())


def units_were_looked_at(s: Setting) -> None:
    s.lab.clock.sleep(60)
    s.engine.units.turn()


def to_report(s: Setting) -> None:
    s.engine.reporter._next = s.monotonic + 0.4
    s.engine.declarer.changed.add((BUCKET, "submissions/job.yaml"))


def refused_report(s: Setting) -> None:
    s.engine.reporter._retry = s.monotonic + 50
    s.engine.reporter._unwritten[BUCKET, "submissions/job.status.json"] = b"{}"


ALWAYS, SETTLING, UNENDED, NEVER = "always", "settling", "unended", ""
Arranged = Callable[[Setting], object]
# Work, whose it is, seconds until it is due, whether it is under way, which passes go on for it though it isn't.
WORK: list[tuple[str, Arranged, str, float | None, bool, str]] = [
    ("nothing", lambda s: None, "sessions", None, False, NEVER),
    ("a scan is due", scan_is_due, "observer", NOW, False, NEVER),
    ("no scan yet", not_scanned, "observer", None, True, NEVER),
    ("scanning", scanning, "observer", None, True, NEVER),
    ("found by a scan", found, "observer", NOW, True, NEVER),
    ("hinted", hinted, "observer", NOW, True, NEVER),
    ("settling", Setting.settling, "observer", SETTLE, False, SETTLING),
    ("settling, hangs", settling_where_nothing_answers, "observer", SETTLE, False, NEVER),
    ("a config is read", reading, "declarer", None, True, NEVER),
    ("to be read again", unread, "declarer", 5.0, False, NEVER),
    ("a unit may grow", pausing, "pauses", 9 * SETTLE, False, UNENDED),
    ("not open", not_open, "opener", NOW, True, NEVER),
    ("opening", opening, "opener", None, True, NEVER),
    ("refused to open", refused_to_open, "opener", 60, False, NEVER),
    ("opening again", opening_again, "opener", None, True, NEVER),
    ("a package is due", partial(Setting.package, seconds=-1), "packager", NOW, True, NEVER),
    ("a package put off", partial(Setting.package, seconds=60), "packager", 60, False, NEVER),
    ("building", partial(Setting.package, seconds=-1, building=True), "packager", None, True, NEVER),
    ("a file is due", Setting.file, "uploader", NOW, False, ALWAYS),
    ("a file put off", partial(Setting.file, retry=60), "uploader", 60, False, NEVER),
    ("a file, paused", file_of_a_paused_analysis, "uploader", None, False, NEVER),
    ("uploading", uploading, "uploader", None, True, NEVER),
    ("little room", partial(uploads, count=QUEUED - 1), "uploader", 0.15, True, ALWAYS),
    ("no room", partial(uploads, count=QUEUED), "uploader", None, True, ALWAYS),
    ("a job is due", lambda s: s.job(Phase.OPEN, JobState.WAITING, seconds=-1), "jobs", NOW, False, ALWAYS),
    ("a job waits", lambda s: s.job(Phase.OPEN, JobState.WAITING), "jobs", 60, False, NEVER),
    ("a job queues", lambda s: s.job(Phase.OPEN, JobState.READY), "jobs", 60, False, UNENDED),
    (
        "a job is held",
        lambda s: s.job(Phase.OPEN, JobState.HELD, hold="person", seconds=1e15),
        "jobs",
        None,
        False,
        NEVER,
    ),
    ("a job, intended", lambda s: s.job(Phase.INTENT, JobState.READY), "jobs", 60, False, UNENDED),
    ("a job runs", lambda s: s.job(Phase.SUBMITTED, JobState.RUNNING), "jobs", 60, False, UNENDED),
    ("a job, paused", job_of_a_paused_analysis, "jobs", NOW, False, NEVER),
    ("a job under way", job_under_way, "jobs", None, True, UNENDED),
    ("done long ago", partial(ended, verdict=JobState.DONE, ago=HOUR), "jobs", 60, False, ALWAYS),
    ("failed just now", partial(ended, verdict=JobState.FAILED, ago=200), "jobs", 60, False, ALWAYS),
    ("failed, maybe", partial(ended, verdict=JobState.FAILED, ago=400), "jobs", 60, False, UNENDED),
    ("done, no share", partial(ended, verdict=JobState.DONE, ago=0, trouble="away"), "jobs", 60, False, UNENDED),
    ("never listed", Setting.fetch_all, "jobs", NOW, True, NEVER),
    ("listed", listed, "jobs", 40, False, NEVER),
    ("listing", listing, "jobs", None, True, NEVER),
    ("downloading", downloading, "fetcher", None, True, NEVER),
    ("results checked", checking, "fetcher", None, True, NEVER),
    ("results hang", partial(checking, since=100), "fetcher", None, False, NEVER),
    ("job.json written", finishing, "fetcher", None, True, NEVER),
    ("afterwards is due", Setting.afterwards, "afterwards", None, False, ALWAYS),
    ("afterwards put off", partial(Setting.afterwards, seconds=60), "afterwards", None, False, NEVER),
    ("afterwards goes on", afterwards_under_way, "afterwards", None, True, NEVER),
    ("units looked at", units_were_looked_at, "units", 5.0, False, NEVER),
    ("to be reported", to_report, "reporter", 0.4, False, NEVER),
    ("report refused", refused_report, "reporter", 50, False, NEVER),
]


def said(due: float | None) -> float | None:
    """As the table has it: what is as far off as `NEVER` (1e15) is not due at all."""
    if due is None or due > 1e9:
        return None
    return NOW if due <= 0 else due


@pytest.mark.parametrize(("arrange", "name", "due", "busy", "pending"), [w[1:] for w in WORK], ids=[w[0] for w in WORK])
def test_what_a_part_says_of_its_work(
    setting: Setting, arrange: Arranged, name: str, due: float | None, busy: bool, pending: str
) -> None:
    arrange(setting)
    part: Part = getattr(setting.engine, name)
    assert said(part.due()) == (due if due is None else pytest.approx(due, abs=1e-3))
    assert part.busy() is busy
    goes_on = {w for w in EVERY_WAIT if pending == ALWAYS or (pending and getattr(w, pending))}
    assert {w for w in EVERY_WAIT if part.pending(w)} == goes_on
    for other in setting.engine.parts:
        assert other is part or not (other.busy() or any(other.pending(w) for w in EVERY_WAIT)), (
            "it is of one part alone"
        )
    assert {w for w in EVERY_WAIT if not setting.engine.quiet(w)} == (set(EVERY_WAIT) if busy else goes_on)


def test_the_loop_has_all_parts(setting: Setting) -> None:
    made = {id(value) for value in vars(setting.engine).values() if Part in type(value).__mro__}
    assert made == {id(part) for part in setting.engine.parts}
    assert {name for _work, _arrange, name, *_ in WORK} == {
        name for name, value in vars(setting.engine).items() if id(value) in made
    }


class Says(Part):
    def __init__(self, due: float | None, turns: list[float | None]) -> None:
        self._due, self._turns = due, turns

    def turn(self) -> None:
        self._turns.append(self._due)

    def due(self) -> float | None:
        return self._due

    def busy(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("dues", "wait"),
    [
        ((), loop.LONGEST_WAIT),
        ((None, None), loop.LONGEST_WAIT),
        ((9.0, 1e15), loop.LONGEST_WAIT),
        ((3.0, None, 0.5, 1.0), 0.5),
        ((3.0, 0.001), 0.02),
        ((0.0,), 0.02),
        ((2.0, -1e9), 0.02),
    ],
)
def test_the_loop_waits_for_what_is_due_first(setting: Setting, dues: tuple[float | None, ...], wait: float) -> None:
    turns: list[float | None] = []
    setting.engine.parts = tuple(Says(due, turns) for due in dues)
    assert setting.engine.wait_for() == wait
    setting.engine.turn(0.0)
    assert turns == list(dues), "and each has its turn, in order"


def test_F83_a_clock_that_was_put_back_keeps_nothing_waiting(setting: Setting) -> None:
    setting.job(Phase.SUBMITTED, JobState.RUNNING)
    setting.lab.clock.wall -= 10 * HOUR
    due = setting.engine.jobs.due()
    assert due is not None and due > HOUR
    assert setting.engine.wait_for() <= loop.LONGEST_WAIT
    setting.lab.clock.sleep(loop.LONGEST_WAIT)
    jobs_turn, said_then = setting.engine.jobs.turn, []

    def turn() -> None:
        said_then.append(setting.engine.jobs.due())
        jobs_turn()

    setting.engine.jobs.turn = turn  # type: ignore[method-assign]  # to look in the midst of a turn
    setting.engine.turn(0.0)
    assert said_then[0] is not None and said_then[0] <= 0
