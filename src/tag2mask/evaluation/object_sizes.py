"""Scores of objects by their true area: masks of weak labels often miss the size of an object.

Semantic masks do not separate objects. Here, an object is all pixels of one class in one image; two
sheep in one image are one object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.evaluation.confusion import MASK_VALUES, Counts, Runs
from tag2mask.types import IGNORE, SizeQuarter

QUARTERS = 4


def count_objects(runs: Runs, renumbering: npt.NDArray[np.uint8] | None = None) -> Counts:
    """Count the true, predicted and common pixels of each object of one image.

    Args:
        runs: From `pair_runs`. True pixels of value 255 do not count; a predicted 255 belongs to no
            object.
        renumbering: (256,) table from true values to predicted values; None: they are the same.

    Returns:
        (objects, 3) pixels: true, predicted, both. Only classes with true pixels have a row.

    Example:
        >>> import numpy as np
        >>> from tag2mask.evaluation.confusion import pair_runs
        >>> truth = np.array([[1, 1, 1, 2, 0, 255]], dtype=np.uint8)
        >>> prediction = np.array([[0, 1, 1, 1, 1, 1]], dtype=np.uint8)
        >>> count_objects(pair_runs(truth, prediction)).tolist()
        [[3, 4, 2], [1, 0, 0]]
    """
    pairs, pixels = runs
    true, predicted = pairs // MASK_VALUES, pairs % MASK_VALUES
    if renumbering is not None:
        true = renumbering[true].astype(np.uint16)
    counted = true != IGNORE
    hit = counted & (true == predicted)
    # Sums of integers are exact in float64 up to 2^53.
    columns = [
        np.bincount(values[chosen], weights=pixels[chosen], minlength=MASK_VALUES)
        for values, chosen in ((true, counted), (predicted, counted), (true, hit))
    ]
    classes = np.flatnonzero(columns[0][1:IGNORE]) + 1
    return np.stack(columns, axis=1)[classes].astype(np.int64)


def size_quarters(objects: Sequence[Counts]) -> tuple[SizeQuarter, ...]:
    """Sort all objects by true area and score the smallest to the largest quarter of them.

    If their number is no multiple of four, the first quarters have one object more.

    Args:
        objects: (n, 3) of each image, from `count_objects`.

    Returns:
        Four quarters; NaN where a quarter has no object. The IoU is the mean of the objects' IoU,
        so that each object counts the same.
    """
    counts = np.concatenate([np.empty((0, 3), dtype=np.int64), *objects])
    counts = counts[np.argsort(counts[:, 0], kind="stable")]
    return tuple(_score(part) for part in np.array_split(counts, QUARTERS))


def _score(counts: Counts) -> SizeQuarter:
    """Score the (n, 3) objects of one quarter."""
    if not len(counts):
        return SizeQuarter(0, 0, 0, float("nan"), float("nan"))
    true, predicted, hit = counts.T
    return SizeQuarter(
        objects=len(counts),
        smallest_px=int(true[0]),
        largest_px=int(true[-1]),
        iou=float((hit / (true + predicted - hit)).mean()),
        area_ratio=float(np.median(predicted / true)),
    )
