from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import randomized_batchnorm
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedModel

from tag2mask.config.recipe import parse_recipe
from tag2mask.errors import WeightsError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.hub import Hub, HubConfig
from tag2mask.models.backbones.hybrid import Hybrid, HybridConfig
from tag2mask.training.trainer import train

SMALL: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.35},
    "resnet": {"depths": [1, 1, 1, 2], "hidden_sizes": [32, 48, 64, 80], "embedding_size": 16},
    "regnet": {"depths": [1, 1, 1, 2], "hidden_sizes": [32, 64, 64, 64], "groups_width": 16},
    "convnext": {"depths": [1, 1, 1, 2], "hidden_sizes": [16, 24, 32, 40]},
}
SMALL_CVT = {"model_type": "cvt", "embed_dim": [16, 32, 48], "num_heads": [1, 2, 3]}
PHASE = {"mobilenet_v1": 1, "mobilenet_v2": 1, "resnet": 0, "convnext": 1}
"""Offset of the original pixels in a map of half the stride. Kernels with more padding at the end
are shifted to the right. (RegNet's squeeze and excitation also averages over the new pixels.)"""


def maps_of(image: Tensor, **settings: Any) -> tuple[Tensor, ...]:
    return Hub(HubConfig(**settings)).double().eval()(image).maps


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
@torch.no_grad()
def classifier(kind: str) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, num_labels=5, **SMALL[kind])
    network = AutoModelForImageClassification.from_config(config).eval()
    randomized_batchnorm(network)
    return network


@pytest.fixture
def folder(classifier: PreTrainedModel, tmp_path: Path) -> str:
    classifier.save_pretrained(tmp_path)
    return str(tmp_path)


