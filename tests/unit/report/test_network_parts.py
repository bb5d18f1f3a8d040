import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.config.schema import MethodConfig
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.build import build_method
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.report.network_parts import head_weights, look_at_network, pair_panels
from tag2mask.report.run_parts import read_run
from tag2mask.types import Batch, Sample
from tag2mask.visualization.affinity_maps import inspect_image
from tag2mask.visualization.panels import Panel

GRID = (4, 6)
BRIGHT = {0: (1, 4), 1: (3, 2)}
"""Class -> row and column of its strongest evidence."""


class Still(Backbone):
    """Gives nothing but the sizes that a network would."""

    channels = (1, 1, 1, 1)
    attention_channels = 3

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        zeros = (torch.zeros(len(image), heads, 16, 4) for heads in (1, 2))
        blocks = tuple(QueryKey(part, part) for part in zeros)
        return Features((), blocks if attention else ())


class Comparing(Method):
    """Attends to the cell before, in raster order; is alike to itself, and half to the last."""

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        cam = torch.zeros(len(image), 2, *GRID)
        for key, (row, column) in BRIGHT.items():
            cam[:, key, row, column] = 1
        return CamOutput(torch.tensor([[1.0, 2.0]]).expand(len(image), -1), cam)

    def maps(self, image: Tensor) -> Mapping[str, Tensor]:
        cells = GRID[0] * GRID[1]
        affinity = torch.eye(cells)
        affinity[:, -1] = affinity[-1] = 0.5
        return {"attention": torch.eye(cells).roll(-1, dims=1)[None], "affinity": affinity[None]}


class Blind(Comparing):
    def maps(self, image: Tensor) -> Mapping[str, Tensor]:
        return {}


RAW = {
    "data": {"name": "folder", "classes": ["cat", "cow"]},
    "backbone": {"name": "tiny"},
    "method": {"name": "cam"},
    "predict": {"scales": [1.0], "flip": False},
}


def seeing(kind: type[Method]) -> Segmenter:
    recipe = parse_recipe(RAW, "test")
    method = kind(MethodConfig(name="stub"), Still(), 2, None, 10)
    return Segmenter(method, recipe)


def random_image(*tags: int) -> Sample:
    image = np.full((64, 96, 3), 128, dtype=np.uint8)
    return Sample("a", image, np.array(tags, dtype=np.uint8))


def panels_of(
    segmenter: Segmenter, sample: Sample, query: tuple[float, float] | None = None
) -> list[Panel]:
    return pair_panels(segmenter, sample, inspect_image(segmenter, sample), query)


def brightest(panel: Panel) -> tuple[int, int]:
    """Row and column of the cell whose middle is lightest."""
    light = panel.picture.astype(int).sum(axis=2)[8::16, 8::16]
    row, column = divmod(int(light.argmax()), GRID[1])
    return row, column


def test_default_query_is_the_strongest_cell_of_the_likeliest_tag() -> None:
    for tags, key, name in (((1, 0), 0, "cat"), ((0, 1), 1, "cow"), ((1, 1), 1, "cow")):
        query = panels_of(seeing(Comparing), random_image(*tags))[0]
        row, column = BRIGHT[key]
        assert query.note == f"strongest {name}"
        assert query.point == ((column + 0.5) / 6, (row + 0.5) / 4)


def test_image_without_tags_is_asked_for_its_likeliest_class() -> None:
    assert panels_of(seeing(Comparing), random_image(0, 0))[0].note == "strongest cow"


def test_maps_are_those_of_the_chosen_cell() -> None:
    query, attention, affinity = panels_of(seeing(Comparing), random_image(1, 0), (0.4, 0.6))
    assert (query.title, attention.title, affinity.title) == (
        "query point",
        "attention",
        "affinity",
    )
    assert query.note == "query 0.4, 0.6"
    assert query.point == attention.point == affinity.point == (2.5 / 6, 2.5 / 4)
    assert brightest(attention) == (2, 1)  # the cell before (2, 2)
    assert attention.note == "peak 24.0 x mean"
    assert brightest(affinity) == (2, 2)
    assert affinity.note == "from 0.00 to 1.00"
    last = affinity.picture[-8, -8].astype(int).sum()
    assert affinity.picture[8, 8].astype(int).sum() < last  # half alike


def test_network_that_compares_nothing_has_no_pair_panels() -> None:
    assert panels_of(seeing(Blind), random_image(1, 0)) == []


def test_head_weights_are_split_by_block() -> None:
    method = Comparing(MethodConfig(name="stub"), Still(), 2, None, 10)
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


@pytest.fixture
def afa(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_run(tmp_path / "run", "afa")
    return tmp_path / "run"


def test_trained_network_shows_strips_pairs_and_head_weights(afa: Path) -> None:
    parts = look_at_network(read_run(afa))
    assert (parts.weights, parts.images, parts.missing) == ("last", "held-out images", ())
    assert [picture.name for picture in parts.strips] == ["val_000000", "val_000001"]
    assert [picture.name for picture in parts.affinity_maps] == ["val_000000", "val_000001"]
    widths = [
        PILImage.open(io.BytesIO(made[0].png)).size[0]
        for made in (parts.strips, parts.affinity_maps)
    ]
    assert widths == [7 * 174 + 6, 3 * 174 + 6]  # square images of 168 px
    assert [len(weights) for weights in parts.head_weights.values()] == [4, 4]


def test_query_chooses_another_cell(afa: Path) -> None:
    left, right = (look_at_network(read_run(afa), (x, 0.5)).affinity_maps for x in (0.1, 0.9))
    assert left[0].png != right[0].png


def test_images_to_learn_from_are_shown_where_none_are_held_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "cam", val_count=0)
    parts = look_at_network(read_run(tmp_path / "run"))
    assert parts.images == "images of the training list"
    assert len(parts.strips) == 2
    assert parts.head_weights == {}
    assert parts.missing == ()


def test_query_of_a_network_that_compares_nothing_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "cam")
    parts = look_at_network(read_run(tmp_path / "run"), (0.5, 0.5))
    assert parts.affinity_maps == ()
    assert "compares no cells" in parts.missing[0]


def test_weights_or_images_that_are_gone_are_told_in_one_line(run: Path, afa: Path) -> None:
    (told,) = look_at_network(read_run(run)).missing
    assert "holds no weights" in told
    parts = read_run(afa)
    lost = read_run(run).recipe
    without = look_at_network(parts._replace(recipe=lost))
    assert "nowhere: no such folder" in without.missing[0]
    assert without.strips == ()
    assert len(without.head_weights) == 2
