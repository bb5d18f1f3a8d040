import numpy as np
import pytest

from tag2mask.inference.kept_maps import keep_maps, remake_mask


@pytest.mark.parametrize("tags", [None, [1, 0, 0], [0, 1, 1], [0, 0, 0]])
@pytest.mark.parametrize(
    "settings",
    [{}, {"background": 0.2, "refiner": "none"}, {"class_threshold": 0.1}, {"refiner": "pamr"}],
)
def test_a_remade_mask_is_that_of_a_complete_pass(segmenter, source, tags, settings):
    image = source[0].image
    row = None if tags is None else np.array(tags, dtype=np.uint8)
    maps = keep_maps(segmenter, image, row)
    chosen = segmenter.with_settings(**settings)
    made, expected = remake_mask(chosen, maps, row), chosen.segment(image, row)
    np.testing.assert_array_equal(made.mask, expected.mask)
    assert made.scores == expected.scores
    assert made.class_source == expected.class_source
    assert made.uncertainty == pytest.approx(expected.uncertainty.total)
    assert made.uses_background
    assert made.uses_class_threshold == (tags is None)
    if tags is not None:
        assert made.selected == tuple(np.array(segmenter.class_names)[row == 1])


def test_the_size_counts_image_and_maps(segmenter, source):
    maps = keep_maps(segmenter, source[0].image)
    least = source[0].image.nbytes + maps.output.cam.nbytes
    views = sum(view.nbytes for view in maps.output.views)
    assert maps.nbytes == least + maps.output.probs.nbytes + views
