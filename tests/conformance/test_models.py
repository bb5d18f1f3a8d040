"""The contract of every backbone in the folder `models/backbones`."""

import pickle
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import BACKBONES, METHODS, SMALL_VIT, small_batch, small_method

from tag2mask import plugins
from tag2mask.models.base import Backbone

SMALLEST: dict[str, dict[str, Any]] = {
    "mit": {"variant": "b0"},
    "hybrid": {"depth_multiplier": 0.25},
    "hub": {"arch": "mobilenet_v1_0.25_128"},
    "resnet38d": {"width": 1 / 16},
    "vit": {"arch": SMALL_VIT},
}
"""Settings that keep the tests fast; other backbones run with their defaults."""


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    kind = plugins.load("models.backbones", request.param)
    name = request.param
    config = kind.Config(name=name, weights="none", **SMALLEST.get(name, {}))
    built: Backbone = kind(config).eval()
    return built


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (32, 32)])
@torch.no_grad()
def test_maps_have_the_declared_channels_and_strides(
    backbone: Backbone, size: tuple[int, int]
) -> None:
    features = backbone(torch.rand(2, 3, *size))
    for maps, channels, stride in zip(
        features.maps, backbone.channels, backbone.strides, strict=True
    ):
        assert maps.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@torch.no_grad()
def test_attention_is_captured_only_on_request(backbone: Backbone) -> None:
    image = torch.rand(1, 3, 64, 96)
    assert backbone(image).attention == ()
    attention = backbone(image, attention=True).attention
    assert sum(block.heads for block in attention) == backbone.attention_channels
    positions = (64 // backbone.strides[-1]) * (96 // backbone.strides[-1])
    assert all(block.logits().shape[-2:] == (positions, positions) for block in attention)


@torch.no_grad()
def test_capturing_attention_does_not_change_the_maps(backbone: Backbone) -> None:
    image = torch.rand(2, 3, 64, 64)
    plain, captured = backbone(image), backbone(image, attention=True)
    for first, second in zip(plain.maps, captured.maps, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_no_parameter_is_loaded_from_scratch(backbone: Backbone) -> None:
    assert not backbone.loaded


@torch.no_grad()
def test_black_pixels_are_normalized_like_zero(backbone: Backbone) -> None:
    black = backbone.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    torch.testing.assert_close(black, (-backbone.mean / backbone.std).expand(1, 3, 2, 2))


@torch.no_grad()
def test_backbone_can_be_sent_to_another_process(backbone: Backbone) -> None:
    image = torch.rand(1, 3, 64, 96)
    again = pickle.loads(pickle.dumps(backbone))
    for maps, expected in zip(again(image).maps, backbone(image).maps, strict=True):
        torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("name", METHODS)
def test_methods_run_on_maps_of_one_stride(name: str) -> None:
    """A plain transformer has no finer maps: a step and a CAM need only its maps and attention."""
    backbone = {"name": "vit", "weights": "none", "arch": SMALL_VIT}
    method, batch = small_method(name, backbone=backbone).train(), small_batch()
    losses = method.losses(batch, 9)
    torch.stack(list(losses.values())).sum().backward()
    for key, loss in losses.items():
        assert torch.isfinite(loss), key
    image = method.backbone.normalize(batch.image)
    with torch.no_grad():
        assert method.eval().compute_cam(image, batch.tags).cam.shape[2:] == (4, 4)
