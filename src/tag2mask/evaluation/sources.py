"""Score a network, or the masks it wrote, against the masks and tags of a data source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tag2mask.data.base import Source
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.errors import DataError, RecipeError
from tag2mask.evaluation.confusion import ConfusionMatrix, Counts, pair_runs
from tag2mask.evaluation.metrics import mean_average_precision
from tag2mask.evaluation.object_sizes import count_objects, size_quarters
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.mask_folder import read_classes
from tag2mask.types import ClassSource, Report


def evaluate_pseudo_labels(predictions: Path, source: Source) -> Report:
    """Score a folder of masks, as `label` writes it, against the masks of a data source.

    Args:
        predictions: Has a mask for each image of the source, except for unreadable images.
        source: Has masks.

    Raises:
        DataError: If the source has no masks, or a prediction is missing, unreadable or of another
            size than its image.
    """
    _require_masks(source)
    folder = read_classes(predictions)
    matrix = ConfusionMatrix(len(source.class_names) + 1)
    objects: list[Counts] = []
    pseudo_labels = PseudoLabelDataset(source, predictions)
    index_of = {name: index for index, name in enumerate(source.names)}
    for index, name in enumerate(pseudo_labels.names):
        truth, prediction = source[index_of[name]].mask, pseudo_labels[index].mask
        if truth is not None and prediction is not None:
            matrix.update(truth, prediction)
            objects.append(count_objects(pair_runs(truth, prediction)))
    settings = {**folder.get("settings", {}), "predictions": str(predictions)}
    if settings.get("has_background") is False:
        matrix.drop_background()
    images = len(pseudo_labels)
    report = matrix.report(source.class_names, images, folder.get("class_source"), settings)
    return replace(report, by_size=size_quarters(objects))


def evaluate_source(
    segmenter: Segmenter, source: Source, class_source: ClassSource, limit: int | None = None
) -> Report:
    """Segment the images of a source and score them against its masks; write nothing.

    Args:
        segmenter: Its network sees the images.
        source: Has masks.
        class_source: `tags` gives the network the true tags.
        limit: Largest number of images, spread evenly over the source.

    Raises:
        DataError: If the source has no masks.
    """
    _require_masks(source)
    matrix = ConfusionMatrix(len(source.class_names) + 1)
    objects: list[Counts] = []
    indices = spread_indices(len(source), limit)
    segmenter = segmenter.with_dataset(source)
    for index in indices:
        sample = source[index]
        tags = sample.tags if class_source == "tags" else None
        prediction = segmenter.segment(sample.image, tags, name=sample.name)
        if sample.mask is not None:
            matrix.update(sample.mask, prediction.mask)
            objects.append(count_objects(pair_runs(sample.mask, prediction.mask)))
    settings = {**segmenter.settings(class_source), "limit": limit}
    if settings.get("has_background") is False:
        matrix.drop_background()
    report = matrix.report(source.class_names, len(indices), class_source, settings)
    return replace(report, by_size=size_quarters(objects))


def sweep_source(
    segmenter: Segmenter,
    source: Source,
    class_source: ClassSource,
    thresholds: Sequence[float],
) -> ThresholdSweep:
    """Score every background threshold on the class maps of a source, propagated if so configured.

    Maps are neither refined nor confident; each image runs through the network once.

    Args:
        segmenter: Its masks come from maps that a threshold separates from background.
        source: Has masks.
        class_source: `tags` gives the network the true tags.
        thresholds: Background scores to compare.

    Raises:
        DataError: If the source has no masks.
        RecipeError: If the maps bring a background of their own, as those of a decoder do.

    Source:
        Specification 5.2.
    """
    _require_masks(source)
    sweep = ThresholdSweep(thresholds, len(source.class_names) + 1)
    segmenter = segmenter.with_dataset(source)
    for index in range(len(source)):
        sample = source[index]
        tags = sample.tags if class_source == "tags" else None
        maps = segmenter.thresholded_maps(segmenter.infer(sample.image, tags, name=sample.name))
        if maps is None:
            raise RecipeError(
                "thresholds: these masks need no threshold, because they have a background of "
                "their own; remove the key"
            )
        if sample.mask is not None:
            sweep.update(maps, sample.mask)
    return sweep


def tag_map(segmenter: Segmenter, source: Source, limit: int | None = None) -> float:
    """Return the mean average precision of the class probabilities against the tags, at scale 1.

    Args:
        segmenter: Its network sees the images.
        source: Needs no masks.
        limit: Largest number of images, spread evenly over the source.

    Returns:
        In [0, 1]; NaN if no image shows any class.
    """
    indices = spread_indices(len(source), limit)
    scores = [list(segmenter.class_scores(source[index].image).values()) for index in indices]
    return mean_average_precision(np.array(scores), source.tags[indices])


def spread_indices(length: int, limit: int | None) -> list[int]:
    """Return at most `limit` of `length` indices, evenly spread, the first and last included.

    Example:
        >>> spread_indices(101, 3)
        [0, 50, 100]
    """
    if limit is None or limit >= length:
        return list(range(length))
    return sorted({int(position) for position in np.linspace(0, length - 1, limit).round()})


def _require_masks(source: Source) -> None:
    """Raise DataError if a source has no masks."""
    if not source.has_masks:
        raise DataError("these images come without masks; there is nothing to score against")
