"""Wrong tags of hand-made probabilities and features."""

import numpy as np
import pytest
import torch

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.evaluation.tag_errors import (
    cross_fitted_probs,
    find_tag_errors,
    rank_images,
)
from tag2mask.inference.segmenter import Segmenter

CLASSES = ("cat", "dog")


def test_wrong_and_missing_tags_are_named_and_a_swap_comes_first() -> None:
    tags = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], dtype=np.uint8)
    probs = np.array([[0.9, 0.1], [0.05, 0.95], [0.1, 0.9], [0.8, 0.9], [0.9, 0.05]])
    # mean with tag: cat (0.9 + 0.05 + 0.9) / 3 = 0.617, dog (0.9 + 0.9 + 0.05) / 3 = 0.617;
    # mean without: cat (0.1 + 0.8) / 2 = 0.45, dog (0.1 + 0.95) / 2 = 0.525
    ranked = rank_images("abcde", CLASSES, probs, tags)
    assert [image.name for image in ranked[:3]] == ["b", "e", "d"]
    assert {image.name for image in ranked[3:]} == {"a", "c"}
    swapped, wrong, missing, *clean = ranked
    assert (swapped.wrong, swapped.missing) == ((("cat", 0.05),), (("dog", 0.95),))
    assert swapped.score == pytest.approx(1 - 0.05 * 0.05)
    assert (wrong.wrong, wrong.missing) == ((("dog", 0.05),), ())
    assert (missing.wrong, missing.missing) == ((), (("cat", 0.8),))
    assert all(image.wrong == image.missing == () for image in clean)


def test_class_that_every_image_has_is_never_missing() -> None:
    tags = np.array([[1, 0], [1, 1]], dtype=np.uint8)
    ranked = rank_images("ab", CLASSES, np.array([[0.9, 0.1], [0.9, 0.9]]), tags)
    assert all(image.wrong == image.missing == () for image in ranked)


def test_swapped_tags_are_found_although_they_are_trained_on() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 200)
    tags = np.eye(2, dtype=np.uint8)[truth]
    features = torch.from_numpy(random.normal(size=(200, 16)) + 2 * tags[:, :1])
    swapped = random.choice(200, 10, replace=False)
    tags[swapped] = tags[swapped][:, ::-1]
    probs = cross_fitted_probs(features, tags)
    ranked = rank_images([str(i) for i in range(200)], CLASSES, probs, tags)
    found = {int(image.name) for image in ranked[:20]}
    assert len(found & set(swapped.tolist())) >= 9


def test_no_image_is_predicted_by_a_classifier_that_trained_on_it() -> None:
    # Each image has a feature of its own, so that a classifier that saw it would know its tag.
    random = np.random.default_rng(0)
    tags = random.integers(0, 2, (40, 1)).astype(np.uint8)
    probs = cross_fitted_probs(torch.eye(40), tags)
    right = ((probs[:, 0] > 0.5) == (tags[:, 0] > 0)).mean()
    assert right < 0.7


def test_too_few_images_are_rejected(segmenter: Segmenter, source: Source) -> None:
    with pytest.raises(DataError, match="4 readable images are too few to check tags; 20 or more"):
        find_tag_errors(segmenter, source)
