import math

import numpy as np
import pytest
import torch

from tag2mask.functional.pair_affinity import (
    boundary_affinity,
    cell_labels,
    displacement_losses,
    feature_affinity,
    line_cells,
    pair_labels,
    pair_losses,
)
from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.types import IGNORE

NEAR = half_disc_offsets(3)


def pairs_inside(offsets, height, width):
    """(tap, y, x, y', x') of every pair inside, by a loop."""
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    yield tap, y, x, y + dy, x + dx


def test_kinds_of_pairs_by_hand():
    label = torch.tensor([[[0, 0, 2], [1, IGNORE, 2]]])
    kinds = pair_labels(label, [(0, 1), (1, 0), (1, -1)])
    background, foreground, different = (kind[0].int().tolist() for kind in kinds)
    assert background == [[[1, 0, 0], [0, 0, 0]], [[0] * 3] * 2, [[0] * 3] * 2]
    assert foreground == [[[0] * 3] * 2, [[0, 0, 1], [0, 0, 0]], [[0] * 3] * 2]
    # (0, 1): 0-2; (1, 0): 0-1, and the middle column meets 255; (1, -1): 0-1, and 2 meets 255
    assert different == [
        [[0, 1, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 0, 0]],
        [[0, 1, 0], [0, 0, 0]],
    ]


def test_kinds_of_pairs_equal_loops_over_a_radius_beyond_the_map():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, IGNORE], size=(2, 5, 4))
    offsets = half_disc_offsets(7)
    kinds = pair_labels(torch.from_numpy(label), offsets)
    expected = np.zeros((3, 2, len(offsets), 5, 4), dtype=bool)
    for tap, y, x, v, u in pairs_inside(offsets, 5, 4):
        for n in range(2):
            one, other = label[n, y, x], label[n, v, u]
            if IGNORE not in (one, other):
                expected[2 if one != other else int(one != 0), n, tap, y, x] = True
    np.testing.assert_array_equal(torch.stack(list(kinds)).numpy(), expected)


def test_losses_are_a_quarter_a_quarter_and_a_half_by_hand():
    label = torch.tensor([[[0, 0, 3, 3, 1]]])
    kinds = pair_labels(label, [(0, 1)])
    affinity = torch.tensor([0.5, 0.25, 0.125, 0.75, 0.0]).view(1, 1, 1, 5)
    parts = pair_losses(affinity, kinds)
    assert parts.background.item() == pytest.approx(math.log(2), abs=1e-3)
    assert parts.foreground.item() == pytest.approx(math.log(8), abs=1e-3)
    # 0-3 and 3-1: 1 - 0.25 and 1 - 0.75
    assert parts.different.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, abs=1e-3)
    whole = (math.log(2) + math.log(8)) / 4 + (math.log(4 / 3) + math.log(4)) / 4
    assert parts.total().item() == pytest.approx(whole, abs=1e-3)


def test_losses_without_a_labeled_pair_are_zero_and_extremes_finite():
    kinds = pair_labels(torch.full((1, 3, 3), IGNORE), NEAR)
    affinity = torch.rand(1, len(NEAR), 3, 3, requires_grad=True)
    loss = pair_losses(affinity, kinds).total()
    loss.backward()
    assert loss.item() == 0
    assert not affinity.grad.any()
    kinds = pair_labels(torch.tensor([[[0, 0, 1]]]), [(0, 1)])
    worst = pair_losses(torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3), kinds).total()
    assert worst.item() == pytest.approx(-math.log(1e-5) * 3 / 4, rel=1e-3)


def test_feature_affinity_equals_loops():
    features = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    found = feature_affinity(features, NEAR)
    expected = np.zeros((2, len(NEAR), 4, 5))
    array = features.double().numpy()
    for tap, y, x, v, u in pairs_inside(NEAR, 4, 5):
        gap = np.abs(array[:, :, y, x] - array[:, :, v, u]).mean(axis=1)
        expected[:, tap, y, x] = np.exp(-gap)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_gradient_of_feature_affinity_is_that_of_finite_differences():
    features = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: feature_affinity(maps, NEAR), (features,))


def distance_to_line(y, x, offset):
    """From the middle of a cell to the line through (0, 0) and `offset`: |sin| times length."""
    angle = math.atan2(offset[0], offset[1]) - math.atan2(y, x)
    return abs(math.sin(angle)) * math.hypot(y, x)


