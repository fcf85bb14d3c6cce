"""Reading YAML from people: bounded, with positions, and without guessing what a scalar means.

PyYAML's scanner gives events; the tree is made here, so that every limit holds before anything is built, every
value knows its line, duplicate keys are seen, and a scalar stays the text that was written: the model that reads
it decides whether `20240102_01` is a name or a number (to PyYAML it is a number, `2024-01-02` a date, `19:00` an
integer, `on` and `no` are booleans).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from ncaasd.errors import DeclarationError, Problem

MAX_BYTES = 1 << 20  # callers read at most MAX_BYTES + 1 bytes of a file, so that a huge one is refused unread
MAX_DEPTH = 40
MAX_NODES = 20_000  # aliases count as often as they are used
MAX_PROBLEMS = 100

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where PyYAML was built with it
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as it was written. `plain` is without quotes; `tag` is an explicit `!tag`, or empty."""

    text: str
    plain: bool
    line: int
    column: int
    tag: str = ""

    @property
    def is_null(self) -> bool:
        return self.plain and _NULL.fullmatch(self.text) is not None


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries by the text of their key, in the order of the file."""

    entries: dict[str, tuple[Scalar, Node]]
    line: int
    column: int


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """A file's tree (an empty mapping for an empty file), and what is wrong in it though it could be read."""

    root: Node
    problems: list[Problem]


def parse(data: bytes, file: str, *, tags: bool = False, nodes: int = MAX_NODES) -> Document:
    """The tree of the one YAML document in `data`. `file` is the name that problems give.

    `tags` lets YAML's own tags (`!!str`, `!!float` …) pass; without it every tag is a problem; `nodes` is how
    many values there may be. Raises DeclarationError when there is no tree: too large, too deep, not UTF-8, not YAML.
    """
    return _Composer(file, tags, nodes).compose(decode(data, file))


def decode(data: bytes, file: str, *, bom: bool = False) -> str:
    """`data` as text: at most MAX_BYTES of UTF-8 without control characters; `bom` lets a byte-order mark pass.

    Raises DeclarationError, naming the line.
    """
    if len(data) > MAX_BYTES:
        raise _refused(file, 0, 0, f"is larger than {MAX_BYTES >> 20} MiB, which no declaration is")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refused(file, 1, 1, "is UTF-16 (it begins with its byte-order mark); save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        if not bom:
            raise _refused(file, 1, 1, 'begins with a byte-order mark; save it as "UTF-8", not "UTF-8 with BOM"')
        data = data[3:]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode())
        found = data[error.start]
        raise _refused(file, line, column, f"is not UTF-8 (byte 0x{found:02x}); save it as UTF-8") from None
    bad = _UNPRINTABLE.search(text)
    if bad:
        line, column = _position(text[: bad.start()])
        what = f"U+{ord(bad.group()):04X}"
        why = "; is it UTF-16? Save it as UTF-8" if what == "U+0000" else ""
        raise _refused(file, line, column, f"has a character in it that text files do not have ({what}){why}")
    return text


def natural_scalar(scalar: Scalar) -> object:
    """The typed value of a scalar, for places whose type no model knows (`set:` in a manifest).

    A quoted scalar is text. Without quotes, as in YAML 1.2: `true` and `false` are booleans, `null`, `~` and nothing are null,
    decimal numbers are numbers, and all else is text. So `on`, `yes`, `2024-01-02`, `19:00`, `1_000`, `007` and `0x10`
    are text. Raises ValueError for NaN, infinities and numbers that are too large for a float.
    """
    text = scalar.text
    if not scalar.plain:
        return text
    if scalar.is_null:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NON_FINITE.fullmatch(text):
        raise ValueError("a number must be finite (put it in quotes if it is text)")
    if len(text) > 400:
        return text  # too long to be meant as a number
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError("is too large for a number (put it in quotes if it is text)")
        return value
    return text


def count(node: Node) -> int:
    """How many values a tree has, as MAX_NODES counts them."""
    if isinstance(node, Mapping):
        return 1 + sum(1 + count(value) for _, value in node.entries.values())
    return 1 + sum(map(count, node.items)) if isinstance(node, Sequence) else 1


def describe(node: Node) -> str:
    """What was found, in few words."""
    if isinstance(node, Mapping):
        return "keys and values" if node.entries else "an empty mapping {}"
    if isinstance(node, Sequence):
        return "a list" if node.items else "an empty list []"
    if node.is_null:
        return "nothing" if not node.text else node.text
    return shorten(node.text)


def shorten(text: str, limit: int = 60) -> str:
    """`text` in quotes, on one line, cut where it gets long."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _refused(file: str, line: int, column: int, message: str) -> DeclarationError:
    return DeclarationError([Problem(file, line, column, "", message)])


def _position(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what comes after `before`."""
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", before)
    return len(lines), len(lines[-1]) + 1


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    mapping: bool
    line: int
    column: int
    anchor: str | None
    start: int  # how many nodes there were before it
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Scalar, Node]] = field(default_factory=dict)
    merged: list[Mapping] = field(default_factory=list)
    key: Scalar | None = None


