import numpy as np
import pytest

from tag2mask.formats.contours import (
    Pixels,
    draw_part,
    draw_ring,
    may_be_simple,
    merge_holes,
    signed_area,
    trace_parts,
)


def pixels(*rows: str) -> Pixels:
    return np.array([[letter == "#" for letter in row] for row in rows])


def corners(ring: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, ring.tolist()))


def test_a_pixel_is_the_square_between_its_corners() -> None:
    (part,) = trace_parts(pixels("...", ".#.", "..."))
    assert part.outline.tolist() == [[2, 1], [2, 2], [1, 2], [1, 1]]  # clockwise on the screen
    assert part.holes == ()
    assert signed_area(part.outline) == 1


def test_straight_sides_have_corners_only_at_their_ends() -> None:
    (part,) = trace_parts(pixels("####", "####"))
    assert corners(part.outline) == {(0, 0), (4, 0), (4, 2), (0, 2)}


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    parts = trace_parts(pixels("#.", ".#"))
    assert [corners(part.outline) for part in parts] == [
        {(0, 0), (1, 0), (1, 1), (0, 1)},
        {(1, 1), (2, 1), (2, 2), (1, 2)},
    ]


def test_a_hole_is_counterclockwise_and_holds_its_island_as_a_part() -> None:
    parts = trace_parts(pixels("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert len(parts) == 2
    (hole,) = parts[0].holes
    assert corners(hole) == {(1, 1), (4, 1), (4, 4), (1, 4)}
    assert signed_area(hole) == -9
    assert corners(parts[1].outline) == {(2, 2), (3, 2), (3, 3), (2, 3)}


def test_background_that_reaches_the_outside_through_a_corner_is_a_hole() -> None:
    (part,) = trace_parts(pixels(".##", "#.#", "###"))
    assert len(part.holes) == 1  # so that no ring meets a corner twice
    assert signed_area(part.outline) == 8
    assert signed_area(part.holes[0]) == -1


def test_empty_mask_has_no_parts() -> None:
    assert trace_parts(np.zeros((3, 4), dtype=bool)) == []


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7, 0.9])
def test_parts_of_any_mask_are_simple_and_cover_exactly_its_pixels(density: float) -> None:
    rng = np.random.default_rng(int(10 * density))
    for _ in range(60):
        height, width = (int(side) for side in rng.integers(1, 14, 2))
        inside = rng.random((height, width)) < density
        covered = np.zeros((height, width), dtype=int)
        merged = covered.copy()
        for part in trace_parts(inside):
            for ring in (part.outline, *part.holes):
                assert len(corners(ring)) == len(ring)
            pieces = draw_ring(part.outline, (height, width)).astype(int)
            for hole in part.holes:
                pieces -= draw_ring(hole, (height, width))
            covered += pieces
            merged += draw_part(part, (height, width))
            area = signed_area(part.outline) + sum(map(signed_area, part.holes))
            assert pieces.sum() == area == signed_area(merge_holes(part))
        assert np.array_equal(covered, inside)
        assert np.array_equal(merged, inside)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.7, 0.98])
def test_no_simple_mask_is_missed(density: float) -> None:
    rng = np.random.default_rng(0)
    simple = 0
    for _ in range(150):
        mask = rng.random(rng.integers(1, 6, 2)) < density
        parts = trace_parts(mask)
        if len(parts) == 1 and not parts[0].holes:
            simple += 1
            assert may_be_simple(mask)
    assert simple


def test_parts_and_holes_are_recognized_without_tracing() -> None:
    ring = np.ones((5, 5), dtype=bool)
    assert may_be_simple(ring)
    ring[2, 2] = False
    assert not may_be_simple(ring)
    assert not may_be_simple(np.eye(2, dtype=bool))  # two parts that touch at a corner
    assert not may_be_simple(np.zeros((3, 3), dtype=bool))