@pytest.mark.parametrize("radius", [5, 10])
def test_line_cells_are_those_of_the_box_nearer_than_one_cell(radius):
    for offset in half_disc_offsets(radius):
        box = [
            (y, x)
            for y in range(-radius, radius)
            for x in range(-radius, radius)
            if min(0, offset[0]) <= y <= max(0, offset[0])
            and min(0, offset[1]) <= x <= max(0, offset[1])
        ]
        near = {cell for cell in box if distance_to_line(*cell, offset) < 1 - 1e-9}
        assert set(line_cells(offset)) == near
        assert len(line_cells(offset)) == len(near)
        assert {(0, 0), offset} <= near


def test_line_cells_by_hand():
    assert line_cells((0, 3)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert line_cells((2, 0)) == [(0, 0), (1, 0), (2, 0)]
    assert line_cells((1, 1)) == [(0, 0), (0, 1), (1, 0), (1, 1)]  # both corners: 0.71 away
    # from (0, 0) to (2, 3): the corners (0, 2) and (2, 1) are 4 / 3.6 away, (0, 1) is 2 / 3.6
    cells = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    assert line_cells((2, 3)) == cells
    assert line_cells((2, -3)) == sorted((y, -x) for y, x in cells)


def test_boundary_affinity_is_one_less_the_strongest_boundary_of_the_line():
    edge = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    offsets = half_disc_offsets(5)
    found = boundary_affinity(edge, offsets)
    expected = np.zeros((2, len(offsets), 6, 5), dtype=np.float32)
    for tap, y, x, v, u in pairs_inside(offsets, 6, 5):
        way = [
            edge[:, 0, y + dy, x + dx].numpy()
            for dy in range(-5, 6)
            for dx in range(-5, 6)
            if min(0, v - y) <= dy <= max(0, v - y)
            and min(0, u - x) <= dx <= max(0, u - x)
            and distance_to_line(dy, dx, offsets[tap]) < 1 - 1e-9
        ]
        expected[:, tap, y, x] = 1 - np.max(way, axis=0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_pairs_on_both_sides_of_a_boundary_do_not_belong_together():
    edge = torch.zeros(1, 1, 5, 7)
    edge[..., 3] = 1
    offsets = half_disc_offsets(4)
    affinity = boundary_affinity(edge, offsets)
    for tap, y, x, _, u in pairs_inside(offsets, 5, 7):
        assert affinity[0, tap, y, x].item() == float(max(x, u) < 3 or min(x, u) > 3)


def test_gradient_of_boundary_affinity_goes_to_the_strongest_cell():
    edge = torch.tensor([0.1, 0.7, 0.3, 0.2]).view(1, 1, 1, 4).requires_grad_()
    boundary_affinity(edge, [(0, 3), (0, 1)]).sum().backward()
    # the line of (0, 3) and two of the three of (0, 1) peak at 0.7, the last at 0.3
    assert edge.grad.flatten().tolist() == [0, -3, -1, 0]
    doubled = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: boundary_affinity(maps, NEAR), (doubled,))


def test_maps_smaller_than_the_radius_have_fewer_pairs():
    offsets = half_disc_offsets(10)
    affinity = boundary_affinity(torch.zeros(1, 1, 3, 2), offsets)
    assert affinity.sum().item() == len(list(pairs_inside(offsets, 3, 2)))
    features = torch.zeros(1, 1, 3, 2, requires_grad=True)
    pairs = feature_affinity(features, offsets)
    pairs.sum().backward()
    assert pairs.sum().item() == affinity.sum().item()


def test_cells_take_the_label_of_their_middle():
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, 2, 2], label[0, 6, 2], label[0, 0, 4] = 5, IGNORE, 7  # the last is a corner
    assert cell_labels(label, (2, 2))[0].tolist() == [[5, 0], [IGNORE, 0]]


def test_displacement_is_right_where_ways_lead_to_one_middle():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    way = torch.stack([1.5 - y, 2 - x])[None]
    thing = torch.full((1, 4, 5), 3)
    foreground, background = displacement_losses(way, pair_labels(thing, NEAR), NEAR)
    assert foreground.item() == pytest.approx(0, abs=1e-6)
    assert background.item() == 0
    foreground, background = displacement_losses(way, pair_labels(thing * 0, [(0, 2)]), [(0, 2)])
    assert foreground.item() == 0
    assert background.item() == pytest.approx(1, abs=1e-4)  # 0 down, 2 to the right: mean 1
    foreground, _ = displacement_losses(way * 0, pair_labels(thing, [(0, 2)]), [(0, 2)])
    assert foreground.item() == pytest.approx(1, abs=1e-4)
