"""Tiles against the same image in one piece, and hand-made networks for what tiles share."""

import numpy as np
import pytest
import torch
from torch import nn

from tag2mask.config.overrides import apply_overrides
from tag2mask.functional import bands
from tag2mask.inference.large_images import needs_tiles
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import CamOutput

SIDE = 128


def with_keys(segmenter, *words):
    texts = dict(word.split("=") for word in words)
    recipe = apply_overrides(segmenter.recipe.plain(), texts, "test")
    return Segmenter(segmenter.method, recipe)


def smooth_image(height, width, seed=0):
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, height // 16 + 2, width // 16 + 2)))
    fine = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


class ColorNetwork:
    """Class maps that are the color channels: class 0 is red, 1 is green, 2 is blue."""

    def __init__(self, method, monkeypatch):
        def compute_cam(image, tags=None):
            pixels = image * method.backbone.std.view(1, 3, 1, 1) + method.backbone.mean.view(
                1, 3, 1, 1
            )
            cam = nn.functional.avg_pool2d(pixels / 255, 4, ceil_mode=True)
            return CamOutput(10 * cam.amax(dim=(2, 3)) - 2, cam)

        monkeypatch.setattr(method, "compute_cam", compute_cam)


@pytest.fixture
def color_segmenter(segmenter, monkeypatch):
    ColorNetwork(segmenter.method, monkeypatch)
    return with_keys(segmenter, "predict.scales=1.0", "predict.tile_px=128", "predict.flip=false")


def test_a_tile_without_objects_stays_background(color_segmenter):
    image = np.full((SIDE, 3 * SIDE, 3), 8, dtype=np.uint8)
    random = np.random.default_rng(0)
    image[..., 1] += random.integers(0, 8, image.shape[:2], dtype=np.uint8)  # noise has a peak, too
    image[40:80, 20:60, 1] = 250
    made = color_segmenter.label(image, "cow")
    assert (made.mask[44:76, 24:56] == 2).all()
    assert not made.mask[:, 70:].any()
    alone = color_segmenter.label(image[:, 2 * SIDE :], "cow")
    assert alone.mask.any()  # by itself, the noise is the peak


def test_a_class_of_one_tile_is_a_class_of_the_image(color_segmenter):
    image = np.zeros((SIDE, 3 * SIDE, 3), dtype=np.uint8)
    image[40:80, 300:340, 2] = 250
    made = color_segmenter.predict(image)
    assert made.classes == ("dog",)
    assert made.scores["dog"] > 0.5 > made.scores["cow"]
    assert (made.mask[44:76, 304:336] == 3).all()


@pytest.mark.parametrize("refiner", ["none", "par", "dense_crf"])
def test_tiles_of_a_position_free_network_leave_no_seam(color_segmenter, refiner):
    segmenter = (
        with_keys(color_segmenter, f"refiner.name={refiner}")
        if refiner != "none"
        else (color_segmenter.with_settings(refiner="none"))
    )
    image = smooth_image(140, 152)
    whole = with_keys(segmenter, "predict.tile_px=1024").label(image, ["cat", "cow"])
    tiled = with_keys(segmenter, "predict.tile_px=128").label(image, ["cat", "cow"])
    assert (whole.mask == tiled.mask).mean() > 0.97


def test_an_image_just_above_the_limit_gets_nearly_the_same_mask(segmenter):
    image = smooth_image(288, 288)
    whole = with_keys(segmenter, "predict.tile_px=288").label(image, ["cat", "cow"])
    tiled = with_keys(segmenter, "predict.tile_px=256").label(image, ["cat", "cow"])
    shown = (whole.mask > 0) | (tiled.mask > 0)
    assert shown.any()
    assert (whole.mask == tiled.mask).mean() > 0.9


@pytest.mark.parametrize(
    "keys", [(), ("predict.min_confidence=0.4",), ("predict.crf=true",), ("predict.confident=irn",)]
)
def test_bands_of_one_tile_give_the_mask_of_the_complete_image(segmenter, monkeypatch, keys):
    image = smooth_image(90, 70)
    segmenter = with_keys(segmenter, *keys) if keys else segmenter
    expected = segmenter.label(image, ["cat", "dog"], keep_cam=True)
    monkeypatch.setattr(bands, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(bands, "BAND_PIXELS", 640)
    made = segmenter.label(image, ["cat", "dog"], keep_cam=True)
    assert (made.mask == expected.mask).mean() > 0.999
    np.testing.assert_allclose(made.cam, expected.cam, atol=1e-5)
    assert made.scores == pytest.approx(expected.scores)
    assert made.uncertainty.parts == pytest.approx(expected.uncertainty.parts, abs=1e-3)


def test_untagged_large_image_is_background(color_segmenter):
    made = color_segmenter.label(smooth_image(SIDE, 2 * SIDE), [])
    assert made.mask.shape == (SIDE, 2 * SIDE)
    assert not made.mask.any()


def test_cam_of_tiles_is_blended_and_has_its_peak_at_one(color_segmenter):
    image = np.zeros((SIDE, 3 * SIDE, 3), dtype=np.uint8)
    image[40:80, 100:180, 1] = 250
    cam = color_segmenter.label(image, "cow", keep_cam=True).cam
    assert cam.shape == (3, SIDE // 4, 3 * SIDE // 4)
    assert cam[1].max() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(cam[1][12:18, 28:42], 1, atol=0.02)
    assert not cam[0].any()


def test_untagged_pixels_of_tissue_stay_undecided_in_tiles(color_segmenter):
    segmenter = with_keys(color_segmenter, "predict.has_background=false")
    image = smooth_image(SIDE, 2 * SIDE)
    assert (segmenter.label(image, []).mask == 255).all()
    made = segmenter.label(image, ["cat", "cow"]).mask
    assert set(np.unique(made)) == {1, 2}


def test_images_beyond_the_limit_of_pixels_or_side_need_tiles(segmenter):
    assert not needs_tiles((100, 128), segmenter.config)
    assert needs_tiles((4096, 4097), segmenter.config)  # too many pixels for one piece
    config = segmenter.with_settings(tile_px=128).config
    assert needs_tiles((10, 129, 3), config)
    assert not needs_tiles((128, 128, 3), config)
