"""What one manifest or submit file declares: rules made ready for matching, and jobs. Pure but for what `known` says of files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ncaasd.declare.manifest import parse_manifest
from ncaasd.errors import DeclarationError, Problem
from ncaasd.model import JobSpec
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import parse_submit, validate_job
from ncaasd.plan import expand, grouping
from ncaasd.plan.files import Role, role_of
from ncaasd.plan.grouping import Matcher


@dataclass(frozen=True, slots=True)
class Declared:
    """What one manifest or submit file says."""

    rules: list[Matcher]
    jobs: list[JobSpec]


def read_declaration(
    data: bytes,
    path: str,
    *,
    analysis: str,
    layout: Layout,
    prefix: str,
    sources: Collection[str],
    tools: Collection[str],
    known: expand.Known,
    file: str = "",
) -> Declared:
    """`path`, below the analysis's folder, gives the file's role (`role_of`); `file`: the name that problems give, if another;
    `prefix`: the config's `upload.prefix`. Raises DeclarationError with every problem."""
    role, file = role_of(path), file or path
    if role is Role.SUBMIT:
        body = parse_submit(data, file, bucket=layout.bucket)
        problems = validate_job(expand.with_keys(body, layout), layout)
        if problems:
            raise DeclarationError([Problem(file, 0, 0, "", text) for text in problems])
        spec = expand.job_of_submit(
            body, analysis=analysis, declared_in=path, layout=layout, prefix=prefix, known=known
        )
        return Declared([], [spec])
    manifest = parse_manifest(data, file, standing=role is Role.MANIFEST, sources=sources, tools=tools)
    jobs = [
        expand.job_of_one_off(one, analysis=analysis, declared_in=path, layout=layout, prefix=prefix, known=known)
        for one in manifest.jobs
    ]
    return Declared([grouping.matcher(rule) for rule in manifest.rules], jobs)
