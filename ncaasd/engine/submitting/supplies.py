"""What a job needs before its submit: its datasets and its config, here or in S3. In the engine thread; requests to S3 are
sent on a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ncaasd.engine.arriving.declaring import CONFIG_LIMIT, Declarer
from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.errors import Absent, Corrupted, NcaasdError
from ncaasd.model import Dataset, JobRow, Place
from ncaasd.neurocaas.naming import safe_key
from ncaasd.plan.configs import ConfigFact, from_text, in_another_bucket, local_config, not_here, not_yet
from ncaasd.plan.considering import DatasetFact, dataset_fact

REMOTE_KNOWN_FOR = 30.0  # seconds that S3's answer about a dataset is used, or that a config isn't there
CONFIG_KNOWN_FOR = 600.0  # seconds that a config read from S3 is used
RENDERED_KEPT = 1000


class Supplies:
    def __init__(self, runtime: Runtime, declarer: Declarer) -> None:
        self._runtime = runtime
        self._declarer = declarer
        self._there: dict[tuple[str, str], tuple[bool, float]] = {}  # (analysis, key) -> in S3, when answered
        self._texts: dict[tuple[str, str], tuple[bytes | None, float]] = {}  # configs read from S3
        self._rendered: dict[tuple[str, str, str, bytes], ConfigFact] = {}

    # -- datasets ----------------------------------------------------------------------------------------------------

    def dataset(self, context: Context, dataset: Dataset) -> DatasetFact:
        journal = self._runtime.journal

        def remote() -> bool | None:
            known = self._there.get((context.name, dataset.key))
            return known[0] if known and self._fresh(known[1]) else None

        return dataset_fact(
            dataset, journal.file_of(dataset), lambda: journal.files_with_key(context.name, dataset.key), remote
        )

    def _fresh(self, at: float, known_for: float = REMOTE_KNOWN_FOR) -> bool:
        return self._runtime.clock.monotonic() - at < known_for

    # -- configs -----------------------------------------------------------------------------------------------------

    def config(self, context: Context, job: JobRow) -> ConfigFact:
        """The job's config, with its key in S3: from the local file, else from the object in S3 with the config's own
        name."""
        journal, name = self._runtime.journal, job.spec.config
        elsewhere = in_another_bucket(job.spec)
        if elsewhere is not None:
            return elsewhere
        here = local_config(
            journal.file_at(Place(context.name, "", f"configs/{name}")),
            lambda: journal.files_with_key(context.name, context.layout.configs + name),
        )
        if here is not None:
            text = self._declarer.config_text(here)
            return not_yet(here, self._declarer.unreadable(here)) if text is None else self._render(context, job, text)
        below = safe_key(name)
        text, at = self._texts.get((context.name, below), (None, 0.0))
        if text is not None and self._fresh(at, CONFIG_KNOWN_FOR):
            return self._render(context, job, text)
        asked = text is None and at and self._fresh(at)
        return not_here(name, "" if asked else context.layout.configs + below)

    def _render(self, context: Context, job: JobRow, text: bytes) -> ConfigFact:
        spec = job.spec
        key = (spec.config, spec.config_name, spec.overlay, text)
        if key not in self._rendered:
            if len(self._rendered) > RENDERED_KEPT:
                self._rendered.clear()
            self._rendered[key] = from_text(spec, text, context.layout)
        return self._rendered[key]

    # -- asking S3 ---------------------------------------------------------------------------------------------------

    def asking(
        self, context: Context, keys: Sequence[str], config: str, then: Callable[[bool], None]
    ) -> Callable[[], None]:
        """Look in S3 for what isn't here: datasets that another rig put (`keys`), and a config (its key, or "").

        `then` is called with True when all of it is in S3; with False otherwise, also when S3 gives no answer.
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
                self._runtime.handle(context, result.error)
                then(False)
                return
            there, text = result.get()
            at = self._runtime.clock.monotonic()
            self._there.update({(context.name, key): (found, at) for key, found in there.items()})
            if config:
                self._texts[context.name, config.removeprefix(context.layout.configs)] = (text, at)
            then(all(there.values()) and (text is not None or not config))

        return lambda: self._runtime.mailbox.do("ask", work, done)
