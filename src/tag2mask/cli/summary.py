"""Read one-line summaries of plug-ins, recipes and commands from the source, without importing."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

from tag2mask import plugins

EXPECTATION = "# Expect:"


def docstring_summary(path: Path) -> str:
    """Return the first line of a Python file's docstring, or an empty string."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0]


def plugin_summaries(package: str) -> dict[str, str]:
    """Map each plug-in of one folder to its summary, and each third-party one to its origin."""
    bundled = plugins.plugins_in(package)
    outside = {point.name: point.value for point in entry_points(group=f"tag2mask.{package}")}
    return {
        name: docstring_summary(bundled[name].path) if name in bundled else outside[name]
        for name in plugins.available(package)
    }


def recipe_summary(path: Path) -> tuple[str, str]:
    """Return title and expected time and score from a recipe's header; empty where not stated."""
    lines = path.read_text(encoding="utf-8").splitlines()
    title = lines[0].removeprefix("#").strip() if lines and lines[0].startswith("#") else ""
    expected = [
        line.removeprefix(EXPECTATION).strip() for line in lines if line.startswith(EXPECTATION)
    ]
    return title, expected[0] if expected else ""
