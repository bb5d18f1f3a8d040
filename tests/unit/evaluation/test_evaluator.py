import json
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from rich.console import Console

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.errors import DataError, RunError
from tag2mask.evaluation.evaluator import (
    MaskPair,
    count_files,
    evaluate_folder,
    evaluate_pseudo_labels,
    evaluate_source,
    report_table,
    save_report,
    spread_indices,
    tag_map,
)
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter
from tag2mask.io.mask_folder import write_skipped
from tag2mask.io.masks import save_mask
from tag2mask.types import ClassSource, Image, Prediction, Report, Sample

# Hand-counted: background 3 right of 4 true and 4 said -> 3/5; class 1: 2 right of 3 true and
# 3 said -> 2/4; class 2: 1 right of 1 true, 1 said -> 1.
TRUE = [[0, 0, 0, 0], [1, 1, 1, 2]]
SAID = [[0, 0, 0, 1], [1, 1, 0, 2]]
IOU = [3 / 5, 2 / 4, 1.0]


def put(folder: Path, name: str, rows: Sequence[Sequence[int]]) -> None:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mask(np.array(rows, dtype=np.uint8), path)


def described(folder: Path, classes: Sequence[str], **settings: object) -> Path:
    MaskWriter(folder, classes, "classifier", settings)
    return folder


def test_own_masks_of_the_same_numbering(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat", "cow"], background=0.45)
    put(said, "lane1/a", SAID)
    put(tmp_path / "true", "lane1/a", TRUE)
    report = evaluate_folder(said, tmp_path / "true")
    assert report.iou == pytest.approx(IOU)
    assert report.miou == pytest.approx(0.7)
    assert (report.images, report.class_source, report.class_names) == (
        1,
        "classifier",
        ("cat", "cow"),
    )
    assert report.settings["background"] == 0.45


def test_counts_are_added_over_images_not_averaged(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[0, 1]])
    put(said, "b", [[1] * 8])
    put(tmp_path / "true", "a", [[1, 0]])
    put(tmp_path / "true", "b", [[1] * 8])
    # class 1: 8 right, 9 true, 9 said -> 8/10; a mean over images would be 1/2
    assert evaluate_folder(said, tmp_path / "true").iou[1] == pytest.approx(0.8)


def test_voc_masks_are_renumbered_and_other_classes_ignored(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cow", "cat"])  # an order of their own
    put(said, "a", [[1, 2, 1, 0]])
    truth = tmp_path / "VOC" / "SegmentationClass"
    put(truth, "a", [[10, 8, 15, 255]])  # cow, cat, person, ignore
    for place in (tmp_path / "VOC", truth):
        report = evaluate_folder(said, place)
        assert report.iou[1:] == (1.0, 1.0)
        assert report.miou == 1.0  # the wrong guess on the person does not count


def test_truth_with_its_own_classes_file_is_matched_by_name(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat", "cow"])
    put(said, "a", [[1, 2]])
    truth = described(tmp_path / "true", ["dog", "cow", "cat"])
    put(truth, "a", [[3, 2]])
    assert evaluate_folder(said, truth).iou[1:] == (1.0, 1.0)


def test_masks_of_others_need_class_names_only_once(tmp_path: Path) -> None:
    put(tmp_path / "said", "a", SAID)
    put(tmp_path / "true", "a", TRUE)
    with pytest.raises(DataError, match="give the class names"):
        evaluate_folder(tmp_path / "said", tmp_path / "true")
    report = evaluate_folder(tmp_path / "said", tmp_path / "true", class_names=["cat", "cow"])
    assert report.iou == pytest.approx(IOU)
    assert report.class_source is None


def voc_with_lists(root: Path) -> Path:
    for name in ("a", "b"):
        put(root / "SegmentationClass", name, [[8, 0]])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "one.txt").write_text("a\nwithout_mask\n")
    return root


def test_split_limits_the_true_masks(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[1, 0]])
    root = voc_with_lists(tmp_path / "VOC")
    report = evaluate_folder(said, root, split="one")
    assert (report.images, report.settings["split"]) == (1, "one")
    with pytest.raises(DataError, match=r"no such list\. Did you mean 'one'\?"):
        evaluate_folder(said, root, split="on")


def test_split_of_the_predictions_is_the_default(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"], split="one")
    put(said, "a", [[1, 0]])
    assert evaluate_folder(said, voc_with_lists(tmp_path / "VOC")).images == 1


def test_text_file_of_names_is_a_split_too(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[1]])
    put(tmp_path / "true", "a", [[1]])
    put(tmp_path / "true", "b", [[1]])
    (tmp_path / "names.txt").write_text("a\n")
    split = str(tmp_path / "names.txt")
    assert evaluate_folder(said, tmp_path / "true", split=split).images == 1


