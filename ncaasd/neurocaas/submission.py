"""The submit file: its exact bytes, its validation, and where a job's artefacts lie.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Names", "Storage bypass", "Traps").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ncaasd.errors import DeclarationError, Problem
from ncaasd.neurocaas.naming import ID_LIMIT, Layout, folder_name, id_fits, key_problems

SUBMIT_LIMIT = 1024**2  # bytes of a submit file that are read
S3_SCHEME = "s3://"
CONFIG_ENDINGS = (".yaml", ".json")
RESERVED = ("__duration__", "__dataset_size__")

_ID = re.compile(r"[A-Za-z0-9._-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_INSTANCE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_SHELL = re.compile(r"[^A-Za-z0-9._/:=+,@%-]")
_FIELDS = ("dataname", "configname", "timestamp", "instance_type", "resultpath")


@dataclass(frozen=True, slots=True)
class SubmitBody:
    """What a submit file asks for. Values without a bucket are keys of the analysis's own; else `s3://bucket/key`."""

    datanames: tuple[str, ...]
    configname: str
    timestamp: str  # the job id
    instance_type: str | None = None
    resultpath: str | None = None

    def render(self) -> bytes:
        """The file's exact bytes: the same for the same body, UTF-8 without BOM; `dataname` is always a list."""
        body: dict[str, object] = {
            "dataname": list(self.datanames),
            "configname": self.configname,
            "timestamp": self.timestamp,
        }
        # absent, not null: a null instance_type kills the job in step 2
        if self.instance_type is not None:
            body["instance_type"] = self.instance_type
        if self.resultpath is not None:
            body["resultpath"] = self.resultpath
        return (json.dumps(body, ensure_ascii=True, indent=1) + "\n").encode("ascii")

    @property
    def bypass(self) -> bool:
        """Data and config come from another place than the analysis's own."""
        return any(name.startswith(S3_SCHEME) for name in (*self.datanames, self.configname))

    @property
    def basenames(self) -> tuple[str, ...]:
        """What the platform names each dataset's status file by."""
        return tuple(basename(name) for name in self.datanames)


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


def split_s3(url: str) -> tuple[str, str] | None:
    """`s3://bucket/key` as (bucket, key); None when it is no such URL. The key may be empty."""
    if not url.startswith(S3_SCHEME):
        return None
    bucket, _, key = url[len(S3_SCHEME) :].partition("/")
    return (bucket, key) if _BUCKET.fullmatch(bucket) else None


def basename(name: str) -> str:
    return name.rpartition("/")[2]


def artefacts(job: SubmitBody, layout: Layout) -> ArtefactPlaces:
    """Where to look for each artefact of a job. `job` must have no `validate_job` problems."""
    home = layout.job_folder(job.timestamp)
    folder = folder_name(layout.bucket, job.timestamp) + "/"
    result = split_s3(job.resultpath) if job.resultpath else None
    data = split_s3(job.datanames[0]) if job.datanames else None
    # the workers know a group by the /inputs in a dataset's name; without it the end marker is never put
    ends = all("/inputs/" in name for name in job.datanames)
    if result is not None:
        bucket, prefix = result[0], result[1].strip("/")
        there = f"{prefix}/{folder}" if prefix else folder
        # the platform puts the marker at the same path in the analysis's bucket, not in the results'
        marker = S3Place(layout.bucket, f"{there}process_results/end.txt") if ends and prefix else None
        return _places(
            S3Place(bucket, there), S3Place(bucket, there), marker, layout, stub=S3Place(layout.bucket, home)
        )
    marker = S3Place(layout.bucket, f"{home}process_results/end.txt") if ends else None
    first = data[1].partition("/")[0] if data else ""
    if data is None or (data[0], first) == (layout.bucket, layout.group):
        return _places(S3Place(layout.bucket, home), S3Place(layout.bucket, home), marker, layout)
    foreign = S3Place(data[0], f"{first}/results/{folder}")
    return _places(S3Place(layout.bucket, home), foreign, marker, layout, blind=True)


