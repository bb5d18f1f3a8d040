"""A complete step of AffinityNet equals Specification 4.3, in value and in gradient."""

import math
from dataclasses import replace

import pytest
import torch
from tests.reference.step_network import SIDE, StepBackbone, close, step_batch
from torch import Tensor, nn

from tag2mask.methods.psa.method import PSA, PSAConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
GRID = SIDE // 8
RADIUS = 3
IGNORE = 255


def labels() -> Tensor:
    """(2, H, W) masks in blocks of one grid position, with ignored ones."""
    values = torch.randint(0, 4, (2, GRID, GRID), generator=torch.Generator().manual_seed(1))
    values = values.masked_fill(values == 3, IGNORE)
    return values.repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_a_step_equals_its_formula() -> None:
    torch.manual_seed(2)
    method = PSA(PSAConfig(radius=RADIUS), StepBackbone(0), 3, None, 10).train()
    leaves: list[Tensor] = []

    def detach(module: nn.Module, args: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    method.head.register_forward_hook(detach)
    mask = labels()
    losses = method.losses(replace(step_batch(TAGS), mask=mask), 0)
    features = leaves[0].detach().double().requires_grad_()

    sums = {name: torch.zeros((), dtype=torch.float64) for name in ("bg", "fg", "different")}
    counts = dict.fromkeys(sums, 0)
    offsets = [
        (y, x)
        for y in range(RADIUS)
        for x in range(1 - RADIUS, RADIUS)
        if (y > 0 or x > 0) and math.hypot(y, x) < RADIUS
    ]
    for f, label in zip(features, mask[:, ::8, ::8], strict=True):
        for y in range(GRID):
            for x in range(GRID):
                for dy, dx in offsets:
                    if not (y + dy < GRID and 0 <= x + dx < GRID):
                        continue
                    one, other = int(label[y, x]), int(label[y + dy, x + dx])
                    if IGNORE in (one, other):
                        continue
                    affinity = torch.exp(-(f[:, y, x] - f[:, y + dy, x + dx]).abs().mean())
                    kind = "different" if one != other else "bg" if one == 0 else "fg"
                    chance = 1 - affinity if kind == "different" else affinity
                    sums[kind] = sums[kind] - torch.log(chance + 1e-5)
                    counts[kind] += 1
    assert min(counts.values()) > 10
    bg, fg, different = (sums[name] / (counts[name] + 1e-5) for name in sums)
    expected = bg / 4 + fg / 4 + different / 2

    assert set(losses) == {"affinity"}
    assert losses["affinity"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["affinity"].backward()
    expected.backward()
    close(leaves[0].grad, features.grad)
