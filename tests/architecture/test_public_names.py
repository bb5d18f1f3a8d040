"""The public names: a deliberate list, typed, and imported only when they are used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tag2mask
from tag2mask import lazy, plugins

PUBLIC = {
    "BACKGROUND",
    "IGNORE",
    "ImageProgress",
    "Prediction",
    "Recipe",
    "Report",
    "Segmenter",
    "StepProgress",
    "Tag2MaskError",
    "__version__",
    "evaluate",
    "export",
    "export_model",
    "import_masks",
    "label",
    "load",
    "load_recipe",
    "predict",
    "train",
    "tune",
}
LAZY = ("tag2mask", "tag2mask.functional", "tag2mask.models")
"""Packages whose public names are the imports for type checkers."""
PLUGIN_PACKAGES = ("methods", "models.backbones", "refiners")


def typed_names(package: str) -> dict[str, str]:
    """Return the names that type checkers find in a package, with their modules."""
    init = Path(importlib.import_module(package).__file__)
    return lazy.public_names(init.read_text(encoding="utf-8"))


def test_list_of_public_names_is_a_decision():
    assert set(tag2mask.__all__) == PUBLIC
    assert dir(tag2mask) == sorted(PUBLIC)


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in LAZY for name in typed_names(package)]
)
def test_public_name_can_be_imported(package, name):
    value = getattr(importlib.import_module(package), name)
    assert value is not None
    assert not isinstance(value, type(sys)), "a module of the same name hides it"


@pytest.mark.parametrize("package", PLUGIN_PACKAGES)
def test_every_plugin_class_can_be_imported_from_its_package(package):
    module = importlib.import_module(f"tag2mask.{package}")
    for name, plugin in plugins.plugins_in(package).items():
        assert getattr(module, plugin.class_name) is plugins.load(package, name)
    assert dir(module) == plugins.class_names(package)


@pytest.mark.parametrize("package", PLUGIN_PACKAGES)
def test_names_for_type_checkers_are_plugins(package):
    classes = {plugin.class_name: plugin.module for plugin in plugins.plugins_in(package).values()}
    assert typed_names(f"tag2mask.{package}").items() <= classes.items()


@pytest.mark.parametrize("package", [*LAZY, *(f"tag2mask.{name}" for name in PLUGIN_PACKAGES)])
def test_unknown_name_is_an_ordinary_attribute_error(package):
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match="has no attribute 'segment_everything'"):
        module.segment_everything  # noqa: B018 -- the test looks it up


def test_importing_the_packages_imports_no_torch():
    code = (
        "import sys, tag2mask, tag2mask.methods, tag2mask.refiners, tag2mask.functional, "
        "tag2mask.models.backbones; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_is_fast():
    code = (
        "import time; start = time.process_time(); import tag2mask; "
        "print(time.process_time() - start)"
    )
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(seconds) < 0.2
