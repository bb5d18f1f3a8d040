from types import SimpleNamespace

import pytest

from tag2mask import plugins
from tag2mask.errors import UnknownPluginError


def test_a_file_without_a_class_of_the_contract_is_not_a_plugin():
    for package in plugins.CONTRACTS:
        assert "base" not in plugins.available(package)
        assert "__init__" not in plugins.available(package)


def test_only_a_direct_base_makes_a_plugin():
    source = "class A(Other): ...\nclass B(Method): ...\nclass C(Method): ...\n"
    assert plugins._plugin_class(source, "Method") == "B"
    assert plugins._plugin_class("class A(base.Method): ...", "Method") is None
    assert plugins._plugin_class("x = 1", "Method") is None


@pytest.mark.parametrize("package", list(plugins.CONTRACTS))
def test_every_listed_plugin_loads_and_has_its_contract_as_base(package):
    for name in plugins.available(package):
        kind = plugins.load(package, name)
        assert plugins.CONTRACTS[package] in {base.__name__ for base in kind.__mro__[1:]}


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(UnknownPluginError, match=r"unknown refiner 'pra'\. Did you mean 'par'\?"):
        plugins.load("refiners", "pra")


def test_entry_points_add_plugins(monkeypatch):
    marker = type("External", (), {})
    point = SimpleNamespace(name="external", load=lambda: marker)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert "external" in plugins.available("methods")
    assert plugins.load("methods", "external") is marker


def test_a_class_of_the_running_program_is_named_by_its_class_name():
    from tag2mask.refiners.base import Refiner

    class Blur(Refiner):
        def refine(self, image, probs):
            return probs

    assert plugins.load("refiners", "blur") is Blur
    assert "blur" not in plugins.available("refiners")
    with pytest.raises(UnknownPluginError, match=r"unknown refiner 'blr'\. Did you mean 'blur'\?"):
        plugins.load("refiners", "blr")


def test_classes_are_found_by_class_name():
    assert plugins.load_class("refiners", "PAMR") is plugins.load("refiners", "pamr")
    with pytest.raises(AttributeError, match=r"'tag2mask\.methods' has no attribute 'Nothing'"):
        plugins.load_class("methods", "Nothing")
