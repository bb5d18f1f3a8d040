"""What the pages tell people to type works: commands, recipes, options, the ten-minute method."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tag2mask import plugins
from tag2mask.cli.main import COMMANDS
from tag2mask.config.recipe import PLUGIN_SECTIONS, Recipe, available_recipes, parse_recipe
from tag2mask.methods.build import build_method
from tag2mask.types import Batch

REPOSITORY = Path(__file__).parents[2]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGE_IDS = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]


def known_keys() -> set[str]:
    """Every dotted key that some recipe may have."""
    keys = set()
    for section, field in Recipe.model_fields.items():
        kinds = [field.annotation]
        if section in PLUGIN_SECTIONS:
            folder = PLUGIN_SECTIONS[section]
            kinds = [plugins.load(folder, name).Config for name in plugins.available(folder)]
        for kind in kinds:
            keys |= {f"{section}.{key}" for key in getattr(kind, "model_fields", ())}
    return keys


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_of_the_page_exist(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
    for block in (first or second for first, second in code):
        for verb in re.findall(r"(?:^|\s)tag2mask (?!--)([a-z]+)", block):
            assert verb in COMMANDS, block
        for name in re.findall(r"tag2mask train ([a-z_]+/\w+)", block):
            assert name in available_recipes() or name.startswith("mine/"), block


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_options_of_the_page_are_keys_of_recipes(page):
    text = page.read_text(encoding="utf-8")
    options = re.findall(r"--(?:stages\.[a-z_]+\.)?([a-z]+\.[a-z_]+)", text)
    assert set(options) <= known_keys()


def blocks(language: str) -> list[str]:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_the_method_of_ten_minutes_trains(monkeypatch, tmp_path):
    (source,) = blocks("python")
    (written,) = blocks("yaml")
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    assert plugins._plugin_class(source, "Method") == "Mine"
    point = SimpleNamespace(name="mine", load=lambda: mine.Mine)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group.endswith("methods") else []
    )
    recipe = parse_recipe(yaml.safe_load(written), "CONTRIBUTING.md").with_classes(["a", "b"])
    method = build_method(recipe)
    batch = Batch(
        image=torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        tags=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        valid=torch.ones(2, 64, 64, dtype=torch.bool),
        name=["x", "y"],
    )
    losses = method.losses(batch, 0)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert method.classifier.weight.grad.abs().sum() > 0
    score = method.score(method.backbone.normalize(batch.image), batch.tags)
    assert score.shape == (2, 2, 64, 64)
