"""Schedule and options of 1Stage on a small network."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.conformance.no_waiting import NoWaiting
from tests.conformance.stand_ins import NUM_FOREGROUND, small_batch, small_method, small_recipe
from torch import Tensor

from tag2mask.errors import RecipeError
from tag2mask.methods.build import build_method
from tag2mask.methods.onestage import method as module
from tag2mask.methods.onestage.method import OneStage

LATE = 9
"""A step at which the network already learns its own labels (from step 2 of 10)."""


def method(**changes: Any) -> OneStage:
    built = small_method("onestage", **{"width": 16} | changes)
    assert isinstance(built, OneStage)
    return built.train()


def losses(step: int = LATE, **changes: Any) -> Mapping[str, Tensor]:
    built = method(**changes)
    torch.manual_seed(1)
    return built.losses(small_batch(), step)


def own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an untrained network label every pixel."""

    def quarters(score: Tensor, tags: Tensor, valid: Tensor, **_: float) -> Tensor:
        label = torch.zeros(valid.shape, dtype=torch.int64)
        for row, present in enumerate(tags):
            for part, class_index in enumerate(present.nonzero()[:, 0].tolist()):
                label[row, 16 * part : 16 * (part + 1)] = class_index + 1
        return label

    monkeypatch.setattr(module, "self_label", quarters)


@pytest.mark.parametrize(
    ("step", "changes", "names"),
    [
        (1, {}, {"classification"}),
        (2, {}, {"classification", "mask"}),
        (LATE, {"mask_weight": 0}, {"classification"}),
        (5, {"mask_from": 6}, {"classification"}),
        (6, {"mask_from": 6}, {"classification", "mask"}),
    ],
)
def test_masks_are_learned_from_mask_from_on(
    step: int, changes: dict[str, Any], names: set[str]
) -> None:
    assert set(losses(step, **changes)) == names


@pytest.mark.parametrize(
    "changes",
    [
        {"stochastic_gate": False},
        {"psi": 0.6},
        {"focal": False},
        {"focal_power": 1.0},
        {"focal_floor": 0.1},
        {"mask_weight": 0},
        {"mask_weight": 0.5},
        {"shallow": 2},
        {"width": 24},
        {"dilations": [1, 2]},
    ],
    ids=str,
)
def test_every_option_changes_the_losses(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    own_labels(monkeypatch)
    default, changed = losses(), losses(**changes)
    assert all(torch.isfinite(loss) for loss in changed.values())
    total = sum(loss.item() for loss in default.values())
    assert sum(loss.item() for loss in changed.values()) != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("refine", [True, False])
def test_labels_are_made_from_masks_refined_at_their_own_size(
    monkeypatch: pytest.MonkeyPatch, refine: bool
) -> None:
    built = method(
        refine=refine,
        foreground_peak_fraction=0.5,
        background_peak_fraction=0.4,
        min_score=0.1,
    )
    shapes: list[tuple[torch.Size, torch.Size]] = []

    def recorded(image: Tensor, probs: Tensor) -> Tensor:
        shapes.append((image.shape, probs.shape))
        return probs.flip(1)

    settings: dict[str, float] = {}

    def recorded_label(score: Tensor, tags: Tensor, valid: Tensor, **kwargs: float) -> Tensor:
        settings.update(kwargs, background=score[:, 0].mean().item())
        assert score.shape == (2, NUM_FOREGROUND + 1, 64, 64)
        return torch.full(valid.shape, 255)

    assert built.refiner is not None
    monkeypatch.setattr(built.refiner, "forward", recorded)
    monkeypatch.setattr(module, "self_label", recorded_label)
    masks = torch.tensor([0.4, 0.3, 0.2, 0.1]).view(1, 4, 1, 1).expand(2, 4, 16, 16)
    built._label(small_batch(), masks)
    expected = [(torch.Size([2, 3, 16, 16]), torch.Size([2, 4, 16, 16]))] if refine else []
    assert shapes == expected
    assert settings.pop("background") == pytest.approx(0.1 if refine else 0.4)
    assert settings == {"share": 0.5, "background_share": 0.4, "min_score": 0.1}


def test_own_labels_have_no_gradient_and_train_the_complete_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, batch = method(), small_batch()
    masks = torch.rand(2, 4, 16, 16).softmax(dim=1).requires_grad_()
    label = built._label(batch, masks)
    assert not label.requires_grad
    assert (label[1, :, :16] == 255).all()  # padding
    own_labels(monkeypatch)
    built.losses(batch, LATE)["mask"].backward()
    parts = {n.split(".")[0] for n, p in built.named_parameters() if p.grad is not None}
    assert parts == {"backbone", "decoder"}


def test_a_refiner_is_needed_only_if_labels_are_refined() -> None:
    for changes in ({"refine": False}, {"mask_weight": 0}):
        recipe = small_recipe("onestage", width=16, **changes)
        build_method(recipe.model_copy(update={"refiner": None}))
    with pytest.raises(RecipeError, match="needs a refiner") as caught:
        build_method(small_recipe("onestage").model_copy(update={"refiner": None}))
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_the_cam_is_the_softmax_of_the_decoder_scores() -> None:
    built, image = method().eval(), torch.rand(2, 3, 64, 48)
    cam, logits = built.compute_cam(image).cam, built.segmentation(image)
    assert cam.shape == (2, NUM_FOREGROUND, 16, 12)
    assert logits.shape == (2, NUM_FOREGROUND + 1, 16, 12)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1:], cam)


def test_the_focal_penalty_lowers_the_logits_of_small_masks() -> None:
    built = method(mask_weight=0).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        built.decoder.classifier.bias.copy_(torch.tensor([3.0, -3.0, -3.0]))
        penalized = built.compute_cam(image).logits
        built.config = built.config.model_copy(update={"focal": False})
        plain = built.compute_cam(image).logits
    assert (penalized - plain)[0, 0] > -0.5
    assert (penalized - plain)[0, 1] < -2


def test_the_monitor_counts_ignored_pixels_and_complete_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_labels(monkeypatch)
    built = method()
    built.losses(small_batch(), LATE)
    assert built.monitor["ignored_pixels"] == 0
    assert built.monitor["complete_images"] == 1


def test_a_step_does_not_wait_for_the_device() -> None:
    built, batch = method(), small_batch()
    with NoWaiting():
        sum(built.losses(batch, LATE).values()).backward()
