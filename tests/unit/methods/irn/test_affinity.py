import math

import numpy as np
import pytest
import torch

from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.methods.irn.affinity import boundary_affinity, line_pixels

NEAR = half_disc_offsets(3)


def pairs_inside(offsets, height, width):
    """Yield (tap, y, x, y', x') of every pair inside the map."""
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    yield tap, y, x, y + dy, x + dx


def distance_to_line(y, x, offset):
    """Distance of a pixel's center to the line through (0, 0) and `offset`: |sin| times length."""
    angle = math.atan2(offset[0], offset[1]) - math.atan2(y, x)
    return abs(math.sin(angle)) * math.hypot(y, x)


@pytest.mark.parametrize("radius", [5, 10])
def test_line_contains_the_pixels_of_the_box_closer_than_one_pixel(radius):
    for offset in half_disc_offsets(radius):
        box = [
            (y, x)
            for y in range(-radius, radius)
            for x in range(-radius, radius)
            if min(0, offset[0]) <= y <= max(0, offset[0])
            and min(0, offset[1]) <= x <= max(0, offset[1])
        ]
        near = {pixel for pixel in box if distance_to_line(*pixel, offset) < 1 - 1e-9}
        assert set(line_pixels(offset)) == near
        assert len(line_pixels(offset)) == len(near)
        assert {(0, 0), offset} <= near


def test_line_pixels_by_hand():
    assert line_pixels((0, 3)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert line_pixels((2, 0)) == [(0, 0), (1, 0), (2, 0)]
    assert line_pixels((1, 1)) == [(0, 0), (0, 1), (1, 0), (1, 1)]  # both corners: 0.71 away
    # from (0, 0) to (2, 3): the corners (0, 2) and (2, 1) are 4 / 3.6 away, (0, 1) is 2 / 3.6
    pixels = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    assert line_pixels((2, 3)) == pixels
    assert line_pixels((2, -3)) == sorted((y, -x) for y, x in pixels)


def test_boundary_affinity_is_one_minus_the_strongest_boundary_on_the_line():
    edge = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    offsets = half_disc_offsets(5)
    actual = boundary_affinity(edge, offsets)
    expected = np.zeros((2, len(offsets), 6, 5), dtype=np.float32)
    for tap, y, x, v, u in pairs_inside(offsets, 6, 5):
        line = [
            edge[:, 0, y + dy, x + dx].numpy()
            for dy in range(-5, 6)
            for dx in range(-5, 6)
            if min(0, v - y) <= dy <= max(0, v - y)
            and min(0, u - x) <= dx <= max(0, u - x)
            and distance_to_line(dy, dx, offsets[tap]) < 1 - 1e-9
        ]
        expected[:, tap, y, x] = 1 - np.max(line, axis=0)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_pairs_across_a_boundary_have_no_affinity():
    edge = torch.zeros(1, 1, 5, 7)
    edge[..., 3] = 1
    offsets = half_disc_offsets(4)
    affinity = boundary_affinity(edge, offsets)
    for tap, y, x, _, u in pairs_inside(offsets, 5, 7):
        assert affinity[0, tap, y, x].item() == float(max(x, u) < 3 or min(x, u) > 3)


def test_gradient_goes_to_the_strongest_pixel():
    edge = torch.tensor([0.1, 0.7, 0.3, 0.2]).view(1, 1, 1, 4).requires_grad_()
    boundary_affinity(edge, [(0, 3), (0, 1)]).sum().backward()
    # the line of (0, 3) and two of the three of (0, 1) peak at 0.7, the last at 0.3
    assert edge.grad.flatten().tolist() == [0, -3, -1, 0]
    in_float64 = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: boundary_affinity(maps, NEAR), (in_float64,))


def test_maps_smaller_than_the_radius_have_fewer_pairs():
    offsets = half_disc_offsets(10)
    affinity = boundary_affinity(torch.zeros(1, 1, 3, 2), offsets)
    assert affinity.sum().item() == len(list(pairs_inside(offsets, 3, 2)))
