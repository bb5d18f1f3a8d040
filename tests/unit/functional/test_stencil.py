import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tag2mask.functional.stencil import (
    both_directions,
    color_affinity,
    disc_offsets,
    half_disc_offsets,
    pair_windows,
    random_walk,
    shifted,
)


def test_disc_contains_the_pixels_within_its_radius():
    assert disc_offsets(1) == [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]
    assert [len(disc_offsets(radius)) for radius in (2, 5)] == [13, 81]


def test_shifted_is_the_neighbor_at_the_offset():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    padded = F.pad(maps, (2,) * 4)
    assert shifted(padded, 2, (0, 0)).equal(maps)
    assert shifted(padded, 2, (1, 2))[0, 0].tolist() == [
        [6, 7, 0, 0],
        [10, 11, 0, 0],
        [0, 0, 0, 0],
    ]


def test_color_affinity_is_gaussian_and_zero_outside():
    image = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).view(1, 1, 1, 4).expand(1, 2, 1, 4)
    left, center, right = color_affinity(image, [(0, -1), (0, 0), (0, 1)], 2.0)[0, :, 0]
    # squared distances over two equal channels: 2 * 9, 2 * 1, 2 * 16; over 2 * 2^2 = 8
    steps = [math.exp(-18 / 8), math.exp(-2 / 8), math.exp(-32 / 8)]
    assert left.tolist() == pytest.approx([0, *steps])
    assert right.tolist() == pytest.approx([*steps, 0])
    assert center.tolist() == [1, 1, 1, 1]


def test_step_is_a_column_normalized_weighted_sum():
    offsets = [(0, -1), (0, 0), (0, 1)]
    affinity = torch.tensor([[0, 0.5, 1], [1, 1, 1], [0.5, 1, 0]]).view(1, 3, 1, 3)
    result = random_walk(torch.tensor([3.0, 0, 0]).view(1, 1, 1, 3), affinity, offsets, 1)
    # columns sum to 1.5, 2.5, 2
    assert result.flatten().tolist() == pytest.approx([3 / 1.5, 3 * 0.5 / 2.5, 0])


def test_walk_keeps_a_constant_map():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 7, 6, generator=generator)
    constant = torch.full((2, 1, 7, 6), 0.25)
    offsets = disc_offsets(2)
    result = random_walk(constant, color_affinity(image, offsets, 0.3), offsets, 9)
    torch.testing.assert_close(result, torch.full((2, 1, 7, 6), 0.25))


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (5, 34), (10, 152)])
def test_half_disc_contains_one_of_each_pair_of_opposite_offsets(radius, count):
    offsets = half_disc_offsets(radius)
    assert len(offsets) == count
    complete = {*offsets, *((-dy, -dx) for dy, dx in offsets)}
    assert len(complete) == 2 * count
    near = range(-radius, radius + 1)
    inside = {(y, x) for y in near for x in near if 0 < math.hypot(y, x) < radius}
    assert complete == inside


def test_pair_windows_contain_the_pixels_whose_neighbor_is_inside():
    index = torch.arange(12).view(3, 4)
    pixel, neighbor = pair_windows((1, -2), (3, 4))
    assert index[pixel].tolist() == [[2, 3], [6, 7]]
    assert index[neighbor].tolist() == [[4, 5], [8, 9]]
    empty = pair_windows((5, 0), (3, 4))
    assert [index[window].numel() for window in empty] == [0, 0]


def symmetric_pairs(height, width, offsets, seed=0, dtype=torch.float64):
    """Return random values for half of the offsets, and the full matrix by loops over pixels."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(1, len(offsets), height, width, generator=generator, dtype=dtype) ** 4
    matrix = np.eye(height * width)
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    i, j = y * width + x, (y + dy) * width + x + dx
                    matrix[i, j] = matrix[j, i] = half[0, tap, y, x]
                else:
                    half[0, tap, y, x] = 0
    return half, matrix


def test_both_directions_equal_the_symmetric_matrix():
    half, matrix = symmetric_pairs(4, 5, half_disc_offsets(3))
    complete, offsets = both_directions(half, half_disc_offsets(3))
    assert complete.shape == (1, len(offsets), 4, 5)
    actual = np.zeros((20, 20))
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(4):
            for x in range(5):
                if 0 <= y + dy < 4 and 0 <= x + dx < 5:
                    actual[y * 5 + x, (y + dy) * 5 + x + dx] = complete[0, tap, y, x]
                else:
                    assert complete[0, tap, y, x] == 0
    np.testing.assert_array_equal(actual, matrix)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["cpu", "torch"]
)
@pytest.mark.parametrize("steps", [1, 256])
def test_walk_equals_the_power_of_the_dense_matrix(dtype, tolerance, steps):
    half, matrix = symmetric_pairs(12, 12, half_disc_offsets(5), dtype=dtype)
    matrix /= matrix.sum(axis=0, keepdims=True)
    maps = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = maps[0].double().numpy().reshape(3, -1) @ np.linalg.matrix_power(matrix, steps)
    result = random_walk(maps, *both_directions(half, half_disc_offsets(5)), steps)
    np.testing.assert_allclose(result[0].numpy().reshape(3, -1), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sharpness", [4, 30])
def test_rounding_errors_do_not_add_up_over_hundreds_of_steps(sharpness):
    half, _ = symmetric_pairs(24, 32, half_disc_offsets(5))
    exact, offsets = both_directions(half**sharpness, half_disc_offsets(5))
    maps = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = random_walk(maps, exact, offsets, 256)
    result = random_walk(maps.float(), exact.float(), offsets, 256)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=5e-6)
    constant = random_walk(torch.full((1, 1, 24, 32), 0.3), exact.float(), offsets, 256)
    assert torch.equal(constant, torch.full((1, 1, 24, 32), 0.3))


def test_walk_has_no_gradient_and_keeps_its_input():
    half, _ = symmetric_pairs(5, 4, half_disc_offsets(2), dtype=torch.float32)
    maps = torch.rand(1, 2, 5, 4, requires_grad=True)
    before = maps.detach().clone()
    result = random_walk(maps, *both_directions(half, half_disc_offsets(2)), 3)
    assert not result.requires_grad
    assert torch.equal(maps, before)
