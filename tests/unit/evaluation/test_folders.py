import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.evaluation.folders import MaskPair, count_files, evaluate_folder
from tag2mask.inference.writer import MaskWriter
from tag2mask.io.masks import save_mask

# Counted by hand: background has 3 hits of 4 true and 4 predicted pixels -> 3/5; class 1 has 2 hits
# of 3 true and 3 predicted -> 2/4; class 2 has 1 hit of 1 true and 1 predicted -> 1.
TRUE = [[0, 0, 0, 0], [1, 1, 1, 2]]
PREDICTED = [[0, 0, 0, 1], [1, 1, 0, 2]]
IOU = [3 / 5, 2 / 4, 1.0]


def write_mask(folder: Path, name: str, rows: Sequence[Sequence[int]]) -> None:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mask(np.array(rows, dtype=np.uint8), path)


def mask_folder(folder: Path, classes: Sequence[str], **settings: object) -> Path:
    MaskWriter(folder, classes, "classifier", settings)
    return folder


def test_masks_with_the_same_class_values_are_scored(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat", "cow"], background=0.45)
    write_mask(predicted, "lane1/a", PREDICTED)
    write_mask(tmp_path / "true", "lane1/a", TRUE)
    report = evaluate_folder(predicted, tmp_path / "true")
    assert report.iou == pytest.approx(IOU)
    assert report.miou == pytest.approx(0.7)
    assert (report.images, report.class_source, report.class_names) == (
        1,
        "classifier",
        ("cat", "cow"),
    )
    assert report.settings["background"] == 0.45


def test_masks_without_background_are_scored_on_classes_alone(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat", "cow"], has_background=False)
    write_mask(predicted, "a", [[1, 1, 2, 1]])
    write_mask(tmp_path / "true", "a", [[1, 2, 2, 0]])  # 0: nobody drew this pixel
    report = evaluate_folder(predicted, tmp_path / "true")
    assert report.iou[1:] == pytest.approx((1 / 2, 1 / 2))
    assert report.miou == pytest.approx(1 / 2)
    assert report.without_truth == ("background",)


def test_counts_are_added_over_images_not_averaged(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[0, 1]])
    write_mask(predicted, "b", [[1] * 8])
    write_mask(tmp_path / "true", "a", [[1, 0]])
    write_mask(tmp_path / "true", "b", [[1] * 8])
    # class 1: 8 hits, 9 true, 9 predicted -> 8/10; the mean over images would be 1/2
    assert evaluate_folder(predicted, tmp_path / "true").iou[1] == pytest.approx(0.8)


def test_voc_masks_are_renumbered_and_other_classes_ignored(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cow", "cat"])  # another order
    write_mask(predicted, "a", [[1, 2, 1, 0]])
    truth = tmp_path / "VOC" / "SegmentationClass"
    write_mask(truth, "a", [[10, 8, 15, 255]])  # cow, cat, person, ignore
    for folder in (tmp_path / "VOC", truth):
        report = evaluate_folder(predicted, folder)
        assert report.iou[1:] == (1.0, 1.0)
        assert report.miou == 1.0  # the wrong prediction on the person does not count


def test_truth_with_its_own_classes_file_is_matched_by_name(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat", "cow"])
    write_mask(predicted, "a", [[1, 2]])
    truth = mask_folder(tmp_path / "true", ["dog", "cow", "cat"])
    write_mask(truth, "a", [[3, 2]])
    assert evaluate_folder(predicted, truth).iou[1:] == (1.0, 1.0)


def test_masks_of_other_programs_need_class_names(tmp_path: Path) -> None:
    write_mask(tmp_path / "predicted", "a", PREDICTED)
    write_mask(tmp_path / "true", "a", TRUE)
    with pytest.raises(DataError, match=r"nothing says which class.*; write .*classes\.json"):
        evaluate_folder(tmp_path / "predicted", tmp_path / "true")
    report = evaluate_folder(tmp_path / "predicted", tmp_path / "true", class_names=["cat", "cow"])
    assert report.iou == pytest.approx(IOU)
    assert report.class_source is None


def voc_with_lists(root: Path) -> Path:
    for name in ("a", "b"):
        write_mask(root / "SegmentationClass", name, [[8, 0]])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "one.txt").write_text("a\nwithout_mask\n")
    return root


def test_a_split_limits_the_true_masks(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[1, 0]])
    root = voc_with_lists(tmp_path / "VOC")
    report = evaluate_folder(predicted, root, split="one")
    assert (report.images, report.settings["split"]) == (1, "one")
    with pytest.raises(DataError, match=r"no such list\. Did you mean 'one'\?"):
        evaluate_folder(predicted, root, split="on")
    published = tmp_path / "published.txt"
    published.write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    assert evaluate_folder(predicted, root, split=str(published)).images == 1


def test_the_split_of_the_predictions_is_the_default(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"], split="one")
    write_mask(predicted, "a", [[1, 0]])
    assert evaluate_folder(predicted, voc_with_lists(tmp_path / "VOC")).images == 1


def test_a_text_file_of_names_is_a_split_too(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[1]])
    write_mask(tmp_path / "true", "a", [[1]])
    write_mask(tmp_path / "true", "b", [[1]])
    (tmp_path / "names.txt").write_text("a\n")
    split = str(tmp_path / "names.txt")
    assert evaluate_folder(predicted, tmp_path / "true", split=split).images == 1


def test_a_missing_prediction_is_named_unless_limited(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[1]])
    for name in ("a", "b"):
        write_mask(tmp_path / "true", name, [[1]])
    with pytest.raises(DataError, match=r"predicted/b\.png: no prediction for the true mask"):
        evaluate_folder(predicted, tmp_path / "true")
    assert evaluate_folder(predicted, tmp_path / "true", limited=True).images == 1


