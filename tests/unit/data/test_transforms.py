"""Augmentation against a literal implementation: complete image, canvas, then a window."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.config.schema import DataConfig
from tag2mask.data.color_jitter import jitter_colors
from tag2mask.data.transforms import Augmented, augment
from tag2mask.types import IGNORE, Sample

TAGS = np.array([1, 0], dtype=np.uint8)
COLOR = (124, 116, 104)


def config(**changes: float) -> DataConfig:
    return DataConfig.model_validate({"name": "folder", "crop_px": 64, **changes})


def noise(height: int, width: int, *, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (height, width), dtype=np.uint8)
    return Sample("noise", image, TAGS, mask)


def literal(sample: Sample, settings: DataConfig, rng: np.random.Generator) -> Augmented:
    """Implement Specification 2.10 step by step, without shortcuts."""
    assert sample.mask is not None
    scale_u, flip_u, pad_y, pad_x, window_y, window_x = rng.random(6)
    scale = settings.scale_min + (settings.scale_max - settings.scale_min) * scale_u
    height, width = sample.mask.shape
    size = (max(1, int(scale * width)), max(1, int(scale * height)))
    image = np.asarray(PILImage.fromarray(sample.image).resize(size, PILImage.Resampling.BILINEAR))
    mask = np.asarray(PILImage.fromarray(sample.mask).resize(size, PILImage.Resampling.NEAREST))
    if flip_u < settings.flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    side, (width, height) = settings.crop_px, size
    tall, wide = max(side, height), max(side, width)
    top, left = int(pad_y * (tall - height + 1)), int(pad_x * (wide - width + 1))
    canvas = np.full((tall, wide, 3), COLOR, np.uint8)
    truth = np.full((tall, wide), IGNORE, np.uint8)
    valid = np.zeros((tall, wide), bool)
    inside = (slice(top, top + height), slice(left, left + width))
    canvas[inside], truth[inside], valid[inside] = image, mask, True
    y, x = int(window_y * (tall - side + 1)), int(window_x * (wide - side + 1))
    window = (slice(y, y + side), slice(x, x + side))
    return Augmented(canvas[window], truth[window], valid[window])


@pytest.mark.parametrize(
    ("height", "width"), [(90, 130), (130, 90), (40, 200), (200, 40), (64, 64), (20, 21), (1, 1)]
)
def test_the_crop_equals_the_literal_implementation(height: int, width: int) -> None:
    sample, settings = noise(height, width), config()
    for seed in range(25):
        crop = augment(sample, settings, np.random.default_rng(seed), COLOR)
        expected = literal(sample, settings, np.random.default_rng(seed))
        for actual, wanted in zip(crop, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_strong_downscaling_equals_the_literal_implementation() -> None:
    sample, settings = noise(300, 500), config(scale_min=0.05, scale_max=0.3)
    for seed in range(25):
        crop = augment(sample, settings, np.random.default_rng(seed), COLOR)
        expected = literal(sample, settings, np.random.default_rng(seed))
        np.testing.assert_array_equal(crop.image, expected.image)


@pytest.mark.parametrize(("height", "width"), [(90, 130), (130, 91), (20, 300), (64, 64)])
def test_the_long_side_is_drawn_uniformly_and_the_other_is_proportional(
    height: int, width: int
) -> None:
    """A crop of 320 px contains the complete image, so its size is that of the valid box."""
    settings = config(long_side_min_px=100, long_side_max_px=103, crop_px=320, scale_min=9, flip=0)
    sample = noise(height, width)
    long_sides = []
    for seed in range(60):
        crop = augment(sample, settings, np.random.default_rng(seed))
        size = (int(crop.valid.any(axis=1).sum()), int(crop.valid.any(axis=0).sum()))
        long_side = max(size)
        long_sides.append(long_side)
        assert size == (
            round(height * long_side / max(height, width)),
            round(width * long_side / max(height, width)),
        )
        resized = PILImage.fromarray(sample.image).resize(size[::-1], PILImage.Resampling.BILINEAR)
        inside = crop.image[crop.valid].reshape(*size, 3)
        np.testing.assert_array_equal(inside, np.asarray(resized))
    assert set(long_sides) == {100, 101, 102, 103}
    assert min(long_sides.count(value) for value in set(long_sides)) > 5


def test_color_jitter_changes_only_image_pixels_and_not_the_crop() -> None:
    sample = noise(40, 50)
    for seed in range(5):
        plain = augment(sample, config(), np.random.default_rng(seed))
        jittered = augment(sample, config(jitter=1), np.random.default_rng(seed))
        np.testing.assert_array_equal(plain.valid, jittered.valid)
        np.testing.assert_array_equal(plain.mask, jittered.mask)
        assert (jittered.image[~jittered.valid] == 0).all()
        assert (jittered.image != plain.image).any()
        expected = np.random.default_rng(seed)
        expected.random(6)
        box = plain.image[np.ix_(plain.valid.any(axis=1), plain.valid.any(axis=0))]
        np.testing.assert_array_equal(
            jittered.image[jittered.valid],
            jitter_colors(box, config(jitter=1), expected).reshape(-1, 3),
        )


def test_padding_is_black_ignored_and_not_valid() -> None:
    sample = Sample("white", np.full((10, 20, 3), 255, np.uint8), TAGS, np.ones((10, 20), np.uint8))
    crop = augment(sample, config(scale_min=1, scale_max=1), np.random.default_rng(3))
    assert crop.mask is not None
    assert crop.valid.sum() == 10 * 20
    assert (crop.image[crop.valid] == 255).all()
    assert (crop.image[~crop.valid] == 0).all()
    assert (crop.mask[~crop.valid] == IGNORE).all()
    rows, columns = np.nonzero(crop.valid)
    assert (np.ptp(rows), np.ptp(columns)) == (9, 19)  # one box


def test_the_state_of_the_generator_determines_the_crop() -> None:
    sample = noise(100, 150)
    first, again, other = (
        augment(sample, config(), np.random.default_rng(seed)).image for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_every_call_draws_the_same_number_of_random_numbers() -> None:
    states = []
    for size in ((10, 20), (300, 400)):
        rng = np.random.default_rng(5)
        augment(noise(*size), config(), rng)
        states.append(rng.random())
    assert states[0] == states[1]


@pytest.mark.parametrize(("flip", "column"), [(0.0, 0), (1.0, 63)])
def test_flip_is_a_probability(flip: float, column: int) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 0] = 255
    settings = config(scale_min=1, scale_max=1, flip=flip)
    for seed in range(5):
        crop = augment(Sample("edge", image, TAGS), settings, np.random.default_rng(seed))
        assert (crop.image[:, column] == 255).all()


def test_a_sample_without_mask_gives_a_crop_without_mask() -> None:
    sample = Sample("plain", np.zeros((64, 64, 3), np.uint8), TAGS)
    assert augment(sample, config(), np.random.default_rng(0)).mask is None


def test_the_sample_is_not_changed() -> None:
    sample = noise(70, 90)
    image, mask = sample.image.copy(), sample.mask
    assert mask is not None
    mask = mask.copy()
    augment(sample, config(flip=1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.mask, mask)
