import pytest
import torch

from tag2mask.functional.sizes import (
    MAX_DENOMINATOR,
    at_least,
    is_exporting,
    limited_size,
    new_symbol,
    scaled_side,
)


class Sizes(torch.nn.Module):
    """Maps whose sizes are computed from that of the input."""

    def forward(self, image):
        height, width = image.shape
        limited = limited_size((height, width), None, 100)
        down = limited_size((height, width), 64, None, round_down=True)
        smaller = (at_least(scaled_side(height, 0.75), 32), scaled_side(width, 1.5))
        return image.new_zeros(limited), image.new_zeros(down), image.new_zeros(smaller)


@pytest.fixture(scope="module")
def exported():
    side = torch.export.Dim.DYNAMIC
    example = (torch.zeros(150, 210),)
    shapes = {"image": {0: side, 1: side}}
    return torch.export.export(Sizes(), example, dynamic_shapes=shapes).module()


@pytest.mark.parametrize("size", [(150, 210), (41, 333), (99, 100), (33, 7), (64, 64), (375, 250)])
def test_recorded_sizes_are_those_of_plain_numbers(exported, size):
    image = torch.zeros(size)
    assert [one.shape for one in exported(image)] == [one.shape for one in Sizes()(image)]


@pytest.mark.parametrize(
    ("size", "long_side", "max_side", "expected"),
    [
        ((375, 500), None, None, (375, 500)),
        ((375, 500), None, 1024, (375, 500)),
        ((375, 500), 1000, None, (750, 1000)),
        ((375, 500), 1000, 400, (300, 400)),
        ((1, 500), None, 100, (1, 100)),
        ((3, 4), 2, None, (2, 2)),  # 1.5 is rounded to the even 2
        ((5, 10), 5, None, (2, 5)),  # and so is 2.5
    ],
)
def test_hand_counted_sizes(size, long_side, max_side, expected):
    assert limited_size(size, long_side, max_side) == expected


def test_rounding_is_that_of_python():
    for height in range(1, 60):
        for longest in (60, 75, 96):
            for side in (7, 32, 50):
                expected = (max(1, round(height * side / longest)), side)
                assert limited_size((height, longest), side, None) == expected
                down = (max(1, int(height * side / longest)), side)
                assert limited_size((height, longest), side, None, round_down=True) == down


def test_plain_numbers_stay_plain():
    assert not is_exporting()
    assert (at_least(5, 32), at_least(40, 32)) == (32, 40)
    assert (scaled_side(1, 0.5), scaled_side(101, 0.5)) == (1, 50)
    assert new_symbol(7, 1) == 7


def test_scales_of_recipes_are_fractions():
    for scale in (0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0):
        assert scale * MAX_DENOMINATOR == int(scale * MAX_DENOMINATOR)
