import torch

from tag2mask.methods.rml.club import ConditionalGaussian


def test_log_density_is_highest_at_the_predicted_mean() -> None:
    model, x = ConditionalGaussian(3), torch.randn(7, 3)
    at_mean = model.log_density(x, model.mean(x))
    assert at_mean.shape == (7,)
    assert (at_mean > model.log_density(x, model.mean(x) + 0.5)).all()


def test_frozen_density_has_the_same_value_and_no_weight_gradients() -> None:
    model, x = ConditionalGaussian(3), torch.randn(7, 3, requires_grad=True)
    y = torch.randn(7, 3)
    frozen = model.log_density(x, y, frozen=True)
    torch.testing.assert_close(frozen, model.log_density(x, y))
    frozen.sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in model.parameters())
