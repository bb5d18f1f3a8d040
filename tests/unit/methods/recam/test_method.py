"""What ReCAM takes from the network before it, what it learns, and how it reads its maps."""

from typing import Any

import pytest
import torch
from tests.conformance.no_waiting import NoWaiting
from tests.conformance.stand_ins import small_batch, small_recipe
from torch import Tensor

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.errors import RecipeError
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.methods.recam.method import ReCAM


def tiny(method: str, width: int = 8, **changes: Any) -> Recipe:
    raw = small_recipe(method, **changes).plain()
    return parse_recipe(raw | {"backbone": {"name": "tiny", "width": width}}, "tiny recipe")


def classifier(**changes: Any) -> Method:
    torch.manual_seed(7)
    return build_method(tiny("cam", **changes))


def recam(before: Method | None = None, **changes: Any) -> ReCAM:
    built = build_method(tiny("recam", **changes), {"cam": before or classifier()})
    assert isinstance(built, ReCAM)
    return built


def test_backbone_and_classifier_are_copied_not_shared() -> None:
    before = classifier()
    after = recam(before)
    given = {name: value.clone() for name, value in before.state_dict().items()}
    assert all(torch.equal(after.state_dict()[name], value) for name, value in given.items())
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(1)
    assert all(torch.equal(before.state_dict()[name], value) for name, value in given.items())


@pytest.mark.parametrize("changes", [{"width": 16}, {"pooling": "gpp"}])
def test_a_network_with_other_parts_is_rejected_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="same backbone, pooling and classes") as caught:
        recam(classifier(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stages", [(), ("cam", "other")])
def test_one_earlier_network_is_needed(stages: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="starts from one trained network") as caught:
        build_method(tiny("recam"), {name: classifier() for name in stages})
    assert "\n" not in str(caught.value)


def test_weights_of_a_run_fill_a_network_built_without_the_earlier_one() -> None:
    trained = recam()
    recipe = tiny("recam").model_copy(update={"earlier": {"cam": tiny("cam")}})
    blank = build_method(recipe)
    blank.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, 64, 64)
    expected = trained.eval().compute_cam(image).cam
    torch.testing.assert_close(blank.eval().compute_cam(image).cam, expected)


def test_only_the_new_layer_learns_at_the_head_rate() -> None:
    method = recam()
    groups = {group.name: list(group.parameters) for group in method.parameter_groups()}
    assert [id(p) for p in groups["head"]] == [id(method.reactivation.weight)]
    assert {group.rate for group in method.parameter_groups()} == {"base", "head"}
    assert any(p is method.head.classifier.weight for p in groups["base"])
    assert not any(p is method.reactivation.weight for p in groups["base"])


@torch.no_grad()
def test_maps_are_read_with_the_product_of_both_layers() -> None:
    before = classifier().eval()
    method = recam(before).eval()
    image = torch.rand(2, 3, 32, 48)
    features = method.backbone(image).maps[-1]
    product = method.head.classifier.weight * method.reactivation.weight  # (F, D, 1, 1)
    expected = torch.einsum("ndhw,fd->nfhw", features, product[:, :, 0, 0])
    seen = method.compute_cam(image)
    torch.testing.assert_close(seen.cam, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.logits, before.compute_cam(image).logits)


@torch.no_grad()
def test_maps_of_either_layer_alone_are_a_switch() -> None:
    before, image = classifier().eval(), torch.rand(1, 3, 32, 48)
    plain = recam(before, weights="classifier").eval().compute_cam(image).cam
    torch.testing.assert_close(plain, before.compute_cam(image).cam)
    method = recam(before, weights="reactivation").eval()
    features = method.backbone(image).maps[-1]
    expected = torch.einsum("ndhw,fd->nfhw", features, method.reactivation.weight[:, :, 0, 0])
    torch.testing.assert_close(method.compute_cam(image).cam, expected, rtol=1e-4, atol=1e-5)


def reactivation(**changes: Any) -> Tensor:
    torch.manual_seed(3)
    return recam(**changes).train().losses(small_batch(), 0)["reactivation"]


def test_the_weight_of_the_softmax_loss_and_its_mean_over_classes() -> None:
    full = reactivation().item()
    assert reactivation(class_weight=0.1).item() == pytest.approx(0.1 * full, rel=1e-4)
    # The first image shows two classes, the second one: the mean is less than the sum.
    assert full / 2 < reactivation(class_loss="mean").item() < full


def test_the_softmax_loss_alone_teaches_backbone_classifier_and_new_layer() -> None:
    method = recam().train()
    method.losses(small_batch(), 0)["reactivation"].backward()
    for parameter in (
        method.reactivation.weight,
        method.head.classifier.weight,  # through the map
        next(method.backbone.parameters()),
    ):
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_a_step_does_not_wait_for_the_device() -> None:
    method, batch = recam().train(), small_batch()
    with NoWaiting():
        sum(method.losses(batch, 0).values(), torch.zeros(())).backward()
