"""One job as NeuroCAAS's job manager runs it: four steps, then the machines, then the end marker.

The order of events is the platform's: NeuroCAAS protocol, docs/neurocaas.md, "What happens after the put".
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Literal

import yaml
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from ncaasd.neurocaas.addresses import is_address, split
from ncaasd.sandbox.certificate_writer import Certificate, traceback_text
from ncaasd.sandbox.cloud import DEFAULT_INSTANCE, Cloud, Place, Stopping
from ncaasd.sandbox.scenarios import Fate, Fault, Scenario, choose
from ncaasd.sandbox.submission import Submission, load_config, resolve, results_place
from ncaasd.sandbox.validation import OverBudget, check_budget, check_disk, check_duration, validate
from ncaasd.sandbox.worker import Worker

END_MARKER = b"end of analysis marker"
EARLY_MARKER = b"end file.\n"
_ATTEMPTS = 3  # the platform's own
_RETRY_AFTER = 3.0  # steps; a minute or two there
_AWS_CODES = {Fault.NO_CAPACITY: "InsufficientInstanceCapacity", Fault.VCPU_LIMIT: "VcpuLimitExceeded"}


class Job:
    """One job. `run()` runs it to its end, in the caller's thread; `launched` is called when its machines are started."""

    def __init__(
        self, cloud: Cloud, submission: Submission, *, launched: Callable[[Place | None], None], scenario: Scenario
    ) -> None:
        self.submission = submission
        self.cloud = cloud
        self.scenario = scenario
        self.outcome: Literal["starting", "no certificate", "silent", "rejected", "launched", "ended"] = "starting"
        self.over = threading.Event()  # set when the job does no more
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
        """The config, read early only for its scenario; None when it can't be read."""
        name = str(self.submission.body.get("configname"))
        bucket, key = split(name) if is_address(name) else (self.submission.bucket, name)
        with contextlib.suppress(ClientError, BotoCoreError, ValueError, yaml.YAMLError, UnboundLocalError):
            return load_config(key, self.cloud.get(bucket, key))
        return None

    @property
    def _rule(self) -> str:
        return f"Monitor{self.submission.job_name}"

    # -- the four steps

    def _attempt(self, attempt: int) -> bool:
        """One run of the job manager. True when AWS refused with an error after which the platform tries again."""
        home = self.submission.home
        # The platform first makes the folder itself, as an empty object.
        self.cloud.put(home, "", b"")
        line = self.scenario.delay or self.cloud.settings.pace / 10
        self.certificate = Certificate(self._writer(home), lambda: self.cloud.sleep(line))
        self.certificate.begin(str(self.submission.body["timestamp"]))
        self._step = 1
        try:
            self._initialize()
        except (LookupError, TypeError, ValueError, ClientError):
            # The platform catches no error in step 1: the certificate just stops.
            self.outcome = "silent"
            return False
        try:
            self._run_step(2, self._validate)
            self._run_step(3, self._set_up)
            self._run_step(4, lambda: self._process(attempt))
        except Stopping:
            raise
        except OverBudget:
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
        # The job manager cleans up what isn't there yet, twice, and dies of the error. If that is before there were
        # machines, the platform tries again.
        before_machines = error.operation_name == "RunInstances"
        problems = ["'Submission_dev' object has no attribute 'rulename'"]
        if before_machines:
            problems.insert(0, "cannot access local variable 'instances' where it is not associated with a value")
        for problem in problems:
            kind = UnboundLocalError if "local variable" in problem else AttributeError
            text = traceback_text(_while_handling(error, kind(problem)))
            self._reject("INTERNAL", f"While cleaning up from AWS Error, another error occured: {text}")
        return bool(before_machines)

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
        self._request = resolve(self.submission, data, config)
        for note in self._request.notes:
            certificate.internal("init", note)
        if self._request.logs != self.submission.home:
            self.cloud.put(self._request.logs, "", b"")
            certificate.continue_at(self._writer(self._request.logs))
        certificate.done(1)

    # -- step 2

    def _validate(self) -> None:
        if self._complaint is not None:
            raise self._complaint
        fault = self.scenario.fault
        self._parameters = validate(self.cloud, self.certificate, self._request, fault)
        self._names = list(self._request.names)  # one machine each
        self._configs = [self._request.config] * len(self._names)
        if self.scenario.ensemble:
            self._make_ensemble()
        count = len(self._names)
        minutes = self._parameters.minutes
        check_budget(self.cloud, self.certificate, self._rule, count, self._instance_type, minutes, fault)

    def _make_ensemble(self) -> None:
        """Use the job's one dataset for each machine, and make a config for each, beside the job's.

        As `Submission_ensemble` of the platform's job manager does, also in what it does with several datasets.
        """
        if len(self._names) != 1:
            raise OverBudget  # the platform takes its failed assertion for that of the budget
        request = self._request
        settings = load_config(request.config, self.cloud.get(request.source, request.config))
        folder = request.config.rpartition("/")[0]
        self._names *= self.scenario.ensemble
        self._configs = []
        for number in range(1, len(self._names) + 1):
            key = f"{folder}/{self.submission.job_name}inst{number}config.json"
            self.cloud.put(Place(request.source, ""), key, json.dumps(settings | {"jobnb": number}).encode())
            self._configs.append(key)

    # -- steps 3 and 4

    def _set_up(self) -> None:
        if self.scenario.fault is Fault.NO_ENVIRONMENT:
            raise RuntimeError("[JOB TERMINATE REASON] The environment of this analysis cannot be set up.")

    def _process(self, attempt: int) -> None:
        certificate, fault, count = self.certificate, self.scenario.fault, len(self._names)
        if fault is Fault.NO_BANDWIDTH:
            self._no_bandwidth()
        certificate.utils(f"Acquiring new {self._instance_type} instances from ami-0a0000000000000aa ...")
        check_duration(certificate, self._parameters)
        certificate.utils("save not available. Launching standard instance.")
        check_disk(certificate, self._parameters)
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
            self._worker(number, name, instance, last=instance == instances[-1])
            for number, (name, instance) in enumerate(zip(self._names, instances, strict=True), start=1)
        ]
        for number, worker in enumerate(self.workers, start=1):
            worker.initialize()
            self.certificate.internal("process_inputs", f"Starting analysis {number} with parameter set {worker.base}")
        if self.scenario.racing:
            self.workers[0].stale = self.certificate.text  # one of them read it before there was a monitor section
        # They are kept in a mapping by name there: a name that is in the list twice has one line.
        self.certificate.dispatch(list(dict.fromkeys(self._names)))
        self.certificate.internal("process_inputs", "All jobs submitted. Processing...")
        self.outcome = "launched"
        self._launched(self._request.end if self.scenario.end_marker else None)

    def _worker(self, number: int, name: str, instance: str, *, last: bool) -> Worker:
        return Worker(
            cloud=self.cloud,
            scenario=self.scenario,
            fate=self.scenario.fate if last or self.scenario.all_datasets else Fate.VERDICT,
            certificate=self.certificate,
            data=name,
            data_bucket=self._request.source,
            config=self._configs[number - 1],
            logs=self._request.logs,
            results=results_place(self.submission, self._request, name),
            instance=instance,
            command=str(uuid.uuid4()),
            number=number,
            through=self._dataset_through,
        )

    # -- the machines

    def _run_machines(self) -> None:
        since = time.monotonic()
        threads = [
            threading.Thread(target=self._run_machine, args=(worker, since), name=f"machine {worker.base}", daemon=True)
            for worker in self.workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cloud.pause()
        self.outcome = "ended"
        lives_on = (Fate.STOPPED, Fate.NEVER_STARTS)  # still running for the platform, which waits for their shutdown
        if self.scenario.fate not in lives_on:
            self._put_end()
        self._put_late()

    def _run_machine(self, worker: Worker, since: float) -> None:
        try:
            with contextlib.suppress(Stopping):
                worker.run()
        except (ClientError, BotoCoreError, Boto3Error, OSError) as error:
            # The client sees a machine that went down without a verdict.
            self.cloud.say(f"{self.submission.job_name}: the machine of {worker.base} failed: {error}")
        finally:
            self.cloud.release(self._instance_type, since)

    def _dataset_through(self, worker: Worker) -> None:
        with self._lock:
            self._through += 1
            if self.scenario.early_end and self._through == 1:
                self.cloud.put(worker.results, "process_results/end.txt", EARLY_MARKER)

    def _put_end(self) -> None:
        """Put the end marker, unless another job of this name has overwritten the monitor rule, or there is no place for it."""
        end = self._request.end
        if end is not None and self.scenario.end_marker and self.cloud.is_watched(self._rule, self):
            self.cloud.put(end, "process_results/end.txt", END_MARKER)

    def _put_late(self) -> None:
        late = [(worker.results, name, body) for worker in self.workers for name, body in worker.late]
        if late:
            self.cloud.sleep(self.scenario.delay or 2 * self.cloud.settings.pace)
        for place, name, body in late:
            self.cloud.put(place, f"process_results/{name}", body)

    def _writer(self, place: Place) -> Callable[[str], None]:
        return lambda text: self.cloud.put(place, "logs/certificate.txt", text.encode())


def _while_handling(first: BaseException, second: BaseException) -> BaseException:
    """`second`, as if raised while `first` was handled, so that both are in its traceback."""
    try:
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904 - its being implicit is the point
    except BaseException as error:
        return error