@torch.no_grad()
def test_maps_equal_those_of_transformers_at_the_original_stride(
    classifier: PreTrainedModel, folder: str
) -> None:
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    ours = maps_of(image, weights=folder, stride=32)
    network = AutoModel.from_pretrained(folder).double().eval()
    plain = network(image, output_hidden_states=True)
    assert ours[3].std() > 0.01
    torch.testing.assert_close(ours[3], plain.last_hidden_state, atol=1e-6, rtol=1e-6)
    for maps in ours[:3]:
        same = [one for one in plain.hidden_states if one.shape == maps.shape]
        torch.testing.assert_close(maps, same[-1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", PHASE, indirect=True)
@torch.no_grad()
def test_every_second_pixel_of_the_dilated_network_is_original(kind: str, folder: str) -> None:
    image, start = torch.randn(1, 3, 96, 128, dtype=torch.float64), PHASE[kind]
    plain = maps_of(image, weights=folder, stride=32)
    fine = maps_of(image, weights=folder, stride=16)
    assert plain[3].std() > 0.01
    torch.testing.assert_close(fine[3][:, :, start::2, start::2], plain[3], atol=1e-6, rtol=1e-6)
    for first, second in zip(fine[:3], plain[:3], strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", PHASE, indirect=True)
@torch.no_grad()
def test_every_fourth_pixel_at_stride_8_is_original(folder: str, kind: str) -> None:
    image = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    plain = maps_of(image, weights=folder, stride=32)[3]
    fine = maps_of(image, weights=folder, stride=8)[3]
    assert fine.shape == (1, plain.shape[1], 12, 16)
    start = {"resnet": 0, "convnext": 2}.get(kind, 3)
    torch.testing.assert_close(fine[:, :, start::4, start::4], plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.no_grad()
def test_channels_and_strides_are_as_declared_for_any_size(kind: str, stride: int) -> None:
    network = Hub(HubConfig(arch={"model_type": kind, **SMALL[kind]}, stride=stride)).eval()
    assert network.strides == (4, 8, min(16, stride), stride)
    for height, width in [(33, 47), (50, 62), (64, 96)]:
        for maps, channels, step in zip(
            network(torch.rand(1, 3, height, width)).maps,
            network.channels,
            network.strides,
            strict=True,
        ):
            assert maps.shape == (1, channels, -(-height // step), -(-width // step))


def test_networks_have_their_own_strides() -> None:
    arch = {"model_type": "resnet", **SMALL["resnet"]}
    fine, plain = (Hub(HubConfig(arch=arch, stride=stride)) for stride in (8, 32))
    assert fine.strides == (4, 8, 8, 8)
    assert plain.strides == (4, 8, 16, 32)


def test_loaded_statistics_are_fixed_and_parameters_train(folder: str) -> None:
    network = Hub(HubConfig(weights=folder)).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    sum(maps.square().mean() for maps in network(torch.rand(2, 3, 64, 64)).maps).backward()
    for name, value in network.named_buffers():
        assert torch.equal(before[name], value), name
    trained = {name for name, one in network.named_parameters() if one.requires_grad}
    assert trained
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
    assert network.loaded == {name for name, _ in network.named_parameters()}
    freeze_loaded_norms(network)
    assert not any("norm" in name for name, one in network.named_parameters() if one.requires_grad)


def test_statistics_train_from_scratch() -> None:
    network = Hub(HubConfig(arch="mobilenet_v1_0.25", weights="none")).train()
    before = network.cnn.conv_stem.normalization.running_mean.clone()
    network(torch.rand(2, 3, 64, 64) + 1)
    assert not torch.equal(before, network.cnn.conv_stem.normalization.running_mean)
    assert network.loaded == frozenset()


def test_resolved_config_needs_no_file(folder: str, tmp_path: Path) -> None:
    resolved = HubConfig(weights=folder, stride=8).resolved()
    trained = Hub(resolved)
    for path in tmp_path.iterdir():
        path.unlink()
    read_back = HubConfig.model_validate(resolved.model_dump(mode="json") | {"weights": "none"})
    rebuilt = Hub(read_back)
    rebuilt.load_state_dict(trained.state_dict())
    assert torch.equal(rebuilt.mean, trained.mean)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = rebuilt.eval()(image).maps, trained.eval()(image).maps
    assert all(torch.equal(first, second) for first, second in zip(ours, theirs, strict=True))
    assert read_back.resolved() == read_back


@pytest.mark.parametrize("kind", ["mobilenet_v1"], indirect=True)
def test_finished_run_predicts_without_the_initial_weights(
    folder: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = {
        "data": {"name": "synthetic", "count": 4, "val_count": 2, "size_px": 64, "crop_px": 64},
        "backbone": {"name": "hub", "weights": folder},
        "method": {"name": "cam"},
        "optim": {"steps": 1, "batch_size": 2},
        "run": {"workers": 0, "samples": 0},
    }
    train(parse_recipe(recipe, "recipe"), out)
    shutil.rmtree(folder)
    segmenter = Segmenter.load(out)
    assert segmenter.predict(np.zeros((40, 50, 3), np.uint8)).mask.shape == (40, 50)
    assert segmenter.method.backbone.channels == (32, 64, 128, 256)


def test_mean_and_std_of_the_recipe_override_the_published_ones() -> None:
    config = HubConfig(arch="resnet18", mean=(1, 2, 3), std=(4, 5, 6)).resolved()
    assert config.mean == (1, 2, 3)
    assert config.std == (4, 5, 6)


@pytest.mark.parametrize(
    ("arch", "stride", "message"),
    [
        (
            {"model_type": "bert", "num_hidden_layers": 1, "vocab_size": 99},
            16,
            "bert: not a network for images",
        ),
        ({"model_type": "dinov2", "num_hidden_layers": 1}, 16, "dinov2: has no maps at strides"),
        ({"model_type": "vit", "num_hidden_layers": 1}, 16, "vit: cannot be a backbone"),
        (SMALL_CVT, 32, "cvt: its last map has stride 16; set"),
        (SMALL_CVT, 8, "cvt: has attention"),
        ({"model_type": "cvt", "depth": [1, 1, 1]}, 16, "cvt: cannot be built"),
        (
            {"model_type": "poolformer", "depths": [1, 1, 1, 1]},
            16,
            "poolformer: its AvgPool2d at stride 32 cannot be dilated; take a larger",
        ),
    ],
)
def test_unsuitable_networks_are_rejected_in_one_line(
    arch: dict[str, Any], stride: int, message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        Hub(HubConfig(arch=arch, stride=stride))
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_rejected(folder: str, kind: str) -> None:
    other = "mobilenet_v1_0.5" if kind != "mobilenet_v1" else "resnet18"
    with pytest.raises(WeightsError, match="weights of another architecture"):
        Hub(HubConfig(weights=folder, arch=other))


@pytest.mark.real
@torch.no_grad()
def test_maps_of_real_weights_equal_those_of_hybrid(mobilenet: Path) -> None:
    hub = Hub(HubConfig(weights=str(mobilenet))).eval()
    hybrid = Hybrid(HybridConfig(weights=str(mobilenet), blocks=0)).eval()
    assert hub.weights_license == "Apache-2.0"
    assert hub.channels == hybrid.channels
    assert hub.strides == hybrid.strides
    image = hub.normalize(torch.randint(0, 256, (1, 3, 120, 150), dtype=torch.uint8))
    assert image.abs().max() <= 1
    for first, second in zip(hub(image).maps, hybrid(image).maps, strict=True):
        assert first.std() > 0.1
        torch.testing.assert_close(first, second, atol=2e-4, rtol=1e-4)
