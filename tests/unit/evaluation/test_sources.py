import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.evaluation.sources import (
    evaluate_pseudo_labels,
    evaluate_source,
    spread_indices,
    tag_map,
)
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter
from tag2mask.io.mask_folder import write_skipped
from tag2mask.io.masks import save_mask
from tag2mask.types import ClassSource, Image, Prediction, Sample


class FakeSegmenter(Segmenter):
    """Segments without a network: every pixel has the first tag, or class 1 without tags."""

    def __init__(self) -> None:
        self.class_names = ("cat", "cow")
        self.segmented: list[int] = []

    def with_dataset(self, source: Source) -> Segmenter:
        return self

    def segment(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> Prediction:
        self.segmented.append(int(image[0, 0, 0]))
        class_source: ClassSource = "classifier" if tags is None else "tags"
        value = 1 if tags is None else int(tags.argmax()) + 1
        mask = np.full(image.shape[:2], value, dtype=np.uint8)
        return Prediction(mask, self.class_names, {}, class_source, image)

    def class_scores(self, image: Image) -> dict[str, float]:
        return {"cat": image[0, 0, 0] / 255, "cow": 1 - image[0, 0, 0] / 255}

    def settings(self, class_source: ClassSource) -> dict[str, Any]:
        return {"class_source": class_source, "scales": [1.0]}


class FourImages(Source):
    """Four images: image k is gray k, and shows only a cat if k is even, only a cow if k is odd."""

    Config = DataConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        self.class_names = ("cat", "cow")
        self.names = ("a", "b", "c", "d")
        self.tags = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.uint8)
        self.has_masks = split == "masked"

    def __getitem__(self, index: int) -> Sample:
        image = np.full((2, 3, 3), index, dtype=np.uint8)
        mask = np.full((2, 3), index % 2 + 1, dtype=np.uint8) if self.has_masks else None
        return Sample(self.names[index], image, self.tags[index], mask)


def test_a_source_is_scored_with_each_class_source() -> None:
    source = FourImages(DataConfig(name="four"), "masked")
    from_tags = evaluate_source(FakeSegmenter(), source, "tags")
    assert from_tags.miou == 1.0
    assert [part.iou for part in from_tags.by_size] == [1, 1, 1, 1]
    assert math.isnan(from_tags.iou[0])
    from_classifier = evaluate_source(FakeSegmenter(), source, "classifier")
    assert from_classifier.iou[1:] == (0.5, 0.0)
    assert from_classifier.miou == 0.25
    assert [part.area_ratio for part in from_classifier.by_size] == [1, 0, 1, 0]
    assert (
        from_classifier.class_source,
        from_classifier.images,
        from_classifier.settings["scales"],
    ) == (
        "classifier",
        4,
        [1.0],
    )


def test_a_limit_is_spread_over_the_source() -> None:
    segmenter = FakeSegmenter()
    report = evaluate_source(
        segmenter, FourImages(DataConfig(name="four"), "masked"), "tags", limit=2
    )
    assert segmenter.segmented == [0, 3]
    assert (report.images, report.settings["limit"]) == (2, 2)


def test_a_source_without_masks_is_rejected() -> None:
    with pytest.raises(DataError, match="without masks"):
        evaluate_source(FakeSegmenter(), FourImages(DataConfig(name="four"), "bare"), "tags")


def test_tag_map_ranks_images_by_class_probability() -> None:
    # Brightest first for cat: d, c, b, a -> cats at ranks 2 and 4: (1/2 + 2/4) / 2 = 0.5.
    # Darkest first for cow: a, b, c, d -> cows at ranks 2 and 4: 0.5.
    assert tag_map(FakeSegmenter(), FourImages(DataConfig(name="four"), "bare")) == pytest.approx(
        0.5
    )


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(3, None, [0, 1, 2]), (3, 9, [0, 1, 2]), (101, 3, [0, 50, 100]), (5, 1, [0])],
)
def test_indices_are_spread_evenly(length: int, limit: int | None, expected: list[int]) -> None:
    assert spread_indices(length, limit) == expected


def test_pseudo_labels_are_scored_against_the_masks_of_their_source(tmp_path: Path) -> None:
    # Cats: a is right, c is predicted as cow -> 6/12; cows: b and d are right, c is wrong -> 12/18.
    source = FourImages(DataConfig(name="four"), "masked")
    folder = tmp_path / "predicted"
    MaskWriter(folder, ["cat", "cow"], "classifier", {"background": 0.45})
    for name, value in zip(source.names, (1, 2, 2, 2), strict=True):
        save_mask(np.full((2, 3), value, dtype=np.uint8), folder / f"{name}.png")
    report = evaluate_pseudo_labels(folder, source)
    assert report.iou[1:] == pytest.approx((6 / 12, 12 / 18))
    assert (report.images, report.class_source) == (4, "classifier")
    assert report.settings["background"] == 0.45
    (folder / "c.png").unlink()
    with pytest.raises(DataError, match="1 image without mask: c"):
        evaluate_pseudo_labels(folder, source)
    write_skipped(folder, ["c"])
    report = evaluate_pseudo_labels(folder, source)
    assert (report.images, report.iou[1:]) == (3, (1.0, 1.0))
    with pytest.raises(DataError, match="without masks"):
        evaluate_pseudo_labels(folder, FourImages(DataConfig(name="four"), "bare"))
