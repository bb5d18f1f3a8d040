"""Score the masks of a network in every way it can make them, with both class sources.

The background threshold of each kind of mask is chosen on one list of images, and its mIoU is
reported on another one. Nothing else is fitted to true masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import MASK_VALUES, ConfusionMatrix, Counts
from tag2mask.evaluation.sources import spread_indices
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.inference.candidate_masks import (
    CAM,
    NO_THRESHOLD,
    THRESHOLDS,
    CandidateMasks,
    ImageCandidates,
)
from tag2mask.inference.segmenter import Segmenter
from tag2mask.types import ClassSource, Mask

PixelCounts = Mapping[str, Mapping[float, Counts]]
"""Kind of mask -> background threshold -> (256, 256) pixels by true and predicted value."""
IMAGES_BETWEEN_NOTES = 50
"""Images between two lines of progress."""


@dataclass(frozen=True, slots=True)
class KindScore:
    """The score of one kind of mask at the threshold of another list."""

    miou: float | None
    """In [0, 1]; None if no pixel counts."""
    iou: tuple[float | None, ...]
    """(C,) in [0, 1], background first; None for a class without true and predicted pixels."""
    threshold: float | None
    """Background threshold; None if the kind needs none."""


@dataclass
class ListScores:
    """Confusion matrices of one list of images: of the CAM, and of every other kind of mask."""

    num_classes: int
    """C, background included."""
    images: int = 0
    cam: ThresholdSweep = field(init=False)
    kinds: dict[str, dict[float, ConfusionMatrix]] = field(default_factory=dict)
    """Kind -> background threshold -> matrix."""

    def __post_init__(self) -> None:
        self.cam = ThresholdSweep(THRESHOLDS, self.num_classes)

    def add(self, candidates: ImageCandidates, counts: PixelCounts, truth: Mask) -> None:
        """Add one image.

        Args:
            candidates: Its masks.
            counts: Pixels of these masks, from `count_pixels`.
            truth: (H, W) in 0..C-1 or 255.
        """
        self.images += 1
        self.cam.update(candidates.cam, truth)
        for kind, by_threshold in counts.items():
            matrices = self.kinds.setdefault(kind, {})
            for threshold, pairs in by_threshold.items():
                matrix = matrices.setdefault(threshold, ConfusionMatrix(self.num_classes))
                matrix.add_pairs(pairs)


def score_masks(
    segmenter: Segmenter,
    source: Source,
    *,
    slow_kinds: Collection[str] = (),
    limit: int | None = None,
    notify: Callable[[str], object] = lambda line: None,
) -> dict[ClassSource, ListScores]:
    """Score the images of a list, or some of them, by class source.

    Args:
        segmenter: Network and refiner.
        source: Has masks.
        slow_kinds: See `CandidateMasks`.
        limit: Largest number of images, spread evenly over the source.
        notify: Receives a line of progress now and then.

    Raises:
        DataError: If the source has no masks.
    """
    if not source.has_masks:
        raise DataError("these images come without masks; there is nothing to score against")
    candidates = CandidateMasks(segmenter.with_dataset(source), slow_kinds)
    num_classes = len(source.class_names) + 1
    scores = {name: ListScores(num_classes) for name in candidates.class_sources}
    indices = spread_indices(len(source), limit)
    for position, index in enumerate(indices, start=1):
        sample = source[index]
        if sample.mask is None:
            continue
        known: dict[int, Counts] = {}
        for class_source, found in candidates.make(sample).items():
            counts = count_pixels(found, sample.mask, known)
            scores[class_source].add(found, counts, sample.mask)
        if position % IMAGES_BETWEEN_NOTES == 0:
            notify(f"{position} of {len(indices)} images")
    return scores


def count_pixels(candidates: ImageCandidates, truth: Mask, known: dict[int, Counts]) -> PixelCounts:
    """Count the pixels of one image by kind of mask, threshold, true and predicted value.

    Args:
        candidates: Its masks; counted where they are, because a GPU holds them.
        truth: (H, W) in 0..C-1 or 255.
        known: Counts by the identity of masks, which class sources may share; filled.
    """
    counts: dict[str, dict[float, Counts]] = {}
    for kind, (thresholds, masks) in candidates.masks.items():
        if id(masks) not in known:
            known[id(masks)] = count_pairs(masks, truth)
        counts[kind] = dict(zip(thresholds, known[id(masks)], strict=True))
    return counts


def count_pairs(masks: Tensor, truth: Mask) -> Counts:
    """Count the pixels of (S, H, W) masks by true and predicted value, (S, 256, 256)."""
    pairs = torch.from_numpy(truth).to(masks.device).long() * MASK_VALUES + masks
    pairs += torch.arange(len(masks), device=masks.device).view(-1, 1, 1) * MASK_VALUES**2
    counts = torch.bincount(pairs.flatten(), minlength=len(masks) * MASK_VALUES**2)
    counted: Counts = counts.view(-1, MASK_VALUES, MASK_VALUES).cpu().numpy()
    return counted


def count_mask(mask: Tensor, truth: Mask, num_classes: int) -> Counts:
    """Count the pixels of an (H, W) mask by true and predicted class, (C, C + 1).

    Args:
        mask: uint8 class values.
        truth: (H, W) in 0..C-1 or 255.
        num_classes: C, background included.
    """
    matrix = ConfusionMatrix(num_classes)
    matrix.add_pairs(count_pairs(mask[None], truth)[0])
    return matrix.counts


def mean_iou(counts: Counts) -> float:
    """Return the mean IoU of (C, C + 1) counts over the classes with true pixels."""
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = counts
    return matrix.miou()


def report_at_chosen(chosen: ListScores, reported: ListScores) -> dict[str, KindScore]:
    """Map each kind of mask to its score on one list, at its best threshold on another.

    Args:
        chosen: List that chooses the thresholds.
        reported: List whose scores are returned.

    Raises:
        DataError: If the choosing list has no true pixel.
    """
    threshold = chosen.cam.best()[0]
    scores = {CAM: _score(reported.cam.report_at(threshold), threshold)}
    for kind, matrices in chosen.kinds.items():
        best = max(matrices, key=lambda level: matrices[level].miou())
        scores[kind] = _score(reported.kinds[kind][best], best)
    return scores


def _score(matrix: ConfusionMatrix, threshold: float) -> KindScore:
    iou = tuple(_number(value) for value in matrix.iou().tolist())
    used = None if threshold == NO_THRESHOLD else threshold
    return KindScore(_number(matrix.miou()), iou, used)


def _number(value: float) -> float | None:
    """Round a score for JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, 4)
