"""Which images a run learns from, and where their masks come from."""

import numpy as np
import pytest

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.true_masks import open_training_images
from tag2mask.errors import DataError
from tag2mask.io.masks import save_mask
from tag2mask.types import Sample

TRUE, PSEUDO = 1, 2


class Six(Source):
    """Six images; those that the test chooses have a true mask of value 1."""

    Config = DataConfig
    chosen = (1, 4)

    def __init__(self, config, split):
        assert split == "train"  # held-out images are never opened
        self.class_names = ("cat", "dog")
        self.names = tuple("abcdef")
        self.tags = np.arange(12, dtype=np.uint8).reshape(6, 2) % 2
        self.has_masks = len(self.chosen) == 6
        self.masked = () if self.has_masks else self.chosen

    def __getitem__(self, index):
        image = np.full((4, 6, 3), index, dtype=np.uint8)
        has_mask = self.reads_masks and index in self.mask_indices
        mask = np.full((4, 6), TRUE, dtype=np.uint8) if has_mask else None
        return Sample(self.names[index], image, self.tags[index], mask)


@pytest.fixture
def six(monkeypatch):
    monkeypatch.setattr(plugins, "load", lambda package, name: Six)
    return Six


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "classes.json").write_text('{"classes": ["cat", "dog"]}')
    for name in "abcdef":
        save_mask(np.full((4, 6), PSEUDO, dtype=np.uint8), tmp_path / f"{name}.png")
    return tmp_path


def open_images(learns_from_masks, **keys):
    return open_training_images(DataConfig(name="six", **keys), learns_from_masks=learns_from_masks)


def masks(source):
    return [
        None if (mask := source[i].mask) is None else int(mask[0, 0]) for i in range(len(source))
    ]


def test_by_default_true_masks_are_for_scores(six):
    images = open_images(False)
    assert (images.reads_masks, images.true_masks, images.unused_masks) == (False, (), 2)
    assert len(images.source) == 6


def test_a_method_that_learns_from_tags_keeps_all_images_and_reads_the_true_masks(six, labels):
    for keys in ({}, {"labels": labels}):
        images = open_images(False, true_masks="train", **keys)
        assert (images.reads_masks, tuple(images.true_masks)) == (True, (1, 4))
        assert masks(images.source) == [None, TRUE, None, None, TRUE, None]
        assert images.unused_masks == 0


def test_a_method_that_learns_from_masks_takes_pseudo_labels_where_there_is_no_true_mask(
    six, labels
):
    images = open_images(True, true_masks="train", labels=labels)
    assert masks(images.source) == [PSEUDO, TRUE, PSEUDO, PSEUDO, TRUE, PSEUDO]
    assert (images.source.has_masks, images.true_masks) == (True, (1, 4))
    only = open_images(True, labels=labels)
    assert masks(only.source) == [PSEUDO] * 6
    assert only.true_masks == ()


def test_without_pseudo_labels_it_learns_from_the_images_with_masks_alone(six):
    images = open_images(True, true_masks="train")
    assert images.source.names == ("b", "e")
    assert masks(images.source) == [TRUE, TRUE]
    np.testing.assert_array_equal(images.source.tags, [[0, 1], [0, 1]])
    images.source.reads_masks = False
    assert masks(images.source) == [None, None]


def test_leaving_out_images_must_be_asked_for(six):
    with pytest.raises(DataError, match=r"not every image .* data\.true_masks=train .* 2 of 6"):
        open_images(True)


def test_all_masks_need_no_key(six, monkeypatch):
    monkeypatch.setattr(six, "chosen", tuple(range(6)))
    assert masks(open_images(True).source) == [TRUE] * 6
    assert tuple(open_images(False, true_masks="train").true_masks) == tuple(range(6))


def test_no_mask_at_all_is_an_error(six, monkeypatch):
    monkeypatch.setattr(six, "chosen", ())
    with pytest.raises(DataError, match=r"data\.true_masks: none of the 6 training images"):
        open_images(False, true_masks="train")
