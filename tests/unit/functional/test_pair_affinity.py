import math

import numpy as np
import pytest
import torch

from tag2mask.functional.pair_affinity import (
    downscale_label,
    pair_labels,
    pair_losses,
)
from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.types import IGNORE

NEAR = half_disc_offsets(3)


def pairs_inside(offsets, height, width):
    """Yield (tap, y, x, y', x') of every pair inside the map."""
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    yield tap, y, x, y + dy, x + dx


def test_sets_of_pairs_by_hand():
    label = torch.tensor([[[0, 0, 2], [1, IGNORE, 2]]])
    sets = pair_labels(label, [(0, 1), (1, 0), (1, -1)])
    background, foreground, different = (one[0].int().tolist() for one in sets)
    assert background == [[[1, 0, 0], [0, 0, 0]], [[0] * 3] * 2, [[0] * 3] * 2]
    assert foreground == [[[0] * 3] * 2, [[0, 0, 1], [0, 0, 0]], [[0] * 3] * 2]
    # (0, 1): 0-2; (1, 0): 0-1, 255 in the middle column; (1, -1): 0-1, and 255 below the 2
    assert different == [
        [[0, 1, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 0, 0]],
        [[0, 1, 0], [0, 0, 0]],
    ]


def test_sets_of_pairs_equal_loops_for_a_radius_beyond_the_map():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, IGNORE], size=(2, 5, 4))
    offsets = half_disc_offsets(7)
    sets = pair_labels(torch.from_numpy(label), offsets)
    expected = np.zeros((3, 2, len(offsets), 5, 4), dtype=bool)
    for tap, y, x, v, u in pairs_inside(offsets, 5, 4):
        for n in range(2):
            one, other = label[n, y, x], label[n, v, u]
            if IGNORE not in (one, other):
                expected[2 if one != other else int(one != 0), n, tap, y, x] = True
    np.testing.assert_array_equal(torch.stack(list(sets)).numpy(), expected)


def test_losses_have_weights_of_a_quarter_a_quarter_and_a_half():
    label = torch.tensor([[[0, 0, 3, 3, 1]]])
    sets = pair_labels(label, [(0, 1)])
    affinity = torch.tensor([0.5, 0.25, 0.125, 0.75, 0.0]).view(1, 1, 1, 5)
    parts = pair_losses(affinity, sets)
    assert parts.background.item() == pytest.approx(math.log(2), abs=1e-3)
    assert parts.foreground.item() == pytest.approx(math.log(8), abs=1e-3)
    # 0-3 and 3-1: 1 - 0.25 and 1 - 0.75
    assert parts.different.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, abs=1e-3)
    total = (math.log(2) + math.log(8)) / 4 + (math.log(4 / 3) + math.log(4)) / 4
    assert parts.total().item() == pytest.approx(total, abs=1e-3)


def test_losses_are_zero_without_labeled_pairs_and_finite_for_extreme_affinities():
    sets = pair_labels(torch.full((1, 3, 3), IGNORE), NEAR)
    affinity = torch.rand(1, len(NEAR), 3, 3, requires_grad=True)
    loss = pair_losses(affinity, sets).total()
    loss.backward()
    assert loss.item() == 0
    assert not affinity.grad.any()
    sets = pair_labels(torch.tensor([[[0, 0, 1]]]), [(0, 1)])
    worst = pair_losses(torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3), sets).total()
    assert worst.item() == pytest.approx(-math.log(1e-5) * 3 / 4, rel=1e-3)


def test_downscaled_label_is_the_label_at_the_center():
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, 2, 2], label[0, 6, 2], label[0, 0, 4] = 5, IGNORE, 7  # the last is a corner
    assert downscale_label(label, (2, 2))[0].tolist() == [[5, 0], [IGNORE, 0]]
