from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.errors import DataError
from tag2mask.inference.tagged_folder import open_source, reject_unknown_tags


def recipe(name: str) -> Recipe:
    raw = {
        "data": {"name": name, "classes": ["cat", "dog"]},
        "backbone": {"name": "mit"},
        "method": {"name": "cam"},
    }
    return parse_recipe(raw, "r")


def random_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        random_image(tmp_path / "own" / "images" / f"{name}.png")
    (tmp_path / "own" / "tags.csv").write_text("image,tags\na,cat\nb,bird\nc,\n", encoding="utf-8")
    return tmp_path / "own"


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "voc"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in "ab":
        random_image(root / "JPEGImages" / f"{name}.jpg")
    (lists / "train_aug.txt").write_text("a\nb\n", encoding="utf-8")
    (lists / "train.txt").write_text("b\n", encoding="utf-8")
    (root / "tags.csv").write_text("image,tags\na,cat\nb,dog\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("trained_on", ["folder", "voc", "synthetic"])
def test_all_images_of_a_folder_are_labeled_whatever_the_run_trained_on(trained_on, folder):
    if trained_on == "synthetic":
        raw = parse_recipe(
            {"data": {"name": "synthetic"}, "backbone": {"name": "mit"}, "method": {"name": "cam"}},
            "r",
        ).with_classes(["cat", "dog"])
    else:
        raw = recipe(trained_on)
    source, split = open_source(raw, folder, None, {})
    assert source.names == ("a", "b", "c")
    assert source.class_names == ("cat", "dog")
    assert source.tags.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert split == "all"


@pytest.mark.parametrize(
    ("split", "names", "part"),
    [
        (None, ("a", "b"), "train_aug"),
        ("train", ("b",), "train"),
        ("train_aug", ("a", "b"), "train_aug"),
    ],
)
def test_split_of_a_voc_folder_names_its_list(split, names, part, voc):
    source, opened = open_source(recipe("folder"), voc, split, {})
    assert (source.names, opened) == (names, part)


def test_data_keys_can_be_overridden(folder):
    overrides = {"data.val_fraction": "1"}
    assert len(open_source(recipe("folder"), folder, "val", overrides)[0]) == 3


def test_missing_folder_is_rejected(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_source(recipe("folder"), tmp_path / "gone", None, {})


def test_tags_that_the_run_does_not_know_are_named_with_their_counts(folder):
    for name in "de":
        random_image(folder / "images" / f"{name}.png")
    tags = "image,tags\na,cat\nb,bird;dgo\nc,\nd,dog;bird\ne,cat\n"
    (folder / "tags.csv").write_text(tags, encoding="utf-8")
    source, _ = open_source(recipe("folder"), folder, None, {})
    assert source.unknown_tags == {"bird": 2, "dgo": 1}
    with pytest.raises(DataError) as caught:
        reject_unknown_tags(source, folder)
    text = str(caught.value)
    assert "'bird' (2 images), 'dgo' (1 image) Did you mean 'dog'?" in text
    assert "It knows: cat, dog." in text
    assert "--skip-unknown-tags" in text
    assert "\n" not in text


def test_known_tags_are_accepted(voc):
    source, _ = open_source(recipe("folder"), voc, None, {})
    assert source.unknown_tags == {}
    reject_unknown_tags(source, voc)
