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
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.palette import overlay_palette
from tag2mask.methods.build import build_method
from tag2mask.types import Sample
from tag2mask.visualization.heat_maps import HEAT_COLORS, overlay_heat
from tag2mask.visualization.panels import CAPTION_PX, Panel
from tag2mask.visualization.strips import draw_strip, save_strips, strip_panels


def panels_of(segmenter: Segmenter, sample: Sample) -> list[Panel]:
    return strip_panels(segmenter, sample, inspect_image(segmenter, sample))


def by_title(segmenter: Segmenter, sample: Sample) -> dict[str, Panel]:
    return {panel.title: panel for panel in panels_of(segmenter, sample)}


@pytest.mark.parametrize("size", [(3, 400), (400, 3), (1, 1)])
def test_extreme_shapes_are_drawn(size: tuple[int, int]) -> None:
    panel = Panel(np.zeros((*size, 3), dtype=np.uint8), "image", note="tags: " + "very long " * 20)
    strip = draw_strip([panel] * 3)
    assert strip.size[0] <= 3 * 330
    assert strip.size[1] < 260


def test_narrow_panels_leave_room_for_their_captions() -> None:
    narrow = np.zeros((168, 90, 3), dtype=np.uint8)
    values = ((1, "a long name 0.97"), (2, "another name 0.61"))
    panels = [Panel(narrow, "image"), Panel(narrow, "prediction", values)]
    strip = np.asarray(draw_strip(panels))
    captions = (strip[6 + 168 :] < 200).any(axis=(0, 2))  # columns with ink or a swatch
    last = captions.nonzero()[0].max()
    assert last > 6 + 90 + 6 + 2 * 90  # beyond the picture
    assert strip.shape[1] - last > 6  # and not up to the end of the strip, which would clip it
    assert strip.shape[1] <= 3 * 6 + 90 + 320


def test_captions_of_a_wide_strip_grow_as_much_as_a_page_shrinks_it() -> None:
    panels = [Panel(np.zeros((200, 300, 3), dtype=np.uint8), "image", note="tags: cat")] * 6
    plain = draw_strip(panels)
    drawn = draw_strip(panels, 600)
    assert drawn.width == plain.width  # the pictures stay as they are
    picture_px = plain.height - CAPTION_PX
    grown = (drawn.height - picture_px) / CAPTION_PX
    assert grown == pytest.approx(plain.width / 600, abs=0.05)
    assert draw_strip(panels, plain.width).height == plain.height


def test_strip_shows_every_stage_and_the_ground_truth_if_known(
    segmenter: Segmenter, source: Source
) -> None:
    titles = [panel.title for panel in panels_of(segmenter, source[0])]
    assert titles == [
        "image",
        "CAM",
        "refined CAM (par)",
        "pseudo-label",
        "prediction",
        "ground truth",
    ]
    sample = source[0]
    bare = type(sample)(sample.name, sample.image, sample.tags)
    assert [panel.title for panel in panels_of(segmenter, bare)][-1] == "prediction"


def test_pseudo_label_uses_the_tags_and_prediction_the_classifier(
    segmenter: Segmenter, source: Source
) -> None:
    panels = by_title(segmenter, source[1])
    assert panels["pseudo-label"].values == ((2, "cow"),)
    assert panels["image"].note == "tags: cow"
    scores = segmenter.class_scores(source[1].image)
    named = {text.split()[0] for _, text in panels["prediction"].values}
    assert named == {name for name, prob in scores.items() if prob > 0.5}


def test_masks_lie_over_the_image_and_background_is_dimmed(
    segmenter: Segmenter, source: Source
) -> None:
    image = source[1].image
    panels = {panel.title: panel.picture for panel in panels_of(segmenter, source[1])}
    for title, mask in (
        ("pseudo-label", segmenter.label(image, ["cow"]).mask),
        ("prediction", segmenter.predict(image).mask),
    ):
        share = np.where(mask > 0, 0.65, 0)[..., None]
        ground = np.where((mask > 0)[..., None], image, 0.6 * image)
        expected = (1 - share) * ground + share * overlay_palette()[mask]
        np.testing.assert_allclose(panels[title], expected, atol=1)


def test_image_without_tags_has_a_strip_with_an_empty_cam(
    segmenter: Segmenter, source: Source
) -> None:
    panels = by_title(segmenter, source[3])
    assert panels["image"].note == "tags: no class"
    assert panels["pseudo-label"].values == ()
    gray = source[3].image.mean(axis=2, keepdims=True)
    dark = (0.25 * gray + 0.75 * np.array(HEAT_COLORS[0])).round()
    np.testing.assert_allclose(panels["CAM"].picture, dark, atol=1)


