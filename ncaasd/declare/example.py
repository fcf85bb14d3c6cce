"""The example config and the JSON Schemas, made from the models, so that they always match what is read."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from ncaasd.declare import yamlio
from ncaasd.declare.config import Config
from ncaasd.declare.kinds import Written
from ncaasd.declare.reading import key_of, models

_BEFORE = ("group", "root", "analyses", "rig", "state", "aws", "watch", "sources", "links", "tools")
ORDER = (*_BEFORE, "upload", "jobs", "results", "after_results", "notify", "web", "log")
_NEW_PARAGRAPH = ("rig", "sources")
_COLUMN = 40
_WIDTH = 118
_BARE = re.compile(r"[A-Za-z0-9_./](?::?[A-Za-z0-9_./-])*(?: [A-Za-z0-9_./-]+)*|\{\w+: .*\}|\[\{hours.*\]")


def config_example(schema: str) -> str:
    """A config with every key at its default and what it means. `schema` is where an editor finds the JSON Schema."""
    lines = [
        f"# yaml-language-server: $schema={schema}",
        "# ncaasd's config. Only group, root and analyses must be here; everything else is shown with its default.",
        "",
    ]
    for name in ORDER:
        field = Config.model_fields[name]
        section = section_of(field)
        if section is None:
            lines += [""] * (name in _NEW_PARAGRAPH) + _entry(name, field, 0)
        else:
            lines += ["", *(f"# {line}" for line in textwrap.wrap(meaning(field), _WIDTH - 2)), f"{name}:"]
            for key, below in section.model_fields.items():
                lines += _entry(key, below, 2)
    return "\n".join(lines) + "\n"


def config_schema() -> dict[str, Any]:
    """The config's JSON Schema, with what people may write for each value."""
    return _schema(Config, "ncaasd config")


def schema_of(model: type[BaseModel], title: str) -> dict[str, Any]:
    """A model's JSON Schema."""
    return _schema(model, title)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section; None for a value."""
    if field.is_required() or not isinstance(field.default, BaseModel):
        return None
    return type(field.default)


def meaning(field: FieldInfo) -> str:
    """What a field is, on one line: its description, or its section's."""
    section = section_of(field)
    return " ".join((field.description or (section.__doc__ if section else "") or "").split())


def written(field: FieldInfo, value: Any) -> str:
    """A value of a field as YAML on one line, as people write it."""
    say = next(_says(field), None)
    if value is not None and say is not None:
        return _scalar(say(value))
    if isinstance(value, BaseModel):
        inner = (f"{name}: {written(below, getattr(value, name))}" for name, below in type(value).model_fields.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(field, item)}' for key, item in value.items())}}}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        # Text that YAML could take for something else is in quotes, but for times and sizes, which are always text.
        plain = yamlio.natural_scalar(yamlio.Scalar(value, True, 0, 0))
        return value if _BARE.fullmatch(value) and isinstance(plain, str) else json.dumps(value, ensure_ascii=False)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _says(field: FieldInfo) -> Iterator[Any]:
    """How the field's values are written, where that is not as Python has them."""
    for item in [*field.metadata, *_inner(field.annotation)]:
        if isinstance(item, Written):
            yield item.say


def _inner(annotation: Any) -> Iterator[Any]:
    """The metadata within `X | None`."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    elif get_origin(annotation) is not tuple:
        for argument in get_args(annotation):
            yield from _inner(argument)


def _entry(name: str, field: FieldInfo, indent: int) -> list[str]:
    """`name: value` with its meaning beside it, going on below; or above it, where the value is long."""
    value = field.examples[0] if field.is_required() and field.examples else field.get_default()
    below: list[str] = []
    if field.is_required() and isinstance(value, dict):
        below = [f"  {key}: {written(field, item)}" for key, item in value.items()]
        head = f"{name}:"
    else:
        head = f"{' ' * indent}{name}: {written(field, value)}"
    if len(head) >= _COLUMN or below:
        above = textwrap.wrap(meaning(field), _WIDTH - indent - 2)
        return [*(f"{' ' * indent}# {note}" for note in above), head, *below]
    first, *rest = textwrap.wrap(meaning(field), _WIDTH - _COLUMN - 2)
    return [f"{head:{_COLUMN}}# {first}", *(f"{'':{_COLUMN}}# {note}" for note in rest)]


class _Plainer(GenerateJsonSchema):
    """Without the titles that pydantic makes of names: an editor shows the name anyway."""

    def get_title_from_name(self, name: str) -> str:
        return ""


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_Plainer)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found = {model.__name__: model}
    queue = [model]
    while queue:
        for field in queue.pop().model_fields.values():
            for below in models(field.annotation):
                if below.__name__ not in found:
                    found[below.__name__] = below
                    queue.append(below)
    for name, cls in found.items():
        part = schema if cls is model else schema["$defs"][name]
        part["title"] = title if cls is model else name
        for key, field in cls.model_fields.items():
            _say_default(part["properties"][key_of(key, field)], field)
    return schema


def _say_default(prop: dict[str, Any], field: FieldInfo) -> None:
    """Defaults as people write them; a section's are those of its keys."""
    prop.pop("title", None)
    if "default" not in prop:
        return
    if section_of(field) is not None:
        del prop["default"]
        prop.setdefault("description", meaning(field))
    elif (say := next(_says(field), None)) is not None and prop["default"] is not None:
        prop["default"] = say(field.default)
