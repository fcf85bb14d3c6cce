"""From a YAML tree to a checked model, with every problem of the file at its line.

The models are pydantic's; this module is what lies between them and `yamlio`: where in the file an error belongs,
what was found there, and which key was meant.
"""

from __future__ import annotations

import difflib
import os
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ncaasd.declare import yamlio
from ncaasd.errors import DeclarationError, Problem

# A declaration needs no plugin of pydantic's, and looking for them reads the metadata of every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

Loc = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A mapping of a declaration: unknown keys are errors, values don't change, an empty one is all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if isinstance(value, yamlio.Scalar) and value.is_null else value


class Misfit(ValueError):
    """Values that are right by themselves and wrong together: for each fault where it is (below the model), and why.

    Raised by a model's validator.
    """

    def __init__(self, faults: list[tuple[Loc, str]]) -> None:
        self.faults = faults[: yamlio.MAX_PROBLEMS]
        super().__init__("; ".join(message for _, message in self.faults))


def check(
    model: type[Model],
    root: yamlio.Node,
    file: str,
    problems: list[Problem],
    context: dict[str, Any] | None = None,
) -> Model | None:
    """`root` as a `model`; or None, with what is wrong added to `problems`. `context` goes to the validators."""
    try:
        return model.model_validate(plain(root), context=context)
    except ValidationError as error:
        # The inputs are left out: thousands of errors must not cost thousands of copies of the file.
        for details in error.errors(include_url=False, include_input=False)[: yamlio.MAX_PROBLEMS]:
            problems += _problems(model, root, file, details)
        return None


def finish(problems: list[Problem]) -> None:
    """Raise DeclarationError when there are problems: each once, in the order of the file, MAX_PROBLEMS of them at most."""
    if not problems:
        return
    once: dict[tuple[int, int, str, str], Problem] = {}
    for problem in problems:
        # A value of a general section is read again for each analysis: the shortest path is the section's own.
        same = (problem.line, problem.column, problem.message, problem.key.rpartition(".")[2])
        if same not in once or len(problem.key) < len(once[same].key):
            once[same] = problem
    ordered = sorted(once.values(), key=lambda p: (p.line, p.column))
    if len(ordered) > yamlio.MAX_PROBLEMS:
        more = len(ordered) - yamlio.MAX_PROBLEMS
        ordered[yamlio.MAX_PROBLEMS :] = [Problem(ordered[0].file, 0, 0, "", f"has {more} more problems, at least")]
    raise DeclarationError(ordered)


def plain(node: yamlio.Node) -> Any:
    """The tree as pydantic takes it: dicts and lists; scalars stay `yamlio.Scalar`, for the fields' own types."""
    if isinstance(node, yamlio.Mapping):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, yamlio.Sequence):
        return [plain(item) for item in node.items]
    return node


def locate(root: yamlio.Node, loc: Loc) -> tuple[str, yamlio.Scalar | None, yamlio.Node]:
    """The key's path, its scalar (None in a list), and the value at `loc`, or at the nearest location that exists.

    Steps of `loc` that the file doesn't have are names that pydantic gives to the members of a union.
    """
    path, key, node = "", None, root
    for number, step in enumerate(loc):
        if isinstance(node, yamlio.Mapping) and step in node.entries:
            key, node = node.entries[str(step)]
            path += f".{_short(str(step))}"
        elif isinstance(node, yamlio.Sequence) and isinstance(step, int) and step < len(node.items):
            key, node = None, node.items[step]
            path += f"[{step}]"
        elif isinstance(node, yamlio.Mapping) and number == len(loc) - 1 and step != "[key]":
            path += f".{step}"  # a key that is missing
    return path.lstrip("."), key, node


def _short(step: str) -> str:
    return step if len(step) <= 60 else yamlio.shorten(step)[1:-1]


