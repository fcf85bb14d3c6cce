"""What `once` shows while it works, and at its end: bars on a terminal, plain lines elsewhere.

Rich is imported for bars and tables only: in a pass with nothing to do the import would take a good part of the time.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from ncaasd.show import words
from ncaasd.show.logs import TextLines, set_up
from ncaasd.show.outcome import PassOutcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ncaasd.declare.config import Config
    from ncaasd.engine.daemon import Running

NAME_WIDTH = 28
BARS = 10


class PassView:
    """Shows a pass: give `turn` to `run_pass` as `each`."""

    def __init__(self, config: Config, *, quiet: bool) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[tuple[str, str, bool], TaskID] = {}
        self._sizes: dict[tuple[str, str, bool], int] = {}
        level = "warning" if quiet else config.log.level
        if sys.stderr.isatty() and not quiet:
            self._progress = _bars()
            set_up(level=level, json_lines=False, handler=_AboveBars(self._progress))
        else:
            set_up(level=level, json_lines=False)

    def __enter__(self) -> PassView:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            set_up(level="info", json_lines=False)

    def turn(self, runtime: Running) -> None:
        """Update the bars; those of ended transfers are removed."""
        if self._progress is None:
            return
        under_way = {(p.analysis, p.name, p.upload): p for p in runtime.progress()}
        for gone in self._tasks.keys() - under_way.keys():
            self._progress.remove_task(self._tasks.pop(gone))
        for key, p in under_way.items():
            if key not in self._tasks:
                if len(self._tasks) >= BARS:
                    continue
                name = f"{'↑' if p.upload else '↓'} {words.cut(words.plain(p.name), NAME_WIDTH)}"
                self._tasks[key] = self._progress.add_task(f"{name:<{NAME_WIDTH + 2}}", total=p.size)
            self._progress.update(self._tasks[key], completed=p.done, total=p.size)


def _bars() -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from ncaasd.show.terminal import console

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console(stderr=True),
        transient=True,
    )


class _AboveBars(logging.Handler):
    """Log lines scroll by above the bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.console.print((self.formatter or TextLines()).format(record), soft_wrap=True)


def show_outcome(outcome: PassOutcome, now: float) -> None:
    if outcome.stored:
        print(f"{words.count(len(outcome.stored), 'file')} stored in S3")
    if outcome.jobs:
        from ncaasd.show.terminal import console, render_jobs

        sys.stdout.flush()
        console().print(render_jobs(outcome.jobs, now, analyses=len({job.spec.analysis for job in outcome.jobs})))
    for file in outcome.bad_files:
        print(f"{file.state}: {words.plain(str(file.place))}: {words.plain(file.reason)}")
    for analysis, _path, problems in outcome.bad_manifests:
        for problem in problems.splitlines():
            print(f"not in force: {analysis}/{words.plain(problem)}")
    for trouble in outcome.troubles:
        print(f"ncaasd: {words.plain(trouble)}", file=sys.stderr)
    if not (outcome.stored or outcome.jobs or outcome.bad_files or outcome.bad_manifests or outcome.troubles):
        print("nothing to do: everything here is stored, and no job is under way")
