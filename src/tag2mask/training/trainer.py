"""Train one stage of a recipe from its first step to its last; it can resume at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tag2mask.checkpoint import save_state, save_weights, versions
from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.config.schema import StepsOrFraction, resolve_steps
from tag2mask.data.loader import Batches, batches
from tag2mask.errors import RecipeError, RunError, StoppedError, printable
from tag2mask.io.files import remove_leftovers, write_text
from tag2mask.io.locks import folder_lock
from tag2mask.methods.build import build_method
from tag2mask.training.best_metric import BestMetric
from tag2mask.training.estimate import CostMeter, CostRecord
from tag2mask.training.inputs import describe_masks, load_earlier, padding_color, training_images
from tag2mask.training.logging import (
    LossWindow,
    MetricLogger,
    OnStep,
    host_values,
    merged_means,
    truncate_log,
)
from tag2mask.training.optimizer import build_optimizer, set_learning_rates
from tag2mask.training.run_folder import RunFolder, check_same_recipe
from tag2mask.training.runtime import Runtime, StopRequest
from tag2mask.training.seeding import preserve_rng, rng_state, seed_all, set_rng_state
from tag2mask.training.snapshot import read_snapshot, restore, snapshot
from tag2mask.training.trackers import require_trackers
from tag2mask.training.validation import ValidationLoop
from tag2mask.training.warm_start import start_from


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    earlier: Mapping[str, Path] | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Train a recipe of one stage into a run folder.

    Works in one process or under `torchrun`, whose restarts resume the run. A run that ends early,
    even by `kill -9`, resumes exactly from its last saved state.

    Args:
        recipe: What to train; without classes, they come from the data.
        out: Run folder; new or empty unless resuming.
        resume: Resume the run in `out`.
        command: Command line that started the run, for the log.
        earlier: Run folders of the stages in `recipe.earlier`; a saved state needs none.
        on_step: Called after each step in the first process.

    Returns:
        The run folder.

    Raises:
        RunError: If the folder cannot be used or written, or a loss is not finite.
        StoppedError: If a signal stopped the run; the message says how to resume.
        RecipeError: If the recipe has stages, which `pipeline.train` runs.
        DataError: If the data cannot be used.
        WeightsError: If the backbone's weights cannot be used.
        MissingExtraError: If the extra `train` is not installed.
    """
    if recipe.stages:
        raise RecipeError(f"{out}: the recipe has stages; run them with tag2mask.train")
    folder = RunFolder(out)
    folder.check(resume=resume)
    with folder_lock(out):
        resume = folder.check(resume=resume)  # a process that had the lock may have written
        runtime = Runtime(recipe.run.precision)
        stop = StopRequest()
        try:
            runtime.require_equal(recipe.to_yaml(), "other recipes; name one file for all")
            with stop.catch_signals(), runtime.lost_peers_named():
                run = _TrainingRun(recipe, folder, runtime, stop, earlier or {}, resume=resume)
                run.run(command, on_step)
        finally:
            runtime.shutdown()
    return out


