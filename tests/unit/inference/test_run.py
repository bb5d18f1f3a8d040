from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.api import open_run
from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.data.base import Source
from tag2mask.errors import RunError, WeightsError
from tag2mask.inference.run import Configure, resolve_device
from tag2mask.inference.segmenter import Segmenter, load
from tag2mask.methods.advcam import AdvCAM, AdvCAMConfig
from tag2mask.methods.build import build_method


def read_by(**settings: float) -> Configure:
    """Let `advcam` read the weights of a run of `cam`."""
    return lambda recipe: recipe.model_copy(update={"method": AdvCAMConfig(**settings)})


def write_run(segmenter: Segmenter, folder: Path, which: str = "best") -> Path:
    state = segmenter.method.state_dict()
    save_weights(folder / "weights" / f"{which}.safetensors", state, segmenter.recipe)
    return folder


def test_another_method_reads_the_weights_of_a_run(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    loaded = load(write_run(segmenter, tmp_path), configure=read_by(iterations=3))
    assert isinstance(loaded.method, AdvCAM)
    for name, value in loaded.method.state_dict().items():
        assert torch.equal(value, segmenter.method.state_dict()[name])
    image = source[0].image
    plain, climbed = (one.label(image, ["dog"], keep_cam=True).cam for one in (segmenter, loaded))
    assert plain is not None
    assert climbed is not None
    assert np.abs(climbed - plain).max() > 0.05
    assert "labeling" not in segmenter.settings("tags")
    settings = loaded.settings("tags")
    assert settings["method"] == "advcam"
    assert settings["labeling"]["iterations"] == 3


def test_a_method_that_cannot_read_a_run_says_so_in_one_line(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    run = write_run(segmenter, tmp_path)
    with pytest.raises(WeightsError) as caught:
        load(run, configure=read_by(width=8))
    message = str(caught.value)
    assert "\n" not in message
    assert "(of method 'cam') read by method 'advcam': weights of another architecture" in message
    assert "head.classifier.weight is (3, 8, 1, 1) in the network" in message


def test_a_run_makes_finer_maps_at_a_smaller_stride(source: Source, tmp_path: Path) -> None:
    recipe = parse_recipe(
        {
            "method": {"name": "cam"},
            "backbone": {
                "name": "hub",
                "arch": {"model_type": "mobilenet_v1", "depth_multiplier": 0.25},
                "mean": [127.5] * 3,
                "std": [127.5] * 3,
            },
            "data": {"name": "synthetic", "classes": ["cat", "cow", "dog"]},
        },
        "test",
    )
    run = write_run(Segmenter(build_method(recipe), recipe, "cpu"), tmp_path)
    coarse, fine = open_run(run, {}), open_run(run, {"backbone.stride": "8"})
    image = torch.zeros(1, 3, 64, 96)
    assert coarse.method.compute_cam(image).cam.shape[-2:] == (4, 6)
    assert fine.method.compute_cam(image).cam.shape[-2:] == (8, 12)
    assert fine.settings("tags")["stride"] == 8
    assert fine.label(source[0].image, ["cow"]).mask.shape == source[0].image.shape[:2]


def test_run_trained_from_other_weights_needs_them_no_more(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    gone = segmenter.recipe.backbone.model_copy(update={"weights": "/gone/weights"})
    segmenter.recipe = segmenter.recipe.model_copy(update={"backbone": gone})
    loaded = Segmenter.load(str(write_run(segmenter, tmp_path)))
    assert loaded.recipe.backbone.weights == "/gone/weights"


def test_best_falls_back_to_last_and_settings_say_so(segmenter: Segmenter, tmp_path: Path) -> None:
    write_run(segmenter, tmp_path, "last")
    settings = Segmenter.load(tmp_path).settings("tags")
    assert settings["weights"] == "last"
    assert len(settings["sha256"]) == 64


def test_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        Segmenter.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a run.*no weights/best\.safetensors"):
        Segmenter.load(tmp_path)


def test_hub_model_that_cannot_be_fetched_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(repo: str, **_: object) -> str:
        raise OSError(f"offline, {repo} is not cached\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", reject)
    with pytest.raises(WeightsError) as caught:
        Segmenter.load("org/name")
    assert str(caught.value).count("\n") == 0
    assert "offline, org/name is not cached" in str(caught.value)


def test_hub_model_is_loaded_from_its_snapshot(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(segmenter, tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: str(tmp_path))
    assert Segmenter.load("org/name").settings("classifier")["run"] == "org/name"


def test_weights_of_another_architecture_are_rejected(
    segmenter: Segmenter, recipe: Recipe, tmp_path: Path
) -> None:
    state = segmenter.method.state_dict()
    wider = recipe.with_classes(("cat", "cow", "dog", "horse"))
    save_weights(tmp_path / "weights" / "best.safetensors", state, wider)
    with pytest.raises(WeightsError, match="head"):
        Segmenter.load(tmp_path)


def test_a_device_is_the_gpu_if_there_is_one_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"


@pytest.mark.parametrize("method", ["rml", "afa", "onestage", "rrm"])
def test_a_method_that_trains_with_a_refiner_labels_without_one(
    method: str, tmp_path: Path
) -> None:
    recipe = parse_recipe(
        {
            "method": {"name": method},
            "backbone": {"name": "tiny", "weights": "none"},
            "refiner": {"name": "par"},
            "data": {"name": "synthetic", "classes": ["a", "b"]},
        },
        "test",
    )
    segmenter = Segmenter(build_method(recipe), recipe, "cpu")
    without = load(
        write_run(segmenter, tmp_path),
        configure=lambda trained: trained.model_copy(update={"refiner": None}),
    )
    assert without.settings("tags")["refiner"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_network_makes_no_masks(
    segmenter: Segmenter, tmp_path: Path, value: float
) -> None:
    state = segmenter.method.state_dict()
    state["head.classifier.weight"] = state["head.classifier.weight"].clone().fill_(value)
    path = tmp_path / "weights" / "best.safetensors"
    save_weights(path, state, segmenter.recipe)
    with pytest.raises(WeightsError) as caught:
        Segmenter.load(tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: 1 of ")
    assert "head.classifier.weight; the training has diverged: train again" in line
