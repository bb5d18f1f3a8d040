import dataclasses

import numpy as np
import pytest
import torch

from tag2mask.evaluation.agreement import flip_agreement, kappa
from tag2mask.methods.protocol import NetworkOutput


def mask(*values):
    return torch.tensor([values], dtype=torch.uint8)


def test_kappa_is_the_agreement_beyond_chance():
    # 7 of 10 agree; shares of class 1: 0.4 and 0.5, so chance is 0.4 * 0.5 + 0.6 * 0.5 = 0.5.
    first = mask(1, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    second = mask(1, 1, 1, 0, 1, 1, 0, 0, 0, 0)
    assert kappa(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def test_kappa_counts_every_class():
    # 3 of 4 agree; chance: 0.25 * 0.25 (0) + 0.5 * 0.25 (1) + 0.25 * 0.5 (2) = 0.3125.
    assert kappa(mask(0, 1, 1, 2), mask(0, 1, 2, 2)) == pytest.approx((0.75 - 0.3125) / 0.6875)


def test_masks_that_say_nothing_do_not_agree():
    assert kappa(mask(0, 0), mask(0, 0)) == 0
    assert kappa(mask(2, 2), mask(2, 2)) == 0
    assert kappa(mask(0, 0), mask(1, 1)) == 0


def test_the_background_at_which_flipped_images_agree_wins(segmenter, source, monkeypatch):
    """A network whose object is firm at 0.5 and whose border differs in the flipped image."""
    monkeypatch.setattr("tag2mask.evaluation.agreement.LEVELS", (0.1, 0.4))
    plain = segmenter.recipe.predict.model_copy(update={"refine": False, "background": 0.7})
    recipe = segmenter.recipe.model_copy(update={"predict": plain})
    segmenter = type(segmenter)(segmenter.method, recipe, "cpu")
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[0, 0] = 255  # tells the image from its flipped image
    sample = dataclasses.replace(source[0], image=image)
    firm = torch.zeros(40, 60)
    firm[10:30, 20:40] = 0.5  # symmetric

    def run_network(self, image, tags=None, name=""):
        assert not self.config.flip
        cam = torch.zeros(1, 3, 40, 60)
        cam[0, 0] = firm
        if image[0, 0, 0]:
            cam[0, 0, :, :20] = 0.2  # a weak border on one side of the image, not of its copy
        return NetworkOutput(cam, torch.zeros(1, 3))

    monkeypatch.setattr(type(segmenter), "run_network", run_network)
    noted = []
    settings, means = flip_agreement(segmenter, [sample], lambda what, at: noted.append(at))
    by_level = {setting.background: mean for setting, mean in zip(settings, means, strict=True)}
    assert next(iter(by_level)) == 0.7  # the present one comes first
    assert by_level[0.7] == 0  # empty masks agree without saying anything
    assert by_level[0.4] == 1
    assert by_level[0.1] < 0.6
    assert noted == [0]
