"""Everything of a submission, in one place to import from: its body, its rules, and where its artefacts lie."""

from __future__ import annotations

from ncaasd.neurocaas.artefact_places import ArtefactPlaces, S3Place, artefacts, is_result
from ncaasd.neurocaas.job_rules import config_problems, reserved_problems, validate_job
from ncaasd.neurocaas.submit_body import SubmitBody, basename
from ncaasd.neurocaas.submit_file import parse_submit

__all__ = [
    "ArtefactPlaces",
    "S3Place",
    "SubmitBody",
    "artefacts",
    "basename",
    "config_problems",
    "is_result",
    "parse_submit",
    "reserved_problems",
    "validate_job",
]
