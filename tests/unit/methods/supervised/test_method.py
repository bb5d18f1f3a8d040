import math
from dataclasses import replace

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method
from torch import nn

from tag2mask.errors import RecipeError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method
from tag2mask.methods.supervised.method import Supervised, SupervisedConfig
from tag2mask.types import IGNORE

HEADS = ["segformer", "aspp", "largefov"]


def scripted(method: Method, logits: torch.Tensor) -> Method:
    """Return the method with a decoder that always returns `logits`."""
    method.decoder.forward = lambda maps: logits.expand(len(maps[0]), -1, -1, -1)
    return method.eval()


def test_the_loss_is_the_mean_over_labeled_pixels() -> None:
    """The probabilities are 1/2, 1/4, 1/8, 1/8 everywhere; the labels 0, 1 and ignore."""
    logits = torch.tensor([4.0, 2.0, 1.0, 1.0]).log().view(1, 4, 1, 1)
    method, batch = scripted(small_method("supervised"), logits), small_batch()
    mask = torch.full((2, 64, 64), IGNORE)
    mask[0, :2] = 0
    mask[1, 0] = 1
    values = method.losses(replace(batch, mask=mask), 0)
    assert set(values) == {"segmentation"}
    assert values["segmentation"].item() == pytest.approx((2 * math.log(2) + math.log(4)) / 3)
    assert method.monitor["ignored_pixels"].item() == pytest.approx(1 - 3 / 128)


@pytest.mark.parametrize("head", HEADS)
def test_a_crop_without_labels_trains_nothing(head: str) -> None:
    method, batch = small_method("supervised", head=head).train(), small_batch()
    blank = replace(batch, mask=torch.full_like(batch.mask, IGNORE))
    loss = method.losses(blank, 0)["segmentation"]
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad is not None and p.grad.any() for p in method.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_the_loss_falls_in_training(head: str) -> None:
    method, batch = small_method("supervised", head=head, decoder_dropout=0), small_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = method.train().losses(batch, 0)["segmentation"]
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]


@pytest.mark.parametrize("train_all", [False, True])
def test_fixed_layers_of_the_backbone_but_no_norms_are_trained_on_request(train_all: bool) -> None:
    backbone = small_method("supervised").backbone.requires_grad_(False)
    config = SupervisedConfig(head="largefov", train_all=train_all)
    method = Supervised(config, backbone, 3, None, 10)
    for layer in method.backbone.modules():
        for parameter in layer.parameters(recurse=False):
            is_trained = train_all and isinstance(layer, nn.Conv2d | nn.Linear)
            assert parameter.requires_grad == is_trained, layer


def test_tags_are_not_read() -> None:
    batch = small_batch()
    first, second = (
        small_method("supervised").eval().losses(replace(batch, tags=tags), 0)["segmentation"]
        for tags in (batch.tags, 1 - batch.tags)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_missing_masks_are_rejected() -> None:
    with pytest.raises(RecipeError, match="supervised learns from masks"):
        small_method("supervised").losses(replace(small_batch(), mask=None), 0)


@torch.no_grad()
def test_the_probability_of_a_class_is_that_of_its_most_probable_pixel() -> None:
    logits = torch.zeros(1, 4, 2, 2)
    logits[0, :, 0, 0] = torch.tensor([1.0, 6.0, 2.0, 1.0]).log()  # class 1: 0.6
    logits[0, :, 0, 1] = torch.tensor([5.0, 1.0, 4.0, 1e-9]).log()  # class 2: 0.4
    logits[0, :, 1] = torch.tensor([9.0, 0.5, 0.5, 1e-9]).log().view(4, 1)
    method = scripted(small_method("supervised"), logits)
    probs = method.class_logits(torch.zeros(1, 3, 64, 64)).sigmoid()
    torch.testing.assert_close(probs, torch.tensor([[0.6, 0.4, 0.1]]))


@torch.no_grad()
@pytest.mark.parametrize(("protocol", "classes"), [("afa", [0, 1, 2]), ("rml", [0, 1])])
def test_masks_come_from_the_decoder(protocol: str, classes: list[int]) -> None:
    """With `afa` the highest score wins; with `rml` class 2, never above 0.5, is left out."""
    logits = torch.zeros(1, 4, 16, 16)
    logits[0, 1, :8] = 5.0
    logits[0, 2, 8:12] = 0.5
    logits[0, 0, 12:] = 5.0
    method = scripted(small_method("supervised"), logits)
    recipe = recipe_with(protocol)
    image = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    predicted = Segmenter(method, recipe).segment(image)
    assert torch.from_numpy(predicted.mask).unique().tolist() == classes
    assert (predicted.mask[:30] == 1).all()
    assert predicted.scores["blob"] > 0.9
    assert predicted.scores["stripe"] < 0.5


def recipe_with(protocol: str):
    from tests.conformance.stand_ins import small_recipe

    recipe = small_recipe("supervised")
    settings = {"protocol": protocol, "scales": (1.0,), "flip": False, "refine": False}
    predict = recipe.predict.model_copy(update=settings | {"long_side_px": 0})
    return recipe.model_copy(update={"predict": predict})
