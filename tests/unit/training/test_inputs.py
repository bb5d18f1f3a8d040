import pytest

from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RunError
from tag2mask.methods.build import build_method
from tag2mask.training.inputs import load_earlier, padding_color, training_source


def test_padding_is_black_or_the_mean_color(toy):
    recipe = toy.recipe()
    method = build_method(recipe)
    assert padding_color(recipe.data, method) == (0, 0, 0)
    mean = toy.recipe(data__padding="mean").data
    assert padding_color(mean, method) == (124, 116, 104)  # ImageNet's mean


def test_training_reads_the_training_part(toy):
    assert len(training_source(toy.recipe(data__held_out=3).data)) == 12


def test_a_missing_network_of_an_earlier_stage_is_named(toy):
    recipe = toy.recipe().model_copy(update={"earlier": {"cam": load_recipe("cam/synthetic_tiny")}})
    with pytest.raises(RunError, match="the network of stage 'cam' is missing"):
        load_earlier(recipe, {})
