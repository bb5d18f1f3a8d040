"""ER, ECR and the weakest cells against loops, and what of them carries a gradient."""

import numpy as np
import pytest
import torch
from tests.reference import seam_oracle
from torch import Tensor

from tag2mask.methods.seam.losses import (
    cross_equivariance_loss,
    equivariance_loss,
    min_pooling_loss,
    peak_normalized,
    strongest_class,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_map_is_scaled_by_its_own_range() -> None:
    cam = 4 * rand(2, 3, 4, 5) - 2
    cam[0] += 3  # nowhere negative: the minimum counts
    expected = np.stack([seam_oracle.ranged(one) for one in cam.numpy()])
    np.testing.assert_allclose(peak_normalized(cam).numpy(), expected, rtol=1e-10)


def test_an_all_negative_map_is_zero_and_has_no_gradient_that_is_not_finite() -> None:
    cam = torch.full((1, 1, 3, 3), -1.0, requires_grad=True)
    peak_normalized(cam).sum().backward()
    assert not peak_normalized(cam).any()
    assert cam.grad is not None
    assert torch.isfinite(cam.grad).all()


def test_a_shrinking_map_does_not_lower_the_equivariance_loss() -> None:
    """The gradient of normalized maps is at right angles to the raw map: scale gains nothing."""
    cam = (1 + rand(1, 2, 4, 4)).requires_grad_()
    equivariance_loss(peak_normalized(cam), rand(1, 2, 4, 4, seed=1)).backward()
    assert cam.grad is not None
    assert cam.grad.any()
    assert abs((cam.grad * cam.detach()).sum().item()) < 1e-3 * cam.grad.abs().sum().item()


def test_background_is_what_the_strongest_class_leaves() -> None:
    score = torch.tensor([[[[0.2, 0.5]], [[0.7, 0.5]]]])
    expected = torch.tensor([[[[0.3, 0.5]], [[0.0, 0.5]], [[0.7, 0.5]]]])
    torch.testing.assert_close(strongest_class(score), expected)


def test_equal_maps_lose_nothing_and_both_views_learn() -> None:
    maps = rand(2, 3, 4, 4)
    assert equivariance_loss(maps, maps) == 0
    large, small = maps.clone().requires_grad_(), rand(2, 3, 4, 4, seed=1).requires_grad_()
    equivariance_loss(large, small).backward()
    torch.testing.assert_close(large.grad, -small.grad)
    assert large.grad.abs().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0, 0.0])
def test_cross_equivariance_equals_loops(share: float) -> None:
    plain = [rand(2, 3, 4, 5, seed=seed) for seed in (1, 2)]
    gathered = [rand(2, 4, 4, 5, seed=seed) for seed in (3, 4)]
    expected = 0.0
    for row in range(2):
        expected += seam_oracle.cross(plain[1][row].numpy(), gathered[0][row].numpy(), share) / 2
        expected += seam_oracle.cross(plain[0][row].numpy(), gathered[1][row].numpy(), share) / 2
    assert cross_equivariance_loss(*plain, *gathered, share).item() == pytest.approx(expected)


def test_only_gathered_maps_learn_from_cross_equivariance() -> None:
    plain = [rand(1, 2, 4, 4, seed=seed).requires_grad_() for seed in (1, 2)]
    gathered = [rand(1, 3, 4, 4, seed=seed).requires_grad_() for seed in (3, 4)]
    cross_equivariance_loss(*plain, *gathered).backward()
    assert all(maps.grad is None for maps in plain)
    for maps in gathered:
        assert maps.grad is not None
        assert (maps.grad != 0).sum().item() == int(0.2 * 3 * 16)


@pytest.mark.parametrize("share", [0.25, 0.6, 0.0])
def test_weakest_cells_equal_loops(share: float) -> None:
    maps = 2 * rand(2, 3, 4, 6) - 1.4
    expected = sum(seam_oracle.weakest(one, share) for one in maps.numpy()) / 2
    assert min_pooling_loss(maps, share).item() == pytest.approx(expected)
