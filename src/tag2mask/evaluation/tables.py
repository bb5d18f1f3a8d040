"""A report as a terminal table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from tag2mask.data.tags import name_some
from tag2mask.io.files import write_text
from tag2mask.types import Report

SETTINGS_SHOWN = ("split", "scales", "flip", "background")
"""Settings that the caption of a table names."""
SIZES = ("smallest quarter", "second quarter", "third quarter", "largest quarter")


def report_values(report: Report) -> dict[str, Any]:
    """Return a report as plain values for JSON; undefined scores become None."""
    values = asdict(report)
    values["iou"] = [_defined(value) for value in report.iou]
    for quarter in values["by_size"]:
        quarter |= {key: _defined(quarter[key]) for key in ("iou", "area_ratio")}
    values["miou"] = _defined(report.miou)
    values["settings"] = json.loads(json.dumps(dict(report.settings), default=str))
    return values


def save_report(report: Report, path: Path) -> None:
    """Write a report as JSON; the file appears complete or not at all.

    Raises:
        RunError: If the file cannot be written.
    """
    write_text(path, json.dumps(report_values(report), indent=1, ensure_ascii=False) + "\n")


def report_table(report: Report) -> Table:
    """Return the IoU of each class as a table; its caption names the settings behind the scores."""
    settings = {key: report.settings.get(key) for key in SETTINGS_SHOWN}
    parts = [f"{key} {value}" for key, value in settings.items() if value is not None]
    refiner = report.settings.get("refiner")
    parts += [f"refiner {refiner['name']}"] if isinstance(refiner, dict) else []
    class_source = f"classes from {report.class_source or 'unknown'}"
    caption = ", ".join([f"{report.images} images", class_source, *parts])
    table = Table("class", caption=caption, caption_justify="left", min_width=48)
    table.add_column("IoU", justify="right")
    for name, value in zip(("background", *report.class_names), report.iou, strict=True):
        table.add_row(escape(name), _shown(value))
    table.add_section()
    table.add_row("mean", _shown(report.miou), style="bold")
    return table


def size_table(report: Report) -> Table:
    """Return the scores of the smallest to the largest quarter of the objects as a table."""
    table = Table("objects by true area")
    for column in ("number", "area (px)", "IoU", "predicted / true area"):
        table.add_column(column, justify="right")
    for name, quarter in zip(SIZES, report.by_size, strict=True):
        area = f"{quarter.smallest_px} to {quarter.largest_px}" if quarter.objects else "-"
        scores = _shown(quarter.iou), _shown(quarter.area_ratio)
        table.add_row(name, str(quarter.objects), area, *scores)
    return table


def truth_warning(report: Report) -> str | None:
    """Return a line about classes that the true masks do not show; None if they show all."""
    missing = report.without_truth
    if not missing:
        return None
    total = len(report.class_names) + 1
    if len(missing) == total:
        return "the true masks have no pixel that counts: all are 255 (ignore); nothing is scored"
    present = [name for name in ("background", *report.class_names) if name not in missing]
    if present == ["background"]:
        return (
            f"no class of the masks has a pixel in the true masks ({name_some(missing, 10)}), so "
            "the mean is that of background alone; check that TRUTH belongs to these images and "
            "that objects have the values 1, 2, ... in the order of the classes"
        )
    return (
        f"the true masks have no pixel of {name_some(missing, 10)}; the mean covers the other "
        f"{len(present)} of {total} classes"
    )


def _defined(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
