"""The kinds of hold: what each is about, what goes on meanwhile, what ends it, and when its job is looked at again. Pure.

One table, which the journal's rows, `status`, `job` and the commands use, and which `python -m ncaasd.plan.holds` prints. A test
keeps the copy in docs/jobs.md equal to what this prints.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ncaasd.model import Hold, JobRow, Origin


class Ends(StrEnum):
    """What ends a hold."""

    RELEASE = "`ncaasd release`"
    RERUN = "`ncaasd rerun`"
    FORGET = "`ncaasd forget`"
    MENDING = "a person mends it"  # then it ends by itself: there is nothing to release
    TIME = "time"  # it ends by itself


class Again(StrEnum):
    """When a held job is looked at again by itself."""

    NEVER = "no"
    CHANGE = "when a file of it or its unit changes"
    SOON = "every 30 s"
    NOW_AND_THEN = "every 5 min"
    IN_S3 = "when S3 is asked again"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table."""

    means: str
    meanwhile: str
    ends: Ends
    again: Again
    of: str = "the job"  # of the rule: it concerns all jobs of it, so a person decides on all of them at once

    @property
    def of_rule(self) -> bool:
        return self.of == _RULE


_RULE, _ANALYSIS = "the rule", "the analysis"
_REST = "all other jobs"
_OTHER_RULES = "jobs of other rules"

HOLDS: Mapping[Hold, Kind] = {
    Hold.PERSON: Kind("`ncaasd hold` was said", _REST, Ends.RELEASE, Again.NEVER),
    Hold.BACKLOG: Kind(
        "its rule would start more machines at once than `jobs.ask_above`",
        _OTHER_RULES,
        Ends.RELEASE,
        Again.NEVER,
        _RULE,
    ),
    Hold.BUDGET: Kind(
        "the last job of its rule was refused for the budget", _OTHER_RULES, Ends.RELEASE, Again.NEVER, _RULE
    ),
    Hold.FAILURES: Kind(
        "`jobs.stop_after_failures` jobs of its rule failed in a row",
        _OTHER_RULES,
        Ends.RELEASE,
        Again.NEVER,
        _RULE,
    ),
    Hold.CANARY: Kind(
        "the first jobs of its rule (`canary`) are not done; a person is asked only when one failed",
        "the canaries, and jobs of other rules",
        Ends.RELEASE,
        Again.SOON,
        _RULE,
    ),
    Hold.DAY: Kind(
        "`jobs.max_per_day` machines were started in the last 24 h", "what runs", Ends.TIME, Again.SOON, _ANALYSIS
    ),
    Hold.ACTIVE: Kind(
        "`jobs.max_active` machines run: it queues, and is shown as ready",
        "what runs",
        Ends.TIME,
        Again.SOON,
        _ANALYSIS,
    ),
    Hold.PART: Kind(
        "a part of its unit, or its dataset, can't be taken: a link, a folder or file that can't be read",
        _REST,
        Ends.MENDING,
        Again.CHANGE,
    ),
    Hold.RENAMED: Kind("its data was analysed already, under another name", _REST, Ends.RELEASE, Again.NEVER),
    Hold.COPY: Kind("its data is a copy, by its name", _REST, Ends.RELEASE, Again.NEVER),
    Hold.ZEROS: Kind(
        "its data is nothing but zeros; written anew, it goes on by itself", _REST, Ends.RELEASE, Again.CHANGE
    ),
    Hold.FOREIGN: Kind(
        "its name in S3 is another submit file's, or its config's name another config's",
        _REST,
        Ends.RERUN,
        Again.NOW_AND_THEN,
    ),
    Hold.REPLACED: Kind("its dataset in S3 is not what this rig put there", _REST, Ends.RERUN, Again.NOW_AND_THEN),
    Hold.CONFIG: Kind(
        "under its config's name (`config_name`) is one that this rig did not put", _REST, Ends.RELEASE, Again.NEVER
    ),
    Hold.UNSEEN: Kind("its data is in a bucket that this key may not list", _REST, Ends.RELEASE, Again.NEVER),
    Hold.SAME: Kind("another declaration comes to the very same job", _REST, Ends.FORGET, Again.NEVER),
    Hold.REBUILT: Kind(
        "this journal may not know that it was submitted, and S3 shows no trace of it", _REST, Ends.RELEASE, Again.NEVER
    ),
    Hold.UNSURE: Kind(
        "its submit file may have been sent more than 24 h ago, and S3 shows no trace of it",
        _REST,
        Ends.RELEASE,
        Again.NEVER,
    ),
}

