"""The config's sections: when a file is whole, uploads, jobs, results and what follows them, notifications, logs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from ncaasd.declare import ignored, kinds, measures, yamlio
from ncaasd.declare.kinds import (
    Absent,
    Count,
    Duration,
    Flag,
    Hours,
    HttpUrl,
    Keep,
    Listed,
    Rate,
    Size,
    Text,
    Whole,
    Word,
    Written,
)
from ncaasd.declare.reading import Misfit, Section
from ncaasd.declare.unbuilt import MARK

DAY = 24 * 60  # minutes


def _prefix(text: str) -> str:
    """A folder in front of every dataset's key. Source: NeuroCAAS protocol, docs/neurocaas.md (names)."""
    if not re.fullmatch(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*", text) or len(text) > 200:
        raise ValueError("must be a folder such as rig-a/ (letters, digits, . _ and -, with a / at the end)")
    if any(part.startswith("inputs") for part in text.split("/")):
        raise ValueError("must have no folder that begins with inputs: NeuroCAAS's workers would lose the group")
    return text


def _archive(text: str) -> str:
    """A path with `{path}` in it, for the recording's own path below inputs/."""
    text = kinds.absolute(text)
    others = [name for name in re.findall(r"\{([^{}]*)\}", text) if name != "path"]
    if "{path}" not in text or others:
        raise ValueError("must have {path} in it, and no other name in braces, such as /archive/{path}")
    return text


def _listen(text: str) -> str:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError("must be an address and a port, such as 127.0.0.1:8484")
    return text


def _service(text: str) -> str:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", text):
        raise ValueError("must be an Apprise URL such as slack://… or mailto://…")
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", text):
        raise ValueError("must be an AWS region such as us-east-1")
    return text


Prefix = Annotated[str, BeforeValidator(kinds.may_be_empty), AfterValidator(_prefix)]
Archive = Annotated[Text, AfterValidator(_archive)]


class Aws(Section):
    """Which key opens the bucket; NeuroCAAS may hand out one key per analysis. No secret belongs in this file, ever."""

    profile: Annotated[Text | None, Absent] = Field(
        default=None,
        description="A profile of ~/.aws; else the usual chain: environment, ~/.aws, credential_process; under systemd, "
        "LoadCredential=.",
    )
    region: Annotated[Text, AfterValidator(_region)] = Field(
        default="us-east-1", description="The region of the buckets."
    )
    endpoint_url: Annotated[HttpUrl | None, Absent] = Field(
        default=None, description="Another S3 than Amazon's: the sandbox, SeaweedFS, MinIO."
    )


class Watch(Section):
    """When a file counts as whole."""

    mode: Annotated[Literal["auto", "native", "polling"], Word] = Field(
        default="auto",
        description="auto | native | polling. Network shares send no events, so they are polled; auto tells them apart.",
    )
    settle: Annotated[Duration | None, Absent] = Field(
        default=None,
        description="A file is whole when nothing has changed it for so long. Without a value: 30s, and 10m where files "
        "are polled.",
    )
    rescan: Duration = Field(default=300.0, description="Events are hints; the rescan is the truth.")
    ignore: Annotated[tuple[Text, ...], Listed] = Field(
        default=(),
        description="Files and folders that are never looked at, beside those of the built-in list (docs/config.md). A pattern "
        "without a / is for names: *.log. One with a / is for the whole path, as rules see it, below inputs/ or the source: "
        "raw/old, scratch/*; in configs/ it begins so: configs/old. A folder is ignored with all that is in it.",
    )
    ignore_defaults: Flag = Field(
        default=True,
        description="The built-in list of what is no recording: folders of storage and systems, temporary files, half "
        "copies. With false only watch.ignore counts.",
    )
    min_free: Size = Field(
        default=5 * 10**9,
        description="Below it, on the watched disk, nothing new counts as whole (a recording that filled the disk is cut "
        "off), and that is said loudly.",
    )

    @property
    def ignored(self) -> tuple[str, ...]:
        """All patterns in force."""
        return (*(ignored.names() if self.ignore_defaults else ()), *self.ignore)

    def settle_for(self, polling: bool) -> float:
        """Seconds of quiet after which a file is whole, in a tree that is watched by polling or by events."""
        if self.settle is not None:
            return self.settle
        return 600.0 if polling else 30.0


class Band(Section):
    """One limit for some hours of the day."""

    hours: Hours = Field(default=(0, DAY), description="Local time of this machine; may go past midnight: 22:00-06:00.")
    limit: Rate = Field(description="10 MB/s, 80 Mbit/s, none, or 0: a pause.")

    @property
    def start_minute(self) -> int:
        return self.hours[0]

    @property
    def end_minute(self) -> int:
        return self.hours[1]

    def covers(self, minute_of_day: int) -> bool:
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute_of_day < self.end_minute
        return minute_of_day >= self.start_minute or minute_of_day < self.end_minute  # past midnight


def bandwidth_limit(bands: tuple[Band, ...], minute_of_day: int) -> int | None:
    """Bytes per second at this minute of the local day: the strictest of the bands that cover it; None is no limit."""
    limits = [band.limit for band in bands if band.limit is not None and band.covers(minute_of_day)]
    return min(limits, default=None)


def _bands(value: Any) -> Any:
    """A single limit becomes a list of one band, the whole day; `none` becomes an empty list."""
    if isinstance(value, yamlio.Scalar) and (value.is_null or value.text.lower() == "none"):
        return []
    if isinstance(value, (yamlio.Scalar, str, int)):
        return [{"limit": value}]
    return [value] if isinstance(value, dict) else value


def _say_bands(bands: tuple[Band, ...]) -> str:
    said = (f'{{hours: "{measures.say_hours(band.hours)}", limit: {measures.say_rate(band.limit)}}}' for band in bands)
    return f"[{', '.join(said)}]" if bands else "none"


Bands = kinds.Takes(_bands, also={"type": ["string", "object", "null"]})


class Upload(Section):
    """How recordings go up."""

    prefix: Prefix = Field(
        default="",
        description="A folder in front of every dataset's key, e.g. rig-a/: several rigs in one group don't collide.",
    )
    names: Annotated[Literal["sanitize", "refuse"], Word] = Field(
        default="sanitize",
        description="sanitize | refuse: what to do with names that have other characters than A-Z a-z 0-9 . _ -. "
        "NeuroCAAS puts dataset names in a shell line. Sanitized they are transliterated and get a hash: Größe 3.tif is "
        "Grosse_3-3f6a5ddb.tif in S3.",
    )
    parallel: Count = Field(default=8, description="Files and parts under way at a time.")
    bandwidth: Annotated[tuple[Band, ...], Bands, Written(_say_bands)] = Field(
        default=(),
        description='One limit (10 MB/s), or limits by hours ([{hours: "08:00-19:00", limit: 10 MB/s}]), or none. Where '
        "hours overlap the strictest holds; where there are none, there is no limit. A limit of 0 is a pause.",
    )
    order: Annotated[Literal["oldest"], Word] = Field(
        default="oldest", description="Whole recordings go up in the order they were made."
    )


class Poll(Section):
    """How often a job is looked at: often where it soon changes, seldom in between."""

    min: Duration = Field(default=15.0, description="Never more often than this.")
    max: Duration = Field(default=300.0, description="Never more seldom than this.")

    @model_validator(mode="after")
    def _ordered(self) -> Poll:
        if self.min > self.max:
            shortest, longest = measures.say_duration(self.min), measures.say_duration(self.max)
            raise Misfit([(("min",), f"must not be longer than max; it is {shortest}, and max is {longest}")])
        return self


class RetryRefused(Section):
    """How often a job that NeuroCAAS refused is tried again, with a new id."""

    capacity: Whole = Field(default=3, description="Times, when the platform had no machines free.")
    budget: Whole = Field(
        default=0, description="Times, when the group's budget was used up; 0: it is held for a person."
    )


class Jobs(Section):
    """How many jobs, and when to stop and ask."""

    max_active: Count = Field(
        default=20,
        description="Machines (mostly one for each dataset) at a time. NeuroCAAS rejects, and never queues, above its own "
        "limit.",
    )
    max_per_day: Count = Field(
        default=100, description="Machines in any 24 hours: the spend guard. Past it jobs are held, and that is said."
    )
    ask_above: Count = Field(
        default=20,
        description="A rule that would start more machines at once (a backlog, an edit, a bulk copy) is held until a person "
        "releases it.",
    )
    stop_after_failures: Count = Field(
        default=3, description="So many failures in a row, and the rule's next jobs are held."
    )
    timeout: Duration = Field(default=48 * 3600.0, description="A job that has not ended by then is called timed out.")
    poll: Poll = Poll()
    retry_refused: RetryRefused = RetryRefused()


class Results(Section):
    """What comes back."""

    fetch: Annotated[Literal["mine", "all"], Word] = Field(
        default="mine", description="mine | all: also jobs that were started on the website, or by another rig."
    )
    logs: Annotated[Literal["live", "end", "never"], Word] = Field(
        default="live", description="live | end | never: when the certificate and the datasets' logs are fetched."
    )


class Move(Section):
    """Local inputs move to an archive when their job is done and its results are here."""

    move: Archive = Field(description="Where to, with {path} for the path below inputs/.")


class CopyAt(Section):
    """The archive that proves, by checksum, that a local input may go."""

    copy_at: Archive = Field(description="Where the copy is, with {path} for the path below inputs/.")


class Delete(Section):
    """Local inputs are deleted when their job is done, its results are here, and an archive has an equal copy."""

    delete: CopyAt = Field(description="The copy that must be there, with an equal checksum, before anything goes.")


def _which_local_inputs(value: Any) -> str | None:
    if isinstance(value, (Move, Delete)):
        return "<move>" if isinstance(value, Move) else "<delete>"
    if isinstance(value, dict):
        return next((f"<{word}>" for word in ("move", "delete") if word in value), None)
    word = value.text if isinstance(value, yamlio.Scalar) else value
    return "<keep>" if word == "keep" else None


LocalInputs = Annotated[
    Annotated[Literal["keep"], Word, Tag("<keep>")]
    | Annotated[Move, Tag("<move>")]
    | Annotated[Delete, Tag("<delete>")],
    Discriminator(
        _which_local_inputs,
        custom_error_type="local_inputs",
        custom_error_message='must be keep, {move: "/archive/{path}"} or {delete: {copy_at: "/archive/{path}"}}',
    ),
]


class AfterResults(Section):
    """What happens when a job's results are here and verified: nothing, unless it is written here."""

    local_inputs: LocalInputs = Field(
        default="keep",
        description='keep | {move: "/archive/{path}"} | {delete: {copy_at: "/archive/{path}"}}. NeuroCAAS gives inputs back '
        "to nobody, so what is deleted here must be proved, by checksum, to be in an archive.",
    )
    remote_inputs: Annotated[Literal["keep", "delete"], Word] = Field(
        default="keep", description="keep | delete: the datasets in S3; never while an unfinished job names them."
    )
    run: Annotated[Text | None, Absent] = Field(
        default=None, description="The name of one of `tools`; {results} and {job} in it are the job's folder and id."
    )


class Sections(Section):
    """What can be said for all analyses, and differently for each."""

    aws: Aws = Aws()
    watch: Watch = Watch()
    upload: Upload = Upload()
    jobs: Jobs = Jobs()
    results: Results = Results()
    after_results: AfterResults = AfterResults()


class Analysis(Sections):
    """One analysis: the sections for all, with its own laid over them."""


Event = Literal["failed", "refused", "held", "lost", "done", "problem"]


class Notify(Section):
    """Who is told."""

    urls: Annotated[tuple[Annotated[Text, AfterValidator(_service)], ...], Listed] = Field(
        default=(),
        description=f"{MARK} Apprise URLs: Slack, Teams, e-mail, ntfy … They hold tokens: keep this file readable to you alone.",
    )
    events: Annotated[tuple[Annotated[Event, Word], ...], Listed] = Field(
        default=("failed", "refused", "held", "lost", "done", "problem"), description="What is told, once something is."
    )
    heartbeat: Annotated[HttpUrl | None, Absent] = Field(
        default=None,
        description=f"{MARK} A URL that is called while all is well (healthchecks.io, Uptime Kuma …): silence is the alarm.",
    )


class Web(Section):
    """The status page; `web: off` (or false) is none."""

    listen: Annotated[Text, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8484",
        description=f"{MARK} Address and port. The page has no password: beyond this machine, put one in front.",
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class Log(Section):
    """What the daemon writes to its log, and how long its event log is kept."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Word] = Field(
        default="info", description="debug | info | warning | error."
    )
    format: Annotated[Literal["text", "json"], Word] = Field(
        default="text", description="text | json: json has one object a line."
    )
    keep: Keep = Field(
        default=90 * 86400.0,
        description="Events older than that are deleted each night; or forever. Those of jobs that have not ended are kept. (The "
        "event log is in the journal: it tells each file's and job's story.)",
    )
