import numpy as np
import pytest
import torch

from tag2mask.errors import DataError
from tag2mask.functional.lattice_cpu import build_cpu_lattice
from tag2mask.functional.lattice_torch import build_torch_lattice

ENOUGH = 10**6


def cloud(*shape, spread=4.0, seed=0):
    return spread * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("d", [2, 5])
def test_lattice_equals_the_compiled_lattice(d, normalize):
    points, values = cloud(300, d), cloud(300, 4, seed=1)
    ours = build_torch_lattice(points[None], ENOUGH)
    compiled = build_cpu_lattice(points.numpy(), ENOUGH)
    if normalize:
        ours.normalize()
        compiled.normalize()
    np.testing.assert_allclose(
        ours.filter(values), compiled.filter(values.numpy()), rtol=1e-4, atol=1e-4
    )
    assert ours.near.shape[2] == compiled.corners


def test_gray_levels_on_borders_between_simplices_round_like_the_compiled_lattice():
    levels = torch.arange(200).view(-1, 1).expand(-1, 5).float() / 5
    ours = build_torch_lattice(levels[None].contiguous(), ENOUGH)
    compiled = build_cpu_lattice(levels.contiguous().numpy(), ENOUGH)
    assert ours.near.shape[2] == compiled.corners
    np.testing.assert_allclose(ours.weight, compiled.weight, atol=1e-5)


def test_images_of_a_batch_are_independent():
    points, values = cloud(3, 80, 5), cloud(3, 80, 2, seed=1)
    points[2] = points[0]
    together = build_torch_lattice(points, ENOUGH).filter(values.flatten(0, 1)).view(3, 80, 2)
    for image in range(3):
        alone = build_torch_lattice(points[image : image + 1], ENOUGH).filter(values[image])
        torch.testing.assert_close(together[image], alone)


def test_too_many_corners_for_the_memory_are_rejected():
    points = 100 * cloud(1, 50, 2)
    build_torch_lattice(points, 150)
    with pytest.raises(DataError, match="needs 150 corners, more than the 149"):
        build_torch_lattice(points, 149)


def test_single_point_keeps_its_value():
    lattice = build_torch_lattice(cloud(1, 1, 5), ENOUGH)
    lattice.normalize()
    torch.testing.assert_close(lattice.filter(torch.tensor([[3.0]])), torch.tensor([[3.0]]))
