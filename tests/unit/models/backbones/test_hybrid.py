from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

from tag2mask.errors import WeightsError
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.hybrid import Hybrid, HybridConfig

WEIGHTS = os.environ.get("TAG2MASK_MOBILENET")
SMALL = 0.25


@pytest.fixture(scope="module")
def reference() -> MobileNetV1ForImageClassification:
    """Build MobileNetV1 0.25 of `transformers` with random weights and BatchNorm statistics."""
    torch.manual_seed(3)
    network = MobileNetV1ForImageClassification(
        MobileNetV1Config(depth_multiplier=SMALL, num_labels=5)
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2.0)
            torch.nn.init.uniform_(module.weight, 0.7, 1.5)
            torch.nn.init.normal_(module.bias, 0.3, 0.3)
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network.eval()


@pytest.fixture(scope="module")
def folder(
    reference: MobileNetV1ForImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("weights")
    reference.save_pretrained(path)
    return path


def loaded(folder: Path, blocks: int = 2) -> Hybrid:
    return Hybrid(HybridConfig(weights=str(folder), depth_multiplier=SMALL, blocks=blocks))


def plain_features(reference: MobileNetV1ForImageClassification, image: Tensor) -> list[Tensor]:
    """Compute the maps at strides 4, 8, 16 and the last map at stride 16, layer by layer."""
    out, maps = reference.mobilenet_v1.conv_stem(image), []
    for index, layer in enumerate(reference.mobilenet_v1.layer):
        if index < 22:
            out = layer(out)
        else:
            conv, dilation = layer.convolution, 2 if index == 24 else 1
            pad = dilation if conv.kernel_size == (3, 3) else 0
            out = F.conv2d(out, conv.weight, None, 1, pad, dilation, conv.groups)
            out = layer.normalization(out).clamp(0, 6)
        if index in (5, 9, 21, 25):
            maps.append(out)
    return maps


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (50, 62)])
def test_maps_equal_the_plain_modules(
    reference: MobileNetV1ForImageClassification, folder: Path, height: int, width: int
) -> None:
    image = torch.rand(2, 3, height, width) * 2 - 1
    with torch.no_grad():
        ours, expected = loaded(folder)(image).maps, plain_features(reference, image)
    for first, second in zip(ours, expected, strict=True):
        assert second.std() > 0.05
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_gradients_equal_the_plain_modules(
    reference: MobileNetV1ForImageClassification, folder: Path
) -> None:
    network, image = loaded(folder, blocks=0).train(), torch.rand(2, 3, 48, 48) * 2 - 1
    weight = torch.randn(2, network.channels[3], 3, 3)
    reference.zero_grad()
    (plain_features(reference, image)[3] * weight).sum().backward()
    (network(image).maps[3] * weight).sum().backward()
    theirs = dict(reference.mobilenet_v1.named_parameters())
    ours = dict(network.cnn.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, atol=1e-3, rtol=1e-3, msg=name
        )


def test_branch_adds_nothing_at_initialization(folder: Path) -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        hybrid, plain = loaded(folder)(image), loaded(folder, blocks=0)(image, attention=True)
    assert plain.attention == ()
    assert torch.equal(hybrid.maps[3], plain.maps[3])


def test_branch_has_gradients_although_it_starts_at_zero(folder: Path) -> None:
    network, image = loaded(folder), torch.rand(1, 3, 64, 64)
    network(image).maps[3].square().sum().backward()
    assert network.branch is not None
    assert network.branch.up.weight.grad is not None
    assert network.branch.up.weight.grad.abs().sum() > 0
    assert network.branch.down.weight.grad is not None
    assert network.branch.down.weight.grad.abs().sum() == 0
    torch.nn.init.normal_(network.branch.up.weight)
    network(image).maps[3].square().sum().backward()
    assert network.branch.down.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 96)])
def test_map_sizes_are_rounded_up(height: int, width: int) -> None:
    network = Hybrid(HybridConfig(depth_multiplier=SMALL)).eval()
    with torch.no_grad():
        features = network(torch.randn(1, 3, height, width), attention=True)
    for maps, stride, channels in zip(
        features.maps, network.strides, network.channels, strict=True
    ):
        assert maps.shape == (1, channels, -(-height // stride), -(-width // stride))
    tokens = -(-height // 16) * -(-width // 16)
    assert [tuple(logits.shape) for logits in features.logits()] == [(1, 8, tokens, tokens)] * 2
    assert network.attention_channels == 16
    assert network.head_dim == 32


def test_default_width_has_the_documented_channels() -> None:
    network = Hybrid(HybridConfig())
    assert network.channels == (96, 192, 384, 768)
    assert Hybrid(HybridConfig(blocks=0)).attention_channels == 0


def test_loaded_statistics_are_fixed_and_loaded_norms_are_frozen(folder: Path) -> None:
    network = loaded(folder).train()
    freeze_loaded_norms(network)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(2, 3, 64, 64)).maps[3].sum().backward()
    for name, value in network.named_buffers():
        assert torch.equal(before[name], value), name
    for name, parameter in network.named_parameters():
        loaded_norm = name.startswith("cnn.") and "normalization" in name
        assert parameter.requires_grad != loaded_norm, name
    assert network.training


def test_loaded_parameters_are_those_of_mobilenet(folder: Path) -> None:
    network = loaded(folder)
    names = {name for name, _ in network.named_parameters()}
    assert network.loaded == {name for name in names if name.startswith("cnn.")}
    assert len(network.loaded) == 27 * 3


def test_statistics_train_from_scratch() -> None:
    network = Hybrid(HybridConfig(depth_multiplier=SMALL, weights="none")).train()
    freeze_loaded_norms(network)
    assert network.loaded == frozenset()
    assert all(parameter.requires_grad for parameter in network.parameters())
    before = network.cnn.conv_stem.normalization.running_mean.clone()
    network(torch.rand(2, 3, 64, 64) + 1).maps[3].sum().backward()
    assert not torch.equal(before, network.cnn.conv_stem.normalization.running_mean)


def test_weights_of_another_width_name_the_key_to_set(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"set backbone\.depth_multiplier to 0\.25"):
        Hybrid(HybridConfig(weights=str(folder)))


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save({"patch_embed1.proj.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "mit_b1.pth")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(WeightsError, match="weights of another architecture"):
        Hybrid(HybridConfig(weights=str(tmp_path / "mit_b1.pth")))


@pytest.mark.real
@pytest.mark.skipif(WEIGHTS is None, reason="TAG2MASK_MOBILENET is not set")
def test_maps_of_real_weights_equal_the_plain_modules() -> None:
    assert WEIGHTS is not None
    network = Hybrid(HybridConfig(weights=WEIGHTS)).train()
    assert network.weights_license == "Apache-2.0"
    image = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    image[..., 64:] = 255
    normal = network.normalize(image)
    assert normal.min() == -1
    assert normal.max() == 1
    reference = MobileNetV1ForImageClassification.from_pretrained(WEIGHTS).eval()
    with torch.no_grad():
        expected, ours = plain_features(reference, normal), network(normal).maps
    for first, second in zip(ours, expected, strict=True):
        torch.testing.assert_close(first, second, atol=2e-4, rtol=1e-4)
