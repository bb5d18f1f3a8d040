from typing import Any

import pytest
import torch
from tests.unit.methods.color_method import PLAIN, Colors, Decoding, noise, red_left_half
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.multi_scale import (
    class_probs,
    predict_multi_scale,
    protocol_of,
    resolve_inference_config,
    select_classes,
)
from tag2mask.methods.base import CamOutput
from tag2mask.methods.protocol import (
    MultiScaleCam,
    MultiScaleDecoder,
)


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


def test_class_probabilities_compute_logits_only() -> None:
    class Cheap(Colors):
        def class_logits(self, image: Tensor) -> Tensor:
            return torch.tensor([[2.0, 0.0, -2.0]]).repeat(len(image), 1)

    probs = class_probs(Cheap(), red_left_half(), PLAIN)
    torch.testing.assert_close(probs, torch.tensor([[2.0, 0.0, -2.0]]).sigmoid())


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


@pytest.mark.parametrize("said", [{"propagate": True}, {"protocol": "afa"}])
def test_confident_labels_need_a_plain_cam(said: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"predict\.confident"):
        resolve_inference_config(PredictConfig(confident={"name": "irn"}, **said), Decoding())
    assert resolve_inference_config(PredictConfig(confident={"name": "irn"}), Colors()).confident


def test_without_background_the_most_probable_class_is_always_selected() -> None:
    predict = PLAIN.model_copy(update={"has_background": False})
    probs = torch.tensor([[0.1, 0.4, 0.2]])
    assert select_classes(probs, None, predict, MultiScaleCam(), "classifier") == (1,)
