"""The schedule and the switches of AFA on a whole small network."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import NUM_FOREGROUND, small_batch, small_method, small_recipe
from torch import Tensor

from tag2mask.config.recipe import parse_recipe
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import upsample
from tag2mask.methods import afa as module
from tag2mask.methods.afa import AFA
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.refiners.par import PAR

LATE = 9
"""After the switch to propagated labels at step 3 of 10."""
MIDDLE = 2
"""After warm-up, before that switch."""


def method(**changes: Any) -> AFA:
    built = small_method("afa", **changes)
    assert isinstance(built, AFA)
    return built.train()


def losses(step: int = LATE, **changes: Any) -> Mapping[str, Tensor]:
    return method(**changes).losses(small_batch(), step)


def without_branch(**changes: Any) -> Method:
    """On the convolutional network alone: class activation maps of a CNN."""
    recipe = small_recipe("afa", **changes)
    plain = recipe.backbone.model_copy(update={"blocks": 0})
    return build_method(recipe.model_copy(update={"backbone": plain})).train()


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool, bool]]:
    """(images, side, attention, gradient) of every look of the backbone while the test runs."""
    seen: list[tuple[int, int, bool, bool]] = []
    kind = type(method().backbone)
    forward = kind.forward

    def spy(self: Any, image: Tensor, *, attention: bool = False) -> Any:
        seen.append((len(image), image.shape[-1], attention, torch.is_grad_enabled()))
        return forward(self, image, attention=attention)

    monkeypatch.setattr(kind, "forward", spy)
    return seen


def test_warmup_looks_once_and_computes_classification_alone(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    assert set(losses(0)) == {"classification"}
    assert views == [(2, 64, False, True)]


def test_refined_labels_take_the_mirror_and_both_views_of_other_scales(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    assert set(losses(MIDDLE)) == {"classification", "segmentation", "affinity"}
    label_views = [(2, 64, False, False), (4, 32, False, False), (4, 96, False, False)]
    assert views == [(2, 64, True, True), *label_views]


def test_propagated_labels_capture_pairs_of_the_upright_view_at_the_largest_scale_alone(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    losses(LATE)
    label_views = [(2, 64, False, False), (4, 32, False, False)]
    assert views == [(2, 64, True, True), *label_views, (4, 96, True, False)]


@torch.no_grad()
@pytest.mark.parametrize("refine", ["learned", "mhsa"])
def test_cam_walks_along_the_pairs_of_the_upright_view(refine: str) -> None:
    afa, batch = method(refine=refine).eval(), small_batch()
    image = afa.backbone.normalize(batch.image)
    features = afa.backbone(image, attention=True)
    cam = afa.head(features.maps[-1])[1]
    selected = torch.zeros(2, 1, dtype=torch.int64)
    _, walk = afa._label_maps(image, cam, features, selected, propagates=True)
    alone = afa._walk(afa.backbone(upsample(image, (96, 96)), attention=True))
    assert walk.grid == alone.grid
    torch.testing.assert_close(walk.affinity, alone.affinity, atol=1e-4, rtol=1e-4)


def test_no_pairs_are_captured_where_affinity_is_off(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    assert set(losses(LATE, affinity="off")) == {"classification", "segmentation"}
    assert not any(attention for _, _, attention, _ in views)


@pytest.mark.parametrize(
    ("step", "changes", "made"),
    [
        (1, {}, ["refined"]),
        (MIDDLE, {}, ["refined"]),
        (3, {}, ["propagated", "refined"]),
        (LATE, {"affinity_target": "propagated"}, ["propagated"]),
        (LATE, {"affinity": "loss"}, ["refined"]),
        (LATE, {"affinity": "off"}, ["refined"]),
        (LATE, {"propagate_from": 10}, ["refined"]),
    ],
)
def test_only_labels_that_are_learned_are_made(
    monkeypatch: pytest.MonkeyPatch, step: int, changes: dict[str, Any], made: list[str]
) -> None:
    seen: list[str] = []
    targets: dict[str, Tensor] = {}

    def watched(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(*args: Any, **kwargs: Any) -> Tensor:
            seen.append(name)
            targets[name] = function(*args, **kwargs)
            return targets[name]

        return noted

    monkeypatch.setattr(module, "pseudo_label", watched("refined", module.pseudo_label))
    propagate_cam = watched("propagated", module.propagated_label)
    monkeypatch.setattr(module, "propagated_label", propagate_cam)
    afa = method(**changes)
    learned: list[Tensor] = []
    monkeypatch.setattr(
        module, "segmentation_loss", lambda logits, label: (learned.append(label), logits.sum())[1]
    )
    afa.losses(small_batch(), step)
    assert seen == made
    assert learned[0] is targets[made[0]]


def test_the_walk_keeps_to_the_window_and_the_backgrounds_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def noted(image: Tensor, *_: Any, **kwargs: Any) -> Tensor:
        seen.update(kwargs)
        return torch.zeros(len(image), *image.shape[-2:], dtype=torch.int64)

    monkeypatch.setattr(module, "propagated_label", noted)
    losses(LATE, radius=3, high=0.6, low=0.3)
    assert seen == {"radius": 3, "foreground_threshold": 0.6, "background_threshold": 0.3}


def test_energy_is_computed_only_where_it_is_weighed_and_reaches_the_decoder() -> None:
    assert "energy" not in losses()
    afa = method(energy_weight=0.01)
    found = afa.losses(small_batch(), LATE)
    assert found["energy"] < 0
    found["energy"].backward()
    assert afa.decoder.classifier.weight.grad is not None
    assert afa.decoder.classifier.weight.grad.any()


def test_crops_without_labels_lose_nothing_and_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_ignored(image: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.full((len(image), *image.shape[-2:]), 255)

    monkeypatch.setattr(module, "pseudo_label", all_ignored)
    monkeypatch.setattr(module, "propagated_label", all_ignored)
    afa = method()
    found = afa.losses(small_batch(), LATE)
    assert found["segmentation"] == 0
    assert found["affinity"] == 0
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in afa.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "changes",
    [
        {"radius": 1},  # Table 1
        {"segmentation_weight": 0.2},  # Table 4
        {"affinity_weight": 0.2},
        {"energy_weight": 0.01},
        {"high": 0.65, "low": 0.25},  # Table 5
        {"refine": "mhsa"},  # Figure 3c
        {"affinity": "off"},  # Figure 5
        {"affinity": "loss"},
        {"affinity_target": "propagated"},
        {"pooling": "gap"},
        {"scale_logits": True, "zero_init": True},
        {"label_scales": [1.0]},
        {"decoder_width": 32},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_switch_of_the_tables_changes_the_losses(changes: dict[str, Any]) -> None:
    default, changed = losses(), losses(**changes)
    assert all(torch.isfinite(loss) for loss in changed.values())
    total = sum(loss.item() for loss in default.values())
    assert sum(loss.item() for loss in changed.values()) != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        *({"dilations": (1, 2, 4, 8, 12, 24)[:count]} for count in (3, 4, 5)),  # Table 2
        {"position": False},
        {"iterations": 15},
        {"w1": 0.1, "w2": 0.1},  # Table 3
        {"w3": 0.02},
    ],
    ids=str,
)
def test_every_row_of_the_refinement_tables_is_a_recipe(changes: dict[str, Any]) -> None:
    raw = small_recipe("afa").model_dump(mode="json")
    raw["refiner"] = {"name": "par"} | changes
    refiner = build_method(parse_recipe(raw, "row")).refiner
    assert isinstance(refiner, PAR)
    for key, value in changes.items():
        assert getattr(refiner.config, key) == value


def test_a_bare_off_in_yaml_is_off() -> None:
    assert small_recipe("afa", affinity=False).method.affinity == "off"
    with pytest.raises(RecipeError, match=r"method\.affinity"):
        small_recipe("afa", affinity=True)


def test_pseudo_labels_leave_the_network_in_training_mode_and_without_gradient() -> None:
    afa, batch = method(), small_batch()
    image = afa.backbone.normalize(batch.image)
    features = afa.backbone(image, attention=True)
    cam = afa.head(features.maps[-1])[1]
    for label in afa._labels(batch, image, cam.detach(), features, propagates=True):
        assert not label.requires_grad
        assert (label[1, :, :16] == 255).all()  # padding
        assert set(label.unique().tolist()) <= {0, 1, 2, 255}
    assert afa.backbone.training


def test_labels_teach_the_decoder_and_pairs_the_affinity_head() -> None:
    afa = method()
    found = afa.losses(small_batch(), MIDDLE)
    found["segmentation"].backward(retain_graph=True)
    assert afa.affinity is not None
    assert afa.affinity.weight.grad is None
    assert afa.decoder.classifier.weight.grad is not None
    assert afa.decoder.classifier.weight.grad.any()
    afa.zero_grad()
    found["affinity"].backward()
    assert afa.affinity.weight.grad.any()
    assert afa.decoder.classifier.weight.grad is None


@torch.no_grad()
def test_the_decoder_scores_all_classes_and_background() -> None:
    afa, image = method().eval(), torch.rand(2, 3, 40, 64)
    logits = afa.segmentation(image)
    assert afa.has_decoder
    assert logits.shape == (2, NUM_FOREGROUND + 1, 10, 16)


@torch.no_grad()
def test_maps_hold_attention_and_the_affinity_that_cam_spreads_along() -> None:
    image = torch.rand(1, 3, 48, 64)
    maps = method().eval().attention_maps(image)
    torch.testing.assert_close(maps["attention"].sum(dim=2), torch.ones(1, 12))
    coarse = method(refine="mhsa", affinity="off").eval().attention_maps(image)
    assert coarse["affinity"].diagonal(dim1=1, dim2=2).max() <= 1
    assert not torch.allclose(coarse["affinity"], maps["affinity"])
    assert set(method(affinity="off").eval().attention_maps(image)) == {"attention"}


def test_a_cnn_without_attention_trains_with_the_affinity_off() -> None:
    cnn = without_branch(affinity="off")
    assert set(cnn.losses(small_batch(), LATE)) == {"classification", "segmentation"}
    assert cnn.attention_maps(torch.rand(1, 3, 64, 64)) == {}


@pytest.mark.parametrize("changes", [{}, {"affinity": "off", "refine": "mhsa"}])
def test_affinity_without_attention_is_rejected_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="needs a backbone with attention") as caught:
        without_branch(**changes)
    assert "\n" not in str(caught.value)


def test_afa_without_a_refiner_is_rejected_in_one_line() -> None:
    with pytest.raises(RecipeError, match="needs a refiner"):
        build_method(small_recipe("afa").model_copy(update={"refiner": None}))


def test_bf16_label_maps_give_nearly_the_same_labels() -> None:
    """At random weights; benchmarks/step.py reports the agreement on MiT-B1."""
    batch, labels = small_batch(), []
    for precision in ("fp32", "bf16"):
        afa = method(label_precision=precision).eval()
        image = afa.backbone.normalize(batch.image)
        with torch.no_grad():
            features = afa.backbone(image, attention=True)
            cam = afa.head(features.maps[-1])[1]
            labels.append(afa._labels(batch, image, cam, features, propagates=True))
    for full, half in zip(*labels, strict=True):
        assert (full == half).float().mean() > 0.97
