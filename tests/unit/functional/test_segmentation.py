import math

import pytest
import torch

from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.types import IGNORE


def test_background_and_foreground_have_weight_one_half_for_any_number_of_pixels() -> None:
    logits = torch.zeros(1, 2, 1, 5)
    logits[0, 0] = math.log(3)  # probabilities 3/4 and 1/4 everywhere
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    by_hand = 0.5 * math.log(4 / 3) + 0.5 * math.log(4)
    assert segmentation_loss(logits, label).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("only", [0, 1])
def test_half_without_pixels_is_zero(only: int) -> None:
    logits, label = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), only)
    assert segmentation_loss(logits, label).item() == pytest.approx(0.5 * math.log(2))


def test_ignored_pixels_alone_give_zero_loss_and_zero_gradient() -> None:
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
