import pytest
import torch
from torch.nn import functional as F

from tag2mask.functional import bands
from tag2mask.functional.bands import sample, shrink, upsample_rows


@pytest.fixture
def small_bands(monkeypatch):
    monkeypatch.setattr(bands, "BAND_PIXELS", 700)


@pytest.mark.parametrize("size", [(20, 31), (57, 9), (101, 90)])
def test_a_shrunk_image_equals_that_of_one_call(small_bands, size):
    image = torch.randint(0, 256, (1, 3, 101, 90), dtype=torch.uint8)
    expected = F.interpolate(
        image.float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(shrink(image, size), expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize("size", [(20, 31), (57, 120), (130, 90)])
def test_a_sampled_image_equals_that_of_one_call(small_bands, size):
    image = torch.randint(0, 256, (2, 3, 101, 90), dtype=torch.uint8)
    expected = F.interpolate(image.float(), size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample(image, size), expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize("size", [(40, 30), (9, 7), (5, 100)])
def test_bands_of_resized_maps_are_those_of_the_complete_maps(size):
    maps = torch.rand(1, 4, 9, 7)
    complete = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    rows = [upsample_rows(maps, size, top, min(top + 3, size[0])) for top in range(0, size[0], 3)]
    torch.testing.assert_close(torch.cat(rows, dim=-2), complete, atol=1e-5, rtol=0)
