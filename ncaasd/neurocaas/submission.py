"""Everything of a submission, in one place to import from: its body, its rules, and where its artefacts lie."""

from __future__ import annotations

from ncaasd.neurocaas.artefact_places import ArtefactPlaces, S3Place, artefacts, is_result
from ncaasd.neurocaas.job_rules import validate_job
from ncaasd.neurocaas.submit_body import SubmitBody, basename
from ncaasd.neurocaas.submit_file import parse_submit

__all__ = [
    "ArtefactPlaces",
    "S3Place",
    "SubmitBody",
    "artefacts",
    "basename",
    "is_result",
    "parse_submit",
    "validate_job",
]
