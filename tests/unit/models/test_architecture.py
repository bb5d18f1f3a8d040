from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig

from tag2mask.errors import WeightsError
from tag2mask.models.architecture import (
    known_architecture,
    network_config,
    pixel_statistics,
    resolve_architecture,
)


def folder_with(path: Path, **files: object) -> str:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


def test_architecture_of_weights_is_resolved_completely(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        config={
            "model_type": "mobilenet_v1",
            "depth_multiplier": 0.5,
            "id2label": {"0": "cat"},
            "architectures": ["MobileNetV1ForImageClassification"],
        },
    )
    resolved = resolve_architecture(None, folder)
    assert resolved["model_type"] == "mobilenet_v1"
    assert resolved["depth_multiplier"] == 0.5
    assert resolved["layer_norm_eps"] == 0.001  # a default
    assert not {"id2label", "architectures", "transformers_version"} & resolved.keys()


@pytest.mark.parametrize("kind", ["mobilenet_v1", "mobilenet_v2", "resnet", "regnet", "convnext"])
def test_resolved_architecture_survives_yaml_and_resolves_to_itself(kind: str) -> None:
    resolved = resolve_architecture({"model_type": kind}, None)
    again = yaml.safe_load(yaml.safe_dump(resolved))
    assert again == resolved == resolve_architecture(again, None)
    assert network_config(again).to_dict() == AutoConfig.for_model(kind).to_dict()


def test_known_names_need_no_files() -> None:
    assert known_architecture("mobilenet_v1_0.75_192") == {
        "model_type": "mobilenet_v1",
        "depth_multiplier": 0.75,
        "image_size": 192,
    }
    assert known_architecture("mobilenet_v2_1.4_224")["depth_multiplier"] == 1.4
    assert known_architecture("resnet-101")["depths"] == [3, 4, 23, 3]
    assert known_architecture("resnet18")["layer_type"] == "basic"
    assert known_architecture("some/where") is None


def test_architecture_of_the_recipe_overrides_that_of_the_weights(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"model_type": "resnet"})
    assert resolve_architecture("mobilenet_v1_0.5", folder)["model_type"] == "mobilenet_v1"


def test_local_folder_overrides_a_known_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path / "resnet50", config={"model_type": "resnet", "depths": [1, 1, 1, 1]})
    monkeypatch.chdir(tmp_path)
    assert resolve_architecture("resnet50", None)["depths"] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (None, r"needs backbone\.weights .* or backbone\.arch"),
        ({"model_type": "no_such"}, "no architecture 'no_such'"),
        ({}, "no architecture 'None'"),
        ({"model_type": "resnet", "depths": 3}, r"backbone\.arch: .*depths"),
        ("no_such_name", "no such file or folder"),
    ],
)
def test_invalid_architectures_are_rejected_in_one_line(arch: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        resolve_architecture(arch, None)
    assert "\n" not in str(caught.value)


def test_weights_without_architecture_name_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json .* set backbone\.arch"):
        resolve_architecture(None, str(tmp_path))


def test_published_pixel_statistics_are_used(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, preprocessor_config={"image_mean": [0.1, 0.2, 0.4], "image_std": [0.2, 0.2, 0.2]}
    )
    mean, std = pixel_statistics(folder, {"model_type": "resnet"})
    assert mean == pytest.approx((25.5, 51, 102))
    assert std == pytest.approx((51, 51, 51))


def test_default_pixel_statistics_depend_on_the_architecture() -> None:
    assert pixel_statistics(None, {"model_type": "mobilenet_v1"}) == ((127.5,) * 3, (127.5,) * 3)
    mean, std = pixel_statistics(None, {"model_type": "resnet"})
    assert mean == pytest.approx((123.675, 116.28, 103.53))
    assert std == pytest.approx((58.395, 57.12, 57.375))


def test_missing_and_doubled_normalization_are_supported(tmp_path: Path) -> None:
    plain = folder_with(tmp_path / "plain", preprocessor_config={"do_normalize": False})
    assert pixel_statistics(plain, {"model_type": "resnet"}) == ((0.0,) * 3, (255.0,) * 3)
    twice = folder_with(
        tmp_path / "twice",
        preprocessor_config={"image_mean": [0, 0, 0], "image_std": [0.5] * 3, "include_top": True},
    )
    assert pixel_statistics(twice, {"model_type": "efficientnet"})[1] == (63.75,) * 3
