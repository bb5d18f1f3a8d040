import pytest

from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RunError
from tag2mask.methods.build import build_method
from tag2mask.training.inputs import (
    describe_masks,
    load_earlier,
    padding_color,
    training_images,
)


def test_padding_is_black_or_the_mean_color(toy):
    recipe = toy.recipe()
    method = build_method(recipe)
    assert padding_color(recipe.data, method) == (0, 0, 0)
    mean = toy.recipe(data__padding="mean").data
    assert padding_color(mean, method) == (124, 116, 104)  # ImageNet's mean


def test_training_reads_the_training_part(toy):
    images = training_images(toy.recipe(data__held_out=3))
    assert (len(images.source), images.reads_masks) == (12, False)
    assert training_images(toy.recipe(method__name="supervised")).reads_masks


def test_the_use_of_some_true_masks_is_described(toy):
    def lines(**changed):
        recipe = toy.recipe(**changed)
        return list(describe_masks(training_images(recipe), recipe.data))

    assert lines() == []  # all images have a mask, and the method learns from tags
    assert lines(data__masked=2, data__true_masks="train") == [
        "learns from 2 true masks, 25% of each batch"
    ]
    (hint,) = lines(data__masked=2)
    assert hint.startswith("2 images have true masks, used for scores only")


def test_a_missing_network_of_an_earlier_stage_is_named(toy):
    recipe = toy.recipe().model_copy(update={"earlier": {"cam": load_recipe("cam/synthetic_tiny")}})
    with pytest.raises(RunError, match="the network of stage 'cam' is missing"):
        load_earlier(recipe, {})
