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


def test_masks_decide_where_held_out_images_have_them(toy):
    made, method = validation_loop(toy, data__held_out=3)
    seen = made.score(method, CPU, 7)
    assert (made.metric, made.reason, seen.step) == (MIOU, None, 7)
    assert seen.score == pytest.approx(seen.detail["miou"])
    assert (seen.detail["class_source"], seen.detail["images"]) == ("classifier", 3)


def test_tags_decide_where_there_are_no_masks(toy):
    made, method = validation_loop(toy, data__held_out=8, data__masks=False)
    seen = made.score(method, CPU, 7)
    assert made.metric == TAG_MAP
    assert 0 < seen.score <= 1
    assert math.isfinite(seen.score)


def test_without_held_out_images_there_is_no_score_but_a_reason(toy):
    made, method = validation_loop(toy)
    assert (made.metric, made.reason) == (None, "no images are held out")
    assert made.score(method, CPU, 7) is None


def test_limit_of_images_is_kept(toy):
    made, method = validation_loop(toy, data__held_out=8, run__evaluate_images=2)
    assert made.score(method, CPU, 1).detail["images"] == 2


def test_looking_leaves_the_network_in_training(toy, tmp_path):
    made, method = validation_loop(toy, data__held_out=2, run__samples=2)
    made.score(method, CPU, 1)
    made.draw(method, CPU, 1, tmp_path)
    assert method.training
    assert method.backbone.norm.training


def test_strips_are_drawn_of_training_images_where_none_are_held_out(toy, tmp_path):
    made, method = validation_loop(toy, run__samples=2)
    made.draw(method, CPU, 1, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step000001_00_train0.png",
        "step000001_01_train11.png",
    ]


def test_a_held_out_list_that_cannot_be_read_stops_the_run(toy, monkeypatch):
    recipe = toy.recipe()
    train = toy.ToySource(recipe.data, "train")

    def reject(self, config, split):
        raise DataError("held.txt: no such list")

    monkeypatch.setattr(toy.ToySource, "__init__", reject)
    with pytest.raises(DataError, match="no such list"):
        ValidationLoop(recipe, train)
