"""The frozen judge of OC-CSE, what it is shown, and what it teaches."""

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


def validation_loop(method: OCCSE) -> Method:
    assert method.ordinary is not None
    return method.ordinary.method


def test_the_judge_keeps_evaluation_mode_and_asks_for_no_gradient() -> None:
    method = oc_cse()
    assert method.backbone.training
    assert not any(part.training for part in validation_loop(method).modules())
    assert not any(p.requires_grad for p in validation_loop(method).parameters())
    method.eval().train()
    assert not any(part.training for part in validation_loop(method).modules())


def test_training_leaves_the_judge_as_it_is() -> None:
    method = oc_cse()
    before = {name: value.clone() for name, value in validation_loop(method).state_dict().items()}
    groups = [{"params": list(group.parameters)} for group in method.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for step in range(3):
        sum(method.losses(small_batch(), step).values(), torch.zeros(())).backward()
        optimizer.step()
    assert all(p.grad is None for p in validation_loop(method).parameters())
    after = validation_loop(method).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_judges_loss_reaches_the_network_through_the_erasing_mask() -> None:
    method = oc_cse()
    with torch.no_grad():
        method.head.classifier.weight.abs_()  # features are not negative: evidence is not, either
    method.losses(small_batch(), 0)["class_erasing"].backward()
    weight = method.head.classifier.weight.grad
    assert weight is not None
    rows = weight.flatten(1).any(dim=1)
    assert rows.any()
    assert not rows[2]  # no image shows this class
    first = next(method.backbone.parameters()).grad
    assert first is not None
    assert first.any()


def test_the_judge_sees_the_erased_image_and_must_name_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, batch = oc_cse(), small_batch()
    chosen = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    monkeypatch.setattr(module, "draw_present_class", lambda tags: chosen)
    mask = torch.rand(2, 1, 64, 64)

    def given(cam: Tensor, selected_cam: Tensor, size: torch.Size) -> Tensor:
        assert selected_cam is chosen
        assert cam.shape == (2, 3, 8, 8)
        assert size == (64, 64)
        return mask

    monkeypatch.setattr(module, "erasing_mask", given)
    found = method.losses(batch, 0)["class_erasing"]
    image = (batch.image.float() - validation_loop(method).backbone.mean) / validation_loop(
        method
    ).backbone.std
    probs = validation_loop(method).compute_cam(image * (1 - mask)).logits.sigmoid()
    left = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    expected = -(left * probs.log() + (1 - left) * (1 - probs).log()).mean()
    torch.testing.assert_close(found, 0.3 * expected)


def test_the_judge_gets_images_in_the_colors_it_was_trained_with() -> None:
    """With nothing erased, its logits are those of the image as it normalizes it itself."""
    method, batch = oc_cse(), small_batch()
    validation_loop(method).backbone.std.mul_(2)
    with torch.no_grad():
        method.head.classifier.weight.abs_().neg_()  # no evidence, nothing erased
        seen: list[Tensor] = []
        validation_loop(method).backbone.register_forward_hook(
            lambda _, given, __: seen.append(given[0])
        )
        method.losses(batch, 0)
    torch.testing.assert_close(seen[0], validation_loop(method).backbone.normalize(batch.image))


def test_the_weight_rises_with_the_fifteenths_of_the_run() -> None:
    method = oc_cse()
    method.steps = 30
    found = [method.weight(step) for step in (0, 1, 2, 15, 29)]
    assert found == pytest.approx([0.3, 0.3, 0.35, 0.65, 1.0])


def test_the_weight_multiplies_the_loss() -> None:
    def erasing(**changes: Any) -> float:
        method = oc_cse(**changes)
        torch.manual_seed(2)
        return method.losses(small_batch(), 0)["class_erasing"].item()

    assert erasing(erasing_weight=0.6) == pytest.approx(2 * erasing(), rel=1e-5)


def test_weights_of_a_run_hold_the_judge_and_fill_a_blank_network() -> None:
    trained = oc_cse()
    recipe = tiny("oc_cse").model_copy(update={"earlier": {"cam": tiny("cam")}})
    blank = build_method(recipe)
    assert isinstance(blank, OCCSE)
    blank.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, 64, 64)
    expected = validation_loop(trained).compute_cam(image).cam
    torch.testing.assert_close(validation_loop(blank).compute_cam(image).cam, expected)


def test_a_stage_without_an_earlier_one_is_rejected_in_one_line() -> None:
    with pytest.raises(RecipeError, match="starts from one trained network") as caught:
        build_method(tiny("oc_cse"))
    assert "\n" not in str(caught.value)


def test_a_judge_of_other_classes_is_rejected_in_one_line() -> None:
    recipe = tiny("oc_cse").with_classes(("blob", "ring"))
    with pytest.raises(RecipeError, match=r"same data\.classes") as caught:
        build_method(recipe, {"cam": classifier()})
    assert "\n" not in str(caught.value)


def test_images_without_tags_cost_a_finite_loss() -> None:
    method, batch = oc_cse(), small_batch()
    batch.tags.zero_()
    losses = method.losses(batch, 0)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_a_step_does_not_wait_for_the_device() -> None:
    method, batch = oc_cse(), small_batch()
    with NoWaiting():
        sum(method.losses(batch, 0).values(), torch.zeros(())).backward()
