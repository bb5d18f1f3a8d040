"""The two halves of RRM's training on a small network: what is looked at, learned and left out."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import NUM_FOREGROUND, small_batch, small_recipe
from torch import Tensor

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.errors import RecipeError
from tag2mask.methods.build import build_method
from tag2mask.methods.rrm import method as module
from tag2mask.methods.rrm.method import RRM

LATE = 5
"""The first step of the second half of 10."""


def tiny(**changes: Any) -> Recipe:
    raw = small_recipe("rrm", **({"decoder_width": 16} | changes)).plain()
    return parse_recipe(raw | {"backbone": {"name": "tiny", "width": 8}}, "tiny recipe")


def rrm(**changes: Any) -> RRM:
    torch.manual_seed(0)
    built = build_method(tiny(**changes))
    assert isinstance(built, RRM)
    return built.train()


def with_label(monkeypatch: pytest.MonkeyPatch, label: Tensor) -> dict[str, Any]:
    """Let `label` be what is reliable; returns what it was asked with."""
    asked: dict[str, Any] = {}

    def given(*_: Any, **kwargs: Any) -> Tensor:
        asked.update(kwargs)
        return label

    monkeypatch.setattr(module, "reliable_label", given)
    return asked


def late_losses(**changes: Any) -> Mapping[str, Tensor]:
    return rrm(**changes).losses(small_batch(), LATE)


def test_the_first_half_learns_the_tags_alone_and_looks_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = rrm()
    views: list[tuple[int, int]] = []
    method.backbone.register_forward_hook(
        lambda _, given, __: views.append((len(given[0]), given[0].shape[-1]))
    )
    with_label(monkeypatch, torch.zeros(2, 64, 64, dtype=torch.int64))
    assert set(method.losses(small_batch(), LATE - 1)) == {"classification"}
    assert views == [(2, 64)]
    views.clear()
    losses = method.losses(small_batch(), LATE)
    assert set(losses) == {"classification", "segmentation", "energy"}
    assert views == [(2, 64), (2, 32), (2, 96), (2, 128)]  # scale 1 is not looked at again


def test_the_decoder_learns_both_cross_entropies_as_means_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label = torch.full((2, 64, 64), 255)
    label[0, :10], label[1, :, :3], label[1, 20:] = 0, 2, 1
    with_label(monkeypatch, label)
    method, batch = rrm(), small_batch()
    logits = method.segmentation(method.backbone.normalize(batch.image))
    large = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    cost = -large.log_softmax(dim=1)
    background = cost[:, 0][label == 0].mean()
    foreground = torch.cat([cost[:, k][label == k] for k in (1, 2)]).mean()
    found = method.losses(batch, LATE)["segmentation"]
    torch.testing.assert_close(found, background + foreground, rtol=1e-4, atol=1e-5)


def test_crops_without_reliable_pixels_cost_nothing_and_gradients_stay_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_label(monkeypatch, torch.full((2, 64, 64), 255))
    method = rrm()
    losses = method.losses(small_batch(), LATE)
    assert losses["segmentation"] == 0
    assert method.monitor["ignored_pixels"] == 1
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_energy_of_pixels_without_label_reaches_the_decoder_and_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_label(monkeypatch, torch.full((2, 64, 64), 255))
    assert "energy" not in late_losses(energy_weight=0)
    method = rrm()
    energy = method.losses(small_batch(), LATE)["energy"]
    assert energy < 0
    energy.backward()
    gradient = method.decoder[-1].weight.grad
    assert isinstance(gradient, Tensor)
    assert gradient.any()
    assert method.head.classifier.weight.grad is None


def test_labels_teach_the_decoder_and_the_backbone_but_not_the_classifier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_label(monkeypatch, torch.zeros(2, 64, 64, dtype=torch.int64))
    method = rrm()
    method.losses(small_batch(), LATE)["segmentation"].backward()
    first = next(method.backbone.parameters()).grad
    assert first is not None
    assert first.any()
    assert method.head.classifier.weight.grad is None


def test_the_rule_of_the_recipe_is_the_rule_that_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = with_label(monkeypatch, torch.zeros(2, 64, 64, dtype=torch.int64))
    late_losses(alpha_high=2, alpha_low=16, confidence=0.7, share=0.3, background=0.6)
    assert asked == {
        "alphas": (2, 16),
        "confidence": 0.7,
        "share": 0.3,
        "background": 0.6,
    }


def test_labels_hold_present_classes_only_and_leave_the_network_in_training_mode() -> None:
    method = rrm(confidence=0.0, share=1.0, background=0.0)
    batch = small_batch()
    image = method.backbone.normalize(batch.image)
    cam = method.compute_cam(image).cam
    label = method._label(batch, image, cam.detach())
    assert (label[1, :, :16] == 255).all()  # padding
    assert set(label[0].unique().tolist()) <= {0, 1, 2, 255}
    assert set(label[1].unique().tolist()) <= {0, 2, 255}
    assert (label != 255).any()
    assert method.backbone.training
    assert all(part.training for part in method.backbone.modules())


def test_a_dense_crf_makes_labels_of_images_at_their_own_size() -> None:
    raw = tiny().plain() | {"refiner": {"name": "dense_crf", "iterations": 2}}
    method = build_method(parse_recipe(raw, "with a CRF")).train()
    losses = method.losses(small_batch(), LATE)
    assert all(torch.isfinite(loss) for loss in losses.values())


@torch.no_grad()
def test_the_decoder_scores_all_classes_and_background() -> None:
    method, image = rrm().eval(), torch.rand(2, 3, 40, 64)
    assert method.has_decoder
    assert method.segmentation(image).shape == (2, NUM_FOREGROUND + 1, 5, 8)


def test_rrm_without_a_refiner_is_rejected_in_one_line() -> None:
    with pytest.raises(RecipeError, match="needs a refiner") as caught:
        build_method(tiny().model_copy(update={"refiner": None}))
    assert "\n" not in str(caught.value)
