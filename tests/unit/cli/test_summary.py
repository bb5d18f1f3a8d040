from types import SimpleNamespace

from tag2mask import plugins
from tag2mask.cli import summary
from tag2mask.cli.summary import docstring_summary, plugin_summaries, recipe_summary


def test_docstring_summary_is_the_first_line(tmp_path):
    path = tmp_path / "x.py"
    path.write_text('"""First.\n\nMore."""\nimport a_module_that_is_not_there\n', encoding="utf-8")
    assert docstring_summary(path) == "First."
    path.write_text("x = 1\n", encoding="utf-8")
    assert docstring_summary(path) == ""


def test_every_plugin_has_a_summary():
    for package in ("methods", "refiners", "models.backbones", "data"):
        rows = plugin_summaries(package)
        assert list(rows) == plugins.available(package)
        assert all(rows.values()), rows


def test_third_party_plugin_is_listed_with_its_origin(monkeypatch):
    point = SimpleNamespace(name="outside", value="elsewhere.module:Outside")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    monkeypatch.setattr(summary, "entry_points", lambda group: [point])
    assert plugin_summaries("refiners")["outside"] == "elsewhere.module:Outside"


def test_recipe_summary_is_title_and_expectation(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("# Title.   Paper: X.\n# Run: y\n# Expect:  0.5 mIoU\ndata: {}\n", "utf-8")
    assert recipe_summary(path) == ("Title.   Paper: X.", "0.5 mIoU")
    path.write_text("data: {}\n", encoding="utf-8")
    assert recipe_summary(path) == ("", "")
