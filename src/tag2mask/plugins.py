"""Find plug-ins: the folder is the registry, so a recipe can name every file of a plug-in folder.

A module is a plug-in when it defines a class that derives from the contract of its folder; the name
of the file is the name to type. Listing reads the source and imports nothing, so it is fast.
A program names the plug-ins that it defines itself by their class names. A Python package adds
entry points to the group `tag2mask.<folder>`, whose value is the class.
"""

from __future__ import annotations

import ast
import importlib
import sys
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
    "formats": "Format",
    "formats.models": "ModelFormat",
}
"""Plug-in folder -> name of the abstract class that its plug-ins derive from directly."""
_ROOT = Path(__file__).parent


class Plugin(NamedTuple):
    """Where the class of a plug-in is defined."""

    path: Path
    module: str
    """Dotted name."""
    class_name: str


@cache
def plugins_in(package: str) -> dict[str, Plugin]:
    """Map the name of each plug-in of one folder to its definition.

    A plug-in is a file, or a folder of the same name when it outgrows one file; in a folder, the
    file that defines the class counts.
    """
    contract, root = CONTRACTS[package], _ROOT.joinpath(*package.split("."))
    plugins = {}
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        class_name = _plugin_class(path.read_text(encoding="utf-8"), contract)
        if class_name is not None:
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(["tag2mask", package, *parts])
            plugins[parts[0]] = Plugin(path, module, class_name)
    return plugins


def available(package: str) -> list[str]:
    """List the names that a recipe can use for `package`, a key of CONTRACTS; import none of them.

    Example:
        >>> "dense_crf" in available("refiners")
        True
    """
    external = {point.name for point in entry_points(group=f"tag2mask.{package}")}
    return sorted(plugins_in(package).keys() | external)


def load(package: str, name: str) -> type[Any]:
    """Import one plug-in and return its class.

    Args:
        package: A key of CONTRACTS.
        name: Name of a file in the folder, of an entry point, or the lower-case name of a class
            that the running program defines.

    Raises:
        UnknownPluginError: If there is no such plug-in.
    """
    plugin = plugins_in(package).get(name)
    if plugin is not None:
        return _import_class(plugin)
    for point in entry_points(group=f"tag2mask.{package}"):
        if point.name == name:
            external: type[Any] = point.load()
            return external
    defined = _defined_in_program(package)
    if name in defined:
        return defined[name]
    known = {*available(package), *defined}
    raise UnknownPluginError(CONTRACTS[package].lower(), name, known)


def load_class(package: str, class_name: str) -> type[Any]:
    """Import the plug-in of one folder by its class name, for `from tag2mask.methods import RML`.

    Raises:
        AttributeError: If no plug-in of the folder has this class name.
    """
    for plugin in plugins_in(package).values():
        if plugin.class_name == class_name:
            return _import_class(plugin)
    raise AttributeError(f"module 'tag2mask.{package}' has no attribute '{class_name}'")


def class_names(package: str) -> list[str]:
    """List the class names of the plug-ins of one folder."""
    return sorted(plugin.class_name for plugin in plugins_in(package).values())


def _import_class(plugin: Plugin) -> type[Any]:
    """Import the class of a plug-in."""
    kind: type[Any] = getattr(importlib.import_module(plugin.module), plugin.class_name)
    return kind


def _defined_in_program(package: str) -> dict[str, type[Any]]:
    """Map lower-case class names to the plug-ins that the running program defines itself."""
    parent = package.partition(".")[0]  # models.backbones: the contract is in models.base
    base = sys.modules.get(f"tag2mask.{parent}.base")
    if base is None:  # nobody can have derived from a contract that is not imported
        return {}
    contract = getattr(base, CONTRACTS[package])
    return {
        kind.__name__.lower(): kind
        for kind in contract.__subclasses__()
        if not kind.__module__.startswith("tag2mask.")
    }


def _plugin_class(source: str, contract: str) -> str | None:
    """Return the name of the first class in `source` that derives directly from `contract`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == contract for base in node.bases
        ):
            return node.name
    return None
