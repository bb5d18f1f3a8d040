"""The side of BASE: its words and its grammar of the command line.

This is the one file of the comparison that speaks the old words. Whoever renames a key or a choice
changes `cases.py` and adds a line to the tables here. As a program it writes the shared images with
the code of BASE: `python benchmarks/golden/before.py OUT`, the source of BASE on PYTHONPATH.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from after import word

KEYS = {
    ("optim", "batch_size"): "batch",
    ("optim", "late_batch_size"): "late_batch",
    ("optim", "accumulate_steps"): "accumulate",
    ("optim", "max_grad_norm"): "clip_norm",
    ("optim", "optimizer"): "optimiser",
    ("optim", "bias_lr_factor"): "bias_rate",
    ("method", "foreground_threshold"): "high",
    ("method", "background_threshold"): "low",
    ("method", "background_peak_fraction"): "background_share",
    ("method", "min_score"): "least",
    ("method", "min_hard_pairs"): "least_pairs",
    ("method", "num_reference_images"): "companions",
    ("method", "reference_px"): "companion_px",
    ("method", "lr"): "rate",
}
"""(section, key of the working tree) -> key of BASE; what is not listed has the same name."""
CHOICES = {
    ("data", "name"): {"synthetic": "scenes"},
    ("predict", "protocol"): {"cam": "rml"},
}
"""(section, key of the working tree) -> values of the working tree -> values of BASE."""


def recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a recipe, or a part of one, with all its stages."""
    stages = {name: _stage(stage) for name, stage in values.get("stages", {}).items()}
    translated = {key: _section(key, part) for key, part in values.items() if key != "stages"}
    return {**translated, "stages": stages} if stages else translated


def shipped_path(name: str) -> str:
    """Path within the repository of a recipe that comes with the package."""
    return f"src/tag2mask/recipes/{name.replace('synthetic_', 'scenes_')}.yaml"


def overrides(changes: Mapping[str, Any]) -> list[str]:
    """Words of the command line that change keys of a recipe: `--predict.scales 1.0 0.5`."""
    words: list[str] = []
    for section, part in recipe(changes).items():
        if part is None:
            words += [f"--{section}", "none"]
            continue
        for key, value in part.items():
            parts = value if isinstance(value, list) else [value]
            words += [f"--{section}.{key}", *(word(one) for one in parts)]
    return words


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Translate one stage: its sections as those of a recipe; `run` says what the stage does."""
    return {k: _section(k, v) if isinstance(v, Mapping) else v for k, v in stage.items()}


def _section(section: str, part: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if part is None:
        return None
    found: dict[str, Any] = {}
    for key, value in part.items():
        if (section, key) == ("predict", "confident"):
            found |= _confident(value)
            continue
        choices = CHOICES.get((section, key), {})
        known = choices.get(value, value) if isinstance(value, str) else value
        found[KEYS.get((section, key), key)] = known
    return found


def _confident(value: Mapping[str, Any]) -> dict[str, Any]:
    """Translate how confident pseudo-labels are made: one mapping was two keys."""
    found: dict[str, Any] = {"confident": value["name"]}
    if "foreground_threshold" in value:
        found["confident_cuts"] = [value["foreground_threshold"], value["background_threshold"]]
    return found


def write_images(out: Path, count: int, size_px: int) -> None:
    """Write generated images with tags.csv and true masks; needs the code of BASE."""
    from tag2mask.data.scenes import ScenesConfig, write_scenes

    write_scenes(ScenesConfig(count=count, val_count=0, size_px=size_px, seed=11), out)


if __name__ == "__main__":
    write_images(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
