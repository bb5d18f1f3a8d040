import hashlib
import random

import numpy as np
import pytest

from tag2mask.data.coco_outlines import OutlinePacker, encode_runs, pack_polygons


def decoded(shape, height, width):
    """Pixels of one outline; none are zeros."""
    packer = OutlinePacker()
    packer.add(pack_polygons(shape), (height, width), keep=True)
    inside = packer.packed().decode(0, (height, width))
    return np.zeros((height, width), dtype=bool) if inside is None else inside


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
    """Against a point-by-point even-odd rule, except for centers that rounding may move across."""
    compared = 0
    for number, polygon in enumerate(rough_polygons()):
        if number % 5:
            continue
        mask = decoded([polygon], 40, 50)
        for y in range(0, 40, 3):
            for x in range(50):
                inside, distance = inside_and_distance(polygon, y + 0.5, x + 0.5)
                if distance > 0.3:  # a fifth of a pixel both ways, and the diagonal
                    compared += 1
                    assert mask[y, x] == inside, (number, y, x)
    assert compared > 20_000


def test_masks_stay_those_of_earlier_versions():
    """Area and SHA-256 that pycocotools 2.0.11 and the painter before it both gave."""
    digest, area = hashlib.sha256(), 0
    for polygon in rough_polygons():
        mask = decoded([polygon], 40, 50).astype(np.uint8)
        digest.update(mask.tobytes())
        area += int(mask.sum())
    assert (digest.hexdigest(), area) == (GOLDEN_SHA, GOLDEN_AREA)


GOLDEN_SHA = "044b93721e69eac2c789f09a02402db39bd26741316f2285352836dcbb71e34a"
GOLDEN_AREA = 132_411


def test_a_square_on_pixel_borders_is_exact():
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:7] = True
    np.testing.assert_array_equal(decoded([[2, 1, 7, 1, 7, 4, 2, 4]], 6, 8), expected)
    np.testing.assert_array_equal(decoded([[7, 4, 7, 1, 2, 1, 2, 4]], 6, 8), expected)


def test_pixels_outside_the_image_are_left_out():
    expected = np.zeros((6, 8), dtype=bool)
    expected[:, 5:] = True
    polygon = [5, -9, 70, -9, 70, 70, 5, 70]
    np.testing.assert_array_equal(decoded([polygon], 6, 8), expected)
    for polygon in ([9, 0, 20, 0, 20, 6], [0, -9, 8, -9, 8, -3], [0, 7, 8, 7, 8, 20, 0, 20]):
        assert not decoded([polygon], 6, 8).any()


def test_a_polygon_that_crosses_itself_has_a_hole():
    ring = [0, 0, 6, 0, 6, 6, 0, 6, 0, 0, 2, 2, 2, 4, 4, 4, 4, 2, 2, 2]
    expected = np.zeros((7, 7), dtype=bool)
    expected[:6, :6] = True
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(decoded([ring], 7, 7), expected)


def test_several_polygons_are_united():
    expected = np.zeros((4, 8), dtype=bool)
    expected[:, :3] = expected[:, 2:5] = True
    left, right = [0, 0, 3, 0, 3, 4, 0, 4], [2, 0, 5, 0, 5, 4, 2, 4]
    np.testing.assert_array_equal(decoded([left, right], 4, 8), expected)


def test_a_point_or_an_edge_covers_nothing():
    """pycocotools would read four numbers as a box."""
    assert not decoded([[1, 1, 4, 4]], 6, 8).any()
    assert not decoded([[1, 1]], 6, 8).any()
    found = decoded([[1, 1, 4, 4], [0, 0, 1, 0, 1, 1, 0, 1]], 6, 8)
    assert found.sum() == found[0, 0] == 1


@pytest.mark.parametrize("counts", [[1, 2, 3], [0, 1, 3, 2], [6], [0, 6], [1, 0, 0, 2, 3]])
def test_run_lengths_go_down_the_columns(counts):
    values = [index % 2 == 1 for index, number in enumerate(counts) for _ in range(number)]
    expected = np.array(values).reshape(3, 2).T
    for written in (counts, compressed(counts)):
        found = decoded({"counts": written, "size": [2, 3]}, 2, 3)
        np.testing.assert_array_equal(found, expected)


def test_long_and_shrinking_runs_survive_compression():
    counts = [0, 5000, 3, 31, 32, 1, 100_000, 2, 16, 15]
    size = (sum(counts) // 100, 100)
    assert size[0] * size[1] == sum(counts)
    shape = {"counts": compressed(counts), "size": list(size)}
    assert encode_runs(shape, size) == encode_runs({**shape, "counts": counts}, size)
    assert encode_runs(shape, size).decode() == compressed(counts)


def compressed(counts):
    """The published encoding, spelled out number by number."""
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


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ("", "end within a number"),
        ("h", "end within a number"),
        ("6h", "end within a number"),
        ("6~", "does not occur"),
        ("6\0", "does not occur"),
        ("o" * 6 + "0", "too large"),
        ("o" * 5000 + "0", "too large"),
        ("56", "run lengths sum to 11"),
        ("5", "run lengths sum to 5"),
        ("ooooo?", "whole numbers from 0 to 6"),
        ("O", "whole numbers from 0 to 6"),  # -1
        (compressed([7, 2**28, 0]), "whole numbers from 0 to 6"),
        ([7], "whole numbers from 0 to 6"),
        ([1, 2], "run lengths sum to 3"),
        ([2**32, 6], "whole numbers from 0 to 6"),
        ([6.0], "whole numbers"),
        ([True, 5], "whole numbers"),
        ([], "run lengths sum to 0"),
        (6, "no run lengths"),
    ],
)
def test_bad_run_lengths_never_reach_pycocotools(counts, told):
    with pytest.raises(ValueError, match=told):
        encode_runs({"counts": counts, "size": [2, 3]}, (2, 3))


def test_annotations_keep_their_places():
    packer = OutlinePacker()
    size = (2, 4)
    shapes = [None, [[0, 0, 1, 0, 1, 2, 0, 2]] * 2, {"counts": [6, 2], "size": [2, 4]}, []]
    for shape in shapes:
        packer.add(pack_polygons(shape), size, keep=True)
    packer.add({"counts": [8], "size": [2, 4]}, size, keep=False)
    outlines = packer.packed()
    np.testing.assert_array_equal(outlines.present, [False, True, True, False, False])
    assert outlines.decode(0, size) is None
    np.testing.assert_array_equal(outlines.decode(1, size), [[1, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(outlines.decode(2, size), [[0, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(outlines.extents(), [[0, 0, 1, 2]] * 2)


def test_no_outlines_at_all_are_fine():
    packer = OutlinePacker()
    packer.add(None, (2, 2), keep=True)
    outlines = packer.packed()
    assert not outlines.present.any()
    assert outlines.extents().shape == (0, 4)
    assert outlines.find_too_long() is None


def test_a_long_way_around_many_corners_is_found():
    packer = OutlinePacker()
    size = (300, 300)
    packer.add(pack_polygons([[0, 0, 1, 1, 0, 1] * 5000]), size, keep=True)  # many short steps
    assert packer.packed().find_too_long() is None
    packer.add(pack_polygons([[0, 0, 300, 0] * 5000]), size, keep=True)
    assert packer.packed().find_too_long() == 1
