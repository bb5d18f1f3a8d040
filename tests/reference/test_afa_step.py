"""A complete step of AFA equals the formulas of Specification 2, in value and in gradient."""

import functools

import numpy as np
import pytest
import torch
from tests.reference import afa_oracle
from tests.reference import afa_step_oracle as oracle
from tests.reference.rml_oracle import classification
from tests.reference.scripted_network import (
    NUM_FOREGROUND,
    ScriptedBackbone,
    as_leaf,
    block_means,
    normalized,
    raw_cam,
    scripted_batch,
)

from tag2mask.methods.afa import AFA, AFAConfig
from tag2mask.refiners.par import PAR, ParConfig

SCALES = (1.0, 0.5, 1.5)
GRID, LARGE_GRID = (6, 6), (9, 9)
RADIUS = 2
PAR_SETTINGS = (1, (1, 4))
"""Iterations and dilations, few of both, because the oracle is slow."""
SCORES = (0.55, 0.35)
LATE = 6
"""After the switch to propagated labels; 2 is before it."""


class Step:
    """The losses of a step, and the tensors that its gradients are compared at."""

    def __init__(self, step: int) -> None:
        torch.manual_seed(2)
        config = AFAConfig(warmup=0, radius=RADIUS, pooling="gap", propagate_from=5)
        self.backbone = ScriptedBackbone()
        par = PAR(ParConfig(iterations=PAR_SETTINGS[0], dilations=PAR_SETTINGS[1]))
        self.method = AFA(config, self.backbone, NUM_FOREGROUND, par, 10).train()
        with torch.no_grad():  # few affinities are large, so that propagation keeps structure
            self.method.affinity.weight.mul_(0.3)
        decoded: list[torch.Tensor] = []
        pairs: list[torch.Tensor] = []
        self.method.decoder.register_forward_hook(functools.partial(as_leaf, decoded))
        self.method.affinity.register_forward_hook(functools.partial(as_leaf, pairs))
        self.batch = scripted_batch()
        self.propagates = step == LATE
        self.losses = self.method.losses(self.batch, step)
        sum(self.losses.values()).backward()
        self.leaves = [*self.backbone.leaves, *decoded, *pairs]
        self.copies = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        self.refined, self.target = self._labels()
        self.expected = self._expected()
        sum(self.expected.values()).backward()

    def _labels(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Labels of the affinity and of the decoder."""
        weight = self.method.head.classifier.weight.detach()[:, :, 0, 0]
        refined, target = [], []
        for image, tags in zip(self.batch.image, self.batch.tags.tolist(), strict=True):
            pixels, inputs = image.double().numpy(), normalized(image)
            cam = afa_oracle.multi_scale_cam(
                lambda view: raw_cam(self.backbone, weight, view), inputs, SCALES
            )
            refined.append(afa_oracle.pseudo_label(pixels, cam, tags, SCORES, *PAR_SETTINGS))
            if self.propagates:
                box = (0, image.shape[1], 0, image.shape[2])
                affinity = self._large_affinity(inputs)
                arguments = (affinity, LARGE_GRID, box, SCORES, RADIUS, PAR_SETTINGS)
                target.append(afa_oracle.propagated_label(pixels, cam, tags, *arguments))
        return refined, target or refined

    def _large_affinity(self, image: np.ndarray) -> np.ndarray:
        """Affinity of the unflipped view at scale 1.5."""
        size = tuple(int(1.5 * side) for side in image.shape[1:])
        view = torch.from_numpy(afa_oracle.resize(image, size))[None]
        features = self.backbone.mixed(block_means(view, 16))
        blocks = [(block.query[0], block.key[0]) for block in self.backbone.blocks(features)]
        head = self.method.affinity
        weight, bias = (part.detach().double() for part in (head.weight, head.bias))
        return oracle.learned_affinity(blocks, weight, bias).numpy()

    def _expected(self) -> dict[str, torch.Tensor]:
        features, decoded, pairs = self.copies
        weight = self.method.head.classifier.weight.detach()[:, :, 0, 0].double()
        cam = torch.einsum("fd,ndhw->nfhw", weight, features)
        return {
            "classification": classification(cam.mean(dim=(2, 3)), self.batch.tags),
            "segmentation": 0.1 * oracle.segmentation(decoded, self.target),
            "affinity": 0.1 * oracle.affinity(pairs, self.refined, GRID, RADIUS),
        }


@pytest.fixture(scope="module", params=[2, LATE], ids=["refined labels", "propagated labels"])
def step(request: pytest.FixtureRequest) -> Step:
    return Step(request.param)


def test_the_step_is_hard_enough_to_tell_errors_apart(step: Step) -> None:
    for labels in (step.refined, step.target):
        assert all({0, 255} < set(label.flatten().tolist()) for label in labels)
    if step.propagates:
        assert any((a != b).any() for a, b in zip(step.refined, step.target, strict=True))


def tolerance(step: Step, name: str) -> float:
    """Of propagated labels, a few pixels tie so closely that float32 decides otherwise."""
    return 5e-3 if step.propagates and name in ("segmentation", "decoder") else 1e-5


@pytest.mark.parametrize("name", ["classification", "segmentation", "affinity"])
def test_every_loss_equals_its_formula(step: Step, name: str) -> None:
    assert set(step.losses) == set(step.expected)
    expected = step.expected[name].item()
    assert step.losses[name].item() == pytest.approx(expected, rel=tolerance(step, name))


@pytest.mark.parametrize(("index", "name"), [(0, "features"), (1, "decoder"), (2, "affinity")])
def test_the_gradient_equals_that_of_the_formulas(step: Step, index: int, name: str) -> None:
    got, reference = step.leaves[index].grad.double(), step.copies[index].grad
    assert reference.norm() > 0
    assert (got - reference).norm() < 10 * tolerance(step, name) * reference.norm()