def _problems(model: type[BaseModel], root: yamlio.Node, file: str, details: ErrorDetails) -> Iterator[Problem]:
    loc = details["loc"]
    path, key, node = locate(root, loc)
    kind = details["type"]
    error = details.get("ctx", {}).get("error")
    if isinstance(error, Misfit):
        for steps, message in error.faults:
            path, key, node = locate(root, (*loc, *steps))
            yield Problem(file, node.line, node.column, path, message)
        return
    if kind == "too_short" and not _is_empty(node):
        return  # each of its items has a problem of its own
    at: yamlio.Node = node
    if (kind == "extra_forbidden" or loc[-1:] == ("[key]",)) and key is not None:
        at = key
    yield Problem(file, at.line, at.column, path, _sentence(model, details, node, str(error or "")))


def _is_empty(node: yamlio.Node) -> bool:
    return not (isinstance(node, yamlio.Scalar) or (node.items if isinstance(node, yamlio.Sequence) else node.entries))


def _sentence(model: type[BaseModel], details: ErrorDetails, node: yamlio.Node, error: str) -> str:
    """What is wrong, what was found, what is allowed."""
    kind, loc = details["type"], details["loc"]
    if kind == "extra_forbidden":
        return unknown(str(loc[-1]), sorted(_keys(model, loc[:-1])), list(key_paths(model)))
    if kind == "missing":
        return "is missing, and nothing can stand in for it"
    if kind == "literal_error":
        allowed = str(details["ctx"]["expected"]).replace("'", "")
        words = [word.strip() for part in allowed.split(" or ") for word in part.split(",")]
        near = difflib.get_close_matches(yamlio.describe(node)[1:-1].lower(), words, 1)
        return f"must be one of {allowed}; found {yamlio.describe(node)}" + (f" (is {near[0]} meant?)" if near else "")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"must have keys and values below it; found {yamlio.describe(node)}"
    if kind == "too_short":
        return "must not be empty"
    if kind in ("tuple_type", "list_type"):
        return f"must be a list; found {yamlio.describe(node)}"
    if loc[-1:] == ("[key]",):
        return f"{error}; found {yamlio.shorten(str(loc[-2]))}"
    return f"{error or details['msg']}; found {yamlio.describe(node)}"


def unknown(key: str, allowed: list[str], elsewhere: list[str]) -> str:
    """The sentence for an unknown key: with the nearest known key, here or in another section; else with the allowed ones."""
    if re.search("secret|access_key|password|token", key.lower()):
        return "is not a key here: secrets belong in ~/.aws or the environment, never in this file"
    near = difflib.get_close_matches(key.lower(), allowed, 1) if len(key) <= 60 else []
    if near:
        return f"is not a key here; is {near[0]} meant? Allowed: {', '.join(allowed)}"
    far = difflib.get_close_matches(key.lower(), [path.rpartition(".")[2] for path in elsewhere], 1, 0.8)
    if far and len(key) <= 60:
        path = next(path for path in elsewhere if path.rpartition(".")[2] == far[0])
        return f"is not a key here; is {path} meant? Allowed here: {', '.join(allowed)}"
    return f"is not a key here; allowed: {', '.join(allowed)}"


def key_paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key of a model and of the sections in it, as in `jobs.poll.min`."""
    for name, field in model.model_fields.items():
        yield above + key_of(name, field)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from key_paths(field.annotation, f"{above}{name}.")


def _keys(model: type[BaseModel], loc: Loc) -> set[str]:
    """The keys that are allowed at `loc`."""
    here: set[type[BaseModel]] = {model}
    for step in loc:
        found = {member for cls in here for member in _step(cls, step)}
        here = found or here  # a step that no model has as a key is pydantic's name for a member of a union
    return {key_of(name, field) for cls in here for name, field in cls.model_fields.items()}


def key_of(name: str, field: FieldInfo) -> str:
    """A field's key in the file: `with` is a Python keyword, so its field has another name."""
    return field.alias or name


def _step(model: type[BaseModel], step: int | str) -> Iterator[type[BaseModel]]:
    """The models behind one step of a location."""
    for name, field in model.model_fields.items():
        if key_of(name, field) == step:
            yield from models(field.annotation)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that a value of this annotation may be made of, through lists, dicts and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from models(get_args(annotation)[0])
    elif get_origin(annotation) in (tuple, dict, Union, types.UnionType):
        for argument in get_args(annotation):
            yield from models(argument)