def test_missing_prediction_is_named_unless_limited(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[1]])
    for name in ("a", "b"):
        put(tmp_path / "true", name, [[1]])
    with pytest.raises(DataError, match=r"said/b\.png: no prediction for the true mask"):
        evaluate_folder(said, tmp_path / "true")
    assert evaluate_folder(said, tmp_path / "true", limited=True).images == 1


def test_nothing_in_common_is_rejected(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(tmp_path / "true", "a", [[1]])
    with pytest.raises(DataError, match="no mask for any"):
        evaluate_folder(said, tmp_path / "true", limited=True)
    with pytest.raises(DataError, match="gone: no such folder"):
        evaluate_folder(tmp_path / "gone", tmp_path / "true")
    with pytest.raises(DataError, match="gone: no such folder"):
        evaluate_folder(said, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no masks"):
        evaluate_folder(said, tmp_path / "empty")


def test_other_size_names_both_files(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[1, 1]])
    put(tmp_path / "true", "a", [[1]])
    with pytest.raises(DataError, match=r"said/a\.png is 2 x 1 px, .*true/a\.png is 1 x 1 px"):
        evaluate_folder(said, tmp_path / "true")


def test_unknown_value_names_file_and_value(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cat"])
    put(said, "a", [[1]])
    put(tmp_path / "true", "a", [[7]])
    with pytest.raises(DataError, match=r"true/a\.png: pixel value 7"):
        evaluate_folder(said, tmp_path / "true")


def test_class_unknown_to_the_truth_is_rejected(tmp_path: Path) -> None:
    said = described(tmp_path / "said", ["cta"])
    put(tmp_path / "VOC" / "SegmentationClass", "a", [[8]])
    with pytest.raises(DataError, match=r"class 'cta' is unknown here\. Did you mean 'cat'"):
        evaluate_folder(said, tmp_path / "VOC")


def test_counts_equal_a_loop_over_the_files_whatever_their_kind_and_the_threads(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 3, 255], dtype=np.uint8)
    pairs, expected = [], np.zeros((256, 256), dtype=np.int64)
    for index in range(40):
        masks = rng.choice(values, (2, 9, 8 + index))
        paths = [tmp_path / f"{kind}{index}.png" for kind in ("true", "found")]
        picture = PILImage.fromarray(masks[0])
        if index % 2:
            picture = picture.convert("P")  # indices as they are, rows unfiltered
        picture.save(paths[0])
        PILImage.fromarray(masks[1]).save(paths[1], optimize=index % 3 == 0)
        np.add.at(expected, tuple(masks), 1)
        pairs.append(MaskPair(*paths))
    for workers in (1, 2, 5):
        np.testing.assert_array_equal(count_files(pairs, 3, 3, workers), expected)


def test_a_file_that_holds_no_class_is_named_also_when_it_is_not_the_first(tmp_path: Path) -> None:
    pairs = []
    for index in range(40):
        put(tmp_path / "true", f"{index:02d}", [[0, 1]])
        put(tmp_path / "found", f"{index:02d}", [[0, 9 if index == 33 else 1]])
        pairs.append(MaskPair(*(tmp_path / one / f"{index:02d}.png" for one in ("true", "found"))))
    with pytest.raises(DataError, match=r"found/33\.png: pixel value 9 is no class"):
        count_files(pairs, 1, 2, 2)


class Known(Segmenter):
    """Answers without a network: all pixels are the first tag, or class 1 if not told any."""

    def __init__(self) -> None:
        self.class_names = ("cat", "cow")
        self.seen: list[int] = []

    def with_dataset(self, source: Source) -> AbstractContextManager[None]:
        return nullcontext()

    def segment(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> Prediction:
        self.seen.append(int(image[0, 0, 0]))
        class_source: ClassSource = "classifier" if tags is None else "tags"
        value = 1 if tags is None else int(tags.argmax()) + 1
        mask = np.full(image.shape[:2], value, dtype=np.uint8)
        return Prediction(mask, self.class_names, {}, class_source, image)

    def class_scores(self, image: Image) -> dict[str, float]:
        return {"cat": image[0, 0, 0] / 255, "cow": 1 - image[0, 0, 0] / 255}

    def settings(self, class_source: ClassSource) -> dict[str, Any]:
        return {"class_source": class_source, "scales": [1.0]}


class Four(Source):
    """Image k is gray k; even ones show a cat, odd ones a cow, everywhere."""

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


def test_source_is_scored_under_each_gate() -> None:
    source = Four(DataConfig(name="four"), "masked")
    oracle = evaluate_source(Known(), source, "tags")
    assert oracle.miou == 1.0
    assert math.isnan(oracle.iou[0])
    predicted = evaluate_source(Known(), source, "classifier")
    assert predicted.iou[1:] == (0.5, 0.0)
    assert predicted.miou == 0.25
    assert (predicted.class_source, predicted.images, predicted.settings["scales"]) == (
        "classifier",
        4,
        [1.0],
    )


def test_limit_spreads_over_the_source() -> None:
    segmenter = Known()
    report = evaluate_source(segmenter, Four(DataConfig(name="four"), "masked"), "tags", limit=2)
    assert segmenter.seen == [0, 3]
    assert (report.images, report.settings["limit"]) == (2, 2)


def test_source_without_masks_is_rejected() -> None:
    with pytest.raises(DataError, match="without masks"):
        evaluate_source(Known(), Four(DataConfig(name="four"), "bare"), "tags")


def test_tag_map_ranks_images_by_class_probability() -> None:
    # Brightest first for cat: d, c, b, a -> cats at ranks 2 and 4: (1/2 + 2/4) / 2 = 0.5.
    # Darkest first for cow: a, b, c, d -> cows at ranks 2 and 4: 0.5.
    assert tag_map(Known(), Four(DataConfig(name="four"), "bare")) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(3, None, [0, 1, 2]), (3, 9, [0, 1, 2]), (101, 3, [0, 50, 100]), (5, 1, [0])],
)
def test_spread(length: int, limit: int | None, expected: list[int]) -> None:
    assert spread_indices(length, limit) == expected


