import math

import pytest
import torch

from tag2mask.functional.affinity import affinity_label, pool_pair_logits
from tag2mask.methods.rml.club import ConditionalGaussian
from tag2mask.methods.rml.information import affinity_information_loss, feature_information
from tag2mask.types import IGNORE

CERTAIN = 30.0
"""Logit of a certain affinity."""


def pure_pairs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels of pairs at a large and a small size without mixed positions."""
    small = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(seed))
    label = small.repeat_interleave(24, 1).repeat_interleave(24, 2)  # 96 x 96
    return affinity_label(label, (8, 8), radius=8), affinity_label(label, (4, 4), radius=4)


def certain(pairs: torch.Tensor) -> torch.Tensor:
    """Return the logits of an affinity that equals the labels of pairs."""
    return CERTAIN * (2 * pairs.float() - 1)


def loss(kind: str, large: torch.Tensor, small: torch.Tensor, **options: bool) -> torch.Tensor:
    """Compute the loss of affinity logits."""
    large_pairs, small_pairs = pure_pairs()
    pooled = pool_pair_logits(large, (8, 8), (4, 4))
    all_valid = torch.ones_like(pooled, dtype=torch.bool)
    return affinity_information_loss(
        kind, (large, large_pairs), (small, small_pairs), pooled, all_valid, **options
    )


def test_equation_12_as_printed_is_always_zero() -> None:
    first, second = torch.rand(2)
    assert second - first - second + first == pytest.approx(0, abs=1e-7)


def test_vd_has_its_minimum_where_both_views_equal_the_label() -> None:
    large_pairs, small_pairs = pure_pairs()
    large, small = certain(large_pairs), certain(small_pairs)
    best = loss("vd", large, small)
    assert best < 1e-4
    for seed in range(5):
        torch.manual_seed(seed)
        noisy = (large_pairs.float() + 0.3 * torch.randn(1, 64, 64)).clamp(0.02, 0.98).logit()
        assert loss("vd", noisy, small) > best
        assert loss("vd", large, torch.randn(1, 16, 16)) > best


def test_vd_has_gradients_for_both_views_with_and_without_its_label_term() -> None:
    for label_term in (True, False):
        large = torch.randn(1, 64, 64, requires_grad=True)
        small = torch.randn(1, 16, 16, requires_grad=True)
        loss("vd", large, small, label_term=label_term).backward()
        assert large.grad is not None
        assert small.grad is not None
        assert large.grad.abs().sum() > 0
        assert small.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [20.0, 200.0])
def test_the_label_term_of_vd_has_its_full_gradient_at_wrong_saturated_logits(size: float) -> None:
    """Attention that is not scaled starts saturated; AFA's log starts so."""
    logits = torch.tensor([[[-size, size], [size, -size]]], requires_grad=True)
    pairs = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.uint8)  # every sign is wrong
    nothing = torch.zeros(1, 1, 1)
    unlabeled = torch.full((1, 1, 1), IGNORE, dtype=torch.uint8)
    affinity_information_loss(
        "vd", (logits, pairs), (nothing, unlabeled), nothing, torch.zeros(1, 1, 1, dtype=torch.bool)
    ).backward()
    # One half for the view, one half for the sign; the mean divides by two pairs plus 1.
    torch.testing.assert_close(logits.grad, torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]]) / 4 / 3)


