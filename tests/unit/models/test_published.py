from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, ResNetConfig

from tag2mask.errors import WeightsError
from tag2mask.models.published import PublishedConfig, build_network, freeze_unused


def test_parameters_without_influence_are_frozen() -> None:
    used, unused = nn.Linear(2, 2), nn.Linear(2, 2)
    network = nn.ModuleList([used, unused])
    freeze_unused(network, lambda: [used(torch.ones(1, 2)), used(torch.ones(3, 2))])
    assert [one.requires_grad for one in network.parameters()] == [True, True, False, False]


def test_own_statistics_replace_the_published_ones() -> None:
    config = PublishedConfig(name="hub", arch="resnet18", mean=(1, 2, 3)).resolved()
    mean, std = config.statistics()
    assert mean == (1, 2, 3)
    assert std == pytest.approx((58.395, 57.12, 57.375))


def test_networks_without_images_are_refused() -> None:
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    with pytest.raises(WeightsError, match="bert: not a network for images"):
        build_network(config)


def test_contradictory_settings_are_one_line() -> None:
    config = ResNetConfig(depths=[1], hidden_sizes=[], embedding_size=8)
    with pytest.raises(WeightsError, match=r"resnet: cannot be built \(.*\)"):
        build_network(config)
