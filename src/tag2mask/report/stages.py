"""The stages of a run with several: what each does, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tag2mask.config.recipe import Recipe
from tag2mask.data.index import count
from tag2mask.errors import DataError, RunError
from tag2mask.io.json_files import read_object
from tag2mask.io.mask_folder import CLASSES_FILE, read_scores
from tag2mask.io.run_files import SCORES_FILE, Score, read_log, read_metrics
from tag2mask.report.run_parts import Values
from tag2mask.report.sections import duration, percent

TASKS = {
    "train": "trains a network",
    "label": "writes masks with it (pseudo-labels)",
    "evaluate": "compares masks with true masks",
}


class StagePart(NamedTuple):
    """One stage of a run."""

    name: str
    task: str
    state: str
    seconds: str
    result: str
    log: tuple[Values, ...]
    metrics: Values


def read_stages(recipe: Recipe | None, root: Path) -> tuple[StagePart, ...]:
    """Read the stages of a run; none of a run without stages."""
    if recipe is None:
        return ()
    return tuple(_read_stage(name, stage.run, root / name) for name, stage in recipe.stages.items())


def read_stage_scores(recipe: Recipe | None, root: Path) -> dict[str, Values]:
    """Read the scores of all evaluate stages by their names."""
    if recipe is None:
        return {}
    names = [name for name, stage in recipe.stages.items() if stage.run == "evaluate"]
    scores = {f"stage {name}": _read_score(root / name) for name in names}
    return {title: values for title, values in scores.items() if values}


def _read_stage(name: str, task: str, folder: Path) -> StagePart:
    metrics = _read_metrics(folder)
    seconds = metrics.get("seconds")
    state, result = "not started", ""
    if task == "train" and metrics.get("steps"):
        state = "finished" if metrics.get("finished") else "not finished"
        result = f"{metrics.get('step', 0):,} of {metrics['steps']:,} steps"
    elif task == "label" and (folder / CLASSES_FILE).is_file():
        state = "finished" if seconds else "not finished"
        result = count(len(read_scores(folder)), "mask")
    elif task == "evaluate" and (scores := _read_score(folder)):
        state, result = "finished", f"mIoU {percent(scores['miou'], ' %')}"
    return StagePart(
        name=name,
        task=TASKS[task],
        state=state,
        seconds=duration(seconds) if seconds else "",
        result=result,
        log=read_log(folder / "log.jsonl") if task == "train" else (),
        metrics=metrics,
    )


def _read_metrics(folder: Path) -> Values:
    """Read the `metrics.json` of a stage; empty if there is none."""
    try:
        return read_metrics(folder / "metrics.json")
    except RunError:
        return {}


def _read_score(folder: Path) -> Values:
    """Read the scores of an evaluate stage; empty if there are none."""
    try:
        return read_object(folder / SCORES_FILE, Score)
    except DataError:
        return {}
