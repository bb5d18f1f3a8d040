import math

import numpy as np
import pytest
import torch

from tag2mask.methods.recam.losses import class_features, reactivation_loss

TAGS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])


def test_class_features_equal_loops() -> None:
    cam, features = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    pooled = class_features(cam, features)
    for n in range(2):
        for c in range(3):
            mask = np.maximum(cam[n, c].double().numpy(), 0)
            mask = mask / (mask.max() + 1e-5)
            for d in range(6):
                expected = (mask * features[n, d].double().numpy()).mean()
                assert pooled[n, c, d].item() == pytest.approx(expected, abs=1e-6)


def test_class_features_do_not_depend_on_the_scale_of_the_cam() -> None:
    cam, features = torch.rand(1, 2, 4, 4), torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(
        class_features(cam, features), class_features(50 * cam, features), rtol=1e-3, atol=1e-4
    )


def test_class_with_a_negative_cam_has_zero_features() -> None:
    cam = torch.stack([torch.rand(4, 4), -torch.rand(4, 4)])[None].requires_grad_()
    pooled = class_features(cam, torch.rand(1, 3, 4, 4))
    assert pooled[0, 1].abs().max() == 0
    pooled.sum().backward()
    assert cam.grad is not None
    assert torch.isfinite(cam.grad).all()


def test_gradients_of_class_features_equal_finite_differences() -> None:
    cam = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(class_features, (cam, features))


def test_uniform_scores_have_a_loss_of_log_3_per_present_class() -> None:
    logits = torch.zeros(2, 3, 3)
    assert reactivation_loss(logits, TAGS).item() == pytest.approx(3 * math.log(3) / 2)
    assert reactivation_loss(logits, TAGS, "mean").item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_equals_loops(reduction: str) -> None:
    logits = torch.randn(2, 3, 3)
    total = 0.0
    for n in range(2):
        losses = []
        for c in range(3):
            if TAGS[n, c]:
                row = np.exp(logits[n, c].double().numpy())
                losses.append(-math.log(row[c] / row.sum()))
        total += sum(losses) if reduction == "sum" else sum(losses) / len(losses)
    assert reactivation_loss(logits, TAGS, reduction).item() == pytest.approx(total / 2, rel=1e-5)


def test_absent_classes_have_no_gradient() -> None:
    logits = torch.randn(2, 3, 3, requires_grad=True)
    reactivation_loss(logits, TAGS).backward()
    assert logits.grad is not None
    has_gradient = logits.grad.abs().sum(dim=2) > 0
    assert torch.equal(has_gradient, TAGS > 0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_zero_without_tags(reduction: str) -> None:
    assert reactivation_loss(torch.randn(2, 3, 3), torch.zeros(2, 3), reduction) == 0