def test_folders_without_common_masks_are_rejected(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(tmp_path / "true", "a", [[1]])
    with pytest.raises(DataError, match="no mask for any"):
        evaluate_folder(predicted, tmp_path / "true", limited=True)
    with pytest.raises(DataError, match="gone: no such folder"):
        evaluate_folder(tmp_path / "gone", tmp_path / "true")
    with pytest.raises(DataError, match="gone: no such folder"):
        evaluate_folder(predicted, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no masks"):
        evaluate_folder(predicted, tmp_path / "empty")


def test_different_sizes_name_both_files(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[1, 1]])
    write_mask(tmp_path / "true", "a", [[1]])
    with pytest.raises(DataError, match=r"predicted/a\.png is 2 x 1 px, .*true/a\.png is 1 x 1 px"):
        evaluate_folder(predicted, tmp_path / "true")


def test_an_unknown_value_is_named_with_its_file(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "a", [[1]])
    write_mask(tmp_path / "true", "a", [[7]])
    with pytest.raises(DataError, match=r"true/a\.png: pixel value 7"):
        evaluate_folder(predicted, tmp_path / "true")


def test_a_class_that_the_truth_lacks_is_rejected(tmp_path: Path) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cta"])
    write_mask(tmp_path / "VOC" / "SegmentationClass", "a", [[8]])
    with pytest.raises(DataError, match=r"no class 'cta' of the predictions\. Did you mean 'cat'"):
        evaluate_folder(predicted, tmp_path / "VOC")


def test_counts_equal_a_loop_over_the_files_for_every_format_and_thread_count(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 3, 255], dtype=np.uint8)
    pairs, expected = [], np.zeros((256, 256), dtype=np.int64)
    for index in range(40):
        masks = rng.choice(values, (2, 9, 8 + index))
        paths = [tmp_path / f"{kind}{index}.png" for kind in ("true", "predicted")]
        picture = PILImage.fromarray(masks[0])
        if index % 2:
            picture = picture.convert("P")  # indices as they are, rows unfiltered
        picture.save(paths[0])
        PILImage.fromarray(masks[1]).save(paths[1], optimize=index % 3 == 0)
        np.add.at(expected, tuple(masks), 1)
        pairs.append(MaskPair(*paths))
    for workers in (1, 2, 5):
        np.testing.assert_array_equal(count_files(pairs, 3, 3, workers).pairs, expected)


