"""The stages of a run with several: what each does, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tag2mask.config.recipe import Recipe
from tag2mask.data.index import count
from tag2mask.io.mask_folder import CLASSES_FILE, read_scores
from tag2mask.report.run_parts import Values, has_scores, read_json, read_log
from tag2mask.report.sections import duration, percent

TASKS = {
    "train": "trains a network",
    "label": "writes masks with it (pseudo-labels)",
    "evaluate": "compares masks with true masks",
}
SCORES_FILE = "scores.json"


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
    scores = {f"stage {name}": read_json(root / name / SCORES_FILE, []) for name in names}
    return {title: values for title, values in scores.items() if has_scores(values)}


def _read_stage(name: str, task: str, folder: Path) -> StagePart:
    metrics = read_json(folder / "metrics.json", [])
    seconds = metrics.get("seconds")
    state, result = "not started", ""
    if task == "train" and metrics.get("steps"):
        state = "finished" if metrics.get("finished") else "not finished"
        result = f"{metrics.get('step', 0):,} of {metrics['steps']:,} steps"
    elif task == "label" and (folder / CLASSES_FILE).is_file():
        state = "finished" if seconds else "not finished"
        result = count(len(read_scores(folder)), "mask")
    elif task == "evaluate" and has_scores(scores := read_json(folder / SCORES_FILE, [])):
        state, result = "finished", f"mIoU {percent(scores['miou'], ' %')}"
    return StagePart(
        name=name,
        task=TASKS[task],
        state=state,
        seconds=duration(seconds) if seconds else "",
        result=result,
        log=read_log(folder / "log.jsonl", []) if task == "train" else (),
        metrics=metrics,
    )