def _places(
    logs: S3Place,
    results: S3Place,
    marker: S3Place | None,
    layout: Layout,
    *,
    stub: S3Place | None = None,
    blind: bool = False,
) -> ArtefactPlaces:
    if stub == logs:
        stub = None
    return ArtefactPlaces(
        certificate=S3Place(logs.bucket, f"{logs.key}logs/certificate.txt"),
        stub=S3Place(stub.bucket, f"{stub.key}logs/certificate.txt") if stub else None,
        statuses=S3Place(logs.bucket, f"{logs.key}logs/"),
        results=S3Place(results.bucket, f"{results.key}process_results/"),
        end_marker=marker,
        end_marker_readable=marker is not None and marker.key.startswith(layout.results),
        blind=blind,
    )


def parse_submit(data: bytes, file: str, *, bucket: str = "") -> SubmitBody:
    """Read a submit file that a person wrote. Raises DeclarationError with all its problems and their lines.

    `file` is the name that problems show. With `bucket`, the timestamp's length is checked too (F64).
    Fields that the platform does not know are passed over, as it does.
    """
    if basename(file) == "submit.json":
        raise _refused(
            file, "this name is overwritten by NeuroCAAS's website at any time; name it <something>-submit.json"
        )
    value, places = _load(data, file)
    checker = _Checker(file, places)
    datanames = checker.datanames(value)
    configname = checker.text(value, "configname", needed=True)
    timestamp = checker.timestamp(value, bucket)
    instance_type = checker.text(value, "instance_type")
    resultpath = checker.text(value, "resultpath")
    if checker.problems:
        raise DeclarationError(sorted(checker.problems, key=lambda problem: (problem.line, problem.column)))
    return SubmitBody(datanames, configname or "", timestamp, instance_type, resultpath)


def _refused(file: str, message: str, line: int = 0, column: int = 0, key: str = "") -> DeclarationError:
    return DeclarationError([Problem(file, line, column, key, message)])


