import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.errors import RecipeError
from tag2mask.methods.base import Evidence, Method, Propagation, Views
from tag2mask.models.base import Backbone, Features
from tag2mask.prediction.decision import decide, drafted
from tag2mask.prediction.test_time import (
    choose_classes,
    class_probability,
    collect,
    settled,
    shared_logit,
    working_photo,
)
from tag2mask.recipe import BackboneConfig, MethodConfig, PredictConfig
from tag2mask.types import Batch

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import decoder_protocol_oracle

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


def test_a_method_may_look_at_all_scales_of_a_named_photo_together() -> None:
    given: list[Views] = []

    class Together(Colours):
        def look(self, views: Views) -> Sequence[Evidence]:
            given.append(views)
            return [Evidence(seen.logit, 2 * seen.cam) for seen in super().look(views)]

    tags = torch.tensor([[1.0, 0.0, 0.0]])
    seen = collect(Together(), red_left_half(), PLAIN, tags, "lane1/cow")
    (views,) = given
    assert [tuple(image.shape[2:]) for image in views.images] == [(64, 96), (32, 48), (96, 144)]
    assert (views.scales, views.name) == ((1.0, 0.5, 1.5), "lane1/cow")
    assert torch.equal(views.images[0][1], views.images[0][0].flip(-1))
    assert views.tags is tags
    torch.testing.assert_close(seen.cam, collect(Colours(), red_left_half(), PLAIN, tags).cam)


def test_class_probabilities_ask_for_logits_alone() -> None:
    class Cheap(Colours):
        def class_logit(self, image: Tensor) -> Tensor:
            return torch.tensor([[2.0, 0.0, -2.0]]).repeat(len(image), 1)

    prob = class_probability(Cheap(), red_left_half(), PLAIN)
    torch.testing.assert_close(prob, torch.tensor([[2.0, 0.0, -2.0]]).sigmoid())


def test_long_side_sets_the_working_size() -> None:
    predict = PLAIN.model_copy(update={"long_side_px": 48})
    assert collect(Colours(), red_left_half(64, 96), predict).cam.shape == (1, 3, 32, 48)
    own = PLAIN.model_copy(update={"long_side_px": 0})
    assert collect(Colours(), red_left_half(64, 96), own).cam.shape == (1, 3, 64, 96)


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


class Decoding(Colours):
    """A decoder without weights: class planes are mixtures of the colours of 4 px cells, and of the
    place in the row, so that mirror images and scales disagree."""

    mixture = torch.tensor([[0.1, 0.3, 0.2], [2.0, -1.0, 0.5], [-1.5, 2.5, 0.4], [0.3, -0.6, 1.9]])

    def segmentation(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        cells = F.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False)
        place = torch.linspace(0, 1, cells.shape[3]).expand(len(image), 1, cells.shape[2], -1)
        planes = torch.einsum("cd,ndhw->nchw", self.mixture.to(cells), cells)
        return planes * (0.5 + place) + place.roll(1, dims=3) * planes.flip(1)


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def test_a_method_with_decoder_goes_by_its_protocol_and_any_other_by_its_own() -> None:
    own = settled(PredictConfig(), Colours())
    assert (own.protocol, own.scales, own.long_side_px, own.refine) == (
        "rml",
        (1.0, 0.5, 1.5),
        0,
        True,
    )
    decoder = settled(PredictConfig(), Decoding())
    assert (decoder.protocol, decoder.scales, decoder.long_side_px, decoder.refine) == (
        "afa",
        (1.0, 0.5, 0.75),
        512,
        False,
    )
    assert settled(decoder, Decoding()) == decoder


def test_what_the_recipe_says_is_kept() -> None:
    said = PredictConfig(protocol="rml", scales=(1.0,), long_side_px=64, refine=False)
    assert settled(said, Decoding()) == said


def test_decoder_protocol_of_a_method_without_decoder_is_refused() -> None:
    with pytest.raises(RecipeError, match="this method has none; use rml"):
        settled(PredictConfig(protocol="afa"), Colours())


@pytest.mark.parametrize(("height", "width"), [(37, 50), (61, 44)])
def test_decoder_scores_equal_the_protocol_by_loops(height: int, width: int) -> None:
    predict = PredictConfig(long_side_px=144)
    seen = collect(Decoding(), noise(height, width), predict)

    def logit_of(image: np.ndarray) -> np.ndarray:
        return Decoding().segmentation(torch.from_numpy(image)[None])[0].numpy()

    photo = noise(height, width)[0].double().numpy() / 255
    expected = decoder_protocol_oracle.scores(photo, logit_of, 144, (1, 0.5, 0.75))
    assert seen.logit is not None
    np.testing.assert_allclose(seen.logit[0].numpy(), expected, atol=1e-5)
    mask = decide(noise(height, width), drafted(seen, [0, 1, 2], 0.45), predict).mask.numpy()
    winner = decoder_protocol_oracle.mask(photo, logit_of, 144, (1, 0.5, 0.75))
    np.testing.assert_array_equal(mask, winner)


def test_each_scale_asks_the_decoder_once_and_the_long_side_is_512() -> None:
    method = Decoding()
    seen = collect(method, noise(60, 81), PredictConfig())
    # 60 * 512 / 81 = 379.3, rounded down; the first pass is the classifier's
    assert method.seen == [(2, 3, 379, 512)] * 2 + [(2, 3, 189, 256), (2, 3, 284, 384)]
    assert seen.logit is not None
    assert seen.logit.shape == (1, 4, 95, 128)
    assert seen.cam.shape == (1, 3, 379, 512)


