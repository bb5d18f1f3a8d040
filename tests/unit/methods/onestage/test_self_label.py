import numpy as np
import pytest
import torch
from tests.reference import onestage_oracle
from torch import Tensor

from tag2mask.methods.onestage.self_label import (
    balanced_label_loss,
    class_weights,
    is_complete,
    pixel_counts,
    self_label,
)

IGNORE = 255
TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def case() -> tuple[Tensor, Tensor]:
    """Return probabilities of four classes for two images, and the mask of valid pixels."""
    generator = torch.Generator().manual_seed(0)
    score = (3 * torch.randn(2, 4, 6, 7, generator=generator)).softmax(dim=1)
    valid = torch.ones(2, 6, 7, dtype=torch.bool)
    valid[1, :, :2] = False
    return score, valid


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share": 0.3},
        {"background_share": 0.2},
        {"min_score": 0.8},
        {"share": 0.0, "min_score": 0.0},
    ],
    ids=str,
)
def test_self_label_equals_loops(changes: dict[str, float]) -> None:
    score, valid = case()
    expected = [
        onestage_oracle.label(*one, **changes)
        for one in zip(score.numpy(), TAGS.numpy(), valid.numpy(), strict=True)
    ]
    label = self_label(score, TAGS, valid, **changes)
    np.testing.assert_array_equal(label.numpy(), np.stack(expected))


def test_each_rule_ignores_its_pixels() -> None:
    """Columns: confident background, confident class, both, neither, absent class, padding."""
    score = torch.tensor(
        [[[0.9, 0.1, 0.7, 0.5, 0.0, 0.0]], [[0.1, 0.8, 0.6, 0.4, 0.0, 1.0]], [[0, 0, 0, 0, 1, 0]]]
    )
    valid = torch.tensor([[[True, True, True, True, True, False]]])
    label = self_label(score[None], torch.tensor([[1.0, 0.0]]), valid)
    assert label[0, 0].tolist() == [0, 1, IGNORE, IGNORE, IGNORE, IGNORE]


def test_self_label_has_no_gradient() -> None:
    score, valid = case()
    assert not self_label(score.requires_grad_(), TAGS, valid).requires_grad


def test_rare_classes_have_larger_weights() -> None:
    label = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1, 2, IGNORE]]])
    count = pixel_counts(label, 4)
    assert count.tolist() == [[6, 2, 1, 0]]
    torch.testing.assert_close(class_weights(count), torch.tensor([[0.3, 0.7, 0.8, 0.9]]))
    np.testing.assert_allclose(class_weights(count)[0], onestage_oracle.weights([6, 2, 1, 0]))


def test_image_is_complete_with_background_and_all_its_tags() -> None:
    count = torch.tensor([[3.0, 1.0, 0.0], [3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    assert is_complete(count, torch.tensor([[1.0, 0.0]] * 3)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("incomplete", [False, True])
def test_loss_equals_loops(incomplete: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    label = torch.tensor([0, 1, 3, IGNORE])[torch.randint(0, 4, (2, 5, 6), generator=generator)]
    label[1] = torch.where(label[1] == 0, 0, 2)
    if incomplete:
        label[0][label[0] == 3] = IGNORE
    expected = onestage_oracle.loss(logits.numpy(), label.numpy(), TAGS.numpy())
    assert balanced_label_loss(logits, label, TAGS).item() == pytest.approx(expected, rel=1e-6)


def test_incomplete_images_and_ignored_pixels_have_no_gradient() -> None:
    logits = torch.randn(2, 4, 2, 3, requires_grad=True)
    label = torch.tensor([[[0, 0, 1], [1, 1, 0]], [[0, 0, 2], [2, IGNORE, IGNORE]]])
    balanced_label_loss(logits, label, TAGS).backward()  # class 3 of the first image is missing
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert not logits.grad[1, :, 1, 1:].any()
    assert logits.grad[1, :, 0].all()


def test_loss_is_zero_without_labels() -> None:
    logits = torch.randn(2, 4, 2, 3, requires_grad=True)
    loss = balanced_label_loss(logits, torch.full((2, 2, 3), IGNORE), TAGS)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()
