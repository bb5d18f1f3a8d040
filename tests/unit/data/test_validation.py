import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.validation import check_folder


def _image(path, size=(3, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = tuple(hashlib.sha256(path.name.encode()).digest()[:3])  # contents differ by name
    Image.new("RGB", size, color).save(path)


def _folder(root, rows):
    """Write images and `tags.csv` for name -> tags."""
    for name in rows:
        _image(root / "images" / f"{name}.png")
    lines = ["image,tags", *(f"{name}.png,{tags}" for name, tags in rows.items())]
    (root / "tags.csv").write_text("\n".join(lines))


def _save_mask(path, indices):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(indices, dtype=np.uint8)).save(path)


def test_healthy_folder_is_counted_by_hand(tmp_path):
    rows = {f"c{i}": "cat" for i in range(20)} | {f"d{i}": "dog;cat" for i in range(20)} | {"n": ""}
    _folder(tmp_path, rows | {f"e{i}": "dog" for i in range(4)})
    _image(tmp_path / "images" / "n.png", (30, 10))
    _image(tmp_path / "images" / "c0.png", (1, 1))
    _image(tmp_path / "images" / "c1.png", (40, 2))  # longer, but smaller by area
    report = check_folder(tmp_path)
    assert report.source == "folder"
    assert (report.images, report.unreadable, report.negatives, report.masks) == (45, 0, 1, 0)
    assert report.classes == {"cat": 40, "dog": 24}
    assert report.share("dog") == pytest.approx(24 / 45)
    assert report.tags_per_image == {0: 1, 1: 24, 2: 20}
    assert report.sizes == ((1, 1), (3, 2), (30, 10))
    assert set(report.parts) == {"train", "val"}
    assert sum(report.parts.values()) == 45
    assert (report.problems, report.warnings) == ((), ())


def test_what_tags_cannot_teach_is_warned_of(tmp_path):
    _folder(tmp_path, {"a": "field;cow;grass", "b": "field;cow;grass", "c": "field;Cow;background"})
    warnings = "\n".join(check_folder(tmp_path).warnings)
    assert "class 'field': every image shows it" in warnings
    assert "class 'cow': every image" not in warnings
    assert "'cow' and 'grass' always occur together" in warnings
    assert "'cow' and 'field'" not in warnings
    assert "'Cow', 'cow' differ in case only" in warnings
    assert "tag 'background' would be learned" in warnings
    assert (
        "fewer than 20 images: Cow (1), background (1), cow (2), field (3), grass (2)" in warnings
    )


def test_twins_are_found_by_content(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "", "c": "cat"})
    twin = (tmp_path / "images" / "a.png").read_bytes()
    (tmp_path / "images" / "c.png").write_bytes(twin)
    assert any("equal content: a = c" in line for line in check_folder(tmp_path).warnings)


def test_unreadable_images_are_counted_and_a_problem_when_strict(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": ""})
    path = tmp_path / "images" / "b.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 0xFF  # damage that only decoding finds
    path.write_bytes(content)
    lenient, strict = check_folder(tmp_path), check_folder(tmp_path, strict=True)
    assert lenient.unreadable == strict.unreadable == 1
    assert any("b.png" in line for line in lenient.warnings)
    assert not lenient.problems
    assert any("b.png" in line for line in strict.problems)


def test_every_problem_is_told_in_one_go(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "dog", "c": ""})
    _image(tmp_path / "images" / "stranger.png")
    _save_mask(tmp_path / "masks" / "a.png", [[0, 1, 7], [0, 0, 0]])
    _save_mask(tmp_path / "masks" / "b.png", [[0, 1]])
    report = check_folder(tmp_path)
    assert len(report.problems) == 3
    problems = "\n".join(report.problems)
    assert "1 image without row: stranger.png" in problems
    assert "a.png: pixel value 7 is no class" in problems
    assert "b.png: the mask is 2x1 px, its image 3x2 px" in problems
    assert any("2 of 4 images have a mask" in line for line in report.warnings)


def test_many_problems_of_one_kind_are_cut_with_their_count(tmp_path):
    rows = {f"p{i:02}": "cat" for i in range(14)}
    _folder(tmp_path, rows)
    for name in rows:
        _save_mask(tmp_path / "masks" / f"{name}.png", [[9, 9, 9], [9, 9, 9]])
    problems = check_folder(tmp_path).problems
    assert len(problems) == 11
    assert problems[-1] == "and 4 more unusable masks"


def test_masks_of_zeros_and_255_are_warned_of(tmp_path):
    _folder(tmp_path, {"a": "cat"})
    _save_mask(tmp_path / "masks" / "a.png", [[0, 255, 255], [0, 0, 0]])
    assert any("no mask shows a class" in line for line in check_folder(tmp_path).warnings)
    _save_mask(tmp_path / "masks" / "a.png", [[0, 1, 255], [0, 0, 0]])
    assert not any("no mask shows a class" in line for line in check_folder(tmp_path).warnings)


def test_data_that_cannot_be_read_at_all_have_one_problem(tmp_path):
    assert "no such folder" in check_folder(tmp_path / "nowhere").problems[0]
    assert "holds no images" in check_folder(tmp_path).problems[0]
    (tmp_path / "JPEGImages").mkdir()
    report = check_folder(tmp_path)
    assert report.source == "voc"
    assert "no list" in report.problems[0]


def test_voc_layout_is_recognised_and_lists_are_counted(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("a", "b", "c"):
        _image(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,dog\nc.jpg,cat;dog\n")
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    report = check_folder(tmp_path)
    assert report.parts == {"train": 2, "val": 1}
    assert report.classes == {"cat": 2, "dog": 2}
    unseen = next(line for line in report.warnings if line.startswith("no image shows"))
    assert "aeroplane" in unseen
    assert "cat" not in unseen
    assert report.problems == ()


def test_checking_needs_no_torch():
    code = "import sys, tag2mask.data.validation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_voc_animals_is_healthy(voc_animals):
    report = check_folder(voc_animals)
    assert report.problems == ()
    assert (report.images, report.unreadable, report.masks) == (3131, 0, 437)
    assert report.parts == {"devval": 100, "train": 337, "train_aug": 3031}
