"""A complete step of SEAM equals the formulas of Specification 4.2, in value and in gradient."""

import pytest
import torch
from tests.reference import seam_step_oracle as oracle
from tests.reference.step_network import (
    SIDE,
    StepBackbone,
    close,
    doubled,
    normalized,
    resize,
    step_batch,
)
from torch import Tensor

from tag2mask.methods.seam.method import SEAM, SEAMConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 1, 0]])
SMALL = SIDE // 2
LOSSES = ("classification", "min_pooling", "er", "ecr")


class Step:
    """The losses of a step, and the tensors that its gradients are compared at."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.backbone = StepBackbone(num_leaves=2)
        config = SEAMConfig(small_scale=0.5, dropout=0.0)
        self.method = SEAM(config, self.backbone, 3, None, 10).train()
        pcm = self.method.pcm
        self.parameters = {
            "classifier": self.method.head.classifier.weight,
            "reduce f2": pcm.reduce[0].weight,
            "reduce f3": pcm.reduce[1].weight,
            "mix": pcm.mix.weight,
        }
        self.batch = step_batch(TAGS)
        self.losses = self.method.losses(self.batch, 0)
        self.copies = {name: doubled(weight) for name, weight in self.parameters.items()}
        self.features = [leaf.detach().double().requires_grad_() for leaf in self.backbone.leaves]
        self.expected = self._expected()

    def _expected(self) -> dict[str, Tensor]:
        crop = normalized(self.batch.image)
        small = torch.stack(
            [
                torch.stack([resize(plane, (SMALL, SMALL), aligned=True) for plane in one])
                for one in crop
            ]
        )
        weights = {name: one[..., 0, 0] for name, one in self.copies.items()}
        reduce = [weights["reduce f2"], weights["reduce f3"]]
        views = []
        for image, features in zip((crop, small), self.features, strict=True):
            views.append([])
            for pixels, one in zip(image, features, strict=True):
                cam = torch.einsum("fd,dhw->fhw", weights["classifier"], one)
                early = [self.backbone.map(level, pixels[None])[0] for level in (1, 2)]
                refined = oracle.pcm(pixels, early, cam, reduce, weights["mix"])
                views[-1].append(oracle.View(cam, refined))
        return oracle.losses(*views, TAGS, (SMALL, SMALL))


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_equals_its_formula(step: Step, name: str) -> None:
    assert set(step.losses) == set(LOSSES)
    assert step.losses[name].item() == pytest.approx(step.expected[name].item(), rel=1e-4)
    assert step.expected[name].item() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_every_gradient_equals_that_of_its_formula(step: Step, name: str) -> None:
    got = [*step.backbone.leaves, *step.parameters.values()]
    copies = [*step.features, *step.copies.values()]
    gradients, expected = (
        torch.autograd.grad(losses[name], tensors, retain_graph=True, materialize_grads=True)
        for losses, tensors in ((step.losses, got), (step.expected, copies))
    )
    compared = 0
    for one, reference in zip(gradients, expected, strict=True):
        if reference.abs().max() > 0:
            close(one, reference)
            compared += 1
        else:
            assert one.abs().max() == 0
    assert compared == 3  # both views and the classifier, or the three layers of PCM
