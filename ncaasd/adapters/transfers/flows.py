"""Which transfer is next. Has no threads and no clock: the pool calls it under its lock.

Every analysis has a flow. The flow that was served least (in bytes, plus a fixed cost for each request) is next, so analyses
share the bandwidth evenly whatever they move. Within a flow, uploads and downloads, small and large, share it evenly in the same
way, so none of the four kinds waits behind another; within each, the lowest `order` is first. Transfers with a negative order
(manifests, configs) come before all others. A store that answers with errors gets requests less and less often, one at a time,
until it answers well again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

from ncaasd.adapters.transfers.transfer import Step, Transfer, wait_after
from ncaasd.model import UploadTask

REQUEST_COST = 256 << 10  # bytes that a request counts for besides its body
MEMORY = 80 << 20  # bytes of buffers in flight, if at least one part fits


class Queue:
    """Transfers of one kind in one flow: first those that are started, then those that wait, lowest order first."""

    def __init__(self) -> None:
        self.served = 0.0
        self._waiting: list[tuple[float, int, Transfer]] = []
        self._started: list[Transfer] = []
        self._count = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._waiting or self._started)

    def add(self, transfer: Transfer) -> None:
        heapq.heappush(self._waiting, (transfer.task.order, next(self._count), transfer))

    def remove(self, transfer: Transfer) -> None:
        if transfer in self._started:
            self._started.remove(transfer)

    def started(self) -> Iterator[Transfer]:
        return iter(self._started)

    def take(self, now: float, room: Limits) -> tuple[Transfer, Step] | None:
        for transfer in self._started:
            if transfer.small and transfer.inflight:
                continue  # its one step is under way
            if room.fits(transfer) and (step := transfer.take(now)):
                return transfer, step
        while self._waiting:
            transfer = self._waiting[0][2]
            if transfer.halted or transfer.outcome is not None:
                heapq.heappop(self._waiting)  # the pool is stopping, or the transfer failed while it waited
                continue
            if not room.fits(transfer):
                return None
            heapq.heappop(self._waiting)
            self._started.append(transfer)
            transfer.started = True
            if step := transfer.take(now):
                return transfer, step
        return None


class Limits:
    """What all flows together may have in flight: buffers, and a worker that large files leave to small ones."""

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self._memory = {True: 0, False: 0}
        self._large = 0

    def fits(self, transfer: Transfer) -> bool:
        if not transfer.small and self.parallel > 1 and self._large >= self.parallel - 1:
            return False
        in_flight = self._memory[True] + self._memory[False]
        # A part that is larger than the whole budget is allowed when it is the only one of its kind.
        return in_flight + transfer.memory <= MEMORY or self._memory[transfer.small] == 0

    def began(self, transfer: Transfer) -> None:
        self._memory[transfer.small] += transfer.memory
        self._large += not transfer.small

    def ended(self, transfer: Transfer) -> None:
        self._memory[transfer.small] -= transfer.memory
        self._large -= not transfer.small


class Flow:
    """One analysis: its transfers, and how its store answers."""

    def __init__(self) -> None:
        self.served = 0.0
        self.urgent = Queue()
        self.kinds = {(upload, small): Queue() for upload in (True, False) for small in (True, False)}
        self.queues = (self.urgent, *self.kinds.values())
        self._inflight = 0
        self._failures = 0  # in a row, of all its requests
        self._not_before = 0.0
        self._failed_at = 0.0

    def __bool__(self) -> bool:
        return any(self.queues)

    def queue_of(self, transfer: Transfer) -> Queue:
        if transfer.task.order < 0:
            return self.urgent
        return self.kinds[isinstance(transfer.task, UploadTask), transfer.small]

    def add(self, transfer: Transfer) -> None:
        queue = self.queue_of(transfer)
        if not queue:
            # A queue that was empty is not given what the others were served meanwhile.
            queue.served = max(queue.served, _least(other.served for other in self.queues if other))
        queue.add(transfer)

    def open(self, now: float) -> bool:
        """Whether a request may be sent to this store now."""
        return self._failures < 2 or (now >= self._not_before and not self._inflight)

    def wakes(self, now: float) -> float | None:
        """Monotonic time from which something may run that may not run now; None when only the end of a step can allow it."""
        times = [at for queue in self.queues for transfer in queue.started() if (at := transfer.wakes()) is not None]
        if self._failures >= 2 and not self._inflight and self:
            times = [max(self._not_before, min(times, default=now))]
        return min(times, default=None)

    def began(self, transfer: Transfer, step: Step) -> None:
        cost = step.size + REQUEST_COST
        self.served += cost
        self.queue_of(transfer).served += cost
        self._inflight += 1
        transfer.inflight += 1

    def ended(self, transfer: Transfer) -> None:
        self._inflight -= 1
        transfer.inflight -= 1

    def hung(self, steps: int) -> None:
        """Don't count this many more steps as in flight to the store (negative: count them again)."""
        self._inflight -= steps

    def well(self) -> None:
        self._failures = 0

    def failed(self, began: float, now: float, jitter: float) -> None:
        """Count a request that began at `began` and failed because of the store, not because of the request itself."""
        if began < self._failed_at:
            return  # one of several that were under way when the store failed: counted already
        self._failures += 1
        self._failed_at = now
        self._not_before = now + wait_after(self._failures, jitter)


class Flows:
    """All analyses."""

    def __init__(self, parallel: int) -> None:
        self.limits = Limits(parallel)
        self._flows: dict[str, Flow] = {}

    def add(self, transfer: Transfer) -> None:
        flow = self.of(transfer)
        if not flow:
            flow.served = max(flow.served, _least(other.served for other in self._flows.values() if other))
        flow.add(transfer)

    def of(self, transfer: Transfer) -> Flow:
        flow = self._flows.get(transfer.task.analysis)
        if flow is None:
            flow = self._flows[transfer.task.analysis] = Flow()
        return flow

    def remove(self, transfer: Transfer) -> None:
        flow = self.of(transfer)
        flow.queue_of(transfer).remove(transfer)

    def take(self, now: float) -> tuple[Transfer, Step] | None:
        """The next step, counted as running from here on."""
        flows = sorted((flow for flow in self._flows.values() if flow and flow.open(now)), key=lambda flow: flow.served)
        turns = itertools.chain(
            ((flow, flow.urgent) for flow in flows),
            ((flow, queue) for flow in flows for queue in sorted(flow.kinds.values(), key=lambda queue: queue.served)),
        )
        for flow, queue in turns:
            if queue and (found := queue.take(now, self.limits)):
                transfer, step = found
                flow.began(transfer, step)
                self.limits.began(transfer)
                return transfer, step
        return None

    def ended(self, transfer: Transfer) -> Flow:
        """A step of the transfer has ended."""
        flow = self.of(transfer)
        flow.ended(transfer)
        self.limits.ended(transfer)
        return flow

    def set_aside(self, transfer: Transfer) -> None:
        """A step of the transfer hangs: other transfers may use its share until it continues."""
        self.of(transfer).hung(1)
        self.limits.ended(transfer)

    def goes_on(self, transfer: Transfer) -> None:
        self.of(transfer).hung(-1)
        self.limits.began(transfer)

    def wakes(self, now: float) -> float | None:
        """Monotonic time of the next call of `take`, unless a step ends before."""
        times = [at for flow in self._flows.values() if (at := flow.wakes(now)) is not None]
        return min(times, default=None)


def _least(served: Iterable[float]) -> float:
    return min(served, default=0.0)
