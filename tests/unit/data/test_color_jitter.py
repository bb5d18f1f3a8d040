"""Color changes against plain arithmetic and Python's own color circle."""

import colorsys

import numpy as np
import pytest

from tag2mask.config.schema import DataConfig
from tag2mask.data import color_jitter
from tag2mask.data.color_jitter import jitter_colors

ALONE = {"jitter_brightness": 0, "jitter_contrast": 0, "jitter_saturation": 0, "jitter_hue": 0}


def config(**changes):
    return DataConfig(name="folder", **{"jitter": 1.0, **changes})


def noise(seed=0):
    return np.random.default_rng(seed).integers(40, 180, (9, 12, 3)).astype(np.uint8)


def only(which, amount, seed):
    """The picture with one change alone, and the amount that was drawn for it."""
    settings = config(**{**ALONE, f"jitter_{which}": amount})
    rng = np.random.default_rng(seed)
    rng.random()
    place = ("brightness", "contrast", "saturation", "hue").index(which)
    drawn = amount * rng.uniform(-1, 1, size=4)[place]
    return jitter_colors(noise(), settings, np.random.default_rng(seed)), drawn


def gray(image):
    """ITU-R 601 luma."""
    return image @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("seed", range(4))
def test_brightness_contrast_and_saturation_mix_with_black_mean_and_gray(seed):
    image = noise().astype(float)
    towards = {
        "brightness": np.zeros_like(image),
        "contrast": np.full_like(image, gray(image).mean()),
        "saturation": np.repeat(gray(image)[..., None], 3, axis=2),
    }
    for which, anchor in towards.items():
        found, drawn = only(which, 0.4, seed)
        expected = (anchor + (1 + drawn) * (image - anchor)).clip(0, 255)
        assert np.abs(found - expected).max() <= 1.5, which
        assert np.abs(found - image).max() > 3, which


@pytest.mark.parametrize("seed", range(4))
def test_hue_turns_on_the_color_circle(seed):
    found, drawn = only("hue", 0.5, seed)
    wanted = []
    for pixel in noise().reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        wanted.append(colorsys.hsv_to_rgb((hue + drawn) % 1, saturation, value))
    apart = np.abs(found.reshape(-1, 3) - 255 * np.array(wanted))
    assert apart.max() < 9  # a byte of hue is 1.4 degrees
    assert apart.mean() < 1.5


def test_the_order_of_changes_is_random(monkeypatch):
    seen = []
    for name in ("_brightness", "_contrast", "_saturation", "_hue"):

        def note(picture, amount, name=name):
            seen.append(name)
            return picture

        monkeypatch.setattr(color_jitter, name, note)
    for seed in range(60):
        jitter_colors(noise(), config(), np.random.default_rng(seed))
    orders = [tuple(seen[start : start + 4]) for start in range(0, 240, 4)]
    assert all(len(set(order)) == 4 for order in orders)
    assert len(set(orders)) > 12  # of 24


def test_share_is_obeyed_and_without_it_nothing_is_drawn():
    image = noise()
    changed = [
        bool((jitter_colors(image, config(jitter=0.5), np.random.default_rng(seed)) != image).any())
        for seed in range(200)
    ]
    assert 70 < sum(changed) < 130
    rng = np.random.default_rng(0)
    assert jitter_colors(image, config(jitter=0), rng) is image
    assert rng.random() == np.random.default_rng(0).random()


def test_same_state_gives_the_same_colors_and_the_image_stays():
    image = noise()
    kept = image.copy()
    first, again, other = (
        jitter_colors(image, config(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(image, kept)
