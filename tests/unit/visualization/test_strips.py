import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.data.base import Source
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.palette import voc_palette
from tag2mask.methods.build import build_method
from tag2mask.types import Sample
from tag2mask.visualization.panels import HEAT, Panel
from tag2mask.visualization.strips import save_strips, strip_panels


def test_strip_shows_every_stage_and_truth_where_there_is_one(
    segmenter: Segmenter, source: Source
) -> None:
    titles = [panel.title for panel in strip_panels(segmenter, source[0])]
    assert titles == [
        "image",
        "evidence (CAM)",
        "refined (par)",
        "pseudo-label",
        "prediction",
        "truth",
    ]
    sample = source[0]
    bare = type(sample)(sample.name, sample.image, sample.tags)
    assert [panel.title for panel in strip_panels(segmenter, bare)][-1] == "prediction"


def test_pseudo_label_follows_the_tags_and_prediction_the_classifier(
    segmenter: Segmenter, source: Source
) -> None:
    panels = {panel.title: panel for panel in strip_panels(segmenter, source[1])}
    assert panels["pseudo-label"].values == ((2, "cow"),)
    assert panels["image"].note == "tags: cow"
    scores = segmenter.class_scores(source[1].image)
    found = {text.split()[0] for _, text in panels["prediction"].values}
    assert found == {name for name, probs in scores.items() if probs > 0.5}


def test_masks_are_painted_on_the_image_and_background_is_dimmed(
    segmenter: Segmenter, source: Source
) -> None:
    image = source[1].image
    panels = {panel.title: panel.picture for panel in strip_panels(segmenter, source[1])}
    for title, mask in (
        ("pseudo-label", segmenter.label(image, ["cow"]).mask),
        ("prediction", segmenter.predict(image).mask),
    ):
        share = np.where(mask > 0, 0.65, 0)[..., None]
        ground = np.where((mask > 0)[..., None], image, 0.6 * image)
        expected = (1 - share) * ground + share * voc_palette()[mask]
        np.testing.assert_allclose(panels[title], expected, atol=1)


def test_image_without_tags_has_no_cam_but_a_strip(segmenter: Segmenter, source: Source) -> None:
    panels = {panel.title: panel for panel in strip_panels(segmenter, source[3])}
    assert panels["image"].note == "tags: no class"
    assert panels["pseudo-label"].values == ()
    gray = source[3].image.mean(axis=2, keepdims=True)
    dark = (0.25 * gray + 0.75 * np.array(HEAT[0])).round()
    np.testing.assert_allclose(panels["evidence (CAM)"].picture, dark, atol=1)


def test_files_sort_by_step_and_nothing_is_trained(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    segmenter.method.train()
    paths = save_strips(segmenter, source, [2, 0], tmp_path / "samples", 500)
    assert [path.name for path in paths] == [
        "step000500_00_lane2_a.png",
        "step000500_01_lane1_a.png",
    ]
    assert segmenter.method.training
    assert all(parameter.grad is None for parameter in segmenter.method.parameters())
    with PILImage.open(paths[0]) as picture:
        assert picture.size[0] > 5 * 72


def test_strips_leave_random_numbers_alone(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    save_strips(segmenter, source, [0], tmp_path, 1)
    assert torch.equal(torch.rand(1), expected)


def decoder_recipe(affinity: str = "propagate", radius: int = 30) -> Recipe:
    raw = {
        "data": {"name": "folder", "classes": ["cat", "cow", "dog"]},
        "backbone": {"name": "tiny"},
        "method": {"name": "afa", "affinity": affinity, "radius": radius, "decoder_width": 8},
        "refiner": {"name": "par"},
        "predict": {"long_side_px": 0},
    }
    return parse_recipe(raw, "test")


@pytest.fixture
def decoding() -> Segmenter:
    torch.manual_seed(0)
    recipe = decoder_recipe()
    return Segmenter(build_method(recipe), recipe)


def by_title(segmenter: Segmenter, sample: Sample) -> dict[str, Panel]:
    return {panel.title: panel for panel in strip_panels(segmenter, sample)}


def with_affinity(segmenter: Segmenter, affinity: Callable[[int], torch.Tensor]) -> None:
    grown = segmenter.method.maps

    def maps(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"affinity": affinity(grown(image)["affinity"].shape[-1])[None]}

    segmenter.method.maps = maps  # type: ignore[method-assign]


def test_strip_of_a_decoder_shows_how_its_labels_come_about(
    decoding: Segmenter, source: Source
) -> None:
    assert list(by_title(decoding, source[0])) == [
        "image",
        "evidence (CAM)",
        "refined (par)",
        "propagated",
        "pseudo-label (propagated)",
        "prediction (decoder)",
        "truth",
    ]


def test_without_affinity_the_label_of_a_decoder_is_cut_from_refined_cam(
    source: Source,
) -> None:
    recipe = decoder_recipe("off")
    panels = by_title(Segmenter(build_method(recipe), recipe), source[0])
    assert "propagated" not in panels
    assert "pseudo-label (refined)" in panels


def test_without_refiner_nothing_is_called_refined(segmenter: Segmenter, source: Source) -> None:
    recipe = segmenter.recipe.model_copy(update={"refiner": None})
    panels = by_title(Segmenter(segmenter.method, recipe), source[0])
    assert list(panels) == ["image", "evidence (CAM)", "pseudo-label", "prediction", "truth"]


def test_cam_stays_where_each_cell_is_alike_to_itself_alone(
    decoding: Segmenter, source: Source
) -> None:
    with_affinity(decoding, torch.eye)
    sample = source[1]
    cam = decoding.run_network(sample.image, sample.tags).cam[:, 1:2]  # cow
    coarse = F.interpolate(cam, (6, 8), mode="bilinear")  # 45 x 63 px over 8, rounded up
    thing = coarse.exp() / (coarse.exp() + math.exp(0.35))
    thing = F.interpolate(thing, sample.image.shape[:2], mode="bilinear")
    note = by_title(decoding, sample)["propagated"].note
    assert note == f"object {thing.min():.2f} to {thing.max():.2f}"


def test_cam_is_even_where_all_cells_are_alike(decoding: Segmenter, source: Source) -> None:
    with_affinity(decoding, lambda cells: torch.ones(cells, cells))
    low, high = by_title(decoding, source[1])["propagated"].note.split()[1::2]
    assert low == high


def test_cam_walks_within_the_window_that_was_trained(source: Source) -> None:
    torch.manual_seed(0)
    recipe = decoder_recipe(radius=1)
    near = Segmenter(build_method(recipe), recipe)
    with_affinity(near, lambda cells: torch.ones(cells, cells))
    low, high = by_title(near, source[1])["propagated"].note.split()[1::2]
    assert low < high


def test_label_of_a_decoder_follows_the_affinity(decoding: Segmenter, source: Source) -> None:
    with_affinity(decoding, lambda cells: torch.ones(cells, cells))
    sample = source[1]
    probs = decoding.run_network(sample.image, sample.tags).cam[:, 1:2]
    coarse = F.interpolate(probs, (6, 8), mode="bilinear")
    share = (coarse.exp() / (coarse.exp() + math.exp(0.35))).mean()  # the same in every cell
    panel = by_title(decoding, sample)["pseudo-label (propagated)"]
    assert panel.values == (((2, "cow"),) if share > 0.5 else ())
    dimmed = sample.image * 0.6
    shown = dimmed if share <= 0.5 else 0.35 * sample.image + 0.65 * voc_palette()[2]
    np.testing.assert_allclose(panel.picture, shown, atol=1)
