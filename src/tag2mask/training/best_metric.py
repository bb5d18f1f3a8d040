"""The scores of a run over its steps, which of them is the best, and `metrics.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask.io.files import write_text
from tag2mask.training.logging import finite
from tag2mask.training.validation import Evaluation


class BestMetric:
    """All evaluations so far, oldest first.

    Attributes:
        metric: What a score is; None without held-out images, when `best` is the last step.
        reason: Why there is no metric.
    """

    def __init__(self, path: Path, metric: str | None, reason: str | None) -> None:
        """Begin empty.

        Args:
            path: The run's `metrics.json`.
            metric: See the class.
            reason: See the class.
        """
        self.metric = metric
        self.reason = reason
        self._path = path
        self._history: list[Evaluation] = []

    def restore(self, step: int) -> None:
        """Take over what the file holds up to a step; later steps are going to be trained again."""
        if not self._path.is_file():
            return
        past = json.loads(self._path.read_text(encoding="utf-8"))["history"]
        self._history = [_evaluation(values) for values in past if values["step"] <= step]

    def has(self, step: int) -> bool:
        """Whether a step was scored."""
        return any(seen.step == step for seen in self._history)

    def add(self, seen: Evaluation) -> bool:
        """Enter an evaluation; returns whether it is the best so far."""
        self._history.append(seen)
        return self.best is seen

    @property
    def best(self) -> Evaluation | None:
        """The earliest of the highest scores; a NaN counts only while there is no number."""
        numbers = [seen for seen in self._history if not math.isnan(seen.score)]
        if numbers:
            return max(numbers, key=lambda seen: seen.score)
        return self._history[-1] if self._history else None

    def write(self, step: int, steps: int, seconds: float) -> None:
        """Write `metrics.json`.

        Args:
            step: Steps done.
            steps: Steps of the whole run.
            seconds: Time spent on training steps, evaluation and saving apart.

        Raises:
            RunError: If the disk is full or writing is not allowed.
        """
        values = {
            "step": step,
            "steps": steps,
            "finished": step == steps and (self.metric is None or self.has(steps)),
            "seconds": seconds,
            "metric": self.metric,
            "best": self._chosen(step),
            "history": [asdict(seen) for seen in self._history],
        }
        write_text(self._path, json.dumps(finite(values), indent=1, ensure_ascii=False) + "\n")

    def _chosen(self, step: int) -> dict[str, Any] | None:
        """Which step `weights/best` is of, and why."""
        if self.metric is None:
            return {"step": step, "score": None, "why": f"best is last: {self.reason}"}
        best = self.best
        if best is None:
            return None
        return {"step": best.step, "score": best.score, "why": self.metric}


def _evaluation(values: dict[str, Any]) -> Evaluation:
    """Read one entry of the file; a score that JSON could not carry is NaN."""
    score = math.nan if values["score"] is None else values["score"]
    return Evaluation(values["step"], score, values["detail"])
