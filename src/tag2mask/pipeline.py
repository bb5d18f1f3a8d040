"""Run a recipe: its only stage, or all stages in order, each in its own folder.

Finished stages are skipped; interrupted ones resume, even after `kill -9`. A changed setting or a
changed earlier stage is an error: no output of a stage is overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.errors import RecipeError, RunError, did_you_mean
from tag2mask.evaluation.sources import evaluate_pseudo_labels, evaluate_source, sweep_source
from tag2mask.evaluation.tables import save_report
from tag2mask.inference.writer import label_dataset
from tag2mask.io.files import remove_leftovers, visible_names, write_text
from tag2mask.io.locks import folder_lock
from tag2mask.io.run_files import SCORES_FILE
from tag2mask.stage_state import StageState
from tag2mask.training import trainer
from tag2mask.training.logging import OnStep
from tag2mask.types import Report

POLL_SECONDS = 1.0
"""Interval at which the other processes check for the masks of the first one."""
Notify = Callable[[str], object]


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    stage: str | None = None,
    command: str = "",
    notify: Notify = lambda line: None,
    on_step: OnStep | None = None,
) -> Path:
    """Train a recipe into a run folder; of a recipe with stages, run all of them or one.

    Works in one process or under `torchrun`. A run that ends early, even by `kill -9`, resumes
    exactly.

    Args:
        recipe: What to do; without classes, they come from the data.
        out: Run folder. Without stages: new or empty unless resuming. With stages, which are
            folders inside it: it may already contain stages of the same recipe.
        resume: Resume the run in `out`.
        stage: Run this stage only; the stages that it needs must be finished.
        command: Command line that started the run, for the log.
        notify: Receives one line of text about each stage.
        on_step: Called after each step of a train stage, in the first process.

    Returns:
        The run folder.

    Raises:
        RunError: If the folder cannot be used or written, a stage was made with other settings, a
            loss is not finite, or a signal stopped the run; the message says how to resume.
        RecipeError: If there is no such stage.
        DataError: If the data cannot be used.
        WeightsError: If weights cannot be used.
        MissingExtraError: If the extra `train` is not installed.
    """
    if not recipe.stages:
        if stage is not None:
            raise RecipeError(f"--stage {stage}: this recipe has no stages")
        return trainer.train(recipe, out, resume=resume, command=command, on_step=on_step)
    if recipe.run.weights_from is not None:
        raise RecipeError(
            "run.weights_from (--from): a recipe with stages starts from its own networks; choose "
            "a recipe of one stage"
        )
    if stage is not None and stage not in recipe.stages:
        hint = did_you_mean(stage, recipe.stages)
        raise RecipeError(f"unknown stage '{stage}'.{hint} Known: {', '.join(recipe.stages)}")
    pipeline = _Pipeline(recipe, out, command, notify, on_step)
    pipeline.check(resume=resume)
    with folder_lock(out):
        pipeline.open(resume=resume)
        if stage is None:
            for name in recipe.stages:
                pipeline.run(name)
        else:
            for name in recipe.stages[stage].needs:
                pipeline.state.require_finished(name)
            pipeline.run(stage)
    return out


class _Pipeline:
    """Runs the stages of one recipe.

    Under `torchrun` all processes train; only the first one labels and evaluates.
    """

    def __init__(
        self, recipe: Recipe, root: Path, command: str, notify: Notify, on_step: OnStep | None
    ) -> None:
        self.state = StageState(recipe, root)
        self._recipe = recipe
        self._root = root
        self._command = command
        self._notify: Notify = notify if self.state.is_main else lambda line: None
        self._on_step = on_step

    def check(self, *, resume: bool) -> None:
        """Reject a folder without a change to it.

        Raises:
            RunError: If it is not the folder of a run with stages, or a stage was trained with
                other settings.
        """
        path = self._root / "recipe.yaml"
        if self._root.exists() and not self._root.is_dir():
            raise RunError(f"{self._root}: is a file; give a folder for the run")
        if path.is_file():
            if not load_recipe(str(path)).stages:
                raise RunError(
                    f"{self._root}: contains a run without stages; choose another folder"
                )
        elif resume:
            raise RunError(f"{self._root}: contains no run to resume (no recipe.yaml)")
        elif self._root.is_dir() and visible_names(self._root):
            raise RunError(f"{self._root}: is not empty and contains no run; choose another folder")
        self.state.reject_changed_settings()

    def open(self, *, resume: bool) -> None:
        """Check the folder, which another process may have written meanwhile; write the recipe.

        Raises:
            RunError: See `check`; or if the disk refuses.
        """
        self.check(resume=resume)
        if self.state.is_main:
            remove_leftovers(self._root)
            write_text(self._root / "recipe.yaml", self._recipe.to_yaml())

    def run(self, name: str) -> None:
        """Finish one stage; the stages that it needs are finished."""
        names = list(self._recipe.stages)
        title = f"stage {names.index(name) + 1} of {len(names)}, {name}"
        task = self._recipe.stages[name].run
        if self.state.is_finished(name):
            if self.state.is_main:
                with folder_lock(self._root / name):
                    pass  # takes over the lock of a process that was killed at its very end
            self._notify(f"{title}: finished, skipped")
            return
        self._notify(f"{title}: {task}")
        if task == "train":
            self._train(name)
        elif self.state.is_main:
            {"label": self._label, "evaluate": self._evaluate}[task](name)
        elif task == "label":
            while self.state.has_unlabeled(name):
                time.sleep(POLL_SECONDS)

    def _train(self, name: str) -> None:
        folder = self.state.folder(name)
        trainer.train(
            self.state.training_recipe(name),
            folder.root,
            resume=folder.recipe.is_file(),
            command=self._command,
            on_step=self._on_step,
            earlier={
                used: self.state.network_folder(used) for used in self._recipe.stages[name].from_
            },
        )

    def _label(self, name: str) -> None:
        started = time.perf_counter()
        recipe = self.state.recipe(name)
        with folder_lock(self._root / name):
            segmenter, writer = self.state.open_masks(name)
            source = self.state.source(name, "train")
            summary = label_dataset(segmenter, source, writer, strict=recipe.data.strict)
        for line in summary.unreadable:
            self._notify(f"skipped: {line}")
        self._notify(f"{summary.written} masks written to {writer.out}")
        for line in summary.masks.advice:
            self._notify(f"warning: {line}")
        elapsed = time.perf_counter() - started
        self.state.write_seconds(name, self.state.seconds(name) + elapsed)

    def _evaluate(self, name: str) -> None:
        started = time.perf_counter()
        report = self._report(name)
        settings = {**report.settings, "made_from": self.state.evaluation_inputs(name)}
        path = self._root / name / SCORES_FILE
        save_report(replace(report, settings=settings), path)
        self._notify(
            f"mIoU {report.miou:.4f}, {report.images} images, "
            f"classes from {report.class_source}: {path}"
        )
        self.state.write_seconds(name, time.perf_counter() - started)

    def _report(self, name: str) -> Report:
        """Score the masks of a label stage, or a trained network on the held-out images."""
        stage = self._recipe.stages[name]
        used = stage.from_[0]
        if self._recipe.stages[used].run == "label":
            return evaluate_pseudo_labels(self._root / used, self.state.source(name, "train"))
        segmenter, source = self.state.segmenter(name), self.state.source(name, "val")
        class_source = stage.class_source or "classifier"
        if not stage.thresholds:
            return evaluate_source(segmenter, source, class_source)
        sweep = sweep_source(segmenter, source, class_source, stage.thresholds)
        chosen = sweep
        if stage.thresholds_from is not None:
            others = self.state.list_source(name, stage.thresholds_from)
            chosen = sweep_source(segmenter, others, class_source, stage.thresholds)
        background, _ = chosen.best()
        compared = dict(zip(sweep.thresholds.tolist(), sweep.miou().tolist(), strict=True))
        settings = {
            **segmenter.settings(class_source),
            "refiner": None,
            "crf": None,
            "background": background,
            "thresholds": {str(level): miou for level, miou in compared.items()},
            "thresholds_from": stage.thresholds_from,
        }
        matrix = sweep.report_at(background)
        return matrix.report(source.class_names, len(source), class_source, settings)
