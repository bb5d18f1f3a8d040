"""A complete step of AEFT equals the formulas of Specification 4.1, in value and in gradient."""

import pytest
import torch
from tests.reference import aeft_step_oracle as oracle
from tests.reference.step_network import (
    SIDE,
    StepBackbone,
    close,
    doubled,
    normalized,
    step_batch,
)
from torch import Tensor

from tag2mask.methods.aeft.method import AEFT, AEFTConfig
from tag2mask.models.gated_pyramid import GPPConfig

TAGS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 0]])
"""Each of the first two images is the other's only negative; the last one has none."""
SETTINGS = {"levels": (1, 2, 4), "num_classified": 2, "low_threshold": 0.3, "margin": 0.63}
LATE = 9
LOSSES = ("classification", "attraction", "repulsion")


class Step:
    """The losses of a step, and the tensors that its gradients are compared at."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        config = AEFTConfig(
            gpp=GPPConfig(levels=SETTINGS["levels"]),
            width=5,
            num_classified=SETTINGS["num_classified"],
            low_threshold=SETTINGS["low_threshold"],
            margin=SETTINGS["margin"],
            min_hard_pairs=0,
        )
        self.backbone = StepBackbone()
        self.method = AEFT(config, self.backbone, 3, None, 10).train()
        head = self.method.head
        self.parameters = {
            "embed": head.embed[0].weight,
            "classifier": head.classifier.weight,
            **{f"gate {n}": gate.weight for n, gate in enumerate(head.pyramid.gates)},
        }
        self.batch = step_batch(TAGS)
        self.losses = self.method.losses(self.batch, LATE)
        sum(self.losses.values()).backward()
        self.copies = {name: doubled(weight) for name, weight in self.parameters.items()}
        (leaf,) = self.backbone.leaves
        self.features = leaf.detach().double().requires_grad_()
        self.expected, self.pairs = self._expected()
        sum(self.expected.values()).backward()

    def cam(self, features: Tensor) -> list[Tensor]:
        """Signed maps of one image from its (D, h, w) features."""
        hidden = torch.relu(torch.einsum("kd,dhw->khw", self.copies["embed"][..., 0, 0], features))
        return list(torch.einsum("fk,khw->fhw", self.copies["classifier"][..., 0, 0], hidden))

    def _expected(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        image = normalized(self.batch.image)
        cams = [self.cam(one) for one in self.features]
        second = []
        for pixels, cam, tags in zip(image, cams, TAGS.tolist(), strict=True):
            erased = pixels * oracle.erasing_map(cam, tags, (SIDE, SIDE), 0.6)
            second.append(self.cam(self.backbone.map(3, erased[None])[0]))
        gates = [weight for name, weight in self.copies.items() if name.startswith("gate")]
        return oracle.losses(cams, second, TAGS, gates, SETTINGS)


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


def test_the_step_has_a_hard_pair_and_one_that_is_not(step: Step) -> None:
    hard = sorted(pair.item() < SETTINGS["margin"] for pair in step.pairs)
    assert hard == [False, True]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_equals_its_formula(step: Step, name: str) -> None:
    assert set(step.losses) == set(LOSSES)
    assert step.losses[name].item() == pytest.approx(step.expected[name].item(), rel=1e-4)


def test_the_gradient_of_the_features_equals_that_of_the_formulas(step: Step) -> None:
    (leaf,) = step.backbone.leaves
    close(leaf.grad, step.features.grad)


@pytest.mark.parametrize("name", ["embed", "classifier", "gate 0", "gate 1"])
def test_the_gradient_of_the_weights_equals_that_of_the_formulas(step: Step, name: str) -> None:
    close(step.parameters[name].grad, step.copies[name].grad)
