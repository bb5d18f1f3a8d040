import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import BackboneConfig, MethodConfig, PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.multi_scale import (
    class_probs,
    predict_multi_scale,
    protocol_of,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.onestage.protocol import PixelShares, shared_logits
from tag2mask.methods.protocol import (
    MultiScaleCam,
    MultiScaleDecoder,
    Propagation,
    ScaledViews,
    resize_to_working_size,
)
from tag2mask.models.base import Backbone, Features
from tag2mask.types import Batch

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import decoder_protocol_oracle

PLAIN = PredictConfig(refine=False)


class Pixels(Backbone):
    """No network: colors in [0, 1]."""

    Config = BackboneConfig

    def __init__(self) -> None:
        super().__init__((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        return Features((image,) * 4, ())


class Colors(Method):
    """Red, green, blue: evidence is the mean color of 16 px cells, the logit its first column."""

    Config = MethodConfig

    def __init__(self) -> None:
        super().__init__(MethodConfig(name="colors"), Pixels(), 3, None, 1)
        self.shapes: list[tuple[int, ...]] = []

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        self.shapes.append(tuple(image.shape))
        assert tags is None or len(tags) == len(image)
        cam = F.adaptive_avg_pool2d(image, (-(-image.shape[2] // 16), -(-image.shape[3] // 16)))
        return CamOutput(10 * cam[..., 0].mean(2) - 5, cam)

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        cells = -(-image.shape[2] // 16) * -(-image.shape[3] // 16)
        return {"affinity": torch.ones(1, cells, cells)}


def red_left_half(height: int = 64, width: int = 96) -> Tensor:
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    image[:, 0, :, : width // 2] = 255
    return image


def test_each_scale_is_one_pass_with_both_flips() -> None:
    method = Colors()
    predict_multi_scale(method, red_left_half(), PLAIN)
    assert method.shapes == [(2, 3, 64, 96), (2, 3, 32, 48), (2, 3, 96, 144)]


def test_without_flip_each_scale_is_one_view() -> None:
    method = Colors()
    predict_multi_scale(
        method, red_left_half(), PLAIN.model_copy(update={"flip": False, "scales": (1.0,)})
    )
    assert method.shapes == [(1, 3, 64, 96)]


def test_class_probability_averages_logits_of_flips_at_scale_1() -> None:
    output = predict_multi_scale(Colors(), red_left_half(), PLAIN)
    # Red: first column 1 upright (logit 5), 0 flipped (logit -5): mean 0. Others: -5 in both.
    expected = torch.tensor([[0.5, 0.0067, 0.0067]])
    torch.testing.assert_close(output.probs, expected, atol=1e-4, rtol=0)


def test_scales_without_1_still_take_probabilities_from_scale_1() -> None:
    method = Colors()
    predict = PLAIN.model_copy(update={"scales": (0.5,)})
    output = predict_multi_scale(method, red_left_half(), predict)
    assert method.shapes[-1] == (2, 3, 64, 96)
    torch.testing.assert_close(output.probs, class_probs(method, red_left_half(), predict))


def test_cam_is_normalized_over_scales_and_at_image_size() -> None:
    output = predict_multi_scale(Colors(), red_left_half(), PLAIN)
    assert output.cam.shape == (1, 3, 64, 96)
    assert output.cam[0, 0, :, :24].min() > 0.95
    assert output.cam[0, 0, :, 72:].max() < 0.2
    assert output.cam[0, 1:].max() == 0


def test_cam_counts_the_stronger_of_both_flips() -> None:
    class Left(Colors):
        def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
            logits, cam = super().compute_cam(image)
            half = torch.arange(cam.shape[3]) < cam.shape[3] // 2
            return CamOutput(logits, cam * half)  # blind on the right side

    single_image = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    predict = PLAIN.model_copy(update={"scales": (1.0,)})
    assert predict_multi_scale(Left(), single_image, predict).cam[0, 0, 32, 63] > 0.99
    blind = predict_multi_scale(Left(), single_image, predict.model_copy(update={"flip": False}))
    assert blind.cam[0, 0, 32, 63] == 0


def test_a_method_may_process_all_scales_of_a_named_image_together() -> None:
    given: list[ScaledViews] = []

    class Together(Colors):
        def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
            given.append(views)
            return [
                CamOutput(output.logits, 2 * output.cam)
                for output in super().compute_multi_scale_cam(views)
            ]

    tags = torch.tensor([[1.0, 0.0, 0.0]])
    output = predict_multi_scale(Together(), red_left_half(), PLAIN, tags, "lane1/cow")
    (views,) = given
    assert [tuple(image.shape[2:]) for image in views.images] == [(64, 96), (32, 48), (96, 144)]
    assert (views.scales, views.name) == ((1.0, 0.5, 1.5), "lane1/cow")
    assert torch.equal(views.images[0][1], views.images[0][0].flip(-1))
    assert views.tags is tags
    torch.testing.assert_close(
        output.cam, predict_multi_scale(Colors(), red_left_half(), PLAIN, tags).cam
    )


def test_class_probabilities_compute_logits_only() -> None:
    class Cheap(Colors):
        def class_logits(self, image: Tensor) -> Tensor:
            return torch.tensor([[2.0, 0.0, -2.0]]).repeat(len(image), 1)

    probs = class_probs(Cheap(), red_left_half(), PLAIN)
    torch.testing.assert_close(probs, torch.tensor([[2.0, 0.0, -2.0]]).sigmoid())


def test_long_side_sets_the_working_size() -> None:
    predict = PLAIN.model_copy(update={"long_side_px": 48})
    assert predict_multi_scale(Colors(), red_left_half(64, 96), predict).cam.shape == (1, 3, 32, 48)
    own = PLAIN.model_copy(update={"long_side_px": 0})
    assert predict_multi_scale(Colors(), red_left_half(64, 96), own).cam.shape == (1, 3, 64, 96)


def test_working_image_keeps_its_ratio_and_type() -> None:
    image = torch.full((1, 3, 100, 41), 7, dtype=torch.uint8)
    small = resize_to_working_size(image, PLAIN.model_copy(update={"long_side_px": 50}))
    assert small.shape == (1, 3, 50, 20)
    assert small.dtype == torch.uint8
    assert small.unique().tolist() == [7]


def test_large_images_shrink_and_small_ones_stay() -> None:
    image = torch.zeros(1, 3, 100, 40, dtype=torch.uint8)
    assert resize_to_working_size(image, PLAIN.model_copy(update={"max_side_px": 50})).shape[
        2:
    ] == (50, 20)
    assert resize_to_working_size(image, PLAIN.model_copy(update={"max_side_px": 200})) is image
    both = PLAIN.model_copy(update={"long_side_px": 400, "max_side_px": 200})
    assert resize_to_working_size(image, both).shape[2:] == (200, 80)


def test_tiny_image_is_enlarged_for_the_network_only() -> None:
    method = Colors()
    image = red_left_half(3, 5)
    output = predict_multi_scale(method, image, PLAIN.model_copy(update={"propagate": True}))
    assert all(min(shape[2:]) >= 32 for shape in method.shapes)
    assert output.cam.shape == (1, 3, 3, 5)


def test_prediction_builds_no_graph() -> None:
    method = Colors()
    method.weight = torch.nn.Parameter(torch.ones(1))
    compute_cam = method.compute_cam
    method.compute_cam = lambda image, tags=None: CamOutput(  # type: ignore[method-assign]
        compute_cam(image).logits * method.weight, compute_cam(image).cam * method.weight
    )
    output = predict_multi_scale(method, red_left_half(), PLAIN)
    assert not output.cam.requires_grad
    assert not output.probs.requires_grad


@pytest.mark.parametrize(
    ("probs", "fallback", "chosen"),
    [
        ([0.2, 0.9, 0.6], False, (1, 2)),
        ([0.2, 0.5, 0.3], False, ()),  # the threshold itself does not pass
        ([0.2, 0.5, 0.3], True, (1,)),
        ([0.2, 0.9, 0.3], True, (1,)),
    ],
)
def test_the_classifier_selects_classes_above_the_threshold(
    probs: list[float], fallback: bool, chosen: tuple[int, ...]
) -> None:
    predict = PLAIN.model_copy(update={"fallback": fallback})
    assert (
        select_classes(torch.tensor([probs]), None, predict, MultiScaleCam(), "classifier")
        == chosen
    )


def test_tags_select_classes_regardless_of_the_classifier() -> None:
    probs, tags = torch.tensor([[0.9, 0.9, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert select_classes(probs, tags, PLAIN, MultiScaleCam(), "tags") == (1, 2)
    with pytest.raises(ValueError, match="tags"):
        select_classes(probs, None, PLAIN, MultiScaleCam(), "tags")


class Decoding(Colors):
    """A decoder without weights: class planes mix the mean colors of 4 x 4 px blocks with the column
    number, so that flips and scales disagree."""

    protocol = MultiScaleDecoder()

    mixture = torch.tensor([[0.1, 0.3, 0.2], [2.0, -1.0, 0.5], [-1.5, 2.5, 0.4], [0.3, -0.6, 1.9]])

    def segmentation(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        cells = F.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False)
        place = torch.linspace(0, 1, cells.shape[3]).expand(len(image), 1, cells.shape[2], -1)
        planes = torch.einsum("cd,ndhw->nchw", self.mixture.to(cells), cells)
        return planes * (0.5 + place) + place.roll(1, dims=3) * planes.flip(1)


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def test_every_method_has_the_defaults_of_its_own_protocol() -> None:
    own = resolve_inference_config(PredictConfig(), Colors())
    assert protocol_of(own, Colors()).name == "cam"
    assert (own.scales, own.long_side_px, own.refine) == ((1.0, 0.5, 1.5), 0, True)
    decoder = resolve_inference_config(PredictConfig(), Decoding())
    assert protocol_of(decoder, Decoding()).name == "decoder"
    assert (decoder.scales, decoder.long_side_px, decoder.refine) == ((1.0, 0.5, 0.75), 512, False)
    assert resolve_inference_config(decoder, Decoding()) == decoder


def test_settings_of_the_recipe_win() -> None:
    said = PredictConfig(protocol="cam", scales=(1.0,), long_side_px=64, refine=False)
    assert resolve_inference_config(said, Decoding()) == said


def test_decoder_protocol_of_a_method_without_decoder_is_rejected() -> None:
    with pytest.raises(RecipeError, match="this method has none; use cam"):
        resolve_inference_config(PredictConfig(protocol="afa"), Colors())


@pytest.mark.parametrize(("height", "width"), [(37, 50), (61, 44)])
def test_decoder_scores_equal_the_protocol_by_loops(height: int, width: int) -> None:
    predict = PredictConfig(long_side_px=144)
    output = predict_multi_scale(Decoding(), noise(height, width), predict)

    def logits_of(image: np.ndarray) -> np.ndarray:
        return Decoding().segmentation(torch.from_numpy(image)[None])[0].numpy()

    single_image = noise(height, width)[0].double().numpy() / 255
    expected = decoder_protocol_oracle.scores(single_image, logits_of, 144, (1, 0.5, 0.75))
    assert output.logits is not None
    np.testing.assert_allclose(output.logits[0].numpy(), expected, atol=1e-5)
    mask = PostProcessor(predict, None, None)(
        noise(height, width), select_maps(output, [0, 1, 2], 0.45)
    ).mask.numpy()
    winner = decoder_protocol_oracle.mask(single_image, logits_of, 144, (1, 0.5, 0.75))
    np.testing.assert_array_equal(mask, winner)


def test_each_scale_asks_the_decoder_once_and_the_long_side_is_512() -> None:
    method = Decoding()
    output = predict_multi_scale(method, noise(60, 81), PredictConfig())
    # 60 * 512 / 81 = 379.3, rounded down; the first pass is the classifier's
    assert method.shapes == [(2, 3, 379, 512)] * 2 + [(2, 3, 189, 256), (2, 3, 284, 384)]
    assert output.logits is not None
    assert output.logits.shape == (1, 4, 95, 128)
    assert output.cam.shape == (1, 3, 379, 512)


def test_one_view_per_scale_without_flip() -> None:
    method = Decoding()
    predict_multi_scale(
        method, noise(32, 64), PredictConfig(flip=False, scales=(0.5,), long_side_px=64)
    )
    assert method.shapes == [(1, 3, 32, 64), (1, 3, 32, 32)]


def test_cam_of_a_method_with_decoder_can_be_asked_for() -> None:
    method = Decoding()
    output = predict_multi_scale(method, red_left_half(), PredictConfig(protocol="cam"))
    assert output.logits is None
    assert torch.equal(output.cam, predict_multi_scale(Colors(), red_left_half(), PLAIN).cam)


def test_class_probabilities_equal_those_of_a_full_prediction() -> None:
    method, image = Decoding(), noise(60, 81)
    alone = class_probs(method, image, PredictConfig())
    torch.testing.assert_close(predict_multi_scale(method, image, PredictConfig()).probs, alone)


def test_the_decoder_chooses_among_all_classes_unless_tags_are_given() -> None:
    probs, tags = torch.tensor([[0.9, 0.1, 0.2]]), torch.tensor([[0.0, 1.0, 1.0]])
    predict = resolve_inference_config(PredictConfig(), Decoding())
    assert select_classes(probs, None, predict, MultiScaleDecoder(), "classifier") == (0, 1, 2)
    assert select_classes(probs, tags, predict, MultiScaleDecoder(), "tags") == (1, 2)


def test_an_own_walk_replaces_the_affinity() -> None:
    class Walking(Colors):
        def propagation(self, image: Tensor) -> Propagation:
            height = image.shape[2]
            return lambda selected_cam: selected_cam * height

        def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
            raise AssertionError("a walk takes the place of the affinity")

    asked = PLAIN.model_copy(update={"propagate": True})
    output = predict_multi_scale(Walking(), red_left_half(64, 96), asked)
    assert output.affinity is None
    assert output.propagation is not None
    assert output.propagation(torch.ones(1)).item() == 64
    assert predict_multi_scale(Walking(), red_left_half(), PLAIN).propagation is None
    assert predict_multi_scale(Colors(), red_left_half(), asked).affinity is not None


@pytest.mark.parametrize("said", [{"propagate": True}, {"protocol": "afa"}])
def test_confident_labels_need_a_plain_cam(said: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"predict\.confident"):
        resolve_inference_config(PredictConfig(confident={"name": "irn"}, **said), Decoding())
    assert resolve_inference_config(PredictConfig(confident={"name": "irn"}), Colors()).confident


class Shares(Colors):
    """Red, green and blue as shares of a pixel: a third of the color each."""

    protocol = PixelShares()

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        output = super().compute_cam(image, tags)
        return CamOutput(output.logits - image.shape[2] / 32, output.cam / 3)


def test_shared_pixels_are_averaged_over_views_and_background_is_cubed() -> None:
    upright = torch.tensor([[[[0.2, 0.4]], [[0.6, 0.0]]]])
    flipped = torch.tensor([[[[0.0, 0.4]], [[0.2, 0.4]]]])
    found = shared_logits([(upright, flipped), (upright, None)], (1, 2))
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


def test_a_pixel_without_background_has_a_finite_background_score() -> None:
    assert torch.isfinite(shared_logits([(torch.full((1, 2, 2, 2), 0.5), None)], (2, 2))).all()


def test_pixel_shares_take_one_pass_per_scale_and_the_best_view_of_a_class() -> None:
    method, predict = Shares(), PredictConfig(class_threshold=0.9)
    config = resolve_inference_config(predict, method)
    assert (config.scales, config.refine) == ((1.0, 0.5, 1.5, 2.0), False)
    image = red_left_half()
    output = predict_multi_scale(method, image, predict)
    assert method.shapes == [(2, 3, side, 3 * side // 2) for side in (64, 32, 96, 128)]
    best = torch.tensor([[5.0 - 1, -5 - 1, -5 - 1]]).sigmoid()  # the smallest view, upright
    torch.testing.assert_close(output.probs, best)
    assert select_classes(output.probs, None, config, PixelShares(), "classifier") == (0,)
    mask = PostProcessor(config, None, None)(image, select_maps(output, (0,), 0.45)).mask
    assert (mask[:, :24] == 1).all()  # 1/3 beats (2/3)^3
    assert (mask[:, 56:] == 0).all()


def test_the_protocol_of_pixel_shares_rejects_another_cam() -> None:
    with pytest.raises(RecipeError, match=r"predict\.protocol: onestage") as caught:
        resolve_inference_config(PredictConfig(protocol="onestage"), Colors())
    assert "\n" not in str(caught.value)
