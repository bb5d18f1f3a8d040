"""The side of the working tree: `cases.py` has its words already, only the command line is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe, or a part of one, as it is."""
    return dict(values)


def shipped_path(name: str) -> str:
    """Path within the repository of a recipe that comes with the package."""
    return f"src/tag2mask/recipes/{name}.yaml"


def overrides(changes: Mapping[str, Any]) -> list[str]:
    """Words of the command line that change keys of a recipe: `predict.scales=1.0,0.5`."""
    words = []
    for section, part in changes.items():
        if part is None:
            words.append(f"{section}=none")
            continue
        for key, value in part.items():
            parts = value if isinstance(value, list) else [value]
            words.append(f"{section}.{key}={','.join(word(one) for one in parts)}")
    return words


def word(value: object) -> str:
    """Spell one value on the command line."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