class _TrainingRun:
    """One training run: its parts and its progress."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        runtime: Runtime,
        stop: StopRequest,
        earlier: Mapping[str, Path],
        *,
        resume: bool,
    ) -> None:
        """Build everything that can fail, before anything is written."""
        require_trackers(recipe.run.trackers)
        seed_all(recipe.run.seed, runtime.rank)
        self._folder = folder
        self._runtime = runtime
        self._stop = stop
        self._resume = resume
        self._images = training_images(recipe)
        self._source = self._images.source
        runtime.require_equal((self._source.class_names, self._source.names), "other images")
        self._recipe = recipe.resolved().with_classes(self._source.class_names)
        if resume:
            check_same_recipe(load_recipe(str(folder.recipe)), self._recipe, folder.root)
        self._validation = ValidationLoop(self._recipe, self._source)
        networks = None if self._has_state else load_earlier(self._recipe, earlier)
        self._method = build_method(self._recipe, networks).train()
        self._start = ""
        if recipe.run.weights_from is not None and not self._has_state:
            with preserve_rng():
                self._start = start_from(self._method, self._recipe, recipe.run.weights_from)
        runtime.prepare(self._method, lambda: build_optimizer(self._method, recipe.optim))
        self._window = LossWindow()
        self._step = 0
        self._saved_at = 0
        self._seconds = 0.0
        self._logged_seconds = 0.0
        self._logged_step = 0
        self._skipped = 0
        self._cost = CostRecord(None, 0)
        reason = self._validation.reason
        if reason is None and recipe.run.best == "last":
            reason = "run.best is last"
        self._best_metric = BestMetric(folder.metrics, self._validation.metric, reason)

    @property
    def _has_state(self) -> bool:
        """Whether there is a saved state to resume from, which fills every network."""
        return self._resume and self._folder.state.is_file()

    def run(self, command: str, on_step: OnStep | None) -> None:
        """Train from the first step, or from the saved state, to the last step."""
        batch_source = self._restore()
        if self._runtime.is_main:
            remove_leftovers(self._folder.root)
            self._folder.record_launch()
            write_text(self._folder.recipe, self._recipe.to_yaml())
            if self._resume:
                truncate_log(self._folder.log, self._step)
        try:
            with MetricLogger(
                self._folder.log,
                tensorboard=self._folder.tensorboard,
                steps=self._recipe.optim.steps,
                start=self._step,
                is_main=self._runtime.is_main,
                on_step=on_step,
                trackers=self._recipe.run.trackers,
                settings=self._recipe.plain(),
            ) as logger:
                self._log_start(logger, command)
                self._measure_cost(logger)
                self._loop(batch_source, logger)
        finally:
            batch_source.close()
        self._runtime.gather(None)  # no process leaves while the first one still validates

    def _loop(self, batch_source: Batches, logger: MetricLogger) -> None:
        """Save before each validation, so that an error in a held-out image loses no training."""
        run, total = self._recipe.run, self._recipe.optim.steps
        while True:
            if signal_number := self._runtime.largest(self._stop.signal_number):
                self._save()
                raise StoppedError(
                    f"stopped at step {self._step} of {total}; the state is saved, "
                    f"resume with: tag2mask train --resume {self._folder.root}",
                    signal_number,
                )
            if self._is_due(run.save_every):
                self._save()
            if self._is_due(run.evaluate_every):
                self._validate(logger)
            if self._step == total:
                return
            self._train_step(batch_source, logger)

    def _is_due(self, interval: StepsOrFraction, step: int | None = None) -> bool:
        """Return whether something is due that happens every `interval` and at the end."""
        step, total = self._step if step is None else step, self._recipe.optim.steps
        every = max(resolve_steps(interval, total), 1) if interval else total
        return step > 0 and (step == total or step % every == 0)

    def _measure_cost(self, logger: MetricLogger) -> None:
        """Estimate time and memory of the rest of the run, and print them."""
        recipe, runtime = self._recipe, self._runtime
        estimate = None
        if recipe.run.estimate:
            remaining = range(self._step + 1, recipe.optim.steps + 1)
            evaluations = sum(self._is_due(recipe.run.evaluate_every, step) for step in remaining)
            meter = CostMeter(
                recipe, self._method, self._open_batches, self._validation, runtime.device
            )
            estimate = meter.measure(
                self._step, evaluations, runtime.peak_memory_mib, is_main=runtime.is_main
            )
            runtime.gather(None)  # the first process also measures evaluations
        if estimate is not None:
            logger.print_line(str(estimate))
        self._cost = CostRecord(estimate, self._step)
        logger.start_clock()

    def _write_metrics(self) -> None:
        """Write the scores so far, and the estimate beside what the run has taken."""
        cost = self._cost.values(self._runtime.peak_memory_mib())
        self._best_metric.write(self._step, self._recipe.optim.steps, self._seconds, cost)

    def _train_step(self, batch_source: Batches, logger: MetricLogger) -> None:
        """Take one optimizer step; on a log step also fetch the metrics from the device."""
        start = time.perf_counter()
        optim = self._recipe.optim
        rates = set_learning_rates(self._runtime.optimizer, optim, self._step)
        for part in range(optim.accumulate_steps):
            losses = self._runtime.backward(
                next(batch_source),
                self._step,
                share=1 / optim.accumulate_steps,
                last=part == optim.accumulate_steps - 1,
            )
            self._window.add(losses)
        norm = self._runtime.update(optim.max_grad_norm)
        self._step += 1
        record = None
        if self._step % self._recipe.run.log_every == 0 or self._step == optim.steps:
            record = self._read_metrics(norm)
        self._seconds += time.perf_counter() - start
        logger.advance(self._step, record["losses"] if record is not None else {})
        if record is not None:
            self._log(logger, record, rates, batch_source)

    def _read_metrics(self, norm: Tensor | None) -> dict[str, Any]:
        """Fetch losses and monitored values; only here and in `_save` does the host wait."""
        monitored = dict(self._method.monitor)
        if norm is not None:
            monitored["grad_norm"] = norm
        monitor = {name: (value, 1) for name, value in host_values(monitored).items()}
        parts = self._runtime.gather((self._window.read(), monitor))
        losses = merged_means([window for window, _ in parts])
        self._window.clear()
        return {
            "step": self._step,
            "loss": sum(losses.values()),
            "losses": losses,
            "monitor": merged_means([monitor for _, monitor in parts]),
        }

    def _log(
        self, logger: MetricLogger, record: dict[str, Any], rates: dict[str, float], source: Batches
    ) -> None:
        """Write one log line, then stop all processes if a loss is not finite."""
        parts = self._recipe.optim.accumulate_steps
        before, now = (source.sizes.before(n * parts) for n in (self._logged_step, self._step))
        speed = (now - before) * self._runtime.world / (self._seconds - self._logged_seconds)
        self._logged_step, self._logged_seconds = self._step, self._seconds
        peak = self._runtime.peak_memory_mib()
        logger.write_record(record | {"lr": rates, "images_per_s": speed, "peak_memory_mib": peak})
        scalars = {f"loss/{name}": value for name, value in record["losses"].items()}
        scalars |= {f"monitor/{name}": value for name, value in record["monitor"].items()}
        scalars |= {f"lr/{name}": value for name, value in rates.items()}
        logger.write_scalars(scalars | {"speed/images_per_s": speed}, self._step)
        summary = f"loss {record['loss']:.4f}  {speed:.1f} images/s  {peak:.0f} MiB"
        logger.show_progress(self._step, summary)
        for name, reason in list(source.skipped.items())[self._skipped :]:
            logger.print_line(f"skipped '{printable(name)}': {reason}")
        self._skipped = len(source.skipped)
        self._reject_non_finite(record["losses"])

    def _reject_non_finite(self, losses: dict[str, float]) -> None:
        """Raise RunError if a loss is not finite."""
        for name, value in losses.items():
            if not math.isfinite(value):
                saved = f"state of step {self._saved_at}" if self._saved_at else "nothing"
                raise RunError(
                    f"loss '{name}' is {value} at step {self._step} (saved: {saved}); lower "
                    "optim.lr, set optim.max_grad_norm, or set run.precision to fp32"
                )

    def _validate(self, logger: MetricLogger) -> None:
        """Score the network, save it if it is the best, save samples; first process only."""
        if not self._runtime.is_main or self._best_metric.has_step(self._step):
            return
        with preserve_rng():
            evaluation = self._validation.score(self._method, self._runtime.device, self._step)
            self._validation.save_samples(
                self._method, self._runtime.device, self._step, self._folder.samples
            )
        if evaluation is not None:
            if self._best_metric.add(evaluation):
                self._save_weights("best")
            logger.write_record(
                {"step": self._step, "event": "evaluation", "score": evaluation.score}
            )
            logger.write_scalars({"held_out/score": evaluation.score}, self._step)
            metric = self._validation.metric
            logger.print_line(f"step {self._step}: {metric} {evaluation.score:.4f}")
        self._write_metrics()

    def _save(self) -> None:
        """Write the full state and the weights, unless those of this step are already saved."""
        if self._step == self._saved_at:
            return
        ranks = self._runtime.gather({"rng": rng_state(), "window": self._window.read()})
        self._reject_non_finite(merged_means([rank["window"] for rank in ranks]))
        if self._runtime.is_main:
            self._save_weights("last")
            if self._best_metric.reason is not None:
                self._save_weights("best")
            tensors = snapshot(self._method, self._runtime.optimizer)
            record = {"step": self._step, "seconds": self._seconds, "ranks": ranks}
            save_state(self._folder.state, tensors, record | versions())
            self._write_metrics()
        self._saved_at = self._step

    def _save_weights(self, which: Literal["best", "last"]) -> None:
        """Write a weights file with all that inference needs."""
        license = self._method.backbone.weights_license
        path = self._folder.weights(which)
        save_weights(path, self._method.state_dict(), self._recipe, license)

    def _restore(self) -> Batches:
        """Open the batches, then load the state, because opening may draw random numbers."""
        has_state = self._has_state
        tensors, record = read_snapshot(self._folder.state) if has_state else ({}, {"step": 0})
        opened = self._open_batches(record["step"])
        if has_state:
            self._load(tensors, record)
        return opened

    def _open_batches(self, step: int) -> Batches:
        """Open the training batches from a step on."""
        optim, run = self._recipe.optim, self._recipe.run
        return batches(
            self._source,
            self._recipe.data,
            batch_size=optim.batch_size,
            seed=run.seed,
            late_batch_size=optim.late_batch_size,
            late_from=resolve_steps(optim.late_from, optim.steps) * optim.accumulate_steps,
            workers=run.workers,
            rank=self._runtime.rank,
            world=self._runtime.world,
            start=step * optim.accumulate_steps,
            masks=self._images.reads_masks,
            favored=self._images.true_masks,
            favored_share=self._recipe.data.true_mask_share,
            padding=padding_color(self._recipe.data, self._method),
        )

    def _load(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Restore network, optimizer, random number generators and counters."""
        ranks = record["ranks"]
        if len(ranks) != self._runtime.world:
            raise RunError(
                f"{self._folder.root}: was trained by {len(ranks)} processes and cannot resume "
                f"with {self._runtime.world}; start {len(ranks)}"
            )
        restore(self._method, self._runtime.optimizer, tensors, str(self._folder.state))
        rank = ranks[self._runtime.rank]
        self._window.restore(rank["window"], self._runtime.device)
        self._step = self._saved_at = self._logged_step = record["step"]
        self._seconds = self._logged_seconds = record["seconds"]
        self._best_metric.restore(self._step)
        set_rng_state(rank["rng"])

    def _log_start(self, logger: MetricLogger, command: str) -> None:
        """Log the start: command, versions, machine and license of the weights."""
        license = self._method.backbone.weights_license
        logger.write_record(
            {
                "event": "resume" if self._resume else "start",
                "step": self._step,
                "seed": self._recipe.run.seed,
                "command": command,
                "versions": versions(),
                "machine": self._runtime.describe_machine(),
                "weights_license": license,
                "true_masks": len(self._images.true_masks),
            }
            | ({"starts_from": self._start} if self._start else {})
        )
        if self._step == 0:
            logger.print_line(f"{len(self._source)} images, weights license: {license}")
            for line in describe_masks(self._images, self._recipe.data):
                logger.print_line(line)
        if self._start:
            logger.print_line(self._start)
