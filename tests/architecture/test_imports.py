"""The import table: data flows one way, and no package imports from a package it must not know."""

import ast
from pathlib import Path

import pytest

import tag2mask

ROOT = Path(tag2mask.__file__).parent
FREE = {
    *("types", "errors", "plugins", "lazy", "version"),
    *("config", "io", "checkpoint", "__init__"),
}
"""Modules and packages that everybody may import."""
SHARED = {"data", "functional", "methods", "refiners", "inference", "evaluation", "visualization"}
MAY_IMPORT = {
    "data": set(),
    "functional": set(),
    "models": {"functional"},
    "refiners": {"functional"},
    "methods": {"functional", "models", "refiners"},
    "inference": {"data", "functional", "methods", "refiners"},
    "visualization": {"functional", "inference"},
    "evaluation": {"data", "inference"},
    "fitting": {"data", "models"},
    "training": SHARED,
    "report": SHARED,
    "formats": {"data", "functional", "models", "refiners", "methods", "inference", "evaluation"},
    "app": {"data", "inference", "formats", "report", "visualization"},
}
ENTRY_POINTS = {"api", "pipeline", "stage_state", "reproduction"}
"""What may import everything but the command line: root modules, and `reproduction`, which trains
through the pipeline and scores what it trained."""
PACKAGES = {*MAY_IMPORT, *ENTRY_POINTS, "cli"}
ROOT_MODULES_THAT_MAY_IMPORT_ALL = {"__init__", "__main__"}
"""The public names and the door; the rest of the root knows no package."""


def imported_packages(node: ast.AST) -> list[str]:
    """Packages that one statement imports: `import tag2mask.x`, `from tag2mask import x`,
    `from tag2mask.x import y`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return []
    parts = [name.split(".") for name in names]
    return [part[1] for part in parts if part[0] == "tag2mask" and len(part) > 1]


def problems(source: str, package: str) -> list[str]:
    """Packages that a file of `package` imports against the table, and relative imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append("a relative import")
        for name in imported_packages(node):
            if not allowed(package, name):
                found.append(name)
    return found


def allowed(package: str, name: str) -> bool:
    if name == package or name not in PACKAGES:
        return True
    if package == "cli":
        return True
    if package in ENTRY_POINTS:
        return name != "cli"
    return name in MAY_IMPORT.get(package, set())


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_keeps_to_the_table(path):
    package = package_of(path)
    if package not in ROOT_MODULES_THAT_MAY_IMPORT_ALL:
        assert problems(path.read_text(encoding="utf-8"), package) == []


def test_every_folder_and_root_module_stands_in_the_table():
    packages = {package_of(path) for path in FILES}
    assert packages <= PACKAGES | FREE | ROOT_MODULES_THAT_MAY_IMPORT_ALL


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("models", "import tag2mask.methods.base"),
        ("models", "from tag2mask import methods"),
        ("models", "from tag2mask.methods import base"),
        ("models", "from tag2mask.methods.base import Method"),
        ("models", "import torch, tag2mask.training.trainer as trainer"),
        ("data", "def f():\n    from tag2mask.functional.cam import upsample"),
        ("data", "if TYPE_CHECKING:\n    from tag2mask.inference.writer import x"),
        ("functional", "from tag2mask import types, models"),
        ("evaluation", "from tag2mask.methods.base import Method"),
        ("recipe", "from tag2mask.methods.base import Method"),
        ("types", "import tag2mask.data.base"),
        ("pipeline", "from tag2mask.cli import main"),
        ("training", "from tag2mask.report.page import write_report"),
        ("methods", "from .base import Method"),
    ],
)
def test_a_wrong_import_is_caught_in_every_form(package, source):
    assert problems(source, package)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("models", "from tag2mask.functional.cam import upsample"),
        ("models", "from tag2mask import plugins, types"),
        ("models", "from tag2mask.models.base import Backbone"),
        ("training", "import tag2mask.evaluation.metrics"),
        ("cli", "from tag2mask.training.trainer import train"),
        ("data", "import tag2mask"),
        ("data", "from tag2masks.engine import x"),
    ],
)
def test_a_right_import_passes(package, source):
    assert problems(source, package) == []
