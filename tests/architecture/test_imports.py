"""The import table: data flows one way, and no room reaches into a room it must not know."""

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
    "training": SHARED,
    "report": SHARED,
    "formats": {"data", "functional", "models", "refiners", "methods", "inference", "evaluation"},
    "app": {"data", "inference", "formats", "report", "visualization"},
}
ENTRY_POINTS = {"api", "pipeline", "stage_state"}
"""Root modules that may import everything but the command line."""
ROOMS = {*MAY_IMPORT, *ENTRY_POINTS, "cli"}
ROOT_MODULES_THAT_MAY_IMPORT_ALL = {"__init__", "__main__"}
"""The public names and the door; the rest of the root knows no room."""


def imported_rooms(node: ast.AST) -> list[str]:
    """Rooms that one statement imports: `import tag2mask.x`, `from tag2mask import x`,
    `from tag2mask.x import y`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return []
    parts = [name.split(".") for name in names]
    return [part[1] for part in parts if part[0] == "tag2mask" and len(part) > 1]


def problems(source: str, room: str) -> list[str]:
    """Rooms that a file of `room` imports against the table, and relative imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append("a relative import")
        for name in imported_rooms(node):
            if not allowed(room, name):
                found.append(name)
    return found


def allowed(room: str, name: str) -> bool:
    if name == room or name not in ROOMS:
        return True
    if room == "cli":
        return True
    if room in ENTRY_POINTS:
        return name != "cli"
    return name in MAY_IMPORT.get(room, set())


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_keeps_to_the_table(path):
    room = room_of(path)
    if room not in ROOT_MODULES_THAT_MAY_IMPORT_ALL:
        assert problems(path.read_text(encoding="utf-8"), room) == []


def test_every_folder_and_root_module_stands_in_the_table():
    rooms = {room_of(path) for path in FILES}
    assert rooms <= ROOMS | FREE | ROOT_MODULES_THAT_MAY_IMPORT_ALL


@pytest.mark.parametrize(
    ("room", "source"),
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
        ("types", "import tag2mask.io.images"),
        ("pipeline", "from tag2mask.cli import main"),
        ("training", "from tag2mask.report.page import write_report"),
        ("methods", "from .base import Method"),
    ],
)
def test_a_wrong_import_is_caught_in_every_form(room, source):
    assert problems(source, room)


@pytest.mark.parametrize(
    ("room", "source"),
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
def test_a_right_import_passes(room, source):
    assert problems(source, room) == []
