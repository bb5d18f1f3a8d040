"""Every module has its test file at the same place; plug-ins are swept by the conformance tests."""

from pathlib import Path

import pytest

import tag2mask
from tag2mask import plugins

ROOT = Path(tag2mask.__file__).parent
REPOSITORY = Path(__file__).parents[2]
UNIT = REPOSITORY / "tests" / "unit"
WITHOUT_TWIN = {
    "__init__.py": "public names: tests/architecture/test_public_names.py",
    "__main__.py": "two lines: tests/integration/test_cli.py starts it",
    "data/base.py": "a contract: tests/conformance sweeps every source",
    "formats/base.py": "a contract: tests/conformance sweeps every format",
    "models/base.py": "a contract: tests/conformance sweeps every backbone",
    "refiners/base.py": "a contract: tests/conformance sweeps every refiner",
}
"""File -> why it has no test file of its own. Empty package markers and plug-ins need none."""
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "stuff"}


def is_plugin(path: Path) -> bool:
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    return package in plugins.CONTRACTS and path.stem in plugins.available(package)


def twin_of(path: Path) -> Path:
    inside = path.relative_to(ROOT)
    return UNIT / inside.with_name(f"test_{inside.name}")


def needs_twin(path: Path) -> bool:
    if path.name == "__init__.py":
        return False
    return path.relative_to(ROOT).as_posix() not in WITHOUT_TWIN and not is_plugin(path)


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize(
    "path", list(filter(needs_twin, MODULES)), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_module_has_its_twin(path):
    assert twin_of(path).is_file()


def test_exceptions_are_still_there():
    for name in WITHOUT_TWIN:
        assert (ROOT / name).is_file()


def test_no_unit_test_has_lost_its_module():
    for test in UNIT.rglob("test_*.py"):
        inside = test.relative_to(UNIT)
        assert (ROOT / inside.with_name(inside.name.removeprefix("test_"))).is_file(), test


def test_packages_hold_nothing_but_a_docstring_or_lazy_names():
    for path in ROOT.rglob("__init__.py"):
        source = path.read_text(encoding="utf-8")
        is_lazy = "attach(__name__)" in source or "plugins.load_class(" in source
        assert is_lazy or len(source.splitlines()) <= 5, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_has_a_vague_name(path):
    assert path.stem not in VAGUE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_is_longer_than_one_can_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
