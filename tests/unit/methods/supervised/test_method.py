import math
from dataclasses import replace

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method

from tag2mask.errors import RecipeError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method
from tag2mask.types import IGNORE

HEADS = ["segformer", "aspp"]


def scripted(method: Method, logits: torch.Tensor) -> Method:
    """The method with a decoder that always says `logits`."""
    method.decoder.forward = lambda maps: logits.expand(len(maps[0]), -1, -1, -1)
    return method.eval()


def test_loss_is_the_mean_of_labeled_pixels_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/8, 1/8 everywhere, labels 0, 1 and ignore."""
    logits = torch.tensor([4.0, 2.0, 1.0, 1.0]).log().view(1, 4, 1, 1)
    method, batch = scripted(small_method("supervised"), logits), small_batch()
    mask = torch.full((2, 64, 64), IGNORE)
    mask[0, :2] = 0
    mask[1, 0] = 1
    found = method.losses(replace(batch, mask=mask), 0)
    assert set(found) == {"segmentation"}
    assert found["segmentation"].item() == pytest.approx((2 * math.log(2) + math.log(4)) / 3)
    assert method.monitor["ignored_pixels"].item() == pytest.approx(1 - 3 / 128)


@pytest.mark.parametrize("head", HEADS)
def test_a_crop_that_is_all_ignored_trains_nothing(head: str) -> None:
    method, batch = small_method("supervised", head=head).train(), small_batch()
    blank = replace(batch, mask=torch.full_like(batch.mask, IGNORE))
    loss = method.losses(blank, 0)["segmentation"]
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad is not None and p.grad.any() for p in method.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_it_learns_the_masks(head: str) -> None:
    method, batch = small_method("supervised", head=head, decoder_dropout=0), small_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    seen = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = method.train().losses(batch, 0)["segmentation"]
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.6 * seen[0]


def test_tags_are_not_read() -> None:
    batch = small_batch()
    first, second = (
        small_method("supervised").eval().losses(replace(batch, tags=tags), 0)["segmentation"]
        for tags in (batch.tags, 1 - batch.tags)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_without_masks_it_says_so() -> None:
    with pytest.raises(RecipeError, match="supervised learns from masks"):
        small_method("supervised").losses(replace(small_batch(), mask=None), 0)


@torch.no_grad()
def test_a_class_is_as_likely_as_its_likeliest_cell() -> None:
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
    """By `afa` whoever wins a cell owns it; by `rml` class 2, never above one half, is left out."""
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
    plain = {"protocol": protocol, "scales": (1.0,), "flip": False, "refine": False}
    predict = recipe.predict.model_copy(update=plain | {"long_side_px": 0})
    return recipe.model_copy(update={"predict": predict})
