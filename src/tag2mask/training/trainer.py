"""Training: one stage of a recipe from its first step to its last, resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tag2mask import plugins
from tag2mask.checkpoint import read_state, save_state, save_weights, versions
from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.config.schema import DataConfig, StepsOrFraction, resolve_steps
from tag2mask.data.base import Source
from tag2mask.data.loader import Batches, batches
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.errors import RecipeError, RunError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_text
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.training.best_metric import BestMetric
from tag2mask.training.logging import LossWindow, MetricLogger, cut_log, host_values, merged_means
from tag2mask.training.optimizer import (
    build_optimizer,
    set_learning_rates,
)
from tag2mask.training.run_folder import RunFolder, check_same_recipe
from tag2mask.training.runtime import Runtime, StopRequest
from tag2mask.training.seeding import rng_kept, rng_state, seed_all, set_rng_state
from tag2mask.training.snapshot import restore, snapshot
from tag2mask.training.validation import ValidationLoop


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    earlier: Mapping[str, Path] | None = None,
) -> Path:
    """Train a recipe of one stage into a run folder.

    Works alone or under `torchrun`. A run that ends early, even by `kill -9`, goes on exactly from
    its last saved state.

    Args:
        recipe: What to train; classes may still be open.
        out: Run folder; new or empty unless resuming.
        resume: Go on with the run in `out`.
        command: How the run was started, for the log.
        earlier: Run folders of the stages in `recipe.earlier`; not needed to resume from a saved
            state.

    Returns:
        The run folder.

    Raises:
        RunError: If the folder cannot be used or written, a loss is no longer finite, or the run
            was asked to stop; the message says how to go on.
        RecipeError: If the recipe has several stages, which `pipeline` runs.
        DataError: If the data cannot be used.
        WeightsError: If the backbone's weights cannot be used.
        MissingExtraError: If the extra `train` is not installed.
    """
    if recipe.stages:
        raise RecipeError(f"{out}: the recipe has stages, which tag2mask.train runs one by one")
    folder = RunFolder(out)
    folder.check(resume=resume)
    runtime = Runtime(recipe.run.precision)
    stop = StopRequest()
    try:
        runtime.gather(None)  # nobody writes before all have looked
        with stop.listening():
            _Training(recipe, folder, runtime, stop, earlier or {}, resume=resume).run(command)
    finally:
        runtime.shutdown()
    return out


class _Training:
    """One run: what it needs, and what it has done so far."""

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
        """Build everything that can fail before anything is written."""
        seed_all(recipe.run.seed, runtime.rank)
        self._folder = folder
        self._runtime = runtime
        self._stop = stop
        self._resume = resume
        self._source = _training_source(recipe.data)
        self._recipe = recipe.resolved().with_classes(self._source.class_names)
        if resume:
            check_same_recipe(load_recipe(str(folder.recipe)), self._recipe, folder.root)
        self._validation = ValidationLoop(self._recipe, self._source)
        networks = None if self._has_state else _trained(self._recipe, earlier)
        self._method = build_method(self._recipe, networks).train()
        runtime.adopt(self._method, lambda: build_optimizer(self._method, recipe.optim))
        self._window = LossWindow()
        self._step = 0
        self._saved_at = 0
        self._seconds = 0.0
        self._logged_seconds = 0.0
        self._logged_step = 0
        self._skipped = 0
        self._scores = BestMetric(folder.metrics, self._validation.metric, self._validation.reason)

    @property
    def _has_state(self) -> bool:
        """Whether there is a saved state to go on from, which fills every network."""
        return self._resume and self._folder.state.is_file()

    def run(self, command: str) -> None:
        """Train from the first step, or from the saved state, to the last."""
        batch_source = self._restore()
        if self._runtime.is_main:
            write_text(self._folder.recipe, self._recipe.to_yaml())
            if self._resume and self._folder.log.is_file():
                cut_log(self._folder.log, self._step)
        try:
            with MetricLogger(
                self._folder.log,
                tensorboard=self._folder.tensorboard,
                steps=self._recipe.optim.steps,
                start=self._step,
                is_main=self._runtime.is_main,
            ) as logger:
                self._introduce(logger, command)
                self._loop(batch_source, logger)
        finally:
            batch_source.close()
        self._runtime.gather(None)  # nobody leaves while the first process still evaluates

    def _loop(self, batch_source: Batches, logger: MetricLogger) -> None:
        """Save before looking, so that a fault among the held-out images costs no training."""
        run, total = self._recipe.run, self._recipe.optim.steps
        while True:
            if self._runtime.any(self._stop.asked):
                self._save()
                raise RunError(
                    f"stopped at step {self._step} of {total}, nothing is lost; "
                    f"go on with --resume {self._folder.root}"
                )
            if self._is_due(run.save_every):
                self._save()
            if self._is_due(run.evaluate_every):
                self._look(logger)
            if self._step == total:
                return
            self._advance(batch_source, logger)

    def _is_due(self, span: StepsOrFraction) -> bool:
        """Whether something done every `span`, and at the end, is to be done now."""
        total = self._recipe.optim.steps
        every = max(resolve_steps(span, total), 1) if span else total
        return self._step > 0 and (self._step == total or self._step % every == 0)

    def _advance(self, batch_source: Batches, logger: MetricLogger) -> None:
        """Take one optimizer step; on a log step also read what the device has summed up."""
        began = time.perf_counter()
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
            record = self._read(norm)
        self._seconds += time.perf_counter() - began
        logger.advance(self._step)
        if record is not None:
            self._log(logger, record, rates, batch_source)

    def _read(self, norm: Tensor | None) -> dict[str, Any]:
        """Fetch losses and monitored values; only here and in `_save` the host waits."""
        watched = dict(self._method.monitor)
        if norm is not None:
            watched["grad_norm"] = norm
        monitor = {name: (value, 1) for name, value in host_values(watched).items()}
        parts = self._runtime.gather((self._window.read(), monitor))
        losses = merged_means([window for window, _ in parts])
        self._window.clear()
        return {
            "step": self._step,
            "loss": sum(losses.values()),
            "losses": losses,
            "monitor": merged_means([seen for _, seen in parts]),
        }

    def _log(
        self, logger: MetricLogger, record: dict[str, Any], rates: dict[str, float], source: Batches
    ) -> None:
        """Write one log line, then stop all processes alike if a loss is not finite."""
        parts = self._recipe.optim.accumulate_steps
        before, now = (source.sizes.before(n * parts) for n in (self._logged_step, self._step))
        pace = (now - before) * self._runtime.world / (self._seconds - self._logged_seconds)
        self._logged_step, self._logged_seconds = self._step, self._seconds
        peak = self._runtime.peak_memory_mib()
        logger.write(record | {"lr": rates, "images_per_s": pace, "peak_memory_mib": peak})
        scalars = {f"loss/{name}": value for name, value in record["losses"].items()}
        scalars |= {f"monitor/{name}": value for name, value in record["monitor"].items()}
        scalars |= {f"lr/{name}": value for name, value in rates.items()}
        logger.scalars(scalars | {"speed/images_per_s": pace}, self._step)
        told = f"loss {record['loss']:.4f}  {pace:.1f} images/s  {peak:.0f} MiB"
        logger.tell(self._step, told)
        for name, why in list(source.skipped.items())[self._skipped :]:
            logger.say(f"skipped '{name}': {why}")
        self._skipped = len(source.skipped)
        self._reject_non_finite(record["losses"])

    def _reject_non_finite(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                kept = f"state of step {self._saved_at}" if self._saved_at else "nothing"
                raise RunError(
                    f"loss '{name}' is {value} by step {self._step} (saved: {kept}); lower "
                    "optim.lr, set optim.clip_norm, or train with run.precision fp32"
                )

    def _look(self, logger: MetricLogger) -> None:
        """Score the network, keep it if it is the best so far, draw strips; first process only."""
        if not self._runtime.is_main or self._scores.has(self._step):
            return
        with rng_kept():
            seen = self._validation.score(self._method, self._runtime.device, self._step)
            self._validation.draw(
                self._method, self._runtime.device, self._step, self._folder.samples
            )
        if seen is not None:
            if self._scores.add(seen):
                save_weights(self._folder.weights("best"), self._method.state_dict(), self._recipe)
            logger.write({"step": self._step, "event": "evaluation", "score": seen.score})
            logger.scalars({"held_out/score": seen.score}, self._step)
            logger.say(f"step {self._step}: {self._validation.metric} {seen.score:.4f}")
        self._scores.write(self._step, self._recipe.optim.steps, self._seconds)

    def _save(self) -> None:
        """Write full state and weights, unless those of this step are on the disk already."""
        if self._step == self._saved_at:
            return
        ranks = self._runtime.gather({"rng": rng_state(), "window": self._window.read()})
        self._reject_non_finite(merged_means([rank["window"] for rank in ranks]))
        if self._runtime.is_main:
            weights = self._method.state_dict()
            save_weights(self._folder.weights("last"), weights, self._recipe)
            if self._validation.metric is None:
                save_weights(self._folder.weights("best"), weights, self._recipe)
            tensors = snapshot(self._method, self._runtime.optimizer)
            record = {"step": self._step, "seconds": self._seconds, "ranks": ranks}
            save_state(self._folder.state, tensors, record | versions())
            self._scores.write(self._step, self._recipe.optim.steps, self._seconds)
        self._saved_at = self._step

    def _restore(self) -> Batches:
        """Open the batches, then load the state: opening may draw random numbers."""
        has_state = self._has_state
        tensors, record = read_state(self._folder.state) if has_state else ({}, {"step": 0})
        optim, run = self._recipe.optim, self._recipe.run
        opened = batches(
            self._source,
            self._recipe.data,
            batch_size=optim.batch_size,
            seed=run.seed,
            late_batch_size=optim.late_batch_size,
            late_from=resolve_steps(optim.late_from, optim.steps) * optim.accumulate_steps,
            workers=run.workers,
            rank=self._runtime.rank,
            world=self._runtime.world,
            start=record["step"] * optim.accumulate_steps,
            masks=self._method.reads_masks,
        )
        if has_state:
            self._load(tensors, record)
        return opened

    def _load(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Put network, optimizer, generators and counters where the saved run left them."""
        ranks = record["ranks"]
        if len(ranks) != self._runtime.world:
            raise RunError(
                f"{self._folder.root}: was trained by {len(ranks)} processes and cannot go on "
                f"with {self._runtime.world}"
            )
        restore(self._method, self._runtime.optimizer, tensors, str(self._folder.state))
        own = ranks[self._runtime.rank]
        self._window.restore(own["window"], self._runtime.device)
        self._step = self._saved_at = self._logged_step = record["step"]
        self._seconds = self._logged_seconds = record["seconds"]
        self._scores.restore(self._step)
        set_rng_state(own["rng"])

    def _introduce(self, logger: MetricLogger, command: str) -> None:
        """Say and log what runs where."""
        license = self._method.backbone.weights_license
        logger.write(
            {
                "event": "resume" if self._resume else "start",
                "step": self._step,
                "seed": self._recipe.run.seed,
                "command": command,
                "versions": versions(),
                "machine": self._runtime.machine(),
                "weights_license": license,
            }
        )
        if self._step == 0:
            logger.say(f"{len(self._source)} images, weights license: {license}")


def _trained(recipe: Recipe, folders: Mapping[str, Path]) -> dict[str, Method]:
    """Load the networks of the earlier stages that a recipe goes on from."""
    missing = [name for name in recipe.earlier if name not in folders]
    if missing:
        raise RunError(
            f"the network of stage '{missing[0]}' is needed; train the stages by their own recipe, "
            "with tag2mask train RECIPE --stage NAME"
        )
    return {name: Segmenter.load(folders[name]).method for name in recipe.earlier}


def _training_source(config: DataConfig) -> Source:
    """Open the images to learn from, with the masks of `config.labels` where it names a folder."""
    source: Source = plugins.load("data", config.name)(config, "train")
    return source if config.labels is None else PseudoLabelDataset(source, config.labels)
