import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.unit.formats.conftest import CLASSES, SCORES, drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.collection import open_masks


def test_images_keep_name_file_size_scores_and_mask(write_masks: Callable[..., Path]) -> None:
    collection = open_masks(write_masks())
    assert collection.class_names == CLASSES
    assert collection.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert (collection.class_source, collection.settings) == ("tags", {"background": 0.4})
    assert [image.name for image in collection] == sorted(drawn_masks())
    for image in collection:
        mask = drawn_masks()[image.name]
        assert image.file_name == f"{image.name}.jpg"
        assert (image.height, image.width) == mask.shape
        assert image.scores == SCORES
        assert image.uncertainty is None
        assert image.image_path is not None
        assert np.array_equal(image.load(), mask)


def test_images_folder_replaces_the_recorded_one(
    write_masks: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_masks()
    (tmp_path / "images").rename(tmp_path / "moved")
    missing = open_masks(folder)
    assert all(image.image_path is None for image in missing)
    assert missing.images[1].file_name == "lane1/ring.jpg"  # known without the file
    with pytest.raises(DataError, match=r"full\.jpg: the image is missing.*--images DIR"):
        missing.images[0].image_file("yolo_seg")
    found = open_masks(folder, tmp_path / "moved")
    assert found.images[1].image_file("yolo_seg") == tmp_path / "moved" / "lane1" / "ring.jpg"
    shutil.rmtree(tmp_path / "moved" / "lane1")
    with pytest.raises(DataError, match=r"moved: there is no image for lane1/ring; "):
        open_masks(folder, tmp_path / "moved")


def test_masks_without_recorded_images_need_the_folder(
    write_masks: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_masks()
    (folder / "scores.jsonl").unlink()
    with pytest.raises(DataError, match=r"image files of full, lane1/ring, lane2/parts and 2 more"):
        open_masks(folder)
    assert open_masks(folder, tmp_path / "images").images[0].scores == {}


def test_folder_without_masks_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_masks(tmp_path / "typo")
    with pytest.raises(DataError, match="write masks first: tag2mask label"):
        open_masks(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["cat"]}')
    with pytest.raises(DataError, match=r"contains no masks, only classes\.json"):
        open_masks(tmp_path)
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as a mask"):
        open_masks(tmp_path, tmp_path)


def test_flat_names_are_refused_where_two_images_would_share_one(
    write_masks: Callable[..., Path],
) -> None:
    flat = open_masks(write_masks()).flattened()
    assert [image.file_name for image in flat] == [
        "full.jpg", "ring.jpg", "parts.jpg", "none.jpg", "square.jpg"
    ]  # fmt: skip
    mask = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match=r"a/x\.jpg and b/x\.jpg would share the name x without"):
        open_masks(write_masks({"a/x": mask, "b/x": mask})).flattened()


def test_most_uncertain_images_come_first(write_masks: Callable[..., Path]) -> None:
    folder = write_masks()
    with pytest.raises(DataError, match=r"no uncertainty of full \(one of 5\)"):
        open_masks(folder).most_uncertain(2)
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    uncertain = {"none": 0.0, "square": 0.9, "full": 0.2, "lane1/ring": 0.4, "lane2/parts": 0.1}
    for row in rows:
        row["uncertainty"] = uncertain[row["name"]]
    (folder / "scores.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    chosen = open_masks(folder).most_uncertain(2)
    assert [image.name for image in chosen] == ["square", "lane1/ring"]
