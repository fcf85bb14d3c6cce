"""Names on S3: areas, keys, job ids, part sizes. Pure functions of their arguments.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Names"); Amazon S3 object and multipart limits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anyascii import anyascii

from ncaasd.errors import LocalError
from ncaasd.neurocaas.text import shown

KEY_BYTES_LIMIT = 1024  # Amazon S3: a key is at most 1,024 bytes of UTF-8
ID_LIMIT = 51  # len(bucket) + len(id): `Monitorjob__<bucket>_<id>` must be a legal rule name of 64 characters
ID_DIGITS = 15  # of the ids that `job_id` makes
MAX_PARTS = 10_000
PART_STEP = 8 * 1024**2
MAX_PART = 5 * 1024**3
MAX_OBJECT = MAX_PARTS * MAX_PART  # 48.8 TiB

_ID_VERSION = 1  # part of every job id: a change here makes every job a new one
ID = re.compile(r"[A-Za-z0-9._-]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9._/-]+")
_UNSAFE_IN_SEGMENT = re.compile(r"[^A-Za-z0-9._-]+")  # a transliteration may hold a slash: one half is 1/2
_SEGMENT_HASH = 8  # hexadecimal digits of the hash in a mapped name
_STEM_LIMIT = 100  # characters that a transliteration may have: a name of emoji could have a thousand
# Endings that have two parts: a.ome.tif, a.nii.gz, a.csv.gz.
_TWO_ENDINGS = re.compile(r"(?:ome\.[A-Za-z0-9]+|[A-Za-z][A-Za-z0-9]{0,4}\.(?:gz|bz2|xz|zst|lz4))")
_MARK = re.compile(r"([0-9a-f]{16})\.([0-9]{12})")
_JOB_FOLDER = re.compile(r"job__([^_/]+)_([^/]+)/?")
_TRIGGERS = {
    "submit.json": "NeuroCAAS starts (and bills) a job for every key that ends so, wherever it lies in the bucket",
    "end.txt": "NeuroCAAS and its clients take a key that ends so for the end of a job",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys and prefixes of one group in one analysis's bucket."""

    bucket: str
    group: str

    @property
    def inputs(self) -> str:
        return f"{self.group}/inputs/"

    @property
    def configs(self) -> str:
        return f"{self.group}/configs/"

    @property
    def submissions(self) -> str:
        return f"{self.group}/submissions/"

    @property
    def results(self) -> str:
        return f"{self.group}/results/"

    def input_key(self, prefix: str, path: str) -> str:
        """The key of a dataset: `prefix` is the config's `upload.prefix`, `path` is below `inputs/`, already safe."""
        return self.inputs + _joined(prefix, path)

    def config_key(self, prefix: str, name: str) -> str:
        """The key of a config: `name` is below `configs/`, already safe (see `config_name`)."""
        return self.configs + _joined(prefix, name)

    def submit_key(self, job_id: str) -> str:
        return f"{self.submissions}{job_id}-submit.json"

    def job_folder(self, job_id: str) -> str:
        """With the trailing slash: `…_12` is a prefix of `…_123`."""
        return f"{self.results}{folder_name(self.bucket, job_id)}/"

    def rig_marker(self, rig: str) -> str:
        """The object that tells a rig with a new journal that it has been here before."""
        return f"{self.submissions}.ncaasd/{rig}"

    def journal_marks(self, rig: str) -> str:
        """The prefix of the marks of all journals that the rig has had: see `journal_mark`. It is not below `rig_marker(rig)`,
        which is an object: where keys are files (SeaweedFS) no object may lie below another. No rig's name begins with a dot."""
        return f"{self.submissions}.ncaasd/.journals/{rig}/"

    def journal_mark(self, rig: str, generation: str, submits: int) -> str:
        """The object whose key tells how many submits a journal has begun: in `submissions/` keys can be listed, but not read."""
        return f"{self.journal_marks(rig)}{generation}.{submits:012d}"

    def marked_submits(self, rig: str, keys: Iterable[str]) -> dict[str, int]:
        """Generation -> the highest count that the marks among `keys` tell."""
        found: dict[str, int] = {}
        for key in keys:
            mark = _MARK.fullmatch(key.removeprefix(self.journal_marks(rig)))
            if mark is not None:
                found[mark[1]] = max(found.get(mark[1], 0), int(mark[2]))
        return found

    def probe_key(self) -> str:
        """The object on which the endpoint must prove that it honours If-None-Match."""
        return f"{self.submissions}.ncaasd/probe"


