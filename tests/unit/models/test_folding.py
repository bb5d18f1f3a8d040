from __future__ import annotations

import copy

import pytest
import torch
from tests.conformance.stand_ins import randomized_batchnorm
from torch import Tensor, nn
from transformers import MobileNetV1Config, MobileNetV1Model, ResNetConfig, ResNetModel

from tag2mask.models.folding import fold, fold_layers, folded, pad_within


def random_pair() -> nn.Sequential:
    pair = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, eps=1e-3))
    norm = pair[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return pair.double()


def folded_copy(pair: nn.Sequential) -> nn.Sequential:
    folded_pair = copy.deepcopy(pair)
    fold(folded_pair[0], folded_pair[1])
    return folded_pair


def gradients(pair: nn.Sequential, image: Tensor) -> dict[str, Tensor]:
    pair.zero_grad()
    pair(image).square().sum().backward()
    return {name: one.grad for name, one in pair.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("training", [False, True])
def test_folding_keeps_values_gradients_and_statistics(training: bool) -> None:
    original = random_pair().train(training)
    folded_pair, image = (
        folded_copy(original).train(training),
        torch.randn(3, 4, 8, 8, dtype=torch.float64),
    )
    torch.testing.assert_close(folded_pair(image), original(image))
    expected, actual = gradients(original, image), gradients(folded_pair, image)
    assert actual.keys() == expected.keys() == {"0.weight", "1.weight", "1.bias"}
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient)
    for name, value in original.state_dict().items():
        torch.testing.assert_close(folded_pair.state_dict()[name], value)


def test_folded_norm_returns_its_input_in_evaluation_mode() -> None:
    folded_pair, maps = (
        folded_copy(random_pair()).eval(),
        torch.randn(1, 6, 4, 4, dtype=torch.float64),
    )
    assert folded_pair[1](maps) is maps


def test_folded_weight_by_hand() -> None:
    """(2 x - 3) / sqrt(4) * 5 + 1 equals 5 x - 6.5."""
    norm = nn.BatchNorm2d(1, eps=0).eval()
    for name, value in (("running_mean", 3), ("running_var", 4), ("weight", 5), ("bias", 1)):
        getattr(norm, name).data.fill_(value)
    weight, bias = folded(torch.full((1, 1, 1, 1), 2.0), norm)
    assert weight.item() == 5
    assert bias.item() == -6.5


def test_copy_folds_its_own_norm() -> None:
    folded_pair = folded_copy(random_pair()).eval()
    copied, image = copy.deepcopy(folded_pair), torch.randn(1, 4, 8, 8, dtype=torch.float64)
    before = copied(image)
    nn.init.zeros_(folded_pair[1].weight)
    assert torch.equal(copied(image), before)
    assert copied.state_dict().keys() == folded_pair.state_dict().keys()


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25)), 27),
        (ResNetModel(ResNetConfig(depths=[1, 1, 1, 2], hidden_sizes=[16] * 4)), 1 + 15 + 4),
    ],
)
@torch.no_grad()
def test_folded_networks_give_the_same_maps(network: nn.Module, layers: int) -> None:
    randomized_batchnorm(network)
    network, image = network.double().eval(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = network(image, output_hidden_states=True).hidden_states
    assert fold_layers(network) == layers
    actual = network(image, output_hidden_states=True).hidden_states
    for first, second in zip(actual, expected, strict=True):
        torch.testing.assert_close(first, second)


@torch.no_grad()
def test_only_strided_layers_keep_copying() -> None:
    """MobileNetV1 has 27 convolutions, 5 of them strided."""
    network = MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25)).double().eval()
    image = torch.randn(1, 3, 47, 64, dtype=torch.float64)
    expected = network(image, output_hidden_states=True).hidden_states
    assert pad_within(network) == 22
    assert network.config.tf_padding
    actual = network(image, output_hidden_states=True).hidden_states
    for first, second in zip(actual, expected, strict=True):
        assert first.shape == second.shape
        torch.testing.assert_close(first, second)
