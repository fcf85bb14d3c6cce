"""One job as NeuroCAAS's job manager plays it: four steps, then the machines, then the end marker.

What it checks, in which order, and how it fails, is the platform's (NeuroCAAS protocol, docs/neurocaas.md; the
certificates its own code wrote). Where that dies of a Python error, so does this, of the same one.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from ncaasd.sandbox.certificate_writer import Certificate, traceback_text
from ncaasd.sandbox.cloud import DEFAULT_INSTANCE, Cloud, Place, Stopping
from ncaasd.sandbox.scenarios import Fate, Fault, Scenario, choose
from ncaasd.sandbox.worker import Worker

END_MARKER = b"end of analysis marker"
EARLY_MARKER = b"end file.\n"
_ATTEMPTS = 3  # the platform's own
_DISK = 15  # GB that every machine has, to which __dataset_size__ is added
_RETRY_AFTER = 3.0  # steps; a minute or two there
_AWS_CODES = {Fault.NO_CAPACITY: "InsufficientInstanceCapacity", Fault.VCPU_LIMIT: "VcpuLimitExceeded"}


class _OverBudget(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit file that could be read. `key` is its own; `body` is a mapping with at least a timestamp."""

    bucket: str
    key: str
    body: Mapping[str, Any]

    @property
    def group(self) -> str:
        return self.key.partition("/submissions")[0]

    @property
    def job_name(self) -> str:
        return f"job__{self.bucket}_{self.body['timestamp']}"

    @property
    def home(self) -> Place:
        return Place(self.bucket, f"{self.group}/results/{self.job_name}")


def read_submission(bucket: str, key: str, raw: bytes) -> Submission:
    """Raises ValueError where the platform's job manager would die before it has a certificate to write into."""
    if not re.match(r".+?(?=/submissions)", key):
        raise ValueError("it is in no group's submissions/")
    try:
        body = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"it is not JSON in UTF-8 without BOM: {error}") from error
    if not isinstance(body, dict) or "timestamp" not in body:
        raise ValueError("it is no JSON object with a timestamp")
    return Submission(bucket, key, body)


