"""One self-contained HTML page about a run: scores, strips, curves, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tag2mask.errors import RunError
from tag2mask.io.files import write_text
from tag2mask.report.bars import bar_chart
from tag2mask.report.network_parts import NetworkParts, Picture, Point, look_at_network
from tag2mask.report.run_parts import Run, read_run
from tag2mask.report.sections import (
    class_table,
    curves,
    data_counts,
    duration,
    gate_of,
    percent,
    picture_row,
    provenance,
    recipe_text,
)

PAGE = "report.html"
STYLE = Path(__file__).with_name("style.css")
STRIPS_TOLD = (
    "Heat is dark for the least, light for the most. Refined and propagated evidence tells objects "
    "from background; its colors span only the values written below it."
)
PAIRS_TOLD = (
    "How much the cell under the red point attends to each cell, and how alike the affinity holds "
    "them: dark for the least, light for the most of each picture. A red frame holds the cells "
    "within reach: affinities are learned, and evidence walks, inside it only."
)


def write_report(run: Path, query: Point | None = None) -> Path:
    """Write `report.html` into a run folder; parts that are missing are named on the page.

    Args:
        run: Folder that training wrote, finished or not.
        query: (x, y) of the cell whose attention and affinity are shown, as fractions of each
            image; None takes the cell of strongest evidence.

    Returns:
        The page's path.

    Raises:
        RunError: If there is no such folder, nothing of a run is in it, the query lies outside
            the image, or the disk refuses.
    """
    if query is not None and not all(0 <= part <= 1 for part in query):
        raise RunError(
            f"query {query[0]:g} {query[1]:g}: takes two fractions from 0 to 1, from the left and "
            "from the top of the image"
        )
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder")
    if not any((run / name).is_file() for name in ("recipe.yaml", "log.jsonl", "metrics.json")):
        raise RunError(f"{run}: holds no run (no recipe.yaml, log.jsonl or metrics.json)")
    page = run / PAGE
    parts = read_run(run)
    write_text(page, render(parts, look_at_network(parts, query)))
    return page


def render(run: Run, network: NetworkParts) -> str:
    """Return the whole page as HTML text."""
    title = _title(run)
    style = STYLE.read_text(encoding="utf-8")
    sections = [
        _header(run, title),
        _missing([*run.missing, *network.missing]),
        _headline(run),
        _section("Samples", _strips(run, network)),
        _section("Attention and affinity", _pairs(network)),
        _section("Classes", class_table(run.scores)),
        _section("Training", curves(run.log)),
        _section("Data", data_counts(run.recipe)),
        _section("How it was made", provenance(run.log)),
        _section("Recipe", recipe_text(run.recipe)),
    ]
    body = "\n".join(part for part in sections if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


def _title(run: Run) -> str:
    if run.recipe is None:
        return run.folder.resolve().name
    return f"{run.recipe.method.name} on {run.recipe.data.name}, {run.recipe.backbone.name}"


def _header(run: Run, title: str) -> str:
    step, steps = run.metrics.get("step"), run.metrics.get("steps")
    state = ""
    if step is not None and steps is not None:
        done = "finished" if run.metrics.get("finished") else "not finished"
        state = f", {done}: {step:,} of {steps:,} steps"
    return (
        f"<header><p class='run'>{escape(run.folder.resolve().name)}{state}</p>"
        f"<h1>{escape(title)}</h1></header>"
    )


def _missing(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<aside class="missing"><b>Missing on this page</b><ul>{items}</ul></aside>'


def _strips(run: Run, network: NetworkParts) -> str:
    """Strips drawn anew, else those that training left."""
    if network.strips:
        told = f"{network.images}, weights '{network.weights}'".capitalize()
        return picture_row(network.strips, f"{told}. {STRIPS_TOLD}")
    saved = [Picture(path.stem, path.read_bytes()) for path in run.strips]
    return picture_row(saved, f"Drawn while training. {STRIPS_TOLD}")


def _pairs(network: NetworkParts) -> str:
    """Attention and affinity of a query point, and the weights of the affinity head."""
    chart = bar_chart("Learned weight of each attention head", network.head_weights)
    charts = f'<div class="charts one">{chart}</div>' if chart else ""
    return picture_row(network.affinity_maps, PAIRS_TOLD) + charts


def _headline(run: Run) -> str:
    """Large numbers: every mean IoU with its gate, then time and pace."""
    tiles = []
    for title, score in run.scores.items():
        note = f"{title}; {gate_of(score)}; {score['images']:,} images"
        tiles.append(("mIoU in %", percent(score["miou"]), note))
    best = run.metrics.get("best") or {}
    if best.get("score") is not None and not run.scores:
        tiles.append(
            ("best score in %", percent(best["score"]), f"{best['why']}; step {best['step']:,}")
        )
    if run.metrics.get("seconds"):
        tiles.append(("training", duration(run.metrics["seconds"]), "evaluation and saving apart"))
    paces = [record["images_per_s"] for record in run.log if "images_per_s" in record]
    if paces:
        tiles.append(("pace", f"{paces[-1]:.1f}", "images per second at the end"))
    cells = "".join(
        f"<div class='tile'><span>{escape(name)}</span><strong>{escape(value)}</strong>"
        f"<small>{escape(note)}</small></div>"
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""
