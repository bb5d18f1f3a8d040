"""The run folder: the paths of a run, and the checks before a run starts or resumes in it.

When a process dies, `torchrun --max-restarts` starts all processes again with the same command. The
folder records which launch works in it, so that the second start resumes what the first one began.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tag2mask.config.recipe import Recipe
from tag2mask.errors import RunError
from tag2mask.io.files import visible_names, write_text
from tag2mask.io.run_files import read_metrics

MAY_CHANGE = frozenset(
    {"data.root", "data.labels", "backbone.weights", "predict.batch_size", "run.trackers"}
    | {f"run.{key}" for key in ("workers", "log_every", "save_every", "samples", "estimate")}
    | {f"run.evaluate_{key}" for key in ("every", "images")}
)
"""Recipe keys that may change when a run resumes: paths, intervals, what costs time; nothing that
affects the weights."""


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
        """JSON lines: how the run started, then one record per log step."""
        return self.root / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """Scores on held-out images over the run, and which weights are `best`."""
        return self.root / "metrics.json"

    @property
    def state(self) -> Path:
        """Everything that a resumed run needs."""
        return self.root / "state" / "state.safetensors"

    @property
    def launch(self) -> Path:
        """Which launch of torchrun works in the folder."""
        return self.root / "state" / "launch.txt"

    @property
    def trackers(self) -> Path:
        """Which run each experiment tracker has; see `training.trackers`."""
        return self.root / "state" / "trackers.json"

    @property
    def samples(self) -> Path:
        """Sample strips."""
        return self.root / "samples"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard files."""
        return self.root / "tensorboard"

    def weights(self, which: Literal["last", "best"]) -> Path:
        """Weights of the last save, or of the best evaluation."""
        return self.root / "weights" / f"{which}.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, the last step is scored, and the weights exist."""
        try:
            metrics = read_metrics(self.metrics)
        except RunError:
            return False
        return metrics.get("finished", False) and self.weights("last").is_file()

    @property
    def is_restart(self) -> bool:
        """Whether torchrun starts this run again, after one of its processes has died."""
        if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
            return False
        try:
            return self.launch.read_text(encoding="utf-8") == _launch_id()
        except OSError:
            return False

    def record_launch(self) -> None:
        """Record the launch of torchrun that works in the folder; nothing without torchrun.

        Raises:
            RunError: If the disk is full or writing is not allowed.
        """
        if name := _launch_id():
            write_text(self.launch, name)

    def check(self, *, resume: bool) -> bool:
        """Reject a folder in which a run cannot start or resume.

        Returns:
            Whether there is a run to resume: as asked for, or because torchrun restarts it.

        Raises:
            RunError: If the folder of a new run is not empty, or there is no run to resume.
        """
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root}: is a file; give a folder for the run")
        if resume and not self.recipe.is_file():
            raise RunError(f"{self.root}: contains no run to resume (no recipe.yaml)")
        is_restart = self.is_restart
        if not resume and not is_restart and self._is_used():
            resumable = f", or --resume {self.root}" if self.recipe.is_file() else ""
            raise RunError(f"{self.root}: is not empty; choose another folder{resumable}")
        return resume or (is_restart and self.recipe.is_file())

    def _is_used(self) -> bool:
        """Return whether the folder contains more than locks and leftovers of a killed write."""
        return self.root.is_dir() and bool(visible_names(self.root))


def _launch_id() -> str:
    """Return the name of the launch by torchrun; empty without torchrun.

    Launches without `--rdzv-id` all have the name "none"; the process that started this one then
    tells them apart.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{name} {os.getppid()}" if name == "none" else name


def check_same_recipe(before: Recipe, now: Recipe, where: Path) -> None:
    """Reject a recipe that would train something else than the run's own recipe.

    Networks of earlier stages are compared by their fingerprints, not by their recipes.

    Args:
        before: The recipe that the run started with; missing keys have their defaults.
        now: The recipe to resume with.
        where: Run folder, for the message.

    Raises:
        RunError: One line that names the keys that differ, with both values.
    """
    old, new = (
        dict(_flatten(recipe.model_dump(mode="json", exclude={"earlier"})))
        for recipe in (before, now)
    )
    changed = [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if key not in MAY_CHANGE and old.get(key) != new.get(key)
    ]
    if changed:
        raise RunError(
            f"{where}: cannot be resumed with another recipe: {'; '.join(changed[:3])}. "
            "Keep the original values, or choose a new run folder"
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
