import json

import pytest

from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RecipeError, RunError
from tag2mask.inference.tuned import apply_tuned, undo_tuned, write_tuned

RECIPE = load_recipe("rml/synthetic_tiny")
CHOSEN = {
    "predict": {"background": 0.2, "background_rule": "fixed", "refine": True},
    "refiner": {"name": "pamr"},
}


def test_without_file_a_run_keeps_its_recipe(tmp_path):
    assert apply_tuned(RECIPE, tmp_path) is RECIPE
    assert undo_tuned(RECIPE, tmp_path) is RECIPE


def test_chosen_values_apply_and_the_trained_ones_come_back(tmp_path):
    write_tuned(tmp_path, RECIPE, CHOSEN, {"by": "masks"})
    tuned = apply_tuned(RECIPE, tmp_path)
    assert tuned.predict.background == 0.2
    assert tuned.refiner.name == "pamr"
    assert tuned.predict.class_threshold == RECIPE.predict.class_threshold
    assert undo_tuned(tuned, tmp_path) == RECIPE
    written = json.loads((tmp_path / "tune.json").read_text())
    assert written["trained"]["predict"]["background"] == RECIPE.predict.background
    assert written["record"] == {"by": "masks"}


def test_a_choice_of_nothing_changes_nothing(tmp_path):
    write_tuned(tmp_path, RECIPE, {"predict": {}}, {})
    assert apply_tuned(RECIPE, tmp_path) == RECIPE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"chosen"'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "tune.json").write_text(text)
    with pytest.raises(RunError, match=r"tune\.json: .*; remove it to return to"):
        apply_tuned(RECIPE, tmp_path)


def test_a_value_that_does_not_fit_is_named(tmp_path):
    (tmp_path / "tune.json").write_text('{"chosen": {"predict": {"background": 7}}, "trained": {}}')
    with pytest.raises(RecipeError, match=r"tune\.json: predict\.background"):
        apply_tuned(RECIPE, tmp_path)
