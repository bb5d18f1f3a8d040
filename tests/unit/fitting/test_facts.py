import os
import zlib

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.data.folder import is_held_out
from tag2mask.errors import DataError
from tag2mask.fitting.facts import choose_lists, data_facts, machine_facts


def write(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(path.name.encode()))  # no two images are equal
    PILImage.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def test_folder_per_class_is_counted(tmp_path):
    for number in range(30):
        write(tmp_path / ("cat" if number % 3 else "dog") / f"{number}.png", (40 + number, 30))
    write(tmp_path / "_negative" / "none.png", (40, 31))  # equal files would be one image
    facts = data_facts(tmp_path)
    names = [f"{'cat' if number % 3 else 'dog'}/{number}" for number in range(30)]
    held_out = {name for name in [*names, "_negative/none"] if is_held_out(name, 0.1)}
    cats = [name for name in names if name.startswith("cat") and name not in held_out]
    assert facts.source == "folder"
    assert list(facts.classes) == ["cat", "dog"]
    assert facts.classes["cat"] == len(cats)
    assert facts.training_images + facts.held_out_images == 31
    assert facts.held_out_images == len(held_out)
    assert facts.negatives == 1 - ("_negative/none" in held_out)
    assert facts.long_side_px == 54  # the median of 40, 40, 41, ..., 69


def test_a_class_that_is_only_held_out_is_not_learned_and_groups_stay_together(tmp_path):
    plots = [f"plot {number}" for number in range(40)]
    held_out = next(plot for plot in plots if is_held_out(plot, 0.1))
    learned = next(plot for plot in plots if not is_held_out(plot, 0.1))
    rows = [
        f"{n}.png,{'cow' if n < 5 else 'cat'},{held_out if n < 5 else learned}" for n in range(9)
    ]
    for number in range(9):
        write(tmp_path / "images" / f"{number}.png", (40 + number, 30))
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags,group", *rows]))
    facts = data_facts(tmp_path)
    assert (facts.training_images, facts.held_out_images) == (4, 5)
    assert facts.classes == {"cat": 4}


def test_voc_layout_is_read_by_its_lists(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in "abc":
        write(tmp_path / "JPEGImages" / f"{name}.jpg")
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,\nc.jpg,cat\n")
    facts = data_facts(tmp_path)
    assert (facts.source, facts.training_images, facts.held_out_images) == ("voc", 2, 1)
    assert facts.lists == {"split": "train", "val_split": "val"}
    assert (facts.classes, facts.negatives) == ({"cat": 1}, 1)


def test_problems_of_the_data_stop_the_fitting(tmp_path):
    write(tmp_path / "images" / "a.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat\nb.png,dog\n")
    with pytest.raises(DataError, match=r"1 row without image: b\.png"):
        data_facts(tmp_path)
    with pytest.raises(DataError, match="nothing"):
        data_facts(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["devval", "train", "train_aug"], {"split": "train_aug", "val_split": "devval"}),
        (["train2017", "val2017"], {"split": "train2017", "val_split": "val2017"}),
        (["test", "train", "valid"], {"split": "train", "val_split": "valid"}),
        (["trainval"], {"split": "trainval"}),
        (["all"], {"split": "all"}),
    ],
)
def test_lists_are_chosen_by_their_names(names, chosen):
    assert choose_lists(names) == chosen


def test_machine_has_cores_and_memory():
    machine = machine_facts()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_gib > 0.5
