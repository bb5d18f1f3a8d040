"""A complete step of IRN equals the formulas of Specification 4.3, in value and in gradient."""

import math
from dataclasses import replace

import pytest
import torch
from tests.reference.step_network import SIDE, StepBackbone, close, step_batch
from torch import Tensor

from tag2mask.methods.irn.method import IRN, IRNConfig

TAGS = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
GRID = SIDE // 4
RADIUS = 4
IGNORE = 255


def near_line(dy: int, dx: int) -> list[tuple[int, int]]:
    """Pixels between (0, 0) and (dy, dx) that are less than one pixel from the line."""
    length = math.hypot(dy, dx)
    return [
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        if abs(dy * x - dx * y) / length < 1 - 1e-9
    ]


def labels() -> Tensor:
    """(2, H, W) masks in blocks of one grid position, with ignored ones."""
    coarse = torch.randint(0, 4, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    coarse = coarse.masked_fill(coarse == 3, IGNORE)
    return coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)


def test_a_step_equals_its_formula() -> None:
    torch.manual_seed(2)
    method = IRN(IRNConfig(radius=RADIUS), StepBackbone(0), 3, None, 10).train()
    logits = torch.randn(2, 1, GRID, GRID, generator=torch.Generator().manual_seed(3))
    logits.requires_grad_()
    method.edge.register_forward_hook(lambda *_: logits)
    mask = labels()
    losses = method.losses(replace(step_batch(TAGS), mask=mask), 0)

    copy = logits.detach().double().requires_grad_()
    edges = 1 / (1 + torch.exp(-copy[:, 0]))
    sums = {name: torch.zeros((), dtype=torch.float64) for name in ("bg", "fg", "different")}
    counts = dict.fromkeys(sums, 0)
    half_disc = [
        (y, x)
        for y in range(RADIUS)
        for x in range(1 - RADIUS, RADIUS)
        if (y > 0 or x > 0) and math.hypot(y, x) < RADIUS
    ]
    for edge, label in zip(edges, mask[:, ::4, ::4], strict=True):
        for dy, dx in half_disc:
            bottom, left, right = GRID - dy, max(0, -dx), GRID - max(0, dx)
            windows = [edge[v : bottom + v, left + u : right + u] for v, u in near_line(dy, dx)]
            strongest = torch.stack(windows).max(dim=0).values
            one, other = label[:bottom, left:right], label[dy:, left + dx : right + dx]
            labeled = (one != IGNORE) & (other != IGNORE)
            kinds = {
                "bg": labeled & (one == other) & (one == 0),
                "fg": labeled & (one == other) & (one != 0),
                "different": labeled & (one != other),
            }
            for kind, pairs in kinds.items():
                chance = strongest if kind == "different" else 1 - strongest
                sums[kind] = sums[kind] - torch.log(chance + 1e-5)[pairs].sum()
                counts[kind] += int(pairs.sum())
    assert min(counts.values()) > 10
    bg, fg, different = (sums[name] / (counts[name] + 1e-5) for name in sums)
    expected = (bg / 2 + fg / 2) / 2 + different / 2

    assert set(losses) == {"affinity"}
    assert losses["affinity"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["affinity"].backward()
    expected.backward()
    close(logits.grad, copy.grad)
