import hashlib
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.checks.tag_advice import tag_advice
from tag2mask.data.index import DatasetIndex
from tag2mask.data.validation import check_folder


def _image(path, size=(3, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = tuple(
        hashlib.sha256(path.name.encode()).digest()[:3]
    )  # the content depends on the name
    Image.new("RGB", size, color).save(path)


def _picture(path, seed):
    """Write a smooth random image, 80x60 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(rough).resize((80, 60), Image.Resampling.BICUBIC).save(path, quality=92)


def _folder(root, rows):
    """Write images and `tags.csv` for name -> tags."""
    for name in rows:
        _image(root / "images" / f"{name}.png")
    lines = ["image,tags", *(f"{name}.png,{tags}" for name, tags in rows.items())]
    (root / "tags.csv").write_text("\n".join(lines))


def _save_mask(path, indices):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(indices, dtype=np.uint8)).save(path)


def test_the_statistics_of_a_valid_folder_are_correct(tmp_path):
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
    train, val = report.parts["train"], report.parts["val"]
    assert len(train.names) + len(val.names) == 45
    assert not set(train.names) & set(val.names)
    assert train.classes["cat"] + val.classes["cat"] == 40
    assert report.pairs == (("cat", "dog", 20),)
    assert (report.problems, report.warnings) == ((), ())


def test_tags_that_cannot_be_learned_give_warnings(tmp_path):
    _folder(tmp_path, {"a": "field;cow;grass", "b": "field;cow;grass", "c": "field;Cow;background"})
    warnings = "\n".join(check_folder(tmp_path).warnings)
    assert "class 'field': every image shows it" in warnings
    assert "class 'cow': every image" not in warnings
    assert "'cow' and 'grass' always occur together" in warnings
    assert "'cow' and 'field'" not in warnings
    assert "'Cow', 'cow' differ only in case" in warnings
    assert "tag 'background' would be learned" in warnings
    assert (
        "fewer than 10 images: Cow (1), background (1), cow (2), grass (2), field (3)" in warnings
    )


def test_duplicates_are_found_by_content(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "", "c": "cat"})
    content = (tmp_path / "images" / "a.png").read_bytes()
    (tmp_path / "images" / "c.png").write_bytes(content)
    assert any("1 group of equal images: a = c" in line for line in check_folder(tmp_path).warnings)


def test_unreadable_images_are_warnings_or_with_strict_problems(tmp_path):
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


def test_all_problems_are_reported_at_once(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "dog", "c": ""})
    _image(tmp_path / "images" / "stranger.png")
    _save_mask(tmp_path / "masks" / "a.png", [[0, 1, 7], [0, 0, 0]])
    _save_mask(tmp_path / "masks" / "b.png", [[0, 1]])
    report = check_folder(tmp_path)
    assert len(report.problems) == 3
    problems = "\n".join(report.problems)
    assert "1 image without row: stranger.png" in problems
    assert "a.png: pixel value 7 is no class" in problems
    assert "b.png: the mask has 2x1 px, but its image has 3x2 px" in problems
    assert any("2 of 4 images have a mask" in line for line in report.notes)


def test_long_lists_of_problems_are_shortened_with_a_count(tmp_path):
    rows = {f"p{i:02}": "cat" for i in range(14)}
    _folder(tmp_path, rows)
    for name in rows:
        _save_mask(tmp_path / "masks" / f"{name}.png", [[9, 9, 9], [9, 9, 9]])
    problems = check_folder(tmp_path).problems
    assert len(problems) == 11
    assert problems[-1] == "and 4 more unusable masks"


def test_masks_without_classes_give_a_warning(tmp_path):
    _folder(tmp_path, {"a": "cat"})
    _save_mask(tmp_path / "masks" / "a.png", [[0, 255, 255], [0, 0, 0]])
    assert any("no mask contains a class" in line for line in check_folder(tmp_path).warnings)
    _save_mask(tmp_path / "masks" / "a.png", [[0, 1, 255], [0, 0, 0]])
    assert not any("no mask contains a class" in line for line in check_folder(tmp_path).warnings)


def test_an_unreadable_data_set_has_one_problem(tmp_path):
    assert "no such folder" in check_folder(tmp_path / "nowhere").problems[0]
    assert "contains no images" in check_folder(tmp_path).problems[0]
    (tmp_path / "JPEGImages").mkdir()
    report = check_folder(tmp_path)
    assert report.source == "voc"
    assert "no list" in report.problems[0]


def test_voc_layout_is_recognized_and_its_lists_are_counted(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("a", "b", "c"):
        _image(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,dog\nc.jpg,cat;dog\n")
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    report = check_folder(tmp_path)
    assert {name: part.names for name, part in report.parts.items()} == {
        "train": ("a", "b"),
        "val": ("c",),
    }
    assert report.classes == {"cat": 2, "dog": 2}
    unused = next(line for line in report.notes if line.startswith("no image shows"))
    assert "aeroplane" in unused
    assert "cat" not in unused
    assert report.problems == ()


def test_one_folder_with_every_mistake_names_each(tmp_path, monkeypatch):
    """Class folders of distinct pictures, each mistake with a name of its own."""
    for index in range(12):
        _picture(tmp_path / "cat" / f"c{index}.jpg", index)
        _picture(tmp_path / "dog" / f"d{index}.jpg", 20 + index)
    copies = {
        "dog/c0.jpg": "cat/c0.jpg",  # in two class folders
        "_negative/d0.jpg": "dog/d0.jpg",  # shows a dog after all
        "cat/c1_copy.jpg": "cat/c1.jpg",
    }
    for copy, original in copies.items():
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    _picture(tmp_path / "dgo" / "typo.jpg", 50)
    _picture(tmp_path / "cat+dog" / "both.jpg", 51)
    with Image.open(tmp_path / "cat" / "c2.jpg") as picture:
        picture.resize((40, 30)).save(tmp_path / "dog" / "c2_small.jpg", quality=60)
    _save_mask(tmp_path / "dog" / "d1_mask.png", np.eye(20, dtype=np.uint8) * 7)
    _save_mask(tmp_path / "dog" / "d3.png", np.eye(20, dtype=np.uint8))
    (tmp_path / "dog" / "d2.jpg").write_bytes((tmp_path / "dog" / "d2.jpg").read_bytes()[:-200])
    (tmp_path / "cat" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("clip.mp4", "more.zip", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr("tag2mask.data.checks.other_files.can_read_heif", lambda: False)
    report = check_folder(tmp_path)
    found = {}
    for line in report.advice:
        found.setdefault(line.kind, []).append(line)
    # d3.png and d3.jpg would share one mask: that alone stops training.
    assert report.problems == (found["index"][0].message,)
    assert "d3.png" in report.problems[0]
    assert found["typo"][0].names == ("dgo/typo",)
    assert found["merged"][0].message.startswith("2 images in several class folders")
    assert set(found["merged"][0].names) == {"cat/c0", "dog/c0", "_negative/d0", "dog/d0"}
    assert set(found["contradiction"][0].names) == {"_negative/d0", "dog/d0"}
    assert found["duplicates"][0].names == ("cat/c1", "cat/c1_copy")
    near = found["duplicates_with_other_tags"][0]
    assert set(near.names) == {"cat/c2", "dog/c2_small"}
    assert "in a folder 'cat+dog'" in near.message
    assert {name for line in found["mask_like"] for name in line.names} == {
        "dog/d1_mask",
        "dog/d3.png",
    }
    unreadable = {
        name for kind in ("unreadable", "heic") for line in found[kind] for name in line.names
    }
    assert unreadable == {"dog/d2", "cat/phone"}
    assert {name for line in found["other_files"] for name in line.names} == {
        "clip.mp4",
        "more.zip",
        "notes.txt",
    }
    assert report.classes["cat"] == 15  # 12 (c0.jpg once), phone.heic, c1_copy.jpg and both.jpg
    assert report.files["_negative/d0"] == tmp_path / "_negative" / "d0.jpg"


def test_a_class_whose_images_cannot_be_read_stops_training(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "dog", "c": "dog"})
    (tmp_path / "images" / "a.png").write_bytes(b"text")
    assert any("no training image of cat" in line for line in check_folder(tmp_path).problems)


def test_five_thousand_tags_take_seconds(tmp_path):
    rows = {f"i{n}": f"tag {n:04}x;tag {(n * 7) % 5000:04}x" for n in range(5000)}
    tags = {name: tuple(row.split(";")) for name, row in rows.items()}
    index = DatasetIndex(where="tags.csv", images={}, tags=tags, masks={})
    start = time.process_time()
    kinds = Counter(line.kind for line in tag_advice(index))
    assert time.process_time() - start < 10
    assert kinds["few_images"] == 1


def test_a_file_in_place_of_the_folder_names_the_folder(tmp_path):
    _folder(tmp_path, {"a": "cat"})
    assert (
        f"give the folder that contains it: {tmp_path}"
        in check_folder(tmp_path / "tags.csv").problems[0]
    )


def test_progress_counts_every_image(tmp_path):
    _folder(tmp_path, {"a": "cat", "b": "dog"})
    calls = []
    check_folder(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_checking_does_not_import_torch():
    code = "import sys, tag2mask.data.validation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_voc_animals_has_no_problems(voc_animals):
    report = check_folder(voc_animals)
    assert report.problems == ()
    assert (report.images, report.unreadable, report.masks) == (3131, 0, 437)
    numbers = {name: len(part.names) for name, part in report.parts.items()}
    assert numbers == {"devval": 100, "train": 337, "train_aug": 3031}
    assert not any(line.kind == "leakage" for line in report.advice)
