"""A step of the CAM baseline and of a segmentation network equals its formula and gradient."""

from dataclasses import replace

import pytest
import torch
from tests.reference.step_network import (
    SIDE,
    StepBackbone,
    close,
    doubled,
    multi_label,
    resize,
    step_batch,
)
from torch import Tensor

from tag2mask.methods.cam import CAM, CAMConfig
from tag2mask.methods.supervised.method import Supervised, SupervisedConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
IGNORE = 255


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_the_classification_equals_its_formula(pooling: str) -> None:
    """R14 with its minus sign; with gmp the features are pooled before the classifier (2.1)."""
    torch.manual_seed(2)
    backbone = StepBackbone()
    method = CAM(CAMConfig(pooling=pooling), backbone, 3, None, 10).train()
    losses = method.losses(step_batch(TAGS), 0)
    (leaf,) = backbone.leaves
    features, weight = (
        leaf.detach().double().requires_grad_(),
        doubled(method.head.classifier.weight),
    )
    pooled = features.mean(dim=(2, 3)) if pooling == "gap" else features.amax(dim=(2, 3))
    expected = multi_label(pooled @ weight[..., 0, 0].T, TAGS)
    assert set(losses) == {"classification"}
    assert losses["classification"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["classification"].backward()
    expected.backward()
    close(leaf.grad, features.grad)
    close(method.head.classifier.weight.grad, weight.grad)


def test_the_segmentation_loss_is_the_mean_over_labeled_pixels_of_both_images() -> None:
    torch.manual_seed(2)
    method = Supervised(SupervisedConfig(head="aspp"), StepBackbone(0), 3, None, 10).train()
    score = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    method.decoder.register_forward_hook(lambda *_: score)
    generator = torch.Generator().manual_seed(5)
    mask = torch.randint(0, 4, (2, SIDE, SIDE), generator=generator)
    mask[0, :40] = IGNORE  # the images have different numbers of labeled pixels
    losses = method.losses(replace(step_batch(TAGS), mask=mask), 0)
    copy = score.detach().double().requires_grad_()
    total: Tensor = torch.zeros((), dtype=torch.float64)
    for maps, label in zip(copy, mask, strict=True):
        planes = torch.stack([resize(plane, (SIDE, SIDE)) for plane in maps])
        log_sum = torch.log(torch.exp(planes).sum(dim=0))
        for c in range(4):
            total = total + (log_sum - planes[c])[label == c].sum()
    expected = total / int((mask != IGNORE).sum())
    assert losses["segmentation"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["segmentation"].backward()
    expected.backward()
    close(score.grad, copy.grad)
