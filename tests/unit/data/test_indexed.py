"""The common base of sources with files, on a data set of three images."""

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
    """A source whose index is built by the test."""

    def __init__(self, config: DataConfig, split: str) -> None:
        raise NotImplementedError


def dataset_index(folder: Path, *, masks: bool = True) -> DatasetIndex:
    """Write images a, b, c of gray values 0, 1, 2, with masks of the same values."""
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


def select(index: DatasetIndex, classes: tuple[str, ...], *, learned: bool = False) -> Three:
    source = Three.__new__(Three)
    source._hold(index, classes, index.images, learned=learned, config=DataConfig(name="three"))
    return source


def test_names_tags_and_masks_keep_the_order_of_the_index(tmp_path):
    source = select(dataset_index(tmp_path), ("cat", "dog", "cow"))
    assert source.names == ("a", "b", "c")
    assert source.tags.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert source.has_masks
    assert source[2].image.tolist() == np.full((2, 3, 3), 2).tolist()
    assert np.unique(source[1].mask).tolist() == [1]


def test_pixels_of_classes_that_are_not_chosen_are_ignored(tmp_path):
    source = select(dataset_index(tmp_path), ("dog",))
    assert source.tags.tolist() == [[0], [1], [0]]
    assert [np.unique(source[index].mask).tolist() for index in range(3)] == [[0], [255], [1]]


def test_no_mask_is_decoded_if_it_is_missing_or_not_needed(tmp_path):
    assert select(dataset_index(tmp_path, masks=False), ("cat",))[0].mask is None
    source = select(dataset_index(tmp_path), ("cat",))
    source.reads_masks = False
    assert source[0].mask is None


def test_a_class_without_image_is_rejected_only_in_training(tmp_path):
    index = dataset_index(tmp_path)
    select(index, ("cat", "sheep"))
    with pytest.raises(DataError, match="sheep"):
        select(index, ("cat", "sheep"), learned=True)


def test_an_unreadable_image_is_left_out(tmp_path):
    index = dataset_index(tmp_path)
    (tmp_path / "b.png").write_text("text")
    source = select(index, ("cat",))
    assert source.names == ("a", "c")
    assert source.skipped == ("b",)


def test_chosen_classes_need_no_index_of_the_training_images(tmp_path):
    def not_called() -> DatasetIndex:
        raise AssertionError

    assert resolve_known_classes(("cow", "cat"), dataset_index(tmp_path), not_called) == (
        "cow",
        "cat",
    )
    with pytest.raises(DataError, match="horse"):
        resolve_known_classes(("horse",), dataset_index(tmp_path), not_called)


def test_the_default_classes_are_those_of_the_training_images_in_mask_order(tmp_path):
    training = DatasetIndex(
        "there", {}, {"x": ("cow", "cat")}, {}, mask_classes=("cat", "dog", "cow")
    )
    assert resolve_known_classes((), dataset_index(tmp_path), lambda: training) == ("cat", "cow")


def test_a_root_that_is_unset_or_missing_is_rejected(tmp_path):
    assert existing_root(tmp_path) == tmp_path
    with pytest.raises(DataError, match=r"add data\.root=DIR"):
        existing_root(None)
    with pytest.raises(DataError, match=r"nowhere: no such folder \(data\.root\)"):
        existing_root(tmp_path / "nowhere")
