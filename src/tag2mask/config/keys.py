"""Walk the schema of a recipe by dotted key: `predict.scales` leads to a type and a help text."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def annotation_at(kind: type[BaseModel], path: Sequence[str]) -> object:
    """Return the type of the key at `path`; None where the schema has no such key."""
    annotation: object = kind
    for key in path:
        if typing.get_origin(annotation) is dict:  # a mapping of models: any key leads to one
            annotation = typing.get_args(annotation)[1]
            continue
        field = fields_by_key(annotation).get(key)
        if field is None:
            return None
        annotation = field.annotation
    return annotation


def known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Return the keys of the section at `path`, sorted; empty where there is no section."""
    return sorted(fields_by_key(annotation_at(kind, path)))


def dotted_keys(annotation: object) -> Iterator[str]:
    """Yield the dotted name of every key in a section and in the sections inside it."""
    for key, field in fields_by_key(annotation).items():
        inner = list(dotted_keys(field.annotation))
        yield from (f"{key}.{name}" for name in inner) if inner else (key,)


def fields_by_key(annotation: object) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by the key that a person types; empty for a plain value."""
    model = section_model(annotation)
    fields = model.model_fields if model is not None else {}
    return {field.alias or name: field for name, field in fields.items()}


def section_model(annotation: object) -> type[BaseModel] | None:
    """Return the model of a section, also of an optional one; None for a plain value."""
    for option in union_members(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def union_members(annotation: object) -> tuple[object, ...]:
    """Return the members of a union, or the annotation alone, without pydantic's constraints."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return union_members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(
            member for part in typing.get_args(annotation) for member in union_members(part)
        )
    return (annotation,)
