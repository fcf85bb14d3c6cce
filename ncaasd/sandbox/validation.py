"""Step 2 of a job, Validation, as NeuroCAAS's job manager does it: what it checks, and how it fails.

Where the job manager dies of a Python error, this raises the same error (NeuroCAAS protocol, docs/neurocaas.md; the
certificates that NeuroCAAS's own code wrote).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ParamValidationError

from ncaasd.sandbox.certificate_writer import Certificate
from ncaasd.sandbox.cloud import Cloud
from ncaasd.sandbox.scenarios import Fault
from ncaasd.sandbox.submission import Request, load_config

_DISK = 15  # GB that every machine has, to which __dataset_size__ is added


class OverBudget(Exception):
    """The job costs more than the budget. It is a verdict, not an error, so the certificate has no traceback of it."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The values of the config's reserved keys, unchecked: their types are checked only in step 4."""

    minutes: Any
    extra_disk: Any


def validate(cloud: Cloud, certificate: Certificate, request: Request, fault: Fault) -> Parameters:
    """Check that data and config exist, by prefix, and that the config is a mapping. Raises what the platform dies of."""
    found = [cloud.exists(request.source, name) for name in request.names]
    if fault is Fault.NOT_FOUND or not all(found):
        _not_found(certificate, request.names, "dataname", "data")
    if not cloud.exists(request.source, request.config):
        _not_found(certificate, request.config, "configname", "a configuration file")
    config = load_config(request.config, cloud.get(request.source, request.config))
    return Parameters(
        _parameter(certificate, config, "__duration__", "not given, proceeding with standard compute launch."),
        _parameter(certificate, config, "__dataset_size__", "is not given, proceeding with standard storage."),
    )


def check_budget(
    cloud: Cloud,
    certificate: Certificate,
    job: str,
    machines: int,
    instance_type: object,
    minutes: object,
    fault: Fault,
) -> None:
    """Check the projected cost. Raises OverBudget, or an Exception when the cost cannot be projected."""
    budget = cloud.settings.budget
    try:
        cost = cloud.project(job, machines, instance_type, minutes)
    except (IndexError, TypeError):
        text = "        [Internal (get_costmonitoring)] Unexpected Error: Unable to estimate cost of current job."
        raise Exception(text)  # noqa: B904 - "During handling …", as there
    if fault is Fault.OVER_BUDGET:
        cost = budget + 1.06
    text = f"Customized budget not found. Using default budget value of {budget}"
    certificate.internal("get_costmonitoring", text)
    projected = f"Projected total costs: ${cost}."
    if cost > budget:
        text = f"{projected} Over budget (${budget}), cancelling job. Contact administrator."
        certificate.internal("get_costmonitoring", text)
        raise OverBudget
    certificate.internal("get_costmonitoring", f"{projected} Remaining budget: ${budget - cost}")


def check_duration(certificate: Certificate, parameters: Parameters) -> None:
    """In step 4: `__duration__` must be whole minutes. Raises ValueError."""
    if parameters.minutes is not None and type(parameters.minutes) is not int:
        text = "duration parameter is not valid. Must be an integer representing max number of minutes expected."
        certificate.utils(text)
        certificate.line("No instances to terminate")
        raise ValueError(
            "[JOB TERMINATE REASON] Given __duration__ parameter is not valid. "
            "Must be an integer, giving the maximum time expected in minutes."
        )


def check_disk(certificate: Certificate, parameters: Parameters) -> None:
    """In step 4: `__dataset_size__` must be whole GB. Raises TypeError or ParamValidationError."""
    if parameters.extra_disk is not None and type(parameters.extra_disk) is not int:
        size = _DISK + parameters.extra_disk  # of a string, this is where it ends
        certificate.line("No instances to terminate")
        raise ParamValidationError(
            report="Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize, "
            f"value: {size}, type: {type(size)}, valid types: <class 'int'>"
        )


def _not_found(certificate: Certificate, names: object, field: str, what: str) -> None:
    certificate.internal("check_existence", f"INPUT ERROR: S3 Bucket does not contain {names}")
    raise ValueError(
        f"[JOB TERMINATE REASON] '{field}' field refers to {what} that cannot be found. "
        "Be sure this is a full path to the data, without the bucket name."
    )


def _parameter(certificate: Certificate, config: Any, name: str, otherwise: str) -> Any:
    try:
        value = config[name]  # a list, a string or nothing at all as the config dies here
    except KeyError:
        certificate.internal("parse_config", f"parameter {name} {otherwise}")
        return None
    certificate.internal("parse_config", f"parameter {name} given: {value}")
    return value
