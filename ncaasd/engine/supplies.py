"""What a job needs before its submit: its datasets and its config, here or in S3. In the engine thread; S3 is asked on a
lane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ncaasd.engine.declaring import CONFIG_LIMIT, Declarer
from ncaasd.engine.desk import Result
from ncaasd.engine.house import Context, House
from ncaasd.errors import Absent, Corrupted, NcaasdError
from ncaasd.model import Dataset, FileRow, FileState, JobRow, Place
from ncaasd.neurocaas.addresses import is_address
from ncaasd.neurocaas.naming import safe_key
from ncaasd.plan.configs import render
from ncaasd.plan.files import in_words, taken_by
from ncaasd.plan.jobs import DatasetFact

REMOTE_KNOWN_FOR = 30.0  # seconds that an answer about a dataset is believed, or that a config isn't there
CONFIG_KNOWN_FOR = 600.0  # a config that was read from S3 is used for so long
RENDERED_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ConfigFact:
    """What a job's config comes to: a key, and the content to put there (None: it lies there). Else the problem with it.

    `ask`: the key under which it may lie in S3, when nothing here is it and nobody has looked lately.
    """

    problem: str = ""
    key: str = ""
    content: bytes | None = None
    ask: str = ""
    shared: bool = False  # other jobs may have another content at that key


class Supplies:
    def __init__(self, house: House, declarer: Declarer) -> None:
        self._house = house
        self._declarer = declarer
        self._there: dict[tuple[str, str], tuple[bool, float]] = {}  # (analysis, key) -> in S3, asked when
        self._texts: dict[tuple[str, str], tuple[bytes | None, float]] = {}  # configs read from S3
        self._rendered: dict[tuple[str, str, str, bytes], ConfigFact] = {}

    # -- datasets ----------------------------------------------------------------------------------------------------

    def dataset(self, context: Context, dataset: Dataset) -> DatasetFact:
        if is_address(dataset.key):
            return DatasetFact(dataset.name, dataset.key, None, bypass=True)
        journal, key = self._house.journal, dataset.key
        row = journal.file_of(dataset)
        if row is not None and row.state is not FileState.GONE:
            return DatasetFact(dataset.name, key, row)
        if dataset.place is not None and dataset.place.is_package:
            return DatasetFact(dataset.name, key, None, packed=True)
        other = taken_by(dataset.place, row, journal.files_with_key(context.name, key))
        if other is not None:
            return DatasetFact(dataset.name, key, None, taken_by=in_words(other))
        known = self._there.get((context.name, key))
        return DatasetFact(dataset.name, key, None, remote=known[0] if known and self._fresh(known[1]) else None)

    def _fresh(self, at: float, known_for: float = REMOTE_KNOWN_FOR) -> bool:
        return self._house.clock.monotonic() - at < known_for

    # -- configs -----------------------------------------------------------------------------------------------------

    def config(self, context: Context, job: JobRow) -> ConfigFact:
        """The job's config, under a name of its content: the local file's, else what lies in S3 under its own name."""
        name = job.spec.config
        if is_address(name):
            if job.spec.overlay != "{}":
                return ConfigFact(problem="a config without `set`: nothing can be laid over one in another bucket")
            return ConfigFact(key=name)
        here = self._config_here(context, name)
        if here is not None:
            text = self._declarer.config_text(here)
            return (
                self._render(context, job, name, text) if text is not None else ConfigFact(problem=self._not_yet(here))
            )
        below = safe_key(name)
        text, at = self._texts.get((context.name, below), (None, 0.0))
        if text is not None and self._fresh(at, CONFIG_KNOWN_FOR):
            return self._render(context, job, name, text)
        waits = f"configs/{name} (not here or not whole yet, nor in S3)"
        return ConfigFact(
            problem=waits, ask="" if text is None and at and self._fresh(at) else context.layout.configs + below
        )

    def _config_here(self, context: Context, name: str) -> FileRow | None:
        """The local config that is meant: of this name, or uploaded under it (a submit file names the key, with
        `upload.prefix` in it). While there is one, what lies in S3 is an older version, if anything."""
        journal = self._house.journal
        row = journal.file_at(Place(context.name, "", f"configs/{name}"))
        if row is None or row.state is FileState.GONE:
            row = next(iter(journal.files_with_key(context.name, context.layout.configs + name)), None)
        return None if row is None or row.state is FileState.GONE else row

    def _not_yet(self, config: FileRow) -> str:
        """What a job waits for whose config is here, and not to be used yet; for people."""
        path = config.place.path
        if config.state is FileState.SETTLING:
            return f"{path} (still being written: {config.reason or 'not quiet long enough'})"
        if config.state is FileState.REFUSED:
            return f"{path} ({config.state}: {config.reason})"
        return f"{path} ({self._declarer.unreadable(config) or 'not read yet'})"

    def _render(self, context: Context, job: JobRow, name: str, text: bytes) -> ConfigFact:
        spec = job.spec
        cached = self._rendered.get((name, spec.config_name, spec.overlay, text))
        if cached is not None:
            return cached
        made = render(text, name, spec.overlay, context.layout, spec.config_name)
        fact = ConfigFact(made.problem, made.key, None if made.problem else made.content, shared=made.shared)
        if len(self._rendered) > RENDERED_KEPT:
            self._rendered.clear()
        self._rendered[name, spec.config_name, spec.overlay, text] = fact
        return fact

    # -- asking S3 ---------------------------------------------------------------------------------------------------

    def asking(
        self, context: Context, keys: Sequence[str], config: str, then: Callable[[bool], None]
    ) -> Callable[[], None]:
        """Look in S3 for what isn't here: datasets that another rig put (`keys`), and a config (its key, or "").

        `then` is called with whether all of it is there; not when S3 gives no answer.
        """

        def work() -> tuple[dict[str, bool], bytes | None]:
            store = context.store
            there = {key: store.find(key) is not None for key in keys}
            if not config:
                return there, None
            try:
                return there, store.read(config, limit=CONFIG_LIMIT)[0]
            except (Absent, Corrupted):  # above the limit, it is no config
                return there, None

        def done(result: Result[tuple[dict[str, bool], bytes | None]]) -> None:
            if result.error is not None:
                if not isinstance(result.error, NcaasdError):
                    raise result.error
                self._house.handle(context, result.error)
                then(False)
                return
            there, text = result.get()
            at = self._house.clock.monotonic()
            self._there.update({(context.name, key): (found, at) for key, found in there.items()})
            if config:
                self._texts[context.name, config.removeprefix(context.layout.configs)] = (text, at)
            then(all(there.values()) and (text is not None or not config))

        return lambda: self._house.desk.do("ask", work, done)
