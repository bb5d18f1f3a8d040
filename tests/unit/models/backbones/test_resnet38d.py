from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.unit.models.mxnet_file import list_bytes
from torch import Tensor
from torch.nn import functional as F

from tag2mask.errors import WeightsError
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.resnet38d import ResNet38d, ResNet38dConfig, published_names

SMALL = 1 / 16
BLOCKS = ["b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2", "b4", *(f"b4_{i}" for i in range(1, 6))]
BLOCKS += ["b5", "b5_1", "b5_2", "b6", "b7"]


def published_name(name: str) -> str:
    """Rename `b2_1.bn_branch2a.weight` as in the authors' file, `arg:bn2b1_branch2a_gamma`."""
    block, _, rest = name.partition(".")
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
    kinds["running_var"] = "moving_var"
    layer, _, value = rest.partition(".")
    prefix = "aux" if value.startswith("running") else "arg"
    if block == "conv1a":
        return "arg:conv1a_weight"
    if block == "bn7":
        return f"{prefix}:bn7_{kinds[layer]}".replace("aux:bn7_gamma", "arg:bn7_gamma")
    stage, _, repeat = block.removeprefix("b").partition("_")
    unit = f"{stage}b{repeat}" if repeat else f"{stage}a"
    kind, _, branch = layer.partition("_")
    if kind == "conv":
        return f"arg:res{unit}_{branch}_weight"
    return f"{prefix}:bn{unit}_{branch}_{kinds[value]}"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Return the complete state at 1/16 of the width, with random statistics."""
    torch.manual_seed(2)
    network = ResNet38d(ResNet38dConfig(width=SMALL))
    tensors = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if "conv" in name:
            tensors[name] = value * 3
        elif name.endswith("weight") or "var" in name:
            tensors[name] = torch.rand_like(value) + 0.5
        else:
            tensors[name] = torch.randn_like(value) * 0.3
    return tensors


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "resnet38d.safetensors"
    save_file(state, path)
    return str(path)


def loaded(weights: str) -> ResNet38d:
    return ResNet38d(ResNet38dConfig(weights=weights, width=SMALL))


def layer_by_layer(state: dict[str, Tensor], image: Tensor) -> tuple[Tensor, ...]:
    """Compute the network layer by layer from Specification 4.1 and the paper's Table 1."""

    def active(name: str, maps: Tensor) -> Tensor:
        part = [
            state[f"{name}.{key}"][None, :, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        ]
        mean, variance, gamma, beta = part
        return ((maps - mean) / (variance + 1e-5).sqrt() * gamma + beta).clamp(min=0)

    def conv(name: str, maps: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(maps, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)

    actives = {}
    out = conv("conv1a", image)
    for name in BLOCKS:
        actives[name] = first = active(f"{name}.bn_branch2a", out)
        stride = 2 if name in ("b2", "b3", "b4") else 1
        dilation = {"b5": 1, "b5_1": 2, "b5_2": 2}.get(name, 1)
        inner = conv(f"{name}.conv_branch2a", first, stride, dilation)
        inner = active(f"{name}.bn_branch2b1", inner)
        dilation = 2 if name.startswith("b5") else 4 if name in ("b6", "b7") else 1
        inner = conv(f"{name}.conv_branch2b1", inner, 1, dilation)
        if name in ("b6", "b7"):
            inner = conv(f"{name}.conv_branch2b2", active(f"{name}.bn_branch2b2", inner))
        shortcut = f"{name}.conv_branch1"
        out = inner + (conv(shortcut, first, stride) if f"{shortcut}.weight" in state else out)
    return actives["b4"], actives["b5"], actives["b6"], active("bn7", out)


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
@torch.no_grad()
def test_maps_equal_those_computed_layer_by_layer(
    state: dict[str, Tensor], weights: str, size: tuple[int, int]
) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = layer_by_layer({name: value.double() for name, value in state.items()}, image)
    for first, second in zip(loaded(weights).double().eval()(image).maps, expected, strict=True):
        assert second.std() > 0.05
        torch.testing.assert_close(first, second)


def test_number_of_parameters_follows_the_table_of_the_paper() -> None:
    """Pairs of 3 x 3 layers, bottlenecks of 1/4 and 1/2, 1 x 1 shortcuts, BatchNorms."""
    count = 3 * 64 * 9
    pairs = [(64, 128, 128, 3), (128, 256, 256, 3), (256, 512, 512, 6), (512, 512, 1024, 3)]
    for before, between, after, blocks in pairs:
        for index in range(blocks):
            width = before if index == 0 else after
            count += 9 * (width * between + between * after) + 2 * (width + between)
            count += width * after if index == 0 else 0
    for before, after in [(1024, 2048), (2048, 4096)]:
        quarter, half = after // 4, after // 2
        count += before * quarter + 9 * quarter * half + half * after + before * after
        count += 2 * (before + quarter + half)
    with torch.device("meta"):
        network = ResNet38d(ResNet38dConfig())
    assert sum(one.numel() for one in network.parameters()) == count + 2 * 4096
    assert network.channels == (256, 512, 1024, 4096)


def test_all_parameters_are_loaded_and_early_layers_and_norms_are_frozen(weights: str) -> None:
    network = loaded(weights).train()
    freeze_loaded_norms(network)
    assert network.loaded == {name for name, _ in network.named_parameters()}
    assert network.weights_license.startswith("Apache-2.0")
    for name, parameter in network.named_parameters():
        block = name.partition(".")[0]
        frozen = "bn" in name or block == "conv1a" or block.startswith("b2")
        assert parameter.requires_grad != frozen, name
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(2, 3, 32, 32)).maps[3].sum().backward()
    for name, value in network.named_buffers():
        assert torch.equal(before[name], value), name


def test_all_parameters_train_from_scratch() -> None:
    network = ResNet38d(ResNet38dConfig(width=SMALL)).train()
    assert network.loaded == frozenset()
    sum(maps.sum() for maps in network(torch.rand(2, 3, 32, 32)).maps).backward()
    assert all(one.grad is not None for one in network.parameters())


def test_dropout_is_active_only_in_training(weights: str) -> None:
    """With all channels of b6 and b7 dropped, the shortcuts remain."""
    config = ResNet38dConfig(weights=weights, width=SMALL, dropout_b6=1, dropout_b7=1)
    network, image = ResNet38d(config), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        evaluated = network.eval()(image).maps
        dropped = network.train()(image).maps
        shortcut = network.b6.conv_branch1(dropped[2])
        shortcut = network.b7.conv_branch1(F.relu(network.b7.bn_branch2a(shortcut)))
    for first, second in zip(evaluated[:3], dropped[:3], strict=True):
        assert torch.equal(first, second)
    torch.testing.assert_close(dropped[3], F.relu(network.bn7(shortcut)))
    assert not torch.allclose(dropped[3], evaluated[3])


def test_authors_file_is_loaded(state: dict[str, Tensor], weights: str, tmp_path: Path) -> None:
    arrays = {published_name(name): value.numpy() for name, value in state.items()}
    arrays["arg:linear1000_weight"] = np.zeros((10, 4), np.float32)
    arrays["arg:linear1000_bias"] = np.zeros(10, np.float32)
    assert "aux:bn4b5_branch2b1_moving_var" in arrays
    path = tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
    path.write_bytes(list_bytes(arrays, 0))
    ours, expected = loaded(str(path)), loaded(weights)
    assert ours.loaded == expected.loaded
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_torch_files_with_a_classifier_are_loaded(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**state, "fc8.weight": torch.zeros(20, 256, 1, 1)}, tmp_path / "res38_cls.pth")
    assert loaded(str(tmp_path / "res38_cls.pth")).loaded


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda arrays: arrays.pop("conv1a.weight"),
            r"lacks 'conv1a\.weight', so it is not a Wide-",
        ),
        (lambda arrays: arrays.update({"b7.conv_branch1.weight": torch.zeros(1)}), "another archi"),
    ],
)
def test_other_weights_are_rejected_in_one_line(
    state: dict[str, Tensor],
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    tensors = dict(state)
    damage(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=message) as caught:
        loaded(str(tmp_path / "other.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["arg:stage1_unit1_conv1_weight", "arg:res2a_branch2a_gamma", "arg:bn7_weight", "bn7_x"]
)
def test_arrays_of_another_network_are_rejected_by_name(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"f: contains '{name}', so it is not a Wide-ResNet-38"):
        published_names({name: torch.zeros(1)}, "f")
