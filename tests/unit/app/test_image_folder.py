import shutil

import pytest

from tag2mask.app.image_folder import open_image_folder
from tag2mask.errors import DataError
from tag2mask.inference.writer import MaskWriter


def test_a_tagged_folder_gives_images_with_tags(segmenter, data):
    folder = open_image_folder(segmenter, data)
    assert [image.name for image in folder.images] == ["lane1/a", "lane1/b", "lane2/a", "none"]
    assert [image.tags for image in folder.images] == [("cat",), ("cow",), ("dog",), ()]
    assert folder.masks == data / "masks"
    assert folder.source is not None


def test_a_folder_without_tags_needs_none_and_leaves_out_its_masks(segmenter, data):
    (data / "tags.csv").unlink()
    shutil.copytree(data / "images", data / "masks")
    for root in (data, data / "images"):
        folder = open_image_folder(segmenter, root)
        assert [image.name for image in folder.images][-1] == "none"
        assert len(folder.images) == 4
        assert {image.tags for image in folder.images} == {None}


def test_class_folders_are_tags(segmenter, data):
    (data / "tags.csv").unlink()
    (data / "images" / "none.png").unlink()
    (data / "images" / "lane1").rename(data / "images" / "cat")
    (data / "images" / "lane2").rename(data / "images" / "cow+dog")
    folder = open_image_folder(segmenter, data / "images")
    assert [image.tags for image in folder.images] == [("cat",), ("cat",), ("cow", "dog")]


def test_uncertainties_come_from_the_masks_of_label(segmenter, data, tmp_path):
    writer = MaskWriter(tmp_path / "labeled", segmenter.class_names, "tags", {})
    prediction = segmenter.label(data / "images" / "none.png", [])
    writer.write("none", prediction)
    folder = open_image_folder(segmenter, data, tmp_path / "labeled")
    known = {image.name: image.uncertainty for image in folder.images}
    assert known["lane1/a"] is None
    assert known["none"] == pytest.approx(prediction.uncertainty.total, abs=1e-5)


def test_other_layouts_have_no_folder_for_masks_unless_one_is_given(segmenter, data, tmp_path):
    (data / "images").rename(data / "JPEGImages")
    lists = data / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("none\n", encoding="utf-8")
    (data / "classes.json").write_text('{"classes": ["cat", "cow", "dog"]}', encoding="utf-8")
    (data / "tags.csv").write_text("image,tags\nnone,cat;cow;dog\n", encoding="utf-8")
    assert open_image_folder(segmenter, data).masks is None
    assert open_image_folder(segmenter, data, save=tmp_path / "own").masks == tmp_path / "own"


@pytest.mark.parametrize(
    ("root", "labeled", "reason"),
    [
        ("missing", None, "missing: no such folder"),
        ("empty", None, "contains no images"),
        ("data", "missing", "'tag2mask label' writes it"),
        ("data", "empty", "has no uncertainties"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(segmenter, data, root, labeled, reason):
    (data / "empty").mkdir()
    chosen = data if root == "data" else data / root
    with pytest.raises(DataError, match=reason):
        open_image_folder(segmenter, chosen, None if labeled is None else data / labeled)