def _joined(prefix: str, path: str) -> str:
    prefix = prefix.strip("/")
    return f"{prefix}/{path}" if prefix else path


def folder_name(bucket: str, job_id: str) -> str:
    """`job__<bucket>_<id>`: the job's folder below `results/`, remote and local, without a slash."""
    return f"job__{bucket}_{job_id}"


def job_id_from_folder(name: str) -> str | None:
    """The id in a job folder's name (with or without a trailing slash); None when it is not one.

    A bucket's name holds no underscore, so the first one after `job__` ends it; ids of others may hold some.
    """
    match = _JOB_FOLDER.fullmatch(name)
    return match[2] if match else None


def safe_key(path: str) -> str:
    """`path` mapped onto `[A-Za-z0-9._/-]`, folder by folder. A name that is safe already stays as it is; any other is
    transliterated, and gets a hash of itself before its ending, so that different names stay different:
    `Größe 3.tif` -> `Grosse_3-e45c2f8a.tif`. Deterministic, everywhere: it asks neither the locale nor the file system.

    Two paths get one key only when one of them is named as the other is mapped; the caller must refuse that, naming them.

    The platform puts names into a shell line in double quotes, on one stack without quotes: docs/neurocaas.md.
    """
    return "/".join(map(_safe_segment, path.split("/"))) if _UNSAFE.search(path) else path


def first_safe_key(path: str) -> str:
    """The key as the first release mapped paths (many to one), to recognise objects that it has put into S3."""
    return _UNSAFE.sub("_", path)


def _safe_segment(name: str) -> str:
    if not _UNSAFE_IN_SEGMENT.search(name):
        return name
    stem, ending = _split_ending(name)
    stem = transliterated(stem)[:_STEM_LIMIT].rstrip("-") or "_"
    if stem.startswith("-"):  # would look like an option
        stem = "_" + stem[1:]
    if stem.startswith("inputs"):  # what workers take for the end of the group (see key_problems)
        stem = "_" + stem
    digest = hashlib.sha256(_bytes_of(name)).hexdigest()[:_SEGMENT_HASH]
    return f"{stem}-{digest}{transliterated(ending)[:_STEM_LIMIT]}"


def _split_ending(name: str) -> tuple[str, str]:
    """(stem, ending with its dot, or ""): `a.ome.tif` -> `a`, `.ome.tif`. A dot at the beginning begins no ending."""
    stem, dot, last = name.rpartition(".")
    if not stem.strip(".") or not last:
        return name, ""
    before, _dot, inner = stem.rpartition(".")
    if before.strip(".") and _TWO_ENDINGS.fullmatch(f"{inner}.{last}"):
        return before, f".{inner}.{last}"
    return stem, dot + last


def transliterated(text: str) -> str:
    """`text` in `[A-Za-z0-9._-]`, for people to read: different texts may give the same result."""
    return _UNSAFE_IN_SEGMENT.sub("_", anyascii(text))