def test_saved_report_is_json_without_nan(tmp_path: Path) -> None:
    settings = {"scales": (1.0, 0.5), "truth": Path("here")}
    report = Report(("cat",), (0.5, math.nan), math.nan, 3, "tags", settings)
    save_report(report, tmp_path / "new" / "scores.json")
    values = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert values["iou"] == [0.5, None]
    assert values["miou"] is None
    assert values["settings"] == {"scales": [1.0, 0.5], "truth": "here"}
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be saved"):
        save_report(report, tmp_path / "file" / "scores.json")


def test_table_names_classes_gate_and_how_the_masks_were_made() -> None:
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


@pytest.mark.real
def test_official_masks_score_1_against_themselves(tmp_path: Path) -> None:
    root = os.environ.get("TAG2MASK_VOC_ANIMALS")
    if root is None:
        pytest.skip("TAG2MASK_VOC_ANIMALS is not set")
    names = (Path(root) / "ImageSets" / "Segmentation" / "devval.txt").read_text().split()[:5]
    said = described(tmp_path / "said", ["cat", "cow", "dog", "horse", "person", "sheep"])
    table = np.zeros(256, dtype=np.uint8)
    for value, voc in enumerate((8, 10, 12, 13, 15, 17), start=1):
        table[voc] = value
    for name in names:
        with PILImage.open(Path(root) / "SegmentationClass" / f"{name}.png") as picture:
            put(said, name, table[np.asarray(picture)])
    report = evaluate_folder(said, Path(root), split="devval", limited=True)
    assert report.images == 5
    assert report.miou == 1.0


def test_labels_are_scored_against_the_masks_of_their_source(tmp_path: Path) -> None:
    # Cats: a right, c said cow: 6 of 12 -> 6/12; cows: b and d right, c said so too -> 12/18.
    source = Four(DataConfig(name="four"), "masked")
    said = described(tmp_path / "said", ["cat", "cow"], background=0.45)
    for name, value in zip(source.names, (1, 2, 2, 2), strict=True):
        put(said, name, [[value] * 3] * 2)
    report = evaluate_pseudo_labels(said, source)
    assert report.iou[1:] == pytest.approx((6 / 12, 12 / 18))
    assert (report.images, report.class_source) == (4, "classifier")
    assert report.settings["background"] == 0.45
    (said / "c.png").unlink()
    with pytest.raises(DataError, match="1 image without mask: c"):
        evaluate_pseudo_labels(said, source)
    write_skipped(said, ["c"])
    report = evaluate_pseudo_labels(said, source)
    assert (report.images, report.iou[1:]) == (3, (1.0, 1.0))
    with pytest.raises(DataError, match="without masks"):
        evaluate_pseudo_labels(said, Four(DataConfig(name="four"), "bare"))
