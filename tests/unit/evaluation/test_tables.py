import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tag2mask.errors import RunError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.object_sizes import size_quarters
from tag2mask.evaluation.tables import report_table, save_report, truth_warning
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


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ([0, 1, 2, 255], None),
        ([0, 1, 1, 1], "no pixel of cow; the mean covers the other 2 of 3 classes"),
        ([0, 0, 255, 255], "no class of the masks has a pixel in the true masks (cat, cow)"),
        ([255, 255, 255, 255], "no pixel that counts"),
        ([1, 2, 1, 2], "no pixel of background; the mean covers the other 2 of 3"),
    ],
)
def test_classes_that_the_truth_lacks_are_named(truth: list[int], words: str | None) -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([truth], np.uint8), np.array([[0, 1, 2, 0]], np.uint8))
    warning = truth_warning(matrix.report(("cat", "cow"), 1, "tags", {}))
    assert (warning is None) if words is None else (words in str(warning))
