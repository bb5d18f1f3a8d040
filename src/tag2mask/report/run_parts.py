"""Read what a run folder contains: recipe, log, scores, strips; a run may have stopped early."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.errors import DataError, RunError, Tag2MaskError
from tag2mask.io.json_files import read_object
from tag2mask.io.run_files import Score, is_score, read_log, read_metrics

STRIP_NAME = re.compile(r"step(\d+)_.*\.png")
SCORE_KEYS = ("class_names", "iou", "miou", "images", "class_source")

Values = Mapping[str, Any]


class Run(NamedTuple):
    """The readable parts of a run folder."""

    folder: Path
    recipe: Recipe | None
    log: tuple[Values, ...]
    metrics: Values
    scores: Mapping[str, Values]
    """Title -> scores as plain values; equal scores appear once, with all their titles."""
    strips: tuple[Path, ...]
    missing: tuple[str, ...]
    """One line per part that is missing or not readable."""
    no_scores: tuple[str, ...] = ()
    """How to add scores if there are none."""


def read_run(folder: Path) -> Run:
    """Read all parts of a run folder that exist."""
    missing: list[str] = []
    recipe = None
    try:
        recipe = load_recipe(str(folder / "recipe.yaml"))
    except Tag2MaskError as error:
        missing.append(error.problems[0])
    log = _read_log(folder / "log.jsonl", missing)
    metrics = _read_metrics(folder / "metrics.json", missing)
    strips = _last_strips(folder / "samples")
    scores = merge_equal_scores(_read_scores(folder, metrics))
    no_scores = () if scores else (_how_to_add_scores(metrics),)
    return Run(folder, recipe, log, metrics, scores, strips, tuple(missing), no_scores)


def _read_log(path: Path, missing: list[str]) -> tuple[Values, ...]:
    """Read the records of a log; skip an incomplete line."""
    if not path.is_file():
        missing.append(f"{path.name}: not found")
        return ()
    return read_log(path)


def _read_metrics(path: Path, missing: list[str]) -> Values:
    """Read the scores during training."""
    try:
        return read_metrics(path)
    except RunError:
        missing.append(f"{path.name}: missing or not readable; the run may have been interrupted")
        return {}


def _read_scores(folder: Path, metrics: Values) -> dict[str, Values]:
    """Read scores by title: first those in files, then those of the best and the last weights."""
    scores: dict[str, Values] = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(DataError):  # other files of the run
            scores[path.name] = read_object(path, Score)
    history = [record for record in metrics.get("history", ()) if is_score(record.get("detail"))]
    best_step = (metrics.get("best") or {}).get("step")
    for record in history:
        step = record["step"]
        if step == best_step:
            scores[f"best while training (step {step:,})"] = record["detail"]
        elif record is history[-1]:
            scores[f"last while training (step {step:,})"] = record["detail"]
    return scores


def merge_equal_scores(scores: Mapping[str, Values]) -> dict[str, Values]:
    """Keep one of several equal scores, under the titles of all."""
    groups: list[tuple[list[str], Values]] = []
    for title, score in scores.items():
        for titles, other in groups:
            if _is_same_score(score, other):
                titles.append(title)
                break
        else:
            groups.append(([title], score))
    return {", ".join(titles): score for titles, score in groups}


def _is_same_score(first: Values, second: Values) -> bool:
    """Compare measured values, and the settings that both scores name."""
    one, other = first.get("settings", {}), second.get("settings", {})
    return all(first.get(key) == second.get(key) for key in SCORE_KEYS) and all(
        one[key] == other[key] for key in one.keys() & other.keys()
    )


def _how_to_add_scores(metrics: Values) -> str:
    reason = (metrics.get("best") or {}).get("reason")
    note = f" ({reason})" if reason else ""
    return f"IoU per class{note}: 'tag2mask evaluate MASKS TRUTH --json RUN/scores.json' adds it"


def _last_strips(folder: Path) -> tuple[Path, ...]:
    """List the strips of the last step, in the order they were drawn."""
    matches = {path: STRIP_NAME.fullmatch(path.name) for path in sorted(folder.glob("*.png"))}
    steps = {path: int(match[1]) for path, match in matches.items() if match}
    return tuple(path for path, step in steps.items() if step == max(steps.values()))
