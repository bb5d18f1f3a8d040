"""A complete step of 1Stage equals the formulas of Specification 4.4, in value and in gradient."""

import numpy as np
import pytest
import torch
from tests.reference import onestage_oracle, pamr_oracle
from tests.reference.step_network import SIDE, StepBackbone, close, multi_label, resize, step_batch
from torch import Tensor

from tag2mask.methods.onestage.method import OneStage, OneStageConfig
from tag2mask.refiners.pamr import PAMR, PAMRConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
GRID = SIDE // 4
ITERATIONS = 3
CLASSES = 4


class Step:
    """The losses of a step with the decoder's scores cut off as a leaf."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        pamr = PAMR(PAMRConfig(iterations=ITERATIONS))
        self.method = OneStage(OneStageConfig(width=8), StepBackbone(0), 3, pamr, 10).train()
        generator = torch.Generator().manual_seed(4)
        coarse = 3 * torch.randn(2, 3, 4, 4, generator=generator)
        self.score = torch.nn.functional.interpolate(coarse, (GRID, GRID)).requires_grad_()
        self.method.decoder.register_forward_hook(lambda *_: self.score)
        self.batch = step_batch(TAGS)
        self.losses = self.method.losses(self.batch, 9)
        self.copy = self.score.detach().double().requires_grad_()
        self.labels: list[np.ndarray] = []
        self.expected = self._expected()

    def _expected(self) -> dict[str, Tensor]:
        logits, masks = [], []
        for maps in self.copy:
            odds = torch.exp(torch.cat([torch.ones_like(maps[:1]), maps]))
            shares = odds / odds.sum(dim=0)
            row = []
            for m, x in zip(shares[1:], maps, strict=True):
                pooled = (m * x).sum() / (1 + m.sum())
                row.append(pooled + (1 - m.mean()) ** 3 * torch.log(0.01 + m.mean()))
            logits.append(torch.stack(row))
            masks.append(shares.detach())
        for image, shares, tags in zip(self.batch.image, masks, TAGS.tolist(), strict=True):
            refined = self._refined(image.double(), shares)
            full = torch.stack([resize(plane, (SIDE, SIDE)) for plane in refined])
            valid = np.ones((SIDE, SIDE), dtype=bool)
            self.labels.append(onestage_oracle.label(full.numpy(), tags, valid))
        return {
            "classification": multi_label(torch.stack(logits), TAGS),
            "mask": self._mask_loss(),
        }

    def _refined(self, image: Tensor, shares: Tensor) -> Tensor:
        """PAMR at the size of the masks."""
        small = np.stack([resize(plane, (GRID, GRID)).numpy() for plane in image]) / 255
        kernel = torch.from_numpy(pamr_oracle.kernel(small))
        dilations = (1, 2, 4, 8, 12, 24)
        taps = [step for d in dilations for step in pamr_oracle.ring(d) if step != (0, 0)]
        for _ in range(ITERATIONS):
            mixed = torch.zeros_like(shares)
            for weight, (dy, dx) in zip(kernel, taps, strict=True):
                rows = (torch.arange(GRID) + dy).clamp(0, GRID - 1)
                columns = (torch.arange(GRID) + dx).clamp(0, GRID - 1)
                mixed = mixed + weight * shares[:, rows][:, :, columns]
            shares = mixed
        return shares

    def _mask_loss(self) -> Tensor:
        """Cross-entropy weighed by rarity, of images whose labels are complete."""
        total = torch.zeros((), dtype=torch.float64)
        for maps, label, tags in zip(self.copy, self.labels, TAGS.tolist(), strict=True):
            counts = [int((label == c).sum()) for c in range(CLASSES)]
            if any(counts[c] == 0 for c in (0, *(k + 1 for k, tag in enumerate(tags) if tag))):
                continue
            planes = [torch.ones(SIDE, SIDE, dtype=torch.float64)]
            planes += [resize(plane, (SIDE, SIDE)) for plane in maps]
            log_sum = torch.log(torch.exp(torch.stack(planes)).sum(dim=0))
            for c, weight in enumerate(onestage_oracle.weights(counts)):
                chosen = torch.from_numpy(label == c)
                total = total + weight * (log_sum - planes[c])[chosen].sum()
        return total / (len(self.labels) * SIDE * SIDE)


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


def test_an_image_is_complete_and_has_ignored_pixels(step: Step) -> None:
    values = [set(label.flatten().tolist()) for label in step.labels]
    assert {0, 1, 2, 255} <= values[0] or {0, 3, 255} <= values[1]


@pytest.mark.parametrize("name", ["classification", "mask"])
def test_every_loss_and_gradient_equals_its_formula(step: Step, name: str) -> None:
    assert set(step.losses) == set(step.expected)
    assert step.losses[name].item() == pytest.approx(step.expected[name].item(), rel=1e-4)
    (got,) = torch.autograd.grad(step.losses[name], step.score, retain_graph=True)
    (expected,) = torch.autograd.grad(step.expected[name], step.copy, retain_graph=True)
    close(got, expected)
