"""`set:`: values that are laid over an analysis's config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from ncaasd.declare import yamlio
from ncaasd.declare.reading import Loc, Misfit

# Source: NeuroCAAS protocol, docs/neurocaas.md (config): strings and fractions there kill the job, some after machines
# were launched.
RESERVED = {"__duration__": "minutes", "__dataset_size__": "GB of extra disk"}


def wrong_reserved(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys that NeuroCAAS reads itself and whose values it can't use, each with the reason."""
    for key, unit in RESERVED.items():
        value = values.get(key)
        if key in values and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            found = yamlio.shorten(str(value))
            yield key, f"must be a whole number of {unit}, 1 or more, without quotes; found {found}"


def _overlay(value: Any) -> Any:
    """Values for the config, as YAML means them (`yamlio.natural_scalar`)."""
    if isinstance(value, yamlio.Scalar):
        if value.is_null:
            return {}
        raise ValueError("must have keys and values below it")
    faults: list[tuple[Loc, str]] = []
    typed = _natural(value, (), faults)
    if faults:
        raise Misfit(faults)
    return typed


def _natural(value: Any, loc: Loc, faults: list[tuple[Loc, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _natural(item, (*loc, key), faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_natural(item, (*loc, number), faults) for number, item in enumerate(value)]
    try:
        return yamlio.natural_scalar(value) if isinstance(value, yamlio.Scalar) else value
    except ValueError as error:
        faults.append((loc, f"{error}; found {yamlio.describe(value)}"))
        return None


Overlay = Annotated[dict[str, Any], BeforeValidator(_overlay), WithJsonSchema({"type": ["object", "null"]})]
