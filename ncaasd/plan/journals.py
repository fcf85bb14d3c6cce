"""Whether a journal knows all that its rig has submitted, and which rig this is. Pure. See docs/exactly-once.md.

A journal that was restored from a backup, or is new on a rig that has had one, knows less than was done. The jobs of files
that it finds at its start may have been run and cleaned away in S3, so they are held where S3 shows no trace of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ncaasd.model import FileRow

FirstScan = Callable[[str], float]  # tree -> the last file's id in this journal's first scan; inf: not done yet


class Standing(StrEnum):
    NEW = "new"  # the first journal of this rig
    CURRENT = "current"
    REBUILT = "rebuilt"  # a new journal of a rig that has had one before
    BEHIND = "behind"  # an old copy of the rig's journal
    FOREIGN = "foreign"  # another journal has submitted jobs of this rig meanwhile, or it is another root's


@dataclass(frozen=True, slots=True)
class Memory:
    """What a journal remembers of one analysis."""

    opened: bool  # it has worked on the analysis before
    generation: str  # this journal's; empty when it was made by a version that had none
    submits: int  # begun by this generation
    others: Mapping[str, int]  # generation of another journal -> its submits, as last seen
    rigs: Sequence[str]  # the names of the rig under which this journal has worked; the last one is the newest


@dataclass(frozen=True, slots=True)
class Signs:
    """What S3 and the disk tell of earlier submits. `submits`: the rig's name -> generation -> submits."""

    known: bool  # the rig's marker is in S3
    submits: Mapping[str, Mapping[str, int]]
    root: str | None = None  # the rig's name in the root's own file; None: there is none, or the file wasn't read
    jobs: Collection[str] = ()  # ids of jobs that files here tell of, and that the journal doesn't know


@dataclass(frozen=True, slots=True)
class Verdict:
    standing: Standing
    why: str = ""  # for people

    @property
    def doubtful(self) -> bool:
        """What is found now may have been submitted without this journal's knowing it."""
        return self.standing not in (Standing.NEW, Standing.CURRENT)


def judge(memory: Memory, signs: Signs) -> Verdict:
    such = f", such as {min(signs.jobs)}" if signs.jobs else ""
    files_tell = f"results or status files here tell of submitted jobs that it does not know{such}"
    if not memory.opened:
        if signs.known or any(signs.submits.values()):
            return Verdict(Standing.REBUILT, "this journal is new, but its rig has been here before")
        return (
            Verdict(Standing.REBUILT, f"this journal is new, and {files_tell}") if signs.jobs else Verdict(Standing.NEW)
        )
    counts = [found.get(memory.generation, 0) for found in signs.submits.values()]
    most = max(counts, default=0)
    if most > memory.submits:
        text = f"this journal is older than what this rig has submitted (journal: {memory.submits} submits, S3: {most})"
        return Verdict(Standing.BEHIND, text)
    if signs.root is not None and signs.root not in memory.rigs:
        return Verdict(
            Standing.FOREIGN, f"this journal is of rig {memory.rigs[-1]}, and the root is of rig {signs.root}"
        )
    rig = memory.rigs[-1]  # under names that are new to it, or that it has given up, other journals are only noted
    for generation, count in signs.submits.get(rig, {}).items():
        before = memory.others.get(generation, 0)
        if generation != memory.generation and count > before:
            text = f"another journal of rig {rig} has begun {count - before} submits that this one does not know of"
            return Verdict(Standing.FOREIGN, f"{text} (have two machines this name? give each its own `rig:`)")
    if signs.jobs:
        return Verdict(Standing.BEHIND, f"this journal is older than what was done: {files_tell}")
    return Verdict(Standing.CURRENT)


def was_there(files: Sequence[FileRow], first_scan: FirstScan | None) -> bool:
    """Whether a job of these files (its recordings and its manifest) may have been submitted without this journal's knowing it.
    `first_scan` is None for a journal that knows of all."""
    return first_scan is not None and bool(files) and all(f.id <= first_scan(f.place.tree) for f in files)


def may_have_been_sent(
    job_id: str, files: Sequence[FileRow], first_scan: FirstScan | None, noted: Collection[str]
) -> bool:
    """Whether a job may have been submitted without this journal's knowing it: the journal's first scan found its files, or files
    here name a job of its id (`noted`), which had a recording of this name before. `files`: see `was_there`.
    """
    return first_scan is not None and (job_id in noted or was_there(files, first_scan))


def others_now(memory: Memory, signs: Signs, generation: str) -> dict[str, int]:
    """The submits of other journals, to be remembered from now on. `generation`: this journal's."""
    found = dict(memory.others)
    if memory.generation:
        found[memory.generation] = memory.submits
    for counts in signs.submits.values():
        for other, count in counts.items():
            found[other] = max(found.get(other, 0), count)
    found.pop(generation, None)
    return found


# -- the rig's name ------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_rig_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def rig_of(remembered: str | None, *, used: Sequence[str], worked: bool, host: str, letters: str) -> str:
    """The rig's name by the state, where the config gives none and neither does the root's own file, which comes first.

    `remembered`: from earlier starts; `used`: names under which this journal has worked; `worked`: whether it has, maybe in a
    version that named a rig after its host; `letters` make a new name unique.
    """
    if remembered:
        return remembered
    if used:
        return used[-1]
    return host if worked else new_name(host, letters)


def new_name(host: str, letters: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", host).lstrip("._-")[:80] or "rig"
    return f"{safe}-{letters}"