class _Composer:
    """Makes a tree from events. It ends at a limit that is passed, before the next node is made."""

    def __init__(self, file: str, tags: bool, limit: int) -> None:
        self.file = file
        self.tags = tags
        self.limit = limit
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.stack: list[_Open] = []
        self.nodes = 0
        self.root: Node | None = None
        self.documents = 0

    def compose(self, text: str) -> Document:
        try:
            for event in yaml.parse(text, Loader=_Loader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error, text) from None
        except (yaml.YAMLError, RecursionError) as error:
            raise _refused(self.file, 0, 0, f"is not YAML: {error}") from None
        return Document(self.root or Mapping({}, 1, 1), self.problems)

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self._stop(event, "a second document begins here (---); one file has one document")
        elif isinstance(event, yaml.ScalarEvent):
            self._count(event, 1)
            line, column = _place(event)
            plain = event.style is None or event.style == ""
            scalar = Scalar(event.value, plain, line, column, self._tag(event))
            self._add(scalar, event.anchor, 1)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._count(event, 1)
            if len(self.stack) >= MAX_DEPTH:
                raise self._stop(event, f"is nested more than {MAX_DEPTH} levels deep")
            self._tag(event)
            mapping = isinstance(event, yaml.MappingStartEvent)
            self.stack.append(_Open(mapping, *_place(event), event.anchor, self.nodes))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self._stop(event, f"*{event.anchor} stands for nothing here (text beginning with * needs quotes)")
            node, weight = self.anchors[event.anchor]
            self._count(event, weight)
            self._add(node, None, weight)

    def _close(self) -> None:
        done = self.stack.pop()
        if not done.mapping:
            node: Node = Sequence(tuple(done.items), done.line, done.column)
        else:
            for base in done.merged:  # `<<`: keys that are written out win, then the first mapping that was named
                for key, entry in base.entries.items():
                    done.entries.setdefault(key, entry)
            node = Mapping(done.entries, done.line, done.column)
        self._add(node, done.anchor, self.nodes - done.start + 1)

    def _add(self, node: Node, anchor: str | None, weight: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, weight)
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        if not parent.mapping:
            parent.items.append(node)
        elif parent.key is None:
            if not isinstance(node, Scalar):
                raise _refused(self.file, node.line, node.column, f"a key must be text, not {describe(node)}")
            parent.key = node
        else:
            self._enter(parent, parent.key, node)
            parent.key = None

    def _enter(self, parent: _Open, key: Scalar, node: Node) -> None:
        if key.plain and key.text == "<<":
            bases = node.items if isinstance(node, Sequence) else (node,)
            parent.merged += [base for base in bases if isinstance(base, Mapping)]
        elif key.text in parent.entries:
            first = parent.entries[key.text][0].line
            found = shorten(key.text)
            message = f"the key {found} is here twice (first in line {first}); only one of them can be meant"
            self._problem(Problem(self.file, key.line, key.column, self._path(key.text), message))
        else:
            parent.entries[key.text] = (key, node)

    def _path(self, key: str) -> str:
        steps: list[str] = []
        for frame in self.stack:
            if not frame.mapping:
                steps.append(f"[{len(frame.items)}]")
            elif frame.key is not None:
                steps.append(f".{frame.key.text}")
        return shorten("".join(steps).lstrip(".") or key, 200)[1:-1]

    def _tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> str:
        tag: str | None = event.tag
        if tag is None or tag == "!":
            return ""
        if not (self.tags and tag.startswith("tag:yaml.org,2002:") and "python" not in tag):
            message = f"has a tag ({shorten(tag)}), which is not used here; remove it"
            self._problem(Problem(self.file, *_place(event), "", message))
        return tag

    def _count(self, event: yaml.Event, weight: int) -> None:
        self.nodes += weight
        if self.nodes > self.limit:
            raise self._stop(event, f"has more than {self.limit:,} values (an alias counts as often as it is used)")

    def _problem(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise DeclarationError(self.problems)

    def _stop(self, event: yaml.Event, message: str) -> DeclarationError:
        return DeclarationError([*self.problems, Problem(self.file, *_place(event), "", message)])

    def _not_yaml(self, error: yaml.MarkedYAMLError, text: str) -> DeclarationError:
        """The scanner's sentence, with the mistake that people most likely made."""
        mark = error.problem_mark or error.context_mark
        if mark is None:
            return _refused(self.file, 0, 0, f"is not YAML: {error.problem or error}")
        lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
        line = lines[mark.line] if mark.line < len(lines) else ""
        message = f"is not YAML: {error.problem}"
        if error.context_mark is not None and not "".join(lines[mark.line :])[mark.column :].strip():
            mark = error.context_mark  # the position of the file's end would not help
            message = f"is not YAML: {error.problem}; what begins here is not closed"
        elif error.context_mark is not None and error.context_mark.line != mark.line:
            message += f" ({error.context} that begins in line {error.context_mark.line + 1})"
        if "\t" in line[: len(line) - len(line.lstrip())] or (line[mark.column : mark.column + 1] == "\t"):
            message = "a tab is used for indentation; YAML wants spaces"
        elif re.search(r"(?::|-)\s+[*&{\[%@`!|>]", line):
            message += "; text that begins with * & { [ % @ ` ! | >, or has braces inside braces, must be in quotes"
        return DeclarationError([*self.problems, Problem(self.file, mark.line + 1, mark.column + 1, "", message)])
