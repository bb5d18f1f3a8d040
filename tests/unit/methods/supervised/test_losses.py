import math

import pytest
import torch

from tag2mask.methods.supervised.losses import pixel_loss
from tag2mask.types import IGNORE


def test_every_labeled_pixel_has_the_same_weight() -> None:
    logits = torch.zeros(1, 2, 1, 5)
    logits[0, 0] = math.log(3)  # probabilities 3/4 and 1/4 everywhere
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    by_hand = (3 * math.log(4 / 3) + math.log(4)) / 4
    assert pixel_loss(logits, label).item() == pytest.approx(by_hand)


def test_ignored_pixels_alone_give_zero_loss_and_zero_gradient() -> None:
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = pixel_loss(logits, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
