"""RML on a small network, with the tests that Specification R1 to R20 name."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method, small_recipe
from torch import Tensor

from tag2mask.errors import RecipeError
from tag2mask.methods.build import build_method
from tag2mask.methods.rml.method import RML

LATE = 9


def method(**changes: Any) -> RML:
    built = small_method("rml", **changes)
    assert isinstance(built, RML)
    return built.train()


def losses(**changes: Any) -> Mapping[str, Tensor]:
    return method(**changes).losses(small_batch(), LATE)


def test_warmup_runs_one_pass_and_computes_only_the_classification() -> None:
    rml = method(warmup=5)
    passes = []
    rml.backbone.register_forward_hook(lambda *_: passes.append(1))
    assert set(rml.losses(small_batch(), 4)) == {"classification"}
    assert len(passes) == 1
    assert set(rml.losses(small_batch(), 5)) == {"classification", "ciml", "mfml", "apml"}


@pytest.mark.parametrize("name", ["ciml", "mfml", "apml"])
def test_a_weight_of_zero_switches_a_loss_off(name: str) -> None:
    assert set(losses(**{name: 0})) == {"classification", "ciml", "mfml", "apml"} - {name}


def test_without_its_three_losses_rml_equals_the_cam_baseline() -> None:
    rml, baseline = method(ciml=0, mfml=0, apml=0), small_method("cam", pooling="gmp").train()
    torch.testing.assert_close(
        rml.losses(small_batch(), LATE)["classification"],
        baseline.losses(small_batch(), LATE)["classification"],
    )


def test_the_cam_level_loss_reaches_the_encoder() -> None:
    rml = method()
    rml.losses(small_batch(), LATE)["ciml"].backward()
    total = sum(p.grad.abs().sum() for p in rml.backbone.parameters() if p.grad is not None)
    assert total > 0


def test_the_feature_level_loss_trains_the_neck() -> None:
    rml = method()
    assert rml.neck is not None
    rml.losses(small_batch(), LATE)["mfml"].backward()
    assert rml.neck.conv.weight.grad is not None
    assert rml.neck.conv.weight.grad.abs().sum() > 0
    groups = {group.name: group.parameters for group in rml.parameter_groups()}
    assert any(p is rml.neck.conv.weight for p in groups["head"])


def test_absent_classes_do_not_change_the_equivariance_loss() -> None:
    rml, batch = method(alpha=0), small_batch()
    before = rml.losses(batch, LATE)["ciml"].item()
    with torch.no_grad():
        rml.head.classifier.weight[2].normal_()  # no image of the batch shows class 2
    assert rml.losses(batch, LATE)["ciml"].item() == pytest.approx(before, rel=1e-5)
    all_classes = method(alpha=0, equivariance="all")
    assert all_classes.losses(batch, LATE)["ciml"].item() != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"prototype": "cam_grid"},
        {"fusion": False},
        {"information": "gauss_full"},
        {"information": "club"},
        {"information": "kl"},
        {"information": "released"},
        {"information": "off"},
        {"affinity_information": "gap"},
        {"affinity_information": "cond"},
        {"affinity_information": "off"},
        {"vd_label": False},
        {"affinity_loss": False},
        {"small_affinity": 0.5},
        {"classify_both": True},
        {"neck_width": 64},
        {"antialias": True},
        {"scale_logits": True, "zero_init": True},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_option_of_the_ablations_changes_the_losses(changes: dict[str, Any]) -> None:
    default, changed = losses(), losses(**changes)
    assert all(torch.isfinite(loss) for loss in changed.values())
    total = sum(loss.item() for loss in default.values())
    assert sum(loss.item() for loss in changed.values()) != pytest.approx(total, rel=1e-7)


def test_the_fit_loss_trains_only_the_inner_model_of_club() -> None:
    rml = method(information="club")
    assert rml.club is not None
    values = rml.losses(small_batch(), LATE)
    values["mfml"].backward(retain_graph=True)
    assert all(p.grad is None for p in rml.club.parameters())
    rml.zero_grad()
    values["club_fit"].backward()
    reached = {name for name, p in rml.named_parameters() if p.grad is not None}
    assert reached == {f"club.{name}" for name, _ in rml.club.named_parameters()}


def test_making_pseudo_labels_keeps_training_mode_and_needs_no_gradient() -> None:
    rml, batch = method(), small_batch()
    image = rml.backbone.normalize(batch.image)
    label = rml._pseudo_label(batch, image, rml.compute_cam(image).cam.detach())
    assert rml.backbone.training
    assert not label.requires_grad
    assert (label[1, :, :16] == 255).all()  # padding
    assert set(label.unique().tolist()) <= {0, 1, 2, 255}


def test_bf16_gives_nearly_the_same_labels() -> None:
    """Random weights; benchmarks/step.py reports the agreement of trained ones."""
    batch, labels = small_batch(), []
    for precision in ("fp32", "bf16"):
        rml = method(label_precision=precision).eval()
        image = rml.backbone.normalize(batch.image)
        with torch.no_grad():
            labels.append(rml._pseudo_label(batch, image, rml.compute_cam(image).cam))
    assert (labels[0] == labels[1]).float().mean() > 0.97


def test_inference_needs_neither_neck_nor_affinity_head() -> None:
    rml = method()
    needed = sum(p.numel() for p in rml.backbone.parameters()) + rml.head.classifier.weight.numel()
    rml.neck = rml.affinity = None
    assert rml.eval().compute_cam(torch.rand(1, 3, 64, 64)).cam.shape[:2] == (1, 3)
    assert sum(p.numel() for p in rml.parameters()) == needed


def test_apml_without_attention_or_refiner_is_rejected() -> None:
    recipe = small_recipe("rml")
    plain = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"blocks": 0})})
    with pytest.raises(RecipeError, match="needs a backbone with attention"):
        build_method(plain)
    with pytest.raises(RecipeError, match="needs a refiner"):
        build_method(recipe.model_copy(update={"refiner": None}))


@pytest.mark.slow
def test_200_steps_of_classification_and_ciml_do_not_empty_the_maps() -> None:
    """R1: a stop-gradient in the normalization empties every map within 100 steps."""
    rml, batch = method(mfml=0, apml=0, ciml=1.0, warmup=0, pooling="gap"), small_batch()
    optimizer = torch.optim.AdamW(rml.parameters(), lr=3e-4)
    first = None
    for step in range(200):
        values = rml.losses(batch, step + LATE)
        optimizer.zero_grad()
        sum(values.values()).backward()
        optimizer.step()
        first = values["classification"].item() if first is None else first
    assert values["classification"].item() < first
    assert rml.monitor["empty_cams"] == 0


def test_attention_maps_contain_attention_and_a_learned_affinity() -> None:
    image = torch.rand(1, 3, 64, 64)
    maps = method().eval().attention_maps(image)
    assert set(maps) == {"attention", "affinity"}
    assert maps["attention"].shape == maps["affinity"].shape
    torch.testing.assert_close(
        maps["attention"].sum(dim=2), torch.ones(maps["attention"].shape[:2])
    )
    assert set(method(apml=0).eval().attention_maps(image)) == {"attention"}
