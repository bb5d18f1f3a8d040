import json

import numpy as np
import pytest

from tag2mask.config.schema import DataConfig
from tag2mask.data import pseudo_labels
from tag2mask.data.base import Source
from tag2mask.data.loader import batches
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.errors import DataError
from tag2mask.io.mask_folder import read_skipped, write_skipped
from tag2mask.io.masks import save_mask
from tag2mask.types import Sample

CONFIG = DataConfig(name="two", crop_px=32, scale_min=1, scale_max=1, flip=0)


class Two(Source):
    """A cat and, in a folder, a dog; its own masks must never be asked for."""

    Config = DataConfig

    def __init__(self, config, split):
        self.class_names = ("cat", "dog")
        self.names = ("a", "lane/b")
        self.tags = np.array([[1, 0], [0, 1]], dtype=np.uint8)
        self.has_masks = False
        self.skipped = ("broken",)

    def __getitem__(self, index):
        assert not self.reads_masks
        image = np.full((4, 6, 3), 60 + index, dtype=np.uint8)
        return Sample(self.names[index], image, self.tags[index])


def write_labels(folder, classes=("cat", "dog"), names=("a", "lane/b", "stranger"), size=(4, 6)):
    (folder / "lane").mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "class_source": "tags"}))
    for number, name in enumerate(names):
        mask = np.zeros(size, dtype=np.uint8)
        mask[0, :3] = (1, 2, 255)
        mask[1] = number
        save_mask(mask, folder / f"{name}.png")
    return folder


def test_masks_come_from_the_folder_and_all_else_from_the_source(tmp_path):
    source = Two(CONFIG, "train")
    both = PseudoLabelDataset(source, write_labels(tmp_path / "labels"))
    assert both.has_masks
    assert (both.class_names, both.names, both.skipped) == (
        ("cat", "dog"), ("a", "lane/b"), ("broken",),
    )  # fmt: skip
    np.testing.assert_array_equal(both.tags, source.tags)
    sample = both[1]
    assert sample.name == "lane/b"
    assert (sample.image == 61).all()
    np.testing.assert_array_equal(sample.mask, [[1, 2, 255, 0, 0, 0], [1] * 6, [0] * 6, [0] * 6])
    assert source.reads_masks  # the caller's source is as before


def test_classes_in_another_order_are_renumbered(tmp_path):
    both = PseudoLabelDataset(
        Two(CONFIG, "train"), write_labels(tmp_path / "labels", ("dog", "cat"))
    )
    np.testing.assert_array_equal(both[0].mask[0], [2, 1, 255, 0, 0, 0])


def test_no_mask_is_decoded_unless_asked_for(tmp_path, monkeypatch):
    both = PseudoLabelDataset(Two(CONFIG, "train"), write_labels(tmp_path / "labels"))
    (batch,) = [next(batches(both, CONFIG, batch_size=2, seed=1, workers=0, masks=True))]
    assert batch.mask is not None
    # Images of 4 x 6 px in a crop of 32: the rest is ignored.
    assert set(batch.mask[~batch.valid].tolist()) == {255}
    second = batch.name.index("lane/b")
    assert (batch.mask[second] == 1).sum() == 7

    def reject(*_):
        raise AssertionError("decoded a mask")

    monkeypatch.setattr(pseudo_labels, "read_mask", reject)
    (batch,) = [next(batches(both, CONFIG, batch_size=2, seed=1, workers=0))]
    assert batch.mask is None


def test_missing_masks_are_one_line(tmp_path):
    folder = write_labels(tmp_path / "labels", names=("a",))
    with pytest.raises(DataError, match=r"labels: 1 image without mask: lane/b; label") as caught:
        PseudoLabelDataset(Two(CONFIG, "train"), folder)
    assert "\n" not in str(caught.value)


def test_other_classes_are_rejected_with_both_lists(tmp_path):
    folder = write_labels(tmp_path / "labels", ("cat", "cow"))
    with pytest.raises(DataError, match=r"classes\.json: has the classes cat, cow, but cat, dog"):
        PseudoLabelDataset(Two(CONFIG, "train"), folder)


def test_a_folder_that_is_none_of_masks_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder \(data\.labels\)"):
        PseudoLabelDataset(Two(CONFIG, "train"), tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no classes\.json"):
        PseudoLabelDataset(Two(CONFIG, "train"), tmp_path)


def test_a_mask_of_another_size_is_rejected_with_its_file(tmp_path):
    both = PseudoLabelDataset(Two(CONFIG, "train"), write_labels(tmp_path / "labels", size=(4, 5)))
    with pytest.raises(DataError, match=r"a\.png: the mask is 5x4 px, its image 6x4 px"):
        both[0]


def test_images_that_could_not_be_read_are_left_out(tmp_path):
    folder = write_labels(tmp_path / "labels", names=("lane/b",))
    write_skipped(folder, ["a"])
    both = PseudoLabelDataset(Two(CONFIG, "train"), folder)
    assert (both.names, both.skipped, len(both)) == (("lane/b",), ("broken", "a"), 1)
    np.testing.assert_array_equal(both.tags, [[0, 1]])
    assert both[0].name == "lane/b"
    assert both[0].mask is not None
    write_skipped(folder, [])
    assert read_skipped(folder) == frozenset()
    with pytest.raises(DataError, match="1 image without mask: a"):
        PseudoLabelDataset(Two(CONFIG, "train"), folder)


def test_a_mask_that_came_later_counts(tmp_path):
    folder = write_labels(tmp_path / "labels")
    write_skipped(folder, ["a"])
    assert PseudoLabelDataset(Two(CONFIG, "train"), folder).names == ("a", "lane/b")