def test_every_file_with_an_unknown_value_is_named(tmp_path: Path) -> None:
    pairs = []
    for index in range(40):
        write_mask(tmp_path / "true", f"{index:02d}", [[0, 1]])
        write_mask(tmp_path / "predicted", f"{index:02d}", [[0, 9 if index == 33 else 1]])
        pairs.append(
            MaskPair(*(tmp_path / one / f"{index:02d}.png" for one in ("true", "predicted")))
        )
    with pytest.raises(DataError, match=r"predicted/33\.png: pixel value 9 is no class"):
        count_files(pairs, 1, 2, 2)


def test_objects_are_scored_by_true_area_with_the_classes_of_the_predictions(
    tmp_path: Path,
) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cow", "cat"])  # another order than VOC
    truth = tmp_path / "VOC" / "SegmentationClass"
    # Cat: 1 of 1 true pixel, 2 predicted -> 1/2; cow: 2 of 3 true, 2 predicted -> 2/3. A person is
    # not a class of the predictions, so that its pixels and what is predicted on them do not count.
    write_mask(predicted, "a", [[2, 2, 1, 1, 0, 1, 0]])
    write_mask(truth, "a", [[8, 0, 10, 10, 10, 15, 255]])
    # Two areas of cow are one object: 4 true, 1 predicted and hit -> 1/4.
    write_mask(predicted, "b", [[1, 0, 0, 0, 0, 0, 0]])
    write_mask(truth, "b", [[10, 10, 0, 0, 0, 10, 10]])
    # 6 true, 5 predicted elsewhere, none in common; a predicted 255 belongs to no object.
    write_mask(predicted, "c", [[1, 255, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2]])
    write_mask(truth, "c", [[8, 8, 8, 8, 8, 8, 255, 0, 0, 0, 0, 0]])
    report = evaluate_folder(predicted, tmp_path / "VOC", by_size=True)
    assert [part.objects for part in report.by_size] == [1, 1, 1, 1]
    assert [part.largest_px for part in report.by_size] == [1, 3, 4, 6]
    assert [part.iou for part in report.by_size] == pytest.approx([1 / 2, 2 / 3, 1 / 4, 0])
    assert [part.area_ratio for part in report.by_size] == pytest.approx([2, 2 / 3, 1 / 4, 5 / 6])
    assert evaluate_folder(predicted, tmp_path / "VOC").by_size == ()


@pytest.mark.real
def test_official_masks_score_1_against_themselves(tmp_path: Path) -> None:
    root = os.environ.get("TAG2MASK_VOC_ANIMALS")
    if root is None:
        pytest.skip("TAG2MASK_VOC_ANIMALS is not set")
    names = (Path(root) / "ImageSets" / "Segmentation" / "devval.txt").read_text().split()[:5]
    predicted = mask_folder(
        tmp_path / "predicted", ["cat", "cow", "dog", "horse", "person", "sheep"]
    )
    table = np.zeros(256, dtype=np.uint8)
    for value, voc in enumerate((8, 10, 12, 13, 15, 17), start=1):
        table[voc] = value
    for name in names:
        with PILImage.open(Path(root) / "SegmentationClass" / f"{name}.png") as picture:
            write_mask(predicted, name, table[np.asarray(picture)])
    report = evaluate_folder(predicted, Path(root), split="devval", limited=True)
    assert report.images == 5
    assert report.miou == 1.0


@pytest.mark.parametrize("limited", [False, True])
def test_nested_masks_against_flat_truth_are_named(tmp_path: Path, limited: bool) -> None:
    predicted = mask_folder(tmp_path / "predicted", ["cat"])
    write_mask(predicted, "lane1/a", [[0, 1]])
    write_mask(tmp_path / "true", "a", [[0, 1]])
    with pytest.raises(DataError, match=r"has lane1/a\.png where .*true has a\.png"):
        evaluate_folder(predicted, tmp_path / "true", limited=limited)
    write_mask(tmp_path / "true", "other", [[0, 1]])
    write_mask(predicted, "a", [[0, 1]])  # a flat one too: only `other` is missing
    with pytest.raises(DataError, match=r"no prediction for the true mask .*predict it too"):
        evaluate_folder(predicted, tmp_path / "true")
