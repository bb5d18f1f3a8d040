"""Thresholds that follow the maps: what they follow, and that nothing waits or gets lost."""

import pytest
import torch
from tests.conformance.no_waiting import NoWaiting
from tests.conformance.stand_ins import small_batch, small_method
from torch import Tensor

from tag2mask.functional.pseudo_label import select_present_classes
from tag2mask.methods.label_thresholds import LabelThresholds

TAGS = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
VALID = torch.ones(2, 20, 20, dtype=torch.bool)
LATE = 9


def two_levels(low: float, high: float) -> Tensor:
    """Return maps of two classes whose largest score has two levels."""
    maps = torch.full((2, 2, 20, 20), low)
    maps[:, 0, :5] = high
    return maps


def scores(thresholds: LabelThresholds, cam: Tensor, valid: Tensor = VALID) -> tuple[float, float]:
    foreground, background = thresholds(cam, select_present_classes(TAGS, 2), valid)
    return float(foreground), float(background)


def test_fixed_thresholds_are_those_of_the_recipe() -> None:
    thresholds = LabelThresholds("fixed", 0.6, 0.3)
    assert thresholds(two_levels(0.1, 0.5), select_present_classes(TAGS, 2), VALID) == (0.6, 0.3)
    assert not thresholds.state_dict()


@pytest.mark.parametrize(("low", "high"), [(0.055, 0.555), (0.205, 0.905)])
def test_their_mean_lies_between_objects_and_background_and_their_distance_stays(
    low: float, high: float
) -> None:
    foreground, background = scores(LabelThresholds("auto", 0.55, 0.35), two_levels(low, high))
    assert (foreground + background) / 2 == pytest.approx((low + high) / 2, abs=0.01)
    assert foreground - background == pytest.approx(0.2, abs=1e-6)


def test_absent_classes_and_padding_are_left_out() -> None:
    cam, valid = two_levels(0.105, 0.505), VALID.clone()
    expected = scores(LabelThresholds("auto", 0.55, 0.35), cam)
    cam[0, 1] = 0.999  # not a tag of the first image
    cam[:, :, 15:], valid[:, 15:] = 0.999, False
    got = scores(LabelThresholds("auto", 0.55, 0.35), cam, valid)
    assert got == pytest.approx(expected, abs=0.011)


def test_the_mean_moves_slowly_and_forgets() -> None:
    thresholds = LabelThresholds("auto", 0.55, 0.35)
    scores(thresholds, two_levels(0.1, 0.5))
    first = scores(thresholds, two_levels(0.1, 0.5))[1]
    assert scores(thresholds, two_levels(0.5, 0.9))[1] < first + 0.25
    for _ in range(400):
        last = scores(thresholds, two_levels(0.5, 0.9))[1]
    assert last == pytest.approx(first + 0.4, abs=0.02)


@pytest.mark.parametrize("name", ["rml", "afa"])
def test_both_methods_label_with_thresholds_of_their_maps_and_never_wait(name: str) -> None:
    method = small_method(name, thresholds="auto").train()
    with NoWaiting():
        method.losses(small_batch(), LATE)
    center = method.monitor["background_threshold"] + 0.1
    histogram = method.thresholds.histogram
    assert 0.1 <= center <= 0.9
    assert histogram.sum() == small_batch().valid.sum()  # both images show a class
    assert any(key.endswith("histogram") for key in method.state_dict())
    assert "background_threshold" not in small_method(name).monitor


@pytest.mark.parametrize("name", ["rml", "afa"])
def test_a_resumed_method_goes_on_with_the_same_thresholds(name: str) -> None:
    first = small_method(name, thresholds="auto").train()
    first.losses(small_batch(), LATE)
    second = small_method(name, thresholds="auto").train()
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        torch.manual_seed(0)
        method.losses(small_batch(seed=1), LATE)
    assert torch.equal(first.thresholds.histogram, second.thresholds.histogram)
    assert torch.equal(
        first.monitor["background_threshold"], second.monitor["background_threshold"]
    )
