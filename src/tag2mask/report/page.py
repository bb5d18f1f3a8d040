"""Write one self-contained HTML page about a run: scores, strips, curves, provenance."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment

from tag2mask.errors import RunError
from tag2mask.io.files import write_text
from tag2mask.report.charts import FRAME, bar_chart
from tag2mask.report.curves import training_charts
from tag2mask.report.mask_parts import find_masks, mask_tiles, read_masks
from tag2mask.report.network_parts import NetworkParts, Picture, inspect_network
from tag2mask.report.run_parts import Run, read_run
from tag2mask.report.sections import (
    class_table,
    data_counts,
    percent,
    provenance,
    score_tiles,
    speed_tiles,
)
from tag2mask.report.templating import make_environment
from tag2mask.visualization.affinity_maps import Point

PAGE = "report.html"


def write_report(run: Path, query: Point | None = None, masks: Path | None = None) -> Path:
    """Write `report.html` into a run folder; the page lists the parts that are missing.

    Args:
        run: Folder that training wrote, finished or not.
        query: (x, y) of the point whose attention and affinity are shown, as fractions of each
            image; None takes the position with the largest CAM.
        masks: Folder that `label` or `predict` wrote; None: the newest one in the run folder.

    Returns:
        The path of the page.

    Raises:
        RunError: If the folder does not exist or contains no run, `masks` contains no masks, the
            query lies outside the image, or the page cannot be written.
    """
    if query is not None and not all(0 <= part <= 1 for part in query):
        raise RunError(
            f"query {query[0]:g} {query[1]:g}: give two fractions from 0 to 1, measured from the "
            "left and from the top of the image"
        )
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder")
    if not any((run / name).is_file() for name in ("recipe.yaml", "log.jsonl", "metrics.json")):
        raise RunError(f"{run}: contains no run (no recipe.yaml, log.jsonl or metrics.json)")
    page = run / PAGE
    parts = read_run(run)
    mask_folder = find_masks(run, masks)
    write_text(page, render(parts, inspect_network(parts, query), mask_folder))
    return page


def render(run: Run, network: NetworkParts, mask_folder: Path | None) -> str:
    """Return the complete page as HTML text; it begins with what shows how good the masks are."""
    masks, without_masks = read_masks(mask_folder)
    return (
        environment()
        .get_template("page.html")
        .render(
            title=_title(run),
            folder=run.folder.resolve().name,
            metrics=run.metrics,
            missing=(*run.missing, *without_masks, *network.missing),
            tiles=(*score_tiles(run), *mask_tiles(masks), *speed_tiles(run)),
            masks=masks,
            network=network,
            saved_strips=tuple(Picture(path.stem, path.read_bytes()) for path in run.strips),
            head_weights=bar_chart("Learned weight of each attention head", network.head_weights),
            classes=class_table(run.scores),
            charts=training_charts(run.log, str(run.metrics.get("metric") or "")),
            data=data_counts(run.recipe),
            starts=provenance(run.log),
            recipe=run.recipe.to_yaml() if run.recipe else "",
        )
    )


@cache
def environment() -> Environment:
    """Return the templates of the page."""
    templates = make_environment()
    templates.filters["percent"] = percent
    templates.globals["frame"] = FRAME
    return templates


def _title(run: Run) -> str:
    if run.recipe is None:
        return run.folder.resolve().name
    return f"{run.recipe.method.name} on {run.recipe.data.name}, {run.recipe.backbone.name}"
