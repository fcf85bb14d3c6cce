"""Which files a rule means, which of them belong together (a unit), and what a unit still lacks. Pure.

Paths are below `inputs/`, or below the rule's source; names are below the unit, where the rule has units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ncaasd.declare.manifest import Rule
from ncaasd.model import Dataset, FileRow, FileState, JobRow, JobSpec, Origin, Phase, Place
from ncaasd.plan.files import found_by_itself
from ncaasd.plan.matching import UnitTemplate, compile_glob

THERE = (FileState.WHOLE, FileState.STORED, FileState.HELD, FileState.REFUSED, FileState.READ)
_NEEDS_NOTHING = (FileState.STORED, FileState.READ, FileState.SKIPPED, FileState.GONE)  # nothing to upload
WHOLE_AFTER = 10  # times `watch.settle`: how long a unit without a gate must be left alone


@dataclass(frozen=True, slots=True)
class Matcher:
    """A rule made ready for matching. Paths are below `inputs/`, or below the rule's source."""

    rule: Rule
    datasets: tuple[Callable[[str], bool], ...]
    exclude: tuple[Callable[[str], bool], ...]
    unit: UnitTemplate | None
    complete_when: tuple[Callable[[str], bool], ...]
    abort_when: tuple[Callable[[str], bool], ...]
    beside: tuple[Callable[[str], bool], ...] | None = None  # of `with`; None: all of the unit

    @property
    def packs(self) -> bool:
        """Whether a unit is made into one file, which is then the dataset."""
        return self.rule.package != "none"

    @property
    def gated(self) -> bool:
        """Whether nothing of a unit goes up before the unit is whole."""
        return bool(self.complete_when or self.abort_when)

    def whole_after(self, settle: float) -> float:
        """Seconds for which nothing in a unit must have changed before it is packed or submitted."""
        if self.unit is None:
            return 0.0
        if self.rule.whole_after is not None:
            return self.rule.whole_after
        return 0.0 if self.complete_when else WHOLE_AFTER * settle

    def is_dataset(self, name: str) -> bool:
        """Whether a name below the unit (below `inputs/` or the source, without a unit) is one of the rule's datasets."""
        return any(m(name) for m in self.datasets) and not self.leaves_out(name)

    def leaves_out(self, name: str) -> bool:
        """Whether the rule excludes a name. A folder (its name ends in "/") is excluded when all that could be in it is."""
        if name.endswith("/"):
            return any(m(name[:-1]) or m(f"{name}-") for m in self.exclude)
        return any(m(name) for m in self.exclude)

    def accompanies(self, path: str) -> bool:
        """Whether the rule's `with` names a path, so that the file is uploaded though it is no dataset."""
        name = self.name_of(path)
        return bool(self.beside) and name is not None and any(m(name) for m in self.beside or ())

    def needs(self, name: str) -> bool:
        """Whether the file of this name must be in S3, by itself, before a job of the unit is submitted: a worker may read what
        lies beside its dataset. Without `with` these are all files of the unit that are uploaded (of a source, its datasets)."""
        if self.leaves_out(name) or (self.packs and self.is_dataset(name)):
            return False
        if self.beside is not None:
            return any(m(name) for m in self.beside)
        return self.is_dataset(name) if self.rule.source else True

    def lacks(self, name: str) -> bool:
        """Whether a unit is incomplete because the link, file or folder of this name can't be taken."""
        if self.leaves_out(name):
            return False
        return name.endswith("/") or self.is_dataset(name) or self.needs(name)

    def name_of(self, path: str) -> str | None:
        """A path as the rule's patterns see it; None when the rule has units and the path lies in none."""
        if self.unit is None:
            return path
        found = self.unit.match(path)
        return None if found is None else path[len(found[0]) + 1 :]

    def unit_of(self, path: str) -> tuple[str, Mapping[str, str]] | None:
        """The unit's folder and the parts of its name; None when the path lies in no unit of this rule."""
        return self.unit.match(path) if self.unit else None

    def wants(self, path: str) -> bool:
        """Whether a path is one of the rule's datasets (globs are below the unit when there is one)."""
        name = self.name_of(path)
        return name is not None and self.is_dataset(name)

    def marks(self, name: str) -> bool:
        """Whether a name below the unit marks the unit as whole or aborted: such a file may be empty."""
        return any(m(name) for m in (*self.complete_when, *self.abort_when))


