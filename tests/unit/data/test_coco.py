import numpy as np
import pytest
from PIL import Image
from tests.unit.data.coco_file import annotation, document, square, usual, write_data

from tag2mask.data.coco import COCO, COCO_CLASSES, COCOConfig, coco_splits
from tag2mask.data.coco_annotations import read_annotations
from tag2mask.data.validation import check_folder
from tag2mask.errors import DataError, NothingHeldOutError
from tag2mask.io.masks import save_mask


def _open(root, part="train", **options):
    return COCO(COCOConfig(name="coco", root=root, **options), part)


NAMES = ("COCO_train2014_000000000009", "COCO_train2014_000000000025")


def test_images_with_annotations_have_tags_and_masks(tmp_path):
    path = write_data(tmp_path, gray=(25,))
    source = _open(tmp_path)
    assert source.names == NAMES
    assert source.class_names == ("person", "dog", "toothbrush")
    np.testing.assert_array_equal(source.tags, [[1, 1, 1], [1, 1, 0]])
    assert source.has_masks
    assert source[1].image.shape == (6, 8, 3)
    assert abs(int(source[1].image.mean()) - 125) <= 1
    for index in range(2):
        np.testing.assert_array_equal(source[index].mask, read_annotations(path).mask(index))
    source.reads_masks = False
    assert source[0].mask is None


def test_images_without_annotation_are_negatives_if_asked_for(tmp_path):
    write_data(tmp_path)
    source = _open(tmp_path, keep_empty=True)
    assert source.names == (*NAMES, "COCO_train2014_000000000030")
    assert not source.tags[2].any()
    assert not source[2].mask.any()


def test_chosen_classes_are_renumbered_and_others_ignored(tmp_path):
    write_data(tmp_path)
    source = _open(tmp_path, classes=("toothbrush", "dog"))
    np.testing.assert_array_equal(source.tags, [[1, 1], [0, 1]])
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:4, :4] = 2
    expected[2:6, 2:6] = 255
    expected[0, 7] = 255
    expected[4:, 5] = 1
    np.testing.assert_array_equal(source[0].mask, expected)


def test_held_out_split_has_the_classes_of_the_training_split(tmp_path):
    write_data(tmp_path, document([annotation(1, 9, 18, [square(0, 0, 2, 2)])]))
    held = document([annotation(1, 9, 1, [square(0, 0, 2, 2)])], year="val2014")
    write_data(tmp_path, held, split="val2014")
    options = {"val_split": "val2014"}
    assert _open(tmp_path, "train", **options).class_names == ("dog",)
    source = _open(tmp_path, "val", **options)
    assert (source.class_names, source.names) == (("dog",), ("COCO_val2014_000000000009",))
    assert (source[0].mask[:2, :2] == 255).all()
    assert _open(tmp_path, "val2014").names == source.names
    with pytest.raises(NothingHeldOutError, match=r"set data\.val_split"):
        _open(tmp_path, "val")


def test_twelve_digits_stand_for_the_long_name_and_back(tmp_path):
    write_data(tmp_path)
    folder = tmp_path / "train2014"
    for path in folder.iterdir():
        path.rename(folder / path.name.removeprefix("COCO_train2014_"))
    assert _open(tmp_path).names == ("000000000009", "000000000025")
    found = usual()
    for image in found["images"]:
        image["file_name"] = f"{image['id']:012d}.jpg"
    other = tmp_path / "other"
    write_data(other, found)
    for path in (other / "train2014").iterdir():
        path.rename(path.with_name(f"COCO_train2014_{path.name}"))
    assert _open(other).names == NAMES


@pytest.mark.parametrize("position", ["images/train2014", "JPEGImages/train", "pictures"])
def test_images_are_found_in_other_folders(tmp_path, position):
    write_data(tmp_path)
    (tmp_path / position).parent.mkdir(exist_ok=True)
    (tmp_path / "train2014").rename(tmp_path / position)
    options = {"images": "pictures"} if position == "pictures" else {}
    assert _open(tmp_path, **options).names == NAMES


def test_json_beside_the_images_is_a_split(tmp_path):
    path = write_data(tmp_path, split="train")
    path.rename(tmp_path / "train" / "_annotations.coco.json")
    assert coco_splits(tmp_path) == ["train"]
    assert _open(tmp_path, split="train").names == NAMES
    assert _open(tmp_path, split="train/_annotations.coco.json").names == NAMES


