"""What is seen of one job at one time, and how long to wait for what. Read by `job_table`, judged by `job_state`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, MonitorLine, StepError
from ncaasd.neurocaas.machines import NOTHING, Heard, Memory, Verdicts, gather, machines_of, read_now, several, verdicts

END_MARKER = "end of analysis marker"  # the platform's own; a worker's `end file.` ends nothing


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds. Defaults: NeuroCAAS protocol, docs/neurocaas.md."""

    no_certificate: float = 15 * 60  # for the first sign of life
    silent_start: float = 3 * 60  # quiet in step 1, where a failure may leave no message
    no_dispatch: float = 20 * 60  # quiet between step 1 and the first status file
    platform_retry: float = 10 * 60  # the platform itself retries a step 4 AWS error, twice
    quiet: float = 30 * 60  # workers rewrite their status every 10 s or so
    whole_job: float = 48 * 3600  # the platform's own cap


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is seen of one job. Times in seconds, by the server's clock."""

    certificate: Certificate | None
    expected: tuple[str, ...]  # the datasets' base names, from the submit file; empty: not known (another person's job)
    statuses: Mapping[str, DatasetStatus | None]  # by base name, those that exist; None: half-written
    end_marker: str | None  # the body of process_results/end.txt; None: not there
    quiet: float  # since anything in the job's folder changed; since the submit when nothing is there
    age: float  # since the submit file was put
    timeout: float | None = None  # jobs.timeout; None: Patience.whole_job
    blind: bool = False  # its status files never change (`submission.ArtefactPlaces.blind`)
    results: int = 0  # result files there (`submission.is_result`); needed when blind
    numbers: frozenset[int] = frozenset()  # the machines that left a numbered result (`machines.machine_number`)
    memory: Memory = NOTHING  # what was read at earlier looks, where several machines share one status file


@dataclass(frozen=True)
class Facts:
    """Evidence and patience, as the table's columns ask for them."""

    seen: Evidence
    patience: Patience

    @cached_property
    def certificate(self) -> Certificate:
        return self.seen.certificate or Certificate()

    @cached_property
    def _asked(self) -> Counter[str]:
        """How often each base name is in the job's list of datasets."""
        asked = Counter(self.seen.expected or (name.rpartition("/")[2] for name in self.certificate.datasets))
        if not self.seen.expected:
            asked.update(name for name in self.seen.statuses if name not in asked)
        return asked

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The datasets' base names, once each: files of another job in the same folder don't count."""
        return tuple(self._asked)

    @cached_property
    def mine(self) -> dict[str, DatasetStatus | None]:
        """The status files of this job's own datasets, in order."""
        return {name: self.seen.statuses[name] for name in self.names if name in self.seen.statuses}

    @property
    def no_statuses(self) -> bool:
        return not self.mine

    @cached_property
    def _machines(self) -> tuple[dict[str, int], int]:
        return machines_of(self._asked, self.certificate)

    @property
    def machines(self) -> int:
        """How many machines the job has, as far as is known: at least one a dataset."""
        return sum(self._machines[0].values()) + self._machines[1]

    @property
    def idle(self) -> int:
        """How many machines were started whose dataset is not known."""
        return self._machines[1]

    @property
    def shared(self) -> list[str]:
        """The datasets that more than one machine works on: their status file shows only the last to write."""
        return several(self._machines[0])

    def _lines(self, name: str) -> list[MonitorLine]:
        return [line for line in self.certificate.monitor if line.basename == name]

    @cached_property
    def memory(self) -> Memory:
        """All verdicts read so far of the machines that share a status file."""
        now: list[Heard] = []
        for name in self.shared:
            now += read_now(name, self.mine.get(name), self._lines(name))
        return gather(self.seen.memory, self.certificate, now)

    @cached_property
    def verdicts(self) -> dict[str, Verdicts]:
        """What is known of the machines of each dataset."""
        numbers = self.seen.numbers if len(self.names) == 1 else ()
        return {
            name: verdicts(name, count, self.mine.get(name), self._lines(name), self.memory.heard, numbers)
            for name, count in self._machines[0].items()
        }

    @cached_property
    def finished(self) -> list[str]:
        """Datasets with a verdict of every machine. A half-written status file has none."""
        return [name for name, known in self.verdicts.items() if known.all_known]

    @cached_property
    def failures(self) -> list[tuple[str, Verdicts]]:
        return [(name, known) for name, known in self.verdicts.items() if known.failed]

    @property
    def missing(self) -> list[str]:
        """Datasets without a verdict."""
        return [name for name in self.names if name not in self.finished]

    @property
    def all_terminal(self) -> bool:
        return bool(self.names) and len(self.finished) == len(self.names) and not self.idle

    @cached_property
    def any_in_progress(self) -> bool:
        """Whether a worker is running. A half-written file is a worker's: the job manager puts INITIALIZING in one piece."""
        return any(
            status is None or status.in_progress or (status.terminal and name not in self.finished)
            for name, status in self.mine.items()
        )

    @property
    def any_marker(self) -> bool:
        return self.seen.end_marker is not None

    @property
    def marked(self) -> bool:
        """Whether the platform itself has put the end marker."""
        return self.seen.end_marker is not None and self.seen.end_marker.strip() == END_MARKER

    @property
    def aws_error(self) -> StepError | None:
        """A step 4 AWS error that came first: after it the platform may start again by itself."""
        error = self.certificate.error
        return error if error and error.number == 4 and error.kind == "AWS" else None

    @property
    def other_error(self) -> bool:
        """Any other step's error, or an input error of the initialization."""
        return (self.certificate.error is not None and not self.aws_error) or self.certificate.rejected_at_start

    @property
    def step4_error(self) -> bool:
        return any(error.number == 4 for error in self.certificate.errors)

    @property
    def blind(self) -> bool:
        """Whether no status of the datasets will ever come (and none has)."""
        return self.seen.blind and not self.finished and not self.any_in_progress

    def quiet_for(self, seconds: float) -> bool:
        return self.seen.quiet >= seconds
