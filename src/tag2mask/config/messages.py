"""What pydantic finds wrong with a recipe, as one line per fault that a user can act on."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError

from tag2mask.errors import did_you_mean


def validation_errors(
    error: ValidationError, kind: type[BaseModel], where: str, prefix: str
) -> Iterator[str]:
    """Turn pydantic's faults into `where: a.b: what is wrong (got value). hint`.

    Args:
        error: What `kind` said.
        kind: The model that checked; its keys are the hints.
        where: Names the file in messages.
        prefix: Stands before the keys, such as `stages.seg.`.
    """
    for problem in error.errors():
        keys = [str(key) for key in problem["loc"]]
        dotted = prefix + ".".join(keys)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(kind, keys[:-1])
            hint = did_you_mean(keys[-1], known)
            yield f"{where}: unknown key '{dotted}'.{hint} Known: {', '.join(known)}"
        elif problem["type"] == "missing":
            yield f"{where}: {dotted}: is missing"
        else:
            yield f"{where}: {dotted}: {problem['msg']} (got {problem['input']!r})"


def _known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Keys of the section that `path` leads to, sorted; empty if it leads nowhere."""
    found: object = kind
    for key in path:
        if typing.get_origin(found) is dict:  # a mapping of models: any key leads to one
            found = typing.get_args(found)[1]
        elif isinstance(found, type) and issubclass(found, BaseModel) and key in found.model_fields:
            found = found.model_fields[key].annotation
        else:
            return []
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        return []
    return sorted(field.alias or name for name, field in found.model_fields.items())
