from pathlib import Path

from tag2mask.data.layout import coco_splits, layout_hint, layout_of, voc_folder


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_each_layout_is_recognized(tmp_path):
    _touch(tmp_path / "coco" / "annotations" / "instances_val2017.json")
    _touch(tmp_path / "coco" / "train" / "_annotations.coco.json")
    _touch(tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg")
    _touch(tmp_path / "folder" / "cat" / "a.jpg")
    for name in ("coco", "voc", "folder"):
        assert layout_of(tmp_path / name) == name
    assert coco_splits(tmp_path / "coco") == ["train", "val2017"]
    assert voc_folder(tmp_path / "voc") == tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    assert layout_of(tmp_path / "missing") == "folder"


def test_a_hint_names_the_option_that_reads_the_folder(tmp_path):
    _touch(tmp_path / "JPEGImages" / "a.jpg")
    assert "add data.name=voc (" in layout_hint(tmp_path, "folder")
    assert layout_hint(tmp_path, "voc") == ""