# In `JobRow.released`, though no kind of hold: a person chose the job's config, so the job follows no edit of its rule.
OWN_CONFIG = "declaration"
# Holds for a job's data: such a job is not about to start, so it doesn't count in a backlog; and its reason names a file.
OF_THE_DATA = frozenset({Hold.RENAMED, Hold.COPY, Hold.ZEROS})


def is_mended(hold: Hold | None) -> bool:
    """Whether the hold ends by itself once a person has mended what is wrong; it is then assessed anew at each look."""
    return hold is not None and HOLDS[hold].ends is Ends.MENDING


def asks_a_person(hold: Hold | None) -> bool:
    """Whether the job goes on only after a person's command."""
    return hold is not None and HOLDS[hold].ends not in (Ends.MENDING, Ends.TIME)


def can_be_released(hold: Hold) -> bool:
    return HOLDS[hold].ends is Ends.RELEASE


def released_before(job: JobRow, hold: Hold | None) -> frozenset[str]:
    """What `job` stays released from when it gets `hold`: being held again uses up an earlier release."""
    return job.released if hold is None else job.released - {hold}


def command(job: JobRow, *, hold: Hold | None = None, who: str = "", all_alike: bool = False) -> str:
    """What a person types to end `job`'s hold (or the one that it is about to have); "" where nothing is to be typed.

    who: how the command names the job, else its id, unit or name. all_alike: for all jobs of its name that are held so.
    """
    kind = hold or job.hold
    if kind is None or not asks_a_person(kind):
        return ""
    verb = HOLDS[kind].ends.value.strip("`")
    if all_alike or (not who and HOLDS[kind].of_rule and job.spec.origin is Origin.RULE):
        return f"{verb} --rule {shlex.quote(job.spec.name)}"
    who = who or job.job_id or shlex.quote(job.spec.unit if job.spec.origin is Origin.RULE else job.spec.name)
    return f"{verb} {who}"


def with_way_on(reason: str, hold: Hold, job: JobRow) -> str:
    """The reason of a hold, with the command that ends it and its effect."""
    said = f"`{command(job, hold=hold)}`"
    match hold:
        case _ if not asks_a_person(hold):
            return reason
        case Hold.FOREIGN | Hold.REPLACED:
            way = f"{said} submits it under a new id"
        case Hold.UNSEEN:
            way = f"{said} submits it all the same, if NeuroCAAS may read it"
        case Hold.RENAMED | Hold.COPY | Hold.ZEROS:
            way = f"{said} runs it all the same (`forget` leaves it)"
        case Hold.SAME:
            way = f"it is made anew under another name; {said} leaves it"
        case _ if HOLDS[hold].of_rule and job.spec.origin is Origin.RULE:
            way = f"{said} lets the rule's jobs go on"
        case _:
            way = f"{said} lets it go on"
    return f"{reason}; {way}"


def table(kinds: Iterable[Hold] = Hold) -> str:
    """The kinds of hold as a Markdown table."""
    lines = ["| hold | when | of | what goes on | what ends it | looked at again |", "|---|---|---|---|---|---|"]
    for hold in kinds:
        kind = HOLDS[hold]
        lines.append(f"| {hold} | {kind.means} | {kind.of} | {kind.meanwhile} | {kind.ends} | {kind.again} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
