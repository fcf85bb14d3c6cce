"""After the submit: look at each job when it is due, judge it, and decide what follows its end. In the engine thread; the
looks at S3 are on a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, Unpack

from ncaasd.engine.core.mailbox import Result
from ncaasd.engine.core.runtime import Context, Runtime
from ncaasd.engine.following.elsewhere import Elsewhere
from ncaasd.engine.following.fetching import Fetcher
from ncaasd.engine.following.looking import Snapshot, Text, look
from ncaasd.errors import NcaasdError
from ncaasd.model import NEVER, Hold, JobDetails, JobRow, JobState, Origin, Phase
from ncaasd.neurocaas.job_state import Judgement, judge
from ncaasd.plan.holds import released_before, with_way_on
from ncaasd.plan.retry import backoff, poll_after, retry_after, watched_for
from ncaasd.subjects import of_job

GOING_WELL = (JobState.DONE, JobState.RUNNING, JobState.STARTING, JobState.SUBMITTED)
TOLD_ONCE = (JobState.SUBMITTED, JobState.LOST, JobState.TIMED_OUT)  # their reasons contain the elapsed time

_Looked = tuple[Snapshot, dict[str, str], Exception | None]


class Show(Protocol):
    def __call__(self, job: JobRow, state: JobState, reason: str, **details: Unpack[JobDetails]) -> None: ...


class Judging:
    def __init__(self, runtime: Runtime, fetcher: Fetcher, elsewhere: Elsewhere, busy: set[int], show: Show) -> None:
        """`busy` holds the rows under way; `show` commits a state and its reason."""
        self._runtime = runtime
        self._fetcher = fetcher
        self._elsewhere = elsewhere
        self._busy = busy
        self._show = show
        self._known: dict[int, dict[str, Text]] = {}  # job row -> what the last look has read

    # -- looking -----------------------------------------------------------------------------------------------------

    def looking(self, context: Context, job: JobRow) -> Callable[[], None]:
        known = self._known.get(job.row, {})
        timeout = context.settings.jobs.timeout
        live = context.settings.results.logs == "live"

        def work() -> _Looked:
            snapshot = look(job, context.layout, context.store_for, known, timeout=timeout)
            if not live:
                return snapshot, {}, None
            return snapshot, *self._fetcher.mirror(context, job, snapshot)

        def start() -> None:
            self._busy.add(job.row)
            self._runtime.mailbox.do("look", work, lambda r: self._looked(context, job.row, r))

        return start

    def again(self, context: Context, job: JobRow) -> None:
        """For `ncaasd fetch` of a job that has ended: look once more, accept what is seen, and fetch all that is there."""
        timeout = context.settings.jobs.timeout

        def work() -> Snapshot:
            return look(job, context.layout, context.store_for, {}, timeout=timeout)

        if job.row not in self._busy:
            self._busy.add(job.row)
            self._runtime.mailbox.do("look", work, lambda r: self._looked_again(context, job.row, r))

    def _looked_again(self, context: Context, row: int, result: Result[Snapshot]) -> None:
        runtime = self._runtime
        self._busy.discard(row)
        job = runtime.journal.job(row)
        if job is None or job.phase is not Phase.ENDED:
            return
        if result.error is not None:
            if not isinstance(result.error, NcaasdError):
                raise result.error
            runtime.handle(context, result.error)
            text = f"not fetched: {result.error}"
            runtime.event(context.name, of_job(job), "fetch failed", text, level=logging.WARNING)
            return
        snapshot = result.get()
        seen = judge(snapshot.evidence, runtime.patience)
        if not seen.ended and job.verdict is None:
            text = f"not fetched: it has not ended yet: {seen.reason}"
            runtime.event(context.name, of_job(job), "fetch failed", text, level=logging.WARNING)
            return
        if seen.ended and snapshot.objects:  # the platform's latest verdict; otherwise the known one stays
            runtime.journal.update_job(
                row, verdict=seen.state, refused_kind=seen.refused_kind or "", reason=seen.reason
            )
        self._fetcher.want_again(context, row, snapshot)

    def _looked(self, context: Context, row: int, result: Result[_Looked]) -> None:
        runtime = self._runtime
        self._busy.discard(row)
        job = runtime.journal.job(row)
        if job is None or job.phase is not Phase.SUBMITTED:
            return  # forgotten, or finished, while it was looked at
        now = runtime.clock.now()
        if result.error is not None:
            if not isinstance(result.error, NcaasdError):
                raise result.error
            paused = runtime.handle(context, result.error)
            poll = context.settings.jobs.poll
            wait = backoff(job.failures + 1, first=poll.min, most=poll.max, spread=runtime.spread())
            next_at = context.paused_until if paused else now + wait
            runtime.journal.update_job(row, next_at=next_at, failures=job.failures + 1)
            return
        runtime.unpause(context)
        snapshot, mirrored, trouble = result.get()
        self._known[row] = snapshot.known()
        self._fetcher.mirrored(context, job, snapshot, mirrored, trouble)
        if job.spec.origin is Origin.ELSEWHERE:
            job = self._elsewhere.learn(context, job, snapshot)
        self._judged(context, job, snapshot, judge(snapshot.evidence, runtime.patience), now)

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judged(self, context: Context, job: JobRow, snapshot: Snapshot, seen: Judgement, now: float) -> None:
        reason = f"{seen.reason}; {snapshot.unseen}" if snapshot.unseen else seen.reason
        fields: JobDetails = {"finished": seen.finished, "failures": 0}
        if seen.total:
            fields["total"] = seen.total
        if seen.cost is not None:
            fields["cost"] = seen.cost
        if seen.machines:
            fields["machines"] = seen.machines
        if seen.memory != job.machine_verdicts:
            fields["machine_verdicts"] = seen.memory
        self._tell(context, job, seen.state, reason)
        if seen.ended:
            self._ended(context, job, snapshot, seen, reason, fields, now)
            return
        poll = context.settings.jobs.poll
        wait = poll_after(
            seen.state,
            age=snapshot.evidence.age,
            finished=seen.finished,
            least=poll.min,
            most=poll.max,
            spread=self._runtime.spread(),
        )
        fields |= {"verdict": None, "next_at": now + wait}
        self._show(job, seen.state, reason, **fields)

    def _tell(self, context: Context, job: JobRow, state: JobState, reason: str) -> None:
        """Add an event for a new state or reason. For a state of TOLD_ONCE a new reason, with more minutes in it, adds
        none."""
        before = job.verdict or job.state
        if state is before and (state in TOLD_ONCE or reason == job.reason):
            return
        level = logging.INFO if state in GOING_WELL else logging.WARNING
        self._runtime.event(context.name, of_job(job), str(state), reason or str(state), level=level)

    def _ended(
        self,
        context: Context,
        job: JobRow,
        snapshot: Snapshot,
        seen: Judgement,
        reason: str,
        fields: JobDetails,
        now: float,
    ) -> None:
        """NeuroCAAS has ended the job: fetch what it left. While the end may still be taken back, looks go on."""
        runtime = self._runtime
        first = job.verdict is None
        fields |= {"verdict": seen.state, "refused_kind": seen.refused_kind or ""}
        if first:
            fields["ended"] = now
        self._show(job, job.state if job.state is JobState.FETCHING else seen.state, reason, **fields)
        lasting = seen.state in (JobState.DONE, JobState.TIMED_OUT)  # these ends are never taken back
        believed = snapshot.evidence.quiet >= watched_for(runtime.patience.platform_retry)
        self._fetcher.want(context, job.row, snapshot, final=seen.final or lasting or believed)
        if first:
            runtime.journal.wake_ready_jobs(context.name, 2 * context.settings.jobs.max_active)
            runtime.journal.retry_files(context.name)

    # -- what an end leads to ----------------------------------------------------------------------------------------

    def finished(self, context: Context, job: JobRow) -> None:
        """All of a job's results are here. A refused job is tried again as configured; no other job is, without a person."""
        runtime = self._runtime
        self._known.pop(job.row, None)
        runtime.journal.wake_ready_jobs(context.name, 2 * context.settings.jobs.max_active)
        if job.verdict is not JobState.REFUSED or job.spec.origin is Origin.ELSEWHERE:
            return
        attempts = runtime.journal.attempts(context.name, job.spec.name, job.spec.unit, job.spec.version)
        if attempts[-1].row != job.row:
            return
        kind = job.refused_kind
        retries = context.settings.jobs.retry_refused
        allowed = retries.capacity if kind == "capacity" else retries.budget
        refusals = sum(a.verdict is JobState.REFUSED and a.refused_kind == kind for a in attempts)
        if refusals <= allowed:
            self._retry(context, job, refusals, allowed)
        elif kind == "budget":
            self._wait_for_budget(context, job)

    def _next_attempt(self, job: JobRow) -> JobRow:
        """The next attempt of the same declaration, released from the same guards as the last one."""
        runtime = self._runtime
        spec = replace(job.spec, datasets=tuple(replace(d, etag="") for d in job.spec.datasets))
        # If the journal may have lost sight of the last attempt (`rebuilt`), the same holds for the next one.
        row = runtime.journal.add_job(spec, job.attempt + 1, runtime.clock.now(), size=job.size, rebuilt=job.rebuilt)
        # A further attempt is no new job, so the backlog guard doesn't apply.
        runtime.journal.update_job(row, released=job.released | {Hold.BACKLOG})
        made = runtime.journal.job(row)
        assert made is not None
        return made

    def _retry(self, context: Context, job: JobRow, refusals: int, allowed: int) -> None:
        runtime = self._runtime
        now = runtime.clock.now()
        at = retry_after(
            refusals,
            ended=job.ended,
            now=now,
            platform_retry=runtime.patience.platform_retry,
            spread=runtime.spread(),
        )
        made = self._next_attempt(job)
        when = f"in {(at - now) / 60:.0f} min" if at > now else "now"
        text = f"attempt {refusals} of {allowed} after a refusal, {when}: {job.reason}"
        released = made.released | ({Hold.BUDGET} if job.refused_kind == "budget" else set())
        self._show(made, JobState.READY, text, next_at=at, not_before=at, released=released)
        runtime.event(context.name, of_job(job), "retry", text)

    def _wait_for_budget(self, context: Context, job: JobRow) -> None:
        """Hold the next attempt until a person releases it, with its rule's other jobs, because there is budget again."""
        made = self._next_attempt(job)
        reason = with_way_on(f"the last attempt was refused: {job.reason}", Hold.BUDGET, made)
        released = released_before(made, Hold.BUDGET)
        self._show(made, JobState.HELD, reason, hold=Hold.BUDGET, released=released, next_at=NEVER)
        self._runtime.event(context.name, of_job(made), "held", reason, level=logging.WARNING)
