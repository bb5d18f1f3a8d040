"""What the JSON files of a run folder contain, for all who read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tag2mask.errors import RunError
from tag2mask.io.json_files import FileSchema, find_problem, read_lines, read_object

SCORES_FILE = "scores.json"
"""Scores of an evaluate stage, in its folder; see `Score`."""
Count = Annotated[int, Field(ge=0)]
Numbers = dict[str, float | None]
"""JSON has no NaN, so a number that is not finite is null."""


class Score(FileSchema):
    """Scores on true masks, as `evaluate --json` writes them."""

    class_names: list[str]
    iou: list[float | None]
    """Of background and each class."""
    miou: float | None
    images: Count
    class_source: str | None = None
    settings: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        """Require an IoU for background and each class."""
        if len(self.iou) != len(self.class_names) + 1:
            raise ValueError("iou needs a number for background and for each class")
        return self


class _Evaluation(FileSchema):
    """One evaluation during training."""

    step: Count
    score: float | None = None
    detail: dict[str, Any] = Field(default={})


class _Best(FileSchema):
    """Which weights are the best."""

    step: Count
    score: float | None = None
    reason: str | None = None


class Metrics(FileSchema):
    """The file `metrics.json` of a training, or the seconds of another stage."""

    step: Count = 0
    steps: Count = 0
    finished: bool = False
    seconds: Annotated[float, Field(ge=0)] = 0.0
    estimate: Numbers | None = None
    metric: str | None = None
    best: _Best | None = None
    history: list[_Evaluation] = Field(default=[])


class LogRecord(FileSchema):
    """One line of `log.jsonl`."""

    step: Count = 0
    event: str | None = None
    loss: float | None = None
    losses: Numbers = Field(default={})
    monitor: Numbers = Field(default={})
    lr: Numbers = Field(default={})
    images_per_s: float | None = None
    peak_memory_mib: float | None = None
    score: float | None = None
    command: str | None = None
    seed: int | None = None
    versions: dict[str, str] | None = None
    machine: dict[str, str | int | float | None] | None = None
    weights_license: str | None = None


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a `metrics.json`.

    Raises:
        RunError: If it is missing or damaged.
    """
    advice = "remove it to go on without the earlier scores"
    return read_object(path, Metrics, RunError, advice=advice)


def read_log(path: Path) -> tuple[dict[str, Any], ...]:
    """Read the records of a `log.jsonl`; each has a step. Damaged lines are skipped.

    Raises:
        DataError: If the file cannot be read.
    """
    return tuple({"step": 0, **record} for record in read_lines(path, LogRecord))


def is_score(values: object) -> bool:
    """Return whether plain values are scores on true masks."""
    return isinstance(values, Mapping) and not find_problem(values, Score)
