import numpy as np
import pytest
import torch
from tests.reference import seam_oracle
from torch import Tensor

from tag2mask.methods.seam.correlation import correlate, correlation_input


def case(size: tuple[int, int] = (4, 5), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return scores of three classes and signed features of six channels for two images."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(2, 3, *size, generator=generator)
    return score, torch.randn(2, 6, *size, generator=generator)


def correlate_densely(score: Tensor, features: Tensor) -> Tensor:
    """Compute the same with the matrix of all pairs."""
    flat = features.flatten(2)
    unit = flat / (flat.norm(dim=1, keepdim=True) + 1e-5)
    pairs = (unit.transpose(1, 2) @ unit).relu()
    pairs = pairs / (pairs.sum(dim=1, keepdim=True) + 1e-5)
    return (score.flatten(2) @ pairs).view(score.shape)


def test_correlate_equals_loops() -> None:
    score, features = case()
    expected = np.stack(
        [
            seam_oracle.correlated(one.reshape(3, -1), other.reshape(6, -1)).reshape(3, 4, 5)
            for one, other in zip(score.double().numpy(), features.double().numpy(), strict=True)
        ]
    )
    np.testing.assert_allclose(correlate(score, features).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("columns", [1, 3, 20, 1024])
def test_slices_equal_the_dense_matrix_in_both_passes(columns: int) -> None:
    score, features = case()
    weight = torch.rand(score.shape, generator=torch.Generator().manual_seed(9))
    sliced, plain = features.clone().requires_grad_(), features.clone().requires_grad_()
    actual, expected = correlate(score, sliced, columns), correlate_densely(score, plain)
    torch.testing.assert_close(actual, expected)
    (actual * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(sliced.grad, plain.grad)


def test_scores_have_no_gradient() -> None:
    score, features = case()
    score.requires_grad_()
    correlate(score, features.requires_grad_()).sum().backward()
    assert score.grad is None
    assert features.grad is not None


def test_no_matrix_of_all_pairs_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[torch.Size] = []
    product = torch.bmm

    def recorded(left: Tensor, right: Tensor) -> Tensor:
        sizes.append(torch.Size([left.shape[1], right.shape[2]]))
        return product(left, right)

    monkeypatch.setattr(torch, "bmm", recorded)
    score, features = case((8, 8))
    correlate(score, features.requires_grad_(), columns=16).square().sum().backward()
    assert len(sizes) == 4 + 2 * 4
    assert set(sizes) == {torch.Size([64, 16])}


def test_pixel_that_differs_from_all_others_keeps_its_score() -> None:
    score = torch.tensor([[[[0.9, 0.1, 0.3]]]])
    features = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 2.0]]]])
    actual = correlate(score, features)
    torch.testing.assert_close(actual, torch.tensor([[[[0.9, 0.2, 0.2]]]]), atol=1e-4, rtol=0)


def test_zero_features_give_zero_and_finite_gradients() -> None:
    score, features = torch.rand(1, 2, 2, 2), torch.zeros(1, 3, 2, 2, requires_grad=True)
    actual = correlate(score, features)
    actual.sum().backward()
    assert not actual.any()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_correlation_input_equals_loops_and_has_no_gradient() -> None:
    cam = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    cam[0, 1] = -cam[0, 1].abs()  # a class without positive activations
    actual = correlation_input(cam.requires_grad_())
    expected = np.stack([seam_oracle.correlation_input(one) for one in cam.detach().numpy()])
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-12)
    assert not actual.requires_grad
