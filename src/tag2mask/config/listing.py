"""List every key of a recipe with its type, range, value and meaning."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tag2mask import plugins
from tag2mask.config.keys import fields_by_key, section_model
from tag2mask.config.recipe import PLUGIN_SECTIONS, Recipe

_NAMES = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
"""Attribute of a constraint -> its notation."""


class RecipeKey(NamedTuple):
    """One key as a person types it."""

    name: str
    """Dotted."""
    value: str | None
    """What the recipe sets, in the notation of the command line; None if its section is absent."""
    type: str
    """Type and range, such as "number, >= 0, <= 1"."""
    help: str

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


def list_sections(recipe: Recipe) -> Iterator[tuple[str, list[RecipeKey]]]:
    """Yield each section with its keys, then each stage with the keys that it sets itself."""
    for section, field in type(recipe).model_fields.items():
        model = section_model(field.annotation)
        if model is None:
            continue
        value = getattr(recipe, section)
        if value is None:
            choices = ", ".join(plugins.available(PLUGIN_SECTIONS[section]))
            yield (
                section,
                [RecipeKey(section, "none", f"one of {choices}", "Without this section.")],
            )
        else:
            yield section, list(_list_keys(section, type(value), value))
    for name, stage in recipe.stages.items():
        values = stage.model_dump(mode="json", by_alias=True, exclude_unset=True)
        prefix = f"stages.{name}"
        keys = [RecipeKey(key, text, "", "") for key, text in _flatten(prefix, values)]
        yield prefix, keys


def describe_type(annotation: object, constraints: Sequence[object] = ()) -> str:
    """Describe a type and its range in words, such as "integer, >= 1, or none"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0], (*arguments[1:], *constraints))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        length = (
            "list" if arguments[-1] is Ellipsis or origin is list else f"{len(arguments)} items"
        )
        not_empty = ", not empty" if "min_length" in _limits(constraints) else ""
        return f"{length}{not_empty}: {describe_type(arguments[0])}"
    if arguments and origin is not dict:  # a union
        text = " or ".join(
            describe_type(part, constraints)
            for part in arguments
            if part is not type(None) and typing.get_origin(part) is not dict  # dict: in YAML only
        )
        if type(None) not in arguments:
            return text
        return f"{text}, or none" if "," in text else f"{text} or none"
    if section_model(annotation) is not None:
        return "section"
    name = _NAMES[typing.cast("type[Any]", annotation)]
    limits = [
        f"{_LIMITS[key]} {bound}" for key, bound in _limits(constraints).items() if key in _LIMITS
    ]
    return ", ".join([name, *limits])


def format_value(value: object) -> str:
    """Write a value in the notation of the command line; `apply_overrides` reads it back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(format_value(item) for item in value)
    return str(value)


def _list_keys(
    prefix: str, kind: type[BaseModel], section: BaseModel | None
) -> Iterator[RecipeKey]:
    """Yield the keys of one section and of the sections inside it."""
    for key, field in fields_by_key(kind).items():
        name = f"{prefix}.{key}"
        value = None if section is None else getattr(section, key)
        inner = section_model(field.annotation)
        if inner is None or (section is not None and value is None):
            text = None if section is None else format_value(value)
            help_text = _help_text(kind, key)
            yield RecipeKey(name, text, _type_of(prefix, key, field), help_text)
        if inner is not None:
            yield from _list_keys(name, inner, value)


def _help_text(kind: type[BaseModel], key: str) -> str:
    """Return the help text of a key, from a base class where the class itself has none."""
    for base in kind.__mro__:
        if isinstance(base, type) and issubclass(base, BaseModel):
            field = fields_by_key(base).get(key)
            if field is not None and field.description:
                return field.description
    return ""


def _type_of(section: str, key: str, field: FieldInfo) -> str:
    """Describe the type of a key; the name of a plug-in is one of the available names."""
    if key == "name" and section in PLUGIN_SECTIONS:
        return f"one of {', '.join(plugins.available(PLUGIN_SECTIONS[section]))}"
    return describe_type(field.annotation, field.metadata)


def _limits(constraints: Sequence[object]) -> dict[str, object]:
    """Collect the bounds among pydantic's constraints, in the order of `_LIMITS`."""
    flat = [
        part
        for constraint in constraints
        for part in (constraint.metadata if isinstance(constraint, FieldInfo) else [constraint])
    ]
    return {
        key: getattr(part, key)
        for key in (*_LIMITS, "min_length")
        for part in flat
        if hasattr(part, key)
    }


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield dotted key and value of every plain value in nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", format_value(value)
