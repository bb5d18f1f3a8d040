"""Runs a recipe: its only stage, or all stages in order, each in a folder of its own.

A stage whose output is whole is skipped, one that was stopped goes on where it stopped, also after
`kill -9`. What a stage was made from is known by fingerprints, so that a changed setting or a
changed earlier stage is noticed; nothing is ever overwritten for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tag2mask import plugins
from tag2mask.config.recipe import Recipe, load_recipe, parse_recipe, stage_recipe
from tag2mask.data.base import Source
from tag2mask.errors import RecipeError, RunError, did_you_mean
from tag2mask.evaluation.evaluator import evaluate_pseudo_labels, evaluate_source, save_report
from tag2mask.inference.run import weights_fingerprint, weights_path
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter, label_dataset
from tag2mask.io.files import TEMPORARY_SUFFIX, write_text
from tag2mask.io.mask_folder import CLASSES_FILE, read_classes, read_skipped
from tag2mask.training import trainer
from tag2mask.training.run_folder import RunFolder, check_same_recipe
from tag2mask.types import Report

SCORES = "scores.json"
"""What a stage that evaluates leaves."""
POLL_SECONDS = 1.0
"""How often processes that wait for the first one's masks look for them."""
Notify = Callable[[str], object]


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    stage: str | None = None,
    command: str = "",
    tell: Notify = lambda line: None,
) -> Path:
    """Train a recipe into a run folder; a recipe with stages runs them all, or one.

    Works alone or under `torchrun`. What ends early, even by `kill -9`, goes on exactly.

    Args:
        recipe: What to do; classes may still be open.
        out: Run folder. Of one stage: new or empty unless resuming. Of several, which lie in it as
            folders of their own: it may also hold what the same recipe left.
        resume: Go on with the run in `out`.
        stage: Run this stage only; those that it needs must be whole.
        command: How the run was started, for the log.
        tell: Receives a line for each stage.

    Returns:
        The run folder.

    Raises:
        RunError: If the folder cannot be used or written, a stage was made with other settings, a
            loss is no longer finite, or the run was asked to stop; the message says how to go on.
        RecipeError: If there is no such stage.
        DataError: If the data cannot be used.
        WeightsError: If weights cannot be used.
        MissingExtraError: If the extra `train` is not installed.
    """
    if not recipe.stages:
        if stage is not None:
            raise RecipeError(f"--stage {stage}: this recipe has no stages")
        return trainer.train(recipe, out, resume=resume, command=command)
    if stage is not None and stage not in recipe.stages:
        hint = did_you_mean(stage, recipe.stages)
        raise RecipeError(f"unknown stage '{stage}'.{hint} Known: {', '.join(recipe.stages)}")
    pipeline = _Pipeline(recipe, out, command, tell)
    pipeline.open(resume=resume)
    if stage is None:
        for name in recipe.stages:
            pipeline.run(name)
    else:
        for name in recipe.stages[stage].needs:
            pipeline.require(name)
        pipeline.run(stage)
    return out


