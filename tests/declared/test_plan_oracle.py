"""The oracle of `plan`: whatever it says of a job, the daemon then does, and gives the same reason.

Rules, trees, configs and guards are drawn at random; `plan` looks at them before the daemon's first start, and again when
the daemon has done what it does by itself.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from declared_rig import DeclaredRig
from hypothesis import HealthCheck, event, given, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from test_plan import foreseen

from ncaasd.model import Hold, JobRow, JobState, Phase
from ncaasd.plan.planned_jobs import PlannedJob

PHASES = [
    stage for stage in Stage if stage is not Stage.explain
]  # takes half a minute, and tells less than the case does
TURNS = 40  # of 0.6 s: more than ten times `watch.settle`

SEARCH = os.environ.get("NCAASD_PLANS", "")  # so many cases, drawn anew
BY_NUMBER = (Hold.ACTIVE, Hold.DAY, Hold.CANARY)
NAMES = (
    "a.tif",
    "M7/1/a.tif",
    "M7/1/b.tif",
    "M7/1/cam1/video.tif",
    "M7/1/cam2/video.tif",
    "M7/1/notes.txt",
    "M7/1/DONE",
    "M7/1/ABORTED",
    "M7/2/a.tif",
    "M7/2/a (1).tif",
    "M8/1/Größe.tif",
    "M8/1/a b.tif",
    "M8/1/a_b.tif",
    "M8/1/empty.tif",
    "M8/1/DONE",
    "M9/1/link.tif",  # a symbolic link that leads nowhere that is allowed
    "M9/1/a.tif",
)
CONFIGS = {
    "c.yaml": "fr: 30\n",
    "M7.yaml": "who: M7\n",
    "broken.yaml": "fr: [30\n",
    "text.yaml": "only text\n",
    "c d.yaml": "fr: 31\n",
    "c_d.yaml": "fr: 32\n",
}

rule = st.fixed_dictionaries(
    {
        "datasets": st.sampled_from(["**/*.tif", "*.tif", "M7/**", "**/a*.tif", "**"]),
        "config": st.sampled_from([*["c.yaml"] * 8, *CONFIGS, "missing.yaml", "{animal}.yaml"]),
    },
    optional={
        "source": st.just("share"),
        "unit": st.sampled_from(["{animal}/{run}", "{animal}"]),
        "job_per": st.sampled_from(["unit", "dataset"]),
        "package": st.sampled_from(["none", "zip"]),
        "complete_when": st.just("DONE"),
        "abort_when": st.just("ABORTED"),
        "exclude": st.sampled_from(["**/b.tif", "**/link.tif", "**/empty.tif"]),
        "with": st.sampled_from(["notes.txt", "*.txt"]),
        "set": st.sampled_from([{"fr": 15}, {"__duration__": 60}, {"who": "{animal}"}]),
        "key": st.just("base"),
        "config_name": st.sampled_from(["config.yaml", "keep"]),
        "canary": st.integers(0, 2),
        "instance_type": st.just("p3.2xlarge"),
    },
)


def _possible(one: dict[str, Any]) -> dict[str, Any]:
    """What the manifest's own checks would refuse is left out: it never comes to a plan."""
    if "unit" not in one:
        for key in ("job_per", "package", "complete_when", "abort_when"):
            one.pop(key, None)
        if one.get("set", {}).get("who"):
            del one["set"]
        if "{" in one["config"]:
            one["config"] = "c.yaml"
    if one.get("package") == "zip":
        one.pop("job_per", None)
    return one


