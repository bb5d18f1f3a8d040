import numpy as np
import torch

from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.methods.psa.affinity import feature_affinity

NEAR = half_disc_offsets(3)


def pairs_inside(offsets, height, width):
    """Yield (tap, y, x, y', x') of every pair inside the map."""
    for tap, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    yield tap, y, x, y + dy, x + dx


def test_feature_affinity_equals_loops():
    features = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    actual = feature_affinity(features, NEAR)
    expected = np.zeros((2, len(NEAR), 4, 5))
    array = features.double().numpy()
    for tap, y, x, v, u in pairs_inside(NEAR, 4, 5):
        difference = np.abs(array[:, :, y, x] - array[:, :, v, u]).mean(axis=1)
        expected[:, tap, y, x] = np.exp(-difference)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5)


def test_gradient_equals_finite_differences():
    features = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: feature_affinity(maps, NEAR), (features,))


def test_maps_smaller_than_the_radius_have_fewer_pairs():
    offsets = half_disc_offsets(10)
    features = torch.zeros(1, 1, 3, 2, requires_grad=True)
    pairs = feature_affinity(features, offsets)
    pairs.sum().backward()
    assert pairs.sum().item() == len(list(pairs_inside(offsets, 3, 2)))
