"""What all sources with files share, on a data set of three images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config.schema import DataConfig
from tag2mask.data.index import DatasetIndex
from tag2mask.data.indexed import IndexedDataset, existing_root, resolve_known_classes
from tag2mask.errors import DataError

TAGS = {"a": ("cat",), "b": ("dog", "cow"), "c": ()}


class Three(IndexedDataset):
    """As a source would be, its survey made elsewhere."""

    def __init__(self, config: DataConfig, split: str) -> None:
        raise NotImplementedError


def dataset_index(folder: Path, *, masks: bool = True) -> DatasetIndex:
    """Images a, b, c, with masks of the value of their place in the alphabet."""
    for value, name in enumerate(TAGS):
        Image.fromarray(np.full((2, 3, 3), value, dtype=np.uint8)).save(folder / f"{name}.png")
        mask = Image.fromarray(np.full((2, 3), value, dtype=np.uint8))
        mask.save(folder / f"{name}_mask.png")
    return DatasetIndex(
        where="here",
        images={name: folder / f"{name}.png" for name in TAGS},
        tags=TAGS,
        masks={name: folder / f"{name}_mask.png" for name in TAGS if masks},
        mask_classes=("cat", "dog", "cow"),
    )


def held(found: DatasetIndex, classes: tuple[str, ...], *, learned: bool = False) -> Three:
    source = Three.__new__(Three)
    source._hold(found, classes, found.images, learned=learned, strict=False)
    return source


def test_names_tags_and_masks_come_in_the_order_of_the_index(tmp_path):
    source = held(dataset_index(tmp_path), ("cat", "dog", "cow"))
    assert source.names == ("a", "b", "c")
    assert source.tags.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert source.has_masks
    assert source[2].image.tolist() == np.full((2, 3, 3), 2).tolist()
    assert np.unique(source[1].mask).tolist() == [1]


def test_pixels_of_classes_that_are_not_chosen_are_ignored(tmp_path):
    source = held(dataset_index(tmp_path), ("dog",))
    assert source.tags.tolist() == [[0], [1], [0]]
    assert [np.unique(source[index].mask).tolist() for index in range(3)] == [[0], [255], [1]]


def test_no_mask_is_decoded_where_none_is_there_or_nobody_asks(tmp_path):
    assert held(dataset_index(tmp_path, masks=False), ("cat",))[0].mask is None
    source = held(dataset_index(tmp_path), ("cat",))
    source.reads_masks = False
    assert source[0].mask is None


def test_a_class_without_image_is_rejected_only_where_images_are_learned_from(tmp_path):
    found = dataset_index(tmp_path)
    held(found, ("cat", "sheep"))
    with pytest.raises(DataError, match="sheep"):
        held(found, ("cat", "sheep"), learned=True)


def test_an_unreadable_image_is_left_out(tmp_path):
    found = dataset_index(tmp_path)
    (tmp_path / "b.png").write_text("text")
    source = held(found, ("cat",))
    assert source.names == ("a", "c")
    assert source.skipped == ("b",)


def test_chosen_classes_are_taken_and_the_images_to_learn_from_not_looked_at(tmp_path):
    def unasked() -> DatasetIndex:
        raise AssertionError

    assert resolve_known_classes(("cow", "cat"), dataset_index(tmp_path), unasked) == ("cow", "cat")
    with pytest.raises(DataError, match="horse"):
        resolve_known_classes(("horse",), dataset_index(tmp_path), unasked)


def test_without_a_choice_it_is_what_the_images_to_learn_from_show_in_mask_order(tmp_path):
    learned = DatasetIndex(
        "there", {}, {"x": ("cow", "cat")}, {}, mask_classes=("cat", "dog", "cow")
    )
    assert resolve_known_classes((), dataset_index(tmp_path), lambda: learned) == ("cat", "cow")


def test_a_root_that_is_not_set_or_missing_is_told_in_one_line(tmp_path):
    assert existing_root(tmp_path) == tmp_path
    with pytest.raises(DataError, match=r"--data\.root DIR"):
        existing_root(None)
    with pytest.raises(DataError, match=r"nowhere: no such folder \(data\.root\)"):
        existing_root(tmp_path / "nowhere")
