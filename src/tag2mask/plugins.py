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
from typing import Any

from tag2mask.errors import UnknownPluginError

CONTRACTS = {
    "methods": "Method",
    "models.backbones": "Backbone",
    "refiners": "Refiner",
    "data": "Source",
    "export": "Exporter",
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


@cache
def _folder(package: str) -> dict[str, str]:
    """Map plug-in name -> class name for the modules of one folder."""
    contract = CONTRACTS[package]
    found = {}
    for path in sorted(_ROOT.joinpath(*package.split(".")).glob("*.py")):
        class_name = _defines(path.read_text(encoding="utf-8"), contract)
        if class_name is not None:
            found[path.stem] = class_name
    return found


def available(package: str) -> list[str]:
    """Names one may type for `package` (a key of CONTRACTS), sorted; imports none of them."""
    outside = {point.name for point in entry_points(group=f"tag2mask.{package}")}
    return sorted(_folder(package).keys() | outside)


def load(package: str, name: str) -> type[Any]:
    """Import one plug-in and return its class.

    Raises:
        UnknownPluginError: If nothing of that name is in the folder or among the entry points.
    """
    folder = _folder(package)
    if name in folder:
        module = importlib.import_module(f"tag2mask.{package}.{name}")
        found: type[Any] = getattr(module, folder[name])
        return found
    for point in entry_points(group=f"tag2mask.{package}"):
        if point.name == name:
            outside: type[Any] = point.load()
            return outside
    raise UnknownPluginError(CONTRACTS[package].lower(), name, available(package))
