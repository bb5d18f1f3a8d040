import math

import pytest
import torch
from torch.nn import functional as F

from tag2mask.functional.stencil import colour_affinity, disc_offsets, random_walk, shifted


def test_disc_holds_the_pixels_within_its_radius():
    assert disc_offsets(1) == [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]
    assert [len(disc_offsets(radius)) for radius in (2, 5)] == [13, 81]


def test_shifted_is_the_neighbour_at_the_offset():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    padded = F.pad(maps, (2,) * 4)
    assert shifted(padded, 2, (0, 0)).equal(maps)
    assert shifted(padded, 2, (1, 2))[0, 0].tolist() == [
        [6, 7, 0, 0],
        [10, 11, 0, 0],
        [0, 0, 0, 0],
    ]


def test_affinity_is_the_gaussian_of_the_colour_distance_and_none_outside():
    image = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).view(1, 1, 1, 4).expand(1, 2, 1, 4)
    left, centre, right = colour_affinity(image, [(0, -1), (0, 0), (0, 1)], 2.0)[0, :, 0]
    # squared distances over two equal channels: 2 * 9, 2 * 1, 2 * 16; over 2 * 2^2 = 8
    steps = [math.exp(-18 / 8), math.exp(-2 / 8), math.exp(-32 / 8)]
    assert left.tolist() == pytest.approx([0, *steps])
    assert right.tolist() == pytest.approx([*steps, 0])
    assert centre.tolist() == [1, 1, 1, 1]


def test_a_step_is_the_mean_weighted_by_the_column():
    offsets = [(0, -1), (0, 0), (0, 1)]
    affinity = torch.tensor([[0, 0.5, 1], [1, 1, 1], [0.5, 1, 0]]).view(1, 3, 1, 3)
    moved = random_walk(torch.tensor([3.0, 0, 0]).view(1, 1, 1, 3), affinity, offsets, 1)
    # columns sum to 1.5, 2.5, 2
    assert moved.flatten().tolist() == pytest.approx([3 / 1.5, 3 * 0.5 / 2.5, 0])


def test_walk_keeps_a_level_map_and_the_input():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 7, 6, generator=generator)
    level = torch.full((2, 1, 7, 6), 0.25)
    offsets = disc_offsets(2)
    moved = random_walk(level, colour_affinity(image, offsets, 0.3), offsets, 9)
    torch.testing.assert_close(moved, torch.full((2, 1, 7, 6), 0.25))
