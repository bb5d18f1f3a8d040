import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.unit.formats.conftest import drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.base import MaskCollection
from tag2mask.formats.cvat import CVAT, number_objects


@pytest.fixture
def exported(masks: MaskCollection, tmp_path: Path) -> Path:
    CVAT().write(masks, tmp_path / "masks.zip")
    return tmp_path / "masks.zip"


def replaced(path: Path, changes: dict[str, str | bytes | None]) -> Path:
    """A copy of a zip with changed members; None removes one."""
    changed = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = changes.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return changed


def test_every_color_is_declared_and_images_are_listed(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        assert archive.read("labelmap.txt").decode().splitlines() == [
            "# label:color_rgb:parts:actions",
            "background:0,0,0::",
            "cat:128,0,0::",
            "two words:0,128,0::",
        ]
        listed = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert listed == ["full", "lane1/ring", "lane2/parts", "none", "square"]
        for folder in ("SegmentationClass", "SegmentationObject"):
            for name in listed:
                with PILImage.open(io.BytesIO(archive.read(f"{folder}/{name}.png"))) as image:
                    assert image.mode == "RGB"


def test_parts_are_objects_of_their_own() -> None:
    objects = number_objects(drawn_masks()["lane2/parts"], 2)
    assert objects.tolist() == [
        [2, 2, 2, 0, 0, 0, 0, 0],
        [2, 2, 2, 0, 0, 0, 0, 0],
        [0, 0, 0, 3, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 4, 4, 4],
        [1, 0, 0, 0, 0, 4, 4, 4],
    ]


def test_more_parts_than_colors_share_one_color_per_class() -> None:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[::2, ::2] = 1  # 400 parts
    mask[1, 1] = 2
    mask[37:40, 37:40] = 2  # the largest
    objects = number_objects(mask, 2)
    assert np.array_equal(objects > 0, mask > 0)
    assert objects.max() <= 255
    for number in range(1, 256):
        assert len(np.unique(mask[objects == number])) <= 1  # no object has two classes
    assert objects[38, 38] == 1


def test_colors_of_another_label_map_are_read_by_name(exported: Path) -> None:
    labels = "background:0,128,0::\n\n# mine\ntwo words:1,2,3::\ncat:128,0,0::\n"
    mask = np.array([[[1, 2, 3], [128, 0, 0], [0, 128, 0], [0, 0, 0], [224, 224, 192]]])
    buffer = io.BytesIO()
    PILImage.fromarray(mask.astype(np.uint8)).save(buffer, format="PNG")
    changes: dict[str, str | bytes | None] = {
        f"SegmentationClass/{name}.png": None for name in drawn_masks()
    }
    changes |= {"labelmap.txt": labels, "SegmentationClass/square.png": buffer.getvalue()}
    found = CVAT().read(replaced(exported, changes))
    assert found.class_names == ("two words", "cat")
    ((name, values),) = found.masks  # the others have neither mask nor size
    assert (name, values.tolist()) == ("square", [[1, 2, 0, 0, 255]])


def test_listed_image_without_mask_is_background_if_its_size_is_known(
    exported: Path, tmp_path: Path
) -> None:
    changed = replaced(exported, {"SegmentationClass/lane1/ring.png": None})
    assert "lane1/ring" not in dict(CVAT().read(changed).masks)
    masks = dict(CVAT().read(changed, tmp_path / "images").masks)
    assert masks["lane1/ring"].shape == (7, 9)
    assert not masks["lane1/ring"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelmap.txt": None}, r"contains no labelmap\.txt"),
        ({"labelmap.txt": "cat\n"}, r"labelmap\.txt line 1: needs NAME:R,G,B::, not 'cat'"),
        ({"labelmap.txt": "cat:128,0,0::\n"}, r"full\.png: color 0,128,0 is missing"),
        ({"SegmentationClass/full.png": b"x"}, r"full\.png: cannot be read as a mask"),
    ],
)
def test_damaged_zip_is_one_line(
    exported: Path, changes: dict[str, str | bytes | None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list(CVAT().read(replaced(exported, changes)).masks)


@pytest.mark.parametrize("name", ["a:b", "#1", "background"])
def test_name_that_the_label_map_cannot_express_is_refused(
    masks: MaskCollection, tmp_path: Path, name: str
) -> None:
    named = MaskCollection((name, "dog"), masks.palette, masks.images)
    with pytest.raises(DataError, match=f"class '{name}'.*cannot express"):
        CVAT().write(named, tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background:0,0,0::\ncat:1,2,300::", "line 2: a color has parts from 0 to 255"),
        ("background:0,0,0::\ncat:1,2,3::\ndog:1,2,3::", "line 3: the color occurs twice"),
        ("background:0,0,0::\ncat:1,2,3::\ncat:1,2,4::", "line 3: 'cat' occurs twice"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_label_map_that_means_two_things_is_refused(
    exported: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        CVAT().read(replaced(exported, {"labelmap.txt": text}))


def test_every_cut_of_a_zip_is_one_line(exported: Path) -> None:
    content = exported.read_bytes()
    for end in range(0, len(content), len(content) // 40):
        exported.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"masks\.zip: .*") as caught:
            list(CVAT().read(exported).masks)
        assert len(caught.value.problems) == 1
