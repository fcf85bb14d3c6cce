"""The types of a declaration's values: what people may write for each, and what the program gets.

Each takes a `yamlio.Scalar` (from a file), or the ready value (from a program or a test).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from ncaasd.declare import measures, yamlio

MAX_TEXT = 1024  # an S3 key has no more bytes; no name, path or pattern here is longer

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9]))*[a-z0-9]")
_TEXTUAL = {"type": ["string", "number", "boolean"]}  # an editor's YAML takes 20240102_01 or `on` for something else


def _text(value: Any) -> Any:
    if isinstance(value, yamlio.Scalar):
        if value.is_null:
            raise ValueError("has no value; write one, or remove the line")
        value = value.text
    if isinstance(value, (dict, list)):
        raise ValueError("must be text (in quotes where it begins with { or [)")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} characters")
    return value


def may_be_empty(value: Any) -> Any:
    """As `_text`, but no value gives the empty text."""
    return "" if isinstance(value, yamlio.Scalar) and value.is_null else _text(value)


def _absent(value: Any) -> Any:
    return None if isinstance(value, yamlio.Scalar) and value.is_null else value


def _listed(value: Any) -> Any:
    if isinstance(value, (yamlio.Scalar, str)):
        return [value]
    if isinstance(value, dict):
        raise ValueError("must be text, or a list of texts")
    return value


def _measured(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A before-validator that parses text by `parse` and lets ready values pass."""

    def measure(value: Any) -> Any:
        value = _text(value)
        return parse(value) if isinstance(value, str) else value

    return measure


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number, not negative")
    return int(text)


def _flag(text: str) -> bool:
    """As YAML 1.1 and 1.2 have it: people write both."""
    if text.lower() not in ("true", "false", "yes", "no", "on", "off"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "yes", "on")


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


def _rate(value: Any) -> Any:
    return None if _absent(value) is None else _measured(measures.rate)(value)


def one_line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text):
        raise ValueError("must be one line without control characters")
    return text


def name(text: str) -> str:
    """A name that may be a part of a key, a file's name and a command's argument."""
    if not _NAME.fullmatch(text) or len(text) > 100:
        raise ValueError("must be a name of letters, digits, . _ and - (100 at most), beginning with a letter or digit")
    if text.endswith(("submit.json", "end.txt")):
        raise ValueError("must not end in submit.json or end.txt: NeuroCAAS takes such names for its own signals")
    return text


def bucket(text: str) -> str:
    """An S3 bucket's name. Source: Amazon S3 bucket naming rules."""
    if not (3 <= len(text) <= 63 and _BUCKET.fullmatch(text)) or re.fullmatch(r"[0-9.]+", text):
        raise ValueError(
            "must be the name of the analysis's S3 bucket (3 to 63 lower-case letters, digits, - and .), as on its page"
        )
    return text


def absolute(text: str) -> str:
    """An absolute local path, without a trailing slash."""
    if text.startswith("~"):
        raise ValueError("must be an absolute path; ~ is not expanded here (a daemon's home is not yours)")
    if not text.startswith("/"):
        raise ValueError("must be an absolute path, beginning with /")
    if ".." in text.split("/"):
        raise ValueError("must be a path without ..")
    path = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
    if path == "/":
        raise ValueError("must be a folder, not the whole file system")
    return path


def http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+(?::[0-9]{1,5})?(?:/\S*)?", text):
        raise ValueError("must be a URL such as https://s3.example.org or http://127.0.0.1:8333")
    return text


@dataclass(frozen=True)
class Takes:
    """In a type's annotation: `before` converts what is written; `also` is the JSON Schema of what may be written besides.

    Without `also`, a single item may be written for a list of one.
    """

    before: Callable[[Any], Any]
    also: JsonSchemaValue | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.before, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        one = self.also if self.also is not None else schema["items"]
        return {"anyOf": [one, schema]}


@dataclass(frozen=True)
class Written:
    """In a type's annotation: how people write its values; for defaults in the example, the documentation and the schema."""

    say: Callable[[Any], str]


Text = Annotated[str, BeforeValidator(_text), AfterValidator(one_line), WithJsonSchema(_TEXTUAL)]
Name = Annotated[Text, AfterValidator(name)]
Bucket = Annotated[Text, AfterValidator(bucket)]
Absolute = Annotated[Text, AfterValidator(absolute), WithJsonSchema({"type": "string", "pattern": "^/"})]
HttpUrl = Annotated[Text, AfterValidator(http_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
Word = BeforeValidator(_text)  # annotates a Literal
Absent = BeforeValidator(_absent)  # annotates `X | None`: null, ~ and nothing mean None
Listed = Takes(_listed)  # annotates a tuple

Seconds = Annotated[
    float,
    BeforeValidator(_measured(measures.duration)),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]"}),
    Written(measures.say_duration),
]
Duration = Annotated[Seconds, AfterValidator(_positive)]
Keep = Annotated[
    float | None,
    BeforeValidator(_measured(measures.keep)),
    WithJsonSchema({"type": "string", "pattern": "^([0-9]|forever$)"}),
    Written(measures.say_days),
]
Size = Annotated[
    int,
    BeforeValidator(_measured(measures.size)),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[0-9]"}, {"const": 0}]}),
    Written(measures.say_size),
]
Rate = Annotated[
    int | None,
    BeforeValidator(_rate),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": "^([0-9]|none$|unlimited$)"}, {"const": 0}, {"type": "null"}]}
    ),
    Written(measures.say_rate),
]
Hours = Annotated[
    tuple[int, int],
    BeforeValidator(_measured(measures.hours)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,2}:[0-9]{2}\s*[-–]\s*[0-9]{1,2}:[0-9]{2}$"}),
    Written(measures.say_hours),
]
Flag = Annotated[bool, BeforeValidator(_measured(_flag)), WithJsonSchema({"type": "boolean"})]
Whole = Annotated[int, BeforeValidator(_measured(_whole)), WithJsonSchema({"type": "integer", "minimum": 0})]
Count = Annotated[Whole, AfterValidator(_at_least_one), WithJsonSchema({"type": "integer", "minimum": 1})]
