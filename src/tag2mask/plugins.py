"""The folder is the registry: what stands in a plug-in folder can be named in a recipe.

A module is a plug-in when it defines a class of its folder's contract; its file name is the name
one types. Names are found by reading the source (no import), so listing is fast. Third parties add
entry points in the group `tag2mask.<folder>`, whose value is the class.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask.errors import UnknownPluginError

CONTRACTS = {
    "methods": "Method",
    "models.backbones": "Backbone",
    "refiners": "Refiner",
    "data": "Source",
}
"""Plug-in folder -> name of the abstract class that its plug-ins derive from directly."""
_ROOT = Path(__file__).parent


def _defines(source: str, contract: str) -> str | None:
    """Return the name of the first class in `source` that derives from `contract` by name."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == contract for base in node.bases
        ):
            return node.name
    return None


class Plugin(NamedTuple):
    """Where the class of a plug-in is defined."""

    path: Path
    module: str
    """Dotted name."""
    class_name: str


@cache
def plugins_in(package: str) -> dict[str, Plugin]:
    """Map the name of each plug-in of one folder to its definition.

    A plug-in is a file, or a folder of the same name when it outgrows one; of a folder, the file
    that defines the class counts.
    """
    contract, root = CONTRACTS[package], _ROOT.joinpath(*package.split("."))
    found = {}
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        class_name = _defines(path.read_text(encoding="utf-8"), contract)
        if class_name is not None:
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(["tag2mask", package, *parts])
            found[parts[0]] = Plugin(path, module, class_name)
    return found


def available(package: str) -> list[str]:
    """Names one may type for `package` (a key of CONTRACTS), sorted; imports none of them."""
    outside = {point.name for point in entry_points(group=f"tag2mask.{package}")}
    return sorted(plugins_in(package).keys() | outside)


def load(package: str, name: str) -> type[Any]:
    """Import one plug-in and return its class.

    Raises:
        UnknownPluginError: If nothing of that name is in the folder or among the entry points.
    """
    plugin = plugins_in(package).get(name)
    if plugin is not None:
        found: type[Any] = getattr(importlib.import_module(plugin.module), plugin.class_name)
        return found
    for point in entry_points(group=f"tag2mask.{package}"):
        if point.name == name:
            outside: type[Any] = point.load()
            return outside
    raise UnknownPluginError(CONTRACTS[package].lower(), name, available(package))
