"""Where a job's artefacts lie: at home (its folder in the analysis's bucket), or elsewhere when storage is bypassed.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Storage bypass").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ncaasd.neurocaas.addresses import split_checked
from ncaasd.neurocaas.naming import Layout, folder_name
from ncaasd.neurocaas.submit_body import SubmitBody, basename

_ENSEMBLE_CONFIG = re.compile(r"job__.+inst[1-9]\d{0,4}config\.json")


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket and a key, or a prefix ending in `/`."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class ArtefactPlaces:
    """Where a job's artefacts lie: each in its own place when storage is bypassed."""

    certificate: S3Place
    stub: S3Place | None  # with resultpath: a certificate that never grows past the start, at home
    statuses: S3Place  # prefix: `logs/`
    results: S3Place  # prefix: `process_results/`
    end_marker: S3Place | None  # None: nowhere
    end_marker_readable: bool  # it lies where a key of this group may read
    blind: bool  # the status files stay INITIALIZING for ever

    @property
    def folders(self) -> tuple[S3Place, ...]:
        """The prefixes to list, once each."""
        found = [
            S3Place(place.bucket, place.key[: -len(tail)])
            for place, tail in (
                (self.certificate, "logs/certificate.txt"),
                (self.results, "process_results/"),
                (self.stub, "logs/certificate.txt"),
            )
            if place is not None
        ]
        return tuple(dict.fromkeys(found))


def artefacts(job: SubmitBody, layout: Layout) -> ArtefactPlaces:
    """Where to look for each artefact of a job. `job` has no `validate_job` problems."""
    home = S3Place(layout.bucket, layout.job_folder(job.timestamp))
    # the platform finds the group by the /inputs in a dataset's name; without it the end marker is never put
    ends = all("/inputs/" in name for name in job.datanames)
    result = split_checked(job.resultpath) if job.resultpath else None
    data = split_checked(job.datanames[0]) if job.datanames else None
    if result is not None:
        # everything is put elsewhere, but the end marker at the same path of the analysis's own bucket
        there = f"{result[1].removesuffix('/')}/{folder_name(layout.bucket, job.timestamp)}/"
        return _places(S3Place(result[0], there), S3Place(result[0], there), there, ends, layout, stub=home)
    if data is not None:
        first = data[1].partition("/")[0]
        foreign = S3Place(data[0], f"{first}/results/{folder_name(layout.bucket, job.timestamp)}/")
        if foreign != home:
            return _places(home, foreign, home.key, ends, layout)
    return _places(home, home, home.key, ends, layout)


def _places(
    logs: S3Place, results: S3Place, ending: str, ends: bool, layout: Layout, *, stub: S3Place | None = None
) -> ArtefactPlaces:
    """From the job folders of logs and results; `ending` is that of the end marker, if there will be one (`ends`)."""
    return ArtefactPlaces(
        certificate=S3Place(logs.bucket, f"{logs.key}logs/certificate.txt"),
        stub=S3Place(stub.bucket, f"{stub.key}logs/certificate.txt") if stub is not None and stub != logs else None,
        statuses=S3Place(logs.bucket, f"{logs.key}logs/"),
        results=S3Place(results.bucket, f"{results.key}process_results/"),
        end_marker=S3Place(layout.bucket, f"{ending}process_results/end.txt") if ends else None,
        end_marker_readable=ends and ending.startswith(layout.results),
        blind=logs != results,
    )


def is_result(name: str, config: str) -> bool:
    """Whether an object, by its `name` below the job's folder, is a result of the analysis. `config` is the job's.

    Workers put a copy of the config and `update.txt` for each dataset, also after a failure; `end.txt` is the end marker. The
    machines of an ensemble have configs of their own, made by the job manager (`Submission_ensemble.parse_config`).
    """
    folder, _, rest = name.partition("/")
    if folder != "process_results" or rest in ("", "update.txt", "end.txt", basename(config)):
        return False
    return _ENSEMBLE_CONFIG.fullmatch(rest) is None
