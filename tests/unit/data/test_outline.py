import hashlib
import random

import numpy as np
import pytest

from tag2mask.data.outline import paint_polygon, paint_runs, run_lengths


def painted(polygon, height, width):
    mask = np.zeros((height, width), dtype=np.uint8)
    paint_polygon(mask, polygon, 1)
    return mask


def rough_polygons():
    rng = random.Random(0)
    for _ in range(200):
        corners = rng.randint(3, 20)
        yield [round(rng.uniform(-10, 60), 2) for _ in range(2 * corners)]


def inside_and_distance(polygon, y, x):
    """Even-odd rule for one point, edge by edge, and its distance to the outline."""
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    inside, nearest = False, np.inf
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        share = 0.0
        if length:
            share = min(1, max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length))
        nearest = min(nearest, np.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0)))
    return inside, nearest


def test_pixels_are_those_whose_center_is_inside():
    """Against a point-by-point even-odd rule, but for centers that rounding may move across."""
    looked_at = 0
    for number, polygon in enumerate(rough_polygons()):
        if number % 5:
            continue
        mask = painted(polygon, 40, 50)
        for y in range(0, 40, 3):
            for x in range(50):
                inside, distance = inside_and_distance(polygon, y + 0.5, x + 0.5)
                if distance > 0.3:  # a fifth of a pixel both ways, and the diagonal
                    looked_at += 1
                    assert mask[y, x] == inside, (number, y, x)
    assert looked_at > 20_000


def test_masks_are_those_of_the_published_tools():
    """Area and SHA-256 of the masks that pycocotools 2.0.11 makes of these polygons."""
    digest, area = hashlib.sha256(), 0
    for polygon in rough_polygons():
        mask = painted(polygon, 40, 50)
        digest.update(mask.tobytes())
        area += int(mask.sum())
    assert (digest.hexdigest(), area) == (GOLDEN_SHA, GOLDEN_AREA)


GOLDEN_SHA = "044b93721e69eac2c789f09a02402db39bd26741316f2285352836dcbb71e34a"
GOLDEN_AREA = 132_411


def test_square_on_pixel_borders_is_exact():
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[1:4, 2:7] = 1
    np.testing.assert_array_equal(painted([2, 1, 7, 1, 7, 4, 2, 4], 6, 8), expected)
    np.testing.assert_array_equal(painted([7, 4, 7, 1, 2, 1, 2, 4], 6, 8), expected)


def test_what_lies_outside_the_picture_is_left_out():
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:, 5:] = 1
    np.testing.assert_array_equal(painted([5, -9, 90, -9, 90, 70, 5, 70], 6, 8), expected)
    assert not painted([9, 0, 20, 0, 20, 6], 6, 8).any()


def test_crossing_outlines_cut_a_hole_and_two_corners_cover_nothing():
    twice = [1, 1, 7, 1, 7, 5, 1, 5, 1, 1, 3, 2, 5, 2, 5, 4, 3, 4, 3, 2]
    assert painted(twice, 6, 8)[2:4, 3:5].sum() == 0
    assert painted(twice, 6, 8)[1:5, 1:7].sum() == 24 - 4
    assert not painted([1, 1, 7, 5], 6, 8).any()


def test_compressed_run_lengths_are_those_of_pycocotools():
    """Written by pycocotools for rows 1..2, columns 1..3 and the upper right pixel of 4 x 5."""
    counts = run_lengths("522000OO2")
    mask = np.zeros((4, 5), dtype=np.uint8)
    paint_runs(mask, counts, 7)
    expected = np.zeros((4, 5), dtype=np.uint8)
    expected[1:3, 1:4] = 7
    expected[0, 4] = 7
    np.testing.assert_array_equal(mask, expected)


def test_long_and_shrinking_runs_survive_compression():
    counts = [0, 5000, 3, 31, 32, 1, 100_000, 2, 16, 15]
    np.testing.assert_array_equal(run_lengths(_compressed(counts)), counts)


def _compressed(counts):
    """The published encoding, spelt out with strings of bits."""
    letters = []
    for place, number in enumerate(counts):
        rest = number - counts[place - 2] if place > 2 else number
        while True:
            five, rest = rest % 32, rest // 32
            done = (rest == 0 and five < 16) or (rest == -1 and five >= 16)
            letters.append(chr(48 + five + (0 if done else 32)))
            if done:
                break
    return "".join(letters)


def test_runs_leave_other_pixels_alone():
    mask = np.full((2, 3), 9, dtype=np.uint8)
    paint_runs(mask, run_lengths([1, 2, 3]), 4)
    np.testing.assert_array_equal(mask, [[9, 4, 9], [4, 9, 9]])  # down the columns


@pytest.mark.parametrize("counts", ["1~", "h", [1, -2], [1.5], ["a"]])
def test_bad_run_lengths_are_rejected(counts):
    with pytest.raises(ValueError, match="run lengths"):
        run_lengths(counts)
