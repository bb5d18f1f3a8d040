from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.app.limits import Limits
from tag2mask.app.maps import MapCache, MaskMaker
from tag2mask.app.messages import MaskSettings
from tag2mask.app.refusals import RefusedError, TooLargeError
from tag2mask.errors import DataError
from tag2mask.inference.kept_maps import KeptMaps
from tag2mask.methods.protocol import NetworkOutput


@pytest.fixture
def maker(segmenter):
    made = MaskMaker(segmenter, Limits(image_mpx=1))
    yield made
    made.close()


@pytest.fixture
def image(image_folder) -> Path:
    return image_folder() / "lane1" / "a.png"


def test_thresholds_and_refiners_do_not_run_the_network_again(maker, image):
    masks = [
        maker.make("0", "a", image, MaskSettings(tags=("cat",), background=level, refiner=refiner))
        for level in (0.1, 0.5, 0.9)
        for refiner in ("none", "par")
    ]
    maker.make("0", "a", image, MaskSettings(class_threshold=0.1))
    assert maker.network_runs == 1
    areas = [(one.mask == 1).sum() for one in masks[::2]]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1]


def test_the_mask_is_that_of_label(maker, segmenter, image):
    made = maker.make("0", "a", image, MaskSettings(tags=("cow",)))
    expected = segmenter.label(image, "cow")
    np.testing.assert_array_equal(made.mask, expected.mask)


def test_the_run_says_its_own_settings(maker):
    assert maker.refiner == "par"
    assert maker.background == 0.45
    assert {"none", "par", "dense_crf"} <= set(maker.refiners)


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        (MaskSettings(tags=("dgo",)), DataError, "Did you mean 'dog'"),
        (MaskSettings(refiner="sharp"), RefusedError, "unknown refiner 'sharp'"),
    ],
)
def test_a_wrong_setting_is_one_line(maker, image, settings, error, reason):
    with pytest.raises(error, match=reason):
        maker.make("0", "a", image, settings)
    assert maker.network_runs == 0


def test_an_image_with_too_many_pixels_is_refused(segmenter, image):
    maker = MaskMaker(segmenter, Limits(image_mpx=0))
    with pytest.raises(TooLargeError, match="63x45"):
        maker.make("0", "a", image, MaskSettings())
    maker.close()


def test_images_of_the_ranking_are_not_kept(maker, image):
    for _ in range(2):
        maker.make("0", "a", image, MaskSettings(), keep=False)
    assert maker.network_runs == 2


def maps(number: int) -> KeptMaps:
    output = NetworkOutput(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1))
    return KeptMaps(np.zeros((number, 1, 3), dtype=np.uint8), output)


def test_the_cache_never_holds_more_than_its_bytes():
    one = maps(96).nbytes
    assert one == 96 * 3 + 100 + 4
    cache = MapCache(2 * one)
    for key in range(10):
        cache.put(key, maps(96))
        cache.put(key, maps(96))
    assert len(cache) == 2
    assert cache.nbytes == 2 * one
    assert cache.get(7) is None
    assert cache.get(8) is not None
    cache.put(10, maps(96))
    assert cache.get(9) is None  # 8 was used later


def test_an_image_larger_than_the_cache_is_still_kept():
    cache = MapCache(10)
    cache.put(0, maps(96))
    assert cache.get(0) is not None