def test_layout_of_published_code_is_read_without_json(tmp_path):
    write_data(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "train2014").rename(tmp_path / "JPEGImages" / "train")
    (tmp_path / "annotations" / "instances_train2014.json").unlink()
    (tmp_path / "SegmentationClass" / "train").mkdir(parents=True)
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[0] = COCO_CLASSES.index("toothbrush") + 1
    assert mask[0, 0] == 80
    save_mask(mask, tmp_path / "SegmentationClass" / "train" / f"{NAMES[0]}.png")
    rows = ["image,tags", f"train/{NAMES[0]}.jpg,toothbrush;cat"]
    (tmp_path / "tags.csv").write_text("\n".join(rows))
    source = _open(tmp_path)
    assert source.names == NAMES[:1]
    assert source.class_names == ("cat", "toothbrush")
    assert (source[0].mask[0] == 2).all()
    assert len(_open(tmp_path, keep_empty=True)) == 3
    (tmp_path / "tags.csv").write_text(f"image,tags\n{NAMES[0]},toohtbrush\n")
    with pytest.raises(DataError, match=r"unknown class 'toohtbrush' .* Did you mean 'toothbrush'"):
        _open(tmp_path)


@pytest.mark.parametrize("stated", [(6, 4), (4, 6)])
def test_masks_are_turned_with_the_image(tmp_path, stated):
    """An image of 6x4 stored pixels that is to be shown turned by a quarter, thus as 4x6."""
    width, height = stated
    note = annotation(1, 9, 1, [square(0, 0, 2, 1)])
    write_data(tmp_path, document([note], images=((9, width, height),)))
    stored = np.zeros((4, 6, 3), dtype=np.uint8)
    if stated == (6, 4):
        stored[0, :2] = 255
    else:
        stored[2:, 0] = 255  # the upper left of the upright image, two wide
    picture = Image.fromarray(stored)
    exif = picture.getexif()
    exif[0x0112] = 6
    name = "COCO_train2014_000000000009"
    (tmp_path / "train2014" / f"{name}.jpg").unlink()
    picture.save(tmp_path / "train2014" / f"{name}.png", exif=exif)
    sample = _open(tmp_path)[0]
    assert sample.image.shape == (6, 4, 3)
    np.testing.assert_array_equal(sample.mask == 1, sample.image[..., 0] == 255)


def test_an_image_of_another_size_is_reported(tmp_path):
    write_data(tmp_path)
    Image.new("RGB", (9, 6)).save(tmp_path / "train2014" / f"{NAMES[1]}.jpg")
    source = _open(tmp_path)
    with pytest.raises(DataError, match=r"25\.jpg: the image is 9x6 px, but 8x6 px by .*\.json"):
        source[1]
    assert any("9x6 px, but 8x6" in line for line in check_folder(tmp_path).problems)


def test_missing_images_are_named(tmp_path):
    write_data(tmp_path)
    (tmp_path / "train2014" / f"{NAMES[1]}.jpg").unlink()
    with pytest.raises(DataError, match=r"json: 1 image not in .*train2014: COCO_train2014_.*25"):
        _open(tmp_path)


def test_unknown_split_names_the_known(tmp_path):
    write_data(tmp_path)
    with pytest.raises(DataError, match=r"Did you mean 'train2014'\? Known: train2014"):
        _open(tmp_path, "train2017")
    with pytest.raises(DataError, match=r"x\.json: no such file"):
        _open(tmp_path, "x.json")
    with pytest.raises(DataError, match=r"no such folder \(data\.root\)"):
        _open(tmp_path / "none")


def _sizes(report):
    return {name: len(part.names) for name, part in report.parts.items()}


def test_check_covers_all_splits(tmp_path):
    write_data(tmp_path)
    held = document([annotation(1, 9, 1, [square(0, 0, 2, 2)])], year="val2014")
    write_data(tmp_path, held, split="val2014")
    report = check_folder(tmp_path)
    assert (report.source, report.problems) == ("coco", ())
    assert _sizes(report) == {"train2014": 3, "val2014": 3}
    assert (report.images, report.masks, report.negatives) == (6, 6, 3)
    assert report.classes == {"dog": 2, "person": 3, "toothbrush": 1}


def test_doctor_leaves_out_a_split_without_images(tmp_path):
    write_data(tmp_path)
    held = document([annotation(1, 9, 1, [square(0, 0, 2, 2)])], year="val2014")
    write_data(tmp_path, held, split="val2014")
    for path in (tmp_path / "val2014").iterdir():
        path.unlink()
    report = check_folder(tmp_path)
    assert (_sizes(report), report.problems) == ({"train2014": 3, "val2014": 0}, ())
