"""mlcroissant validates the metadata and reads every record, image and mask."""

import numpy as np
import pytest
from tests.formats.conftest import scene_masks

mlcroissant = pytest.importorskip("mlcroissant")
pytestmark = pytest.mark.formats


@pytest.fixture
def dataset(export):
    folder = export("croissant", "data")
    return mlcroissant.Dataset(str(folder / "croissant.json"))


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_samples_are_read_with_image_and_mask(dataset):
    masks = scene_masks()
    found = {}
    for record in dataset.records("samples"):
        name = text(record["samples/mask"]).removeprefix("masks/").removesuffix(".png")
        assert text(record["samples/image"]) == f"images/{name}.jpg"
        found[name] = np.asarray(record["samples/mask_content"])
        assert record["samples/image_content"].size == found[name].shape[::-1]
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask)


def test_mask_values_are_named(dataset):
    names = {row["classes/value"]: text(row["classes/name"]) for row in dataset.records("classes")}
    assert names == {0: "background", 1: "cat", 2: "two words", 255: "ignore"}


def test_nothing_is_wrong_with_the_metadata(dataset):
    assert not dataset.metadata.ctx.issues.errors
