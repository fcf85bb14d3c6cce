"""The configs of the analyses: files in configs/ that NeuroCAAS reads, checked here because NeuroCAAS fails silently on them.

Source of every rule: NeuroCAAS protocol, docs/neurocaas.md (config).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from ncaasd.declare import yamlio
from ncaasd.declare.overlay import wrong_reserved
from ncaasd.errors import DeclarationError, Problem

MAX_NODES = 50_000  # an analysis may well want a table of numbers


class Plain(str):
    """A scalar without quotes that YAML 1.1 and 1.2 readers take for different things (`on`, `1e-3`, `2024-01-02`).

    Whichever reader the analysis has must find it as it was written, so it is written back without quotes.
    """

    __slots__ = ()


def read_analysis_config(data: bytes, name: str) -> dict[str, Any]:
    """The values of the config `name` (its path below configs/).

    Raises DeclarationError with everything that would make NeuroCAAS drop the job: another ending than .yaml or .json,
    another encoding than UTF-8, no mapping or an empty one, a byte-order mark before JSON, reserved keys of a wrong
    type; and with duplicate keys, which would make it run with other values than are meant.
    """
    check_name(name)
    problems: list[Problem] = []
    if name.endswith(".json"):
        text = yamlio.decode(data, name)
        values, places = _read_json(text, name, problems), _Places(text)
    else:
        document = yamlio.parse(yamlio.decode(data, name, bom=True).encode(), name, tags=True, nodes=MAX_NODES)
        problems += document.problems
        values, places = _typed(document.root), _Places(root=document.root)
    if not isinstance(values, dict) or not values:
        found = "empty" if values in (None, "", {}, []) else "no mapping"
        problems.append(Problem(name, 0, 0, "", f"is {found}: NeuroCAAS wants keys and values, at least one"))
    else:
        problems += (Problem(name, *places.of(key), key, message) for key, message in wrong_reserved(values))
    if problems:
        raise DeclarationError(sorted(problems, key=lambda p: (p.line, p.column)))
    assert isinstance(values, dict)
    return values


def check_name(name: str) -> None:
    """Raise DeclarationError when NeuroCAAS would not read a config of this name."""
    if name.endswith((".yaml", ".json")) and not name.endswith("submit.json"):
        return
    if name.endswith("submit.json"):
        message = "must not end in submit.json: NeuroCAAS would start a job with it; rename the file"
    elif name.lower().endswith((".yml", ".yaml", ".json")):
        right = ".json" if name.lower().endswith(".json") else ".yaml"
        message = f"must end in {right}: NeuroCAAS drops a job whose config is named otherwise; rename the file"
    else:
        message = "must end in .yaml or .json: NeuroCAAS drops a job whose config is named otherwise"
    raise DeclarationError([Problem(name, 0, 0, "", message)])


def render_analysis_config(values: dict[str, Any], name: str, overlay: dict[str, Any]) -> bytes:
    """The file for `values` with `overlay` laid over them, key by key and deeply; lists are replaced.

    Equal values give equal bytes. With an empty overlay use the original bytes: comments are lost here.
    """
    merged = _laid_over(values, overlay)
    if name.endswith(".json"):
        return (json.dumps(merged, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    text: str = yaml.dump(merged, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()


def _laid_over(values: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    out = dict(values)
    for key, value in overlay.items():
        below = out.get(key)
        out[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return out


class _Places:
    """Where a top-level key is, for problems."""

    def __init__(self, text: str = "", root: yamlio.Node | None = None) -> None:
        self.text = text
        self.root = root

    def of(self, key: str) -> tuple[int, int]:
        if isinstance(self.root, yamlio.Mapping):
            value = self.root.entries[key][1]
            return value.line, value.column
        found = re.search(rf'"{key}"\s*:', self.text)
        before = self.text[: found.start()] if found else ""
        return before.count("\n") + 1, len(before) - before.rfind("\n")


def _typed(node: yamlio.Node) -> Any:
    """A tree's values as by `yamlio.natural_scalar`; scalars on which YAML's versions disagree stay as they are written."""
    if isinstance(node, yamlio.Mapping):
        return {_key(key): _typed(value) for key, value in node.entries.values()}
    if isinstance(node, yamlio.Sequence):
        return [_typed(item) for item in node.items]
    if node.tag:
        return _Tagged(node.text, node.tag)
    try:
        value = yamlio.natural_scalar(node)
    except ValueError:
        return Plain(node.text)  # .nan and .inf may well be what an analysis wants
    if node.plain and _old_kind(node.text) != _KINDS[type(value)]:
        return Plain(node.text)
    return value


def _key(scalar: yamlio.Scalar) -> str:
    """A key's text; a key that some reader takes for something else than text (`1`, `on`) stays as it is written."""
    return Plain(scalar.text) if scalar.plain and not _is_text(scalar) else scalar.text


def _is_text(scalar: yamlio.Scalar) -> bool:
    try:
        return isinstance(yamlio.natural_scalar(scalar), str) and _old_kind(scalar.text) == "str"
    except ValueError:
        return False


class _Tagged(str):
    """A scalar with a tag of YAML's own, such as `!!binary`."""

    __slots__ = ("tag",)
    tag: str

    def __new__(cls, text: str, tag: str) -> _Tagged:
        made = super().__new__(cls, text)
        made.tag = tag
        return made


_KINDS: dict[type, str] = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null"}
_resolve: Callable[..., str] = yaml.resolver.Resolver().resolve


def _old_tag(text: str) -> str:
    """What a YAML 1.1 reader (PyYAML) takes an unquoted scalar for, as a tag."""
    return _resolve(yaml.ScalarNode, text, (True, False))


def _old_kind(text: str) -> str:
    return _old_tag(text).rpartition(":")[2]


def _read_json(text: str, name: str, problems: list[Problem]) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(items)
        if len(seen) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            message = f"the key {yamlio.shorten(twice)} is here twice; only one of them can be meant"
            spots = list(re.finditer(re.escape(json.dumps(twice)) + r"\s*:", text))
            line = text.count("\n", 0, spots[-1].start()) + 1 if spots else 0
            problems.append(Problem(name, line, 1 if line else 0, twice, message))
        return seen

    def constant(found: str) -> Any:
        line = text[: text.find(found)].count("\n") + 1
        problems.append(Problem(name, line, 1, "", f"{found} is no JSON; some readers refuse the whole file for it"))

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise DeclarationError([Problem(name, error.lineno, error.colno, "", f"is not JSON: {error.msg}")]) from None
    except (RecursionError, ValueError):
        raise DeclarationError([Problem(name, 1, 1, "", "is nested too deeply, or has a number too long")]) from None


class _Dumper(yaml.SafeDumper):
    """Writes YAML that every reader understands the same."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _plain(dumper: yaml.SafeDumper, value: Plain) -> yaml.Node:
    return yaml.ScalarNode(_old_tag(value), str(value))


def _tagged(dumper: yaml.SafeDumper, value: _Tagged) -> yaml.Node:
    return yaml.ScalarNode(value.tag, str(value), style='"')


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    unmistakable = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", value) and _old_kind(value) == "str"
    clear = unmistakable and value.lower() not in ("y", "n")  # 1.1 has them as booleans; PyYAML doesn't
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, style=None if clear else '"')


_Dumper.add_representer(Plain, _plain)
_Dumper.add_representer(_Tagged, _tagged)
_Dumper.add_representer(str, _text)
