import numpy as np
import pytest

from tag2mask.inference.tiling import TileAxis, TileGrid

RANDOM = np.random.default_rng(0)
AXES = [(*RANDOM.integers(1, (400, 150)).tolist(), RANDOM.uniform(0, 0.5)) for _ in range(40)]
IMAGES = [
    (*RANDOM.integers((1, 1, 8), (300, 300, 120)).tolist(), RANDOM.uniform(0, 0.5))
    for _ in range(40)
]


@pytest.mark.parametrize(("length", "side", "overlap"), AXES)
def test_weights_of_all_tiles_sum_to_one_at_every_pixel(length, side, overlap):
    side = min(length, side)
    axis = TileAxis(length, side, int(side * overlap))
    total = np.zeros(length)
    for start, weight in zip(axis.starts, axis.weights(), strict=True):
        assert weight.min() >= 0
        total[start : start + side] += weight.numpy()
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + side == length
    gaps = np.diff(axis.starts)
    assert (gaps <= side - axis.overlap).all()


@pytest.mark.parametrize(("height", "width", "tile_px", "overlap"), IMAGES)
def test_cores_of_the_tiles_cover_the_image(height, width, tile_px, overlap):
    grid = TileGrid.of((height, width), tile_px, overlap)
    covered = np.zeros((height, width), dtype=bool)
    for tile in grid:
        rows, columns = grid.core(tile, grid.tile_size)
        covered[tile.pixels][rows, columns] = True
    assert covered.all()


def test_an_image_within_the_limit_is_one_tile():
    assert len(TileGrid.of((64, 100), 100, 0.25)) == 1
    assert len(TileGrid.of((64, 101), 100, 0.25)) == 2
    assert len(TileGrid.of((640, 1001), None, 0.25)) == 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_neighbors_overlap_by_the_share_that_is_asked_for(overlap):
    starts = TileGrid.of((50, 1000), 100, overlap).columns.starts
    assert max(np.diff(starts)) <= 100 - 100 * overlap
