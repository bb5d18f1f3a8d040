"""The validation scores of a run, the best of them, and the file `metrics.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask.io.files import write_text
from tag2mask.io.run_files import read_metrics
from tag2mask.training.logging import replace_non_finite
from tag2mask.training.validation import Evaluation


class BestMetric:
    """History of the validation scores, oldest first.

    Attributes:
        metric: Name of the score; None without held-out images.
        reason: Why the last step is the best; None if the score decides.
    """

    def __init__(self, path: Path, metric: str | None, reason: str | None) -> None:
        """Start with an empty history.

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
        """Read the history up to a step from the file; later steps will be trained again.

        Raises:
            RunError: If the file is damaged.
        """
        if not self._path.is_file():
            return
        history = read_metrics(self._path).get("history", ())
        self._history = [_evaluation(values) for values in history if values["step"] <= step]

    def has_step(self, step: int) -> bool:
        """Return whether a step is scored."""
        return any(evaluation.step == step for evaluation in self._history)

    def add(self, evaluation: Evaluation) -> bool:
        """Append an evaluation; return whether its score makes it the best so far."""
        self._history.append(evaluation)
        return self.reason is None and self.best is evaluation

    @property
    def best(self) -> Evaluation | None:
        """The earliest of the highest scores; a NaN is best only while there is no number."""
        scored = [evaluation for evaluation in self._history if not math.isnan(evaluation.score)]
        if scored:
            return max(scored, key=lambda evaluation: evaluation.score)
        return self._history[-1] if self._history else None

    def write(
        self, step: int, steps: int, seconds: float, cost: Mapping[str, float] | None = None
    ) -> None:
        """Write `metrics.json`.

        Args:
            step: Steps done.
            steps: Steps of the complete run.
            seconds: Time spent on training steps, without validation and saving.
            cost: The estimate of time and memory, and what the run took since; None without one.

        Raises:
            RunError: If the file cannot be written.
        """
        values = {
            "step": step,
            "steps": steps,
            "finished": step == steps and (self.metric is None or self.has_step(steps)),
            "seconds": seconds,
            "estimate": None if cost is None else dict(cost),
            "metric": self.metric,
            "best": self._describe_best(step),
            "history": [asdict(evaluation) for evaluation in self._history],
        }
        write_text(
            self._path, json.dumps(replace_non_finite(values), indent=1, ensure_ascii=False) + "\n"
        )

    def _describe_best(self, step: int) -> dict[str, Any] | None:
        """Return the step of `weights/best` and the reason for it."""
        if self.reason is not None:
            return {"step": step, "score": None, "reason": f"best is last: {self.reason}"}
        best = self.best
        if best is None:
            return None
        return {"step": best.step, "score": best.score, "reason": self.metric}


def _evaluation(values: dict[str, Any]) -> Evaluation:
    """Read one entry of the file; a score of null is NaN."""
    score = values.get("score")
    return Evaluation(
        values["step"], math.nan if score is None else score, values.get("detail", {})
    )