def matcher(rule: Rule) -> Matcher:
    def globs(patterns: Iterable[str]) -> tuple[Callable[[str], bool], ...]:
        return tuple(compile_glob(p) for p in patterns)

    return Matcher(
        rule,
        globs(rule.datasets),
        globs(rule.exclude),
        UnitTemplate(rule.unit) if rule.unit else None,
        globs(rule.complete_when),
        globs(rule.abort_when),
        None if rule.beside is None else globs(rule.beside),
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What keeps a job from its submit besides its own datasets and config.

    `lacking`: what can't be taken, so that a person must mend it; `unit`: why its unit is not whole; `files`: the first few
    that are not in S3 yet.
    """

    lacking: str = ""
    unit: str = ""
    files: tuple[FileRow, ...] = ()


@dataclass(slots=True)
class Unit:
    """A folder whose files belong together, as one rule sees it. Paths are below `inputs/` or the source.

    Each of its files asks about the whole unit, so answers are cached until `put` makes them wrong. For a rule without units
    that names other files (`with`), those files are one unit with the path "".
    """

    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: dict[str, FileRow] = field(default_factory=dict)  # by path below the unit
    _missing: str | None = field(default=None, repr=False, compare=False)
    _aborted: str | None = field(default=None, repr=False, compare=False)
    _members: list[tuple[str, FileRow]] | None = field(default=None, repr=False, compare=False)
    _skipped: str | None = field(default=None, repr=False, compare=False)
    _to_store: dict[str, FileRow] | None = field(default=None, repr=False, compare=False)

    def put(self, name: str, row: FileRow) -> bool:
        """Enter a new or changed file. True when the unit's answers may be different now."""
        old = self.files.get(name)
        self.files[name] = row
        self._members = None
        if self._to_store is not None:
            self._to_store.pop(name, None)
            if row.state not in _NEEDS_NOTHING:
                self._to_store[name] = row
        if old is not None and _counts(old) == _counts(row) and old.stat == row.stat and old.key == row.key:
            return False
        self._missing = self._aborted = self._skipped = None
        return True

    @property
    def shown(self) -> str:
        return self.path or "inputs/"

    def missing(self, m: Matcher) -> str:
        """What the unit still waits for, for people; "" when it is whole."""
        if self._missing is None:
            self._missing = self._lacking(m) or self._unsettled()
        return self._missing

    def _lacking(self, m: Matcher) -> str:
        lacking = [
            p
            for p, matches in (
                *zip(m.rule.complete_when, m.complete_when, strict=True),
                *zip(m.rule.beside or (), m.beside or (), strict=True),
            )
            if not any(matches(name) for name, row in self.files.items() if row.state in THERE)
        ]
        return f"waits for {', '.join(lacking)} in {self.shown}" if lacking else ""

    def _unsettled(self) -> str:
        first = min((name for name, row in self.files.items() if row.state is FileState.SETTLING), default="")
        return f"waits until {first} in {self.shown} is whole" if first else ""

    def skipped(self, m: Matcher) -> str:
        """The parts of the unit that can't be taken though the rule needs them, for people; "" when there are none."""
        if self._skipped is None:
            parts = sorted(n for n, r in self.files.items() if r.state is FileState.SKIPPED and m.lacks(n))
            self._skipped = _lacking(parts, self.files[parts[0]].reason, self.path) if parts else ""
        return self._skipped

    def to_store(self, m: Matcher) -> Iterator[FileRow]:
        """The files that must be in S3 before a job of the unit is submitted, and aren't. `put` updates the set, so that it is
        not searched for again for each file that is stored."""
        if self._to_store is None:
            self._to_store = {n: r for n, r in self.files.items() if r.state not in _NEEDS_NOTHING}
        return (r for n, r in self._to_store.items() if m.needs(n))

    def aborted(self, m: Matcher) -> str:
        """The file that marks the unit as aborted; "" when there is none."""
        if self._aborted is None:
            there = (n for n, r in self.files.items() if r.state is not FileState.GONE) if m.abort_when else ()
            self._aborted = next((n for n in there if any(a(n) for a in m.abort_when)), "")
        return self._aborted

    def members(self, m: Matcher) -> list[tuple[str, FileRow]]:
        """The rule's datasets in the unit, by their path below it, in order."""
        if self._members is None:
            self._members = [
                (n, r)
                for n, r in sorted(self.files.items())
                if (r.state in THERE or (r.state is FileState.SKIPPED and not n.endswith("/"))) and m.is_dataset(n)
            ]
        return self._members


_COUNTS = {FileState.GONE: 0, FileState.SETTLING: 1, FileState.SKIPPED: 3}


def hollow(m: Matcher, members: Iterable[tuple[str, FileRow]]) -> str:
    """The first of a unit's datasets that is empty, so that it has no data yet; "" when there is none. Marks may be empty."""
    return next((n for n, r in members if r.stat.size == 0 and r.state is not FileState.SKIPPED and not m.marks(n)), "")


def is_nothing(row: FileRow) -> bool:
    """Whether a row is no dataset, whatever its name: an empty file, or a folder that can't be looked into."""
    return row.place.path.endswith("/") or (row.stat.size == 0 and row.state is not FileState.SKIPPED)


def say_hollow(unit: Unit, name: str) -> str:
    """What a unit's package waits for, for people."""
    return f"{unit.path}/{name} is empty: write into it or delete it, or name it in the rule's `exclude`"


def _counts(row: FileRow) -> int:
    """What a file counts as in its unit: gone, being written, there, or skipped."""
    return _COUNTS.get(row.state, 2)


def _lacking(parts: Sequence[str], reason: str, folder: str) -> str:
    """The sentence for a unit that lacks these parts; `reason` is why the first of them can't be taken."""
    shown = f"{folder}/{parts[0]}" if folder else parts[0]
    more = f"; and {len(parts) - 1} more of it can't be taken" if len(parts) > 1 else ""
    return f"{shown} can't be taken: {reason}{more}"


def beside(m: Matcher, unit: Unit, pause: str, goes: Callable[[FileRow], bool]) -> Beside:
    """What keeps the jobs of a unit from their submit. `pause`: why the unit may still grow, or ""; `goes`: whether a file of
    the unit is ever uploaded by itself."""
    lacking = unit.skipped(m)
    if lacking:
        return Beside(lacking=lacking)
    waits = unit.missing(m) or pause
    if waits:
        return Beside(unit=f"{unit.shown} to be whole: it {waits}")
    return Beside(files=tuple(islice((r for r in unit.to_store(m) if goes(r)), 2)))


def unit_of_job(m: Matcher, spec: JobSpec) -> str:
    """The folder of the unit that a rule's job is about; "" for a rule without units."""
    if m.unit is None:
        return ""
    if m.packs or m.rule.job_per == "unit":
        return spec.unit
    found = m.unit_of(spec.unit)
    return found[0] if found else spec.unit


def accompanying(m: Matcher, rows: Iterable[FileRow]) -> Unit:
    """The files that a rule without units names besides its datasets (`with`), as one unit."""
    return Unit("", {}, {below(r): r for r in rows if is_of(m, r) and m.accompanies(below(r))})


def is_of(m: Matcher, row: FileRow) -> bool:
    """Whether a file lies where the rule looks: in its source, or in `inputs/`."""
    source = m.rule.source or ""
    return row.place.tree == source and (bool(source) or row.place.path.startswith("inputs/"))


def _based(matchers: Iterable[Matcher], place: Place) -> Iterator[Matcher]:
    """The rules that want the file at a place directly in S3's inputs/ (`key: base`)."""
    path = place.path if place.tree else place.path.partition("/")[2]
    if place.tree or place.path.startswith("inputs/"):
        mine = (m for m in matchers if m.rule.key == "base" and (m.rule.source or "") == place.tree)
        yield from (m for m in mine if not m.packs and m.wants(path))


def by_base(matchers: Iterable[Matcher], place: Place) -> bool:
    """Whether a rule wants the file at a place directly in S3's inputs/ (`key: base`): its analysis looks nowhere else."""
    return next(_based(matchers, place), None) is not None


def still_to_read(matchers: Iterable[Matcher], row: FileRow, jobs: Iterable[JobRow]) -> bool:
    """Whether a rule with `key: base` still needs a file that is stored at another key: it has no job of the file, or one that is
    not submitted. Else the file stays there: an edited rule sends nothing again that its jobs had. `jobs`: of the file's key."""
    with_it = [j for j in jobs if j.spec.origin is Origin.RULE and any(d.is_of(row) for d in j.spec.datasets)]
    for m in _based(matchers, row.place):
        mine = [j for j in with_it if j.spec.name == m.rule.name]
        if not mine or any(j.phase is Phase.OPEN for j in mine):
            return True
    return False


def misplaced(m: Matcher, datasets: Iterable[Dataset], inputs: str) -> str:
    """Why a rule's analysis would not find a job's data in S3; "" when it would. `inputs`: the key of the group's inputs/."""
    if m.rule.key != "base":
        return ""
    wrong = next((d for d in datasets if "/" in d.key.removeprefix(inputs)), None)
    if wrong is None:
        return ""
    return f"{wrong.name} is {wrong.key} in S3, and its rule wants it directly in inputs/ (`key: base`)"


def doubles(m: Matcher, row: FileRow) -> bool:
    """Whether a link leads to a file of which the same rule makes a job: a job of the link would pay for the same data twice.
    In a package, or in a job of a whole unit, a link is a part like any other (a DeepLabCut project links its videos)."""
    if m.packs or m.rule.job_per == "unit" or not found_by_itself(row):
        return False
    return m.wants(row.link if row.place.tree else row.link.partition("/")[2])


def below(row: FileRow) -> str:
    """A file's path as rules see it: below `inputs/`, or below its source."""
    return row.place.path if row.place.tree else row.place.path.partition("/")[2]


def units(m: Matcher, rows: Iterable[FileRow]) -> list[Unit]:
    """The units of a rule among `rows`, in path order."""
    found: dict[str, tuple[Mapping[str, str], dict[str, FileRow]]] = {}
    for row in rows:
        path = below(row)
        hit = m.unit_of(path)
        if hit is not None:
            found.setdefault(hit[0], (hit[1], {}))[1][path[len(hit[0]) + 1 :]] = row
    return [Unit(path, fields, files) for path, (fields, files) in sorted(found.items())]
