import dataclasses

import numpy as np
import pytest
import torch

from tag2mask.types import BACKGROUND, IGNORE, Batch, Prediction


def batch(mask: torch.Tensor | None) -> Batch:
    return Batch(
        image=torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        tags=torch.ones(1, 2),
        valid=torch.ones(1, 2, 2, dtype=torch.bool),
        name=["a"],
        mask=mask,
    )


def prediction(mask: np.ndarray) -> Prediction:
    image = np.full((*mask.shape, 3), 100, np.uint8)
    return Prediction(mask, ("cat", "dog"), {"cat": 0.9, "dog": 0.1}, "classifier", image)


def test_background_is_0_and_ignore_is_255():
    assert (BACKGROUND, IGNORE) == (0, 255)


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 2, 2, dtype=torch.int64)])
def test_batch_moves_all_its_tensors(mask):
    moved = batch(mask).to(torch.device("meta"))
    tensors = [
        getattr(moved, field.name)
        for field in dataclasses.fields(moved)
        if isinstance(getattr(moved, field.name), torch.Tensor)
    ]
    assert len(tensors) == (3 if mask is None else 4)
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.name == ["a"]


def test_batch_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch(None).name = ["b"]


def test_classes_with_pixels_are_listed_in_order():
    assert prediction(np.array([[2, 0], [255, 1]], np.uint8)).classes == ("cat", "dog")
    assert prediction(np.array([[2, 0], [255, 0]], np.uint8)).classes == ("dog",)
    assert prediction(np.array([[255, 0]], np.uint8)).classes == ()


def test_overlay_of_many_rows_equals_that_of_each_row():
    mask = np.random.default_rng(0).integers(0, 3, (600, 2)).astype(np.uint8)
    rows = [prediction(mask[row : row + 1]).overlay() for row in range(600)]
    np.testing.assert_array_equal(prediction(mask).overlay(), np.concatenate(rows))


def test_overlay_blends_object_pixels_with_their_color():
    overlay = prediction(np.array([[0, 1, 255]], np.uint8)).overlay(opacity=0.25)
    # class 1 is (255, 60, 60): 0.75 * 100 + 0.25 * 255 = 138.75, 0.75 * 100 + 0.25 * 60 = 90
    assert overlay.tolist() == [[[100, 100, 100], [139, 90, 90], [100, 100, 100]]]
    assert overlay.dtype == np.uint8
