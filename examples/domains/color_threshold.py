"""The best that colors alone can do: thresholds fitted with the true masks of the scored images.

This is a baseline that cheats in its favor. It sees the masks that it is scored on, which tags
never do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from domain_images import Scene

Pixels = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
LEVELS = 256
SAMPLED = 400_000
"""Pixels that the linear fit reads."""


def best_threshold(scenes: Sequence[Scene]) -> tuple[float, str]:
    """Find the threshold with the highest IoU of one class against background.

    Candidates are the three channels, gray, saturation, and the best linear combination of the
    channels (Fisher's discriminant), each from below and from above; at either end everything is
    the class.

    Returns:
        The IoU in [0, 1], and what the threshold is on.
    """
    pixels = np.concatenate([scene.image.reshape(-1, 3) for scene in scenes]).astype(np.float64)
    inside = np.concatenate([scene.mask.ravel() for scene in scenes]) == 1
    scatter = np.cov(pixels[inside].T) + np.cov(pixels[~inside].T)
    fisher = np.linalg.solve(scatter, pixels[inside].mean(0) - pixels[~inside].mean(0))
    features = {
        "red": pixels[:, 0],
        "green": pixels[:, 1],
        "blue": pixels[:, 2],
        "gray": pixels.mean(axis=1),
        "saturation": pixels.max(axis=1) - pixels.min(axis=1),
        "linear": pixels @ fisher,
    }
    scores = {name: _best_iou(values, inside) for name, values in features.items()}
    best = max(scores, key=lambda name: scores[name])
    return scores[best], best


def linear_miou(scenes: Sequence[Scene], classes: int) -> float:
    """Classify each pixel by a linear function of its color, among the tags of its image.

    The functions are fitted to the true masks of all pixels (linear discriminant analysis).

    Returns:
        Mean IoU over the classes.
    """
    pixels = np.concatenate([scene.image.reshape(-1, 3) for scene in scenes]).astype(np.float64)
    labels = np.concatenate([scene.mask.ravel() for scene in scenes]) - 1
    kept = np.random.default_rng(0).permutation(len(pixels))[:SAMPLED]
    scatter = sum(
        np.cov(pixels[kept][labels[kept] == value].T) * (labels[kept] == value).mean()
        for value in range(classes)
    )
    means = np.stack([pixels[kept][labels[kept] == value].mean(0) for value in range(classes)])
    weights = np.linalg.solve(scatter, means.T)
    offsets = -0.5 * (means.T * weights).sum(axis=0)
    offsets += np.log([(labels[kept] == value).mean() for value in range(classes)])
    counts = np.zeros((classes, classes), dtype=np.int64)
    for scene in scenes:
        scores = scene.image.reshape(-1, 3) @ weights + offsets
        allowed = np.unique(scene.mask) - 1  # the tags of the image
        found = allowed[scores[:, allowed].argmax(axis=1)]
        np.add.at(counts, (scene.mask.ravel() - 1, found), 1)
    hit = counts.diagonal()
    return float((hit / (counts.sum(axis=0) + counts.sum(axis=1) - hit)).mean())


def _best_iou(values: Pixels, inside: npt.NDArray[np.bool_]) -> float:
    """Return the highest IoU of all thresholds on one feature, from below and from above."""
    low, high = values.min(), values.max()
    bins = ((values - low) / (high - low + 1e-9) * (LEVELS - 1)).astype(np.int64)
    hits = np.bincount(bins[inside], minlength=LEVELS)
    others = np.bincount(bins[~inside], minlength=LEVELS)
    best = 0.0
    for hit, other in ((hits, others), (hits[::-1], others[::-1])):
        found, wrong = hit.cumsum(), other.cumsum()
        best = max(best, float((found / (inside.sum() + wrong)).max()))
    return best
