"""A complete step of RRM equals Specification 4.7, in value and in gradient.

The dense energy has its own exact reference in the tests of `functional.energy`. The CRF has no
iterations here, so that its result is that of its unary.
"""

import numpy as np
import pytest
import torch
from tests.reference import reliable_label_oracle
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

from tag2mask.methods.rrm.method import RRM, RRMConfig
from tag2mask.refiners.dense_crf import DenseCRF, DenseCRFConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
PADDING = 16
RULES = {"alphas": (4.0, 32.0), "confidence": 0.5, "share": 0.4, "background": 0.3}


class Step:
    """The losses of a late step, with features and scores cut off as leaves."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        crf = DenseCRF(DenseCRFConfig(iterations=0))
        config = RRMConfig(
            warmup=0,
            decoder_width=4,
            dilation=2,
            energy_weight=0,
            label_scales=(1.0,),
            confidence=RULES["confidence"],
            background_threshold=RULES["background"],
            label_precision="fp32",
        )
        self.backbone = StepBackbone()
        self.method = RRM(config, self.backbone, 3, crf, 10).train()
        self.score = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        self.score.requires_grad_()
        self.method.decoder.register_forward_hook(lambda *_: self.score)
        self.batch = step_batch(TAGS, PADDING)
        self.losses = self.method.losses(self.batch, 9)
        self.weight = doubled(self.method.head.classifier.weight)
        self.features = self.backbone.leaves[0].detach().double().requires_grad_()
        self.copy = self.score.detach().double().requires_grad_()
        cams = torch.einsum("fd,ndhw->nfhw", self.weight[..., 0, 0], self.features)
        self.labels = [self._label(number, cam.detach()) for number, cam in enumerate(cams)]
        self.expected = {
            "classification": multi_label(cams.mean(dim=(2, 3)), TAGS),
            "segmentation": self._segmentation(),
        }

    def _label(self, number: int, cam: Tensor) -> np.ndarray:
        planes = []
        for plane in cam:
            large = torch.relu(resize(plane, (SIDE, SIDE)))
            planes.append(((large - large.min()) / (large.max() - large.min() + 1e-5)).numpy())

        def unary(probs: np.ndarray) -> np.ndarray:
            clipped = np.clip(probs, 1e-5, 1)
            return clipped / clipped.sum(axis=0)

        valid = self.batch.valid[number].numpy()
        return reliable_label_oracle.reliable_label(
            np.stack(planes), TAGS[number].tolist(), valid, unary, **RULES
        )

    def _segmentation(self) -> Tensor:
        """CE over background plus CE over foreground, both means over the batch."""
        sums, counts = [torch.zeros((), dtype=torch.float64) for _ in range(2)], [0, 0]
        for maps, label in zip(self.copy, self.labels, strict=True):
            planes = torch.stack([resize(plane, (SIDE, SIDE)) for plane in maps])
            log_sum = torch.log(torch.exp(planes).sum(dim=0))
            for c in range(4):
                chosen = torch.from_numpy(label == c)
                sums[c > 0] = sums[c > 0] + (log_sum - planes[c])[chosen].sum()
                counts[c > 0] += int(chosen.sum())
        return sums[0] / counts[0] + sums[1] / counts[1]


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


def test_labels_have_background_classes_and_ignored_pixels(step: Step) -> None:
    values = set(np.unique(step.labels[0])) | set(np.unique(step.labels[1]))
    assert {0, 255} < values
    assert len(values) > 3


@pytest.mark.parametrize("name", ["classification", "segmentation"])
def test_every_loss_and_gradient_equals_its_formula(step: Step, name: str) -> None:
    assert set(step.losses) == set(step.expected)
    assert step.losses[name].item() == pytest.approx(step.expected[name].item(), rel=1e-5)
    got = [step.backbone.leaves[0], step.method.head.classifier.weight, step.score]
    copies = [step.features, step.weight, step.copy]
    gradients, references = (
        torch.autograd.grad(losses[name], tensors, retain_graph=True, materialize_grads=True)
        for losses, tensors in ((step.losses, got), (step.expected, copies))
    )
    for one, reference in zip(gradients, references, strict=True):
        if reference.abs().max() > 0:
            close(one, reference)
        else:
            assert one.abs().max() == 0