class _Pipeline:
    """The stages of one recipe and their folders.

    Under `torchrun` all processes train; the first alone labels and evaluates.
    """

    def __init__(self, recipe: Recipe, root: Path, command: str, tell: Notify) -> None:
        self._recipe = recipe
        self._plans = {name: stage_recipe(recipe, name) for name in recipe.stages}
        self._root = root
        self._command = command
        self._is_main = os.environ.get("RANK", "0") == "0"
        self._tell: Notify = tell if self._is_main else lambda line: None

    def open(self, *, resume: bool) -> None:
        """Make the run folder, or refuse it; then write the recipe of the whole.

        Raises:
            RunError: If it is no folder of a run with stages, or a stage was trained otherwise.
        """
        written = self._root / "recipe.yaml"
        if self._root.exists() and not self._root.is_dir():
            raise RunError(f"{self._root}: is a file; a run needs a folder")
        if written.is_file():
            if not load_recipe(str(written)).stages:
                raise RunError(f"{self._root}: holds a run without stages; choose another folder")
        elif resume:
            raise RunError(f"{self._root}: holds no run to resume (no recipe.yaml)")
        elif self._root.is_dir() and any(
            not path.name.endswith(TEMPORARY_SUFFIX) for path in self._root.iterdir()
        ):
            raise RunError(f"{self._root}: is not empty and holds no run; choose another folder")
        for name, stage in self._recipe.stages.items():
            if stage.run == "train" and self._folder(name).recipe.is_file():
                self._reject_changes(name, self._plans[name])
        if self._is_main:
            write_text(written, self._recipe.to_yaml())

    def run(self, name: str) -> None:
        """Bring one stage to its end; what it needs is whole."""
        names = list(self._recipe.stages)
        where = f"stage {names.index(name) + 1} of {len(names)}, {name}"
        does = self._recipe.stages[name].run
        if self.is_whole(name):
            self._tell(f"{where}: whole, skipped")
            return
        self._tell(f"{where}: {does}")
        if does == "train":
            self._train(name)
        elif self._is_main:
            {"label": self._label, "evaluate": self._evaluate}[does](name)
        elif does == "label":
            while self._unlabeled(name):
                time.sleep(POLL_SECONDS)

    def require(self, name: str) -> None:
        """Raise a RunError unless a stage, and all it was made from, is whole."""
        for needed in self._recipe.stages[name].needs:
            self.require(needed)
        if not self.is_whole(name):
            raise RunError(
                f"{self._root / name}: stage '{name}' is not whole; first run "
                f"tag2mask train --resume {self._root} --stage {name}"
            )

    def is_whole(self, name: str) -> bool:
        """Whether a stage has nothing left to do.

        Raises:
            RunError: If it was made with other settings or from other inputs.
        """
        checks = {
            "train": self._is_trained,
            "label": self._is_labeled,
            "evaluate": self._is_scored,
        }
        return checks[self._recipe.stages[name].run](name)

    def _folder(self, name: str) -> RunFolder:
        return RunFolder(self._root / name)

    def _resolved_recipe(self, name: str) -> Recipe:
        """The recipe of a stage, with the classes that an earlier stage found in the data."""
        recipe = self._plans[name]
        needs = self._recipe.stages[name].needs
        if recipe.data.classes or not needs:
            return recipe
        if self._recipe.stages[needs[0]].run == "label":
            return recipe.with_classes(read_classes(self._root / needs[0])["classes"])
        return recipe.with_classes(load_recipe(str(self._folder(needs[0]).recipe)).data.classes)

    def _source(self, recipe: Recipe, part: str) -> Source:
        """The images of a recipe: those to learn from, or those held out."""
        source: Source = plugins.load("data", recipe.data.name)(recipe.data, part)
        return source

    def _fingerprint(self, name: str) -> str:
        """Tell one result of a train or label stage from any other."""
        if self._recipe.stages[name].run == "label":
            told = read_classes(self._root / name)
            told["settings"].pop("run", None)  # a place; the weights have a fingerprint
            return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return weights_fingerprint(weights_path(self._root / name, "best"))

    def _inputs(self, name: str) -> dict[str, str]:
        return {used: self._fingerprint(used) for used in self._recipe.stages[name].needs}

    def _training(self, name: str) -> Recipe:
        """The recipe of a train stage with all that earlier stages left for it."""
        stage = self._recipe.stages[name]
        recipe = self._resolved_recipe(name)
        update: dict[str, Any] = {
            "earlier": {used: load_recipe(str(self._folder(used).recipe)) for used in stage.from_},
            "inputs": self._inputs(name),
        }
        if stage.labels is not None:
            update["data"] = recipe.data.model_copy(update={"labels": self._root / stage.labels})
        return recipe.model_copy(update=update).resolved()

    def _train(self, name: str) -> None:
        folder = self._folder(name)
        trainer.train(
            self._training(name),
            folder.root,
            resume=folder.recipe.is_file(),
            command=self._command,
            earlier={used: self._root / used for used in self._recipe.stages[name].from_},
        )

    def _is_trained(self, name: str) -> bool:
        folder = self._folder(name)
        if not folder.recipe.is_file():
            return False
        self._reject_changes(name, self._training(name))
        return folder.is_finished

    def _reject_changes(self, name: str, wanted: Recipe) -> None:
        """Raise a RunError if a stage was trained otherwise, or from something else."""
        folder = self._folder(name)
        found = load_recipe(str(folder.recipe))
        for used, fingerprint in wanted.inputs.items():
            if found.inputs.get(used) != fingerprint:
                raise RunError(
                    f"{folder.root}: was trained from another '{used}' than there is now; remove "
                    "this folder to train the stage anew"
                )
        if not wanted.data.classes:
            wanted = wanted.with_classes(found.data.classes)
        wanted = wanted.resolved().model_copy(update={"inputs": found.inputs})
        check_same_recipe(found, wanted, folder.root)

    def _label(self, name: str) -> None:
        recipe = self._resolved_recipe(name)
        segmenter, writer = self._open_masks(name)
        source = self._source(recipe, "train")
        source.reads_masks = False
        written = label_dataset(segmenter, source, writer, strict=recipe.data.strict)
        for line in written.unreadable:
            self._tell(f"skipped: {line}")
        self._tell(f"{written.written} masks written to {writer.out}")

    def _is_labeled(self, name: str) -> bool:
        if not (self._root / name / CLASSES_FILE).is_file() or self._unlabeled(name):
            return False
        if self._is_main:
            self._open_masks(name)  # refuses masks that were made otherwise
        return True

    def _unlabeled(self, name: str) -> bool:
        """Whether an image of a label stage lacks its mask; one that cannot be read needs none."""
        folder = self._root / name
        skipped = read_skipped(folder)
        return any(
            image not in skipped and not (folder / f"{image}.png").is_file()
            for image in self._source(self._resolved_recipe(name), "train").names
        )

    def _open_masks(self, name: str) -> tuple[Segmenter, MaskWriter]:
        """The network of a label stage and the folder that it fills.

        Raises:
            RunError: If the folder holds masks that were made otherwise.
        """
        recipe = self._resolved_recipe(name)
        segmenter = self._segmenter(recipe, self._recipe.stages[name].from_[0])
        split = recipe.data.model_dump().get("split", "train")
        settings = {**segmenter.settings("tags"), "split": split}
        return segmenter, MaskWriter(self._root / name, segmenter.class_names, "tags", settings)

    def _segmenter(self, recipe: Recipe, network: str) -> Segmenter:
        """Open the network of a train stage with the test-time settings of `recipe`."""
        values = recipe.plain()
        inference = {section: values[section] for section in ("method", "predict", "refiner")}
        run = self._root / network

        def configure(trained: Recipe) -> Recipe:
            return parse_recipe({**trained.plain(), **inference}, str(run))

        return Segmenter.load(run, configure=configure)

    def _evaluate(self, name: str) -> None:
        report = self._report(name)
        settings = {**report.settings, "made_from": self._made_from(name)}
        path = self._root / name / SCORES
        save_report(replace(report, settings=settings), path)
        self._tell(
            f"mIoU {report.miou:.4f}, {report.images} images, classes from {report.class_source}: {path}"
        )

    def _report(self, name: str) -> Report:
        """Score the masks of a label stage, or a trained network on the held-out images."""
        recipe = self._resolved_recipe(name)
        used = self._recipe.stages[name].from_[0]
        if self._recipe.stages[used].run == "label":
            return evaluate_pseudo_labels(self._root / used, self._source(recipe, "train"))
        segmenter = self._segmenter(recipe, used)
        return evaluate_source(segmenter, self._source(recipe, "val"), "classifier")

    def _is_scored(self, name: str) -> bool:
        """Whether there are scores, made from what there is now; others are made anew."""
        try:
            told = json.loads((self._root / name / SCORES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        made_from: object = told["settings"].get("made_from")
        return made_from == self._made_from(name)

    def _made_from(self, name: str) -> dict[str, Any]:
        values = self._resolved_recipe(name).plain()
        return {"inputs": self._inputs(name), "data": values["data"], "predict": values["predict"]}
