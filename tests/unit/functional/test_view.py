import pytest
import torch

from tag2mask.functional.view import DownscaledView


@pytest.mark.parametrize(("side", "small"), [(320, 96), (512, 160), (256, 64), (64, 32)])
def test_sides_are_multiples_of_32(side: int, small: int) -> None:
    assert DownscaledView(0.3).size((side, side)) == (small, small)


def test_constant_image_stays_constant() -> None:
    small = DownscaledView(0.3).image(torch.full((1, 3, 320, 320), 0.7))
    torch.testing.assert_close(small, torch.full((1, 3, 96, 96), 0.7))


def test_images_and_maps_are_downscaled_alike() -> None:
    view = DownscaledView(0.3)
    image = torch.rand(1, 3, 160, 160)
    small = view.image(image)
    torch.testing.assert_close(view.maps(image, small.shape[-2:]), small)


def test_valid_region_is_downscaled_with_the_image() -> None:
    valid = torch.zeros(1, 320, 320, dtype=torch.bool)
    valid[:, :160, :80] = True
    weight = DownscaledView(0.3).valid(valid, (96, 96))
    assert weight.sum() == 48 * 24
    assert weight[0, :48, :24].min() == 1


def test_view_can_align_corners_and_have_any_side() -> None:
    view = DownscaledView(0.3, align_corners=True, multiple_px=1)
    assert view.size((448, 448)) == (134, 134)
    image = torch.rand(1, 3, 448, 448)
    small = view.image(image)
    torch.testing.assert_close(view.maps(image, small.shape[-2:]), small)
    torch.testing.assert_close(small[..., ::133, ::133], image[..., ::447, ::447])


def test_a_position_counts_if_the_top_left_pixel_of_its_block_is_real() -> None:
    valid = torch.zeros(1, 64, 64, dtype=torch.bool)
    valid[:, 17:33] = True  # of the blocks of 16 pixels, only the third begins inside
    assert DownscaledView(0.5).valid(valid, (4, 4))[0, :, 0].tolist() == [0, 0, 1, 0]
