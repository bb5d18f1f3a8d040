"""Validation during training: a score on held-out images, and sample strips."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.errors import NothingHeldOutError
from tag2mask.evaluation.sources import evaluate_source, spread_indices, tag_map
from tag2mask.evaluation.tables import report_values
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method, evaluating
from tag2mask.visualization.strips import save_strips

MIOU = "mIoU on held-out images, classes from classifier"
TIMED_IMAGES = 6
"""Images on which the time of an evaluation is measured."""
TAG_MAP = "mean average precision of the tags on held-out images"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One validation score of a network; larger is better."""

    step: int
    score: float
    """In [0, 1]; NaN where nothing could be scored."""
    detail: dict[str, Any]
    """The complete report as plain values; empty for tag precision."""


class ValidationLoop:
    """Scores a network on held-out images: by their masks if they have masks, else by their tags.

    Attributes:
        metric: Name of the score; None without held-out images, where the last step is the best.
        reason: Why there is no metric.
    """

    def __init__(self, recipe: Recipe, train: Source) -> None:
        """Open the held-out images.

        Args:
            recipe: Resolved, classes included.
            train: Images for the sample strips where none are held out.
        """
        self._recipe = recipe
        self._held_out: Source | None = None
        self.reason: str | None = None
        try:
            held_out: Source = plugins.load("data", recipe.data.name)(recipe.data, "val")
        except NothingHeldOutError as error:
            self.reason = str(error)
        else:
            self._held_out = held_out if len(held_out) else None
            self.reason = None if len(held_out) else "no image is held out"
        self._sample_source = train if self._held_out is None else self._held_out
        self.metric: str | None = None
        if self._held_out is not None:
            self.metric = MIOU if self._held_out.has_masks else TAG_MAP

    def score(self, method: Method, device: torch.device, step: int) -> Evaluation | None:
        """Score a network, whose mode stays; return None without held-out images."""
        return self._score(method, device, step, self._recipe.run.evaluate_images)

    def save_samples(self, method: Method, device: torch.device, step: int, out: Path) -> None:
        """Write sample strips of the same few images at every call."""
        self._save_samples(method, device, step, out, self._recipe.run.samples)

    def seconds(self, method: Method, device: torch.device) -> float:
        """Measure on a few images how long an evaluation takes, sample strips included."""
        total = 0.0
        if self._held_out is not None:
            images = min(self._recipe.run.evaluate_images, len(self._held_out))
            self._score(method, device, 0, 1)  # compiles kernels
            started = time.perf_counter()
            self._score(method, device, 0, TIMED_IMAGES)
            elapsed = time.perf_counter() - started
            total += elapsed * images / min(TIMED_IMAGES, images)
        if self._recipe.run.samples:
            samples = min(self._recipe.run.samples, len(self._sample_source))
            with TemporaryDirectory() as folder:
                started = time.perf_counter()
                self._save_samples(method, device, 0, Path(folder), 1)
            total += samples * (time.perf_counter() - started)
        return total

    def _score(
        self, method: Method, device: torch.device, step: int, limit: int
    ) -> Evaluation | None:
        """Score a network on at most `limit` held-out images."""
        if self._held_out is None:
            return None
        with evaluating(method):
            segmenter = Segmenter(method, self._recipe, device)
            if not self._held_out.has_masks:
                return Evaluation(step, tag_map(segmenter, self._held_out, limit), {})
            report = evaluate_source(
                segmenter, self._held_out, class_source="classifier", limit=limit
            )
        return Evaluation(step, report.miou, report_values(report))

    def _save_samples(
        self, method: Method, device: torch.device, step: int, out: Path, count: int
    ) -> None:
        """Write sample strips of `count` images."""
        if count:
            indices = spread_indices(len(self._sample_source), count)
            samples = (self._sample_source[index] for index in indices)
            with evaluating(method):
                save_strips(Segmenter(method, self._recipe, device), samples, out, step)
