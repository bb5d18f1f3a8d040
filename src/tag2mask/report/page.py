"""One self-contained HTML page about a run: scores, strips, curves, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tag2mask.checkpoint import write_text
from tag2mask.errors import RunError
from tag2mask.report.run_parts import Run, read_run
from tag2mask.report.sections import (
    class_table,
    curves,
    data_counts,
    duration,
    gate_of,
    percent,
    provenance,
    recipe_text,
    strip_pictures,
)

PAGE = "report.html"
STYLE = Path(__file__).with_name("style.css")


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder; parts that are missing are named on the page.

    Args:
        run: Folder that training wrote, finished or not.

    Returns:
        The page's path.

    Raises:
        RunError: If there is no such folder, nothing of a run is in it, or the disk refuses.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder")
    if not any((run / name).is_file() for name in ("recipe.yaml", "log.jsonl", "metrics.json")):
        raise RunError(f"{run}: holds no run (no recipe.yaml, log.jsonl or metrics.json)")
    page = run / PAGE
    write_text(page, render(read_run(run)))
    return page


def render(run: Run) -> str:
    """Return the whole page as HTML text."""
    title = _title(run)
    style = STYLE.read_text(encoding="utf-8")
    sections = [
        _header(run, title),
        _missing(run.missing),
        _headline(run),
        _section("Samples", strip_pictures(run.strips)),
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


def _headline(run: Run) -> str:
    """Large numbers: every mean IoU with its gate, then time and pace."""
    tiles = []
    for title, score in run.scores.items():
        note = f"{title}; {gate_of(score)}; {score['images']:,} photos"
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
        tiles.append(("pace", f"{paces[-1]:.1f}", "photos per second at the end"))
    cells = "".join(
        f"<div class='tile'><span>{escape(name)}</span><strong>{escape(value)}</strong>"
        f"<small>{escape(note)}</small></div>"
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""
