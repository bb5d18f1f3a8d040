"""Choose the settings that turn a trained network's maps into masks, after training.

With true masks, the settings with the highest mean IoU win, classes from tags. Then the class
threshold of untagged images is chosen in the same way, classes from the classifier. A choice counts
only if it also wins on images that did not take part in it (`cross_validation`).

Without true masks, the background score for which the masks of an image and of its flipped image
agree best wins (`agreement`), and the class threshold that fits the tags best. Both are weaker: a
network can agree with itself and be wrong, and it has learned the tags of its training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.evaluation.agreement import flip_agreement
from tag2mask.evaluation.confusion import Counts
from tag2mask.evaluation.cross_validation import Choice, cross_validate
from tag2mask.evaluation.mask_scores import count_mask, mean_iou
from tag2mask.evaluation.sources import spread_indices
from tag2mask.inference.candidate_settings import MaskMaker, MaskSetting, mask_settings
from tag2mask.inference.multi_scale import select_classes
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tuned import Changes
from tag2mask.types import Sample

CLASS_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Class thresholds to compare."""
MIN_MASKS = 2
"""Fewer true masks cannot be divided into those that choose and those that are scored."""
BETTER = 1e-9
"""By how much a choice must beat the present value; rounding must not count."""
NOTE_EVERY = 10
"""Images between two lines of progress."""
Notify = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one comparison says."""

    name: str
    """What was compared."""
    criterion: str
    """What the scores are."""
    images: int
    present: str
    """The value before."""
    present_score: float
    best: str
    """The value with the best score; it may be the present one."""
    best_score: float
    validated: float | None
    """Score of choosing on some images for the others; None without cross-validation."""
    spread: tuple[float, float] | None
    """Lowest and highest such score of a part of the images."""
    adopted: bool
    """Whether the best value replaces the present one."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The chosen settings and what they rest on."""

    by: Literal["masks", "agreement"]
    changes: Changes
    """What differs from the run's recipe; empty if nothing is better."""
    comparisons: tuple[Comparison, ...]
    names: tuple[str, ...]
    """Images that took part."""

    def record(self) -> dict[str, Any]:
        """Return everything but the changes as plain values."""
        return {
            "by": self.by,
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "images": list(self.names),
        }


def tune_segmenter(
    segmenter: Segmenter,
    source: Source,
    *,
    limit: int | None = None,
    slow: bool = False,
    notify: Notify = lambda line: None,
) -> Tuning:
    """Choose the settings of a trained network on tagged images, by their masks if they have some.

    Args:
        segmenter: With the settings to compare with.
        source: Images with tags, all or some of them or none with masks.
        limit: Largest number of images, spread evenly.
        slow: Also compare the dense CRF, which takes seconds per image and setting.
        notify: Receives a line of progress now and then.

    Raises:
        DataError: If the source has no image or no image can be read.
    """
    masked = list(source.mask_indices)
    by_masks = len(masked) >= MIN_MASKS
    candidates = masked if by_masks else list(range(len(source)))
    indices = [candidates[at] for at in spread_indices(len(candidates), limit)]
    if not indices:
        raise DataError("there is no image to tune on")
    tuner = _Tuner(segmenter.with_dataset(source), source, indices, notify)
    if by_masks:
        changes, comparisons = tuner.by_masks(slow=slow)
    else:
        changes, comparisons = tuner.by_agreement()
    names = tuple(source.names[index] for index in indices)
    return Tuning("masks" if by_masks else "agreement", changes, tuple(comparisons), names)


