import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tag2mask.errors import RunError
from tag2mask.evaluation.object_sizes import size_quarters
from tag2mask.evaluation.tables import report_table, save_report
from tag2mask.types import Report


def test_saved_report_is_json_without_nan(tmp_path: Path) -> None:
    settings = {"scales": (1.0, 0.5), "truth": Path("masks")}
    report = Report(("cat",), (0.5, math.nan), math.nan, 3, "tags", settings)
    save_report(report, tmp_path / "new" / "scores.json")
    values = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert values["iou"] == [0.5, None]
    assert values["miou"] is None
    assert values["by_size"] == []
    assert values["settings"] == {"scales": [1.0, 0.5], "truth": "masks"}
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be saved"):
        save_report(report, tmp_path / "file" / "scores.json")


def test_table_names_classes_class_source_and_settings() -> None:
    settings = {"scales": [1.0], "refiner": {"name": "par"}, "background": 0.45}
    report = Report(("cat",), (0.5, math.nan), 0.5, 3, "tags", settings)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123 -- closed below
    console.print(report_table(report))
    console.file.close()
    text = console.export_text()
    for part in (
        "background",
        "cat",
        "0.500",
        "-",
        "classes from tags",
        "scales [1.0]",
        "refiner par",
    ):
        assert part in text


def test_objects_by_size_are_saved_without_nan(tmp_path: Path) -> None:
    quarters = size_quarters([np.array([[4, 2, 1]])])
    report = Report(("cat",), (0.5, 0.5), 0.5, 3, "tags", {}, quarters)
    save_report(report, tmp_path / "scores.json")
    smallest, *others = json.loads((tmp_path / "scores.json").read_text())["by_size"]
    assert smallest == {
        "objects": 1,
        "smallest_px": 4,
        "largest_px": 4,
        "iou": 0.2,
        "area_ratio": 0.5,
    }
    assert [(part["objects"], part["iou"], part["area_ratio"]) for part in others] == [
        (0, None, None)
    ] * 3
