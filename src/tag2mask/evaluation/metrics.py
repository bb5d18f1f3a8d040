"""Quality of class scores against tags: average precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32] | Floats
Tags = npt.NDArray[np.uint8]


def average_precision(score: Array, tags: Tags) -> Floats:
    """Compute the average precision of each class over a set of images.

    Args:
        score: (I, F) in any range, one row per image.
        tags: (I, F) in {0, 1}.

    Returns:
        (F,) in (0, 1]: the mean over a class's images of the precision among all images that score
        at least as high. NaN for a class that no image shows. Images of equal score count as one
        group, so their order does not matter.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import numpy as np
        >>> score = np.array([[0.9], [0.8], [0.7], [0.1]])
        >>> average_precision(score, np.array([[1], [0], [1], [0]], dtype=np.uint8)).round(
        ...     3
        ... ).tolist()
        [0.833]
    """
    if score.ndim != 2 or score.shape != tags.shape:
        raise ValueError(
            f"scores {score.shape} and tags {tags.shape} must both be (images, classes)"
        )
    result = np.full(score.shape[1], np.nan)
    for index in range(score.shape[1]):
        order = np.argsort(-score[:, index], kind="stable")
        negated = -score[order, index]
        positive = tags[order, index] > 0
        rank = np.searchsorted(negated, negated, side="right")
        precision = np.cumsum(positive)[rank - 1] / rank
        if positive.any():
            result[index] = precision[positive].mean()
    return result


def mean_average_precision(score: Array, tags: Tags) -> float:
    """Return the mean average precision over the classes that some image shows; NaN without any."""
    precision = average_precision(score, tags)
    defined = ~np.isnan(precision)
    return float(precision[defined].mean()) if defined.any() else float("nan")
