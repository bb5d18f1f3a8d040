import pytest
import torch

from tag2mask.refiners.par import ParConfig, par_iterate, par_kernel, position_weights
from tag2mask.refiners.par_export import export_iterate, export_kernel


@pytest.fixture
def image():
    image = torch.randint(0, 256, (2, 3, 31, 44), dtype=torch.uint8)
    image[:, :, :12, :12] = 80  # where all neighbors are equal
    return image


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4, 8, 12, 24)])
def test_the_kernel_is_that_of_par(image, dilations):
    config = ParConfig(dilations=dilations)
    position = config.w3 * position_weights(dilations, config.w2)
    found = export_kernel(image, dilations, config.w1, position)
    torch.testing.assert_close(found, par_kernel(image, config), atol=1e-5, rtol=1e-4)


def test_the_iterations_are_those_of_par(image):
    config = ParConfig()
    kernel = par_kernel(image, config)
    maps = torch.rand(2, 5, 31, 44)
    expected = par_iterate(maps, kernel, config.dilations, 3)
    found = export_iterate(maps, kernel, config.dilations, 3)
    torch.testing.assert_close(found, expected)
