"""Reading a submit file that a person wrote: every problem of it, with its line.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Names"). Most mistakes in a submit file fail silently there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from ncaasd.errors import DeclarationError, Problem
from ncaasd.neurocaas.naming import ID, id_fits, too_long
from ncaasd.neurocaas.submit_body import SubmitBody, basename
from ncaasd.neurocaas.text import kind

SUBMIT_LIMIT = 1024**2  # bytes of a submit file that are read
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[\[{]|[\]}]')
_SILENT = "it is missing; without it the job dies, and nothing says so"


def parse_submit(data: bytes, file: str, *, bucket: str = "") -> SubmitBody:
    """Read a submit file that a person wrote. Raises DeclarationError with all its problems and their lines.

    `file` is the name that problems show. With `bucket`, the timestamp's length is checked too (F64).
    Fields that the platform does not know are passed over, as it does.
    """
    checker = _Checker(file, {})
    value = _load(data, checker)
    if basename(file) == "submit.json":
        checker.wrong(
            "", "this name is overwritten by NeuroCAAS's website at any time; name it <something>-submit.json"
        )
    body = SubmitBody(
        datanames=checker.datanames(value),
        configname=checker.text(value, "configname", needed=True) or "",
        timestamp=checker.timestamp(value, bucket),
        instance_type=checker.text(value, "instance_type"),
        resultpath=checker.text(value, "resultpath"),
    )
    checker.stop_if_wrong()
    return body


class _Checker:
    """Collects the problems of one submit file; `places` are the line and column of each key."""

    def __init__(self, file: str, places: dict[str, tuple[int, int]]) -> None:
        self.file = file
        self.places = places
        self.problems: list[Problem] = []

    def wrong(self, key: str, message: str, place: tuple[int, int] | None = None) -> None:
        line, column = place or self.places.get(key, (0, 0))
        self.problems.append(Problem(self.file, line, column, key, message))

    def stop_if_wrong(self) -> None:
        if self.problems:
            raise DeclarationError(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))

    def refuse(self, message: str, line: int = 0, column: int = 1) -> DeclarationError:
        """The error for a file that can't be checked any further."""
        return DeclarationError([Problem(self.file, line, column if line else 0, "", message)])

    def text(self, value: Mapping[str, object], key: str, *, needed: bool = False) -> str | None:
        found = value.get(key)
        if isinstance(found, str) and found:
            return found
        if key in value:
            what = "an empty text" if found == "" else kind(found)
            advice = "" if needed else "; leave it out when you don't need it"
            self.wrong(key, f"{what} was found, a text is allowed: NeuroCAAS dies of anything else{advice}")
        elif needed:
            self.wrong(key, _SILENT)
        return None

    def datanames(self, value: Mapping[str, object]) -> tuple[str, ...]:
        found = value.get("dataname")
        names = [found] if isinstance(found, str) else found
        if "dataname" not in value:
            self.wrong("dataname", _SILENT)
        elif not isinstance(names, list):
            self.wrong(
                "dataname", f"{kind(found)} was found, a text or a list of texts is allowed: the job would die silently"
            )
        elif not names:
            self.wrong("dataname", "it names no dataset")
        else:
            for index, name in enumerate(names, start=1):
                if not isinstance(name, str) or not name:
                    what = "an empty text" if name == "" else kind(name)
                    self.wrong("dataname", f"number {index} is {what}, the name of a dataset is allowed")
            return tuple(name for name in names if isinstance(name, str))
        return ()

    def timestamp(self, value: Mapping[str, object], bucket: str) -> str:
        found = value.get("timestamp")
        stamp = str(found)
        if "timestamp" not in value:
            self.wrong("timestamp", _SILENT)
        elif isinstance(found, bool) or not isinstance(found, str | int):
            self.wrong("timestamp", f"{kind(found)} was found, a text is allowed")
        elif not ID.fullmatch(stamp):
            self.wrong(
                "timestamp",
                f"{stamp!a} was found, letters, digits and . _ - are allowed: it is the name of a folder and of an AWS rule",
            )
        elif bucket and not id_fits(bucket, stamp):
            self.wrong("timestamp", too_long(bucket, stamp))
        return stamp


def _load(data: bytes, checker: _Checker) -> Mapping[str, object]:
    """The object in the file. Fills the checker's places; keys that are there twice are problems."""
    if len(data) > SUBMIT_LIMIT:
        raise checker.refuse(f"it has {len(data)} bytes; a submit file has at most {SUBMIT_LIMIT}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise checker.refuse(
            "it begins with a byte order mark, at which NeuroCAAS dies silently; save it as plain UTF-8", 1
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise checker.refuse("it is not UTF-8, which is all that NeuroCAAS reads", line) from None
    if not text.strip():
        raise checker.refuse("it is empty; NeuroCAAS would pass it over without a word")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise checker.refuse(f"it is not JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise checker.refuse("it is nested too deeply") from None
    except ValueError as error:
        raise checker.refuse(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise checker.refuse(f'it holds {kind(value)}; a submit file is a mapping: {{"dataname": …}}', 1)
    for key, place in _keys(text):
        if key in checker.places:
            checker.wrong(key, "this key is here twice, and only one would count", place)
        else:
            checker.places[key] = place
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON's")


def _keys(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each key of the outermost object of a valid JSON text, with its line and column, from 1."""
    depth, line, start = 0, 1, 0  # `start`: where the current line begins
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif depth == 1 and match[1]:
            ends = text.count("\n", start, match.start())
            line += ends
            start = text.rfind("\n", start, match.start()) + 1 if ends else start
            yield str(json.loads(token[: -len(match[1])])), (line, match.start() - start + 1)