def _load(data: bytes, file: str) -> tuple[dict[str, object], dict[str, tuple[int, int]]]:
    """The object in the file, and the line and column of each of its keys."""
    if len(data) > SUBMIT_LIMIT:
        raise _refused(file, f"it has {len(data)} bytes; a submit file has at most {SUBMIT_LIMIT}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _refused(
            file, "it begins with a byte order mark, at which NeuroCAAS dies silently; save it as plain UTF-8", 1, 1
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refused(file, "it is not UTF-8, which is all that NeuroCAAS reads", line, 1) from None
    if not text.strip():
        raise _refused(file, "it is empty; NeuroCAAS would ignore it without a word")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _refused(file, f"it is not JSON: {error.msg}", error.lineno, error.colno) from None
    except (RecursionError, ValueError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else f"it is not JSON: {error}"
        raise _refused(file, why) from None
    if not isinstance(value, dict):
        raise _refused(file, f'it holds {_kind(value)}; a submit file is an object: {{"dataname": …}}', 1, 1)
    places, twice = _keys(text)
    if twice:
        raise DeclarationError(
            [
                Problem(file, line, column, key, "this key is here twice; only one would count")
                for key, line, column in twice
            ]
        )
    return value, places


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _keys(text: str) -> tuple[dict[str, tuple[int, int]], list[tuple[str, int, int]]]:
    """Line and column (from 1) of each key of the outermost object of a valid JSON text, and keys seen again."""
    places: dict[str, tuple[int, int]] = {}
    twice = []
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"(\s*:)?|[\[{]|[\]}]', text):
        token = match[0]
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif depth == 1 and match[1]:
            key = str(json.loads(token[: len(token) - len(match[1])]))
            line = text.count("\n", 0, match.start()) + 1
            column = match.start() - text.rfind("\n", 0, match.start())
            if key in places:
                twice.append((key, line, column))
            places.setdefault(key, (line, column))
    return places, twice


def _kind(value: object) -> str:
    names = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")


class _Checker:
    """Collects the problems of one submit file."""

    def __init__(self, file: str, places: Mapping[str, tuple[int, int]]) -> None:
        self.file = file
        self.places = places
        self.problems: list[Problem] = []

    def wrong(self, key: str, message: str) -> None:
        line, column = self.places.get(key, (0, 0))
        self.problems.append(Problem(self.file, line, column, key, message))

    def text(self, value: Mapping[str, object], key: str, *, needed: bool = False) -> str | None:
        if key not in value:
            if needed:
                self.wrong(key, "it is missing; without it the job dies silently")
            return None
        found = value[key]
        if not isinstance(found, str):
            advice = "" if needed else "; leave it out when you don't need it"
            self.wrong(key, f"{_kind(found)} was found, a string is allowed: NeuroCAAS dies of anything else{advice}")
            return None
        if not found:
            self.wrong(key, "it is empty")
            return None
        return found

    def datanames(self, value: Mapping[str, object]) -> tuple[str, ...]:
        if "dataname" not in value:
            self.wrong("dataname", "it is missing; without it the job dies silently")
            return ()
        found = value["dataname"]
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list):
            self.wrong(
                "dataname",
                f"{_kind(found)} was found, a string or a list of strings is allowed: the job would die silently",
            )
            return ()
        if not names:
            self.wrong("dataname", "it names no dataset")
        for index, name in enumerate(names, start=1):
            if not isinstance(name, str) or not name:
                what = _kind(name) if not isinstance(name, str) else "an empty string"
                self.wrong("dataname", f"number {index} is {what}, a dataset's name is a string that is not empty")
        return tuple(name for name in names if isinstance(name, str))

    def timestamp(self, value: Mapping[str, object], bucket: str) -> str:
        found = value.get("timestamp")
        if "timestamp" not in value:
            self.wrong("timestamp", "it is missing; without it no job starts, and nothing says so")
            return ""
        if isinstance(found, bool) or not isinstance(found, str | int):
            self.wrong("timestamp", f"{_kind(found)} was found, a string is allowed")
            return ""
        stamp = str(found)
        if not _ID.fullmatch(stamp):
            self.wrong(
                "timestamp",
                f"{stamp!r} was found, letters, digits and . _ - are allowed: it names a folder and an AWS rule",
            )
        elif bucket and not id_fits(bucket, stamp):
            self.wrong("timestamp", _too_long(bucket, stamp))
        return stamp


def _too_long(bucket: str, job_id: str) -> str:
    return (
        f"{job_id} has {len(job_id)} characters, {max(0, ID_LIMIT - len(bucket))} are allowed for {bucket}: NeuroCAAS "
        "finds it too long only after machines were launched"
    )


def validate_job(body: SubmitBody, layout: Layout) -> list[str]:
    """Everything wrong with a job, in sentences for people that name the trap; empty when it may be submitted."""
    problems = []
    if not body.datanames:
        problems.append("it names no dataset")
    if not _ID.fullmatch(body.timestamp):
        problems.append(
            f"its id {body.timestamp!r} is not of letters, digits and . _ - only: it names a folder and an AWS rule"
        )
    if not id_fits(layout.bucket, body.timestamp):
        problems.append(f"its id {_too_long(layout.bucket, body.timestamp)}")
    if not layout.group or key_problems(layout.group):
        problems.append(
            f"the group {layout.group!r} cannot be used: NeuroCAAS never starts a job whose submit file's key needs encoding"
        )
    if body.instance_type is not None and not _INSTANCE.fullmatch(body.instance_type):
        problems.append(
            f"instance_type {body.instance_type!r} is not of the form m5.xlarge: NeuroCAAS cannot tell its cost, and "
            "rejects the job"
        )
    problems += _collisions(body)
    problems += _config_name(body.configname)
    problems += _bypass_problems(body) if body.bypass else _home_problems(body, layout)
    if body.resultpath is not None:
        problems += _resultpath_problems(body.resultpath)
    return problems


def _collisions(body: SubmitBody) -> list[str]:
    """F66: logs are named by base name, and results of all datasets go into one flat folder."""
    problems = []
    for name, count in Counter(body.basenames).items():
        if count > 1:
            full = ", ".join(sorted({data for data in body.datanames if basename(data) == name}))
            problems.append(
                f"{count} datasets are named {name} ({full}): NeuroCAAS names logs by the base name and puts all results into "
                "one folder, so they would overwrite each other; give each a job of its own"
            )
    return problems


def _config_name(name: str) -> list[str]:
    if name.endswith(CONFIG_ENDINGS):
        return []
    base = basename(name)
    advice = "name it .yaml" if re.search(r"\.(yml|ya?ml)$", base, re.IGNORECASE) else "give it one of these"
    return [f"the config {base} does not end in .yaml or .json (exactly so): NeuroCAAS dies of anything else; {advice}"]


def _home_problems(body: SubmitBody, layout: Layout) -> list[str]:
    problems = []
    for name in body.datanames:
        if not name.startswith(layout.inputs) or name == layout.inputs:
            problems.append(
                f"the dataset {name} is not below {layout.inputs}: NeuroCAAS's workers would never end such a job"
            )
        problems += [f"the dataset {name} cannot be used: {problem}" for problem in key_problems(name)]
    if not body.configname.startswith(layout.configs):
        problems.append(f"the config {body.configname} is not below {layout.configs}")
    problems += [f"the config {body.configname} cannot be used: {problem}" for problem in key_problems(body.configname)]
    return problems


def _bypass_problems(body: SubmitBody) -> list[str]:
    """Storage bypass: s3:// on data and config both, all of one bucket."""
    problems = []
    buckets = []
    for what, name in [*(("dataset", name) for name in body.datanames), ("config", body.configname)]:
        found = split_s3(name)
        if not name.startswith(S3_SCHEME):
            problems.append(
                f"the {what} {name} is not an s3:// address: data and config must both be, or NeuroCAAS finds neither"
            )
        elif found is None or not found[1] or found[1].endswith("/"):
            problems.append(f"the {what} {name} is not of the form s3://bucket/key")
        else:
            buckets.append(found[0])
            problems += _shell_problems(what, name)
    if len(set(buckets)) > 1:
        problems.append(
            f"data and config are in several buckets ({', '.join(sorted(set(buckets)))}): NeuroCAAS takes the first dataset's "
            "bucket for all of them; copy them into one, or make several jobs"
        )
    return problems


def _resultpath_problems(path: str) -> list[str]:
    found = split_s3(path)
    if found is None or not found[1].strip("/"):
        message = (
            f"resultpath {path} is not of the form s3://bucket/folder: NeuroCAAS dies of a path without s3://, and never "
            "ends a job whose results go to the top of a bucket"
        )
        return [message]
    if "//" in found[1]:
        return [f"resultpath {path} has an empty folder name in it"]
    return _shell_problems("resultpath", path)


def _shell_problems(what: str, name: str) -> list[str]:
    """F75."""
    bad = "".join(sorted(set(_SHELL.findall(name))))
    if not bad:
        return []
    return [
        f"the {what} {name} has {bad!a} in it: NeuroCAAS puts names into a shell line, where that breaks or does harm"
    ]


def config_problems(name: str, raw: bytes, value: object) -> list[str]:
    """Why the platform could not use a config. `raw` is the file's bytes, `value` what its YAML or JSON says.

    The parsing is the caller's (`declare`): this room knows no YAML.
    """
    problems = _config_name(name)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        problems.append("it is not UTF-8: NeuroCAAS dies of it")
    if name.endswith(".json") and raw.startswith(b"\xef\xbb\xbf"):
        problems.append("it begins with a byte order mark, of which NeuroCAAS dies in JSON; save it as plain UTF-8")
    if not isinstance(value, Mapping):
        problems.append(f"it holds {_kind(value)}, a mapping (key: value) is allowed: NeuroCAAS dies of anything else")
        return problems
    if not value:
        problems.append("it is empty: NeuroCAAS dies of it")
    problems += reserved_problems(value)
    return problems


def reserved_problems(value: Mapping[object, object]) -> list[str]:
    """Wrong values of the keys that NeuroCAAS itself reads, in a config or in a rule's `set`."""
    units: Sequence[tuple[str, str, int]] = (
        ("__duration__", "whole minutes", 1),
        ("__dataset_size__", "whole GB of extra disk", 0),
    )
    problems = []
    for key, unit, least in units:
        found = value.get(key)
        if found is None:
            continue
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            problems.append(
                f"{key} is {found!r}, {unit} are allowed (a number from {least}, not a text): NeuroCAAS dies of others, "
                "of some only after machines were launched"
            )
    return problems
