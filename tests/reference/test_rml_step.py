"""A complete step of RML equals the formulas of Specification 3.3, in value and in gradient."""

import functools

import numpy as np
import pytest
import torch
from tests.reference import afa_oracle
from tests.reference import rml_oracle as oracle
from tests.reference.scripted_network import (
    NUM_FOREGROUND,
    ScriptedBackbone,
    as_leaf,
    normalized,
    raw_cam,
    scripted_batch,
)

from tag2mask.methods.rml.method import RML, RMLConfig
from tag2mask.refiners.par import PAR, ParConfig

SCALES = (1.0, 0.5, 1.5)
SMALL = 64
GRIDS = ((6, 6), (4, 4))
RADII = (2, 1)
PAR_SETTINGS = (1, (1, 4))
"""Iterations and dilations, few of both, because the oracle is slow."""


class Step:
    """The losses of a step, and the tensors that its gradients are compared at."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        config = RMLConfig(
            warmup=0, small_scale=0.66, radius=RADII[0], small_radius=RADII[1], pooling="gap"
        )
        backbone = ScriptedBackbone()
        par = PAR(ParConfig(iterations=PAR_SETTINGS[0], dilations=PAR_SETTINGS[1]))
        self.method = RML(config, backbone, NUM_FOREGROUND, par, 10).train()
        self.contexts: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []
        self.method.neck.register_forward_hook(functools.partial(as_leaf, self.contexts))
        self.method.affinity.register_forward_hook(functools.partial(as_leaf, self.logits))
        self.batch = scripted_batch(padding=20)
        self.losses = self.method.losses(self.batch, 1)
        sum(self.losses.values()).backward()
        self.features = backbone.leaves
        self.leaves = [*self.features, *self.contexts, *self.logits]


def expected_labels(step: Step) -> list[np.ndarray]:
    """Specification 2.2 and 2.5 at the thresholds of the paper."""
    weight, backbone = step.method.head.classifier.weight.detach()[:, :, 0, 0], step.method.backbone
    labels = []
    for image, tags, valid in zip(step.batch.image, step.batch.tags, step.batch.valid, strict=True):
        cam = afa_oracle.multi_scale_cam(
            lambda view: raw_cam(backbone, weight, view), normalized(image), SCALES
        )
        label = afa_oracle.pseudo_label(
            image.double().numpy(), cam, tags.tolist(), (0.55, 0.35), *PAR_SETTINGS
        )
        label[~valid.numpy()] = afa_oracle.IGNORE
        labels.append(label)
    return labels


def expected_losses(
    step: Step, leaves: list[torch.Tensor], labels: list[np.ndarray]
) -> dict[str, torch.Tensor]:
    """Every term from copies of the leaves in float64."""
    weight = step.method.head.classifier.weight.detach()[:, :, 0, 0].double()
    large, small = (
        {"features": leaf, "cam": torch.einsum("fd,ndhw->nfhw", weight, leaf)}
        for leaf in leaves[:2]
    )
    batch = {"tags": step.batch.tags, "valid": step.batch.valid}
    return {
        "classification": oracle.classification(large["cam"].mean(dim=(2, 3)), batch["tags"]),
        "ciml": 0.1 * oracle.ciml(large, small, batch, (SMALL, SMALL), alpha=0.1),
        "mfml": 0.1 * oracle.mfml(leaves[2], leaves[3], batch["valid"], beta=100),
        "apml": 0.1 * oracle.apml(leaves[4], leaves[5], labels, GRIDS, RADII, 100),
    }


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


@pytest.fixture(scope="module")
def copies(step: Step) -> list[torch.Tensor]:
    return [leaf.detach().double().requires_grad_() for leaf in step.leaves]


@pytest.fixture(scope="module")
def labels(step: Step) -> list[np.ndarray]:
    return expected_labels(step)


@pytest.fixture(scope="module")
def expected(step: Step, copies: list[torch.Tensor], labels) -> dict[str, torch.Tensor]:
    losses = expected_losses(step, copies, labels)
    sum(losses.values()).backward()
    return losses


def test_the_step_is_hard_enough_to_tell_errors_apart(step: Step, labels) -> None:
    positions = [label[::16, ::16][label[::16, ::16] != 255] for label in labels]
    assert all(len(set(one.tolist())) > 1 for one in positions)
    assert step.method.monitor["prototype_similarity"] > 0.05


@pytest.mark.parametrize("name", ["classification", "ciml", "mfml", "apml"])
def test_every_loss_equals_its_formula(step: Step, expected, name: str) -> None:
    assert set(step.losses) == set(expected)
    assert step.losses[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


@pytest.mark.parametrize(
    "index",
    range(6),
    ids=["features", "small features", "context", "small context", "affinity", "small affinity"],
)
def test_the_gradient_equals_that_of_the_formulas(step: Step, expected, copies, index) -> None:
    got, reference = step.leaves[index].grad.double(), copies[index].grad
    assert reference.norm() > 0
    assert (got - reference).norm() < 1e-4 * reference.norm()
