"""Score images one by one, to find the best and the worst, and all of them in one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.types import Mask

COUNTED_SHARE = 0.5
"""Share of an image's pixels that must count; 255 in most of a true mask says too little."""


class ScoredMask(NamedTuple):
    """The two masks of one image."""

    name: str
    truth: Mask
    """(H, W) in 0..C-1 or 255."""
    prediction: Mask
    """(H, W) in 0..C-1 or 255."""


class ImageScores(NamedTuple):
    """What the masks of several images score."""

    matrix: ConfusionMatrix
    """Pixels of all images."""
    images: dict[str, float]
    """Name -> IoU of the objects of one image, see `object_iou`; NaN where there are no objects,
    or fewer pixels than `COUNTED_SHARE` count."""


def score_images(
    masks: Iterable[ScoredMask], num_classes: int, *, has_background: bool = True
) -> ImageScores:
    """Count all images, and each of them alone.

    Args:
        masks: One image after the other.
        num_classes: C, background included.
        has_background: Whether pixels may belong to no class; else true background is ignored.

    Raises:
        DataError: If the sizes of two masks differ, or a mask has a value that is no class.
    """
    total = ConfusionMatrix(num_classes)
    images = {}
    for name, truth, prediction in masks:
        one = ConfusionMatrix(num_classes)
        one.update(truth, prediction)
        if not has_background:
            one.drop_background()
        total.counts += one.counts
        counts = one.counts.sum() >= COUNTED_SHARE * truth.size
        images[name] = object_iou(one) if counts else math.nan
    return ImageScores(total, images)


def object_iou(matrix: ConfusionMatrix) -> float:
    """Return the mean IoU over the classes, background excepted, that are true or predicted.

    Example:
        >>> import numpy as np
        >>> matrix = ConfusionMatrix(num_classes=3)
        >>> truth = np.array([[0, 1, 1, 0]], dtype=np.uint8)
        >>> matrix.update(truth, np.array([[0, 1, 0, 2]], dtype=np.uint8))
        >>> object_iou(matrix)  # 0.5 of class 1, nothing of class 2
        0.25
    """
    iou = matrix.iou()[1:]
    known = iou[~np.isnan(iou)]
    return float(known.mean()) if known.size else math.nan
