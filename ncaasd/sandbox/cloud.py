"""What all jobs of a sandbox share: the admin's access to S3, the pace, machines, costs, and the stop event."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from ncaasd.sandbox.scenarios import SCENARIOS, Scenario

Say = Callable[[str], None]

DEFAULT_INSTANCE = "m5.16xlarge"
# Dollars per hour and machine, as NeuroCAAS's certificates show them for us-east-1; types that aren't here can't be
# priced, which ends a job in step 2.
PRICES = {
    "m5.16xlarge": 3.072,
    "m5.large": 0.096,
    "m5.xlarge": 0.192,
    "m5.4xlarge": 0.768,
    "c5.4xlarge": 0.68,
    "p2.xlarge": 0.9,
    "p3.2xlarge": 3.06,
    "g4dn.xlarge": 0.526,
    "t2.micro": 0.0116,
}


class Stopping(Exception):
    """Raised in a job's or a worker's thread to end it, because the sandbox is being stopped."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in S3."""

    bucket: str
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True)
class Settings:
    """How the sandbox's platform behaves.

    `analysis` is the command, as an argument list with {data}, {config} and {results} in it; `pace` is the seconds
    between two steps of a job, `tick` those between two states of a status file (NeuroCAAS: about 10); `budget` is in
    dollars; `machines` is how many of one type may run at a time.
    """

    analysis: tuple[str, ...]
    folder: str
    pace: float = 0.5
    tick: float = 1.0
    scenario: Scenario = SCENARIOS["normal"]
    budget: float = 300.0
    machines: int = 100


@dataclass
class Cloud:
    """Shared by the threads of all jobs."""

    s3: Any  # a boto3 client with the admin's key
    settings: Settings
    say: Say  # a sentence for people
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spent: float = 0.0
    _projected: dict[str, float] = field(default_factory=dict)
    _running: Counter[str] = field(default_factory=Counter)
    _watched: dict[str, object] = field(default_factory=dict)

    # -- time

    def pause(self, steps: float = 1.0) -> None:
        """Wait for a number of steps at the sandbox's pace. Raises Stopping."""
        self.sleep(steps * self.settings.pace)

    def sleep(self, seconds: float) -> None:
        """Raises Stopping."""
        if self.stopping.wait(seconds):
            raise Stopping

    # -- S3

    def put(self, place: Place, name: str, body: bytes) -> None:
        self.s3.put_object(Bucket=place.bucket, Key=place.key(name), Body=body)

    def get(self, bucket: str, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def exists(self, bucket: str, name: object) -> bool:
        """Whether an object exists, by prefix as at NeuroCAAS: `data` exists when only `data2` does. TypeError unless a str."""
        if not isinstance(name, str):
            raise TypeError("[JOB TERMINATE REASON] 'dataname' field is not the right type. Should be string or list.")
        return bool(self.s3.list_objects_v2(Bucket=bucket, Prefix=name, MaxKeys=1).get("KeyCount"))

    # -- machines and money

    def project(self, job: str, machines: int, instance_type: object, minutes: object) -> float:
        """The dollars spent in all if this job ran for `minutes` (None: an hour), with past and running jobs. If that is
        within the budget, the job's cost is counted from now on, until `forget`.

        Raises what Python raises at NeuroCAAS for a type without a price, or minutes that are no number.
        """
        price = [dollars for name, dollars in PRICES.items() if name == instance_type][0]  # noqa: RUF015 - IndexError
        hours = 1.0 if minutes is None else minutes / 60  # type: ignore[operator]  # a string raises, as it does there
        with self._lock:
            others = sum(cost for name, cost in self._projected.items() if name != job)
            total = self._spent + others + machines * price * hours
            if total <= self.settings.budget:
                self._projected[job] = machines * price * hours
            return total

    def acquire(self, instance_type: str, count: int) -> list[str] | None:
        """The ids of new machines; None when they would be more than the platform allows of a type."""
        with self._lock:
            if self._running[instance_type] + count > self.settings.machines:
                return None
            self._running[instance_type] += count
        return [f"i-{secrets.token_hex(9)[:17]}" for _ in range(count)]

    def release(self, instance_type: str, since: float) -> None:
        """Give back a machine that ran since `since` (monotonic), and count its cost as spent."""
        with self._lock:
            self._running[instance_type] -= 1
            self._spent += PRICES.get(instance_type, 0.0) * (time.monotonic() - since) / 3600

    def forget(self, job: str) -> None:
        """Drop the projected cost of a job that has ended."""
        with self._lock:
            self._projected.pop(job, None)

    # -- the rule that puts the end marker when a job's machines are down

    def watch(self, rule: str, job: object) -> None:
        """Set up a job's monitor rule. A rule of the same name is overwritten, so its job is not watched any more.

        Raises ClientError when the name is too long.
        """
        if len(rule) > 64:
            message = (
                f"1 validation error detected: Value '{rule}' at 'name' failed to satisfy constraint: "
                "Member must have length less than or equal to 64"
            )
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "PutRule")
        with self._lock:
            self._watched[rule] = job

    def is_watched(self, rule: str, job: object) -> bool:
        with self._lock:
            return self._watched.get(rule) is job
