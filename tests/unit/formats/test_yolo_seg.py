from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as PILImage
from tests.unit.formats.conftest import drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.base import MaskCollection
from tag2mask.formats.yolo_seg import YOLOSeg


@pytest.fixture
def exported(masks: MaskCollection, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    YOLOSeg().write(masks, tmp_path / "out")
    return tmp_path / "out"


def test_labels_lie_where_ultralytics_reads_them(exported: Path) -> None:
    """`images` becomes `labels` in the path of an image, and its suffix `.txt`."""
    content = yaml.safe_load((exported / "data.yaml").read_text("utf-8"))
    assert content["names"] == {0: "cat", 1: "two words"}  # background has no index
    assert "path" not in content  # relative to the file
    images = sorted((exported / content["train"]).rglob("*.jpg"))
    assert len(images) == len(drawn_masks())
    for image in images:
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        assert label.is_file()
        assert (label.stat().st_size == 0) == (image.name == "none.jpg")


def test_a_square_has_its_four_corners_as_fractions(exported: Path) -> None:
    line = (exported / "labels" / "train" / "square.txt").read_text()
    index, *numbers = line.split()
    assert index == "0"
    corners = (np.array(numbers, dtype=float).reshape(4, 2) * 6).round(4)  # 6 x 6 px
    assert set(map(tuple, corners.tolist())) == {(1, 2), (4, 2), (4, 5), (1, 5)}


def write_dataset(folder: Path, lines: str, labels: str = "labels/train") -> Path:
    (folder / labels).mkdir(parents=True)
    (folder / labels / "a.txt").write_text(lines)
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    (folder / "pictures").mkdir()
    PILImage.new("RGB", (10, 4)).save(folder / "pictures" / "a.jpg")
    return folder


@pytest.mark.parametrize("labels", ["labels/train", "labels/val", "valid/labels", "labels"])
def test_the_smaller_polygon_lies_on_top(tmp_path: Path, labels: str) -> None:
    inner, outer = "1 .2 0 .4 0 .4 .5 .2 .5\n", "0 0 0 1 0 1 1 0 1\n"
    folder = write_dataset(tmp_path, inner + "\n" + outer, labels)
    ((name, mask),) = YOLOSeg().read(folder, folder / "pictures").masks
    expected = np.ones((4, 10), dtype=np.uint8)
    expected[:2, 2:4] = 2
    assert name == "a"
    assert np.array_equal(mask, expected)


def test_size_of_an_image_is_that_of_the_upright_one(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "")
    exif = PILImage.Exif()
    exif[0x0112] = 6
    PILImage.new("RGB", (10, 4)).save(folder / "pictures" / "a.jpg", exif=exif)
    ((_, mask),) = YOLOSeg().read(folder, folder / "pictures").masks
    assert mask.shape == (10, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 0 0 1 0 1 1", "line 2: is not a list of numbers"),
        ("2 0 0 1 0 1 1", "line 2: class 2 has no name; data.yaml names 0 to 1"),
        ("0 .5 .5 1 1", r"line 2: has 4 coordinates after the class.*\(4 make a box"),
        ("0 0 0 1 0 1 1 1", "line 2: has 7 coordinates"),
        ("0 0 0 10 0 10 10", "line 2: coordinates must be fractions from 0 to 1"),
        ("0 0 0 nan 0 1 1", "line 2: coordinates must be fractions"),
    ],
)
def test_faulty_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = write_dataset(tmp_path, f"\n{line}\n")
    with pytest.raises(DataError, match=message):
        list(YOLOSeg().read(folder, folder / "pictures").masks)


def test_labels_without_image_need_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt: there is no image.*--images DIR"):
        list(YOLOSeg().read(write_dataset(tmp_path, "")).masks)