class _Tuner:
    """Compares settings on some images of a source."""

    def __init__(
        self, segmenter: Segmenter, source: Source, indices: Sequence[int], notify: Notify
    ) -> None:
        self._segmenter = segmenter
        self._source = source
        self._indices = indices
        self._notify = notify
        self._num_classes = len(source.class_names) + 1
        method = segmenter.method
        self._selects = segmenter.protocol.selects_by_classifier and not method.works_while_labeling

    def by_masks(self, *, slow: bool) -> tuple[Changes, list[Comparison]]:
        """Choose background, refiner and CRF with classes from tags, then the class threshold."""
        settings = mask_settings(self._segmenter, slow=slow)
        maker = MaskMaker(self._segmenter, settings)
        counts = []
        for position, index in enumerate(self._indices):
            sample = self._source[index]
            output = self._segmenter.run_network(sample.image, sample.tags, sample.name)
            tagged = tuple(np.flatnonzero(sample.tags).tolist())
            masks = dict(maker.masks(sample, output, tagged))
            counts.append([self._count(masks[at], sample) for at in range(len(settings))])
            self._note("classes from tags", position)
        choice = cross_validate(np.array(counts).swapaxes(0, 1), mean_iou)
        criterion = "mean IoU, classes from tags"
        comparisons = [self._compare("masks", criterion, settings, choice)]
        chosen = settings[choice.index if comparisons[0].adopted else 0]
        changes = chosen.changes(self._segmenter.recipe)
        if self._selects:
            thresholds = self._class_thresholds()
            choice = cross_validate(self._count_classifier(chosen, thresholds), mean_iou)
            criterion = "mean IoU, classes from classifier"
            comparisons.append(self._compare("class threshold", criterion, thresholds, choice))
            changes = _with_threshold(changes, comparisons[-1])
        return changes, comparisons

    def by_agreement(self) -> tuple[Changes, list[Comparison]]:
        """Choose the background by agreement with flipped images, the class threshold by tags."""
        comparisons = []
        changes: Changes = {"predict": {}}
        agreement = flip_agreement(
            self._segmenter, (self._source[index] for index in self._indices), self._note
        )
        if agreement is not None:
            settings, means = agreement
            best = int(np.argmax(means))
            criterion = "agreement with flipped images (kappa)"
            adopted = means[best] > means[0] + BETTER
            comparisons.append(
                Comparison(
                    "masks", criterion, len(self._indices), str(settings[0]), means[0],
                    str(settings[best]), means[best], None, None, adopted,
                )
            )  # fmt: skip
            changes = settings[best if adopted else 0].changes(self._segmenter.recipe)
        if self._selects and len(self._indices) > 1:
            thresholds = self._class_thresholds()
            choice = cross_validate(self._count_tags(thresholds), f1)
            comparisons.append(
                self._compare("class threshold", "F1 of the tags", thresholds, choice)
            )
            changes = _with_threshold(changes, comparisons[-1])
        return changes, comparisons

    def _class_thresholds(self) -> list[float]:
        """Return the class thresholds to compare, the present one first."""
        return list(dict.fromkeys([self._segmenter.config.class_threshold, *CLASS_THRESHOLDS]))

    def _count_classifier(self, setting: MaskSetting, thresholds: Sequence[float]) -> Counts:
        """Count pixels by class threshold and image, (S, N, C, C + 1), masks made at a setting."""
        segmenter = self._segmenter
        maker = MaskMaker(segmenter, [setting])
        size = self._num_classes
        counts = np.zeros((len(thresholds), len(self._indices), size, size + 1), dtype=np.int64)
        for position, index in enumerate(self._indices):
            sample = self._source[index]
            output = segmenter.run_network(sample.image, None, sample.name)
            known: dict[tuple[int, ...], Counts] = {}
            for row, threshold in enumerate(thresholds):
                config = segmenter.config.model_copy(update={"class_threshold": threshold})
                selected = select_classes(
                    output.probs, None, config, segmenter.protocol, "classifier"
                )
                if selected not in known:
                    ((_, mask),) = maker.masks(sample, output, selected)
                    known[selected] = self._count(mask, sample)
                counts[row, position] = known[selected]
            self._note("classes from classifier", position)
        return counts

    def _count_tags(self, thresholds: Sequence[float]) -> Counts:
        """Count tags by class threshold and image, (S, N, 3): hits, false alarms, misses."""
        counts = np.zeros((len(thresholds), len(self._indices), 3), dtype=np.int64)
        for position, index in enumerate(self._indices):
            sample = self._source[index]
            probs = np.array(list(self._segmenter.class_scores(sample.image).values()))
            shown = sample.tags.astype(bool)
            for row, threshold in enumerate(thresholds):
                found = probs > threshold
                counts[row, position] = (
                    (found & shown).sum(), (found & ~shown).sum(), (~found & shown).sum(),
                )  # fmt: skip
            self._note("tags", position)
        return counts

    def _count(self, mask: Tensor, sample: Sample) -> Counts:
        """Count the pixels of one mask, (C, C + 1)."""
        assert sample.mask is not None
        return count_mask(mask, sample.mask, self._num_classes)

    def _compare(
        self, name: str, criterion: str, values: Sequence[object], choice: Choice
    ) -> Comparison:
        """Adopt the chosen value if choosing also pays on images that did not take part."""
        present = choice.scores[0]
        return Comparison(
            name, criterion, len(self._indices), _text(values[0]), present,
            _text(values[choice.index]), choice.score, choice.validated, choice.spread,
            choice.index != 0 and choice.validated > present + BETTER,
        )  # fmt: skip

    def _note(self, what: str, position: int) -> None:
        done, total = position + 1, len(self._indices)
        if done % NOTE_EVERY == 0 or done == total:
            self._notify(f"{what}: {done} of {total} images")


def f1(counts: Counts) -> float:
    """Return the harmonic mean of precision and recall of (3,) hits, false alarms and misses."""
    hits, alarms, misses = counts.tolist()
    total = 2 * hits + alarms + misses
    return 2 * hits / total if total else float("nan")


def _with_threshold(changes: Changes, comparison: Comparison) -> Changes:
    """Add the class threshold to the changes if it was adopted."""
    if not comparison.adopted:
        return changes
    predict = {**changes["predict"], "class_threshold": float(comparison.best)}
    return {**changes, "predict": predict}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