def test_one_view_per_scale_without_flip() -> None:
    method = Decoding()
    collect(method, noise(32, 64), PredictConfig(flip=False, scales=(0.5,), long_side_px=64))
    assert method.seen == [(1, 3, 32, 64), (1, 3, 32, 32)]


def test_evidence_of_a_method_with_decoder_can_be_asked_for() -> None:
    method = Decoding()
    seen = collect(method, red_left_half(), PredictConfig(protocol="rml"))
    assert seen.logit is None
    assert torch.equal(seen.cam, collect(Colours(), red_left_half(), PLAIN).cam)


def test_class_probability_is_the_same_from_a_look_or_alone() -> None:
    method, photo = Decoding(), noise(60, 81)
    alone = class_probability(method, photo, PredictConfig())
    torch.testing.assert_close(collect(method, photo, PredictConfig()).prob, alone)


def test_the_decoder_chooses_among_all_classes_but_tags_bind_it() -> None:
    prob, tags = torch.tensor([[0.9, 0.1, 0.2]]), torch.tensor([[0.0, 1.0, 1.0]])
    predict = settled(PredictConfig(), Decoding())
    assert choose_classes(prob, None, predict, "predicted") == (0, 1, 2)
    assert choose_classes(prob, tags, predict, "oracle") == (1, 2)


def test_a_method_with_a_walk_of_its_own_is_asked_for_no_affinity() -> None:
    class Walking(Colours):
        def propagation(self, image: Tensor) -> Propagation:
            height = image.shape[2]
            return lambda picked: picked * height

        def maps(self, image: Tensor) -> Mapping[str, Tensor]:
            raise AssertionError("a walk takes the place of the affinity")

    asked = PLAIN.model_copy(update={"propagate": True})
    seen = collect(Walking(), red_left_half(64, 96), asked)
    assert seen.affinity is None
    assert seen.propagation is not None
    assert seen.propagation(torch.ones(1)).item() == 64
    assert collect(Walking(), red_left_half(), PLAIN).propagation is None
    assert collect(Colours(), red_left_half(), asked).affinity is not None


@pytest.mark.parametrize("said", [{"propagate": True}, {"protocol": "afa"}])
def test_sure_pixels_are_cut_from_evidence_alone(said: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"predict\.confident"):
        settled(PredictConfig(confident="irn", **said), Decoding())
    assert settled(PredictConfig(confident="irn"), Colours()).confident == "irn"


class Shares(Colours):
    """Red, green and blue as shares of a pixel: a third of the colour each."""

    shares_pixels = True

    def evidence(self, image: Tensor, tags: Tensor | None = None) -> Evidence:
        seen = super().evidence(image, tags)
        return Evidence(seen.logit - image.shape[2] / 32, seen.cam / 3)


def test_shared_pixels_are_averaged_over_views_and_background_is_cubed() -> None:
    upright = torch.tensor([[[[0.2, 0.4]], [[0.6, 0.0]]]])
    mirrored = torch.tensor([[[[0.0, 0.4]], [[0.2, 0.4]]]])
    found = shared_logit([(upright, mirrored), (upright, None)], (1, 2))
    first, second = (0.2 + 0.4 + 0.2) / 3, (0.6 + 0.4 + 0.6) / 3
    third, fourth = 0.8 / 3, 0.2 / 3
    expected = torch.tensor(
        [
            [
                [[(1 - first - second) ** 3, (1 - third - fourth) ** 3]],
                [[first, third]],
                [[second, fourth]],
            ]
        ]
    )
    torch.testing.assert_close(found.exp(), expected)


def test_a_pixel_that_classes_share_whole_has_a_finite_score_of_background() -> None:
    assert torch.isfinite(shared_logit([(torch.full((1, 2, 2, 2), 0.5), None)], (2, 2))).all()


def test_methods_that_share_pixels_are_asked_once_per_scale_and_classes_at_their_best() -> None:
    method, predict = Shares(), PredictConfig(class_threshold=0.9)
    plan = settled(predict, method)
    assert (plan.protocol, plan.scales, plan.refine) == ("onestage", (1.0, 0.5, 1.5, 2.0), False)
    photo = red_left_half()
    seen = collect(method, photo, predict)
    assert method.seen == [(2, 3, side, 3 * side // 2) for side in (64, 32, 96, 128)]
    best = torch.tensor([[5.0 - 1, -5 - 1, -5 - 1]]).sigmoid()  # the smallest view, upright
    torch.testing.assert_close(seen.prob, best)
    assert choose_classes(seen.prob, None, plan, "predicted") == (0,)
    mask = decide(photo, drafted(seen, (0,), 0.45), plan).mask
    assert (mask[:, :24] == 1).all()  # 1/3 beats (2/3)^3
    assert (mask[:, 56:] == 0).all()


def test_shared_pixels_are_not_read_into_other_evidence() -> None:
    with pytest.raises(RecipeError, match=r"predict\.protocol: onestage") as caught:
        settled(PredictConfig(protocol="onestage"), Colours())
    assert "\n" not in str(caught.value)
