from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from tag2mask.config.recipe import parse_recipe
from tag2mask.inference.inspection import AffinityMaps, compute_affinity_maps
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method

MAPS = AffinityMaps((2, 4), None, None, 1)
"""Positions 0 1 2 3 above 4 5 6 7."""


@pytest.fixture
def affinity_segmenter() -> Segmenter:
    torch.manual_seed(0)
    raw = {
        "data": {"name": "folder", "classes": ["cat"]},
        "backbone": {"name": "tiny"},
        "method": {"name": "afa", "decoder_width": 8, "radius": 3},
        "refiner": {"name": "par"},
        "predict": {"long_side_px": 0},
    }
    recipe = parse_recipe(raw, "test")
    return Segmenter(build_method(recipe), recipe)


@pytest.mark.parametrize(
    ("point", "position"),
    [((0, 0), 0), ((0.24, 0.9), 4), ((0.26, 0.49), 1), ((0.99, 0.51), 7), ((1, 1), 7), ((1, 0), 3)],
)
def test_point_lies_in_its_position(point: tuple[float, float], position: int) -> None:
    assert MAPS.position_at(point) == position


def test_center_of_a_position_lies_in_it() -> None:
    assert MAPS.center_of(6) == (0.625, 0.75)
    positions = list(range(8))
    assert [MAPS.position_at(MAPS.center_of(position)) for position in positions] == positions


def test_window_ends_at_the_image_and_is_none_if_it_covers_the_image() -> None:
    assert MAPS.window_of(0) == (0, 0, 0.5, 1)
    assert MAPS.window_of(6) == (0.25, 0, 1, 1)
    assert MAPS._replace(radius=3).window_of(0) is None
    assert MAPS._replace(radius=2).window_of(1) is None
    assert MAPS._replace(radius=2).window_of(0) == (0, 0, 0.75, 1)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((45, 63), (6, 8)), ((7, 90), (4, 12)), ((300, 1200), (8, 32))],
)
def test_grid_matches_the_shrunk_image(
    affinity_segmenter: Segmenter, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The tiny network has stride 8; no side is under 32 px or over 32 positions."""
    maps = compute_affinity_maps(affinity_segmenter, np.zeros((*size, 3), dtype=np.uint8))
    assert not affinity_segmenter.method.training
    assert maps is not None
    assert maps.attention is not None
    assert maps.affinity is not None
    assert maps.radius == 3
    assert maps.attention.shape == maps.affinity.shape
    assert maps.attention.shape[0] == maps.grid[0] * maps.grid[1]
    assert maps.grid == grid
    torch.testing.assert_close(maps.attention.sum(dim=1), torch.ones(len(maps.attention)))


def test_positions_are_in_raster_order_of_the_image(
    affinity_segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bright positions have affinity with each other: the row of one of them is the image again."""

    def attention_maps(image: Tensor) -> Mapping[str, Tensor]:
        assert not affinity_segmenter.method.training
        level = torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 8).flatten(1)
        bright = (level > 0).float()
        return {"affinity": bright[:, :, None] * bright[:, None, :]}

    monkeypatch.setattr(affinity_segmenter.method, "attention_maps", attention_maps)
    image = np.zeros((128, 256, 3), dtype=np.uint8)
    image[:32, 192:] = 255
    affinity_maps = compute_affinity_maps(affinity_segmenter, image)
    assert affinity_maps is not None
    assert affinity_maps.attention is None
    assert affinity_maps.affinity is not None
    height, width = affinity_maps.grid
    row = affinity_maps.affinity[affinity_maps.position_at((0.9, 0.1))].view(height, width)
    expected = torch.zeros(height, width)
    expected[: height // 4, -width // 4 :] = 1
    assert torch.equal(row, expected)


def test_network_without_attention_has_no_affinity_maps(segmenter: Segmenter) -> None:
    assert compute_affinity_maps(segmenter, np.zeros((40, 40, 3), dtype=np.uint8)) is None
