"""How well the classifier names what an image shows: average precision and F1 of tags."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32] | Floats
Tags = npt.NDArray[np.uint8]


def average_precision(score: Array, tags: Tags) -> Floats:
    """Mean over a class's images of the precision among all images that score at least as high.

    Args:
        score: (I, F) any range, one row per image.
        tags: (I, F) in {0, 1}.

    Returns:
        (F,) in (0, 1]; NaN for a class that no image shows. Images of equal score count as one
        group, so the order of images does not matter.
    """
    _reject_other_shape(score, tags)
    result = np.full(score.shape[1], np.nan)
    for index in range(score.shape[1]):
        order = np.argsort(-score[:, index], kind="stable")
        falling = -score[order, index]
        shown = tags[order, index] > 0
        as_high = np.searchsorted(falling, falling, side="right")
        precision = np.cumsum(shown)[as_high - 1] / as_high
        if shown.any():
            result[index] = precision[shown].mean()
    return result


def mean_average_precision(score: Array, tags: Tags) -> float:
    """Mean average precision over the classes that some image shows; NaN if there is none."""
    precision = average_precision(score, tags)
    known = ~np.isnan(precision)
    return float(precision[known].mean()) if known.any() else float("nan")


def f1(probs: Array, tags: Tags, threshold: float = 0.5) -> float:
    """F1 of the tags of each image, averaged over images.

    Args:
        probs: (I, F) class probabilities.
        tags: (I, F) in {0, 1}.
        threshold: A class is named when its probability is above this; AFA's `logit > 0` is 0.5.

    Returns:
        In [0, 1], NaN without images. An image without tags that is given none counts as 1.

    Source:
        Specification 5.2: per image, then averaged.
    """
    _reject_other_shape(probs, tags)
    if len(tags) == 0:
        return float("nan")
    named, shown = probs > threshold, tags > 0
    both = (named & shown).sum(axis=1)
    either = named.sum(axis=1) + shown.sum(axis=1)
    per_image = np.divide(2 * both, either, out=np.ones(len(tags)), where=either > 0)
    return float(per_image.mean())


def _reject_other_shape(score: Array, tags: Tags) -> None:
    """Raise ValueError unless both are the same (I, F)."""
    if score.ndim != 2 or score.shape != tags.shape:
        raise ValueError(
            f"scores {score.shape} and tags {tags.shape} must both be (images, classes)"
        )