def _bytes_of(name: str) -> bytes:
    """The name as it is on a disk. A name that no disk has (half a surrogate pair, from a manifest) begins with a NUL."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"\0" + name.encode("utf-8", "surrogatepass")


def needs_mapping(path: str) -> bool:
    return _UNSAFE.search(path) is not None


def key_problems(key: str) -> list[str]:
    """Why `key` (whole: `group/inputs/…`, or a part of it) must not be put into an analysis's bucket; empty when it
    may. Checked after mapping, for inputs and configs alike. F65, F75.
    """
    problems = []
    for ending, why in _TRIGGERS.items():
        if key.endswith(ending):
            problems.append(f"it ends in {ending}: {why}; rename it")
    segments = key.split("/")
    if "" in segments:
        problems.append("it has an empty folder or file name in it (two slashes, or one at an end)")
    if "." in segments or ".." in segments:
        problems.append('it has a folder named "." or ".." in it')
    if len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES_LIMIT:
        problems.append(f"it is longer than S3's {KEY_BYTES_LIMIT} bytes; shorten its folders' names")
    bad = "".join(sorted({char for run in _UNSAFE.findall(key) for char in run}))
    if bad:
        problems.append(
            f"it has {bad!a} in it: NeuroCAAS puts names into a shell line, so only letters, digits and . _ - / "
            "are safe; rename it, or set upload.names: sanitize"
        )
    if "inputs" in segments[1:]:
        below = segments[segments.index("inputs", 1) + 1 :]
        problems += [
            f"{shown(segment)} begins with inputs: NeuroCAAS's workers take the last /inputs in a key for the end of the "
            "group, and would write beside it; rename it"
            for segment in below
            if segment.startswith("inputs")
        ]
    return problems


def job_id(
    *, bucket: str, group: str, name: str, datasets: Sequence[str], attempt: int, checksums: Sequence[str] = ()
) -> str:
    """15 decimal digits without a leading zero, the same on every machine and at every time.

    `name` is the rule's or the job's own, `datasets` the keys (with the prefix, so that two rigs never share an id) in
    any order, `attempt` counts reruns and retries, `checksums` are the data's or config's only where `rerun_on` names
    them (as `key=checksum`; any order). The form is the website's, which reads an id as an integer. docs/neurocaas.md.
    """
    canonical = json.dumps(
        [_ID_VERSION, bucket, group, name, sorted(datasets), attempt, sorted(checksums)],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    number = int.from_bytes(hashlib.sha256(canonical.encode("ascii")).digest(), "big")
    return str(10**14 + number % (9 * 10**14))


def id_fits(bucket: str, job_id: str) -> bool:
    """Whether the platform can watch a job of this id. It finds out itself only after it has launched machines. F64."""
    return len(bucket) + len(job_id) <= ID_LIMIT


def too_long(bucket: str, job_id: str) -> str:
    """The sentence for an id that does not fit."""
    return (
        f"{job_id} has {len(job_id)} characters, {max(0, ID_LIMIT - len(bucket))} are allowed for {bucket}: NeuroCAAS "
        "finds it too long only after machines were launched"
    )


def config_name(name: str, content: bytes) -> str:
    """A config's name below `configs/`, named by its content: `caiman.yaml` -> `caiman-1a2b3c4d.yaml`.

    So a config can be mended while jobs run, and each job's is kept. `.yml` becomes `.yaml`: the platform reads only
    `.yaml` and `.json`.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.rpartition(".")
    if not dot:
        stem, extension = base, ""
    if extension == "yml":
        extension = "yaml"
    return safe_key(f"{folder}{slash}{stem}-{hashlib.sha256(content).hexdigest()[:8]}{dot}{extension}")


def part_size(size: int) -> int:
    """Bytes per part for a file of `size` bytes: the smallest multiple of 8 MiB that keeps it within S3's 10,000
    parts. Deterministic, so a resumed upload cuts the file at the same places. Raises LocalError above 48.8 TiB.

    Source: Amazon S3 multipart upload limits. F37.
    """
    if size > MAX_OBJECT:
        raise LocalError(
            f"a file of {size} bytes is larger than the {MAX_OBJECT} bytes that S3 stores in one object",
            hint="split the recording",
        )
    steps = -(-size // (MAX_PARTS * PART_STEP))
    return max(1, steps) * PART_STEP


def multipart_etag(part_md5s: Sequence[str]) -> str:
    """The ETag S3 gives an object completed of parts with these ETags (hex MD5s), in order."""
    whole = hashlib.md5(b"".join(bytes.fromhex(etag) for etag in part_md5s), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(part_md5s)}"
