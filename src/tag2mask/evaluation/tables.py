"""A report as a terminal table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from tag2mask.io.files import write_text
from tag2mask.types import Report

SETTINGS_SHOWN = ("split", "scales", "flip", "background")
"""Settings that the caption of a table names."""


def report_values(report: Report) -> dict[str, Any]:
    """Return a report as plain values for JSON; undefined scores become None."""
    values = asdict(report)
    values["iou"] = [None if math.isnan(value) else value for value in report.iou]
    values["miou"] = None if math.isnan(report.miou) else report.miou
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
        table.add_row(name, "-" if math.isnan(value) else f"{value:.3f}")
    table.add_section()
    table.add_row("mean", "-" if math.isnan(report.miou) else f"{report.miou:.3f}", style="bold")
    return table
