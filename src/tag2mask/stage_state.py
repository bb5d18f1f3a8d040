"""State of the stages in a run folder: what each is made from, and whether it is finished.

Fingerprints record the inputs of a stage, so a changed setting or a changed earlier stage is
detected.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tag2mask import plugins
from tag2mask.config.recipe import Recipe, load_recipe, parse_recipe, stage_recipe
from tag2mask.data.base import Source
from tag2mask.errors import DataError, RecipeError, RunError
from tag2mask.inference.run import weights_fingerprint, weights_path
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter
from tag2mask.io.files import write_text
from tag2mask.io.json_files import read_object
from tag2mask.io.mask_folder import CLASSES_FILE, read_classes, read_skipped
from tag2mask.io.run_files import SCORES_FILE, Score, read_metrics
from tag2mask.training.run_folder import RunFolder, check_same_recipe


class StageState:
    """The stages of one recipe in a run folder."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        """Resolve the recipe of each stage.

        Args:
            recipe: Has stages.
            root: Run folder that contains one folder per stage.
        """
        self.stages = recipe.stages
        self.root = root
        self.is_main = os.environ.get("RANK", "0") == "0"
        self._recipes = {name: stage_recipe(recipe, name) for name in recipe.stages}

    def folder(self, name: str) -> RunFolder:
        """Return the folder of a stage."""
        return RunFolder(self.root / name)

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a stage, with the classes that an earlier stage read."""
        recipe = self._recipes[name]
        needs = self.stages[name].needs
        if recipe.data.classes or not needs:
            return recipe
        if self.stages[needs[0]].run == "label":
            return recipe.with_classes(read_classes(self.root / needs[0])["classes"])
        return recipe.with_classes(load_recipe(str(self.folder(needs[0]).recipe)).data.classes)

    def training_recipe(self, name: str) -> Recipe:
        """Return the recipe of a train stage, with the outputs of earlier stages filled in."""
        stage = self.stages[name]
        recipe = self.recipe(name)
        update: dict[str, Any] = {
            "earlier": {used: self._network_recipe(used) for used in stage.from_},
            "inputs": self.inputs(name),
        }
        if stage.labels is not None:
            update["data"] = recipe.data.model_copy(update={"labels": self.root / stage.labels})
        return recipe.model_copy(update=update).resolved()

    def network_folder(self, name: str) -> Path:
        """Return the run folder with the network of a stage; a label stage uses another's."""
        stage = self.stages[name]
        return self.root / (name if stage.run == "train" else stage.from_[0])

    def source(self, name: str, part: str) -> Source:
        """Open the images of a stage: training images (`train`) or held-out images (`val`)."""
        config = self.recipe(name).data
        source: Source = plugins.load("data", config.name)(config, part)
        return source

    def list_source(self, name: str, val_split: str) -> Source:
        """Open other held-out images of a stage's data set, those of another `data.val_split`.

        Raises:
            RecipeError: If the data source has no lists.
        """
        config = self.recipe(name).data
        if "val_split" not in type(config).model_fields:
            raise RecipeError(
                f"stages.{name}.thresholds_from: data source '{config.name}' has no lists; remove "
                "the key"
            )
        other = config.model_copy(update={"val_split": val_split})
        source: Source = plugins.load("data", config.name)(other, "val")
        return source

    def segmenter(self, name: str) -> Segmenter:
        """Open the network that a stage uses, with the stage's own test-time settings."""
        values = self.recipe(name).plain()
        inference = {section: values[section] for section in ("method", "predict", "refiner")}
        run = self.network_folder(self.stages[name].from_[0])

        def configure(trained: Recipe) -> Recipe:
            plain = trained.plain()
            # A trained backbone is resolved: the stage's own changes go on top of it.
            backbone = {**plain["backbone"], **self.stages[name].backbone}
            return parse_recipe({**plain, **inference, "backbone": backbone}, str(run))

        return Segmenter.load(run, configure=configure)

    def open_masks(self, name: str) -> tuple[Segmenter, MaskWriter]:
        """Return the network of a label stage and the mask folder that it fills.

        Raises:
            RunError: If the folder contains masks made with different settings.
        """
        segmenter = self.segmenter(name)
        split = self.recipe(name).data.model_dump().get("split", "train")
        settings = {**segmenter.settings("tags"), "split": split}
        return segmenter, MaskWriter(self.root / name, segmenter.class_names, "tags", settings)

    def inputs(self, name: str) -> dict[str, str]:
        """Return the fingerprints of the stages that a stage needs."""
        return {used: self._fingerprint(used) for used in self.stages[name].needs}

    def evaluation_inputs(self, name: str) -> dict[str, Any]:
        """Return everything that the scores of an evaluate stage depend on."""
        values = self.recipe(name).plain()
        stage = self.stages[name]
        choices = {
            key: value
            for key in ("class_source", "thresholds", "thresholds_from")
            if (value := getattr(stage, key))
        }
        inputs = {"inputs": self.inputs(name)}
        inputs |= {section: values[section] for section in ("data", "backbone", "predict")}
        del inputs["predict"]["batch_size"]  # says how fast masks are made, not what they show
        plain: dict[str, Any] = json.loads(json.dumps(inputs | choices))
        return plain

    def seconds(self, name: str) -> float:
        """Return the seconds that a stage has taken, without those of a killed process."""
        path = self.folder(name).metrics
        return float(read_metrics(path).get("seconds", 0.0)) if path.is_file() else 0.0

    def write_seconds(self, name: str, seconds: float) -> None:
        """Write the `metrics.json` of a label or evaluate stage; train stages write their own."""
        write_text(self.folder(name).metrics, json.dumps({"seconds": seconds}) + "\n")

    def is_finished(self, name: str) -> bool:
        """Return whether a stage has nothing left to do.

        Raises:
            RunError: If it was made with other settings or from other inputs.
        """
        checks = {
            "train": self._is_trained,
            "label": self._is_labeled,
            "evaluate": self._is_scored,
        }
        return checks[self.stages[name].run](name)

    def require_finished(self, name: str) -> None:
        """Raise RunError unless a stage, and every stage that it needs, is finished."""
        for needed in self.stages[name].needs:
            self.require_finished(needed)
        if not self.is_finished(name):
            raise RunError(
                f"{self.root / name}: stage '{name}' is not finished; first run "
                f"tag2mask train --resume {self.root} --stage {name}"
            )

    def reject_changed_settings(self) -> None:
        """Raise RunError if a train stage was trained with settings other than the recipe's."""
        for name, stage in self.stages.items():
            if stage.run == "train" and self.folder(name).recipe.is_file():
                self._reject_changes(name, self._recipes[name])

    def has_unlabeled(self, name: str) -> bool:
        """Return whether a label stage still lacks the mask of a readable image."""
        folder = self.root / name
        skipped = read_skipped(folder)
        return any(
            image not in skipped and not (folder / f"{image}.png").is_file()
            for image in self.source(name, "train").names
        )

    def _network_recipe(self, name: str) -> Recipe:
        """Return the recipe of a stage's network, with the method by which the stage reads it."""
        path = self.network_folder(name) / "recipe.yaml"
        values = load_recipe(str(path)).plain()
        values["method"] = self.recipe(name).method.model_dump(mode="json")
        return parse_recipe(values, str(path))

    def _fingerprint(self, name: str) -> str:
        """Identify the result of a train or label stage."""
        if self.stages[name].run == "label":
            described = read_classes(self.root / name)
            described.get("settings", {}).pop("run", None)  # a path; the weights have a fingerprint
            return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return weights_fingerprint(weights_path(self.root / name, "best"))

    def _is_trained(self, name: str) -> bool:
        folder = self.folder(name)
        if not folder.recipe.is_file():
            return False
        self._reject_changes(name, self.training_recipe(name))
        return folder.is_finished

    def _is_labeled(self, name: str) -> bool:
        if not (self.root / name / CLASSES_FILE).is_file() or self.has_unlabeled(name):
            return False
        if self.is_main:
            self.open_masks(name)  # rejects masks made with different settings
        return True

    def _is_scored(self, name: str) -> bool:
        """Return whether there are scores of the present inputs; other scores are replaced."""
        try:
            scores = read_object(self.root / name / SCORES_FILE, Score)
        except DataError:
            return False
        made_from: object = scores.get("settings", {}).get("made_from")
        return made_from == self.evaluation_inputs(name)

    def _reject_changes(self, name: str, recipe: Recipe) -> None:
        """Raise RunError if a stage was trained with other settings or from other inputs."""
        folder = self.folder(name)
        trained = load_recipe(str(folder.recipe))
        for used, fingerprint in recipe.inputs.items():
            if trained.inputs.get(used) != fingerprint:
                raise RunError(
                    f"{folder.root}: was trained from another result of stage '{used}'; remove "
                    "this folder to train the stage again"
                )
        if not recipe.data.classes:
            recipe = recipe.with_classes(trained.data.classes)
        recipe = recipe.resolved().model_copy(update={"inputs": trained.inputs})
        check_same_recipe(trained, recipe, folder.root)