class Job:
    """One job. `run()` plays it to its end, in the caller's thread; `launched` is called when machines are started."""

    def __init__(
        self, cloud: Cloud, submission: Submission, *, launched: Callable[[Place | None], None], scenario: Scenario
    ) -> None:
        self.submission = submission
        self.cloud = cloud
        self.scenario = scenario
        self.outcome: Literal["starting", "no certificate", "silent", "rejected", "launched", "ended"] = "starting"
        self.over = threading.Event()  # nothing more will come of it
        self._launched = launched
        self._complaint: ValueError | None = None
        self._lock = threading.Lock()
        self._through = 0
        self._step = 1
        self.workers: list[Worker] = []

    def run(self) -> None:
        """Raises Stopping when the sandbox stops."""
        try:
            self.scenario = choose(self._peek_config(), self.scenario)
        except ValueError as error:
            self._complaint = error
        if self.scenario.fault is Fault.NO_CERTIFICATE:
            self.outcome = "no certificate"
            return
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                if not self._attempt(attempt):
                    break
                self.cloud.pause(_RETRY_AFTER)
        finally:
            self.cloud.forget(self._rule)

    # -- what a submit file asks for

    def _peek_config(self) -> object:
        """The config, only to see which scenario it asks for; None when it can't be read."""
        name = self.submission.body.get("configname")
        bucket, key = (
            _split(name) if isinstance(name, str) and name.startswith("s3://") else (self.submission.bucket, name)
        )
        with contextlib.suppress(ClientError, BotoCoreError, ValueError, yaml.YAMLError, UnboundLocalError):
            return _load_config(str(key), self.cloud.get(bucket, str(key)))
        return None

    @property
    def _rule(self) -> str:
        return f"Monitor{self.submission.job_name}"

    # -- the four steps

    def _attempt(self, attempt: int) -> bool:
        """One run of the job manager. True when AWS refused in a way that makes the platform try again."""
        home = self.submission.home
        # It starts with the folder itself, as an empty object.
        self.cloud.put(home, "", b"")
        line = self.scenario.delay or self.cloud.settings.pace / 10
        self.certificate = Certificate(self._writer(home), lambda: self.cloud.sleep(line))
        self.certificate.begin(str(self.submission.body["timestamp"]))
        self._step = 1
        try:
            self._initialize()
        except (LookupError, TypeError, ValueError, ClientError):
            # Nothing is caught there in step 1: the certificate just stops.
            self.outcome = "silent"
            return False
        try:
            self._run_step(2, self._validate)
            self._run_step(3, self._set_up)
            self._run_step(4, lambda: self._process(attempt))
        except _OverBudget:
            text = "Error: Job is not covered by budget. Contact NeuroCAAS administrator."
            self._reject("INTERNAL", text)
            return False
        except ClientError as error:
            return self._aws_error(error)
        except Exception as error:
            self._reject("INTERNAL", traceback_text(error))
            if self.scenario.fault is Fault.NO_BOOT:
                self._put_end()
            return False
        self.certificate.line("JOB MONITOR LOG COMPLETE. SEE TOP FOR LIVE PER-DATASET MONITORING")
        self._run_machines()
        return False

    def _run_step(self, step: int, play: Callable[[], None]) -> None:
        self._step = step
        self.cloud.pause()
        play()
        self.certificate.done(step)

    def _reject(self, kind: str, text: str) -> None:
        self.outcome = "rejected"
        self.certificate.failed(self._step, kind, text)

    def _aws_error(self, error: ClientError) -> bool:
        if self._step != 4:
            self._reject("INTERNAL", traceback_text(error))
            return False
        if self.scenario.fault is Fault.NO_ANSWER:
            self._reject("AWS", "Transient AWS Communication Error. Please Try Again")
            return False
        self._reject("AWS", str(error.response["Error"]))
        # It cleans up what isn't there yet, twice, and dies of that: which makes the platform try again, for what
        # happened before there were machines.
        before_machines = error.operation_name == "RunInstances"
        problems = ["'Submission_dev' object has no attribute 'rulename'"]
        if before_machines:
            problems.insert(0, "cannot access local variable 'instances' where it is not associated with a value")
        for problem in problems:
            kind = UnboundLocalError if "local variable" in problem else AttributeError
            text = traceback_text(_while_handling(error, kind(problem)))
            self._reject("INTERNAL", f"While cleaning up from AWS Error, another error occured: {text}")
        return before_machines

    # -- step 1

    def _initialize(self) -> None:
        certificate, body = self.certificate, self.submission.body
        certificate.line("[Job Manager] Detected new job: starting up.")
        certificate.internal("init", "Initializing job manager.")
        if "instance_type" not in body:
            certificate.internal("init", f"Using default instance type {DEFAULT_INSTANCE} from config file.")
        self._instance_type = body.get("instance_type", DEFAULT_INSTANCE)
        for name in ("dataname", "configname"):
            if name not in body or (name == "dataname" and self.scenario.fault is Fault.MISSING_FIELD):
                text = f"INPUT ERROR: Submit file does not contain field '{name}', needed to analyze data."
                certificate.internal("init", text)
                raise KeyError(name)
        data, config = body["dataname"], body["configname"]
        certificate.internal("init", f"Analysis request with dataset(s): {data}, config file {config}")
        if not isinstance(data, str | list) or self.scenario.fault is Fault.SILENT:
            raise TypeError("dataname")
        self._find_places(data, config)
        certificate.done(1)

    def _find_places(self, data: str | list[Any], config: Any) -> None:
        """Where data, config, logs, results and the end marker are: storage bypass."""
        names = [data] if isinstance(data, str) else data
        self._names: list[Any] = names
        self._config: Any = config
        self._source = self.submission.bucket
        bypassed = all(isinstance(name, str) and name.startswith("s3://") for name in [*names, config])
        if bypassed:
            self._source, self._config = _split(config)
            if _split(names[0])[0] != self._source:
                raise ValueError("data and config in different buckets")
            self._names = [_split(name)[1] for name in names]  # the other datasets' buckets are ignored
            self.certificate.internal("init", f"Storage Bypass initiated from bucket: s3://{self._source}")
        home = self.submission.home
        self._logs = home
        target = self.submission.body.get("resultpath")
        end: Place | None = home
        to: dict[str, str | None] = {"bucket": None, "resultpath": None}
        if isinstance(target, str) and target.startswith("s3://"):
            bucket, path = _split(target)
            self.certificate.internal("init", f"Storage Bypass initiated to bucket: s3://{bucket}")
            to = {"bucket": bucket, "resultpath": path}
            self._logs = Place(bucket, f"{path.strip('/')}/{self.submission.job_name}".lstrip("/"))
            # The marker is put into the analysis's own bucket, at that path; with none, nowhere.
            end = Place(self.submission.bucket, self._logs.prefix) if path else None
        self._end = end if self._names and "/inputs/" in str(self._names[0]) else None
        source: dict[str, Any] = {"bucket": None, "datapath": None, "configpath": None}
        if bypassed:
            paths = self._names[0] if isinstance(data, str) else self._names
            source = {"bucket": self._source, "datapath": paths, "configpath": self._config}
        self.certificate.internal("init", f"Full bypass info: { ({'input': source, 'output': to})!r}")
        if self._logs != home:
            self.cloud.put(self._logs, "", b"")
            self.certificate.continue_at(self._writer(self._logs))

    # -- step 2

    def _validate(self) -> None:
        if self._complaint is not None:
            raise self._complaint
        missing = self.scenario.fault is Fault.NOT_FOUND
        found = [self.cloud.exists(self._source, name) for name in self._names]
        if missing or not all(found):
            self._not_found(self._names, "dataname", "data")
        if not self.cloud.exists(self._source, self._config):
            self._not_found(self._config, "configname", "a configuration file")
        config = _load_config(self._config, self.cloud.get(self._source, self._config))
        self._minutes = self._parameter(config, "__duration__", "not given, proceeding with standard compute launch.")
        storage = "is not given, proceeding with standard storage."
        self._extra_disk = self._parameter(config, "__dataset_size__", storage)
        self._check_budget()

    def _not_found(self, names: object, field: str, what: str) -> None:
        self.certificate.internal("check_existence", f"INPUT ERROR: S3 Bucket does not contain {names}")
        raise ValueError(
            f"[JOB TERMINATE REASON] '{field}' field refers to {what} that cannot be found. "
            "Be sure this is a full path to the data, without the bucket name."
        )

    def _parameter(self, config: Any, name: str, otherwise: str) -> Any:
        try:
            value = config[name]  # a list, a string or nothing at all as the config dies here
        except KeyError:
            self.certificate.internal("parse_config", f"parameter {name} {otherwise}")
            return None
        self.certificate.internal("parse_config", f"parameter {name} given: {value}")
        return value

    def _check_budget(self) -> None:
        budget = self.cloud.settings.budget
        try:
            cost = self.cloud.project(self._rule, len(self._names), self._instance_type, self._minutes)
        except (IndexError, TypeError):
            text = "        [Internal (get_costmonitoring)] Unexpected Error: Unable to estimate cost of current job."
            raise Exception(text)  # noqa: B904 - "During handling …", as there
        if self.scenario.fault is Fault.OVER_BUDGET:
            cost = budget + 1.06
        text = f"Customized budget not found. Using default budget value of {budget}"
        self.certificate.internal("get_costmonitoring", text)
        projected = f"Projected total costs: ${cost}."
        if cost > budget:
            text = f"{projected} Over budget (${budget}), cancelling job. Contact administrator."
            self.certificate.internal("get_costmonitoring", text)
            raise _OverBudget
        self.certificate.internal("get_costmonitoring", f"{projected} Remaining budget: ${budget - cost}")

    # -- steps 3 and 4

    def _set_up(self) -> None:
        if self.scenario.fault is Fault.NO_ENVIRONMENT:
            raise RuntimeError("[JOB TERMINATE REASON] The environment of this analysis cannot be set up.")

    def _process(self, attempt: int) -> None:
        certificate, fault, count = self.certificate, self.scenario.fault, len(self._names)
        if fault is Fault.NO_BANDWIDTH:
            self._no_bandwidth()
        certificate.utils(f"Acquiring new {self._instance_type} instances from ami-0a0000000000000aa ...")
        self._check_duration()
        certificate.utils("save not available. Launching standard instance.")
        self._check_disk()
        if fault in _AWS_CODES and attempt <= self.scenario.times:
            message = "the sandbox was asked to play this"
            raise ClientError({"Error": {"Code": _AWS_CODES[fault], "Message": message}}, "RunInstances")
        if not count:
            message = "Value (0) for parameter minCount is invalid. It must be at least 1."
            raise ClientError({"Error": {"Code": "InvalidParameterValue", "Message": message}}, "RunInstances")
        instances = self.cloud.acquire(self._instance_type, count)
        if instances is None:
            self._no_bandwidth()
            return
        since = time.monotonic()
        try:
            for instance in instances:
                certificate.utils(f"New instance ec2.Instance(id='{instance}') created!")
            certificate.internal("put_instance_monitor_rule", "Setting up monitoring on all instances...")
            self.cloud.watch(self._rule, self)  # a job name that is too long is found here, with machines running
            self._boot(instances)
            self._dispatch(instances)
        except BaseException:
            for _instance in instances:
                self.cloud.release(self._instance_type, since)
            raise

    def _no_bandwidth(self) -> None:
        text = (
            "RESOURCE ERROR: Instance requests greater than pipeline bandwidth. Please contact NeuroCAAS administrator."
        )
        self.certificate.internal("acquire_instances", text)
        raise ValueError("[JOB TERMINATE REASON] Instance requests greater than pipeline bandwidth.")

    def _check_duration(self) -> None:
        if self._minutes is not None and type(self._minutes) is not int:
            text = "duration parameter is not valid. Must be an integer representing max number of minutes expected."
            self.certificate.utils(text)
            self.certificate.line("No instances to terminate")
            raise ValueError(
                "[JOB TERMINATE REASON] Given __duration__ parameter is not valid. "
                "Must be an integer, giving the maximum time expected in minutes."
            )

    def _check_disk(self) -> None:
        if self._extra_disk is not None and type(self._extra_disk) is not int:
            size = _DISK + self._extra_disk  # of a string, this is where it ends
            self.certificate.line("No instances to terminate")
            raise ParamValidationError(
                report="Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize, "
                f"value: {size}, type: {type(size)}, valid types: <class 'int'>"
            )

    def _boot(self, instances: list[str]) -> None:
        certificate = self.certificate
        for instance in instances:
            certificate.utils(f"Instance {instance} State: pending...")
            certificate.utils("Starting Instance...")
            certificate.utils("Instance started!")
        certificate.utils("Initializing instances. This could take a few minutes...")
        self.cloud.pause()
        if self.scenario.fault is Fault.NO_BOOT:
            raise RuntimeError("Waiter SystemStatusOk failed: Max attempts exceeded")
        certificate.utils("Instance systems are set up.")
        certificate.utils("All Instances Initialized.")
        certificate.internal("start_instance", f"Created {len(instances)} immutable analysis environments.")
        if self.scenario.fault is Fault.NO_ANSWER:
            raise ClientError({"Error": {"Code": "InvalidInstanceId", "Message": "not yet"}}, "SendCommand")

    def _dispatch(self, instances: list[str]) -> None:
        self.workers = [
            self._worker(name, instance, last=instance == instances[-1])
            for name, instance in zip(self._names, instances, strict=True)
        ]
        for number, worker in enumerate(self.workers, start=1):
            worker.initialize()
            self.certificate.internal("process_inputs", f"Starting analysis {number} with parameter set {worker.base}")
        if self.scenario.racing:
            self.workers[0].stale = self.certificate.text  # one of them read it before there was a monitor section
        self.certificate.dispatch(self._names)
        self.certificate.internal("process_inputs", "All jobs submitted. Processing...")
        self.outcome = "launched"
        self._launched(self._end if self.scenario.end_marker else None)

    def _worker(self, name: str, instance: str, *, last: bool) -> Worker:
        return Worker(
            cloud=self.cloud,
            scenario=self.scenario,
            fate=self.scenario.fate if last or self.scenario.all_datasets else Fate.VERDICT,
            certificate=self.certificate,
            data=name,
            data_bucket=self._source,
            config=self._config,
            logs=self._logs,
            results=self._results(name),
            instance=instance,
            command=str(uuid.uuid4()),
            through=self._dataset_through,
        )

    def _results(self, name: str) -> Place:
        """Where a dataset's worker puts its results; it looks for the group in the dataset's own name."""
        if self._logs != self.submission.home:
            return self._logs
        folder = f"results/{self.submission.job_name}"
        if self._source != self.submission.bucket:
            return Place(self._source, f"{name.partition('/')[0]}/{folder}")
        group, found, _rest = name.rpartition("/inputs")
        return Place(self._source, f"{group if found else self.submission.group}/{folder}")

    # -- the machines

    def _run_machines(self) -> None:
        since = time.monotonic()
        threads = [
            threading.Thread(target=self._run_machine, args=(worker, since), name=f"machine {worker.base}")
            for worker in self.workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cloud.pause()
        self.outcome = "ended"
        lives_on = (Fate.STOPPED, Fate.NEVER_STARTS)  # to the platform, which waits for it to be shut down
        if self.scenario.fate not in lives_on:
            self._put_end()
        self._put_late()

    def _run_machine(self, worker: Worker, since: float) -> None:
        try:
            with contextlib.suppress(Stopping):
                worker.run()
        finally:
            self.cloud.release(self._instance_type, since)

    def _dataset_through(self, worker: Worker) -> None:
        with self._lock:
            self._through += 1
            if self.scenario.early_end and self._through == 1:
                self.cloud.put(worker.results, "process_results/end.txt", EARLY_MARKER)

    def _put_end(self) -> None:
        """The end marker, unless another job of this name took the rule over, or there is no place for it."""
        if self._end is not None and self.scenario.end_marker and self.cloud.is_watched(self._rule, self):
            self.cloud.put(self._end, "process_results/end.txt", END_MARKER)

    def _put_late(self) -> None:
        late = [(worker.results, name, body) for worker in self.workers for name, body in worker.late]
        if late:
            self.cloud.sleep(self.scenario.delay or 2 * self.cloud.settings.pace)
        for place, name, body in late:
            self.cloud.put(place, f"process_results/{name}", body)

    def _writer(self, place: Place) -> Callable[[str], None]:
        return lambda text: self.cloud.put(place, "logs/certificate.txt", text.encode())


def _load_config(name: str, raw: bytes) -> Any:
    if name.endswith(".json"):
        passed_config = json.loads(raw.decode("utf-8"))
    elif name.endswith(".yaml"):
        passed_config = yaml.safe_load(raw)
    return passed_config  # any other extension: the very UnboundLocalError that people find in their certificates


def _split(address: str) -> tuple[str, str]:
    """s3://bucket/key → bucket, key"""
    bucket, _slash, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def _while_handling(first: BaseException, second: BaseException) -> BaseException:
    """`second`, raised while `first` was handled: both are in its traceback."""
    try:
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904 - its being implicit is the point
    except BaseException as error:
        return error
