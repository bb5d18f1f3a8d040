from types import SimpleNamespace

import pytest

from tag2mask import plugins
from tag2mask.errors import UnknownPluginError


def test_a_file_without_a_class_of_the_contract_is_no_plugin():
    for package in plugins.CONTRACTS:
        assert "base" not in plugins.available(package)
        assert "__init__" not in plugins.available(package)


def test_contract_is_found_by_direct_base_only():
    source = "class A(Other): ...\nclass B(Method): ...\nclass C(Method): ...\n"
    assert plugins._plugin_class(source, "Method") == "B"
    assert plugins._plugin_class("class A(base.Method): ...", "Method") is None
    assert plugins._plugin_class("x = 1", "Method") is None


@pytest.mark.parametrize("package", ["methods", "models.backbones", "refiners", "data"])
def test_every_listed_plugin_loads_and_has_its_contract_as_base(package):
    for name in plugins.available(package):
        kind = plugins.load(package, name)
        assert plugins.CONTRACTS[package] in {base.__name__ for base in kind.__mro__[1:]}


def test_unknown_name_is_rejected_with_the_known_ones():
    with pytest.raises(UnknownPluginError, match=r"unknown refiner 'pra'\. Did you mean 'par'\?"):
        plugins.load("refiners", "pra")


def test_third_parties_add_plugins_by_entry_point(monkeypatch):
    marker = type("Outside", (), {})
    point = SimpleNamespace(name="outside", load=lambda: marker)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert "outside" in plugins.available("methods")
    assert plugins.load("methods", "outside") is marker
