"""Time and memory of a training, measured on a few real steps before its first one.

The measurement works on a copy of the network and its own optimizer, and it restores the random
number generators. So a run learns the same with it and without it.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import PointInTraining, resolve_steps
from tag2mask.data.loader import Batches
from tag2mask.methods.base import Method
from tag2mask.methods.warmup import ClassifierWarmup
from tag2mask.training.optimizer import build_optimizer
from tag2mask.training.seeding import preserve_rng
from tag2mask.training.validation import ValidationLoop

MIN_STEPS = 40
"""Runs with fewer steps left are not measured: measuring would take as long as they do."""
MEASURED_STEPS = 3
"""Steps per phase that count; one more before them compiles kernels and starts the loader."""


class Phase(NamedTuple):
    """Steps of a run that cost about the same."""

    start: int
    stop: int
    in_warmup: bool
    """Whether the classifier warm-up covers them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take from its next step to its end."""

    phases: tuple[Phase, ...]
    step_seconds: tuple[float, ...]
    """Seconds per optimizer step, by phase."""
    evaluations: int
    evaluation_seconds: float
    """Seconds per evaluation, sample strips included."""
    peak_memory_mib: float
    """Of this process; on a GPU of the device."""

    @property
    def seconds(self) -> float:
        """Seconds of all steps and evaluations."""
        steps = sum(
            (phase.stop - phase.start) * seconds
            for phase, seconds in zip(self.phases, self.step_seconds, strict=True)
        )
        return steps + self.evaluations * self.evaluation_seconds

    def __str__(self) -> str:
        steps = self.phases[-1].stop - self.phases[0].start
        pace = ", then ".join(
            f"{_short(seconds)} s"
            + (f" from about step {phase.start:,} on" if number else " per step")
            for number, (phase, seconds) in enumerate(
                zip(self.phases, self.step_seconds, strict=True)
            )
        )
        scores = f"; {self.evaluations} x {_short(self.evaluation_seconds)} s of evaluation"
        return (
            f"estimate: {format_minutes(self.seconds)} for {steps:,} steps ({pace}{scores}), "
            f"{self.peak_memory_mib / 1024:.1f} GiB of memory"
        )


def format_minutes(seconds: float) -> str:
    """Write a duration as a person says it.

    Example:
        >>> format_minutes(42), format_minutes(95), format_minutes(7260)
        ('42 s', '1.6 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(seconds: float) -> str:
    """Write seconds with two digits, and no exponent."""
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


class CostRecord:
    """An estimate, and the clock that shows what the run takes.

    Args:
        estimate: None for a run that was not measured.
        step: Step from which the estimate counts.
    """

    def __init__(self, estimate: Estimate | None, step: int) -> None:
        self._estimate = estimate
        self._step = step
        self._started = time.perf_counter()

    def values(self, peak_memory_mib: float) -> dict[str, float] | None:
        """Return the estimate and what the run has taken so far, for `metrics.json`."""
        if self._estimate is None:
            return None
        return {
            "from_step": self._step,
            "seconds": self._estimate.seconds,
            "peak_memory_mib": self._estimate.peak_memory_mib,
            "actual_seconds": time.perf_counter() - self._started,
            "actual_peak_memory_mib": peak_memory_mib,
        }


class CostMeter:
    """Measures what the steps and evaluations of a run cost.

    Args:
        recipe: Resolved, classes included.
        method: On its device, as the next step finds it; it does not change.
        open_batches: Opens the training batches from a step on.
        validation: The evaluations of the run.
        device: Of the method.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        open_batches: Callable[[int], Batches],
        validation: ValidationLoop,
        device: torch.device,
    ) -> None:
        self._recipe = recipe
        self._method = method
        self._open_batches = open_batches
        self._validation = validation
        self._device = device

    def measure(
        self, step: int, evaluations: int, peak_memory_mib: Callable[[], float], *, is_main: bool
    ) -> Estimate | None:
        """Measure the rest of a run.

        In a run of several processes each measures its own steps, without the exchange of
        gradients.

        Args:
            step: Steps already done.
            evaluations: Evaluations still to come.
            peak_memory_mib: Returns the peak memory so far.
            is_main: Whether this process evaluates.

        Returns:
            The estimate; None for a run with fewer than `MIN_STEPS` steps left.
        """
        total = self._recipe.optim.steps
        if total - step < MIN_STEPS:
            return None
        with preserve_rng():
            trial = copy.deepcopy(self._method)
            optimizer = build_optimizer(trial, self._recipe.optim)
            phases = split_phases(self._recipe, trial, step)
            seconds = [self._step_seconds(trial, optimizer, phase) for phase in phases]
            seconds_per_evaluation = 0.0
            if is_main and evaluations:
                seconds_per_evaluation = self._validation.seconds(trial, self._device)
        return Estimate(
            tuple(phases), tuple(seconds), evaluations, seconds_per_evaluation, peak_memory_mib()
        )

    def _step_seconds(self, trial: Method, optimizer: Optimizer, phase: Phase) -> float:
        """Return the median seconds of a few steps of one phase, loading included."""
        warmup = _warmup_of(trial)
        if warmup is not None and not phase.in_warmup:
            warmup.finish(phase.start)
        batch_source = self._open_batches(phase.start)
        seconds = []
        try:
            for _ in range(1 + MEASURED_STEPS):
                started = time.perf_counter()
                self._take_step(trial, optimizer, batch_source, phase.start)
                seconds.append(time.perf_counter() - started)
        finally:
            batch_source.close()
        return statistics.median(seconds[1:])

    def _take_step(
        self, trial: Method, optimizer: Optimizer, batch_source: Batches, step: int
    ) -> None:
        """Take one optimizer step, as training does; wait until the device has done it."""
        optim = self._recipe.optim
        for _ in range(optim.accumulate_steps):
            losses = trial(next(batch_source).to(self._device), step)
            total: Tensor = torch.stack([loss.float() for loss in losses.values()]).sum()
            total.backward()  # type: ignore[no-untyped-call]  # torch
        if optim.max_grad_norm is not None:
            clip_grad_norm_(trial.parameters(), optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def split_phases(recipe: Recipe, method: Method, step: int) -> list[Phase]:
    """Split the rest of a run where its steps may begin to cost more.

    That is where a key of the method names a point in training, where batches grow, and where the
    classifier warm-up ends; if only training can tell when, halfway between its earliest and latest
    end.
    """
    total = recipe.optim.steps
    points = {resolve_steps(value, total) for value in _points_in_training(recipe.method)}
    if recipe.optim.late_batch_size is not None:
        points.add(resolve_steps(recipe.optim.late_from, total))
    warmup = _warmup_of(method)
    end = 0
    if warmup is not None:
        end = warmup.expected_end
        points = (points - {warmup.shortest}) | {end}
    bounds = [step, *sorted(point for point in points if step < point < total), total]
    return [Phase(start, stop, in_warmup=stop <= end) for start, stop in itertools.pairwise(bounds)]


def _points_in_training(section: BaseModel) -> Iterator[float]:
    """Yield the points in training that a section names."""
    for name, field in type(section).model_fields.items():
        if any(isinstance(mark, PointInTraining) for mark in field.metadata):
            yield getattr(section, name)


def _warmup_of(method: Method) -> ClassifierWarmup | None:
    """Return the classifier warm-up of a method; None if it has none."""
    found = (part for part in method.children() if isinstance(part, ClassifierWarmup))
    return next(found, None)
