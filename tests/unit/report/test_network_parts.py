import io
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.config.schema import MethodConfig
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.build import build_method
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.report.images import RunData
from tag2mask.report.network_parts import (
    NetworkParts,
    head_weights,
    inspect_network,
    open_network,
)
from tag2mask.report.run_parts import read_run
from tag2mask.types import Batch


class TwoBlocks(Backbone):
    """Attention of two blocks, with one and two heads."""

    channels = (1, 1, 1, 1)
    attention_channels = 3

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        zeros = (torch.zeros(len(image), heads, 16, 4) for heads in (1, 2))
        blocks = tuple(QueryKey(part, part) for part in zeros)
        return Features((), blocks if attention else ())


class Stub(Method):
    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        raise AssertionError("head weights need no CAM")


def test_head_weights_are_split_by_block() -> None:
    method = Stub(MethodConfig(name="stub"), TwoBlocks(), 2, None, 10)
    assert head_weights(method) == {}
    method.affinity = torch.nn.Module()
    method.affinity.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    expected = {"block 1 of the last 2": [1.0], "block 2 of the last 2": [-2.0, 3.0]}
    assert head_weights(method) == expected
    assert method.training


def write_run(folder: Path, method: str, **data: int) -> Recipe:
    scenes = {"name": "synthetic", "count": 3, "val_count": 2, "size_px": 64, "crop_px": 64, **data}
    parts = {"afa": {"name": "afa", "decoder_width": 8}, "cam": {"name": "cam"}}
    raw = {
        "data": scenes,
        "backbone": {"name": "tiny"},
        "method": parts[method],
        "refiner": {"name": "par"},
        "predict": {"long_side_px": 0, "scales": [1.0]},
        "run": {"samples": 2},
    }
    classes = ("house", "beetle", "flag", "target", "board")
    recipe = parse_recipe(raw, "test").with_classes(classes)
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    built = build_method(recipe)
    save_weights(folder / "weights" / "last.safetensors", built.state_dict(), recipe)
    return recipe


def inspect(
    folder: Path, query: tuple[float, float] | None = None, data: RunData | None = None
) -> NetworkParts:
    run = read_run(folder)
    segmenter, missing = open_network(run)
    assert segmenter is not None
    assert missing == ()
    return inspect_network(segmenter, run, data or RunData(run.recipe), query)


@pytest.fixture
def afa_run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_run(tmp_path / "run", "afa")
    return tmp_path / "run"


def test_trained_network_adds_strips_affinity_maps_and_head_weights(afa_run: Path) -> None:
    parts = inspect(afa_run)
    assert (parts.weights, parts.images, parts.missing) == ("last", "held-out images", ())
    assert [picture.name for picture in parts.strips] == ["val_000000", "val_000001"]
    assert [picture.name for picture in parts.affinity_maps] == ["val_000000", "val_000001"]
    widths = [
        PILImage.open(io.BytesIO(pictures[0].data)).size[0]
        for pictures in (parts.strips, parts.affinity_maps)
    ]
    assert widths[1] == 3 * 174 + 6  # square images of 168 px
    assert 7 * 174 + 6 <= widths[0] < 7 * 174 + 30  # captions that the page shrinks are larger
    assert [len(weights) for weights in parts.head_weights.values()] == [4, 4]


def test_query_selects_another_position(afa_run: Path) -> None:
    left, right = (inspect(afa_run, (x, 0.5)).affinity_maps for x in (0.1, 0.9))
    assert left[0].data != right[0].data


def test_training_images_are_shown_if_none_are_held_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "cam", val_count=0)
    parts = inspect(tmp_path / "run")
    assert parts.images == "training images"
    assert len(parts.strips) == 2
    assert parts.head_weights == {}
    assert parts.missing == ()


def test_query_of_a_network_without_affinity_is_listed_as_missing(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "cam")
    parts = inspect(tmp_path / "run", (0.5, 0.5))
    assert parts.affinity_maps == ()
    assert "this network computes neither" in parts.missing[0]


def test_lost_weights_or_images_are_listed_in_one_line(run: Path, afa_run: Path) -> None:
    segmenter, (line,) = open_network(read_run(run))
    assert segmenter is None
    assert line.startswith("samples from the trained network: ")
    assert "weights" in line
    parts = inspect(afa_run, data=RunData(read_run(run).recipe))
    assert "nowhere: no such folder" in parts.missing[0]
    assert parts.strips == ()
    assert len(parts.head_weights) == 2
