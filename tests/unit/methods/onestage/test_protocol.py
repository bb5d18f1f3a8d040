import pytest
import torch
from tests.unit.methods.color_method import Colors, red_left_half
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.multi_scale import (
    predict_multi_scale,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.methods.base import CamOutput
from tag2mask.methods.onestage.protocol import PixelShares, shared_logits


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
