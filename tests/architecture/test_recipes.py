"""Every bundled recipe can be read; its header says what it is, how to run it, what to expect."""

import re

import pytest

from tag2mask.config.recipe import RECIPE_FOLDER, available_recipes, load_recipe

RECIPES = available_recipes()


def header(name: str) -> list[str]:
    lines = (RECIPE_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


def test_there_are_recipes():
    assert {
        "rml/synthetic_tiny",
        "cam/synthetic_tiny",
        "rml/animals_hybrid",
        "rml/voc_mitb1",
    } <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_can_be_read(name):
    recipe = load_recipe(name)
    assert recipe.method.name == name.split("/")[0]


@pytest.mark.parametrize("name", RECIPES)
def test_header_is_complete(name):
    text = "\n".join(header(name))
    assert re.search(r"Paper: +\S", text)
    assert re.search(rf"^# Run: +tag2mask train {re.escape(name)} .*--out ", text, re.MULTILINE)
    assert re.search(r"^# Expect: +\S", text, re.MULTILINE)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_name_follows_the_pattern(name):
    assert re.fullmatch(r"[a-z_]+/[a-z]+(_[a-z0-9]+)+", name)
