import math

import numpy as np
import pytest
import torch

from tag2mask.methods.rml.mutual_information import (
    bernoulli_divergence,
    bernoulli_information,
    club_bound,
    gaussian_information,
    joint_gaussian_information,
    released_divergence,
    spatial_divergence,
)


def pair_with_correlation(rho: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two maps (1, 1, 100, 100) with sample correlation rho."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 10_000))
    x = (x - x.mean()) / x.std()
    noise -= noise.mean() + (noise @ x) / (x @ x) * x
    noise /= noise.std()
    y = rho * x + math.sqrt(1 - rho**2) * noise
    return (torch.tensor(v, dtype=torch.float32).view(1, 1, 100, 100) for v in (x, y))


ONES = torch.ones(1, 100, 100)


@pytest.mark.parametrize(("rho", "nats"), [(0.0, 0.0), (0.5, 0.1438), (0.9, 0.8304)])
def test_gaussian_information_of_known_correlations(rho: float, nats: float) -> None:
    x, y = pair_with_correlation(rho)
    assert gaussian_information(x, y, ONES, cap=0).item() == pytest.approx(nats, abs=1e-4)


def test_gaussian_information_is_capped_for_identical_maps() -> None:
    x, _ = pair_with_correlation(0.0)
    assert gaussian_information(x, x, ONES).item() == pytest.approx(1.498, abs=1e-3)


def test_gaussian_information_is_invariant_to_gain_and_offset_per_channel() -> None:
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    weight = torch.ones(2, 8, 8)
    gain, offset = torch.tensor([2.0, -3.0, 0.1]), torch.tensor([5.0, -1.0, 0.0])
    changed = y * gain[:, None, None] + offset[:, None, None]
    expected = gaussian_information(x, y, weight)
    torch.testing.assert_close(gaussian_information(x, changed, weight), expected)


def test_padding_is_excluded() -> None:
    x, y = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 8, 8)
    weight = torch.ones(1, 8, 8)
    weight[:, :, 4:] = 0
    expected = gaussian_information(x[..., :4], y[..., :4], weight[..., :4])
    torch.testing.assert_close(gaussian_information(x, y, weight), expected)


def test_joint_information_of_one_channel_equals_the_scalar_formula() -> None:
    x, y = pair_with_correlation(0.9)
    got = joint_gaussian_information(x, y, ONES, shrinkage=0)
    assert got.item() == pytest.approx(0.8304, abs=1e-4)


def test_joint_information_detects_mixed_channels() -> None:
    x = torch.randn(1, 2, 100, 100, generator=torch.Generator().manual_seed(0))
    mixed = torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], dim=1)
    noise = torch.randn(1, 2, 100, 100, generator=torch.Generator().manual_seed(1))
    assert joint_gaussian_information(x, mixed + 0.1 * noise, ONES) > 1.5


def test_spatial_divergence_is_zero_for_equal_maps_and_by_hand_for_two_pixels() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert spatial_divergence(x, x).abs() < 1e-6
    p, q = 0.8, 0.3
    first = torch.tensor([math.log(p / (1 - p)), 0.0]).view(1, 1, 1, 2) * 0.05
    second = torch.tensor([math.log(q / (1 - q)), 0.0]).view(1, 1, 1, 2) * 0.05
    by_hand = 0.5 * (p - q) * (math.log(p / q) - math.log((1 - p) / (1 - q)))
    assert spatial_divergence(first, second).item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("probs", "nats"),
    [([1, 1, 0, 0], math.log(2)), ([0, 0, 1, 1], math.log(2)), ([0.5] * 4, 0), ([1, 0, 1, 0], 0)],
)
def test_bernoulli_information_of_a_two_by_two_table(probs: list[float], nats: float) -> None:
    target = torch.tensor([1.0, 1, 0, 0])
    got = bernoulli_information(torch.tensor(probs).float(), target, torch.ones(4))
    assert got.item() == pytest.approx(nats, abs=1e-5)


def test_bernoulli_divergence_by_hand() -> None:
    p, q = torch.tensor([0.25, 0.5]).logit(), torch.tensor([0.5, 0.5]).logit()
    by_hand = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    np.testing.assert_allclose(bernoulli_divergence(p, q), [by_hand, 0], atol=1e-6)


@pytest.mark.parametrize("logit", [-200.0, -20.0, 0.0, 20.0, 200.0])
def test_the_gradient_of_the_divergence_is_the_difference_of_probabilities(logit: float) -> None:
    p, q = (
        torch.tensor([-300.0, -3.0, 0.0, 3.0, 300.0]),
        torch.full((5,), logit, requires_grad=True),
    )
    divergence = bernoulli_divergence(p, q)
    divergence.sum().backward()
    assert (divergence >= 0).all()
    torch.testing.assert_close(q.grad, q.detach().sigmoid() - p.sigmoid())


def test_released_divergence_by_hand_flattens_its_second_map() -> None:
    p, q = 0.8, 0.3
    first = (torch.tensor([math.log(p / (1 - p)), 0.0]).view(1, 1, 1, 2) * 0.05).requires_grad_()
    second = (torch.tensor([math.log(q / (1 - q)), 0.0]).view(1, 1, 1, 2) * 0.05).requires_grad_()
    value = released_divergence(first, second)
    by_hand = (q * (math.log(q) - p) + (1 - q) * (math.log(1 - q) - (1 - p))) / 2
    assert value.item() == pytest.approx(by_hand, rel=1e-5)
    value.backward()
    assert first.grad is None
    assert second.grad is not None
    peak = torch.zeros(1, 1, 4, 4)
    peak[..., 1, 1] = 0.1
    flatter = released_divergence(torch.zeros_like(peak), peak / 2)
    assert flatter < released_divergence(torch.zeros_like(peak), peak)


def test_club_bound_excludes_padding() -> None:
    own, other = torch.tensor([2.0, 4, 100]), torch.tensor([1.0, 1, 0])
    assert club_bound(own, other, torch.tensor([1.0, 1, 0])) == 2
