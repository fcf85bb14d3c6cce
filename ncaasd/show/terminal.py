"""Reports as text on a terminal: 80 columns, colour only where it means something. Importing this module imports Rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ncaasd.model import Event, FileState, JobRow, JobState
from ncaasd.show import words
from ncaasd.show.status import AnalysisStatus, Attention, StatusReport, Transfer, known_as, title
from ncaasd.show.words import plain

if TYPE_CHECKING:
    from ncaasd.plan.planned_jobs import PlannedJob

GOOD, BAD, WARN, DIM = "green", "red", "yellow", "dim"
STYLE = {
    JobState.DONE: GOOD,
    JobState.FAILED: BAD,
    JobState.REFUSED: BAD,
    JobState.TIMED_OUT: BAD,
    JobState.HELD: WARN,
    JobState.LOST: WARN,
    JobState.RUNNING: "cyan",
    JobState.FETCHING: "cyan",
}
_FILES = (FileState.SETTLING, FileState.WHOLE, FileState.STORED, FileState.HELD, FileState.REFUSED)
_NAMES = {FileState.WHOLE: "to upload", FileState.SETTLING: "settling"}
TRANSFERS_SHOWN, ATTENTION_SHOWN = 12, 20


def console(*, stderr: bool = False) -> Console:
    """A console that shows people's text as it is, without interpreting markup or emoji codes."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


# -- status


def render_status(report: StatusReport) -> RenderableType:
    parts: list[RenderableType] = [_headline(report)]
    parts += [Text(f"! {plain(trouble)}", style=BAD) for trouble in report.troubles]
    for analysis in report.analyses:
        parts += ["", Text(analysis.name, style="bold"), Padding(_counts(analysis), (0, 0, 0, 2), expand=False)]
    if report.transfers:
        parts += ["", Text("under way", style="bold"), *_transfers(report.transfers)]
    if report.attention:
        parts += ["", Text("needs you", style="bold"), *_attention(report.attention)]
    polled = [f"{name.rstrip(':')}: {how}" for name, how in report.watching.items() if not how.startswith("native")]
    if polled:
        parts += ["", *(Text(f"watching {plain(line)}", style=DIM) for line in polled)]
    return Group(*parts)


def _headline(report: StatusReport) -> Text:
    line = Text(f"{report.root}: ")
    if report.pid is None:
        line.append("no daemon runs", style=WARN)
        return line.append("; as the journal knows it")
    line.append("the daemon runs", style=GOOD)
    return line.append(f", pid {report.pid}" + (f", rig {report.rig}" if report.rig else ""))


def _counts(analysis: AnalysisStatus) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM)
    grid.add_column()
    states = [s for s in _FILES if s in analysis.files]
    files = Text(", ").join(
        Text(
            f"{analysis.files[s][0]:,} {_NAMES.get(s, s)} ({words.size(analysis.files[s][1])})",
            style=WARN if s in (FileState.HELD, FileState.REFUSED) else "",
        )
        for s in states
    )
    grid.add_row("files", files if states or analysis.left else Text("none yet", style=DIM))
    for why, (count, much) in analysis.left.items():
        grid.add_row("", Text(f"{count:,} not uploaded ({words.size(much)}): {plain(why)}", style=DIM))
    skipped = analysis.skipped
    for thing in skipped.first[:1]:
        such = ", such as " if skipped.count > 1 else " "
        what = f"{skipped.count:,} skipped{such}{plain(str(thing.place))}: {plain(thing.reason)}"
        grid.add_row("", Text(what, style=WARN))
    jobs = Text(", ").join(
        Text(f"{analysis.jobs[s]:,} {s}", style=STYLE.get(s, "")) for s in JobState if s in analysis.jobs
    )
    grid.add_row("jobs", jobs if analysis.jobs else Text("none yet", style=DIM))
    good = sum(not m.problems for m in analysis.manifests)
    bad = len(analysis.manifests) - good
    said = Text(f"{good} in force" if good else "none in force", style="" if good else DIM)
    if bad:
        said.append(f", {bad} wrong", style=BAD)
    grid.add_row("manifests", said)
    return grid


def _transfers(transfers: Sequence[Transfer]) -> Iterable[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    for t in transfers[:TRANSFERS_SHOWN]:
        part = f"{100 * t.done / t.size:.0f}%" if t.size else ""
        left = "" if t.left is None else f"{words.span(t.left)} left"
        arrow = "↑" if t.up else "↓"
        name = words.cut(plain(t.file or t.name), 34)
        grid.add_row(f"  {arrow} {name}", part, words.size(t.size), words.rate(t.rate) if t.rate else "", left)
    yield grid
    if len(transfers) > TRANSFERS_SHOWN:
        yield Text(f"  and {len(transfers) - TRANSFERS_SHOWN} more", style=DIM)


def _attention(attention: Sequence[Attention]) -> Iterable[RenderableType]:
    for item in attention[:ATTENTION_SHOWN]:
        line = Text("  ")
        line.append(f"{item.kind} ", style=BAD if item.kind == "manifest" else WARN)
        if item.kind == "manifest":  # each problem names its file and line
            yield line.append(f"{item.analysis}/{plain(item.name)}")
            yield from (Padding(Text(plain(problem)), (0, 0, 0, 6)) for problem in item.why.splitlines())
            continue
        yield line.append(f"{plain(item.name)}")
        yield Padding(Text(plain(item.why)), (0, 0, 0, 6))
        if item.command:
            yield Padding(Text(item.command, style="bold", no_wrap=True), (0, 0, 0, 6))
    if len(attention) > ATTENTION_SHOWN:
        yield Text(f"  and {len(attention) - ATTENTION_SHOWN} more: `ncaasd status --json` has all", style=DIM)


# -- jobs


def render_jobs(jobs: Sequence[JobRow], now: float, *, analyses: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM, expand=False)
    table.add_column("id", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("job", max_width=30, overflow="fold")
    table.add_column("since", no_wrap=True)
    table.add_column("reason", overflow="fold", ratio=1)
    for job in jobs:
        name = f"{job.spec.analysis}: {title(job)}" if analyses > 1 else title(job)
        table.add_row(
            known_as(job),
            Text(str(job.state), style=STYLE.get(job.state, "")),
            plain(name),
            words.ago(latest(job), now).removesuffix(" ago"),
            plain(job.reason),
        )
    return table


def latest(job: JobRow) -> float:
    """The latest of the times of a job's row."""
    ended = job.ended if job.state.ended else 0.0
    return max(t for t in (job.created, job.intended, job.submitted, ended) if t < 1e12)


def facts_text(facts: Iterable[tuple[str, str]]) -> str:
    """One fact a line, never folded, so that a path can be copied and found by grep."""
    return "\n".join(f"{name:<12}{plain(value)}" for name, value in facts)


def render_timeline(events: Sequence[Event]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM, no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for event in events:
        grid.add_row(words.moment(event.at), event.kind, plain(event.text))
    return grid


def render_plan(planned: Sequence[PlannedJob]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("plan", no_wrap=True)
    table.add_column("job", max_width=30, overflow="fold")
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("why", overflow="fold", ratio=1)
    styles = {"submit": GOOD, "queue": "", "hold": WARN, "wait": "", "known": DIM}
    for p in planned:
        name = p.spec.name if p.spec.unit in ("", p.spec.name) else f"{p.spec.name} {p.spec.unit}"
        table.add_row(Text(p.plan, style=styles[p.plan]), plain(name), words.size(p.size), plain(p.why))
    return table
