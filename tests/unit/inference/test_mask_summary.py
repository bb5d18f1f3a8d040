"""A folder of masks counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.inference.mask_summary import MaskSummary, summarize_masks, summary_lines
from tag2mask.io.mask_folder import (
    append_scores,
    describe_classes,
    score_row,
    write_classes,
    write_skipped,
)
from tag2mask.io.masks import save_mask
from tag2mask.types import Mask, Prediction, Uncertainty

CLASSES = ("cat", "dog")
ROWS: dict[str, tuple[list[int], float]] = {  # ten pixels each
    "a": ([1] * 4 + [0] * 6, 0.2),
    "b": ([1] * 2 + [2] * 3 + [0] * 5, 0.9),
    "c": ([2] * 10, 0.5),
    "d": ([0] * 10, 0.7),
    "e": ([0] * 9 + [255], 0.1),
    "f": ([1] * 9 + [0], 0.3),
}
TAGS = {"a": ["cat"], "b": ["cat", "dog"], "c": ["dog"], "d": ["dog"], "e": [], "f": ["cat", "dog"]}


def mask_of(values: list[int]) -> Mask:
    return np.array([values], dtype=np.uint8)


def write_folder(folder: Path, tagged: bool = True, **settings: object) -> Path:
    write_classes(folder, describe_classes(CLASSES, "tags", {"background": 0.3, **settings}))
    image = np.zeros((1, 10, 3), dtype=np.uint8)
    for name, (values, uncertainty) in ROWS.items():
        made = Prediction(mask_of(values), CLASSES, {}, "tags", image)
        tags = TAGS[name] if tagged else None
        row = score_row(name, made, tags) | {"uncertainty": uncertainty}
        append_scores(folder, row)
        save_mask(made.mask, folder / f"{name}.png")
    write_skipped(folder, ["torn"])
    return folder


def test_classes_empty_and_full_masks_are_counted(tmp_path: Path) -> None:
    summary = summarize_masks(write_folder(tmp_path))
    assert (summary.images, summary.negatives, summary.skipped) == (6, 1, 1)
    assert summary.classes["cat"] == (3, 3, 0.4)  # a, b, f: 0.4, 0.2, 0.9
    assert summary.classes["dog"] == (2, 4, pytest.approx(0.65))  # b, c of b, c, d, f
    assert (summary.empty, summary.full_frame) == (("d",), ("c",))  # e shows no class by intent
    assert [name for name, _ in summary.most_uncertain] == ["b", "d", "c", "f", "a"]


def test_without_tags_every_empty_mask_counts(tmp_path: Path) -> None:
    summary = summarize_masks(write_folder(tmp_path, tagged=False))
    assert (summary.empty, summary.negatives) == (("d", "e"), 0)
    assert summary.classes["cat"].tagged is None


def test_folder_of_an_older_version_is_read_from_its_masks(tmp_path: Path) -> None:
    write_folder(tmp_path)
    expected = summarize_masks(tmp_path)
    (tmp_path / "scores.jsonl").unlink()
    for name in ROWS:
        append_scores(tmp_path, {"name": name, "scores": {}, "tags": TAGS[name]})
    summary = summarize_masks(tmp_path)
    assert (summary.classes, summary.empty) == (expected.classes, expected.empty)
    assert summary.uncertainty == ()


@pytest.mark.parametrize(
    ("settings", "empty", "full"),
    [
        ({"protocol": "cam"}, "predict.background=0.2 (now 0.3)", "background=0.4 (now 0.3)"),
        ({"background": 0.1}, "predict.background=0.05 (now 0.1)", "background=0.2 (now 0.1)"),
        ({"protocol": "decoder"}, "predict.protocol=cam", "predict.protocol=cam"),
        (
            {"protocol": "cam", "background": None, "background_rule": "otsu"},
            "predict.background_rule=fixed",
            "predict.background_rule=fixed",
        ),
    ],
)
def test_high_shares_name_the_setting_to_try(
    tmp_path: Path, settings: dict[str, object], empty: str, full: str
) -> None:
    first, second = summarize_masks(write_folder(tmp_path, **settings)).advice
    assert first.startswith("20% of the masks are empty")  # d of the five with tags
    assert second.startswith("20% of the masks cover the complete image")
    assert empty in first
    assert full in second


def test_lines_say_what_the_folder_contains(tmp_path: Path) -> None:
    lines = summary_lines(summarize_masks(write_folder(tmp_path)))
    assert lines[0] == (
        "in this folder: 6 masks, 1 (17%) empty, 1 (17%) full-frame, "
        "1 without tags (all background)"
    )
    assert [line.split() for line in lines[2:4]] == [
        ["cat", "3", "3", "40%"],
        ["dog", "2", "4", "65%"],
    ]
    assert lines[-1] == (
        "most uncertain, inspect first: b (0.90), d (0.70), c (0.50), f (0.30), a (0.20)"
    )


def test_empty_folder_has_no_lines(tmp_path: Path) -> None:
    write_classes(tmp_path, describe_classes(CLASSES, "classifier", {}))
    summary = summarize_masks(tmp_path)
    assert isinstance(summary, MaskSummary)
    assert summary_lines(summary) == []


def test_uncertainty_of_a_prediction_reaches_the_summary(tmp_path: Path) -> None:
    write_classes(tmp_path, describe_classes(CLASSES, "classifier", {}))
    image = np.zeros((1, 10, 3), dtype=np.uint8)
    mask = mask_of([1] + [0] * 9)
    made = Prediction(mask, CLASSES, {}, "classifier", image, uncertainty=Uncertainty(0.25, {}))
    append_scores(tmp_path, score_row("a", made))
    assert summarize_masks(tmp_path).uncertainty == (("a", 0.25),)
