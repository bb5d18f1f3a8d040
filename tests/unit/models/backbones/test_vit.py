from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPModel,
    DeiTForImageClassificationWithTeacher,
    Dinov2ForImageClassification,
    PreTrainedModel,
    ViTForImageClassification,
)

from tag2mask.errors import WeightsError
from tag2mask.models.backbones.vit import ViT, ViTConfig

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
    "initializer_range": 0.3,
}
KINDS: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "deit": SMALL,
    "dinov2": SMALL | {"image_size": 56, "patch_size": 14, "layerscale_value": 0.7},
    "clip": {
        "vision_config": SMALL,
        "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    },
}
PUBLISHED = {
    "vit": ViTForImageClassification,
    "deit": DeiTForImageClassificationWithTeacher,
    "dinov2": Dinov2ForImageClassification,
    "clip": CLIPModel,
}
PREFIX = {"deit": 2}
"""Tokens before the patches; 1 for the others."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> str:
    """Save a network with its heads and random weights, as it is published."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **KINDS[kind])
    network: PreTrainedModel = PUBLISHED[kind](config)
    for name, parameter in network.named_parameters():
        if "position" in name or "token" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(tmp_path)
    return str(tmp_path)


def plain(folder: str, image: Tensor, prefix: int) -> tuple[list[Tensor], list[Tensor]]:
    """Run the network of `transformers`; return patch tokens and attention among patches.

    Returns:
        Tokens (N, L, D) after blocks 1, 2, 3 and, normalized, 4; attention (N, heads, L, L).
    """
    network = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    options = {"output_hidden_states": True, "output_attentions": True}
    if network.config.model_type == "clip":
        network = network.vision_model
    if "dinov2" not in network.config.model_type:
        options["interpolate_pos_encoding"] = True
    out = network(image, **options)
    last = out.last_hidden_state
    if hasattr(network, "post_layernorm"):
        last = network.post_layernorm(last)
    tokens = [*(out.hidden_states[block] for block in (1, 2, 3)), last]
    shares = [one[:, :, prefix:, prefix:] for one in out.attentions]
    return [one[:, prefix:] for one in tokens], [one / one.sum(3, keepdim=True) for one in shares]


@torch.no_grad()
def test_maps_and_attention_equal_those_of_transformers(kind: str, folder: str) -> None:
    network = ViT(ViTConfig(weights=folder, captured_blocks=9)).eval()
    height, width = 2 * network.patch, 5 * network.patch  # position embeddings: interpolated
    image = torch.randn(2, 3, height, width)
    ours = network(image, attention=True)
    tokens, attention = plain(folder, image, PREFIX.get(kind, 1))
    for maps, expected in zip(ours.maps, tokens, strict=True):
        assert expected.std() > 0.1
        torch.testing.assert_close(maps.flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)
    assert len(ours.attention) == len(attention) == 4
    for logits, expected in zip(ours.logits(), attention, strict=True):
        assert expected.std() > 0.01
        shares = (logits * network.head_dim**-0.5).softmax(dim=3)
        torch.testing.assert_close(shares, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_last_blocks_are_captured(kind: str, folder: str) -> None:
    image = torch.randn(1, 3, 64, 64)
    two, every = (ViT(ViTConfig(weights=folder, captured_blocks=n)).eval() for n in (2, 4))
    assert two.attention_channels == 8
    last, all_blocks = two(image, attention=True).logits(), every(image, attention=True).logits()
    assert len(last) == 2
    for ours, expected in zip(last, all_blocks[2:], strict=True):
        assert torch.equal(ours, expected)


@torch.no_grad()
def test_odd_sizes_are_padded_with_the_mean_color(kind: str, folder: str) -> None:
    network = ViT(ViTConfig(weights=folder)).eval()
    image = torch.randn(1, 3, 33, 47)
    sides = [-(-side // network.patch) * network.patch for side in image.shape[2:]]
    padded = torch.zeros(1, 3, *sides)
    padded[:, :, :33, :47] = image
    assert torch.equal(network(image).maps[3], network(padded).maps[3])


def test_every_trainable_parameter_has_a_gradient(kind: str, folder: str) -> None:
    network = ViT(ViTConfig(weights=folder)).train()
    network(torch.randn(1, 3, 64, 64)).maps[3].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert network.loaded == {name for name, _ in network.named_parameters()}


def test_resolved_settings_build_the_network_without_files(kind: str, folder: str) -> None:
    resolved = ViTConfig(weights=folder).resolved()
    read_back = ViTConfig.model_validate(resolved.model_dump(mode="json") | {"weights": "none"})
    loaded, bare = ViT(ViTConfig(weights=folder)), ViT(read_back)
    bare.load_state_dict(loaded.state_dict())
    assert not bare.loaded


def test_weights_of_another_size_are_rejected(folder: str) -> None:
    arch = {"model_type": "vit", **SMALL, "hidden_size": 64}
    with pytest.raises(WeightsError, match=r"cannot be loaded|another architecture"):
        ViT(ViTConfig(weights=folder, arch=arch))


def test_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="resnet: backbone 'vit' takes vit, deit"):
        ViT(ViTConfig(arch="resnet18"))
