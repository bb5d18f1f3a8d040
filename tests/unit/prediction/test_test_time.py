from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.methods.base import Evidence, Method
from tag2mask.models.base import Backbone, Features
from tag2mask.prediction.test_time import (
    choose_classes,
    class_probability,
    collect,
    decide,
    working_photo,
)
from tag2mask.recipe import BackboneConfig, MethodConfig, PredictConfig, RefinerConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch

PLAIN = PredictConfig(refine=False)


class Pixels(Backbone):
    """No network: colours in [0, 1]."""

    Config = BackboneConfig

    def __init__(self) -> None:
        super().__init__((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        return Features((image,) * 4, ())


class Colours(Method):
    """Red, green, blue: evidence is the mean colour of 16 px cells, the logit its first column."""

    Config = MethodConfig

    def __init__(self) -> None:
        super().__init__(MethodConfig(name="colours"), Pixels(), 3, None, 1)
        self.seen: list[tuple[int, ...]] = []

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def evidence(self, image: Tensor, tags: Tensor | None = None) -> Evidence:
        self.seen.append(tuple(image.shape))
        assert tags is None or len(tags) == len(image)
        cam = F.adaptive_avg_pool2d(image, (-(-image.shape[2] // 16), -(-image.shape[3] // 16)))
        return Evidence(10 * cam[..., 0].mean(2) - 5, cam)

    def maps(self, image: Tensor) -> Mapping[str, Tensor]:
        cells = -(-image.shape[2] // 16) * -(-image.shape[3] // 16)
        return {"affinity": torch.ones(1, cells, cells)}


class Recorder(Refiner):
    Config = RefinerConfig

    def __init__(self) -> None:
        super().__init__(RefinerConfig(name="recorder"))
        self.got: list[tuple[Tensor, Tensor]] = []

    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        self.got.append((image, prob))
        return prob


def red_left_half(height: int = 64, width: int = 96) -> Tensor:
    photo = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    photo[:, 0, :, : width // 2] = 255
    return photo


def test_each_scale_is_one_pass_with_both_mirror_images() -> None:
    method = Colours()
    collect(method, red_left_half(), PLAIN)
    assert method.seen == [(2, 3, 64, 96), (2, 3, 32, 48), (2, 3, 96, 144)]


def test_without_flip_each_scale_is_one_view() -> None:
    method = Colours()
    collect(method, red_left_half(), PLAIN.model_copy(update={"flip": False, "scales": (1.0,)}))
    assert method.seen == [(1, 3, 64, 96)]


def test_class_probability_averages_logits_of_mirror_images_at_scale_1() -> None:
    seen = collect(Colours(), red_left_half(), PLAIN)
    # Red: first column 1 upright (logit 5), 0 mirrored (logit -5): mean 0. Others: -5 in both.
    expected = torch.tensor([[0.5, 0.0067, 0.0067]])
    torch.testing.assert_close(seen.prob, expected, atol=1e-4, rtol=0)


def test_scales_without_1_still_take_probabilities_from_scale_1() -> None:
    method = Colours()
    predict = PLAIN.model_copy(update={"scales": (0.5,)})
    seen = collect(method, red_left_half(), predict)
    assert method.seen[-1] == (2, 3, 64, 96)
    torch.testing.assert_close(seen.prob, class_probability(method, red_left_half(), predict))


def test_evidence_is_normalised_over_scales_and_at_photo_size() -> None:
    seen = collect(Colours(), red_left_half(), PLAIN)
    assert seen.cam.shape == (1, 3, 64, 96)
    assert seen.cam[0, 0, :, :24].min() > 0.95
    assert seen.cam[0, 0, :, 72:].max() < 0.2
    assert seen.cam[0, 1:].max() == 0


def test_evidence_counts_the_stronger_of_both_mirror_images() -> None:
    class Left(Colours):
        def evidence(self, image: Tensor, tags: Tensor | None = None) -> Evidence:
            logit, cam = super().evidence(image)
            half = torch.arange(cam.shape[3]) < cam.shape[3] // 2
            return Evidence(logit, cam * half)  # blind on the right side

    photo = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    predict = PLAIN.model_copy(update={"scales": (1.0,)})
    assert collect(Left(), photo, predict).cam[0, 0, 32, 63] > 0.99
    blind = collect(Left(), photo, predict.model_copy(update={"flip": False}))
    assert blind.cam[0, 0, 32, 63] == 0


def test_long_side_sets_the_working_size_but_not_the_mask_size() -> None:
    photo = red_left_half(64, 96)
    predict = PLAIN.model_copy(update={"long_side_px": 48})
    seen = collect(Colours(), photo, predict)
    assert seen.cam.shape == (1, 3, 32, 48)
    assert decide(photo, seen.cam, [0], predict).mask.shape == (64, 96)


def test_working_photo_keeps_its_ratio_and_type() -> None:
    photo = torch.full((1, 3, 100, 41), 7, dtype=torch.uint8)
    small = working_photo(photo, PLAIN.model_copy(update={"long_side_px": 50}))
    assert small.shape == (1, 3, 50, 20)
    assert small.dtype == torch.uint8
    assert small.unique().tolist() == [7]


def test_large_photos_are_shrunk_and_small_ones_left_alone() -> None:
    photo = torch.zeros(1, 3, 100, 40, dtype=torch.uint8)
    assert working_photo(photo, PLAIN.model_copy(update={"max_side_px": 50})).shape[2:] == (50, 20)
    assert working_photo(photo, PLAIN.model_copy(update={"max_side_px": 200})) is photo
    both = PLAIN.model_copy(update={"long_side_px": 400, "max_side_px": 200})
    assert working_photo(photo, both).shape[2:] == (200, 80)


def test_tiny_photo_is_enlarged_for_the_network_only() -> None:
    method = Colours()
    photo = red_left_half(3, 5)
    seen = collect(method, photo, PLAIN.model_copy(update={"propagate": True}))
    assert all(min(shape[2:]) >= 32 for shape in method.seen)
    assert seen.cam.shape == (1, 3, 3, 5)
    assert decide(photo, seen.cam, [0], PLAIN, affinity=seen.affinity).mask.shape == (3, 5)


def test_collect_builds_no_graph() -> None:
    method = Colours()
    method.weight = torch.nn.Parameter(torch.ones(1))
    evidence = method.evidence
    method.evidence = lambda image, tags=None: Evidence(  # type: ignore[method-assign]
        evidence(image).logit * method.weight, evidence(image).cam * method.weight
    )
    seen = collect(method, red_left_half(), PLAIN)
    assert not seen.cam.requires_grad
    assert not seen.prob.requires_grad


@pytest.mark.parametrize(
    ("prob", "fallback", "chosen"),
    [
        ([0.2, 0.9, 0.6], False, (1, 2)),
        ([0.2, 0.5, 0.3], False, ()),  # the threshold itself does not pass
        ([0.2, 0.5, 0.3], True, (1,)),
        ([0.2, 0.9, 0.3], True, (1,)),
    ],
)
def test_gate_predicted(prob: list[float], fallback: bool, chosen: tuple[int, ...]) -> None:
    predict = PLAIN.model_copy(update={"fallback": fallback})
    assert choose_classes(torch.tensor([prob]), None, predict, "predicted") == chosen


def test_gate_oracle_takes_the_tags_whatever_the_classifier_says() -> None:
    prob, tags = torch.tensor([[0.9, 0.9, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert choose_classes(prob, tags, PLAIN, "oracle") == (1, 2)
    with pytest.raises(ValueError, match="tags"):
        choose_classes(prob, None, PLAIN, "oracle")


def test_hard_cut_without_refiner() -> None:
    cam = torch.tensor([[[[0.45, 0.5, 0.9]], [[1.0, 1.0, 1.0]], [[0.2, 0.6, 0.1]]]])
    decision = decide(torch.zeros(1, 3, 1, 3, dtype=torch.uint8), cam, [0, 2], PLAIN)
    # Class 1 (mask value 2) is not among the keys; 0.45 does not exceed the background's 0.45.
    assert decision.mask.tolist() == [[0, 3, 1]]
    assert decision.mask.dtype == torch.uint8
    assert decision.prob.shape == (1, 3, 1, 3)


def test_no_class_gives_background_without_calling_the_refiner() -> None:
    refiner = Recorder()
    decision = decide(red_left_half(), torch.ones(1, 3, 64, 96), [], PLAIN, refiner)
    assert decision.mask.shape == (64, 96)
    assert decision.mask.max() == 0
    assert refiner.got == []


def test_refiner_sees_half_size_and_softmax_over_background_and_keys() -> None:
    refiner = Recorder()
    cam = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    cam[0, 2] = 0.7
    decide(red_left_half(66, 94), cam, [2], PLAIN, refiner)
    image, prob = refiner.got[0]
    assert image.shape == (1, 3, 16, 23)
    assert image.max() == 255
    # softmax([0.45, 0.7]) = (0.4378, 0.5622)
    assert prob.shape == (1, 1, 2, 16, 23)
    torch.testing.assert_close(prob[0, 0, 1], torch.full((16, 23), 0.5622), atol=1e-4, rtol=0)


def test_refined_mask_follows_the_refiner_and_has_class_values() -> None:
    class Upside(Recorder):
        def refine(self, image: Tensor, prob: Tensor) -> Tensor:
            return prob.flip(2)  # background and class swapped

    cam = torch.zeros(1, 3, 64, 96)
    cam[:, 1, :, 48:] = 1.0
    mask = decide(red_left_half(), cam, [1], PLAIN, Upside()).mask
    assert mask[:, :46].unique().tolist() == [2]
    assert mask[:, 50:].unique().tolist() == [0]


def test_propagation_carries_evidence_along_the_affinity() -> None:
    predict = PLAIN.model_copy(update={"propagate": True})
    cam = torch.zeros(1, 3, 64, 64)
    cam[:, 0, :, :48] = 1.0
    affinity = torch.ones(1, 16, 16)  # all cells belong together, none is out of reach
    photo = red_left_half(64, 64)
    decision = decide(photo, cam, [0], predict, affinity=affinity)
    assert decision.mask.unique().tolist() == [1]
    # softmax([0.35, 1]) = 0.657 on 3/4 of the cells, softmax([0.35, 0]) = 0.4134 on the rest
    torch.testing.assert_close(decision.prob[0, 1], torch.full((64, 64), 0.5961), atol=1e-3, rtol=0)
    alone = decide(photo, cam, [0], predict, affinity=torch.eye(16)[None])
    assert alone.mask[:, 60:].max() == 0


def test_affinity_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="15 cells"):
        decide(
            red_left_half(), torch.ones(1, 3, 64, 96), [0], PLAIN, affinity=torch.ones(1, 15, 15)
        )
