"""What pages tell people to type works: commands, recipes, keys, options, the ten-minute method."""

import importlib
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tag2mask import plugins
from tag2mask.cli.command import build_command
from tag2mask.cli.main import COMMANDS
from tag2mask.config.keys import dotted_keys, fields_by_key
from tag2mask.config.overrides import apply_overrides, is_override
from tag2mask.config.recipe import (
    PLUGIN_SECTIONS,
    Recipe,
    available_recipes,
    parse_recipe,
    recipe_path,
)
from tag2mask.config.stages import StageConfig
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.yaml_files import read_yaml
from tag2mask.methods.build import build_method
from tag2mask.types import Batch

REPOSITORY = Path(__file__).parents[2]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGE_IDS = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
SECTIONS = "|".join([*Recipe.model_fields, "stages"])
DOTTED_KEY = re.compile(rf"(?:{SECTIONS})\.[a-z_][\w.]*")


def known_keys() -> set[str]:
    """Every dotted key that some recipe may have, and the sections."""
    keys = set(Recipe.model_fields)
    for section, field in Recipe.model_fields.items():
        kinds = [field.annotation]
        if section in PLUGIN_SECTIONS:
            folder = PLUGIN_SECTIONS[section]
            kinds = [plugins.load(folder, name).Config for name in plugins.available(folder)]
        keys |= {f"{section}.{key}" for kind in kinds for key in dotted_keys(kind)}
        keys |= {f"{section}.{key}" for kind in kinds for key in fields_by_key(kind)}
    return keys


KNOWN = known_keys()
STAGE_KEYS = KNOWN | set(fields_by_key(StageConfig))


def is_key(key: str) -> bool:
    """Whether a recipe may have a key; `stages.NAME.` may stand before it."""
    stage = re.fullmatch(r"stages\.\w+\.(.+)", key)
    return stage[1] in STAGE_KEYS if stage else key in KNOWN


def code_of(text: str) -> tuple[list[list[str]], list[str]]:
    """Words of each command in the shell blocks of a page, and its inline code."""
    blocks = re.findall(r"```(?:bash|text)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if "tag2mask " in line]
    commands = [words for words in commands if "tag2mask" in words]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    mentioned = [code.split() for code in inline if re.match(r"tag2mask [^|]+$", code)]
    return commands + mentioned, inline


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_of_the_page_are_accepted(page):
    commands, _ = code_of(page.read_text(encoding="utf-8"))
    for words in commands:
        name, *arguments = words[words.index("tag2mask") + 1 :]
        assert name in COMMANDS or name.startswith("-"), words
        if name not in COMMANDS or not arguments or "--help" in arguments:
            continue
        context = build_command(name).make_context(f"tag2mask {name}", arguments)
        recipe = context.params.get("recipe") or context.params.get("target")
        if name == "train" and recipe in available_recipes():
            raw = read_yaml(recipe_path(recipe))
            assert apply_overrides(raw, context.obj.overrides, recipe), words


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_recipes_of_the_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"tag2mask (?:train|list keys) ([a-z_0-9]+/\w+)", text):
        assert name in available_recipes() or name.startswith("mine/"), name


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_keys_of_the_page_are_keys_of_recipes(page):
    commands, inline = code_of(page.read_text(encoding="utf-8"))
    for word in {word for words in commands for word in words if is_override(word)}:
        assert is_key(word.partition("=")[0]) or word.startswith("BENCH="), word
    for code in inline:
        for word in code.split():
            key = word.partition("=")[0]
            assert not DOTTED_KEY.fullmatch(key) or is_key(key.rstrip(".")), code


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_keys_of_the_page_are_not_options(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(rf"--(?:{SECTIONS})\.[a-z_]+", text)


@pytest.mark.parametrize("name", plugins.available("methods"))
def test_every_method_has_a_page_with_its_keys(name):
    text = (REPOSITORY / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# `{name}`")
    assert f"{{recipe-keys}} methods {name}\n" in text


@pytest.mark.parametrize(
    ("folder", "page"), [("refiners", "refiners.md"), ("models.backbones", "recipes.md")]
)
def test_every_plugin_is_described_with_its_keys(folder, page):
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    for name in plugins.available(folder):
        assert f"{{recipe-keys}} {folder} {name}\n" in text, name


def test_readme_promises_no_package_on_an_index():
    assert not re.search(
        r"pip install ['\"]?tag2mask", (REPOSITORY / "README.md").read_text("utf-8")
    )


def blocks(language: str) -> list[str]:
    """Code blocks of CONTRIBUTING.md in one language, without their indentation."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_the_method_of_ten_minutes_trains_and_segments(monkeypatch, tmp_path):
    (source,) = blocks("python")
    (text,) = blocks("yaml")
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    assert plugins._plugin_class(source, "Method") == "Mine"
    point = SimpleNamespace(name="mine", load=lambda: mine.Mine)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group.endswith("methods") else []
    )
    recipe = parse_recipe(yaml.safe_load(text), "CONTRIBUTING.md").with_classes(["a", "b"])
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
    image = batch.image[0].permute(1, 2, 0).numpy()
    prediction = Segmenter(method, recipe).segment(image, np.array([1, 0], dtype=np.uint8))
    assert prediction.mask.shape == (64, 64)
    assert set(prediction.classes) <= {"a"}