@pytest.mark.parametrize("size", [20.0, 200.0])
def test_the_divergence_of_vd_has_its_full_gradient_at_saturated_logits(size: float) -> None:
    large = torch.full((1, 64, 64), size, requires_grad=True)
    small = torch.full((1, 16, 16), -size, requires_grad=True)
    loss("vd", large, small, label_term=False).backward()
    # One half of (q - p) = 1, over 16 x 16 pooled pairs, each of 4 x 4 pairs of the crop.
    torch.testing.assert_close(
        large.grad, torch.full((1, 64, 64), 0.5 / 256 / 16), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(small.grad, torch.full((1, 16, 16), -0.5 / 256))


def test_vd_without_label_term_is_zero_only_if_the_views_agree() -> None:
    large = torch.randn(1, 64, 64)
    same = pool_pair_logits(large, (8, 8), (4, 4))
    assert loss("vd", large, same, label_term=False) < 1e-6
    assert loss("vd", large, same.flip(1), label_term=False) > 1e-3


def test_gap_compares_the_information_of_the_views_about_the_label() -> None:
    large_pairs, small_pairs = pure_pairs()
    assert loss("gap", certain(large_pairs), certain(small_pairs)) < 0.05
    assert loss("gap", certain(large_pairs), torch.zeros(1, 16, 16)) > 0.4


def test_cond_rewards_an_uninformative_view() -> None:
    """This is why it is not the default."""
    large_pairs, small_pairs = pure_pairs()
    both_right = loss("cond", certain(large_pairs), certain(small_pairs))
    one_uninformative = loss("cond", certain(large_pairs), torch.zeros(1, 16, 16))
    assert one_uninformative < both_right - 0.3


def test_ignored_pairs_have_no_gradient() -> None:
    large_pairs, small_pairs = pure_pairs()
    none_valid = torch.zeros(1, 16, 16, dtype=torch.bool)
    large = torch.randn(1, 64, 64, requires_grad=True)
    unlabeled = torch.full_like(large_pairs, IGNORE)
    total = affinity_information_loss(
        "vd",
        (large, unlabeled),
        (torch.randn(1, 16, 16), small_pairs),
        large[:, :16, :16],
        none_valid,
    )
    total.backward()
    assert large.grad is not None
    assert large.grad.abs().sum() == 0


@pytest.mark.parametrize("kind", ["gauss", "gauss_full", "kl"])
def test_every_estimator_has_gradients_for_both_contexts(kind: str) -> None:
    x, y = (torch.randn(2, 3, 6, 6, requires_grad=True) for _ in range(2))
    estimate = feature_information(kind, x, y, torch.ones(2, 6, 6), None)
    estimate.value.backward()
    assert estimate.fit is None
    for context in (x, y):
        assert context.grad is not None
        assert torch.isfinite(context.grad).all()
        assert context.grad.abs().sum() > 0


def test_variational_bound_approaches_the_information_of_gaussians() -> None:
    """The information is 0.8304 nats at a correlation of 0.9; the model has detached inputs."""
    torch.manual_seed(0)
    x = torch.randn(4, 1, 32, 32)
    y = (0.9 * x + math.sqrt(1 - 0.81) * torch.randn_like(x)).requires_grad_()
    weight, model = torch.ones(4, 32, 32), ConditionalGaussian(1, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        estimate = feature_information("club", x, y, weight, model)
        assert estimate.fit is not None
        optimizer.zero_grad()
        estimate.fit.backward()
        optimizer.step()
    assert y.grad is None
    estimate.value.backward()
    assert all(value.grad is None or value.grad.abs().sum() >= 0 for value in model.parameters())
    assert y.grad is not None
    assert 0.8 < estimate.value.item() < 6  # an upper bound: (1 - rho^2)^-1 rho^2 = 4.3 here
    assert y.grad.abs().sum() > 0


def test_variational_bound_needs_a_model() -> None:
    with pytest.raises(ValueError, match="needs a model"):
        feature_information("club", *torch.rand(2, 1, 2, 3, 3), torch.ones(1, 3, 3), None)


class SquaredError:
    """A model whose log-density is minus the squared error."""

    def __init__(self) -> None:
        self.gain = torch.ones((), requires_grad=True)

    def log_density(
        self, x: torch.Tensor, y: torch.Tensor, *, frozen: bool = False
    ) -> torch.Tensor:
        gain = self.gain.detach() if frozen else self.gain
        return -gain * (x - y).square().sum(dim=1)


def test_variational_bound_compares_each_position_with_one_of_the_other_half() -> None:
    """Per channel, over positions that are not padding; padding pairs with real positions too."""
    x = torch.randn(2, 3, 2, 2)
    y = x + 0.1 * torch.randn(2, 3, 2, 2)
    weight = torch.ones(2, 2, 2)
    weight[1, 1] = 0
    estimate = feature_information("club", x, y, weight, SquaredError())
    samples = [x.permute(0, 2, 3, 1).reshape(8, 3), y.permute(0, 2, 3, 1).reshape(8, 3)]
    bound = fit = 0.0
    for i in range(6):  # the last two positions are padding
        own = (samples[0][i] - samples[1][i]).square().sum().item()
        other = (samples[0][i] - samples[1][(i + 4) % 8]).square().sum().item()
        bound, fit = bound + (other - own) / 6, fit + own / 6
    assert estimate.fit is not None
    assert estimate.value.item() == pytest.approx(bound / 3, rel=1e-5)
    assert estimate.fit.item() == pytest.approx(fit / 3, rel=1e-5)


def test_fitting_the_model_of_the_variational_bound_moves_neither_context() -> None:
    x, y = (torch.randn(2, 3, 2, 2, requires_grad=True) for _ in range(2))
    model = SquaredError()
    estimate = feature_information("club", x, y, torch.ones(2, 2, 2), model)
    assert estimate.fit is not None
    estimate.fit.backward()
    assert x.grad is None
    assert y.grad is None
    assert model.gain.grad is not None
    assert model.gain.grad > 0
