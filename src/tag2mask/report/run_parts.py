"""What of a run folder is there: recipe, log, scores, strips; a run may have been stopped early."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.errors import Tag2MaskError

STRIP_NAME = re.compile(r"step(\d+)_.*\.png")

Values = Mapping[str, Any]


class Run(NamedTuple):
    """What of a run folder is there."""

    folder: Path
    recipe: Recipe | None
    log: tuple[Values, ...]
    metrics: Values
    scores: Mapping[str, Values]
    """Title -> report as plain values."""
    strips: tuple[Path, ...]
    missing: tuple[str, ...]
    """One line per part that is not there, or not readable."""


def read_run(folder: Path) -> Run:
    """Read all parts of a run folder that are there."""
    missing: list[str] = []
    recipe = None
    try:
        recipe = load_recipe(str(folder / "recipe.yaml"))
    except Tag2MaskError as error:
        missing.append(str(error).splitlines()[0])
    log = _read_log(folder / "log.jsonl", missing)
    metrics = _read_json(folder / "metrics.json", missing)
    strips = _last_strips(folder / "samples")
    scores = _scores(folder, metrics)
    if not scores:
        missing.append(_why_no_scores(metrics))
    return Run(folder, recipe, log, metrics, scores, strips, tuple(missing))


def _read_log(path: Path, missing: list[str]) -> tuple[Values, ...]:
    """Records of a log; a torn last line is left out."""
    if not path.is_file():
        missing.append(f"{path.name}: not there")
        return ()
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return tuple(records)


def _read_json(path: Path, missing: list[str]) -> Values:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        missing.append(f"{path.name}: not there or not readable; the run may have been stopped")
        return {}
    return found if isinstance(found, dict) else {}


def _scores(folder: Path, metrics: Values) -> dict[str, Values]:
    """Reports of the run folder by title: files of scores first, then those made in training."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        values = _read_json(path, [])
        if _is_report(values):
            found[path.stem] = values
    history = [
        output for output in metrics.get("history", ()) if _is_report(output.get("detail", {}))
    ]
    best = (metrics.get("best") or {}).get("step")
    for output in history:
        if output["step"] == best or output is history[-1]:
            word = "best" if output["step"] == best else "last"
            found[f"{word} in training, step {output['step']:,}"] = output["detail"]
    return found


def _why_no_scores(metrics: Values) -> str:
    """Say what would bring a table of classes."""
    why = (metrics.get("best") or {}).get("why")
    reason = f" ({why})" if why else ""
    return f"IoU per class{reason}: 'tag2mask evaluate MASKS TRUTH --json RUN/scores.json' adds it"


def _is_report(values: Values) -> bool:
    return {"class_names", "iou", "miou"} <= values.keys()


def _last_strips(folder: Path) -> tuple[Path, ...]:
    """Strips of the latest step, in the order they were drawn."""
    named = {path: STRIP_NAME.fullmatch(path.name) for path in sorted(folder.glob("*.png"))}
    steps = {path: int(match[1]) for path, match in named.items() if match}
    return tuple(path for path, step in steps.items() if step == max(steps.values()))
