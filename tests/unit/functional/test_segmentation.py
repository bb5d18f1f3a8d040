import math
from collections.abc import Callable

import pytest
import torch

from tag2mask.functional.segmentation import pixel_loss, segmentation_loss

IGNORE = 255
LossOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def test_background_and_foreground_weigh_half_each_whatever_their_share() -> None:
    logits = torch.zeros(1, 2, 1, 5)
    logits[0, 0] = math.log(3)  # probabilities 3/4 and 1/4 everywhere
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    by_hand = 0.5 * math.log(4 / 3) + 0.5 * math.log(4)
    assert segmentation_loss(logits, label).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("only", [0, 1])
def test_a_half_without_pixels_counts_nothing(only: int) -> None:
    logits, label = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), only)
    assert segmentation_loss(logits, label).item() == pytest.approx(0.5 * math.log(2))


def test_every_labeled_pixel_weighs_the_same() -> None:
    logits = torch.zeros(1, 2, 1, 5)
    logits[0, 0] = math.log(3)
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    by_hand = (3 * math.log(4 / 3) + math.log(4)) / 4
    assert pixel_loss(logits, label).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("loss_of", [segmentation_loss, pixel_loss])
def test_all_ignored_gives_zero_and_a_zero_gradient(loss_of: LossOf) -> None:
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = loss_of(logits, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
