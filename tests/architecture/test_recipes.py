"""Every bundled recipe can be read; its header says what it is, how to run it, what to expect."""

import re

import pytest

from tag2mask import plugins
from tag2mask.config.recipe import RECIPE_FOLDER, available_recipes, load_recipe
from tag2mask.config.schema import resolve_steps

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


@pytest.mark.parametrize("name", RECIPES)
def test_fallback_is_set_only_where_the_classifier_selects_the_classes(name):
    recipe = load_recipe(name)
    if not recipe.stages and recipe.predict.fallback:
        assert plugins.load("methods", recipe.method.name).protocol.selects_by_classifier


@pytest.mark.parametrize(
    "name",
    ["rml/animals_hybrid", "rml/animals_efficientnet_lite0", "rml/voc_mitb1", "rml/coco_mitb1"],
)
def test_rml_falls_back_to_the_best_class_where_every_image_shows_one(name):
    assert load_recipe(name).predict.fallback


@pytest.mark.parametrize("method", ["rml", "afa"])
@pytest.mark.parametrize("data", ["voc", "coco"])
def test_no_weights_are_chosen_on_the_images_that_are_reported(method, data):
    recipe = load_recipe(f"{method}/{data}_mitb1")
    assert recipe.data.val_split in ("val", "val2014")
    assert recipe.run.best == "last"


@pytest.mark.parametrize("name", ["afa/voc_mitb1", "afa/coco_mitb1"])
def test_afa_trains_with_the_weights_of_its_table_4(name):
    method = load_recipe(name).method
    weights = (method.segmentation_weight, method.affinity_weight, method.energy_weight)
    assert weights == (0.1, 0.1, 0.01)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("rml/voc_mitb1", (18_000, 2_000, 1_500, None)),
        ("rml/coco_mitb1", (75_000, 5_000, 1_500, None)),
        ("afa/voc_mitb1", (20_000, 2_000, 1_500, 6_000)),
        ("afa/coco_mitb1", (80_000, 5_000, 1_500, 15_000)),
    ],
)
def test_fractions_give_the_published_steps_and_shrink_with_the_run(name, published):
    recipe = load_recipe(name)
    steps, warmup, rate_warmup, propagated = published
    assert recipe.optim.steps == steps
    assert recipe.method.warmup_rule == "fixed"
    assert resolve_steps(recipe.method.warmup, steps) == warmup
    assert resolve_steps(recipe.optim.warmup, steps) == rate_warmup
    assert resolve_steps(recipe.method.warmup, 600) < 100
    if propagated is not None:
        assert resolve_steps(recipe.method.propagate_from, steps) == propagated
