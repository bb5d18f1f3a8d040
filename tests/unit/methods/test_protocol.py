import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import small_method
from tests.unit.methods.color_method import PLAIN, Colors, Decoding, noise, red_left_half
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.inference.multi_scale import (
    predict_multi_scale,
)
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.methods.base import CamOutput
from tag2mask.methods.protocol import (
    Propagation,
    ScaledViews,
    resize_to_working_size,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import decoder_protocol_oracle


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


@pytest.mark.parametrize("name", ["rml", "afa"])
def test_the_walk_has_the_radius_of_the_training(name: str) -> None:
    asked = PLAIN.model_copy(update={"protocol": "cam", "propagate": True})
    image, made = noise(96, 96), {}
    for radius in (1, 2, 8):
        method = small_method(name, radius=radius).eval()
        output = predict_multi_scale(method, image, asked)
        assert output.radius == radius
        made[radius] = select_maps(output, [0, 1], 0.35).maps
    assert not torch.equal(made[1], made[2])
    assert not torch.equal(made[2], made[8])
