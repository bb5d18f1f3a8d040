from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tag2mask.data.base import Source
from tag2mask.palette import voc_palette
from tag2mask.prediction.segmenter import Segmenter
from tag2mask.prediction.strips import (
    HEAT,
    Panel,
    draw_strip,
    heat_colours,
    save_strips,
    strip_panels,
)


def test_strip_shows_every_stage_and_truth_where_there_is_one(
    segmenter: Segmenter, source: Source
) -> None:
    titles = [panel.title for panel in strip_panels(segmenter, source[0])]
    assert titles == ["photo", "evidence (CAM)", "refined", "pseudo-label", "prediction", "truth"]
    sample = source[0]
    bare = type(sample)(sample.name, sample.image, sample.tags)
    assert [panel.title for panel in strip_panels(segmenter, bare)][-1] == "prediction"


def test_pseudo_label_follows_the_tags_and_prediction_the_classifier(
    segmenter: Segmenter, source: Source
) -> None:
    panels = {panel.title: panel for panel in strip_panels(segmenter, source[1])}
    assert panels["pseudo-label"].values == ((2, "cow"),)
    assert panels["photo"].note == "tags: cow"
    scores = segmenter.class_scores(source[1].image)
    found = {text.split()[0] for _, text in panels["prediction"].values}
    assert found == {name for name, prob in scores.items() if prob > 0.5}


def test_masks_are_painted_on_the_photo_and_background_is_dimmed(
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


def test_photo_without_tags_has_no_evidence_but_a_strip(
    segmenter: Segmenter, source: Source
) -> None:
    panels = {panel.title: panel for panel in strip_panels(segmenter, source[3])}
    assert panels["photo"].note == "tags: no class"
    assert panels["pseudo-label"].values == ()
    grey = source[3].image.mean(axis=2, keepdims=True)
    dark = (0.25 * grey + 0.75 * np.array(HEAT[0])).round()
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


def test_heat_runs_from_dark_to_light() -> None:
    colours = heat_colours(np.linspace(0, 1, 50, dtype=np.float32)[None])
    assert colours[0, 0].tolist() == list(HEAT[0])
    assert colours[0, -1].tolist() == list(HEAT[-1])
    light = colours[0].astype(int).sum(axis=1)
    assert (np.diff(light) > 0).all()


@pytest.mark.parametrize("size", [(3, 400), (400, 3), (1, 1)])
def test_odd_shapes_are_drawn(size: tuple[int, int]) -> None:
    panel = Panel(np.zeros((*size, 3), dtype=np.uint8), "photo", note="tags: " + "very long " * 20)
    strip = draw_strip([panel] * 3)
    assert strip.size[0] <= 3 * 330
    assert strip.size[1] < 260


def test_strips_leave_random_numbers_alone(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    save_strips(segmenter, source, [0], tmp_path, 1)
    assert torch.equal(torch.rand(1), expected)
