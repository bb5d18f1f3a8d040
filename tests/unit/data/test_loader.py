"""Batches do not depend on the number of workers, and ranks load disjoint parts of a batch."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.loader import Batches, batches
from tag2mask.errors import DataError, RunError
from tag2mask.types import Batch, Sample

CONFIG = DataConfig(name="numbered", crop_px=32)
STRICT = DataConfig(name="numbered", crop_px=32, strict=True)


class Numbered(Source):
    """Image i is uniformly gray i + 1; every pixel of its mask is i; its tags are the bits of i."""

    Config = DataConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        self.class_names = ("one", "two", "four", "eight")
        count = int(split)
        self.names = tuple(f"image{i}" for i in range(count))
        self.tags = np.array(
            [[(i >> bit) & 1 for bit in range(4)] for i in range(count)], np.uint8
        ).reshape(count, 4)
        self.has_masks = True
        self.unreadable: frozenset[int] = frozenset()
        self.fatal: int | None = None

    def __getitem__(self, index: int) -> Sample:
        if index in self.unreadable:
            raise DataError(f"image{index}.jpg: not an image")
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        image = np.full((40, 50, 3), index + 1, np.uint8)
        mask = np.full((40, 50), index, np.uint8) if self.reads_masks else None
        return Sample(self.names[index], image, self.tags[index], mask)


def source(count: int = 10) -> Numbered:
    return Numbered(CONFIG, str(count))


def take(iterator: Batches, count: int) -> list[Batch]:
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def names(taken: list[Batch]) -> list[str]:
    return [name for batch in taken for name in batch.name]


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert names(first) == names(second)
    for one, two in zip(first, second, strict=True):
        for field in ("image", "tags", "valid"):
            torch.testing.assert_close(getattr(one, field), getattr(two, field), rtol=0, atol=0)


def test_the_fields_of_a_batch_have_the_right_types_and_match() -> None:
    (batch,) = take(batches(source(), CONFIG, batch_size=3, seed=1, workers=0, masks=True), 1)
    assert batch.image.shape == (3, 3, 32, 32)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous()
    assert batch.tags.dtype == torch.float32
    assert batch.valid.dtype == torch.bool
    assert batch.mask is not None
    assert batch.mask.dtype == torch.int64
    max_tags = 0
    for row, name in enumerate(batch.name):
        number = int(name.removeprefix("image"))
        bits = [(number >> bit) & 1 for bit in range(4)]
        max_tags = max(max_tags, sum(bits))
        assert batch.tags[row].tolist() == bits
        valid = batch.valid[row]
        assert valid.any()
        assert (batch.image[row][:, valid] == number + 1).all()
        assert (batch.image[row][:, ~valid] == 0).all()
        assert (batch.mask[row][valid] == number).all()
        assert (batch.mask[row][~valid] == 255).all()
    assert batch.max_tags == max_tags


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(workers: int) -> None:
    expected = take(batches(source(), CONFIG, batch_size=4, seed=3, workers=0), 7)
    loaded = take(batches(source(), CONFIG, batch_size=4, seed=3, workers=workers), 7)
    assert_same(expected, loaded)


def test_start_resumes_exactly() -> None:
    complete = take(batches(source(), CONFIG, batch_size=4, seed=3, workers=0), 8)
    resumed = take(batches(source(), CONFIG, batch_size=4, seed=3, workers=2, start=5), 3)
    assert_same(complete[5:], resumed)


def test_a_late_batch_size_does_not_change_the_order_of_images() -> None:
    sizes = {"batch_size": 3, "late_batch_size": 7, "late_from": 2}
    grown = take(batches(source(), CONFIG, seed=3, workers=0, **sizes), 4)
    assert [len(batch.name) for batch in grown] == [3, 3, 7, 7]
    single = take(batches(source(), CONFIG, batch_size=1, seed=3, workers=0), 20)
    assert names(grown) == names(single)
    together = torch.cat([batch.image for batch in grown])
    torch.testing.assert_close(together, torch.cat([batch.image for batch in single]))


@pytest.mark.parametrize("start", [1, 2, 3])
def test_start_resumes_exactly_before_and_after_late_from(start: int) -> None:
    sizes = {"batch_size": 2, "late_batch_size": 5, "late_from": 2, "rank": 1, "world": 2}
    complete = take(batches(source(), CONFIG, seed=3, workers=0, **sizes), 5)
    resumed = take(batches(source(), CONFIG, seed=3, workers=0, start=start, **sizes), 5 - start)
    assert_same(complete[start:], resumed)


def test_ranks_divide_late_batches() -> None:
    sizes = {"batch_size": 1, "late_batch_size": 3, "late_from": 2, "world": 2}
    ranks = [
        take(batches(source(12), CONFIG, seed=3, workers=0, rank=rank, **sizes), 3)
        for rank in range(2)
    ]
    single = take(batches(source(12), CONFIG, batch_size=1, seed=3, workers=0), 10)
    loaded = [name for pair in zip(*ranks, strict=True) for batch in pair for name in batch.name]
    assert loaded == names(single)


def test_every_epoch_shows_every_image_once_in_a_different_order() -> None:
    # 10 images in batches of 4: epochs end inside batches 2 and 7, two epochs are 5 batches.
    shown = names(take(batches(source(), CONFIG, batch_size=4, seed=3, workers=0), 5))
    first, second = shown[:10], shown[10:]
    assert sorted(first) == sorted(second) == sorted(source().names)
    assert first != second


def test_a_different_seed_gives_a_different_order() -> None:
    orders = {
        tuple(names(take(batches(source(), CONFIG, batch_size=5, seed=seed, workers=0), 2)))
        for seed in range(4)
    }
    assert len(orders) == 4


def test_an_image_is_cropped_differently_in_each_epoch() -> None:
    padded = DataConfig(name="numbered", crop_px=128)
    first, second = take(batches(source(1), padded, batch_size=1, seed=3, workers=0), 2)
    assert (first.valid != second.valid).any()


def test_ranks_together_load_what_one_process_loads() -> None:
    single = take(batches(source(), CONFIG, batch_size=4, seed=3, workers=0), 5)
    ranks = [
        take(batches(source(), CONFIG, batch_size=2, seed=3, workers=0, rank=rank, world=2), 5)
        for rank in range(2)
    ]
    for batch, left, right in zip(single, *ranks, strict=True):
        assert list(batch.name) == [*left.name, *right.name]
        torch.testing.assert_close(batch.image, torch.cat([left.image, right.image]))


def test_masks_are_decoded_only_if_needed() -> None:
    class NoMask(Numbered):
        def __getitem__(self, index: int) -> Sample:
            assert not self.reads_masks
            return super().__getitem__(index)

    original = NoMask(CONFIG, "5")
    (batch,) = take(batches(original, CONFIG, batch_size=2, seed=0, workers=0), 1)
    assert batch.mask is None
    assert original.reads_masks  # the caller's source is unchanged


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_by_the_next_and_recorded(workers: int) -> None:
    damaged = source(6)
    damaged.unreadable = frozenset({2, 3})
    good = take(batches(source(6), CONFIG, batch_size=3, seed=3, workers=0), 2)
    iterator = batches(damaged, CONFIG, batch_size=3, seed=3, workers=workers)
    replaced = list(itertools.islice(iterator, 2))
    iterator.close()
    replacement = {"image2": "image4", "image3": "image4"}
    assert names(replaced) == [replacement.get(name, name) for name in names(good)]
    assert iterator.skipped == {
        "image2": "image2.jpg: not an image",
        "image3": "image3.jpg: not an image",
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_rejected_with_strict(workers: int) -> None:
    damaged = source(4)
    damaged.unreadable = frozenset({2})
    with pytest.raises(DataError, match=r"^image2\.jpg: not an image$"):
        take(batches(damaged, STRICT, batch_size=4, seed=3, workers=workers), 1)


def test_a_source_without_readable_images_is_rejected_in_one_line() -> None:
    damaged = source(3)
    damaged.unreadable = frozenset(range(3))
    with pytest.raises(DataError, match=r"^none of the 3 images can be read; .*not an image$"):
        take(batches(damaged, CONFIG, batch_size=2, seed=3, workers=1), 1)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset"), EOFError()])
def test_a_connection_that_a_dead_worker_left_is_one_line(error: Exception) -> None:
    class Lost(Iterator[dict[str, Any]]):
        def __next__(self) -> dict[str, Any]:
            raise error

    iterator = batches(source(8), CONFIG, batch_size=2, seed=3, workers=0)
    iterator._iterator = Lost()
    with pytest.raises(RunError, match=r"^a data loader process died \(.+\), often[^\n]*$"):
        next(iterator)


def test_the_death_of_a_worker_is_raised_in_one_line_at_the_next_batch() -> None:
    fatal = source(8)
    fatal.fatal = 5
    iterator = batches(fatal, CONFIG, batch_size=8, seed=3, workers=1)
    time.sleep(0.5)  # the worker dies meanwhile; this line must not raise
    with pytest.raises(RunError, match=r"^a data loader process died .*run\.workers") as caught:
        next(iterator)
    assert "\n" not in str(caught.value)
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_bug_in_a_source_keeps_its_error_type() -> None:
    class Buggy(Numbered):
        def __getitem__(self, index: int) -> Sample:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        take(batches(Buggy(CONFIG, "3"), CONFIG, batch_size=2, seed=0, workers=1), 1)


def test_an_empty_source_is_rejected() -> None:
    with pytest.raises(DataError, match="no image"):
        batches(source(0), CONFIG, batch_size=2, seed=0)


def test_missing_masks_are_rejected() -> None:
    tagged = source()
    tagged.has_masks = False
    with pytest.raises(DataError, match="learns from masks, and no image has one"):
        batches(tagged, CONFIG, batch_size=2, seed=0, masks=True)


class SomeMasks(Numbered):
    """Only images 2, 5 and 6 have a mask."""

    def __init__(self, config: DataConfig, split: str) -> None:
        super().__init__(config, split)
        self.has_masks = False
        self.masked = (2, 5, 6)

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return sample if index in self.masked else dataclasses.replace(sample, mask=None)


def favoring(share: float = 0.5, **changed: Any) -> dict[str, Any]:
    """Return the arguments of batches that favor the images with a mask."""
    arguments = {"batch_size": 4, "seed": 3, "workers": 0, "masks": True, **changed}
    return {**arguments, "favored": (2, 5, 6), "favored_share": share}


def test_images_without_mask_are_ignored_everywhere_and_rows_with_one_are_named() -> None:
    taken = take(batches(SomeMasks(CONFIG, "10"), CONFIG, **favoring()), 6)
    for batch in taken:
        assert batch.mask is not None
        for row, name in enumerate(batch.name):
            number = int(name.removeprefix("image"))
            assert (row in batch.masked_rows) == (number in (2, 5, 6))
            expected = number if number in (2, 5, 6) else 255
            assert (batch.mask[row][batch.valid[row]] == expected).all()


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 2), (1.0, 4)])
def test_every_batch_has_its_share_of_favored_images(share: float, expected: int) -> None:
    taken = take(batches(SomeMasks(CONFIG, "10"), CONFIG, **favoring(share)), 6)
    favored = [name for batch in taken for name in batch.name[4 - expected :]]
    assert set(favored) == {"image2", "image5", "image6"}
    assert sorted(favored[:3]) == ["image2", "image5", "image6"]  # an epoch shows each once


def test_the_other_images_keep_their_order_beside_favored_ones() -> None:
    mixed = take(batches(SomeMasks(CONFIG, "10"), CONFIG, **favoring()), 5)
    plain = take(batches(source(), CONFIG, batch_size=2, seed=3, workers=0), 5)
    assert [batch.name[:2] for batch in mixed] == [batch.name for batch in plain]
    for one, other in zip(mixed, plain, strict=True):
        torch.testing.assert_close(one.image[:2], other.image)


@pytest.mark.parametrize("start", [1, 2, 4])
def test_favored_images_resume_exactly(start: int) -> None:
    growing = favoring(late_batch_size=7, late_from=2, rank=1, world=2)
    data = SomeMasks(CONFIG, "10")
    complete = take(batches(data, CONFIG, **growing), 6)
    resumed = take(batches(data, CONFIG, **growing, start=start), 6 - start)
    assert_same(complete[start:], resumed)


def test_ranks_load_different_favored_images() -> None:
    data = SomeMasks(CONFIG, "10")
    ranks = [
        take(batches(data, CONFIG, **favoring(batch_size=2, rank=rank, world=2)), 3)
        for rank in range(2)
    ]
    single = take(batches(data, CONFIG, **favoring(batch_size=4)), 3)
    for batch, left, right in zip(single, *ranks, strict=True):
        assert batch.name == (left.name[0], right.name[0], left.name[1], right.name[1])


def test_an_unreadable_favored_image_is_replaced_by_a_favored_one() -> None:
    damaged = SomeMasks(CONFIG, "10")
    damaged.unreadable = frozenset({5})
    taken = take(batches(damaged, CONFIG, **favoring()), 4)
    assert {name for batch in taken for name in batch.name[2:]} == {"image2", "image6"}


def test_loading_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(batches(source(), CONFIG, batch_size=2, seed=0, workers=1), 2)
    torch.testing.assert_close(torch.get_rng_state(), before)
