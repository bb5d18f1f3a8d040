"""OC-CSE's frozen ordinary classifier: its input, its loss and its gradient."""

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
from tag2mask.methods.oc_cse import method as module
from tag2mask.methods.oc_cse.method import OCCSE


def tiny(method: str, **changes: Any) -> Recipe:
    raw = small_recipe(method, **changes).plain()
    return parse_recipe(raw | {"backbone": {"name": "tiny", "width": 8}}, "tiny recipe")


def classifier(**changes: Any) -> Method:
    torch.manual_seed(7)
    return build_method(tiny("cam", **changes))


def oc_cse(**changes: Any) -> OCCSE:
    before = classifier()
    torch.manual_seed(1)
    built = build_method(tiny("oc_cse", **changes), {"cam": before})
    assert isinstance(built, OCCSE)
    return built.train()


def ordinary(method: OCCSE) -> Method:
    assert method.ordinary is not None
    return method.ordinary.method


def test_the_ordinary_classifier_is_frozen_in_evaluation_mode() -> None:
    method = oc_cse()
    assert method.backbone.training
    assert not any(part.training for part in ordinary(method).modules())
    assert not any(p.requires_grad for p in ordinary(method).parameters())
    method.eval().train()
    assert not any(part.training for part in ordinary(method).modules())


def test_training_does_not_change_the_ordinary_classifier() -> None:
    method = oc_cse()
    before = {name: value.clone() for name, value in ordinary(method).state_dict().items()}
    groups = [{"params": list(group.parameters)} for group in method.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for step in range(3):
        sum(method.losses(small_batch(), step).values(), torch.zeros(())).backward()
        optimizer.step()
    assert all(p.grad is None for p in ordinary(method).parameters())
    after = ordinary(method).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_erasing_loss_reaches_the_network_through_the_mask() -> None:
    method = oc_cse()
    with torch.no_grad():
        method.head.classifier.weight.abs_()  # features are not negative, so neither is the CAM
    method.losses(small_batch(), 0)["class_erasing"].backward()
    weight = method.head.classifier.weight.grad
    assert weight is not None
    rows = weight.flatten(1).any(dim=1)
    assert rows.any()
    assert not rows[2]  # no image shows this class
    first = next(method.backbone.parameters()).grad
    assert first is not None
    assert first.any()


def test_the_ordinary_classifier_must_predict_the_other_tags_of_the_erased_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, batch = oc_cse(), small_batch()
    erased_class = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    monkeypatch.setattr(module, "draw_present_class", lambda tags: erased_class)
    mask = torch.rand(2, 1, 64, 64)

    def fixed_mask(cam: Tensor, chosen: Tensor, size: torch.Size) -> Tensor:
        assert chosen is erased_class
        assert cam.shape == (2, 3, 8, 8)
        assert size == (64, 64)
        return mask

    monkeypatch.setattr(module, "erasing_mask", fixed_mask)
    loss = method.losses(batch, 0)["class_erasing"]
    image = (batch.image.float() - ordinary(method).backbone.mean) / ordinary(method).backbone.std
    probs = ordinary(method).compute_cam(image * (1 - mask)).logits.sigmoid()
    remaining = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    expected = -(remaining * probs.log() + (1 - remaining) * (1 - probs).log()).mean()
    torch.testing.assert_close(loss, 0.3 * expected)


def test_the_ordinary_classifier_gets_images_normalized_for_it() -> None:
    """Nothing is erased, so its input is the image normalized by its own backbone."""
    method, batch = oc_cse(), small_batch()
    ordinary(method).backbone.std.mul_(2)
    with torch.no_grad():
        method.head.classifier.weight.abs_().neg_()  # the CAM is zero, so nothing is erased
        inputs: list[Tensor] = []
        ordinary(method).backbone.register_forward_hook(lambda _, args, __: inputs.append(args[0]))
        method.losses(batch, 0)
    torch.testing.assert_close(inputs[0], ordinary(method).backbone.normalize(batch.image))


def test_the_weight_grows_with_each_fifteenth_of_the_run() -> None:
    method = oc_cse()
    method.steps = 30
    weights = [method.weight(step) for step in (0, 1, 2, 15, 29)]
    assert weights == pytest.approx([0.3, 0.3, 0.35, 0.65, 1.0])


def test_the_weight_multiplies_the_loss() -> None:
    def erasing(**changes: Any) -> float:
        method = oc_cse(**changes)
        torch.manual_seed(2)
        return method.losses(small_batch(), 0)["class_erasing"].item()

    assert erasing(erasing_weight=0.6) == pytest.approx(2 * erasing(), rel=1e-5)


def test_the_weights_of_a_run_contain_the_ordinary_classifier() -> None:
    trained = oc_cse()
    recipe = tiny("oc_cse").model_copy(update={"earlier": {"cam": tiny("cam")}})
    blank = build_method(recipe)
    assert isinstance(blank, OCCSE)
    blank.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, 64, 64)
    expected = ordinary(trained).compute_cam(image).cam
    torch.testing.assert_close(ordinary(blank).compute_cam(image).cam, expected)


def test_a_stage_without_an_earlier_one_is_rejected() -> None:
    with pytest.raises(RecipeError, match="starts from one trained network") as caught:
        build_method(tiny("oc_cse"))
    assert "\n" not in str(caught.value)


def test_an_ordinary_classifier_with_other_classes_is_rejected() -> None:
    recipe = tiny("oc_cse").with_classes(("blob", "ring"))
    with pytest.raises(RecipeError, match=r"same data\.classes") as caught:
        build_method(recipe, {"cam": classifier()})
    assert "\n" not in str(caught.value)


def test_images_without_tags_have_a_finite_loss() -> None:
    method, batch = oc_cse(), small_batch()
    batch.tags.zero_()
    losses = method.losses(batch, 0)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_a_step_does_not_wait_for_the_device() -> None:
    method, batch = oc_cse(), small_batch()
    with NoWaiting():
        sum(method.losses(batch, 0).values(), torch.zeros(())).backward()
