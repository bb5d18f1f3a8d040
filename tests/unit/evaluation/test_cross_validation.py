"""Choosing among settings, counted by hand."""

import math

import numpy as np
import pytest

from tag2mask.evaluation.cross_validation import cross_validate


def hits(counts):
    """Share of hits: a score of summed (hit, miss) counts."""
    total = int(counts.sum())
    return counts[0] / total if total else math.nan


def table(*settings):
    """(S, N, 2) counts from strings of images: h is a hit, m a miss, - an image without pixels."""
    values = {"h": (1, 0), "m": (0, 1), "-": (0, 0)}
    return np.array([[values[image] for image in setting] for setting in settings])


def test_the_choice_is_the_best_of_all_and_its_worth_that_of_the_other_parts():
    # Five images, five parts of one image each.
    counts = table("hhhmm", "mmhhh", "hmmmm")
    choice = cross_validate(counts, hits)
    assert choice.scores == (0.6, 0.6, 0.2)
    assert (choice.index, choice.score) == (0, 0.6)  # the first of equal ones
    # Without image 0 or 1, setting 1 is better (3 of 4 against 2 of 4), and misses the image.
    # Without image 2 both have 2 of 4: the first hits it. Without image 3 or 4, setting 0 wins
    # (3 of 4) and misses it.
    assert choice.selected == (1, 1, 0, 0, 0)
    assert choice.folds == (0.0, 0.0, 1.0, 0.0, 0.0)
    assert choice.validated == pytest.approx(1 / 5)
    assert choice.spread == (0.0, 1.0)


def test_parts_interleave_the_images():
    # Six images, five parts: images 0 and 5 form the first part.
    counts = table("hmmmmh", "mhhhhm")
    choice = cross_validate(counts, hits)
    assert choice.index == 1
    assert choice.selected[0] == 1  # the other four images say so
    assert choice.folds[0] == 0.0
    assert choice.validated == pytest.approx(4 / 6)


def test_counts_are_summed_not_averaged():
    counts = np.array([[[9, 1], [0, 1]], [[5, 5], [1, 0]]])
    choice = cross_validate(counts, hits)
    assert choice.scores == (9 / 11, 6 / 11)
    # Without image 0 setting 1 wins (1 of 1) and has 5 of 10 there; without image 1 setting 0 wins.
    assert choice.selected == (1, 0)
    assert choice.validated == pytest.approx((5 + 0) / 11)


def test_images_without_pixels_do_not_decide():
    choice = cross_validate(table("-h-", "-m-"), hits)
    assert choice.index == 0
    assert choice.spread == (1.0, 1.0)
    nothing = cross_validate(table("--", "--"), hits)
    assert nothing.index == 0
    assert math.isnan(nothing.validated)


def test_one_image_cannot_be_divided():
    with pytest.raises(ValueError, match="two images, got 1"):
        cross_validate(table("h"), hits)
