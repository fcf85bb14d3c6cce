"""Gather the facts that decide a job's next step, for `plan.considering`. In the engine thread; no requests are sent to
S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ncaasd.engine.arriving.pauses import Pauses
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.submitting.recordings import Recordings
from ncaasd.engine.submitting.supplies import Supplies
from ncaasd.model import FileRow, JobRow, Origin
from ncaasd.plan import gates, grouping
from ncaasd.plan.configs import ConfigFact, turn
from ncaasd.plan.considering import NOTHING, Facts
from ncaasd.plan.grouping import Beside, Matcher
from ncaasd.plan.guards import Limits, Tally, machines_of, tally
from ncaasd.plan.submitting import identity, same_job


@dataclass(frozen=True, slots=True)
class _Going:
    """A job whose submit was decided on, and that the journal doesn't count yet."""

    analysis: str
    rule: str
    machines: int
    shared: str = ""  # the name of its config, where jobs share that
    etag: str = ""  # its config's


def rule_of(context: Context, job: JobRow) -> Matcher | None:
    """The rule in force that declares a job; None when there is none, as for jobs declared one by one."""
    if job.spec.origin is not Origin.RULE:
        return None
    return next((m for ms in context.rules.values() for m in ms if m.rule.name == job.spec.name), None)


class Assessor:
    def __init__(
        self, runtime: Runtime, supplies: Supplies, sessions: Sessions, pauses: Pauses, recordings: Recordings
    ) -> None:
        self._runtime = runtime
        self._supplies = supplies
        self._sessions = sessions
        self._pauses = pauses
        self._recordings = recordings
        self._going: dict[int, _Going] = {}  # by the job's row
        self._tallies: dict[tuple[str, str], Tally] = {}  # of this turn
        self._beside: dict[tuple[str, str], grouping.Unit] = {}  # of this turn
        self._kept_back: set[tuple[str, str, str]] = set()  # analysis, rule, unit: jobs wait for what it lacks

    def turn(self) -> None:
        """Clear what is cached for one turn."""
        self._tallies.clear()
        self._beside.clear()

    # -- the facts ---------------------------------------------------------------------------------------------------

    def facts(self, context: Context, job: JobRow, now: float) -> Facts:
        config = self._supplies.config(context, job)
        return Facts(
            job=job,
            layout=context.layout,
            rule=rule_of(context, job),
            datasets=[self._supplies.dataset(context, d) for d in job.spec.datasets],
            config=config,
            now=now,
            turn=self.turn_of(context, job, config.key, config.etag) if config.shared else "",
            beside=self._rest_of_unit(context, job),
            blocked=context.submits_blocked,
            same=self._same(context, job),
            tally=self._tally(context, job, now),
            limits=self._limits(context, job),
            doubt=lambda asked: self._recordings.stop(context, asked),
        )

    def facts_just_before(self, context: Context, job: JobRow, config_key: str, config_etag: str) -> Facts:
        """The facts for the last check of a job, in the transaction of its intent. Datasets that are only in S3, and the
        guards, were checked a moment ago.

        config_etag: the config's ETag when jobs share its name; else empty.
        """
        datasets = [self._supplies.dataset(context, d) for d in job.spec.datasets]
        return Facts(
            job=job,
            layout=context.layout,
            rule=rule_of(context, job),
            datasets=[replace(f, remote=True) if f.file is None and not f.packed else f for f in datasets],
            config=ConfigFact(key=config_key),
            now=self._runtime.clock.now(),
            turn=self.turn_of(context, job, config_key, config_etag) if config_etag else "",
            beside=self._rest_of_unit(context, job),
            same=self._same(context, job),
            doubt=lambda asked: self._recordings.stop(context, asked),
        )

    def _same(self, context: Context, job: JobRow) -> str:
        """Names another declaration with the same name and datasets: it is the same job, which exists already. Empty for
        none."""
        if job.attempt:
            return ""
        same = self._runtime.journal.job_by_id(context.name, identity(job, context.layout, 0))
        if same is None or same.row == job.row or same.spec.origin is Origin.ELSEWHERE:
            return ""
        return same_job(job, same)

    # -- the rest of its unit ----------------------------------------------------------------------------------------

    def _rest_of_unit(self, context: Context, job: JobRow) -> Beside:
        """What else keeps a rule's job waiting, beside its datasets and config: the rest of its unit, and what the rule's
        `with` names."""
        m = rule_of(context, job)
        if m is None or (m.unit is None and not m.beside):
            return NOTHING
        if m.unit is None:
            return grouping.beside(m, self._accompanying(context, m), "", lambda _row: True)
        unit = self._sessions.at(context.name, m, grouping.unit_of_job(m, job.spec))
        if unit is None:
            return NOTHING  # all of it is gone: the job's datasets are reported as gone
        found = grouping.beside(m, unit, self._pauses.why(context, m, unit), lambda row: self._goes(context, row))
        if found.lacking or found.unit:
            self._kept_back.add((context.name, m.rule.name, unit.path))
        return found

    def _goes(self, context: Context, row: FileRow) -> bool:
        """Whether a file may ever be uploaded, now or later."""
        rules = [m for ms in context.rules.values() for m in ms]
        permit = gates.permit(row, rules, lambda m: self._sessions.of(context.name, m, row), lambda _m, _unit: False)
        return permit.when is not gates.When.NEVER

    def _accompanying(self, context: Context, m: Matcher) -> grouping.Unit:
        """The files that a rule without units names in `with`, cached for one turn."""
        key = (context.name, m.rule.name)
        if key not in self._beside:
            rows = self._runtime.journal.files(context.name, tree=m.rule.source or "")
            self._beside[key] = grouping.accompanying(m, rows)
        return self._beside[key]

    def stored(self, context: Context, row: FileRow) -> None:
        """A file is in S3: when it was the last one of its unit, the unit's jobs are due."""
        for m in (m for ms in context.rules.values() for m in ms):
            if m.unit is None:
                if m.beside and grouping.is_of(m, row) and m.accompanies(grouping.below(row)):
                    self._runtime.journal.wake_unit(context.name, m.rule.name, "")
                continue
            unit = self._sessions.of(context.name, m, row)
            if unit is not None and not any(self._goes(context, r) for r in unit.to_store(m)):
                self._runtime.journal.wake_unit(context.name, m.rule.name, unit.path)

    def changed(self, context: Context, row: FileRow) -> None:
        """A file became whole, or is gone: the jobs that wait for its unit are due, once for all changes together."""
        for m in (m for ms in context.rules.values() for m in ms):
            hit = m.unit_of(grouping.below(row)) if self._kept_back and grouping.is_of(m, row) else None
            key = (context.name, m.rule.name, hit[0] if hit else "")
            if key in self._kept_back:
                self._kept_back.discard(key)
                self._runtime.journal.wake_unit(*key)

    # -- configs that share a name -----------------------------------------------------------------------------------

    def turn_of(self, context: Context, job: JobRow, key: str, etag: str) -> str:
        """Why a job has to wait until others have read their own config at the same key; "" when it need not."""
        known = self._runtime.journal.configs_at(context.name, key)
        others = [(f"job {c.job_id}", c.etag, c.reading) for c in known if c.job_id != job.job_id]
        going = [
            ("a job that is being submitted", g.etag, True)
            for row, g in self._going.items()
            if row != job.row and (g.analysis, g.shared) == (context.name, key)
        ]
        return turn(key, etag, [*others, *going])

    # -- spend guards ------------------------------------------------------------------------------------------------

    def goes(self, context: Context, job: JobRow, config: ConfigFact) -> None:
        """A job's submit was decided on: from now on it counts in the guards of other jobs."""
        each = self._runtime.journal.machines_per_dataset(context.name, job.spec.name)
        shares = config.shared and config.content is not None
        self._going[job.row] = _Going(
            context.name,
            job.spec.name,
            machines_of(job, each),
            shared=config.key if shares else "",
            etag=config.etag if shares else "",
        )

    def intended(self, row: int) -> None:
        """A job's intent is committed, so the journal counts it from now on; or it was not submitted."""
        self._going.pop(row, None)

    def keep_only(self, rows: set[int]) -> None:
        """Forget the submits that were decided on but not committed: all except those of `rows`."""
        self._going = {row: going for row, going in self._going.items() if row in rows}

    def _tally(self, context: Context, job: JobRow, now: float) -> Tally:
        """The counts for the spend guards, including submits that were decided on a moment ago."""
        journal, key = self._runtime.journal, (context.name, job.spec.name)
        if key not in self._tallies:
            siblings: Sequence[JobRow] = journal.jobs_of_rule(*key)
            each = journal.machines_per_dataset(*key)
            used = journal.usage(context.name, now)
            self._tallies[key] = tally(siblings, used.active, used.day, now, each)
        seen = self._tallies[key]
        going = [g for g in self._going.values() if g.analysis == context.name]
        coming = sum(g.machines for g in going)
        under_way = seen.under_way + sum(g.rule == job.spec.name for g in going)
        return replace(seen, active=seen.active + coming, day=seen.day + coming, under_way=under_way)

    def _limits(self, context: Context, job: JobRow) -> Limits:
        m = rule_of(context, job)
        return Limits.of(context.settings.jobs, m.rule.canary if m else 0)
