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


def test_each_cam_is_scaled_by_its_own_range() -> None:
    cam = 4 * rand(2, 3, 4, 5) - 2
    cam[0] += 3  # all positive, so that the minimum matters
    expected = np.stack([seam_oracle.ranged(one) for one in cam.numpy()])
    np.testing.assert_allclose(peak_normalized(cam).numpy(), expected, rtol=1e-10)


def test_negative_cam_becomes_zero_and_has_finite_gradients() -> None:
    cam = torch.full((1, 1, 3, 3), -1.0, requires_grad=True)
    peak_normalized(cam).sum().backward()
    assert not peak_normalized(cam).any()
    assert cam.grad is not None
    assert torch.isfinite(cam.grad).all()


def test_shrinking_the_cam_does_not_lower_the_equivariance_loss() -> None:
    """The gradient is orthogonal to the raw CAM, so scaling it does not change the loss."""
    cam = (1 + rand(1, 2, 4, 4)).requires_grad_()
    equivariance_loss(peak_normalized(cam), rand(1, 2, 4, 4, seed=1)).backward()
    assert cam.grad is not None
    assert cam.grad.any()
    assert abs((cam.grad * cam.detach()).sum().item()) < 1e-3 * cam.grad.abs().sum().item()


def test_background_is_one_minus_the_strongest_class() -> None:
    score = torch.tensor([[[[0.2, 0.5]], [[0.7, 0.5]]]])
    expected = torch.tensor([[[[0.3, 0.5]], [[0.0, 0.5]], [[0.7, 0.5]]]])
    torch.testing.assert_close(strongest_class(score), expected)


def test_equivariance_loss_is_zero_for_equal_maps_and_trains_both_views() -> None:
    maps = rand(2, 3, 4, 4)
    assert equivariance_loss(maps, maps) == 0
    large, small = maps.clone().requires_grad_(), rand(2, 3, 4, 4, seed=1).requires_grad_()
    equivariance_loss(large, small).backward()
    torch.testing.assert_close(large.grad, -small.grad)
    assert large.grad.abs().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0, 0.0])
def test_cross_equivariance_equals_loops(share: float) -> None:
    plain = [rand(2, 3, 4, 5, seed=seed) for seed in (1, 2)]
    refined = [rand(2, 4, 4, 5, seed=seed) for seed in (3, 4)]
    expected = 0.0
    for row in range(2):
        for target, output in ((plain[1], refined[0]), (plain[0], refined[1])):
            one, other = target[row].numpy(), output[row].numpy()
            expected += seam_oracle.cross_equivariance(one, other, share) / 2
    assert cross_equivariance_loss(*plain, *refined, share).item() == pytest.approx(expected)


def test_only_refined_cams_have_gradients_from_cross_equivariance() -> None:
    plain = [rand(1, 2, 4, 4, seed=seed).requires_grad_() for seed in (1, 2)]
    refined = [rand(1, 3, 4, 4, seed=seed).requires_grad_() for seed in (3, 4)]
    cross_equivariance_loss(*plain, *refined).backward()
    assert all(maps.grad is None for maps in plain)
    for maps in refined:
        assert maps.grad is not None
        assert (maps.grad != 0).sum().item() == int(0.2 * 3 * 16)


@pytest.mark.parametrize("share", [0.25, 0.6, 0.0])
def test_min_pooling_equals_loops(share: float) -> None:
    maps = 2 * rand(2, 3, 4, 6) - 1.4
    expected = sum(seam_oracle.min_pooling(one, share) for one in maps.numpy()) / 2
    assert min_pooling_loss(maps, share).item() == pytest.approx(expected)
