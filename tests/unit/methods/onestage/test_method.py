"""The schedule and the switches of 1Stage on a whole small network."""

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
"""After the network's own labels come in, at step 2 of 10."""


def method(**changes: Any) -> OneStage:
    built = small_method("onestage", **{"width": 16} | changes)
    assert isinstance(built, OneStage)
    return built.train()


def losses(step: int = LATE, **changes: Any) -> Mapping[str, Tensor]:
    built = method(**changes)
    torch.manual_seed(1)
    return built.losses(small_batch(), step)


def own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a network that knows nothing yet label every image whole."""

    def quarters(score: Tensor, tags: Tensor, valid: Tensor, **_: float) -> Tensor:
        label = torch.zeros(valid.shape, dtype=torch.int64)
        for row, present in enumerate(tags):
            for place, key in enumerate(present.nonzero()[:, 0].tolist()):
                label[row, 16 * place : 16 * (place + 1)] = key + 1
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
def test_masks_are_learned_from_their_span_on(
    step: int, changes: dict[str, Any], names: set[str]
) -> None:
    assert set(losses(step, **changes)) == names


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": False},
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
def test_every_switch_changes_the_losses(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    own_labels(monkeypatch)
    default, changed = losses(), losses(**changes)
    assert all(torch.isfinite(loss) for loss in changed.values())
    total = sum(loss.item() for loss in default.values())
    assert sum(loss.item() for loss in changed.values()) != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("refine", [True, False])
def test_labels_are_made_of_masks_that_the_refiner_has_seen_at_their_own_size(
    monkeypatch: pytest.MonkeyPatch, refine: bool
) -> None:
    built = method(refine=refine, share=0.5, background_share=0.4, least=0.1)
    seen: list[tuple[torch.Size, torch.Size]] = []

    def noted(image: Tensor, probs: Tensor) -> Tensor:
        seen.append((image.shape, probs.shape))
        return probs.flip(1)

    rules: dict[str, float] = {}

    def rule(score: Tensor, tags: Tensor, valid: Tensor, **kwargs: float) -> Tensor:
        rules.update(kwargs, background=score[:, 0].mean().item())
        assert score.shape == (2, NUM_FOREGROUND + 1, 64, 64)
        return torch.full(valid.shape, 255)

    assert built.refiner is not None
    monkeypatch.setattr(built.refiner, "forward", noted)
    monkeypatch.setattr(module, "self_label", rule)
    masks = torch.tensor([0.4, 0.3, 0.2, 0.1]).view(1, 4, 1, 1).expand(2, 4, 16, 16)
    built._label(small_batch(), masks)
    assert seen == ([(torch.Size([2, 3, 16, 16]), torch.Size([2, 4, 16, 16]))] if refine else [])
    assert rules.pop("background") == pytest.approx(0.1 if refine else 0.4)
    assert rules == {"share": 0.5, "background_share": 0.4, "least": 0.1}


def test_own_labels_carry_no_gradient_and_teach_the_whole_network(
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


def test_labels_need_a_refiner_only_where_they_are_made_and_refined() -> None:
    for changes in ({"refine": False}, {"mask_weight": 0}):
        recipe = small_recipe("onestage", width=16, **changes)
        build_method(recipe.model_copy(update={"refiner": None}))
    with pytest.raises(RecipeError, match="needs a refiner") as caught:
        build_method(small_recipe("onestage").model_copy(update={"refiner": None}))
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_cam_and_scores_of_the_decoder_are_the_same_shares() -> None:
    built, image = method().eval(), torch.rand(2, 3, 64, 48)
    share, logits = built.compute_cam(image).cam, built.segmentation(image)
    assert share.shape == (2, NUM_FOREGROUND, 16, 12)
    assert logits.shape == (2, NUM_FOREGROUND + 1, 16, 12)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1:], share)


def test_the_focal_penalty_lowers_the_score_of_small_masks() -> None:
    built = method(mask_weight=0).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        built.decoder.classifier.bias.copy_(torch.tensor([3.0, -3.0, -3.0]))
        whole = built.compute_cam(image).logits
        built.config = built.config.model_copy(update={"focal": False})
        plain = built.compute_cam(image).logits
    assert (whole - plain)[0, 0] > -0.5
    assert (whole - plain)[0, 1] < -2


def test_monitored_values_tell_how_many_pixels_and_images_teach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_labels(monkeypatch)
    built = method()
    built.losses(small_batch(), LATE)
    assert built.monitor["ignored_pixels"] == 0
    assert built.monitor["complete_photos"] == 1


def test_the_host_never_waits_for_the_device() -> None:
    built, batch = method(), small_batch()
    with NoWaiting():
        sum(built.losses(batch, LATE).values()).backward()
