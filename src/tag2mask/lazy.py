"""Import the public names of a package when they are first used (PEP 562).

The `if TYPE_CHECKING:` block of a package's `__init__.py` is the one list of its public names:
type checkers and editors read it, and so does `attach`.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Attached = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(package: str) -> Attached:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    Example:
        In an `__init__.py`, `import tag2mask` costs nothing until `tag2mask.Recipe` is used:

            if TYPE_CHECKING:
                from tag2mask.config.recipe import Recipe as Recipe
            else:
                __getattr__, __dir__, __all__ = attach(__name__)
    """
    init = Path(str(sys.modules[package].__file__))
    modules = public_names(init.read_text(encoding="utf-8"))
    names = sorted(modules)

    def get_attribute(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(modules[name]), name)

    def list_names() -> list[str]:
        """List the public names."""
        return names

    return get_attribute, list_names, names


def public_names(source: str) -> dict[str, str]:
    r"""Map every name that the `if TYPE_CHECKING:` blocks of a module import to its home module.

    Example:
        >>> public_names("if TYPE_CHECKING:\n    from tag2mask.types import IGNORE as IGNORE")
        {'IGNORE': 'tag2mask.types'}
    """
    blocks = (
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name: str(node.module)
        for body in blocks
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name  # exported; without `as`, a type checker hides the name
    }
