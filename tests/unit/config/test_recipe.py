import pickle
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tag2mask.config.recipe import (
    Recipe,
    available_recipes,
    load_recipe,
    parse_recipe,
    recipe_path,
    recipe_type,
)
from tag2mask.config.schema import OptimConfig
from tag2mask.errors import RecipeError

RAW = {
    "data": {"name": "voc", "root": "/data", "classes": ["cat", "dog"]},
    "backbone": {"name": "mit"},
    "method": {"name": "cam"},
    "optim": {"steps": 10},
}


def changed(section: str, **keys: object) -> dict[str, object]:
    return {**RAW, section: {**RAW.get(section, {}), **keys}}


def test_missing_keys_get_defaults():
    recipe = parse_recipe(RAW, "r.yaml")
    assert recipe.data.classes == ("cat", "dog")
    assert recipe.data.root == Path("/data")
    assert recipe.num_foreground == 2
    assert recipe.optim.steps == 10
    assert recipe.optim.batch_size == OptimConfig().batch_size
    assert recipe.refiner is None


def test_resolved_recipe_reads_back_equal(tmp_path):
    raw = {**RAW, "refiner": {"name": "par"}, "predict": {"scales": [1.0, 0.5]}}
    recipe = parse_recipe(raw, "r.yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)).model_dump() == recipe.model_dump()


def test_plugin_sections_keep_their_own_keys_when_written():
    recipe = parse_recipe(changed("backbone", name="mit", variant="b0"), "r.yaml")
    assert yaml.safe_load(recipe.to_yaml())["backbone"]["variant"] == "b0"


def test_number_that_yaml_reads_as_text_is_still_a_number():
    raw = yaml.safe_load("lr: 1e-4")
    assert raw == {"lr": "1e-4"}
    assert parse_recipe(changed("optim", **raw), "r").optim.lr == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (changed("optim", stepz=3), "r.yaml: unknown key 'optim.stepz'. Did you mean 'steps'?"),
        (changed("optim", lr=-1), "r.yaml: optim.lr: Input should be greater than 0 (got -1)"),
        (changed("data", crop_px=33), "r.yaml: data.crop_px: Input should be a multiple of 32"),
        (changed("run", precision="fp8"), "r.yaml: run.precision: Input should be 'fp32' or"),
        ({**RAW, "sede": 1}, "r.yaml: unknown key 'sede'."),
        (changed("method", name="rmml"), "unknown method 'rmml'. Did you mean 'rml'?"),
        ({**RAW, "method": "cam"}, "r.yaml: method: needs a mapping with 'name'"),
        ({"data": RAW["data"]}, "r.yaml: backbone: needs a mapping with 'name'"),
        ([1, 2], "r.yaml: a recipe is a mapping of sections, got list"),
        (None, "r.yaml: a recipe is a mapping of sections, got NoneType"),
    ],
)
def test_each_problem_is_one_line_that_names_file_and_key(raw, line):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(raw, "r.yaml")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_all_problems_are_reported_at_once():
    raw = {**changed("optim", lr="abc", stepz=1), "run": {"seed": -1}}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(raw, "r.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_unreadable_yaml_names_the_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {name: voc\nmethod: [", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"r\.yaml: line \d: is not valid YAML"):
        load_recipe(str(path))


def test_missing_or_undecodable_file_is_rejected(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.yaml: cannot be read \(No such file"):
        load_recipe(str(tmp_path / "gone.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        load_recipe(str(tmp_path / "latin.yaml"))


def test_bundled_recipes_are_found_by_name_and_a_mistyped_name_gets_a_hint():
    for name in available_recipes():
        assert recipe_path(name).is_file()
    with pytest.raises(RecipeError, match=r"Did you mean 'rml/voc_mitb1'\?"):
        recipe_path("rml/voc_mitb")


def test_recipe_is_frozen_and_classes_are_filled_in_on_a_copy():
    recipe = parse_recipe(changed("data", classes=[]), "r")
    filled = recipe.with_classes(["a", "b", "c"])
    assert (recipe.num_foreground, filled.num_foreground) == (0, 3)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim.lr = 1.0


def test_plugin_keys_are_checked_by_the_named_plugin():
    assert issubclass(recipe_type(RAW), Recipe)
    with pytest.raises(RecipeError, match=r"unknown key 'backbone\.variant'"):
        parse_recipe(changed("backbone", name="hybrid", variant="b0"), "r")


@pytest.mark.parametrize("name", ["rml/synthetic_tiny", "rml/animals_rounds"])
def test_recipe_can_be_sent_to_another_process(name):
    recipe = load_recipe(name)
    assert pickle.loads(pickle.dumps(recipe)).plain() == recipe.plain()
