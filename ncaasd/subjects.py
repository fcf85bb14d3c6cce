"""The event log's names of files, packages, jobs, units and results: whoever writes or reads the log takes them from here.

The first word is the kind, so that no two things share a name: a file of the analysis's own folder, a source's file with an
equal path, and a package differ. Names that are not valid text are escaped, as they are in the log.

Older journals have other names for some files: `file PATH` for a source's file that was skipped, released or lost in S3, and
`file package:RULE:NAME` for a package. Those events are shown as they are. Jobs and units, whose events are looked up by name,
have kept their names, so their older events are found, too.
"""

from __future__ import annotations

from ncaasd.model import JobRow, Place

FILE, JOB, UNIT = "file", "job", "unit"
CONFIG = "config"  # of the whole daemon


def of_file(place: Place) -> str:
    """`file inputs/a.tif`; of a source `file share:a.tif`; of a rule's package `package two-photon:M7.zip`."""
    if place.is_package:
        return _text(f"package {place.package_of}:{place.path}")
    return _text(f"{FILE} {place.tree}:{place.path}" if place.tree else f"{FILE} {place.path}")


def of_job(job: JobRow) -> str:
    return of_attempt(job.spec.name, job.spec.unit, job.attempt)


def of_attempt(name: str, unit: str, attempt: int = 0) -> str:
    """`job two-photon M7/1`, and ` attempt 2` with it when it was run again. `name`: its rule's or its own."""
    return _text(f"{JOB} {name} {unit}" + (f" attempt {attempt}" if attempt else ""))


def of_unit(rule: str, unit: str) -> str:
    return _text(f"{UNIT} {rule} {unit}")


def of_result(folder: str, name: str) -> str:
    """`folder`: the job's below results/; `name`: the object's below that."""
    return _text(f"result {folder}/{name}")


def kind_of(subject: str) -> tuple[str, str]:
    """(its first word, the rest)"""
    kind, _, name = subject.partition(" ")
    return kind, name


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
