import math

import pytest
import torch

from tag2mask.errors import DataError
from tag2mask.methods.build import build_method
from tag2mask.training.validation import MIOU, TAG_MAP, ValidationLoop

CPU = torch.device("cpu")


def validation_loop(toy, **changed):
    recipe = toy.recipe(**changed)
    torch.manual_seed(0)
    return ValidationLoop(recipe, toy.ToySource(recipe.data, "train")), build_method(recipe).train()


def test_held_out_images_with_masks_are_scored_by_masks(toy):
    loop, method = validation_loop(toy, data__held_out=3)
    evaluation = loop.score(method, CPU, 7)
    assert (loop.metric, loop.reason, evaluation.step) == (MIOU, None, 7)
    assert evaluation.score == pytest.approx(evaluation.detail["miou"])
    assert (evaluation.detail["class_source"], evaluation.detail["images"]) == ("classifier", 3)


def test_held_out_images_without_masks_are_scored_by_tags(toy):
    loop, method = validation_loop(toy, data__held_out=8, data__masks=False)
    evaluation = loop.score(method, CPU, 7)
    assert loop.metric == TAG_MAP
    assert 0 < evaluation.score <= 1
    assert math.isfinite(evaluation.score)


def test_without_held_out_images_there_is_a_reason_and_no_score(toy):
    loop, method = validation_loop(toy)
    assert (loop.metric, loop.reason) == (None, "no images are held out")
    assert loop.score(method, CPU, 7) is None


def test_the_number_of_images_is_limited(toy):
    loop, method = validation_loop(toy, data__held_out=8, run__evaluate_images=2)
    assert loop.score(method, CPU, 1).detail["images"] == 2


def test_validation_leaves_the_network_in_training_mode(toy, tmp_path):
    loop, method = validation_loop(toy, data__held_out=2, run__samples=2)
    loop.score(method, CPU, 1)
    loop.save_samples(method, CPU, 1, tmp_path)
    assert method.training
    assert method.backbone.norm.training


def test_samples_show_training_images_if_none_are_held_out(toy, tmp_path):
    loop, method = validation_loop(toy, run__samples=2)
    loop.save_samples(method, CPU, 1, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step000001_00_train0.png",
        "step000001_01_train11.png",
    ]


def test_an_unreadable_held_out_list_stops_the_run(toy, monkeypatch):
    recipe = toy.recipe()
    train = toy.ToySource(recipe.data, "train")

    def reject(self, config, split):
        raise DataError("held.txt: no such list")

    monkeypatch.setattr(toy.ToySource, "__init__", reject)
    with pytest.raises(DataError, match="no such list"):
        ValidationLoop(recipe, train)
