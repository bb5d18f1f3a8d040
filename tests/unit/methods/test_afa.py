"""Schedule and options of AFA on a small network."""

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
    """Return AFA on the convolutional part of the backbone, which has no attention."""
    recipe = small_recipe("afa", **changes)
    plain = recipe.backbone.model_copy(update={"blocks": 0})
    return build_method(recipe.model_copy(update={"backbone": plain})).train()


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool, bool]]:
    """Record (images, side, attention, gradient) of every pass of the backbone."""
    passes: list[tuple[int, int, bool, bool]] = []
    kind = type(method().backbone)
    forward = kind.forward

    def spy(self: Any, image: Tensor, *, attention: bool = False) -> Any:
        passes.append((len(image), image.shape[-1], attention, torch.is_grad_enabled()))
        return forward(self, image, attention=attention)

    monkeypatch.setattr(kind, "forward", spy)
    return passes


def test_warmup_runs_one_pass_and_computes_only_the_classification(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    assert set(losses(0)) == {"classification"}
    assert views == [(2, 64, False, True)]


def test_refined_labels_use_flips_and_other_scales(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    assert set(losses(MIDDLE)) == {"classification", "segmentation", "affinity"}
    label_views = [(2, 64, False, False), (4, 32, False, False), (4, 96, False, False)]
    assert views == [(2, 64, True, True), *label_views]


def test_propagated_labels_take_attention_only_from_the_largest_scale(
    views: list[tuple[int, int, bool, bool]],
) -> None:
    losses(LATE)
    label_views = [(2, 64, False, False), (4, 32, False, False)]
    assert views == [(2, 64, True, True), *label_views, (4, 96, True, False)]


@torch.no_grad()
@pytest.mark.parametrize("refine", ["learned", "mhsa"])
def test_the_propagation_affinity_is_that_of_the_unflipped_view(refine: str) -> None:
    afa, batch = method(refine=refine).eval(), small_batch()
    image = afa.backbone.normalize(batch.image)
    features = afa.backbone(image, attention=True)
    cam = afa.head(features.maps[-1])[1]
    selected = torch.zeros(2, 1, dtype=torch.int64)
    _, affinity = afa._label_cam(image, cam, features, selected, propagates=True)
    unflipped = afa.backbone(upsample(image, (96, 96)), attention=True)
    expected = afa._propagation_affinity(unflipped)
    assert affinity.grid == expected.grid
    torch.testing.assert_close(affinity.affinity, expected.affinity, atol=1e-4, rtol=1e-4)


def test_no_attention_is_computed_when_affinity_is_off(
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
def test_only_labels_that_train_something_are_made(
    monkeypatch: pytest.MonkeyPatch, step: int, changes: dict[str, Any], made: list[str]
) -> None:
    called: list[str] = []
    targets: dict[str, Tensor] = {}

    def recording(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            called.append(name)
            targets[name] = function(*args, **kwargs)
            return targets[name]

        return recorded

    monkeypatch.setattr(module, "pseudo_label", recording("refined", module.pseudo_label))
    propagated_label = recording("propagated", module.propagated_label)
    monkeypatch.setattr(module, "propagated_label", propagated_label)
    afa = method(**changes)
    learned: list[Tensor] = []
    monkeypatch.setattr(
        module, "segmentation_loss", lambda logits, label: (learned.append(label), logits.sum())[1]
    )
    afa.losses(small_batch(), step)
    assert called == made
    assert learned[0] is targets[made[0]]


def test_propagated_labels_use_the_radius_and_thresholds_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[str, Any] = {}

    def recorded(image: Tensor, *_: Any, **kwargs: Any) -> Tensor:
        settings.update(kwargs)
        return torch.zeros(len(image), *image.shape[-2:], dtype=torch.int64)

    monkeypatch.setattr(module, "propagated_label", recorded)
    losses(LATE, radius=3, foreground_threshold=0.6, background_threshold=0.3)
    assert settings == {"radius": 3, "foreground_threshold": 0.6, "background_threshold": 0.3}


def test_a_weighted_dense_energy_reaches_the_decoder() -> None:
    assert "energy" not in losses()
    afa = method(energy_weight=0.01)
    values = afa.losses(small_batch(), LATE)
    assert values["energy"] < 0
    values["energy"].backward()
    assert afa.decoder.classifier.weight.grad is not None
    assert afa.decoder.classifier.weight.grad.any()


def test_crops_without_labels_have_zero_loss_and_finite_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_ignored(image: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.full((len(image), *image.shape[-2:]), 255)

    monkeypatch.setattr(module, "pseudo_label", all_ignored)
    monkeypatch.setattr(module, "propagated_label", all_ignored)
    afa = method()
    values = afa.losses(small_batch(), LATE)
    assert values["segmentation"] == 0
    assert values["affinity"] == 0
    sum(values.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in afa.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "changes",
    [
        {"radius": 1},  # Table 1
        {"segmentation_weight": 0.2},  # Table 4
        {"affinity_weight": 0.2},
        {"energy_weight": 0.01},
        {"foreground_threshold": 0.65, "background_threshold": 0.25},  # Table 5
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
def test_every_option_of_the_papers_tables_changes_the_losses(changes: dict[str, Any]) -> None:
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
def test_every_row_of_the_refinement_tables_can_be_configured(changes: dict[str, Any]) -> None:
    raw = small_recipe("afa").model_dump(mode="json")
    raw["refiner"] = {"name": "par"} | changes
    refiner = build_method(parse_recipe(raw, "row")).refiner
    assert isinstance(refiner, PAR)
    for key, value in changes.items():
        assert getattr(refiner.config, key) == value


def test_a_bare_off_in_yaml_means_off() -> None:
    assert small_recipe("afa", affinity=False).method.affinity == "off"
    with pytest.raises(RecipeError, match=r"method\.affinity"):
        small_recipe("afa", affinity=True)


def test_making_pseudo_labels_keeps_training_mode_and_needs_no_gradient() -> None:
    afa, batch = method(), small_batch()
    image = afa.backbone.normalize(batch.image)
    features = afa.backbone(image, attention=True)
    cam = afa.head(features.maps[-1])[1]
    for label in afa._labels(batch, image, cam.detach(), features, propagates=True):
        assert not label.requires_grad
        assert (label[1, :, :16] == 255).all()  # padding
        assert set(label.unique().tolist()) <= {0, 1, 2, 255}
    assert afa.backbone.training


def test_the_segmentation_loss_trains_the_decoder_and_the_affinity_loss_its_head() -> None:
    afa = method()
    values = afa.losses(small_batch(), MIDDLE)
    values["segmentation"].backward(retain_graph=True)
    assert afa.affinity is not None
    assert afa.affinity.weight.grad is None
    assert afa.decoder.classifier.weight.grad is not None
    assert afa.decoder.classifier.weight.grad.any()
    afa.zero_grad()
    values["affinity"].backward()
    assert afa.affinity.weight.grad.any()
    assert afa.decoder.classifier.weight.grad is None


@torch.no_grad()
def test_the_decoder_scores_all_classes_and_background() -> None:
    afa, image = method().eval(), torch.rand(2, 3, 40, 64)
    logits = afa.segmentation(image)
    assert afa.has_decoder
    assert logits.shape == (2, NUM_FOREGROUND + 1, 10, 16)


@torch.no_grad()
def test_attention_maps_contain_attention_and_the_propagation_affinity() -> None:
    image = torch.rand(1, 3, 48, 64)
    maps = method().eval().attention_maps(image)
    torch.testing.assert_close(maps["attention"].sum(dim=2), torch.ones(1, 12))
    coarse = method(refine="mhsa", affinity="off").eval().attention_maps(image)
    assert coarse["affinity"].diagonal(dim1=1, dim2=2).max() <= 1
    assert not torch.allclose(coarse["affinity"], maps["affinity"])
    assert set(method(affinity="off").eval().attention_maps(image)) == {"attention"}


def test_a_backbone_without_attention_trains_with_affinity_off() -> None:
    cnn = without_branch(affinity="off")
    assert set(cnn.losses(small_batch(), LATE)) == {"classification", "segmentation"}
    assert cnn.attention_maps(torch.rand(1, 3, 64, 64)) == {}


@pytest.mark.parametrize("changes", [{}, {"affinity": "off", "refine": "mhsa"}])
def test_affinity_without_attention_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="needs a backbone with attention") as caught:
        without_branch(**changes)
    assert "\n" not in str(caught.value)


def test_afa_without_a_refiner_is_rejected() -> None:
    with pytest.raises(RecipeError, match="needs a refiner"):
        build_method(small_recipe("afa").model_copy(update={"refiner": None}))


def test_bf16_gives_nearly_the_same_labels() -> None:
    """Random weights; benchmarks/step.py reports the agreement on MiT-B1."""
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