tree = st.lists(st.sampled_from(NAMES), unique=True).map(sorted)
one_off = st.fixed_dictionaries(
    {
        "datasets": st.lists(
            st.sampled_from([*NAMES[:5], "M8/1/a b.tif", "nowhere.tif", "M9/1/link.tif", "s3://other/data/a.tif"]),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        "config": st.sampled_from([*["c.yaml"] * 6, *CONFIGS, "missing.yaml", "s3://other/configs/c.yaml"]),
    },
    optional={"set": st.just({"fr": 2}), "resultpath": st.just("s3://other/out")},
)
guards = st.fixed_dictionaries(
    {},
    optional={
        "max_active": st.integers(1, 3),
        "max_per_day": st.integers(1, 3),
        "ask_above": st.integers(1, 3),
    },
)
upload = st.fixed_dictionaries({}, optional={"names": st.just("refuse"), "prefix": st.just("rig-a/")})


class World:
    """One drawn case, on a disk."""

    def __init__(self, folder: str) -> None:
        self.rig = DeclaredRig(Path(folder))
        self.elsewhere = Path(folder, "elsewhere.tif")
        self.elsewhere.write_bytes(b"on another disk")

    def write(
        self, trees: list[list[str]], configs: list[str], rules: list[dict[str, Any]], asked: list[dict[str, Any]]
    ) -> None:
        for area, names in zip((self.rig.home / "inputs", self.rig.source), trees, strict=True):
            for number, name in enumerate(names):
                path = area / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name.endswith("link.tif"):
                    path.symlink_to(self.elsewhere)
                else:
                    path.write_bytes(b"" if name.endswith(("empty.tif", "DONE", "ABORTED")) else name.encode())
                    os.utime(path, (1.7e9 + number, 1.7e9 + number))
        (self.rig.home / "configs/c.yaml").unlink()
        for name in configs:
            self.rig.write(f"configs/{name}", CONFIGS[name])
        if rules:
            self.rig.rules(*({"name": f"r{n}"} | r for n, r in enumerate(rules)))
        for number, job in enumerate(asked):
            self.rig.ask(f"asked{number}", **job)


def said(plan: str, why: str) -> tuple[str, str]:
    """For comparing: what only S3 can tell is added once it was asked; what is submitted needs no reason any more; a backlog's
    numbers are those of the moment when it was held; and of several files that are waited for, any two are named."""
    if "would start" in why:
        why = re.sub(r"\d+ (jobs|machines)", r"some \1", why)
    if why.startswith("waits for ") and why.count(" (") > 1:
        why = "waits for more than one"
    return plan, "" if plan == "submit" else why.replace(", nor in S3)", ")")


def done(job: JobRow) -> tuple[str, str]:
    if job.phase is not Phase.OPEN:
        return said("submit", "")
    words = {JobState.WAITING: "wait", JobState.HELD: "hold", JobState.READY: "queue"}
    return said(words[job.state], job.reason)


@settings(
    deadline=None,
    max_examples=int(SEARCH or 25),
    derandomize=not SEARCH,  # the same cases each time, unless more are searched for
    suppress_health_check=list(HealthCheck),
    phases=PHASES,
)
@given(
    trees=st.tuples(tree, tree).map(list),
    configs=st.lists(st.sampled_from(sorted(CONFIGS)), unique=True).map(lambda found: sorted({"c.yaml", *found})),
    rules=st.lists(rule.map(_possible), max_size=2),
    asked=st.lists(one_off, max_size=2),
    limits=guards,
    names_and_prefix=upload,
)
def test_what_plan_says_is_what_the_daemon_does(
    trees: list[list[str]],
    configs: list[str],
    rules: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    limits: dict[str, int],
    names_and_prefix: dict[str, str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        rig = world.rig
        rig.configure(jobs=limits, upload=names_and_prefix)
        world.write(trees, configs, rules, asked)
        first = foreseen(rig)
        if first.troubles:
            event("a manifest is refused")
            return
        rig.turns(TURNS)
        rig.clock.sleep(310)  # what nothing has woken is looked at every 5 minutes
        rig.turns(8)
        became = {(j.spec.name, j.spec.unit): done(j) for j in rig.jobs()}
        compare(first.previews[0].jobs, became)
        compare(foreseen(rig).previews[0].jobs, became)
        rig.rig.kill()


def compare(plans: Sequence[PlannedJob], became: dict[tuple[str, str], tuple[str, str]]) -> None:
    """Where only some of several may start, which ones these are hangs on whose upload ends first: then as many must have."""
    planned = {(j.spec.name, j.spec.unit): said("submit" if j.plan == "known" else j.plan, j.why) for j in plans}
    queueing = {(j.spec.name, j.spec.unit) for j in plans if j.guard in BY_NUMBER or "its turn" in j.why}
    for key in planned.keys() & became.keys():
        # What is of an aborted unit never goes up; that another file has its name may be what is said of it instead.
        if any("its unit was aborted" in why for _plan, why in (planned[key], became[key])):
            became[key] = became[key][0], planned[key][1]
    for (plan, _why), job in zip(planned.values(), plans, strict=True):
        event(f"{plan} {job.guard or ''}")
    if queueing:
        alike = queueing | {key for key, (plan, _why) in planned.items() if plan == "submit"}
        assert {plan for key, (plan, _why) in became.items() if key in alike} <= {"submit", "queue", "hold", "wait"}
        if all(len(j.spec.datasets) == 1 for j in plans):
            assert Counter(planned[key][0] for key in alike) == Counter(
                became[key][0] for key in alike if key in became
            )
        planned = {key: what for key, what in planned.items() if key not in alike}
        became = {key: what for key, what in became.items() if key not in alike}
    assert planned == became
