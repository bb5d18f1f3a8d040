"""Tuning on scripted maps, counted by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from tag2mask.errors import DataError
from tag2mask.evaluation import tuning
from tag2mask.evaluation.tuning import f1, tune_segmenter
from tag2mask.inference import candidate_settings
from tag2mask.methods.protocol import NetworkOutput

SIZE = (4, 10)


class Scripted:
    """Ten columns; the object of class 1 covers some, with a rim of 0.3 beside it in the maps."""

    def __init__(self, source, widths, masked):
        self.class_names = source.class_names
        self.names = tuple(f"image{at}" for at in range(len(widths)))
        self.tags = np.tile(np.array([[1, 0, 0]], dtype=np.uint8), (len(widths), 1))
        self.mask_indices = masked
        self.widths = widths
        self.first = source[0]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        image = np.full((*SIZE, 3), index, dtype=np.uint8)  # the gray level names the image
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[:, : self.widths[index]] = 1
        known = mask if index in self.mask_indices else None
        return dataclasses.replace(
            self.first, name=self.names[index], image=image, tags=self.tags[index], mask=known
        )


@pytest.fixture
def scripted(segmenter, source, monkeypatch):
    """A segmenter without refiner at background 0.1, and a function that makes its images."""
    monkeypatch.setattr(candidate_settings, "LEVELS", (0.2, 0.4))
    monkeypatch.setattr(candidate_settings, "_refiners", lambda recipe, slow: iter([None]))
    monkeypatch.setattr(tuning, "CLASS_THRESHOLDS", (0.3, 0.7))
    predict = segmenter.recipe.predict.model_copy(update={"refine": False, "background": 0.1})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    segmenter = type(segmenter)(segmenter.method, recipe, "cpu")
    made = []

    def images(widths, masked=None):
        made.append(Scripted(source, widths, range(len(widths)) if masked is None else masked))
        return made[-1]

    def run_network(self, image, tags=None, name=""):
        width = made[-1].widths[int(image[0, 0, 0])]
        cam = torch.zeros(1, 3, *SIZE)
        cam[0, 0, :, :width] = 0.9
        cam[0, 0, :, width : width + 2] = 0.3  # the rim, which is background
        cam[0, 1, :, 6:] = 0.9  # class 2 shows nowhere
        return NetworkOutput(cam, torch.tensor([[0.9, 0.6, 0.1]]))

    monkeypatch.setattr(type(segmenter), "run_network", run_network)
    monkeypatch.setattr(
        type(segmenter), "class_scores", lambda self, image: {"cat": 0.9, "cow": 0.6, "dog": 0.1}
    )
    return segmenter, images


def test_thresholds_are_those_that_fit_the_masks(scripted):
    segmenter, images = scripted
    result = tune_segmenter(segmenter, images([4, 4, 4]))
    assert result.by == "masks"
    # Background 0.4 cuts the rim off; class threshold 0.7 drops class 2, whose probability is 0.6.
    assert result.changes == {"predict": {"background": 0.4, "class_threshold": 0.7}}
    masks, classes = result.comparisons
    # At 0.1 the rim of 2 of 10 columns is object: IoU 4/6 of the object and 4/6 of the background.
    assert masks.present_score == pytest.approx((4 / 6 + 4 / 6) / 2)
    assert (masks.best_score, masks.validated, masks.spread) == (1.0, 1.0, (1.0, 1.0))
    # At 0.5 class 2 covers 4 of the 6 columns of background.
    assert classes.present_score == pytest.approx((4 / 4 + 2 / 6) / 2)
    assert (classes.best_score, classes.validated) == (1.0, 1.0)
    assert result.names == ("image0", "image1", "image2")


def test_only_images_with_a_mask_take_part(scripted):
    segmenter, images = scripted
    result = tune_segmenter(segmenter, images([4, 9, 4, 9], masked=(0, 2)))
    assert result.names == ("image0", "image2")
    assert tune_segmenter(segmenter, images([4] * 9), limit=2).names == ("image0", "image8")


def test_a_choice_that_does_not_pay_on_other_images_is_not_adopted(scripted, monkeypatch):
    segmenter, images = scripted

    def by_chance(self, sample, output, class_indices):
        """Setting 1 + k fits image k alone; the present setting fits each image a little."""
        for index in range(len(self._settings)):
            fits = index == 1 + int(sample.image[0, 0, 0])
            mask = torch.zeros(SIZE, dtype=torch.uint8)
            mask[:, : 4 if fits else 1 if index == 0 else 0] = 1
            yield index, mask

    monkeypatch.setattr(candidate_settings.MaskMaker, "masks", by_chance)
    comparison = tune_segmenter(segmenter, images([4, 4])).comparisons[0]
    assert comparison.best_score > comparison.present_score > comparison.validated
    assert not comparison.adopted


def test_a_single_mask_is_not_enough_so_agreement_decides(scripted):
    segmenter, images = scripted
    result = tune_segmenter(segmenter, images([4, 5, 3], masked=(1,)))
    assert result.by == "agreement"
    masks, classes = result.comparisons
    assert masks.criterion.startswith("agreement with flipped images")
    assert masks.validated is None
    # Tags say class 1 alone; at 0.5 class 2 is a false alarm in each image: F1 = 2 / 3.
    assert classes.present_score == pytest.approx(2 / 3)
    assert classes.best_score == 1.0
    assert result.changes["predict"]["class_threshold"] == 0.7


def test_no_image_is_an_error(scripted):
    segmenter, images = scripted
    with pytest.raises(DataError, match="no image to tune on"):
        tune_segmenter(segmenter, images([]))


def test_f1_is_hand_counted():
    assert f1(np.array([3, 1, 2])) == pytest.approx(6 / 9)
    assert np.isnan(f1(np.zeros(3, dtype=int)))
