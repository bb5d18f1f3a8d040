"""The run folder: where everything of a run lies, and whether a run may begin or go on in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tag2mask.config.recipe import Recipe
from tag2mask.errors import RunError
from tag2mask.io.files import TEMPORARY_SUFFIX

MAY_CHANGE = frozenset(
    {"data.root", "data.labels", "backbone.weights"}
    | {f"run.{key}" for key in ("workers", "log_every", "save_every", "samples")}
    | {f"run.evaluate_{key}" for key in ("every", "images")}
)
"""Keys of a recipe that a resumed run may set anew: places and pace, nothing that is learned."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run."""

    root: Path

    @property
    def recipe(self) -> Path:
        """Resolved recipe, classes included."""
        return self.root / "recipe.yaml"

    @property
    def log(self) -> Path:
        """JSON lines: how the run began, then one record per log step."""
        return self.root / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """Scores on held-out images over the run, and which weights are `best`."""
        return self.root / "metrics.json"

    @property
    def state(self) -> Path:
        """Everything that resume needs."""
        return self.root / "state" / "state.safetensors"

    @property
    def samples(self) -> Path:
        """Sample strips."""
        return self.root / "samples"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's own files."""
        return self.root / "tensorboard"

    def weights(self, which: Literal["last", "best"]) -> Path:
        """Weights of the last save, or of the best evaluation."""
        return self.root / "weights" / f"{which}.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, the last score is told and the weights are there."""
        try:
            told = json.loads(self.metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(told.get("finished")) and self.weights("last").is_file()

    def check(self, *, resume: bool) -> None:
        """Refuse a folder in which a run cannot begin, or cannot go on.

        Raises:
            RunError: If a new run's folder holds something, or there is no run to go on with.
        """
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root}: is a file; a run needs a folder")
        if resume and not self.recipe.is_file():
            raise RunError(f"{self.root}: holds no run to resume (no recipe.yaml)")
        if not resume and self._is_used():
            raise RunError(
                f"{self.root}: is not empty; choose another folder, or --resume {self.root}"
            )

    def _is_used(self) -> bool:
        """Whether anything lies here but what a run killed at its first write left."""
        return self.root.is_dir() and any(
            not path.name.endswith(TEMPORARY_SUFFIX) for path in self.root.iterdir()
        )


def check_same_recipe(before: Recipe, now: Recipe, where: Path) -> None:
    """Refuse to go on with a recipe that would learn something else.

    Networks of earlier stages are told apart by their fingerprints, not by their recipes.

    Args:
        before: The recipe that the run began with; keys that it lacks have their defaults.
        now: The recipe asked for.
        where: Run folder, for the message.

    Raises:
        RunError: One line that names the keys that differ, with both values.
    """
    old, new = (
        dict(_flat(one.model_dump(mode="json", exclude={"earlier"}))) for one in (before, now)
    )
    changed = [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if key not in MAY_CHANGE and old.get(key) != new.get(key)
    ]
    if changed:
        raise RunError(
            f"{where}: cannot be resumed with another recipe: {'; '.join(changed[:3])}. "
            "Keep the values it began with, or choose a new run folder"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