def test_cam_panel_shows_the_largest_cam_of_the_tags(segmenter: Segmenter, source: Source) -> None:
    tags = np.array([1, 1, 0], dtype=np.uint8)
    sample = Sample("both", source[0].image, tags)
    cam = segmenter.run_network(sample.image, tags).cam
    largest = F.interpolate(cam, sample.image.shape[:2], mode="bilinear")[0, :2].amax(dim=0)
    expected = overlay_heat(sample.image, largest.numpy())
    picture = by_title(segmenter, sample)["CAM"].picture
    np.testing.assert_allclose(picture.astype(int), expected.astype(int), atol=1)


def test_files_sort_by_step_and_nothing_is_trained(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    segmenter.method.train()
    paths = save_strips(segmenter, [source[2], source[0]], tmp_path / "samples", 500)
    assert [path.name for path in paths] == [
        "step000500_00_lane2_a.png",
        "step000500_01_lane1_a.png",
    ]
    assert segmenter.method.training
    assert all(parameter.grad is None for parameter in segmenter.method.parameters())
    with PILImage.open(paths[0]) as picture:
        assert picture.size[0] > 5 * 72


def test_strips_do_not_draw_random_numbers(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    save_strips(segmenter, [source[0]], tmp_path, 1)
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
def decoder_segmenter() -> Segmenter:
    torch.manual_seed(0)
    recipe = decoder_recipe()
    return Segmenter(build_method(recipe), recipe)


def with_affinity(segmenter: Segmenter, affinity: Callable[[int], torch.Tensor]) -> None:
    original_maps = segmenter.method.attention_maps

    def attention_maps(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"affinity": affinity(original_maps(image)["affinity"].shape[-1])[None]}

    segmenter.method.attention_maps = attention_maps  # type: ignore[method-assign]


def test_strip_of_a_decoder_shows_the_stages_of_its_pseudo_label(
    decoder_segmenter: Segmenter, source: Source
) -> None:
    assert list(by_title(decoder_segmenter, source[0])) == [
        "image",
        "CAM",
        "refined CAM (par)",
        "propagated CAM",
        "pseudo-label (propagated)",
        "prediction (decoder)",
        "ground truth",
    ]


def test_without_affinity_the_label_of_a_decoder_comes_from_the_refined_cam(
    source: Source,
) -> None:
    recipe = decoder_recipe("off")
    panels = by_title(Segmenter(build_method(recipe), recipe), source[0])
    assert "propagated CAM" not in panels
    assert "pseudo-label (refined)" in panels


def test_without_refiner_no_panel_is_called_refined(segmenter: Segmenter, source: Source) -> None:
    recipe = segmenter.recipe.model_copy(update={"refiner": None})
    panels = by_title(Segmenter(segmenter.method, recipe), source[0])
    assert list(panels) == ["image", "CAM", "pseudo-label", "prediction", "ground truth"]


def test_identity_affinity_keeps_the_cam(decoder_segmenter: Segmenter, source: Source) -> None:
    with_affinity(decoder_segmenter, torch.eye)
    sample = source[1]
    cam = decoder_segmenter.run_network(sample.image, sample.tags).cam[:, 1:2]  # cow
    coarse = F.interpolate(cam, (6, 8), mode="bilinear")  # 45 x 63 px over 8, rounded up
    foreground = coarse.exp() / (coarse.exp() + math.exp(0.35))
    foreground = F.interpolate(foreground, sample.image.shape[:2], mode="bilinear")
    note = by_title(decoder_segmenter, sample)["propagated CAM"].note
    assert note == f"foreground {foreground.min():.2f} to {foreground.max():.2f}"


def test_uniform_affinity_makes_the_cam_uniform(
    decoder_segmenter: Segmenter, source: Source
) -> None:
    with_affinity(decoder_segmenter, lambda length: torch.ones(length, length))
    low, high = by_title(decoder_segmenter, source[1])["propagated CAM"].note.split()[1::2]
    assert low == high


def test_cam_propagates_within_the_trained_window(source: Source) -> None:
    torch.manual_seed(0)
    recipe = decoder_recipe(radius=1)
    near_segmenter = Segmenter(build_method(recipe), recipe)
    with_affinity(near_segmenter, lambda length: torch.ones(length, length))
    low, high = by_title(near_segmenter, source[1])["propagated CAM"].note.split()[1::2]
    assert low < high


def test_label_of_a_decoder_depends_on_the_affinity(
    decoder_segmenter: Segmenter, source: Source
) -> None:
    with_affinity(decoder_segmenter, lambda length: torch.ones(length, length))
    sample = source[1]
    cam = decoder_segmenter.run_network(sample.image, sample.tags).cam[:, 1:2]
    coarse = F.interpolate(cam, (6, 8), mode="bilinear")
    share = (coarse.exp() / (coarse.exp() + math.exp(0.35))).mean()  # the same everywhere
    panel = by_title(decoder_segmenter, sample)["pseudo-label (propagated)"]
    assert panel.values == (((2, "cow"),) if share > 0.5 else ())
    dimmed = sample.image * 0.6
    shown = dimmed if share <= 0.5 else 0.35 * sample.image + 0.65 * overlay_palette()[2]
    np.testing.assert_allclose(panel.picture, shown, atol=1)
