"""How good the masks are: their scores against true masks, and which classes are mixed up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tag2mask.errors import DataError
from tag2mask.evaluation.calibration import Calibration
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.image_scores import ScoredMask, score_images
from tag2mask.evaluation.sources import spread_indices
from tag2mask.evaluation.tables import report_values
from tag2mask.report.images import ReportImages
from tag2mask.report.run_parts import Values

MOST_SCORED = 1000
"""Largest number of images that are compared with their true masks for the page."""
MOST_CONFUSED = 12
"""Largest number of classes in the table of confusions: those with the lowest IoU."""
MOST_MISTAKES = 5
FEWEST_HELD_OUT = 20
"""Fewer held-out images say nothing about calibration; then all images count."""


class ConfusionRow(NamedTuple):
    """What became of the pixels of one true class."""

    name: str
    shares: tuple[float, ...]
    """Share of the pixels per column; the last column has all other classes and ignored pixels."""
    own: int
    """Column of the class itself."""


class Mistake(NamedTuple):
    """Pixels of one class that got another one; those with most pixels come first."""

    true: str
    called: str
    share: float
    """Of the pixels of the true class."""


class Quality(NamedTuple):
    """Scores of the images that have a true mask."""

    origin: str
    """Where the true masks come from."""
    values: Values
    """Scores as `evaluate` writes them."""
    image_iou: Mapping[str, float]
    """Name -> IoU of the objects of one image; NaN without objects."""
    columns: tuple[str, ...]
    confusion: tuple[ConfusionRow, ...]
    mistakes: tuple[Mistake, ...]
    trained_on: int
    """Number of scored images whose tags the network learned from."""
    available: int
    """Number of images with a true mask."""


def measure_quality(images: ReportImages, trained_on: frozenset[str]) -> Quality | None:
    """Score masks against true masks; None without any.

    Args:
        images: Masks, and true masks of some or all.
        trained_on: Names of the training images.
    """
    names = images.with_truth
    if images.truth is None or not names:
        return None
    chosen = [names[index] for index in spread_indices(len(names), MOST_SCORED)]
    scores = score_images(
        _readable(images, chosen),
        len(images.class_names) + 1,
        has_background=images.has_background,
    )
    if not scores.images:
        return None
    report = scores.matrix.report(images.class_names, len(scores.images), images.class_source, {})
    table_names, rows = confusion_rows(scores.matrix, images.class_names)
    return Quality(
        origin=images.truth.origin,
        values=report_values(report),
        image_iou=scores.images,
        columns=(*table_names, "other"),
        confusion=rows,
        mistakes=frequent_mistakes(scores.matrix, images.class_names),
        trained_on=len(trained_on & scores.images.keys()),
        available=len(names),
    )


def confusion_rows(
    matrix: ConfusionMatrix, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[ConfusionRow, ...]]:
    """Return the classes of the table, and one row for each that has a true pixel.

    Of many classes those with the lowest IoU remain, and background.
    """
    names = ("background", *class_names)
    pixels = matrix.counts.sum(axis=1)
    true = [value for value in range(1, matrix.num_classes) if pixels[value]]
    worst = sorted(true, key=lambda value: matrix.iou()[value])[: MOST_CONFUSED - 1]
    shown = [0, *sorted(worst)]
    rows = []
    for own, value in enumerate(shown):
        if pixels[value]:
            shares = [float(matrix.counts[value, other] / pixels[value]) for other in shown]
            rows.append(ConfusionRow(names[value], (*shares, max(1 - sum(shares), 0.0)), own))
    return tuple(names[value] for value in shown), tuple(rows)


def frequent_mistakes(matrix: ConfusionMatrix, class_names: tuple[str, ...]) -> tuple[Mistake, ...]:
    """Return the confusions of most pixels."""
    names = ("background", *class_names)
    pixels = matrix.counts.sum(axis=1)
    pairs = [
        (true, called)
        for true in range(matrix.num_classes)
        for called in range(matrix.num_classes)
        if true != called and matrix.counts[true, called]
    ]
    pairs.sort(key=lambda pair: -int(matrix.counts[pair]))
    return tuple(
        Mistake(names[true], names[called], float(matrix.counts[true, called] / pixels[true]))
        for true, called in pairs[:MOST_MISTAKES]
    )


class TagCalibration(NamedTuple):
    """Whether the classifier's probabilities fit the tags."""

    calibration: Calibration
    images: int
    held_out: bool
    """Whether the network trained on none of these images."""


def tag_calibration(images: ReportImages, trained_on: frozenset[str]) -> TagCalibration | None:
    """Compare the probability of each class in each image with the tags; None without tags.

    Held-out images count alone if there are enough: a network knows the tags that it learned.
    """
    names = [name for name in images.names if name in images.tags and images.scores.get(name)]
    others = [name for name in names if name not in trained_on]
    held_out = len(others) >= FEWEST_HELD_OUT or (bool(names) and len(others) == len(names))
    chosen = others if held_out else names
    if not chosen:
        return None
    calibration = Calibration()
    for name in chosen:
        found = images.scores[name]
        probs = np.array([found[one] for one in images.class_names if one in found])
        shown = [one in images.tags[name] for one in images.class_names if one in found]
        calibration.add(probs, np.array(shown, dtype=bool))
    return TagCalibration(calibration, len(chosen), held_out)


def _readable(images: ReportImages, names: list[str]) -> Iterator[ScoredMask]:
    """Yield both masks of each image; leave out images of which one cannot be read."""
    assert images.truth is not None
    for name in names:
        try:
            truth, mask = images.truth.read(name), images.mask(name)
        except DataError:
            continue
        if truth.shape == mask.shape:
            yield ScoredMask(name, truth, mask)
