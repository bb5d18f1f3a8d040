from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from tag2mask.config.recipe import parse_recipe
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method
from tag2mask.visualization.affinity_maps import AffinityMaps, compute_affinity_maps

PAIRS = AffinityMaps((2, 4), None, None, 1)
"""Cells 0 1 2 3 above 4 5 6 7."""


@pytest.fixture
def comparing() -> Segmenter:
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
    ("point", "cell"),
    [((0, 0), 0), ((0.24, 0.9), 4), ((0.26, 0.49), 1), ((0.99, 0.51), 7), ((1, 1), 7), ((1, 0), 3)],
)
def test_point_lies_in_its_cell(point: tuple[float, float], cell: int) -> None:
    assert PAIRS.cell_of(point) == cell


def test_center_of_a_cell_lies_in_it() -> None:
    assert PAIRS.center_of(6) == (0.625, 0.75)
    assert [PAIRS.cell_of(PAIRS.center_of(cell)) for cell in range(8)] == list(range(8))


def test_window_ends_at_the_image_and_is_none_where_it_holds_all() -> None:
    assert PAIRS.window_of(0) == (0, 0, 0.5, 1)
    assert PAIRS.window_of(6) == (0.25, 0, 1, 1)
    assert PAIRS._replace(radius=3).window_of(0) is None
    assert PAIRS._replace(radius=2).window_of(1) is None
    assert PAIRS._replace(radius=2).window_of(0) == (0, 0, 0.75, 1)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((45, 63), (6, 8)), ((7, 90), (4, 12)), ((300, 1200), (8, 32))],
)
def test_grid_is_that_of_the_shrunk_image(
    comparing: Segmenter, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The tiny network has cells of 8 px; no side is under 32 px or over 32 cells."""
    comparing.method.train()
    affinity_maps = compute_affinity_maps(comparing, np.zeros((*size, 3), dtype=np.uint8))
    assert comparing.method.training
    assert affinity_maps is not None
    assert affinity_maps.attention is not None
    assert affinity_maps.affinity is not None
    assert affinity_maps.radius == 3
    assert affinity_maps.attention.shape == affinity_maps.affinity.shape
    assert affinity_maps.attention.shape[0] == affinity_maps.grid[0] * affinity_maps.grid[1]
    assert affinity_maps.grid == grid
    torch.testing.assert_close(
        affinity_maps.attention.sum(dim=1), torch.ones(len(affinity_maps.attention))
    )


def test_raster_order_is_that_of_the_image(
    comparing: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells that look alike by brightness: the row of a bright cell is the image again."""

    def maps(image: Tensor) -> Mapping[str, Tensor]:
        assert not comparing.method.training
        level = torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 8).flatten(1)
        bright = (level > 0).float()
        return {"affinity": bright[:, :, None] * bright[:, None, :]}

    monkeypatch.setattr(comparing.method, "maps", maps)
    comparing.method.train()
    image = np.zeros((128, 256, 3), dtype=np.uint8)
    image[:32, 192:] = 255
    affinity_maps = compute_affinity_maps(comparing, image)
    assert affinity_maps is not None
    assert affinity_maps.attention is None
    assert affinity_maps.affinity is not None
    height, width = affinity_maps.grid
    row = affinity_maps.affinity[affinity_maps.cell_of((0.9, 0.1))].view(height, width)
    expected = torch.zeros(height, width)
    expected[: height // 4, -width // 4 :] = 1
    assert torch.equal(row, expected)


def test_network_without_attention_has_no_pairs(segmenter: Segmenter) -> None:
    assert compute_affinity_maps(segmenter, np.zeros((40, 40, 3), dtype=np.uint8)) is None
