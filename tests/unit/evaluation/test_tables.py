import json
import math
import os
from pathlib import Path

import pytest
from rich.console import Console

from tag2mask.errors import RunError
from tag2mask.evaluation.tables import report_table, save_report
from tag2mask.types import Report


def test_saved_report_is_json_without_nan(tmp_path: Path) -> None:
    settings = {"scales": (1.0, 0.5), "truth": Path("masks")}
    report = Report(("cat",), (0.5, math.nan), math.nan, 3, "tags", settings)
    save_report(report, tmp_path / "new" / "scores.json")
    values = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert values["iou"] == [0.5, None]
    assert values["miou"] is None
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
